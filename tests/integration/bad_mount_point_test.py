"""Mount points and cache directories that can't be used: refused before anything is started, with the cure."""

import os
import subprocess
import unittest

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.neighbour import Neighbour
from harness.sandbox import processes_of


class BadMountPointTest(Case):
    def setUp(self):
        super().setUp()
        self.image, self.tree = images.random_image(2, 1 << 20)
        self.origin = self.serve(os.path.dirname(self.image))
        self.url = self.origin.url(os.path.basename(self.image))
        self.instance = self.holdfast()
        self.neighbour = Neighbour(self, self.instance)

    def tearDown(self):
        if not self.has_failed():
            self.neighbour.assert_undisturbed()

    def refuse(self, mount_point, pattern):
        self.assert_one_line(self.instance.try_mount(self.url, mount_point), pattern)

    def test_a_missing_one_is_refused_with_the_command_that_makes_it(self):
        point = self.box.path("nowhere")
        self.refuse(point, rf"{point} does not exist.*mkdir -p")

    def test_a_file_is_refused(self):
        point = self.box.path("file")
        open(point, "w").close()
        self.refuse(point, rf"{point} is not a directory")

    def test_one_where_something_else_is_mounted_is_refused(self):
        point = self.box.make_directory("busy")
        subprocess.run(["mount", "-t", "tmpfs", "none", point], check=True)
        self.refuse(point, rf"{point} is busy: tmpfs")
        self.assertEqual(os.listdir(point), [])

    def test_a_second_mount_on_the_same_point_is_refused_and_the_first_goes_on(self):
        point = self.instance.mount(self.url)
        self.refuse(point, rf"{point} already shows .*holdfast umount")
        self.assertEqual(sorted(os.listdir(point)), sorted(os.listdir(self.tree)))

    def test_a_busy_one_is_not_unmounted_and_its_holder_is_named(self):
        point = self.instance.mount(self.url)
        holder = self.box.start(["sleep", "1000"], cwd=point)
        done = self.instance.run("umount", "--root", self.instance.root, point)
        self.assert_one_line(done, rf"busy.*sleep \({holder.pid}\)")
        self.assertEqual(sorted(os.listdir(point)), sorted(os.listdir(self.tree)))
        holder.kill()
        holder.wait()
        self.instance.umount(point)
        self.assertFalse(os.path.ismount(point))

    def test_a_cache_directory_that_is_not_writable_is_named(self):
        other = self.holdfast("ro")
        cache = other.state_path("cache")
        os.makedirs(cache)
        # Root writes where the mode forbids it; a read-only mount is what stops root.
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,mode=0755", "none", cache], check=True)
        point = self.box.make_directory("point")
        self.assert_one_line(other.try_mount(self.url, point, "--timeout=10s"), rf"{cache}.*(?i:read-only)")
        self.assertFalse(os.path.ismount(point))
        left = [pid for pid in processes_of(self.box.directory) if f"/holdfast/{other.name}" in command_line(pid)]
        self.assertEqual(left, [], "processes of an instance that could not start")


def command_line(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as f:
            return f.read()
    except OSError:
        return ""


if __name__ == "__main__":
    main(tools=("mkfs.erofs",))
