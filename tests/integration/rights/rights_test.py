"""`holdfast mount` without the machine's root, or without what it mounts by: one line that names the cause and the cure."""

import os
import subprocess

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.holdfast import BIN

HOLDFAST = os.path.join(BIN, "holdfast")
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


class RightsTest(Case):
    def setUp(self):
        super().setUp()
        self.instance = self.holdfast()
        self.truth = images.random_file(1 << 20, seed=8)
        self.point = self.box.make_directory("point")

    def mount_under(self, prefix, *flags, url=None):
        """`holdfast mount` as the command of another."""
        arguments = self.instance.mount_arguments(url or "file://" + self.truth, self.point, *(flags or ("--as=file",)))
        return self.box.run([*prefix, HOLDFAST, *arguments])

    def mount_with(self, preparation):
        """The same in a mount namespace where that shell command has run."""
        return self.mount_under(["unshare", "-m", "sh", "-c", preparation + ' && exec "$@"', "sh"])

    def assert_nothing_runs(self):
        self.assertEqual(self.instance.processes(), [])
        self.assertFalse(os.path.exists(self.instance.run_path()))

    def test_a_plain_user_is_told_of_root(self):
        self.assert_one_line(self.mount_under(NOBODY), "mounting needs root; use sudo")
        for command in (["umount", *self.instance.root_flags(), self.point],
                        ["stop", *self.instance.root_flags(), "--instance", "t"],
                        ["supervise", *self.instance.root_flags(), "--instance", "t"]):
            self.assert_one_line(self.box.run([*NOBODY, HOLDFAST, *command]), "needs root; use sudo")
        self.assert_nothing_runs()

    def test_the_root_of_a_user_namespace_is_told_what_it_is(self):
        self.assert_one_line(self.mount_under(["unshare", "-Urm"]), "user namespace has no such user.*run holdfast as root")
        self.assertFalse(os.path.exists(self.instance.state_path()))
        self.assert_nothing_runs()

    def test_the_root_of_a_user_namespace_mounts_files_and_no_images(self):
        image, _ = images.random_image(2, 1 << 20)
        done = self.mount_under(["unshare", "-Urm"], "--fetcher-user=root", url="file://" + image)
        self.assert_one_line(done, "root of a user namespace may not mount.*--as=file")
        self.assert_nothing_runs()
        arguments = self.instance.mount_arguments("file://" + self.truth, self.point, "--fetcher-user=root", "--as=file")
        name = os.path.basename(self.truth)
        done = self.box.run(["unshare", "-Urm", "sh", "-c",
                             f'"$@" && cmp {self.truth} {self.point}/{name} && {HOLDFAST} umount '
                             f'{" ".join(self.instance.root_flags())} {self.point}', "sh", HOLDFAST, *arguments])
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assert_nothing_runs()

    def test_a_root_that_may_not_mount_is_told_of_the_capability(self):
        for capabilities in ("-sys_admin", "-all"):
            done = self.mount_under(["setpriv", f"--bounding-set={capabilities}"])
            self.assert_one_line(done, "CAP_SYS_ADMIN.*--cap-add SYS_ADMIN")
        self.assert_one_line(self.mount_under(["setpriv", "--bounding-set=-chown"]), "CAP_CHOWN")
        self.assert_nothing_runs()

    def test_a_fuse_device_that_is_missing_or_another_is_named(self):
        for preparation, cure in (
                ("mount -t tmpfs none /dev && mknod /dev/null c 1 3", "modprobe fuse.*--device /dev/fuse"),
                ("mount -t tmpfs none /mnt && mknod /mnt/f c 10 250 && mount --bind /mnt/f /dev/fuse", "modprobe fuse"),
                ("mount -t tmpfs none /mnt && touch /mnt/f && mount --bind /mnt/f /dev/fuse", "modprobe fuse"),
                ("mount -t tmpfs -o nodev none /mnt && mknod /mnt/f c 10 229 && mount --bind /mnt/f /dev/fuse", "nodev")):
            with self.subTest(preparation):
                self.assert_one_line(self.mount_with(preparation), "opening /dev/fuse: .*" + cure)
                self.assert_nothing_runs()

    def test_a_machine_without_proc_is_told_so(self):
        self.assert_one_line(self.mount_with("mount -t tmpfs none /proc"), "is /proc mounted")


if __name__ == "__main__":
    main(tools=("mkfs.erofs", "setpriv", "unshare"),
         reasons=["no user namespaces"] if subprocess.run(["unshare", "-Ur", "true"], capture_output=True).returncode else ())
