"""Programs: a test's own copies of the programs under test, which can be replaced while they run."""

import os
import shutil

from harness.holdfast import BIN

NAMES = ("holdfast", "holdfastd", "holdfast-fetcherd", "holdfast-metricsd")


class Programs:
    """From its making on, the sandbox's commands use these copies."""

    def __init__(self, box):
        self.directory = box.make_directory("programs")
        for name in NAMES:
            shutil.copy(os.path.join(BIN, name), self.directory)
        box.environment["HOLDFAST_BIN_DIR"] = self.directory

    def path(self, name):
        return os.path.join(self.directory, name)

    def replace(self, name, source=None):
        """Puts `source`, or a fresh copy of the real one, in the place of a program, as an upgrade does."""
        fresh = self.path(name) + ".new"
        shutil.copy(source or os.path.join(BIN, name), fresh)
        os.rename(fresh, self.path(name))

    def replace_by_script(self, name, text):
        fresh = self.path(name) + ".new"
        with open(fresh, "w") as f:
            f.write("#!/bin/sh\n" + text)
        os.chmod(fresh, 0o755)
        os.rename(fresh, self.path(name))
