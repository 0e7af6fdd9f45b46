"""Reader: a process of its own that reads one range of one file and compares it with the truth.  TreeReaders: many."""

import errno
import os
import select
import signal
import time

from harness.sandbox import die_with_parent, wait_until

RIGHT = 0
WRONG_BYTES = 200  # Below that: the errno that the read ended with.
TREE_DELAY_MS = 400


class Child:
    """Runs work() in a process of its own; its exit code is what work() returns, or the errno that it raises."""

    def __init__(self, what, work):
        self.what = what
        self.pid = os.fork()
        if self.pid == 0:
            _work_and_exit(work)
        self._fd = os.pidfd_open(self.pid)
        self.started = time.monotonic()
        self.result = None
        self.seconds = None

    def wait(self, seconds):
        """True once it has ended; .result and .seconds are set then."""
        if self.result is not None:
            return True
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        if not poller.poll(max(0, seconds) * 1000):
            return False
        self.seconds = time.monotonic() - self.started
        _, status = os.waitpid(self.pid, 0)
        self.result = os.waitstatus_to_exitcode(status)
        os.close(self._fd)
        return True

    def kill(self, limit=30):
        """Seconds from SIGKILL until it is gone; `limit` if it is not gone by then."""
        start = time.monotonic()
        os.kill(self.pid, signal.SIGKILL)
        return time.monotonic() - start if self.wait(limit) else limit

    def close(self):
        if self.result is None:
            self.kill(5)


class Reader(Child):
    """Starts reading at once.  `truth` is the bytes that are right, or None when any will do."""

    def __init__(self, path, offset, length, truth=None):
        super().__init__(f"{path} at {offset}", lambda: _read(path, offset, length, truth))


def _read(path, offset, length, truth):
    data = pread_all(os.open(path, os.O_RDONLY), offset, length)
    return RIGHT if truth is None or data == truth else WRONG_BYTES


def pread_all(fd, offset, length):
    """As many bytes as there are before the end of the file.  A read may be short where an error comes after it."""
    data = b""
    while len(data) < length:
        piece = os.pread(fd, length - len(data), offset + len(data))
        if not piece:
            break
        data += piece
    return data


def _work_and_exit(work):
    code = 255
    try:
        die_with_parent()
        code = work()
    except OSError as e:
        code = e.errno or errno.ETIMEDOUT  # A socket's timeout has none.
    finally:
        os._exit(code)


def pread(path, offset, length):
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.pread(fd, length, offset)
    finally:
        os.close(fd)


def wait_all(readers, seconds):
    """Waits for all of them together; returns those that have not ended."""
    deadline = time.monotonic() + seconds
    return [r for r in readers if not r.wait(deadline - time.monotonic())]


def drop_page_cache():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("3\n")


class TreeReaders:
    """Reads of an image's files that wait for a slow origin while something happens to the processes.

    For a Case with serve_random_image(), whose image is mounted on self.point.
    """

    def start_reading(self, names):
        """One reader for each of these files, which nobody has read yet."""
        self.origin.restart(delay_ms=TREE_DELAY_MS)
        self.readers = []
        for name in names:
            with open(os.path.join(self.tree, name), "rb") as f:
                truth = f.read()
            self.readers.append(self.keep(Reader(os.path.join(self.point, name), 0, len(truth), truth)))
        wait_until(lambda: self.instance.waiting() > 0, 20, "reads that wait")

    def assert_all_right(self):
        self.assertEqual([r.what for r in wait_all(self.readers, 60)], [], "readers still wait")
        self.assertEqual({r.result for r in self.readers}, {RIGHT})

    def assert_tree_right(self, point=None):
        point = point or self.point
        for name in sorted(os.listdir(point)):
            self.assert_reads_right(os.path.join(point, name), os.path.join(self.tree, name))
