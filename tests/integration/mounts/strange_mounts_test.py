"""Mount points with odd names and in odd places, and mounts that others copy, cover or take away meanwhile."""

import errno
import os
import subprocess

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.other_user import error_of, read_file
from harness.readers import RIGHT, Reader

NAMES = ("two words", "line\nfeed", "tab\there", "back\\slash", "\\040", "quote'\"", "%s%n", "#hash", "-t", "ümlaut",
         os.fsdecode(b"not-utf8-\xff\xfe"), " ", "\\", "a" * 255)


class StrangeMountsTest(Case):
    def setUp(self):
        super().setUp()
        self.image, self.tree = images.random_image(3, 1 << 20, seed=9)
        self.truth = images.random_file(4 << 20, seed=10)
        self.instance = self.holdfast()

    def mount_image(self, point):
        return self.instance.mount("file://" + self.image, mount_point=point)

    def umount_result(self, point, *flags):
        return self.instance.run("umount", *self.instance.root_flags(), *flags, point)

    def assert_shows_image(self, point):
        self.assertEqual(sorted(os.listdir(point)), sorted(os.listdir(self.tree)))

    def assert_nothing_is_left(self):
        self.assertFalse(os.path.exists(self.instance.run_path()))
        self.assertEqual(self.instance.processes(), [])

    def test_any_name_of_a_mount_point(self):
        for as_file in (False, True):
            for name in NAMES:
                with self.subTest(name=name, as_file=as_file):
                    point = self.box.make_directory("names", name)
                    flags = ["--as=file"] if as_file else []
                    self.instance.mount("file://" + self.image, *flags, mount_point=point)
                    if as_file:
                        self.assertEqual(os.listdir(point), [os.path.basename(self.image)])
                    else:
                        self.assert_shows_image(point)
                    done = self.instance.run("status", *self.instance.root_flags(), "--json")
                    self.assertEqual(done.returncode, 0, done.stderr)
                    self.instance.umount(point)
                    self.assertFalse(os.path.ismount(point))
                    self.assert_nothing_is_left()

    def test_any_name_of_the_root_directory(self):
        for name in NAMES[:-1]:
            with self.subTest(name=name):
                self.instance.root = self.box.make_directory("roots", name)
                self.assert_shows_image(self.mount_image(self.box.make_directory("point")))
                path = self.instance.mount_file("file://" + self.truth)
                self.assert_reads_right(path, self.truth)
                self.instance.umount(os.path.dirname(path))
                self.instance.umount(self.box.path("point"))
                self.assert_nothing_is_left()

    def deep_directory(self, length):
        """An absolute path of exactly that many bytes, made step by step."""
        path = self.box.make_directory("deep", str(length))
        fd = os.open(path, os.O_PATH)
        while len(path) < length:
            left = length - len(path) - 1
            name = "d" * (left if left <= 200 else 200 if left > 202 else 100)
            os.mkdir(name, dir_fd=fd)
            deeper = os.open(name, os.O_PATH, dir_fd=fd)
            os.close(fd)
            fd, path = deeper, path + "/" + name
        os.close(fd)
        self.assertEqual(len(path), length)
        return path

    def test_a_path_up_to_what_the_kernel_takes(self):
        for length in (1000, 4000, 4095):
            with self.subTest(length):
                point = self.deep_directory(length)
                self.mount_image(point)
                self.assert_shows_image(point)
                self.instance.umount(point)
                self.assert_nothing_is_left()
        self.assert_one_line(self.instance.try_mount("file://" + self.image, "/" + "d/" * 2050), "File name too long")
        self.assert_one_line(self.instance.try_mount("file://" + self.image, "/" + "d" * 256), "File name too long")
        self.assert_nothing_is_left()

    def test_a_read_only_or_nosuid_file_system_holds_a_mount_point(self):
        for options in ("ro", "nosuid,nodev,noexec"):
            place = self.box.make_directory("place-" + options)
            subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
            os.mkdir(place + "/point")
            subprocess.run(["mount", "-o", "remount," + options, place], check=True)
            self.mount_image(place + "/point")
            self.assert_shows_image(place + "/point")
            busy = subprocess.run(["umount", place], capture_output=True)
            self.assertNotEqual(busy.returncode, 0)
            self.instance.umount(place + "/point")
            subprocess.run(["umount", place], check=True)
        self.assert_nothing_is_left()

    def test_umount_by_a_path_through_a_link(self):
        real = self.box.make_directory("real", "point")
        os.symlink(self.box.path("real"), self.box.path("link"))
        os.symlink(real, self.box.path("last"))
        for path in ("link/point", "link/../real/./point/", "last"):
            self.mount_image(real)
            self.instance.umount(self.box.path(path))
            self.assertFalse(os.path.ismount(real))
        self.mount_image(self.box.path("link/point"))
        self.instance.umount(real)
        self.assert_nothing_is_left()

    def test_recursive_umount_of_a_parent(self):
        place = self.box.make_directory("place")
        subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
        os.mkdir(place + "/point")
        self.mount_image(place + "/point")
        subprocess.run(["umount", "-R", place], check=True)
        self.assertEqual(self.instance.run("stop", *self.instance.root_flags(), "--instance", "t").returncode, 0)
        self.assert_nothing_is_left()

    def test_a_lazy_umount_of_others_and_a_mount_again(self):
        point = self.box.make_directory("point")
        self.mount_image(point)
        holder = self.keep(Reader(self.instance.mount_file("file://" + self.truth), 0, 4096))
        held = os.open(os.path.join(point, os.listdir(point)[0]), os.O_RDONLY)
        try:
            for _ in range(3):
                subprocess.run(["umount", "-l", point], check=True)
                self.mount_image(point)
                self.assert_shows_image(point)
            self.assertGreater(len(os.pread(held, 4096, 0)), 0)
        finally:
            os.close(held)
        self.assertTrue(holder.wait(20))
        self.instance.umount(point)
        self.instance.umount(self.box.path("m-t-1"))
        self.assert_nothing_is_left()

    def test_a_directory_that_is_not_empty_is_covered_and_comes_back(self):
        point = self.box.make_directory("point")
        with open(point + "/mine", "w") as f:
            f.write("before")
        done = self.instance.try_mount("file://" + self.image, point)
        if done.returncode == 0:
            self.assert_shows_image(point)
            self.instance.umount(point)
        self.assertEqual(read_file(point + "/mine"), b"before")
        self.assert_nothing_is_left()

    def test_one_url_at_two_points_and_one_goes_while_the_other_reads(self):
        for flags in ((), ("--as=file",)):
            url = "file://" + (self.truth if flags else self.image)
            first, second = self.instance.mount(url, *flags), self.instance.mount(url, *flags)
            name = os.listdir(first)[0]
            truth = read_file(self.truth if flags else os.path.join(self.tree, name))
            for other in (first, self.instance.mount(url, *flags)):
                reader = self.keep(Reader(os.path.join(second, name), 0, len(truth), truth))
                self.instance.umount(other)
                self.assertTrue(reader.wait(20))
                self.assertEqual(reader.result, RIGHT)
            self.assertEqual(read_file(os.path.join(second, name)), truth)
            self.instance.umount(second)
            self.assert_nothing_is_left()

    def test_the_run_directory_bound_elsewhere_gives_others_nothing(self):
        os.chmod(self.box.directory, 0o711)
        point = self.instance.mount_file("file://" + self.truth)
        bound = self.box.make_directory("bound")
        subprocess.run(["mount", "--rbind", self.instance.run_path(), bound], check=True)
        volume = os.listdir(bound + "/fuse")[0]
        for inside in ("", "/fuse", f"/fuse/{volume}"):
            self.assertEqual(error_of(os.listdir, bound + inside), errno.EACCES, inside)
        self.assertEqual(error_of(read_file, f"{bound}/fuse/{volume}/{os.path.basename(self.truth)}"), errno.EACCES)
        # Bound by itself, the FUSE tree is root's all the same.
        tree = self.box.make_directory("tree")
        subprocess.run(["mount", "--bind", self.instance.run_path("fuse"), tree], check=True)
        self.assertEqual(error_of(os.listdir, tree), errno.EACCES)
        self.assertEqual(error_of(read_file, f"{tree}/{volume}/{os.path.basename(self.truth)}"), errno.EACCES)
        stopped = self.instance.run("stop", *self.instance.root_flags(), "--instance", "t")
        self.assert_one_line(stopped, "has mounts")
        subprocess.run(["umount", tree], check=True)
        subprocess.run(["umount", "-R", bound], check=True)
        self.instance.umount(os.path.dirname(point))
        self.assert_nothing_is_left()

    def test_a_chroot_beside_the_mount_reads_what_others_do(self):
        os.chmod(self.box.directory, 0o711)
        point = self.instance.mount_file("file://" + self.truth)
        inside = os.path.relpath(point, self.box.directory)
        volume = os.listdir(self.instance.run_path("fuse"))[0]
        raw = os.path.relpath(self.instance.run_path("fuse", volume, os.path.basename(point)), self.box.directory)

        def read_in_chroot(path):
            pid = os.fork()
            if pid == 0:
                try:
                    os.chroot(self.box.directory)
                    os.chdir("/")
                    os.setgroups([])
                    os.setgid(65534)
                    os.setuid(65534)
                    read_file("/" + path)
                    os._exit(0)
                except OSError as e:
                    os._exit(e.errno)
                finally:
                    os._exit(255)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        self.assertEqual(read_in_chroot(inside), 0)
        self.assertEqual(read_in_chroot(raw), errno.EACCES)


if __name__ == "__main__":
    main(tools=("mkfs.erofs",))
