"""Disk: a small ext4 in a loop file, whose power can be cut."""

import fcntl
import os
import struct
import subprocess
import tempfile
import time

from harness.sandbox import wait_until

_FS_IOC_SHUTDOWN = 0x8004587D
_NOLOGFLUSH = 2


def unmet():
    """Why no Disk can be had here; empty when one can."""
    with tempfile.TemporaryDirectory(prefix="holdfast-disk-") as directory:
        image, point = os.path.join(directory, "i"), os.path.join(directory, "m")
        os.mkdir(point)
        with open(image, "wb") as f:
            f.truncate(16 << 20)
        for argv in (["mkfs.ext4", "-q", "-F", image], ["mount", "-o", "loop", image, point], ["umount", point]):
            done = subprocess.run(argv, text=True, capture_output=True)
            if done.returncode:
                return f"no ext4 in a loop file: {done.stderr.strip()}"
    return ""


def fill_up(directory):
    """Returns what makes room again."""
    ballast = os.path.join(directory, "ballast")
    with open(ballast, "wb", buffering=0) as f:
        written = most = 8192
        while written >= most:  # Else a cache that makes room would be filled up byte by byte.
            written = 0
            for piece in (1 << 20, 4096, 1):
                try:
                    while piece > 1 or written < most:
                        written += f.write(bytes(piece))
                except OSError:
                    pass
    return lambda: os.unlink(ballast)


class Disk:
    """Mounted at .path from the start.  The sandbox takes it down."""

    def __init__(self, box, name, size):
        self.box = box
        self.path = box.make_directory(name)
        self.image = box.path(name + ".img")
        with open(self.image, "wb") as f:
            f.truncate(size)
        self._do("mkfs.ext4", "-q", "-F", "-m0", self.image)
        self.mount()

    def _do(self, *argv):
        done = self.box.run(list(argv))
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"

    def mount(self, options=""):
        self._do("mount", "-t", "ext4", "-o", "loop" + options, self.image, self.path)

    def remount(self, option):
        """`ro` or `rw`."""
        self._do("mount", "-o", "remount," + option, self.path)

    def wait_writing(self, seconds):
        """Returns when a write to the disk is under way, or after so long without one."""
        device = os.stat(self.path).st_dev
        deadline = time.monotonic() + seconds
        with open(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/inflight", "rb", buffering=0) as f:
            while int(os.pread(f.fileno(), 64, 0).split()[1]) == 0 and time.monotonic() < deadline:
                pass

    def cut(self):
        """What was not synced is lost, and nothing can be read or written any more."""
        fd = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _FS_IOC_SHUTDOWN, struct.pack("I", _NOLOGFLUSH))
        finally:
            os.close(fd)

    def unmount(self, seconds=10):
        """No file of the test may be open on it any more; the kernel releases what it still holds."""
        wait_until(lambda: self.box.run(["umount", self.path]).returncode == 0, seconds, f"umount {self.path}")

    def restore_power(self):
        """Unmounts after a cut and mounts again, which replays the journal."""
        self.unmount()
        self.mount()

    def free_bytes(self):
        info = os.statvfs(self.path)
        return info.f_bavail * info.f_bsize
