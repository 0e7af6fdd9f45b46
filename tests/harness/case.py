"""Case: a unittest case with a sandbox, and main(): skip with a reason where the machine can't run the tests."""

import ctypes
import os
import re
import shutil
import subprocess
import sys
import unittest

from harness import images
from harness.holdfast import BIN, Holdfast, missing_binaries
from harness.origins.misbehaving import MisbehavingOrigin
from harness.origins.nginx import ECHO_MODULE, Nginx
from harness.readers import RIGHT, Reader
from harness.sandbox import Sandbox

SKIP = 77
_CLONE_NEWNS = 0x20000


class Case(unittest.TestCase):
    def setUp(self):
        self.box = Sandbox(re.sub(r"[^a-z0-9]+", "-", type(self).__name__.lower()))
        self.addCleanup(self._close)
        self._readers = []

    def _close(self):
        if self.has_failed():
            for _, trace in self._outcome.result.errors + self._outcome.result.failures:
                print(trace, file=sys.stderr)  # Before the logs: the middle of a long output is cut.
            for path, text in self.box.logs():
                print(f"--- {path}\n{text}", file=sys.stderr)
        for reader in self._readers:
            reader.close()
        self.box.close()

    def has_failed(self):
        """Whether it has so far.  What tearDown asserts is only worth a look when it has not."""
        result = self._outcome.result
        return any(test is self for test, _ in result.errors + result.failures)

    def assert_reads_right(self, path, truth_path, offset=0, length=None, seconds=30):
        """One read in a process of its own, so that a read that hangs is a failure and not a hang."""
        with open(truth_path, "rb") as f:
            f.seek(offset)
            truth = f.read() if length is None else f.read(length)
        reader = self.keep(Reader(path, offset, len(truth), truth))
        self.assertTrue(reader.wait(seconds), f"{reader.what}: still waiting after {seconds} s")
        self.assertEqual(reader.result, RIGHT, reader.what)

    def keep(self, reader):
        """A reader that is to be gone when the test is."""
        self._readers.append(reader)
        return reader

    def serve(self, root, **options):
        return Nginx(self.box, root, **options).start()

    def serve_random_image(self, file_count, file_size, seed=1):
        """An EROFS image, the tree in it, an origin that has it, its URL there, and an instance."""
        self.image, self.tree = images.random_image(file_count, file_size, seed=seed)
        self.origin = self.serve(os.path.dirname(self.image))
        self.url = self.origin.url(os.path.basename(self.image))
        self.instance = self.holdfast()

    def misbehave(self, **options):
        origin = MisbehavingOrigin(**options)
        self.addCleanup(origin.close)
        return origin

    def holdfast(self, name="t"):
        return Holdfast(self.box, name)

    def install_mount_helper(self, name):
        """`name` in /sbin, as this test's mount namespace has it, is the `holdfast` that is tested."""
        sbin = os.path.realpath("/sbin")
        layers = self.box.make_directory("helper")
        self.assertEqual(self.box.run(["mount", "-t", "tmpfs", "tmpfs", layers]).returncode, 0)
        self.addCleanup(self.box.run, ["umount", "--lazy", layers])
        upper, work = (self.box.make_directory("helper", place) for place in ("upper", "work"))
        done = self.box.run(["mount", "-t", "overlay", "-o", f"lowerdir={sbin},upperdir={upper},workdir={work}", "overlay", sbin])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.addCleanup(self.box.run, ["umount", "--lazy", sbin])  # A program may run from it.
        helper = os.path.join(sbin, name)
        if os.path.lexists(helper):
            os.unlink(helper)
        os.symlink(os.path.join(BIN, "holdfast"), helper)

    def assert_one_line(self, done, pattern):
        """A command that failed, and said why in one line that matches `pattern`."""
        self.assertNotEqual(done.returncode, 0, "it should have failed")
        self.assertEqual(done.stdout, "")
        lines = [line for line in done.stderr.strip().splitlines() if not line.startswith("holdfast: still trying: ")]
        self.assertEqual(len(lines), 1, f"one line on stderr, not: {done.stderr!r}")
        self.assertRegex(lines[0], pattern)


def unmet(tools):
    """Why the tests can't run here; empty when they can."""
    reasons = []
    if os.geteuid() != 0:
        reasons.append("not root")
    if not os.path.exists("/dev/fuse"):
        reasons.append("no /dev/fuse")
    if not os.path.exists(ECHO_MODULE):
        reasons.append("no libnginx-mod-http-echo")
    where = os.defpath + ":/usr/sbin:/sbin"
    reasons += [f"no {tool}" for tool in ("nginx", *tools) if not shutil.which(tool, path=where)]
    reasons += [f"{binary} is not built" for binary in missing_binaries()]
    return reasons


def leave_mounts_of_others():
    """Enters a mount namespace of this test's own: another test's `unshare --mount` beside it would hold our mounts."""
    if os.geteuid() == 0 and ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS) == 0:
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def main(tools=(), reasons=()):
    """`reasons`: further ones why the tests can't run here."""
    leave_mounts_of_others()
    reasons = unmet(tools) + [reason for reason in reasons if reason]
    if reasons:
        print("SKIP: " + ", ".join(reasons))
        sys.exit(SKIP)
    unittest.main(verbosity=2)
