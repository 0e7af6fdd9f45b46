"""An instance with a cachefiles device, daemons of the kernel's interface, and EROFS images mounted by fsid."""

import filecmp
import json
import os

from harness.cachefiles.cachefiles_case import Clients
from harness.case import Case
from harness.disk import Disk
from harness.sandbox import mounts_below, wait_until


class ErofsCase(Clients, Case):
    kind = "static C"
    disk_bytes = 600 << 20

    def setUp(self):
        super().setUp()
        self.instance = self.holdfast()
        self.device = self.box.path("cachefiles")
        self.disk = Disk(self.box, "disk", self.disk_bytes)
        self.sources = self.box.make_directory("sources")
        self.directory = self.box.make_directory("disk", "cache-of-the-daemon")
        done = self.instance.run("start", *self.flags(), "--cache-dir", os.path.join(self.disk.path, "cache"),
                                 "--cachefiles-device", self.device)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.addCleanup(self.stop)

    def stop(self):
        for point in mounts_below(self.box.path("points")):
            self.box.run(["umount", point])
        self.instance.run("stop", *self.flags())

    def flags(self):
        return [*self.instance.root_flags(), "--instance", self.instance.name]

    def point(self, name):
        return self.box.make_directory("points", name)

    def mount(self, point, options, *flags, timeout="30s"):
        """How `holdfast mount-erofs` ended: 0 or an errno, and what it says."""
        done = self.instance.run("mount-erofs", *self.flags(), "--json", "--timeout=" + timeout, *flags, "-o", options, point)
        answer = json.loads(done.stdout)
        return answer["errno"], answer["message"]

    def umount(self, point):
        done = self.box.run(["umount", point])
        self.assertEqual(done.returncode, 0, done.stderr)

    def wait_count(self, log, word, count):
        wait_until(lambda: self.text(log).count(word) == count, 20, f"{count} times {word!r}")

    def assert_same_tree(self, where, tree):
        names = sorted(os.listdir(tree))
        self.assertEqual(sorted(os.listdir(where)), names)
        _, wrong, errors = filecmp.cmpfiles(where, tree, names, shallow=False)
        self.assertEqual((wrong, errors), ([], []))

    def bound_client(self):
        """The output of a daemon that has opened the device and bound it."""
        return self.client(self.device, "bind")[1]

    def status(self):
        """Of the device."""
        done = self.instance.run("status", *self.flags(), "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)["instances"][0]["daemon"]["cachefiles"]

    def supervise_another(self):
        """In place of self.instance: one of `holdfast supervise`, with a device of its own."""
        root, self.instance = self.instance.root, self.holdfast("other")
        self.instance.root, self.device = root, self.box.path("other-cachefiles")
        self.directory = self.box.make_directory("disk", "cache-of-the-other-daemon")
        supervisor = self.box.start(self.instance.command_line("supervise", *self.flags(), f"--cachefiles-device={self.device}"))
        wait_until(lambda: os.path.ismount(self.device), 20, "the device is mounted")
        self.addCleanup(self.stop)
        return supervisor
