"""A slice of the other tests, where the instances are without --root: below a private /run and /var."""

import ctypes
import os
import subprocess
import sys

if os.environ.get("HOLDFAST_TEST_DEFAULT_ROOT") != "1":
    # Once more from the start, with everything of the harness in the other namespace.
    CLONE_NEWNS = 0x20000
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0:
        print("SKIP: no mount namespace of its own")
        sys.exit(77)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    for place in ("/run", "/var"):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "holdfast-test", place], check=True)
    for directory in ("/var/log/nginx", "/var/lib/nginx", "/var/tmp"):
        os.makedirs(directory)
    os.environ["HOLDFAST_TEST_DEFAULT_ROOT"] = "1"
    os.environ.pop("HOLDFAST_ROOT", None)
    os.execv(sys.executable, [sys.executable, *sys.argv])

import _path  # noqa: E402,F401
from bad_mount_point_test import *  # noqa: E402,F401,F403
from harness.case import main  # noqa: E402
from mounted_test import MountedTest  # noqa: E402,F401

if __name__ == "__main__":
    main(tools=("mkfs.erofs", "unshare"))
