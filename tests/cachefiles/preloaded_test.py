"""conformance_test.py again, as a program under the preloaded library makes the calls."""

import os

import _path  # noqa: F401
from harness.holdfast import BIN

if __name__ == "__main__":
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "conformance_test.py")
    os.execv(os.path.join(BIN, "holdfast"), ["holdfast", "cachefiles-run", "--", "/usr/bin/python3", "-B", script])
