"""What a mount gives to other users of the machine, and where it goes when its path is changed meanwhile."""

import os
import shutil
import stat
import subprocess

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.holdfast import helper
from harness.sandbox import mount_flags, wait_until

NOBODY = 65534


def effective_uid_of(program):
    done = subprocess.run([program, "-u"], capture_output=True, text=True, user=NOBODY)
    return int(done.stdout)


class MountSafetyTest(Case):
    def image_with_setuid_id(self):
        tree = self.box.make_directory("tree")
        shutil.copy("/usr/bin/id", os.path.join(tree, "id"))
        os.chmod(os.path.join(tree, "id"), 0o4755)
        os.mknod(os.path.join(tree, "null"), stat.S_IFCHR | 0o666, os.makedev(1, 3))
        image = os.path.join(self.box.make_directory("web"), "image")
        images.make_erofs(tree, image)
        return self.serve(os.path.dirname(image)).url("image")

    def test_setuid_programs_and_devices_of_an_image_are_only_such_when_asked_for(self):
        url = self.image_with_setuid_id()
        instance = self.holdfast()
        point = instance.mount(url)
        self.assertEqual(effective_uid_of(os.path.join(point, "id")), NOBODY)
        with self.assertRaises(PermissionError):
            open(os.path.join(point, "null"), "rb")
        trusted = instance.mount(url, "--suid", "--dev")
        self.assertEqual(effective_uid_of(os.path.join(trusted, "id")), 0)
        with open(os.path.join(trusted, "null"), "rb") as f:
            self.assertEqual(f.read(), b"")

    def test_words_for_the_mount_are_kept_from_the_file_system(self):
        url = self.image_with_setuid_id()
        instance = self.holdfast()
        point = instance.mount(url, "--erofs-options=noexec,noatime,nodiratime,defaults,nofail,acl")
        self.assertLessEqual({"ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime"}, set(mount_flags(point)))
        with self.assertRaises(PermissionError):
            subprocess.run([os.path.join(point, "id")])
        other = self.box.make_directory("other")
        self.assert_one_line(instance.try_mount(url, other, "--erofs-options=noexec,nonsense"), "nonsense")
        self.assert_one_line(instance.try_mount(url, other, "--erofs-options=rw"), "read-only")
        self.assertFalse(os.path.ismount(other))
        shown = instance.mount(url, "--as=file", "--erofs-options=noexec")
        self.assertLessEqual({"ro", "nosuid", "nodev", "noexec"}, set(mount_flags(shown)))

    def test_an_image_with_a_long_path_is_mounted_and_unmounted(self):
        """The kernel takes no source longer than 255 bytes through fsconfig(2)."""
        image, tree = images.random_image(2, 1 << 20)
        name = "i" * 240
        shutil.copy(image, os.path.join(self.box.make_directory("web"), name))
        origin = self.serve(self.box.path("web"))
        instance = self.holdfast()
        point = instance.mount(origin.url(name))
        self.assertEqual(sorted(os.listdir(point)), sorted(os.listdir(tree)))
        instance.umount(point)
        self.assertFalse(os.path.ismount(point))
        self.assertFalse(os.path.exists(instance.run_path()))

    def mount_while(self, change, *flags):
        """Mounts on `point`, and makes `change` once the mount point has been looked up."""
        image, _ = images.random_image(2, 1 << 20)
        with open(image, "rb") as f:
            origin = self.misbehave(body=f.read())
        origin.delay = 1.5  # The first answer: meanwhile the mount point is changed.
        instance = self.holdfast()
        victim = self.box.make_directory("victim")
        point = self.box.make_directory("point")
        mounting = self.box.start([helper("holdfast"),
                                   *instance.mount_arguments(origin.url("image"), point, *flags)],
                                  stderr=subprocess.PIPE, text=True)
        wait_until(lambda: origin.requests, 30, "the origin asked")
        change(point, victim)
        origin.delay = 0
        _, said = mounting.communicate(timeout=60)
        self.assertFalse(os.path.ismount(victim))
        self.assertFalse(os.path.ismount(self.box.path("renamed")))
        return mounting.returncode, said, instance

    def replace_by_link(self, point, victim):
        os.rename(point, self.box.path("renamed"))
        os.symlink(victim, point)

    def test_a_link_put_in_the_place_of_the_mount_point_gets_no_mount(self):
        for flags in ((), ("--as=file",)):
            code, said, instance = self.mount_while(self.replace_by_link, *flags)
            self.assertNotEqual(code, 0)
            self.assertRegex(said, "was renamed meanwhile; nothing is mounted")
            self.assertFalse(os.path.exists(instance.run_path()))
            os.unlink(self.box.path("point"))
            os.rmdir(self.box.path("renamed"))

    def test_a_mount_point_named_by_a_link_is_the_directory_that_the_link_named_first(self):
        first = self.box.make_directory("first")
        second = self.box.make_directory("second")
        link = self.box.path("link")

        os.symlink(first, link)
        image, tree = images.random_image(2, 1 << 20)
        with open(image, "rb") as f:
            origin = self.misbehave(body=f.read())
        origin.delay = 1.5
        instance = self.holdfast()
        mounting = self.box.start([helper("holdfast"),
                                   *instance.mount_arguments(origin.url("image"), link)])
        wait_until(lambda: origin.requests, 30, "the origin asked")
        os.symlink(second, link + ".new")
        os.rename(link + ".new", link)
        origin.delay = 0
        self.assertEqual(mounting.wait(60), 0)
        self.assertFalse(os.path.ismount(second))
        self.assertEqual(sorted(os.listdir(first)), sorted(os.listdir(tree)))
        instance.umount(first)


if __name__ == "__main__":
    main(tools=("mkfs.erofs",))
