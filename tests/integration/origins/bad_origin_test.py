"""Origins that are not there, say no, serve something else, or change: one line that says so, and no harm to other mounts."""

import errno
import os
import signal
import subprocess
import time
import unittest

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.neighbour import Neighbour
from harness.origins.nginx import free_port
from harness.readers import Reader, pread

FILE_SIZE = 1 << 20


class BadOriginTest(Case):
    def setUp(self):
        super().setUp()
        image, self.tree = images.random_image(16, FILE_SIZE, seed=3)
        with open(image, "rb") as f:
            self.image = f.read()
        self.instance = self.holdfast()
        self.neighbour = Neighbour(self, self.instance)
        self.point = self.box.make_directory("point")

    def tearDown(self):
        if not self.has_failed():
            self.neighbour.assert_undisturbed()

    def refuse(self, url, pattern, *flags):
        """The mount fails with one line, leaves nothing mounted, and the next mount there works."""
        done = self.instance.try_mount(url, self.point, *flags)
        self.assert_one_line(done, pattern)
        self.assertFalse(os.path.ismount(self.point))
        healthy = self.misbehave(body=self.image)
        self.instance.mount(healthy.url(), mount_point=self.point)
        self.assertEqual(sorted(os.listdir(self.point)), sorted(os.listdir(self.tree)))

    def test_an_unreachable_origin_is_named_with_the_reason(self):
        port = free_port()
        self.refuse(f"http://127.0.0.1:{port}/image.erofs", rf"(?i)127\.0\.0\.1:{port}.*(connect|refused)",
                    "--timeout=3s")

    def test_a_404_is_said(self):
        origin = self.misbehave()
        origin.status = 404
        self.refuse(origin.url(), r"404")

    def test_a_403_is_said(self):
        origin = self.misbehave()
        origin.status = 403
        self.refuse(origin.url(), r"403")

    def test_an_html_page_is_not_taken_for_an_image(self):
        origin = self.misbehave()
        origin.page = b"<!DOCTYPE html>\n<html><body>Please log in</body></html>\n" * 100
        self.refuse(origin.url(), r"(?i)html")

    def test_an_html_page_is_no_erofs_image_either(self):
        origin = self.misbehave(body=b"<html>sorry</html>" * 500)
        self.refuse(origin.url(), r"not an EROFS image", "--as=erofs")

    def test_a_truncated_image_is_refused_with_both_sizes(self):
        half = self.image[:len(self.image) // 2]
        self.refuse(self.misbehave(body=half).url(), rf"truncated.*{len(half)}")

    def test_a_body_that_ends_early_never_counts_as_complete(self):
        origin = self.misbehave(body=self.image)
        path = self.instance.mount_file(origin.url("early.bin"))
        origin.cut_to = 0
        with self.assertRaises(TimeoutError):
            self.read_within(path, 4 << 20, 2)
        origin.cut_to = 10000  # Each answer brings a little; the rest is asked for again.
        self.read_within(path, 6 << 20, 30)
        origin.cut_to = None
        self.read_within(path, 4 << 20, 30)

    def read_within(self, path, offset, seconds):
        """One read, of the right bytes, given up after `seconds`."""
        reader = self.keep(Reader(path, offset, 4096, self.image[offset:offset + 4096]))
        if not reader.wait(seconds):
            raise TimeoutError
        if reader.result:
            raise OSError(reader.result, "read")

    def test_an_image_that_changes_its_etag_under_a_mount_is_an_error_that_names_it(self):
        def change(origin):
            origin.etag, origin.body = '"two"', bytes(len(self.image))
        self.change_under_a_mount(change)

    def test_an_image_that_changes_its_size_under_a_mount_is_an_error_that_names_it(self):
        def change(origin):
            origin.etag, origin.body = '"two"', self.image + self.image
        self.change_under_a_mount(change)

    def test_an_image_that_changes_its_size_and_keeps_its_etag_is_an_error_that_names_it(self):
        def change(origin):
            origin.body = self.image[:-(4 << 20)]
        self.change_under_a_mount(change)

    def test_a_local_file_that_is_written_in_place_with_its_date_put_back_is_an_error_that_names_it(self):
        path = self.box.path("local.bin")
        with open(path, "wb") as f:
            f.write(self.image)
        mounted = self.instance.mount_file("file://" + path)
        self.assertEqual(pread(mounted, 0, 4096), self.image[:4096])
        was = os.stat(path)
        with open(path, "r+b") as f:
            f.seek(9 << 20)
            f.write(bytes(65536))
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
        with self.assertRaises(OSError) as raised:
            self.read_within(mounted, 9 << 20, 20)
        self.assertEqual(raised.exception.errno, errno.EIO)
        self.assertRegex(self.instance.log_text(), "local.bin.*changed since it was mounted")

    def change_under_a_mount(self, change):
        origin = self.misbehave(body=self.image)
        path = self.instance.mount_file(origin.url("changing.bin"))
        self.assertEqual(pread(path, 0, 4096), self.image[:4096])
        change(origin)
        start = time.monotonic()
        with self.assertRaises(OSError) as raised:
            self.read_within(path, 9 << 20, 20)
        self.assertEqual(raised.exception.errno, errno.EIO)
        self.assertLess(time.monotonic() - start, 20)
        self.assertEqual(pread(path, 0, 4096), self.image[:4096], "what was present is gone")
        said = [line for line in self.instance.log_text().splitlines() if "changing.bin" in line and "changed" in line]
        self.assertTrue(said, f"no line names the object and says that it changed:\n{self.instance.log_text()}")

    def test_a_mount_that_waits_says_why(self):
        port = free_port()
        url = f"http://127.0.0.1:{port}/image.erofs"
        done = self.instance.try_mount(url, self.point, "--timeout=5s")
        self.assertNotEqual(done.returncode, 0)
        first, last = done.stderr.splitlines()
        self.assertRegex(first, rf"(?i)^holdfast: still trying: .*127\.0\.0\.1:{port}.*(connect|refused)")
        self.assertRegex(last, "cannot mount")
        done = self.instance.try_mount(url, self.point, "--timeout=5s", "--quiet")
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)

    def test_an_interrupted_mount_names_itself_and_leaves_nothing(self):
        url = f"http://127.0.0.1:{free_port()}/image.erofs"
        for number in (signal.SIGINT, signal.SIGTERM):
            process = self.box.start(self.instance.command_line(*self.instance.mount_arguments(url, self.point)),
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            first = process.stderr.readline()  # It waits for its origin now.
            process.send_signal(number)
            _, last = process.communicate(timeout=30)
            self.assertIn("still trying", first)
            self.assertEqual(process.returncode, 128 + number)
            self.assertEqual(last, f"holdfast: interrupted: {url} is not mounted on {self.point}\n")
            self.assertFalse(os.path.ismount(self.point))
            self.assertNotIn(self.point, self.instance.run("status", *self.instance.root_flags(), "--json").stdout)

    def test_a_directory_or_a_file_without_a_scheme_is_told_its_reference(self):
        layout = self.box.make_directory("layout")
        with open(os.path.join(layout, "oci-layout"), "w") as f:
            f.write("{}")
        file = os.path.join(layout, "oci-layout")
        for given, hint in ((layout, f"oci-layout:{layout}$"), (self.point, "holdfast image build"),
                            (file, f"file://{file} ")):
            done = self.instance.try_mount(given, self.point)
            self.assertEqual(done.returncode, 2)
            self.assert_one_line(done, hint)
            done = self.instance.run("run", *self.instance.root_flags(), given)
            self.assertEqual(done.returncode, 2)
            self.assert_one_line(done, hint)

    def test_a_directory_with_a_scheme_is_told_its_reference(self):
        layout = self.box.make_directory("layout")
        with open(os.path.join(layout, "oci-layout"), "w") as f:
            f.write("{}")
        build = f"; to make an image of this directory: holdfast image build {self.point}/? OUT; the image is then oci-layout:OUT$"
        for given, code, why in ((f"file://{self.point}", 1, f"{self.point} is a directory, not an image" + build),
                                 (f"file://{self.point}/", 2, "names no file: its path must end in the image's name" + build),
                                 (f"file://{layout}", 1, f"{layout} is a directory, not an image; .* OCI layout: oci-layout:{layout}$"),
                                 (f"oci-layout:{self.point}", 1, "not an OCI layout: .* has no index.json" + build)):
            done = self.instance.try_mount(given, self.point)
            self.assertEqual(done.returncode, code)
            self.assert_one_line(done, why)
        for given, why in ((self.point, build), (layout, f"; this directory is an OCI layout: oci-layout:{layout}$")):
            done = self.instance.run("run", *self.instance.root_flags(), "file://" + given)
            self.assertEqual(done.returncode, 2)
            self.assert_one_line(done, "is not an image reference; .*" + why)
        self.assertFalse(os.path.ismount(self.point))


if __name__ == "__main__":
    main(tools=("mkfs.erofs",))
