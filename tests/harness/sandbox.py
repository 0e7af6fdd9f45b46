"""Sandbox: a directory of one test, and the certainty that nothing of it is left.

Every process started through a sandbox carries HOLDFAST_TEST_SANDBOX in its environment and hands it on, so
that daemons which have left their parent are found again.  A guard process does the same cleaning when the
test itself is killed (ctest's time limit is a SIGKILL).
"""

import ctypes
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

MARK = "HOLDFAST_TEST_SANDBOX"
_MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Timeout(AssertionError):
    """Something that was waited for did not come."""


def wait_until(predicate, seconds, what):
    """Polls until `predicate()` is true and returns its value; Timeout names `what`.

    A deadline of 10 s and more says that something hangs, and is three times as long: tests run three at once on
    machines with two processors that others use too.
    """
    if seconds >= 10:
        seconds *= 3
    deadline = time.monotonic() + seconds
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Timeout(f"after {seconds} s still not: {what}")
        time.sleep(0.005)


def die_with_parent():
    """For a child, right after fork."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def wait_gone(pid, seconds):
    """True once the process has ended (a zombie has)."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        return bool(poller.poll(seconds * 1000))
    finally:
        os.close(fd)


def processes_of(directory):
    """Pids of all living processes that were started for `directory`, this one left out."""
    mark = f"{MARK}={directory}".encode()
    return [int(name) for name in os.listdir("/proc")
            if name.isdigit() and int(name) != os.getpid() and mark in _environment(name).split(b"\0")]


def _environment(pid):
    """Empty where there is none.  A process in the middle of an exec has none yet, and is waited for."""
    deadline = time.monotonic() + 5
    while True:
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                text = f.read()
            if text or not os.path.basename(os.readlink(f"/proc/{pid}/exe")).startswith("holdfast"):
                return text
        except OSError:
            return b""
        if time.monotonic() > deadline:
            return b""
        time.sleep(0.001)


def mounts_below(directory):
    """Mount points below `directory`, the last mounted first."""
    prefix = os.path.realpath(directory) + "/"
    points = []
    with open("/proc/self/mountinfo", "rb") as f:
        for line in f:
            # The kernel writes some bytes in octal and leaves those that are not UTF-8 as they are.
            octal = re.sub(rb"\\(\d{3})", lambda match: bytes([int(match[1], 8)]), line.split(b" ")[4])
            point = os.fsdecode(octal)
            if point.startswith(prefix):
                points.append(point)
    return points[::-1]


def mount_flags(point):
    """The mount's own flags, as the kernel lists them."""
    with open("/proc/self/mountinfo") as f:
        for line in f:
            fields = line.split()
            if fields[4] == point:
                return fields[5].split(",")
    raise AssertionError(f"{point} is not mounted")


def clean_processes(directory):
    """Kills every process of `directory`."""
    for _ in range(20):  # A supervisor may start one more while we go through the list.
        pids = processes_of(directory)
        if not pids:
            break
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for pid in pids:
            wait_gone(pid, 0.5)


def unmount_below(directory):
    """Takes away every mount below `directory`."""
    for _ in range(10):
        points = mounts_below(directory)
        if not points:
            break
        for point in points:
            _libc.umount2(os.fsencode(point), _MNT_DETACH)


def clean(directory):
    """Kills and unmounts everything of `directory`, then removes it.  Safe to call twice."""
    clean_processes(directory)
    unmount_below(directory)
    if not mounts_below(directory):  # Never delete through a mount.
        shutil.rmtree(directory, ignore_errors=True)


def _start_guard(directory):
    """A process that outlives this one, waits for its end and then cleans."""
    watched = os.pidfd_open(os.getpid())
    os.set_inheritable(watched, True)
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        os.close(watched)
        return
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.execv("/usr/bin/python3", ["/usr/bin/python3", "-B", os.path.abspath(__file__), str(watched), directory])
    finally:
        os._exit(1)


def _guard(watched, directory):
    select.select([watched], [], [])
    clean(directory)


class Sandbox:
    """A temporary directory; start() and path() are its two verbs."""

    def __init__(self, name="test"):
        self.directory = os.path.realpath(tempfile.mkdtemp(prefix=f"holdfast-{name}-"))
        os.chmod(self.directory, 0o755)  # For tests that act as another user.
        self.environment = dict(os.environ, **{MARK: self.directory})
        self._children = []
        _start_guard(self.directory)

    def path(self, *parts):
        return os.path.join(self.directory, *parts)

    def make_directory(self, *parts):
        path = self.path(*parts)
        os.makedirs(path, exist_ok=True)
        return path

    def start(self, argv, **options):
        """Popen, marked as ours, dying with us."""
        process = subprocess.Popen(argv, env=self.environment, preexec_fn=die_with_parent, **options)
        self._children.append(process)
        return process

    def run(self, argv, timeout=60, **options):
        """subprocess.run with text output, marked as ours."""
        return subprocess.run(argv, env=self.environment, timeout=timeout, text=True, capture_output=True,
                              errors="surrogateescape", **options)

    def logs(self):
        """(path, last lines) of every log below the directory."""
        for folder, _, names in os.walk(self.directory):
            if os.path.basename(folder) == "db":
                continue  # RocksDB's own, not for reading.
            for name in sorted(names):
                if name.endswith((".log", ".err")):
                    path = os.path.join(folder, name)
                    with open(path, errors="replace") as f:
                        yield path, "".join(f.readlines()[-25:])

    def close(self):
        clean(self.directory)
        for process in self._children:
            process.wait(10)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    stream.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


if __name__ == "__main__":
    _guard(int(sys.argv[1]), sys.argv[2])
