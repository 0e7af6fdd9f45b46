"""conformance_test.py again, as a program without the preloaded library makes the calls: holdfast-injectd gives it the objects' files."""

import os
import sys

import _path  # noqa: F401

if __name__ == "__main__":
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "conformance_test.py")
    os.environ["HOLDFAST_TEST_UNAIDED"] = "1"
    os.execv("/usr/bin/python3", ["python3", "-B", script, *sys.argv[1:]])
