"""Mount points and cache directories that can't be used: refused before anything is started, with the cure."""

import os
import shutil
import subprocess

import _path  # noqa: F401
from harness.case import Case, main
from harness.origins.certificates import Authority
from harness.neighbour import Neighbour
from harness.sandbox import processes_of


class BadMountPointTest(Case):
    def setUp(self):
        super().setUp()
        self.serve_random_image(2, 1 << 20)
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
        self.refuse(point, rf"{point} is busy: tmpfs from none is mounted there; use another directory$")
        self.refuse("/", "mount point / is busy: .* is mounted there; use another directory$")
        self.assertEqual(os.listdir(point), [])

    def test_a_second_mount_on_the_same_point_is_refused_and_the_first_goes_on(self):
        point = self.instance.mount(self.url)
        self.refuse(point, rf"{point} already shows .*holdfast umount")
        self.assertEqual(sorted(os.listdir(point)), sorted(os.listdir(self.tree)))

    def test_one_that_would_hide_what_an_instance_needs_is_refused(self):
        point = self.instance.mount(self.url)
        root, cache = self.instance.root, self.box.make_directory("disk", "cache")
        other = self.holdfast("other")
        other.root = root
        other.mount(self.url, f"--cache-dir={cache}", mount_point=self.box.make_directory("p"))
        os.symlink(self.instance.state_path(), self.box.path("link"))
        bound = self.box.make_directory("bound")
        subprocess.run(["mount", "--bind", os.path.join(root, "var"), bound], check=True)
        points = [self.instance.run_path(), self.instance.run_path("fuse"), self.instance.run_path("mounts"),
                  self.instance.state_path(), self.instance.state_path("cache", "data"),
                  self.instance.state_path("sources"), cache, os.path.dirname(cache), root, self.box.path("link"),
                  *(os.path.join(root, name) for name in
                    ("run", "run/holdfast", "run/holdfast/.locks", "var/lib", "var/log/holdfast")),
                  *(os.path.join(bound, name) for name in ("lib", "lib/holdfast/other", "log/holdfast"))]
        for hidden in points:
            with self.subTest(hidden):
                done = self.instance.try_mount(self.url, hidden)
                refused = rf"(would hide .*({root}|{cache}).*|is the FUSE tree of instance t, .*); use a directory elsewhere$"
                if hidden in ("/", "/run"):  # Of the default root: something else is mounted there already.
                    refused = rf"({refused}|is busy: .*)"
                self.assert_one_line(done, rf"mount point \S+ {refused}")
        self.assertEqual(sorted(os.listdir(point)), sorted(os.listdir(self.tree)))

    def test_one_above_what_a_new_instance_is_to_use_is_refused(self):
        cache = self.box.path("new", "cache")
        other = self.holdfast("other")
        os.makedirs(self.box.path("new"))
        self.assert_one_line(other.try_mount(self.url, self.box.path("new"), f"--cache-dir={cache}"),
                             rf"{self.box.path('new')} would hide {cache}, which instance other needs")

    def test_one_that_would_hide_the_file_of_a_mount_is_refused(self):
        directory = self.box.make_directory("images", "deep")
        above, image = os.path.dirname(directory), shutil.copy(self.image, directory)
        url = "file://" + image
        for point in (directory, above):
            done = self.instance.try_mount(url, point)
            self.assert_one_line(done, rf"mount point {point} would hide {image}, which {url} needs; use a directory elsewhere$")
        for option in ("--headers-file", "--ca-file"):
            file = os.path.join(directory, option)
            with open(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), "w") as f:
                f.write("Authorization: Bearer abcdefgh")
            if option == "--ca-file":
                shutil.copy(Authority(self.box).certificate, file)
            done = self.instance.try_mount("https://127.0.0.1:1/image", above, option, file)
            self.assert_one_line(done, f"would hide {file}, which https://127.0.0.1:1/image needs")
        # Also what is mounted of another image, as long as it is mounted.
        point = self.instance.mount(url)
        self.refuse(above, f"would hide {image}, which {url} needs")
        subprocess.run(["umount", point], check=True)
        self.instance.mount(self.url, mount_point=above)
        self.instance.umount(above)
        self.assertEqual(os.listdir(above), ["deep"])

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

    def test_an_empty_cache_directory_and_the_root_directory_are_wrong_usage(self):
        point, before = self.box.make_directory("point"), sorted(os.listdir("/"))
        os.symlink("/", self.box.path("link"))
        other = self.holdfast("nowhere")
        for cache in ("/", "//", "/.", "/..", "/absent/..", self.box.path("link"), self.box.path("link") + "/."):
            with self.subTest(cache):
                done = other.try_mount(self.url, point, "--cache-dir", cache)
                self.assert_one_line(done, f"--cache-dir {cache} is the root directory; give the cache a directory of its own$")
                self.assertEqual(done.returncode, 2)
        for option in ("--cache-dir", "--request-timeout", "--fetch-size", "--readahead-max", "--fetcher-user",
                       "--daemon-flag", "--fetcher-flag"):
            with self.subTest(option):
                done = other.try_mount(self.url, point, option, "")
                self.assert_one_line(done, f"{option}: has an empty value; give one, or leave the option out")
                self.assertEqual(done.returncode, 2)
        for verb in ("dump", "verify"):
            done = self.instance.run(verb, *other.root_flags(), "--cache-dir", "")
            self.assert_one_line(done, "--cache-dir: has an empty value")
            self.assertEqual(done.returncode, 2)
        self.assertFalse(os.path.exists(other.state_path()))
        # The daemon itself refuses it, whatever its flag came from.
        done = other.try_mount(self.url, point, "--daemon-flag=--cache-dir=//")
        self.assert_one_line(done, "did not start: .*--cache-dir=// is the root directory; give the cache")
        self.assertEqual(sorted(os.listdir("/")), before)

    def test_a_mount_that_fails_leaves_no_empty_directories(self):
        other = self.holdfast("nowhere")
        place, point = self.box.make_directory("read-only"), self.box.make_directory("point")
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,mode=0755", "none", place], check=True)
        for was_there in (False, True):
            if was_there:
                os.makedirs(other.state_path("mine"))
            self.assert_one_line(other.try_mount(self.url, point, f"--cache-dir={place}"), "is not writable")
            self.assertEqual(os.path.exists(other.state_path()), was_there)
            self.assertFalse(os.path.exists(os.path.dirname(other.log_path("holdfastd"))))
            self.assertFalse(os.path.exists(other.run_path()))
            self.assertTrue(os.path.isdir(place))
        # What was there before stays, empty or not.
        self.assertEqual(os.listdir(other.state_path("mine")), [])

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
