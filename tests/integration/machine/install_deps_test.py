"""packaging/install-deps.sh on a machine that is updating itself: it waits for the locks of apt and dpkg.

apt-get is the real one, on empty package lists and a copy of this machine's dpkg database, in which all that the
script asks for is installed already.
"""

import fcntl
import glob
import os
import shutil
import unittest

import _path  # noqa: F401
from harness.case import Case, main
from harness.sandbox import wait_until

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../packaging/install-deps.sh")


class InstallDepsTest(Case):
    def setUp(self):
        super().setUp()
        for place in ["lists/partial", "cache/archives/partial", "dpkg", "bin", "tmp"]:
            self.box.make_directory(place)
        shutil.copy("/var/lib/dpkg/status", self.box.path("dpkg/status"))
        self.calls = self.box.path("calls")
        open(self.calls, "w").close()
        self.program("dpkg-query", "echo not-installed")
        self.program("apt-get", f'echo "$@" >>{self.calls}; exec /usr/bin/apt-get "$@"')
        with open(self.box.path("apt.conf"), "w") as f:
            f.write(f"""Dir::State::lists "{self.box.path('lists')}";
Dir::State::status "{self.box.path('dpkg/status')}";
Dir::Cache "{self.box.path('cache')}";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "/dev/null";
APT::Sandbox::User "root";
""")
        self.box.environment["APT_CONFIG"] = self.box.path("apt.conf")
        self.box.environment["TMPDIR"] = self.box.path("tmp")
        self.box.environment["PATH"] = self.box.path("bin") + ":" + os.environ["PATH"]

    def program(self, name, command):
        path = self.box.path("bin", name)
        with open(path, "w") as f:
            f.write(f"#!/bin/sh\n{command}\n")
        os.chmod(path, 0o755)

    def lock(self, path):
        """Held until it is closed."""
        file = open(path, "w")
        self.addCleanup(file.close)
        fcntl.lockf(file, fcntl.LOCK_EX)
        return file

    def called(self, verb):
        """The calls of `apt-get VERB` so far."""
        with open(self.calls) as f:
            words = [line.split() for line in f]
        return [call for call in words if verb in call]

    def has_said(self, text):
        """Whether the script's log, a temporary file, has it."""
        for path in glob.glob(self.box.path("tmp/*")):
            with open(path, errors="replace") as f:
                if text in f.read():
                    return True
        return False

    def test_it_waits_for_the_locks_of_apt_and_dpkg(self):
        lists, dpkg = self.lock(self.box.path("lists/lock")), self.lock(self.box.path("dpkg/lock-frontend"))
        script = self.box.start([SCRIPT, "demo"])
        wait_until(lambda: len(self.called("update")) >= 2, 30, "a second try to update the lists")
        lists.close()
        wait_until(lambda: self.has_said("Waiting for cache lock"), 30, "apt-get meets the lock of dpkg")
        self.assertIsNone(script.poll(), "it waits")
        dpkg.close()
        self.assertEqual(script.wait(60), 0)

    def test_an_update_that_fails_otherwise_fails_at_once(self):
        self.program("apt-get", "echo E: there is no network; exit 100")
        done = self.box.run([SCRIPT, "demo"])
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("there is no network", done.stderr)


if __name__ == "__main__":
    main()
