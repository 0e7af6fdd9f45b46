"""The configuration files for containerd: what the containerd that is here takes from them."""

import os
import re
import subprocess
import sys
import unittest

import _path  # noqa: F401

FILES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../packaging/containerd")


def version():
    """(major, minor) of the containerd that is installed, or None."""
    try:
        text = subprocess.run(["containerd", "--version"], capture_output=True, text=True).stdout
    except FileNotFoundError:
        return None
    found = re.search(r" v?(\d+)\.(\d+)\.", text)
    return found and (int(found[1]), int(found[2]))


class ContainerdConfigurationTest(unittest.TestCase):
    def dump(self, name):
        done = subprocess.run(["containerd", "--config", os.path.join(FILES, name), "config", "dump"],
                              capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.replace("'", '"')

    def test_the_files_say_for_which_versions_they_are(self):
        self.assertEqual(sorted(os.listdir(FILES)), ["containerd-1.toml", "containerd-2.0.toml", "containerd-2.1.toml"])

    def test_the_snapshotter_is_used_and_told_where_images_come_from(self):
        files = ["containerd-1.toml"]
        if version() >= (2, 0):
            files.append("containerd-2.0.toml")
        for name in files:
            text = self.dump(name)
            self.assertRegex(text, r'(?m)^ +snapshotter = "holdfast"$', name)
            self.assertRegex(text, r"(?m)^ +disable_snapshot_annotations = false$", name)
            self.assertIn("/run/holdfast-snapshotter/snapshotter.sock", text)

    def test_the_transfer_service_may_use_it(self):
        if version() < (2, 1):
            self.skipTest("containerd here is older than 2.1")
        text = self.dump("containerd-2.1.toml")
        self.assertRegex(text, r'(?m)^ +enable_remote_snapshot_annotations = "true"$')
        self.assertRegex(text, r"(?m)^ +disable_snapshot_annotations = true$")  # containerd's own default.
        entries = text.split("unpack_config]]")[1:]
        self.assertEqual([re.search(r'snapshotter = "(\w+)"', entry)[1] for entry in entries], ["overlayfs", "holdfast"])


if __name__ == "__main__":
    if version() is None:
        print("SKIP: no containerd")
        sys.exit(77)
    unittest.main(verbosity=2)
