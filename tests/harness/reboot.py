"""Reboots of this test alone: its processes killed, its mounts and run directories gone, the kernel's boot id another one.

The test enters a mount namespace of its own, where the boot id can be mounted over; other tests see nothing of it.
"""

import ctypes
import os
import shutil
import uuid

from harness import sandbox

BOOT_ID = "/proc/sys/kernel/random/boot_id"
_CLONE_NEWNS = 0x20000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result, what):
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


class Machine:
    """Entered before the first process of a test is started, and left at its end."""

    def __init__(self, box):
        self._box = box
        self._outside = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        self._boots = 0
        _check(_libc.unshare(_CLONE_NEWNS), "unshare")
        _check(_libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None), "make mounts private")

    def reboot(self, *instances):
        """Nothing is shut down; everything is gone."""
        sandbox.clean_processes(self._box.directory)
        sandbox.unmount_below(self._box.directory)
        for instance in instances:
            shutil.rmtree(instance.run_path())
        self._boots += 1
        own = self._box.path(f"boot-{self._boots}")
        with open(own, "w") as f:
            f.write(f"{uuid.uuid4()}\n")
        _check(_libc.mount(os.fsencode(own), BOOT_ID.encode(), None, _MS_BIND, None), "mount the boot id")

    def leave(self):
        sandbox.clean_processes(self._box.directory)
        _check(_libc.setns(self._outside, _CLONE_NEWNS), "setns")
        os.close(self._outside)
