"""Symbolic links of other users on the way to a mount point or to a local image."""

import os
import subprocess

import _path  # noqa: F401
from harness import images
from harness.case import Case, main

NOBODY = 65534
SWAPS = "cd {} && while :; do mkdir mp; rmdir mp; ln -s {} mp; rm mp; done 2>/dev/null"


class LinkTrustTest(Case):
    def setUp(self):
        super().setUp()
        os.chmod(self.box.directory, 0o711)
        self.instance = self.holdfast()
        self.truth = images.random_file(1 << 20, seed=61)
        self.home = self.box.make_directory("home")
        os.chown(self.home, NOBODY, NOBODY)
        self.victim = self.box.make_directory("victim")

    def serve_image(self):
        web = self.box.make_directory("web")
        subprocess.run(["cp", "--", self.truth, os.path.join(web, "x.img")], check=True)
        return self.serve(web).url("x.img")

    def link(self, name, target, owner=NOBODY, directory=None):
        path = os.path.join(directory or self.home, name)
        os.symlink(target, path)
        os.chown(path, owner, owner, follow_symlinks=False)
        return path

    def assert_refused(self, done, link, owner):
        self.assert_one_line(done, f"symbolic link {link} belongs to {owner} and is not followed.*; name what")

    def test_a_users_link_to_a_mount_point_is_not_followed(self):
        url = self.serve_image()
        link = self.link("mp", self.victim)
        self.assert_refused(self.instance.try_mount(url, link), link, "user 65534")
        inside = self.link("up", self.box.directory)
        done = self.instance.try_mount(url, os.path.join(inside, "victim"))
        self.assert_refused(done, inside, "user 65534")
        relative = self.instance.run("mount", *self.instance.root_flags(), url, os.path.relpath(link))
        self.assert_refused(relative, link, "user 65534")
        self.assertFalse(os.path.ismount(self.victim))
        self.assertFalse(os.path.exists(self.instance.run_path()))

    def test_a_link_of_root_is_followed_where_root_alone_can_exchange_it(self):
        url = self.serve_image()
        link = self.link("link", self.victim, owner=0, directory=self.box.directory)
        self.instance.mount(url, mount_point=link)
        self.assertTrue(os.path.ismount(self.victim))
        self.instance.umount(link)
        self.assertFalse(os.path.ismount(self.victim))
        theirs = self.link("mp", self.victim, owner=0)
        self.assert_refused(self.instance.try_mount(url, theirs), theirs, "root")
        shared = self.box.make_directory("shared")
        os.chmod(shared, 0o777)
        ours = self.link("mp", self.victim, owner=0, directory=shared)
        self.assert_refused(self.instance.try_mount(url, ours), ours, "root")
        os.chmod(shared, 0o1777)
        self.instance.mount(url, mount_point=ours)
        self.assertTrue(os.path.ismount(self.victim))

    def test_a_directory_of_a_user_is_a_mount_point_as_any_other(self):
        url = self.serve_image()
        point = os.path.join(self.home, "mp")
        os.mkdir(point)
        os.chown(point, NOBODY, NOBODY)
        self.instance.mount(url, mount_point=point)
        self.assertTrue(os.path.ismount(point))
        self.instance.umount(point)

    def test_a_directory_that_a_user_swaps_for_a_link_gets_no_mount_elsewhere(self):
        url = self.serve_image()
        keep = self.instance.mount(url)
        swapper = self.box.start(["/bin/sh", "-c", SWAPS.format(self.home, self.victim)], user=NOBODY)
        try:
            for _ in range(40):
                point = os.path.join(self.home, "mp")
                done = self.instance.try_mount(url, point, "--timeout=5s")
                self.assertFalse(os.path.ismount(self.victim))
                if done.returncode == 0:
                    self.instance.run("umount", *self.instance.root_flags(), point)
        finally:
            swapper.kill()
            swapper.wait()
        self.assertTrue(os.path.ismount(keep))

    def test_a_users_link_unmounts_nothing(self):
        url = self.serve_image()
        self.instance.mount(url, mount_point=self.victim)
        for path in (self.link("mp", self.victim),
                     os.path.join(self.link("up", self.box.directory), "victim")):
            done = self.instance.run("umount", *self.instance.root_flags(), path)
            self.assert_one_line(done, "belongs to user 65534 and is not followed")
            self.assertTrue(os.path.ismount(self.victim))

    def test_a_users_link_to_an_image_is_not_followed(self):
        image = os.path.join(self.victim, "secret.img")
        subprocess.run(["cp", "--", self.truth, image], check=True)
        point = self.box.make_directory("point")
        link = self.link("a.img", image)
        self.assert_refused(self.instance.try_mount("file://" + link, point, "--as=file"), link, "user 65534")
        inside = self.link("d", self.victim)
        done = self.instance.try_mount(f"file://{inside}/secret.img", point, "--as=file")
        self.assert_refused(done, inside, "user 65534")
        self.assertFalse(os.path.ismount(point))

    def test_a_file_of_a_user_and_a_link_of_root_are_images_as_any_other(self):
        image = os.path.join(self.home, "x.img")
        subprocess.run(["cp", "--", self.truth, image], check=True)
        os.chown(image, NOBODY, NOBODY)
        self.assert_reads_right(self.instance.mount_file("file://" + image), self.truth)
        link = self.link("images", self.home, owner=0, directory=self.box.directory)
        self.assert_reads_right(self.instance.mount_file(f"file://{link}/x.img"), self.truth)


if __name__ == "__main__":
    main()
