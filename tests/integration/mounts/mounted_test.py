"""What is mounted is known by mount and device: moved, renamed, bound, in other namespaces, under an overlay."""

import ctypes
import errno
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.sandbox import wait_until

_LIBC = ctypes.CDLL(None, use_errno=True)
MNT_DETACH = 2


def umount8(path, flags=0):
    """umount(2), as people do it beside us."""
    if _LIBC.umount2(os.fsencode(path), flags) != 0:
        raise OSError(ctypes.get_errno(), f"umount {path}")


class MountedTest(Case):
    def setUp(self):
        super().setUp()
        # A place where mounts can be moved: no mount above it is shared.
        subprocess.run(["mount", "--bind", self.box.directory, self.box.directory], check=True)
        subprocess.run(["mount", "--make-private", self.box.directory], check=True)
        self.addCleanup(umount8, self.box.directory, MNT_DETACH)
        tree = self.box.make_directory("tree")
        images.write_random(os.path.join(tree, "f"), 300_000, 7)
        self.truth = os.path.join(tree, "f")
        self.web = self.box.make_directory("web")
        images.make_erofs(tree, os.path.join(self.web, "image"))
        self.origin = self.serve(self.web)
        self.instance = self.holdfast()

    def mount(self, name="m", *flags):
        return self.instance.mount(self.origin.url("image"), *flags, mount_point=self.box.make_directory(name))

    def ended(self, verb, *arguments):
        """The exit code of a verb, and what it says with --json."""
        done = self.instance.run(verb, *self.instance.root_flags(), "--json", *arguments)
        return done.returncode, json.loads(done.stdout)

    def test_how_a_mount_ended_is_said_in_json_too(self):
        point = self.box.make_directory("said")
        well = {"errno": 0, "error": "", "message": ""}
        self.assertEqual(self.ended("mount", self.origin.url("image"), point), (0, well))
        self.assertEqual(self.ended("umount", point), (0, well))
        code, end = self.ended("mount", self.origin.url("absent"), point)
        self.assertEqual((code, end["errno"], end["error"]), (1, errno.ENOENT, "ENOENT"), end)
        self.assertIn("404", end["message"])
        self.assertEqual(self.ended("umount", point)[1]["error"], "EINVAL")
        self.assertEqual(self.ended("mount", "--timeout=never", self.origin.url("image"), point)[0], 2)

    def command(self, *arguments):
        return self.instance.run(*arguments)

    def umount(self, path, *flags):
        return self.command("umount", *self.instance.root_flags(), *flags, path)

    def stop(self):
        return self.command("stop", *self.instance.root_flags(), "--instance", "t")

    def status(self):
        done = self.command("status", *self.instance.root_flags(), "--instance", "t", "--json")
        return json.loads(done.stdout)["instances"][0]

    def assert_done(self, done):
        self.assertEqual(done.returncode, 0, done.stderr)

    def assert_refused(self, done, pattern):
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr, pattern)

    def assert_right(self, directory):
        self.assert_reads_right(os.path.join(directory, "f"), self.truth)

    def assert_nothing_runs(self):
        self.assertEqual(self.instance.processes(), [])
        self.assertFalse(os.path.exists(self.instance.run_path()))

    def in_other_namespace(self, propagation="private", before="true"):
        process = subprocess.Popen(["unshare", "--mount", "--propagation", propagation,
                                    "sh", "-ec", before + "; exec /bin/sleep 1000"])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        own = os.readlink("/proc/self/ns/mnt")

        def is_there():
            with open(f"/proc/{process.pid}/comm") as f:
                return f.read().strip() == "sleep" and os.readlink(f"/proc/{process.pid}/ns/mnt") != own
        wait_until(is_there, 30, "its namespace")
        return process

    def test_a_mount_point_is_free_after_umount_8(self):
        point = self.mount()
        umount8(point)
        self.assertEqual(self.mount(), point)
        self.assert_right(point)
        self.assert_done(self.umount(point))
        self.assert_nothing_runs()

    def test_a_mount_point_is_one_instances_alone(self):
        point = self.mount()
        other = self.holdfast("other")
        other.root = self.instance.root
        self.assert_one_line(other.try_mount(self.origin.url("image"), point), "already shows .*image")
        self.assert_done(self.umount(point))

    def test_a_renamed_parent(self):
        self.mount("p/m")
        os.rename(self.box.path("p"), self.box.path("q"))
        mounts = self.status()["mounts"]
        self.assertEqual([(m["mount_point"], m["alive"]) for m in mounts], [(self.box.path("q/m"), True)])
        self.assert_refused(self.stop(), "has mounts")
        self.assert_right(self.box.path("q/m"))
        self.assert_done(self.umount(self.box.path("q/m")))
        self.assert_nothing_runs()

    def test_a_moved_mount(self):
        point = self.mount()
        moved = self.box.make_directory("n")
        subprocess.run(["mount", "--move", point, moved], check=True)
        self.assert_refused(self.umount(point), f"mounted on {moved} now")
        self.assert_refused(self.stop(), "has mounts")
        self.mount()  # Where the first one was.
        self.assert_done(self.umount(point))
        self.assert_right(moved)
        self.assert_done(self.umount(moved))
        self.assert_nothing_runs()

    def test_a_bind_mount(self):
        point = self.mount()
        bound = self.box.make_directory("bound")
        subprocess.run(["mount", "--bind", point, bound], check=True)
        self.assert_refused(self.umount(point), f"also mounted on {bound}")
        umount8(point)
        self.assert_refused(self.stop(), bound)
        self.assert_right(bound)
        umount8(bound)
        self.assert_done(self.stop())
        self.assert_nothing_runs()

    def test_a_bind_mount_of_a_file_mount(self):
        point = self.mount("m", "--as=file")
        bound = self.box.make_directory("bound")
        subprocess.run(["mount", "--bind", point, bound], check=True)
        self.assert_refused(self.umount(point), f"also mounted on {bound}")
        self.assert_done(self.umount(point, "--lazy"))
        self.assert_refused(self.stop(), bound)
        self.assert_reads_right(os.path.join(bound, "image"), os.path.join(self.web, "image"))
        umount8(bound)
        self.assert_done(self.stop())
        self.assert_nothing_runs()

    def share(self):
        """As systemd has every mount."""
        subprocess.run(["mount", "--make-shared", self.box.directory], check=True)
        if os.path.ismount("/run") and self.instance.root == "/":  # The instance's own directories, too.
            subprocess.run(["mount", "--make-shared", "/run"], check=True)
            self.addCleanup(subprocess.run, ["mount", "--make-private", "/run"], check=True)

    def test_a_bind_mount_where_mounts_are_shared(self):
        self.share()
        for kind, name, truth in (("file", "image", os.path.join(self.web, "image")), ("erofs", "f", self.truth)):
            with self.subTest(kind):
                point = self.mount("m", "--as=" + kind)
                bound = self.box.make_directory("bound")
                subprocess.run(["mount", "--bind", point, bound], check=True)
                self.assert_refused(self.umount(point), f"also mounted on {bound}")
                self.assert_done(self.umount(point, "--lazy"))
                self.assert_refused(self.stop(), bound)
                self.assert_reads_right(os.path.join(bound, name), truth)
                umount8(bound)
                self.assert_done(self.stop())
                self.assert_nothing_runs()

    def test_a_bind_mount_that_is_left_after_umount_8(self):
        point = self.mount("m", "--as=file")
        bound = self.box.make_directory("bound")
        subprocess.run(["mount", "--bind", point, bound], check=True)
        umount8(point)
        self.assert_done(self.umount(point))
        self.assert_reads_right(os.path.join(bound, "image"), os.path.join(self.web, "image"))
        umount8(bound)
        self.assert_done(self.stop())

    def test_a_slave_bind_mount_in_another_namespace(self):
        self.share()
        for kind, name, truth in (("file", "image", os.path.join(self.web, "image")), ("erofs", "f", self.truth)):
            with self.subTest(kind):
                point = self.mount("m", "--as=" + kind)
                bound = self.box.make_directory("bound")
                other = self.in_other_namespace(
                    "slave", f"mount --bind {point} {bound}; mount --make-rslave {bound}; umount {point}")
                self.assert_refused(self.umount(point),
                                    f"also mounted on {bound} in the mount namespace of sleep .{other.pid}")
                self.assert_done(self.umount(point, "--lazy"))
                self.assert_reads_right(f"/proc/{other.pid}/root{bound}/{name}", truth)
                other.kill()
                other.wait()
                self.assert_done(self.stop())
                self.assert_nothing_runs()

    def test_copies_that_follow_the_unmount_do_not_hinder_it(self):
        self.share()
        beside = self.box.make_directory("beside")
        above = self.box.make_directory("above")
        subprocess.run(["mount", "--bind", above, above], check=True)
        subprocess.run(["mount", "--make-private", above], check=True)
        subprocess.run(["mount", "--make-shared", above], check=True)
        subprocess.run(["mount", "--bind", above, beside], check=True)
        point = self.mount("above/m", "--as=file")
        others = [self.in_other_namespace(propagation) for propagation in ("slave", "shared")]
        self.assertTrue(os.path.ismount(os.path.join(beside, "m")))
        self.assert_done(self.umount(point))
        for place in [beside + "/m"] + [f"/proc/{other.pid}/root{point}" for other in others]:
            self.assertEqual(os.listdir(place), [])
        self.assert_nothing_runs()
        umount8(beside)
        umount8(above)

    def run_cure(self, done, pattern):
        """Does what an error says, which `pattern` finds."""
        self.assertRegex(done.stderr, pattern)
        words = re.search(pattern, done.stderr).group(1).split()
        holdfast = self.instance.command_line()[0]
        self.assert_done(self.box.run([holdfast if word == "holdfast" else word for word in words]))

    def test_the_fuse_tree_and_copies_of_it_are_not_unmounted_by_holdfast(self):
        point = self.mount("m", "--as=file")
        tree = self.instance.run_path("fuse")
        self.assert_refused(self.umount(tree), f"{tree} is the FUSE tree of instance t, .* it goes with the instance: holdfast stop.* t$")
        for original in (tree, point):
            for refused in (lambda path: self.instance.try_mount(self.origin.url("image"), path), self.umount):
                bound = self.box.make_directory("bound")
                subprocess.run(["mount", "--bind", original, bound], check=True)
                self.run_cure(refused(bound), f"{bound} is a mount of instance t.*: (umount {bound})$")
                self.assertFalse(os.path.ismount(bound))
        self.assert_done(self.umount(point))

    def test_a_mount_that_was_made_in_another_namespace(self):
        for refused in (self.umount, lambda point: self.stop(),
                        lambda point: self.instance.try_mount(self.origin.url("image"), point)):
            other = self.in_other_namespace()
            point = self.box.make_directory("there")
            there = ["nsenter", "-t", str(other.pid), "-m"]
            self.assert_done(self.box.run([*there, *self.instance.command_line(
                *self.instance.mount_arguments(self.origin.url("image"), point))]))
            self.assertFalse(os.path.ismount(point))
            self.run_cure(refused(point), f": (nsenter -t [0-9]+ -m holdfast umount .*{point})$")
            self.assert_nothing_runs()
            other.kill()
            other.wait()

    def test_an_overlay_of_relative_names(self):
        # A name of its own: by the end of a path this overlay is one on every mount beside it of the same name.
        name = f"m{os.getpid()}"
        point = self.mount("p/" + name)
        subprocess.run(["mount", "-t", "tmpfs", "t", self.box.make_directory("o")], check=True)
        upper, work, top = (self.box.make_directory("o", name) for name in ("upper", "work", "top"))
        for start, way in (("p", ""), ("p", "./"), ("", "p/"), ("o", "../p/"), ("o/top", "../.././p/")):
            lower = way + name
            with self.subTest(lower):
                subprocess.run(["mount", "-i", "-t", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}",
                                "o", top], check=True, cwd=self.box.path(start))
                self.assert_refused(self.umount(point), f"overlay on {top}")
                umount8(top)
        os.makedirs(self.box.path("p/l" + name))
        subprocess.run(["mount", "-t", "overlay", "-o", f"lowerdir=l{name},upperdir={upper},workdir={work}", "o", top],
                       check=True, cwd=self.box.path("p"))
        self.assert_done(self.umount(point))
        umount8(top)
        self.assert_nothing_runs()

    def test_an_overlay(self):
        point = self.mount()
        upper, work, top = (self.box.make_directory("o", name) for name in ("upper", "work", "top"))
        subprocess.run(["mount", "-t", "tmpfs", "t", self.box.path("o")], check=True)
        for path in (upper, work, top):
            os.makedirs(path)
        subprocess.run(["mount", "-t", "overlay", "-o", f"lowerdir={point},upperdir={upper},workdir={work}", "o", top],
                       check=True)
        self.assert_refused(self.umount(point), f"overlay on {top}")
        done = self.umount(point, "--lazy")
        self.assert_done(done)
        self.assertIn("goes on", done.stderr)
        self.assert_refused(self.stop(), "in use")
        self.assert_right(top)
        umount8(top)
        self.assert_done(self.stop())
        self.assert_nothing_runs()

    def test_three_namespaces(self):
        point = self.mount()
        others = [self.in_other_namespace(), self.in_other_namespace()]
        self.assert_refused(self.umount(point), f"namespace of sleep .{others[0].pid}")
        self.assert_done(self.umount(point, "--lazy"))
        for other in others:
            self.assert_refused(self.stop(), f"sleep .{other.pid}")
            self.assert_right(f"/proc/{other.pid}/root{point}")
            other.kill()
            other.wait()
        self.assert_done(self.stop())
        self.assert_nothing_runs()

    def test_a_name_that_is_not_utf_8(self):
        point = os.fsencode(self.box.path("odd-")) + b"\xff\xfe\n"
        os.mkdir(point)
        done = subprocess.run([os.fsencode(argument) for argument in self.instance.command_line(
            *self.instance.mount_arguments(self.origin.url("image"), point))],
            env=self.box.environment, capture_output=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(self.status()["mounts"][0]["alive"])
        self.assert_refused(self.stop(), "has mounts")
        with open(os.path.join(point, b"f"), "rb") as f, open(self.truth, "rb") as truth:
            self.assertEqual(f.read(), truth.read())
        done = subprocess.run([os.fsencode(argument) for argument in self.instance.command_line(
            "umount", *self.instance.root_flags(), point)], env=self.box.environment, capture_output=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assert_nothing_runs()

    def is_recorded(self, point):
        for name in os.listdir(self.instance.run_path("mounts")):
            with open(self.instance.run_path("mounts", name)) as f:
                record = json.load(f)
            if record["mount_point"] == point:
                return bool(record.get("mount_id"))
        return False

    def is_locked(self):
        with open(self.instance.run_path("../.locks/t.lock")) as f:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def test_another_mount_of_the_image_that_is_being_made_is_no_user(self):
        for attempt in range(200):
            first, second = self.mount(f"first{attempt}", "--as=file"), self.box.make_directory(f"second{attempt}")
            making = self.box.start(self.instance.command_line(
                *self.instance.mount_arguments(self.origin.url("image"), second, "--as=file")))
            while not os.path.ismount(second) and making.poll() is None:
                pass
            making.send_signal(signal.SIGSTOP)
            is_hit = os.path.ismount(second) and not self.is_recorded(second) and not self.is_locked()
            if is_hit:
                self.instance.umount(first)
            making.send_signal(signal.SIGCONT)
            self.assertEqual(making.wait(60), 0)
            self.instance.umount(second)
            if is_hit:
                return
            self.instance.umount(first)
        self.fail("no mount was seen without its record")

    def test_what_no_mount_table_shows(self):
        point = self.mount("m", "--as=file")
        with open(os.path.join(point, "image"), "rb") as user:
            self.assert_done(self.umount(point, "--lazy"))
            self.assert_refused(self.stop(), f"held by .*[(]{os.getpid()}[)]")
            with open(os.path.join(self.web, "image"), "rb") as truth:
                self.assertEqual(user.read(), truth.read())
        self.mount()  # The instance is as it was.
        self.assert_right(self.box.path("m"))
        self.assert_done(self.umount(point))
        self.assert_nothing_runs()

    def test_what_is_mounted_over_it_stays(self):
        point = self.mount()
        subprocess.run(["mount", "-t", "tmpfs", "over", point], check=True)
        self.assert_refused(self.umount(point), "tmpfs from over is mounted over")
        self.assert_refused(self.stop(), "has mounts")
        umount8(point)
        self.assert_right(point)
        self.assert_done(self.umount(point))

    def test_a_mount_of_an_earlier_connection_is_replaced(self):
        point = self.mount()
        first, below = (os.stat(self.instance.run_path(*names)).st_dev for names in (("fuse",), ()))
        fusectl = self.box.make_directory("fusectl")
        subprocess.run(["mount", "-t", "fusectl", "c", fusectl], check=True)
        with open(os.path.join(fusectl, str(os.minor(first)), "abort"), "w") as f:
            f.write("1")

        def is_anew():
            try:
                # Between the two the directory below is seen.
                return os.stat(self.instance.run_path("fuse")).st_dev not in (first, below)
            except OSError:
                return False  # Dead.
        wait_until(is_anew, 20, "a FUSE mount of another connection")
        self.mount()
        self.assert_right(point)
        self.assertEqual([m["alive"] for m in self.status()["mounts"]], [True])
        self.assert_done(self.umount(point))
        self.assert_nothing_runs()

    def test_a_mount_that_fails_takes_nothing_of_another(self):
        point = self.mount()
        source = os.listdir(self.instance.state_path("sources"))
        done = self.instance.try_mount(self.origin.url("none"), self.box.make_directory("other"))
        self.assert_refused(done, "404")
        self.assertEqual(os.listdir(self.instance.state_path("sources")), source)
        self.instance.kill_fetcher()
        self.instance.wait_fetcher()
        self.assert_right(point)
        self.assert_done(self.umount(point))

    def test_an_emptied_run_directory(self):
        point = self.mount()
        for name in os.listdir(self.instance.run_path()):
            path = self.instance.run_path(name)
            if name != "fuse":
                shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
        status = self.status()
        self.assertTrue(status["running"])
        self.assertEqual([(m["mount_point"], m["alive"]) for m in status["mounts"]], [(point, True)])
        self.assert_refused(self.stop(), "has mounts")
        self.assert_refused(self.instance.try_mount(self.origin.url("image"), self.box.make_directory("n")),
                            "holdfast stop")
        self.assert_right(point)
        self.assert_done(self.umount(point))
        self.assert_nothing_runs()


if __name__ == "__main__":
    main(tools=("mkfs.erofs", "unshare"))
