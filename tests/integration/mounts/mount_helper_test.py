"""`mount -t holdfast URL DIRECTORY`, as people and fstab(5) give it to mount(8)."""

import os

import _path  # noqa: F401
from harness.case import Case, main
from harness.sandbox import mount_flags


class MountHelperTest(Case):
    def setUp(self):
        super().setUp()
        self.install_mount_helper("mount.holdfast")
        self.serve_random_image(2, 1 << 20, seed=3)
        self.point = self.box.make_directory("point")
        self.options = f"instance={self.instance.name},root={self.instance.root}"

    def mount(self, words, *arguments):
        return self.box.run(["mount", "-t", "holdfast", "-o", f"{self.options},{words}", self.url, self.point, *arguments])

    def test_an_image_is_mounted_and_read(self):
        done = self.mount("as=erofs,noexec,_netdev,nofail,x-systemd.automount,rw")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        for name in os.listdir(self.tree):
            self.assert_reads_right(os.path.join(self.point, name), os.path.join(self.tree, name))
        self.assertLessEqual({"ro", "noexec", "nosuid", "nodev"}, set(mount_flags(self.point)))
        self.assertEqual(self.box.run(["umount", self.point]).returncode, 0)

    def test_a_part_of_an_object_is_named_by_words_that_mount_leaves_alone(self):
        at = self.box.path("at")
        with open(self.image, "rb") as source, open(at, "wb") as target:
            target.write(b"\1" * 4096 + source.read())
        self.url = "file://" + at
        done = self.mount("image-offset=4K")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(sorted(os.listdir(self.point)), sorted(os.listdir(self.tree)))

    def test_a_line_of_fstab_does(self):
        fstab = self.box.path("fstab")
        with open(fstab, "w") as f:
            f.write(f"{self.url} {self.point} holdfast ro,_netdev,nofail,{self.options} 0 0\n")
        done = self.box.run(["mount", "--fstab", fstab, self.point])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(os.path.ismount(self.point))

    def test_what_is_wrong_is_said_with_the_exit_codes_of_mount(self):
        for words, code, said in (("as=tape", 1, "tape"), ("timeout=long", 1, "long"), ("nonsense=3", 32, "nonsense")):
            done = self.mount(words)
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertIn(said, done.stderr)
            self.assertFalse(os.path.ismount(self.point))

    def test_an_origin_that_does_not_answer_is_said_after_the_timeout(self):
        self.origin.stop()
        done = self.mount("timeout=2s")
        self.assertEqual(done.returncode, 32, done.stderr)
        self.assertIn(self.url, done.stderr)

    def test_a_mount_that_is_only_tried_mounts_nothing(self):
        self.assertEqual(self.mount("ro", "--fake").returncode, 0)
        self.assertFalse(os.path.ismount(self.point))


if __name__ == "__main__":
    main(tools=("mkfs.erofs", "mount"))
