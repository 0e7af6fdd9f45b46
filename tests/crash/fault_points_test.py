"""Every fault point that the programs list, at its first and a later pass: the process ends there, the readers do not
notice, what must hold in the store holds, and nothing that was recorded is fetched again.

A case: the point is armed for the next life of its program, which is then begun by a SIGKILL; a file in a directory
of its own is mounted and read from both ends while the fetcher is killed too.  Where a step can fail, it is also made
to fail, and the readers must get right bytes, EIO, or ESTALE (of an object that was dropped).
"""

import argparse
import errno
import os
import re
import shutil
import subprocess
import sys
import time

import _path  # noqa: F401
from harness import images
from harness.case import SKIP, unmet
from harness.holdfast import BIN, NO_READ_AHEAD, Holdfast
from harness.origins.nginx import Nginx
from harness.readers import RIGHT, Reader
from harness.sandbox import Sandbox, Timeout, wait_until
from harness.verity import flip_bits, forget_pages, with_tree

SIZE = 4 << 20
# What two readers may have had in flight when a process died: the kernel reads 128 KiB ahead of each.
IN_FLIGHT = 512 << 10
LATER = 3
# Run by tests/cachefiles/restart_test.py, and by cache_limit_test.py and cache_verbs_test.py of tests/integration/disk/.
ELSEWHERE = ("cachefiles.", "cull.", "store.before_choice", "store.choice")
PROGRAMS = ("holdfastd", "holdfast-fetcherd")
PID_FILE = {"holdfastd": "holdfastd", "holdfast-fetcherd": "fetcherd"}
# Passed only while an instance begins, only where the kernel cannot resend, when an object is replaced, at the end.
BEGIN = ("totals.stored", "fuse.stored", "fuse.mounted", "fuse.request_log_stored", "fuse.init_saved")
ONCE = BEGIN + ("start.listening", "start.database_open", "start.database_prepared", "journal.replayed",
                "fuse.init_replayed", "fuse.taken_over", "device.attached", "device.resumed", "stop.unmounted",
                "stop.store_emptied", "fetcher.attached", "fetcher.connection_stored", "store.before_volume",
                "store.volume", "store.before_object", "store.object", "store.before_erase", "store.erase",
                "data.created", "data.sized", "data.removed", "ids.reserved",
                "successor.open", "successor.predecessor_dropped")
NO_RESEND = ("fuse.request_kept",)
REPLACE = ("store.before_erase", "store.erase", "data.removed", "successor.open", "successor.predecessor_dropped")
END = ("stop.unmounted", "stop.store_emptied")
# Passed when bytes in the cache are found wrong; these, and the last, only with a digest.
ROT = ("store.before_removal", "store.removal")
VERIFIED = ROT + ("fetcher.tree_stored", "fuse.before_check")
NEW_CONNECTION = "fetcher.connection_stored"  # Not passed by a fetcher that resumes one.
CAN_FAIL = ("store.before_object", "store.before_presence", "store.before_durable", "store.before_request",
            "store.before_request_end", "store.before_removal", "data.created", "data.synced")


def points_of(program):
    done = subprocess.run([os.path.join(BIN, program), "--list-fault-points"], capture_output=True, text=True, check=True)
    return [point for point in done.stdout.split() if not point.startswith(ELSEWHERE)]


class Failed(Exception):
    pass


class Instance:
    """One holdfast instance whose programs look for a fault at their start."""

    def __init__(self, bench, name, resend=True):
        self.holdfast = Holdfast(bench.box, name)
        self.bench = bench
        self.settings = [f"--daemon-flag=--fault-file={self.fault_file('holdfastd')}",
                         f"--fetcher-flag=--fault-file={self.fault_file('holdfast-fetcherd')}",
                         "--fetcher-flag=--confirm-change=100ms", "--daemon-flag=--sync-interval=50ms",
                         "--daemon-flag=--kernel-readahead-kb=128", NO_READ_AHEAD]
        if not resend:
            self.settings.append("--daemon-flag=--nofuse-resend")
        self.points = []

    def fault_file(self, program):
        return os.path.join(self.holdfast.root, program + ".fault")

    def arm(self, program, point, nth, action):
        with open(self.fault_file(program) + ".new", "w") as f:
            f.write(f"{point} {nth} {action}\n")
        os.rename(self.fault_file(program) + ".new", self.fault_file(program))

    def disarm(self, program):
        if os.path.exists(self.fault_file(program)):
            os.unlink(self.fault_file(program))

    def kill(self, program):
        """SIGKILLs whatever life of the program there is."""
        try:
            os.kill(self.holdfast.pid_of(PID_FILE[program]), 9)
        except (OSError, IndexError, ValueError):
            pass  # It is dying by itself.

    def kill_until_armed(self, program):
        """A life that was begun before the point was armed, and could not be found to be killed, knows nothing of it.

        Lives that die before they are ready are begun again after up to 5 s.
        """
        for _ in range(5):
            self.kill(program)
            try:
                return wait_until(lambda: not os.path.exists(self.fault_file(program)), 8, f"a {program} that is armed")
            except Timeout:
                pass
        raise Failed(f"no {program} is armed")

    def hits(self):
        """How many lives have ended, or failed, at a fault point."""
        supervisor = self.holdfast.log_text("supervise")
        logs = self.holdfast.log_text("holdfastd") + self.holdfast.log_text("holdfast-fetcherd")
        return supervisor.count("exited with code 99") + len(re.findall(r"fault point \S+: failing", logs))

    def mount(self, url, *flags):
        """As a person would: again, if a daemon died during it."""
        for attempt in range(5):
            point = self.bench.box.make_directory(f"m-{self.holdfast.name}-{len(self.points)}-{attempt}")
            settings = self.settings if not self.points else ()
            done = self.holdfast.try_mount(url, point, "--as=file", *flags, *settings)
            if done.returncode == 0:
                self.points.append(point)
                return os.path.join(point, url.rsplit("/", 1)[1])
        raise Failed(f"mount {url}: {done.stderr}")

    def verify(self):
        done = self.holdfast.run("verify", "--cache-dir", self.holdfast.state_path("cache"))
        if done.returncode:
            raise Failed(f"verify: exit {done.returncode}\n{done.stdout}{done.stderr}")

    def umount_all(self):
        for point in self.points:
            done = self.holdfast.run("umount", "--root", self.holdfast.root, point)
            if os.path.ismount(point):
                raise Failed(f"umount {point}: {done.stderr}")
        self.points = []
        self.holdfast.run("stop", "--root", self.holdfast.root, "--instance", self.holdfast.name)


class Bench:
    def __init__(self, box):
        self.box = box
        self.truth = images.random_file(SIZE)
        self.digest = with_tree(self.truth, box.make_directory("tree"))
        self.tree = os.path.join(box.make_directory("tree"), "image.merkle")
        self.other = images.random_file(SIZE, seed=2)
        self.served = box.make_directory("served")
        self.origin = Nginx(box, self.served, 1).start()
        self.cases = 0
        self.shared = {}

    def instance(self, resend):
        if resend not in self.shared:
            self.shared[resend] = Instance(self, "shared" if resend else "noresend", resend)
            self.read(self.shared[resend], self.new_file(), self.truth)
        return self.shared[resend]

    def new_file(self):
        self.cases += 1
        directory = os.path.join(self.served, f"v{self.cases}")
        os.mkdir(directory)
        os.link(self.truth, os.path.join(directory, "file"))
        shutil.copyfile(self.tree, os.path.join(directory, "file.merkle"))
        return f"v{self.cases}/file"

    def readers(self, path, truth, split):
        with open(truth, "rb") as f:
            data = f.read()
        return [Reader(path, begin, end - begin, data[begin:end]) for begin, end in split]

    def read(self, instance, uri, truth, allowed=(RIGHT,), between=lambda readers: None, flags=()):
        path = instance.mount(self.origin.url(uri), *flags)
        readers = self.readers(path, truth, ((0, SIZE // 2), (SIZE // 2, SIZE)))
        try:
            between(readers)
            for reader in readers:
                if not reader.wait(30):
                    raise Failed(f"{reader.what}: still waiting after 30 s")
                if reader.result not in allowed:
                    raise Failed(f"{reader.what}: {reader.result}")
        finally:
            for reader in readers:
                reader.close()
        return path

    def replace(self, uri):
        """The origin's file becomes another; a mount that still wants some of it says so, and the next one replaces it."""
        new = os.path.join(self.served, uri + ".new")
        shutil.copyfile(self.other, new)
        os.utime(new, (1e9, 1e9))  # An entity tag of its own: nginx makes it of time and size.
        os.rename(new, os.path.join(self.served, uri))

    def kill_fetcher(self, instance):
        try:
            wait_until(lambda: self.attached(instance), 10, "a fetcher attached")
        except Timeout as e:
            raise Failed(str(e)) from None
        instance.kill("holdfast-fetcherd")

    def attached(self, instance):
        try:
            return instance.holdfast.attached_pid()
        except (OSError, ValueError):
            return None

    def run(self, program, point, nth, action):
        """Returns whether the point was passed so often."""
        allowed = (RIGHT,) if action == "exit" else (RIGHT, errno.EIO, errno.ESTALE)
        if point in BEGIN + END:
            return self.run_alone(program, point, nth, action)
        instance = self.instance(resend=point not in NO_RESEND)
        before = instance.hits()
        uri = self.new_file()
        if point in REPLACE:
            self.prepare_replacement(instance, uri)
        flags = (f"--verify={self.digest}",) if point in VERIFIED else ()
        if point in ROT:
            self.prepare_rot(instance, uri, flags)
        instance.arm(program, point, nth, action)
        if point == NEW_CONNECTION:
            instance.kill("holdfastd")
        instance.kill_until_armed(program)
        truth = self.other if point in REPLACE else self.truth

        def kill(readers):
            if program == "holdfast-fetcherd":  # The life that is armed has to pass its point before it is killed.
                wait_until(lambda: instance.hits() > before or all(r.wait(0) for r in readers), 30, "the fault, or the bytes")
            self.kill_fetcher(instance)

        self.read(instance, uri, truth, allowed, kill, flags)
        hit = self.wait_hit(instance, before, flags)
        if not hit:
            instance.kill(program)  # Disarmed.
        self.read(instance, uri, truth, flags=flags)
        instance.verify()
        if point not in REPLACE and action == "exit":  # After a failed sync it is unknown what is on disk: it is dropped.
            twice = self.origin.served("/" + uri).twice_bytes
            if twice > 3 * IN_FLIGHT:
                raise Failed(f"{twice} bytes fetched twice")
        return hit

    def wait_hit(self, instance, before, flags):
        """Syncs come a little later, and more of them only when there is more to sync."""
        for _ in range(5):
            try:
                wait_until(lambda: instance.hits() > before, 0.3, "the fault")
                return True
            except Timeout:
                self.read(instance, self.new_file(), self.truth, (RIGHT, errno.EIO, errno.ESTALE), flags=flags)
        return False

    def prepare_replacement(self, instance, uri):
        path = instance.mount(self.origin.url(uri))
        with open(path, "rb") as f:
            f.read(4096)
        self.replace(uri)
        with open(path, "rb") as f:
            f.seek(SIZE - 4096)
            try:
                f.read(4096)
            except OSError:
                pass
        done = instance.holdfast.run("umount", "--root", instance.holdfast.root, instance.points.pop())
        if done.returncode:
            raise Failed(f"umount: {done.stderr}")

    def prepare_rot(self, instance, uri, flags):
        """What is present of the file goes bad on the disk."""
        path = self.read(instance, uri, self.truth, flags=flags)
        number = max(known["number"] for known in instance.holdfast.status()["objects"])
        flip_bits(instance.holdfast.state_path("cache", "data", f"{number % 256:02x}", f"{number}.data"), end=SIZE)
        forget_pages(path)

    def run_alone(self, program, point, nth, action):
        """With an instance of its own, whose begin or end is the matter."""
        instance = Instance(self, f"own{self.cases}")
        uri = self.new_file()
        if point in BEGIN:
            instance.arm(program, point, nth, action)
        self.read(instance, uri, self.truth)
        if point in END:
            instance.arm(program, point, nth, action)
            instance.kill(program)
            self.read(instance, uri, self.truth)
            for mounted in instance.points:
                subprocess.run(["umount", mounted], check=True)
            instance.holdfast.control({"op": "stop"})
            wait_until(lambda: instance.hits() > 0, 10, "the fault")
        instance.umount_all()
        with open("/proc/self/mountinfo") as f:
            if instance.holdfast.root in f.read():
                raise Failed("a mount is left")
        instance.verify()
        return instance.hits() > 0

    def close(self):
        for instance in self.shared.values():
            instance.umount_all()


def cases(only):
    for program in PROGRAMS:
        for point in points_of(program):
            if only and not re.search(only, point):
                continue
            yield program, point, 1, "exit"
            if point not in ONCE:
                yield program, point, LATER, "exit"
            if point in CAN_FAIL:
                yield program, point, 1, "error"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="a regular expression for points")
    options = parser.parse_args()
    reasons = unmet(("fsverity",))
    if reasons:
        print("SKIP: " + ", ".join(reasons))
        sys.exit(SKIP)
    failed, count, started = [], 0, time.monotonic()
    with Sandbox("faults") as box:
        bench = Bench(box)
        try:
            for program, point, nth, action in cases(options.only):
                at = time.monotonic()
                try:
                    outcome = "ok" if bench.run(program, point, nth, action) else "NOT PASSED"
                except (Failed, Timeout, AssertionError) as e:
                    outcome = f"FAILED: {e}"
                print(f"{program:18} {point:28} {nth} {action:6}{time.monotonic() - at:6.1f} s  {outcome}", flush=True)
                count += 1
                if outcome != "ok":
                    failed.append(f"{point} {nth} {action}: {outcome}")
                    if outcome.startswith("FAILED"):
                        break
            if not failed:
                bench.close()
        finally:
            if failed:
                for path, text in box.logs():
                    print(f"--- {path}\n{text[-6000:]}", file=sys.stderr)
    print(f"{count} cases, {time.monotonic() - started:.0f} s")
    if failed:
        sys.exit("FAILED: " + "; ".join(failed))
    print("Every point was passed, every byte right, every store whole.")


if __name__ == "__main__":
    main()
