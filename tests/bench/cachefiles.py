"""What the kernel's cachefiles interface costs beside Holdfast's own socket: round trips, and a cold image.

A round trip is one read of a range that is missing: the reader's pread, the READ, the bytes that the daemon
copies from a local file, its READ_COMPLETE and the answer.  `socket` is the example fetcher on device.sock, `preload`
the C client of tests/cachefiles under `holdfast cachefiles-run`, `static` the same as a static program, `exact` that one
under `--exact-ids`, and `linked` it with the calls of <holdfast/cachefiles.h>.  The cold image is an EROFS mount that dd
reads from the start to the end: through the same client, and through holdfast-fetcherd from a file:// origin.
The contenders take turns; medians are printed.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import images  # noqa: E402
from harness.case import unmet  # noqa: E402
from harness.holdfast import BIN  # noqa: E402
from harness.machine import Machine  # noqa: E402
from harness.readers import drop_page_cache  # noqa: E402
from harness.sandbox import Sandbox, wait_until  # noqa: E402

STRIDE = 4 << 20  # Far enough for the kernel's and the daemon's read-ahead to see no sequence.
CLIENT = os.path.join(BIN, "cachefiles_client")


class Turn:
    """A daemon with an empty cache, what serves it, and the object `image` of `source`."""

    def __init__(self, box, name, face, source, flags=()):
        self.device = box.path(name + "-cachefiles")
        device_flags = () if face in ("socket", "fetcherd") else ("--cachefiles-device=" + self.device,)
        origins = {"v": "file://" + os.path.dirname(source) + "/"} if face == "fetcherd" else {}
        self.machine = Machine(box, name, os.path.getsize(source) + (600 << 20), origins, flags=[*flags, *device_flags])
        self.machine.power_on()
        assert self.machine.start_daemon(), self.machine.last_words()
        self.server = getattr(self, "_" + face)(box, name, os.path.dirname(source))
        self.path = self.machine.acquire("v", os.path.basename(source))

    def _socket(self, box, name, directory):
        return box.start([os.path.join(BIN, "holdfast-example-fetcher"), os.path.join(self.machine.run, "device.sock"),
                          directory], stdout=subprocess.DEVNULL)

    def _fetcherd(self, box, name, directory):
        self.machine.start_fetcher()
        return self.machine.fetcher

    def _preload(self, box, name, directory):
        return self._client(box, name, directory, os.path.join(BIN, "holdfast"), "cachefiles-run", "--", CLIENT)

    def _static(self, box, name, directory):
        return self._client(box, name, directory, CLIENT + "_static")

    def _exact(self, box, name, directory):
        return self._client(box, name, directory, os.path.join(BIN, "holdfast"), "cachefiles-run", "--static", "--exact-ids",
                            "--cachefiles-device=" + self.device, "--", CLIENT + "_static")

    def _linked(self, box, name, directory):
        return self._client(box, name, directory, CLIENT + "_linked")

    def _client(self, box, name, directory, *words):
        log = box.path(name + "-client.log")
        with open(log, "wb") as out:
            server = box.start([*words, self.device, box.make_directory(name, "client"), directory, "bind"], stdout=out)
        wait_until(lambda: os.path.getsize(log) > 0, 20, "the client is ready")
        return server

    def close(self):
        self.machine.kill(self.server, self.machine.daemon)
        self.machine.box.run(["umount", "-l", os.path.join(self.machine.run, "fuse")])
        self.machine.box.run(["umount", "-l", self.device])
        self.machine.box.run(["umount", self.machine.disk.path])
        os.unlink(self.machine.disk.image)


def round_trips(box, name, face, source, length, count):
    """Microseconds of each."""
    turn = Turn(box, name, face, source, ("--fetch-exact", "--readahead-max=0"))
    times = []
    fd = os.open(turn.path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    for i in range(count):
        start = time.perf_counter_ns()
        got = os.pread(fd, length, i * STRIDE)
        times.append((time.perf_counter_ns() - start) / 1000)
        assert len(got) == length
    os.close(fd)
    turn.close()
    return times


def cold(box, name, face, image, size):
    """MB/s of dd over the file in the image."""
    turn = Turn(box, name, face, image)
    where = box.make_directory(name + "-mnt")
    subprocess.run(["mount", "-t", "erofs", "-o", "ro", turn.path, where], check=True)
    drop_page_cache()
    with open(image, "rb") as f:
        while f.read(1 << 20):
            pass
    start = time.monotonic()
    subprocess.run(["dd", f"if={where}/000", "of=/dev/null", "bs=1M", "status=none"], check=True)
    seconds = time.monotonic() - start
    subprocess.run(["umount", where], check=True)
    turn.close()
    return size / 1e6 / seconds


def print_ratio(what, unit, figures, of, baseline):
    """`of`: the ratio is the baseline's figure by the contender's where less is better, else the reverse."""
    base = statistics.median(figures[baseline])
    print(f"\n{what}")
    for face, values in figures.items():
        middle = statistics.median(values)
        ratio = base / middle if of == "less" else middle / base
        low, high = min(values), sorted(values)[int(len(values) * 0.99)]
        print(f"  {face:10} {middle:8.0f} {unit}   (lowest {low:.0f}, p99 {high:.0f})   {ratio:.2f} of {baseline}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--count", type=int, default=200, help="round trips of a run")
    parser.add_argument("--size-mib", type=int, default=512)
    flags = parser.parse_args()
    reasons = unmet(("mkfs.erofs",))
    if reasons:
        sys.exit("cachefiles: cannot run here: " + ", ".join(reasons))
    with Sandbox("cachefiles-bench") as box:
        images.CACHE = box.make_directory("images")
        sparse = os.path.join(box.make_directory("sparse"), "image")
        with open(sparse, "wb") as f:
            f.truncate(flags.count * STRIDE)
        for length in (4096, 131072):
            figures = {"socket": [], "preload": [], "static": [], "exact": [], "linked": []}
            for run in range(flags.runs):
                for face, values in figures.items():
                    values += round_trips(box, f"{face}-{length}-{run}", face, sparse, length, flags.count)
            print_ratio(f"READ round trips of {length // 1024} KiB, {flags.runs} x {flags.count}", "us", figures, "less",
                        "socket")
        image, _ = images.random_image(1, flags.size_mib << 20)
        source = shutil.copy(image, os.path.join(box.make_directory("served"), "image"))
        figures = {"fetcherd": [], "preload": []}
        for run in range(flags.runs):
            for face, values in figures.items():
                values.append(cold(box, f"cold-{face}-{run}", face, source, flags.size_mib << 20))
        print_ratio(f"{flags.size_mib} MiB in an EROFS mount, cold, sequential, medians of {flags.runs}", "MB/s", figures,
                    "more", "fetcherd")


if __name__ == "__main__":
    main()
