"""The measurement behind tests/bench/cold.sh: see there.

Each contender reads the same file once, cold, in turn; five turns.  Before each: every cache of the contender
is new and empty, the kernel's page cache is dropped, and the origin's file is read back into it, so that what
is measured is the way from the origin's memory to the reader, through the contender's cache on disk.
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
from harness.holdfast import Holdfast  # noqa: E402
from harness.origins.nginx import Nginx  # noqa: E402
from harness.readers import drop_page_cache  # noqa: E402
from harness.sandbox import Sandbox, wait_until  # noqa: E402

# What s3fs asks of a public bucket, path style, beside the objects themselves.
BUCKET = """
    location = /files/ {
      default_type application/xml;
      if ($request_method = HEAD) { return 200; }
      return 200 '<ListBucketResult><Name>files</Name><IsTruncated>false</IsTruncated></ListBucketResult>';
    }
"""
FILE = "file.bin"


class CannotRun(Exception):
    pass


def read_all(path, size):
    """Seconds that `dd bs=1M` takes from open to the last byte."""
    start = time.monotonic()
    done = subprocess.run(["dd", f"if={path}", "of=/dev/null", "bs=1M"], capture_output=True, text=True)
    seconds = time.monotonic() - start
    if done.returncode or f"{size} bytes" not in done.stderr:
        raise CannotRun(f"dd: {done.stderr.strip().splitlines()[-1]}")
    return seconds


class Bench:
    def __init__(self, box, source, delay_ms, pace=0, connections=0):
        self._box = box
        self._flags = (f"--fetcher-flag=--connections={connections}",) if connections else ()
        self._size = os.path.getsize(source)
        self._source = source
        root = box.make_directory("origin")
        for folder in ("files", "plain"):  # "files" is the bucket, "plain" has listings for rclone.
            link = os.path.join(box.make_directory("origin", folder), FILE)
            if os.path.lexists(link):
                os.unlink(link)  # Of a case with a file of another size.
            os.symlink(source, link)
        self._origin = Nginx(box, root, delay_ms, autoindex=True, locations=BUCKET,
                             name=f"nginx-{delay_ms}-{pace}", pace=pace).start()
        self._runs = 0

    def close(self):
        self._origin.stop()

    def run(self, contender):
        """Seconds of one cold read."""
        self._runs += 1
        scratch = self._box.make_directory(f"scratch-{self._runs}")
        drop_page_cache()
        with open(self._source, "rb") as f:
            while f.read(1 << 20):
                pass
        try:
            return getattr(self, "_" + contender)(scratch)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _curl(self, scratch):
        start = time.monotonic()
        subprocess.run(["curl", "-sf", "-o", os.path.join(scratch, FILE), self._origin.url("plain/" + FILE)],
                       check=True)
        return time.monotonic() - start

    def _holdfast(self, scratch):
        holdfast = Holdfast(self._box, f"run{self._runs}")
        path = holdfast.mount_file(self._origin.url("plain/" + FILE), *self._flags)
        try:
            return read_all(path, self._size)
        finally:
            holdfast.umount(os.path.dirname(path))
            holdfast.stop()
            shutil.rmtree(holdfast.root)

    def _s3fs(self, scratch):
        point, temporary = os.path.join(scratch, "mount"), os.path.join(scratch, "tmp")
        os.mkdir(point)
        os.mkdir(temporary)
        return self._through(point, ["s3fs", "files", point, "-f", "-o", f"url=http://127.0.0.1:{self._origin.port}",
                                     "-o", "public_bucket=1,use_path_request_style,ro", "-o", f"tmpdir={temporary}"])

    def _rclone(self, scratch):
        point = os.path.join(scratch, "mount")
        os.mkdir(point)
        return self._through(point, ["rclone", "mount", ":http:", point, "--http-url", self._origin.url("plain/"),
                                     "--read-only", "--vfs-cache-mode", "full", "--config", "/dev/null",
                                     "--cache-dir", os.path.join(scratch, "cache")])

    def _through(self, point, argv):
        """Mounts with `argv`, a program that stays in the foreground, and reads."""
        with open(point + ".err", "w+") as err:
            process = self._box.start(argv, stdout=err, stderr=err)
            try:
                wait_until(lambda: os.path.ismount(point) or process.poll() is not None, 10, "mounted")
                if process.poll() is not None:
                    err.seek(0)
                    raise CannotRun((err.read().strip().splitlines() or ["ended at once"])[-1])
                return read_all(os.path.join(point, FILE), self._size)
            finally:
                subprocess.run(["umount", "-l", point], capture_output=True)
                process.terminate()
                process.wait(10)


def measure(box, source, delay_ms, runs, pace=0, connections=0):
    bench = Bench(box, source, delay_ms, pace, connections)
    contenders = ["curl", "holdfast"]
    for peer in ("s3fs", "rclone"):
        if shutil.which(peer):
            contenders.append(peer)
        else:
            print(f"{peer}: skipped: not installed")
    speeds = {name: [] for name in contenders}
    for _ in range(runs):
        for name in list(contenders):
            try:
                speeds[name].append(os.path.getsize(source) / 1e6 / bench.run(name))
            except CannotRun as e:
                if name in ("curl", "holdfast"):
                    raise
                print(f"{name}: skipped: {e}")
                contenders.remove(name)
    bench.close()
    medians = {name: statistics.median(speeds[name]) for name in contenders}
    worth = "connections' worth" if pace else ""
    print(f"{'':<10} {'MB/s':>6} {'lowest':>7} {'highest':>8} {'holdfast is':>12} {worth}")
    for name in contenders:
        ratio = f"{medians['holdfast'] / medians[name]:.2f} x" if name != "holdfast" else ""
        worth = f"{medians[name] * 1e6 / pace:.1f}" if pace else ""
        print(f"{name:<10} {medians[name]:>6.0f} {min(speeds[name]):>7.0f} {max(speeds[name]):>8.0f} {ratio:>12} {worth}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delay-ms", type=int, action="append", help="time to the first byte; may be repeated (0, 10)")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--pace", type=int, action="append",
                        help="MB/s of each connection in the capped case; may be repeated; 0: leave it out (20, 50)")
    parser.add_argument("--connections", type=int, default=16, help="at most, of Holdfast in the capped case (16)")
    parser.add_argument("--capped-size-mib", type=int, default=512)
    parser.add_argument("--capped-only", action="store_true")
    flags = parser.parse_args()
    reasons = unmet(("curl",))
    if reasons:
        sys.exit("cold: cannot run here: " + ", ".join(reasons))
    with Sandbox("cold") as box:
        images.CACHE = box.make_directory("images")
        source = None if flags.capped_only else images.random_file(flags.size_mib << 20)
        for delay_ms in () if flags.capped_only else flags.delay_ms or (0, 10):
            print(f"\n{flags.size_mib} MiB, cold, sequential, nginx on loopback, {delay_ms} ms to the first byte, "
                  f"medians of {flags.runs}", flush=True)
            measure(box, source, delay_ms, flags.runs)
        for pace in flags.pace or (20, 50):
            if not pace:
                continue
            print(f"\n{flags.capped_size_mib} MiB, cold, sequential, {pace} MB/s a connection, 10 ms to the first byte, "
                  f"at most {flags.connections} connections for Holdfast, medians of {flags.runs}", flush=True)
            measure(box, images.random_file(flags.capped_size_mib << 20), 10, flags.runs, pace * 1_000_000,
                    flags.connections)


if __name__ == "__main__":
    main()
