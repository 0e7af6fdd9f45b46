"""What a mount gives to the machine's other users: what the mount point shows, and nothing else."""

import errno
import os
import signal
import subprocess
import unittest

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.lookup_costs import assert_lookups_cost_nothing, look_up_absent, open_existing
from harness.other_user import as_nobody, error_of, read_file, readable_below
from harness.readers import Reader, pread
from harness.sandbox import wait_gone, wait_until


class OtherUsersTest(Case):
    def setUp(self):
        super().setUp()
        os.chmod(self.box.directory, 0o711)
        self.instance = self.holdfast()
        self.root = self.box.make_directory("origin")
        for name in ("one", "two", "three"):
            with open(os.path.join(self.root, name), "wb") as f:
                f.write(name.encode() * 5000)

    def serve_root(self):
        return self.serve(self.root)

    def secret_image(self):
        """An image with a file that is root's alone; its path."""
        tree = self.box.make_directory("tree")
        with open(os.path.join(tree, "secret"), "w") as f:
            f.write("TOPSECRET" * 100)
        os.chmod(os.path.join(tree, "secret"), 0o600)
        images.make_erofs(tree, os.path.join(self.root, "image"))
        return os.path.join(self.root, "image")

    def raw_path(self, point_url):
        """Where the FUSE tree has the object of a URL."""
        for thing in self.instance.status()["objects"]:
            if thing["name"] == point_url.rsplit("/", 1)[1]:
                return self.instance.run_path("fuse", thing["volume"], thing["name"])
        self.fail("no such object")

    def test_a_root_only_file_cannot_be_read_from_the_raw_image(self):
        self.secret_image()
        url = self.serve_root().url("image")
        point = self.instance.mount(url, "--as=erofs")
        self.assertEqual(read_file(os.path.join(point, "secret"))[:9], b"TOPSECRET")
        self.assertEqual(error_of(read_file, os.path.join(point, "secret")), errno.EACCES)
        self.assertEqual(error_of(read_file, self.raw_path(url)), errno.EACCES)
        self.assertEqual(error_of(os.listdir, self.instance.run_path("fuse")), errno.EACCES)
        self.assertIn("secret", as_nobody(os.listdir, point))

    def test_other_users_reach_only_the_mount_point_of_an_instance(self):
        self.secret_image()
        origin = self.serve_root()
        self.instance.mount(origin.url("image"), "--as=erofs")
        self.instance.mount(origin.url("one"), "--as=file")
        for directory in (self.instance.run_path(), self.instance.state_path()):
            self.assertEqual(readable_below(directory), [])

    def test_a_file_mount_shows_its_one_object(self):
        origin = self.serve_root()
        one = self.instance.mount(origin.url("one"), "--as=file")
        two = self.instance.mount(origin.url("two"), "--as=file")
        for point, name, others in ((one, "one", ("two", "three", "image", "none")),
                                    (two, "two", ("one", "three", "image", "none"))):
            for ask in (lambda f, *a: f(*a), as_nobody):
                self.assertEqual(ask(os.listdir, point), [name])
                self.assertEqual(ask(read_file, os.path.join(point, name)), name.encode() * 5000)
                for other in others:
                    with self.assertRaises(FileNotFoundError):
                        ask(read_file, os.path.join(point, other))
        self.assertNotIn("three", "".join(object["name"] for object in self.instance.status()["objects"]))
        self.assertEqual([line for line in origin.log() if "three" in line.uri or "none" in line.uri], [])

    def test_what_was_not_acquired_is_not_there_for_root_either(self):
        origin = self.serve_root()
        url = origin.url("one")
        self.instance.mount(url, "--as=file")
        beside = os.path.dirname(self.raw_path(url))
        self.assertEqual(os.listdir(beside), ["one"])
        for name in ("two", "three", "../one/two"):
            with self.assertRaises(OSError):
                os.stat(os.path.join(beside, name))
        self.assertEqual(os.listdir(self.instance.run_path("fuse")), [os.path.basename(beside)])
        with self.assertRaises(FileNotFoundError):
            os.stat(self.instance.run_path("fuse", "no-such-volume"))

    def test_files_beside_a_local_image_stay_where_they_are(self):
        private = os.path.join(self.root, "private")
        with open(private, "w") as f:
            f.write("PRIVATE")
        os.chmod(private, 0o600)
        os.symlink("/etc/shadow", os.path.join(self.root, "shadow"))
        point = self.instance.mount(f"file://{self.root}/one", "--as=file")
        for name in ("private", "shadow", "two"):
            self.assertEqual(error_of(read_file, os.path.join(point, name)), errno.ENOENT)
            self.assertEqual(error_of(os.stat, os.path.join(point, name)), errno.ENOENT)

    def test_a_name_is_there_until_its_last_mount_is_gone(self):
        origin = self.serve_root()
        self.instance.mount(origin.url("three"), "--as=file")
        points = [self.instance.mount(origin.url("one"), "--as=file") for _ in range(2)]
        raw = self.raw_path(origin.url("one"))
        self.instance.umount(points[0])
        self.assertEqual(as_nobody(read_file, os.path.join(points[1], "one"))[:3], b"one")
        self.instance.umount(points[1])
        with self.assertRaises(FileNotFoundError):
            os.stat(raw)

    def test_a_loan_ends_without_a_word_from_the_one_that_took_it(self):
        origin = self.serve_root()
        url = origin.url("one")
        self.instance.mount(url, "--as=file")
        volume = os.path.basename(os.path.dirname(self.raw_path(url)))
        answer = self.instance.control({"op": "acquire", "volume": volume, "object": "two", "lend_ms": 1500})
        self.assertTrue(answer["ok"], answer)
        self.assertEqual(read_file(answer["path"])[:3], b"two")
        self.assertEqual(read_file(answer["directory"] + "/two")[:3], b"two")
        wait_until(lambda: not os.path.exists(answer["path"]), 10, "the name gone")
        self.assertFalse(os.path.exists(answer["directory"]))
        self.assertFalse(self.instance.control({"op": "keep", "volume": volume, "object": "two"})["ok"])

    def test_requests_of_objects_without_a_mount_end(self):
        with open(os.path.join(self.root, "large"), "wb") as f:
            f.truncate(64 << 20)
        origin = self.serve_root()
        self.instance.mount(origin.url("one"), "--as=file")
        point = self.instance.mount(origin.url("large"), "--as=file")
        path = os.path.join(point, "large")
        for i in range(8):
            pread(path, i << 20, 4096)  # Sequential enough to be fetched ahead of.
        origin.stop()
        reader = self.keep(Reader(path, 48 << 20, 4096, bytes(4096)))
        wait_until(lambda: self.instance.pending() > 0, 20, "something pending")
        reader.close()
        self.instance.umount(point)
        wait_until(lambda: self.instance.pending() == 0, 60, "nothing pending")

        def state():
            return {thing["name"]: thing["state"] for thing in self.instance.status()["objects"]}["large"]
        wait_until(lambda: state() == "Close", 60, "the object closed")

    def test_names_outlive_the_daemon(self):
        origin = self.serve_root()
        point = self.instance.mount(origin.url("one"), "--as=file")
        for _ in range(5):
            readers = [self.box.start(["sh", "-c", f"for i in $(seq 300); do cat {point}/one || exit 1; done"],
                                      stdout=subprocess.DEVNULL) for _ in range(3)]
            pid = self.instance.daemon_pid()
            os.kill(pid, signal.SIGKILL)
            self.assertTrue(wait_gone(pid, 5))
            for reader in readers:
                self.assertEqual(reader.wait(60), 0)
        self.assertEqual(as_nobody(os.listdir, point), ["one"])
        self.assertEqual(error_of(os.stat, os.path.join(point, "two")), errno.ENOENT)

    # What look-ups cost.
    def test_twenty_thousand_lookups_cost_nothing_that_stays(self):
        origin = self.serve_root()
        point = self.instance.mount(origin.url("one"), "--as=file")
        requests = len(origin.log())

        assert_lookups_cost_nothing(self, self.instance, "absent names", look_up_absent, point)
        assert_lookups_cost_nothing(self, self.instance, "their neighbours", look_up_absent, point, 1 << 40)
        assert_lookups_cost_nothing(self, self.instance, "an existing name", open_existing, f"{point}/one")
        self.assertEqual(len(origin.log()), requests)


if __name__ == "__main__":
    main(tools=("mkfs.erofs",))
