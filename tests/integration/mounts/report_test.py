"""`holdfast report`: the page of a run whose numbers are known."""

import os
import re
import subprocess
import unittest

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.holdfast import NO_READ_AHEAD
from harness.other_user import as_nobody
from harness.readers import Reader
from harness.screens import browser

MB = 1 << 20
FILE_COUNT, FILE_SIZE = 24, 4 * MB


def value(page, name):
    return int(re.search(rf'id="{name}" data-value="(\d+)"', page).group(1))


def rows(page, table):
    body = re.search(rf'<table id="{table}">(.*?)</table>', page, re.S).group(1)
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", body)[1:]]


class ReportPageTest(Case):
    def report(self, instance, *arguments):
        page = self.box.path("report.html")
        done = instance.run("report", *instance.root_flags(), "--instance", instance.name, "-o", page, *arguments)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        with open(page) as f:
            return page, f.read()

    def mount_random_file(self, *flags):
        self.truth = images.random_file(16 * MB)
        self.origin = self.serve(os.path.dirname(self.truth))
        self.instance = self.holdfast()
        self.path = self.instance.mount_file(self.origin.url(os.path.basename(self.truth)), NO_READ_AHEAD, *flags)

    def read_alone(self, offset, length):
        """Without what the kernel reads ahead."""
        with open(self.path, "rb", buffering=0) as f:
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            for at in range(offset, offset + length, 4096):
                self.assertEqual(len(os.pread(f.fileno(), 4096, at)), 4096)

    def mount_image(self):
        self.serve_random_image(FILE_COUNT, FILE_SIZE, seed=7)
        self.point = self.instance.mount(self.url, NO_READ_AHEAD)
        self.names = sorted(os.path.relpath(os.path.join(directory, name), self.tree)
                            for directory, _, names in os.walk(self.tree) for name in names)

    def test_the_numbers_are_those_of_the_run(self):
        self.mount_random_file("--fetch-size=64K")
        before = value(self.report(self.instance)[1], "read")  # By the mount itself.
        self.read_alone(8 * MB, MB)
        self.read_alone(12 * MB, 4096)
        page = self.report(self.instance, os.path.dirname(self.path))[1]
        present = self.instance.status()["objects"][0]["present"]
        self.assertEqual(value(page, "size"), 16 * MB)
        self.assertEqual(value(page, "read"), before + MB + 4096)
        self.assertEqual(value(page, "ahead"), present - before - MB - 4096)
        self.assertEqual(value(page, "absent"), 16 * MB - present)
        self.assertEqual(value(page, "culled"), 0)
        self.assertEqual(value(page, "waits"), self.instance.status()["counters"]["reads_waited"])
        self.assertRegex(page, "The files are left out: the image's superblock is not in the cache")
        self.assertEqual(self.instance.run("cache", "rm", *self.instance.root_flags(), "--instance=t", "--bytes",
                                           os.path.dirname(self.path)).returncode, 0)
        page = self.report(self.instance)[1]
        self.assertEqual(value(page, "culled") + value(page, "read") + value(page, "ahead"), present)
        self.assertGreater(value(page, "culled"), 0)

    def test_the_slowest_reads_are_listed_with_their_causes(self):
        self.mount_random_file()
        self.origin.stop()
        reader = self.keep(Reader(self.path, 8 * MB, 4096))
        self.instance.wait_waiting(1)
        wait = rows(self.report(self.instance)[1], "reads")[0]
        self.assertIn("waits still", wait[4])
        self.origin.configure()
        self.origin.start()
        self.assertTrue(reader.wait(60))
        slowest = rows(self.report(self.instance)[1], "reads")[0]
        self.assertRegex(slowest[4], r"(?i)refused|connect")
        self.assertIn(f"({reader.pid})", slowest[2])

    def test_files_are_named_by_what_was_read_of_them(self):
        self.mount_image()
        fetched = self.origin.served()
        page = self.report(self.instance)[1]
        self.assertEqual(self.origin.served(), fetched, "a report fetches nothing")
        for name in self.names[:3]:
            self.assert_reads_right(os.path.join(self.point, name), os.path.join(self.tree, name))
        page = self.report(self.instance)[1]
        listed = {row[0].lstrip("/"): row for row in rows(page, "files")}
        for name in self.names[:3]:
            self.assertEqual(listed[name][3], "100.0 %", listed[name])
        self.assertLess(value(page, "files-read"), FILE_COUNT)
        self.assertGreaterEqual(value(page, "files-read"), 3)
        self.assertLessEqual(value(page, "read"), value(page, "size"))

    @unittest.skipIf(browser.unmet(), browser.unmet())
    def test_a_browser_shows_it_from_a_file_and_asks_for_nothing_else(self):
        self.mount_image()
        for name in self.names[:5]:
            self.assert_reads_right(os.path.join(self.point, name), os.path.join(self.tree, name))
        path, _ = self.report(self.instance)
        light = browser.show(self.box, path)
        dark = browser.show(self.box, path, dark=True)
        for shown in (light, dark):
            self.assertEqual(shown.said, [])
            self.assertEqual(shown.asked_for, [])
        self.assertGreater(min(light.corner()), 200)
        self.assertLess(max(dark.corner()), 60)

    def test_what_cannot_be_reported_is_an_error_in_one_line(self):
        self.mount_random_file()
        flags = self.instance.root_flags()
        page = self.box.path("report.html")
        self.assert_one_line(self.instance.run("report", *flags, "--instance=other", "-o", page), "other")
        self.assert_one_line(self.instance.run("report", *flags, "--instance=t", "-o", page, "/nowhere"), "/nowhere is no mount")
        self.assert_one_line(self.instance.run("report", *flags, "--instance=t", "-o", self.box.path("none/x")), "none/x")
        self.instance.mount(self.origin.url(os.path.basename(self.truth)), "--as=file")
        self.assert_one_line(self.instance.run("report", *flags, "--instance=t", "-o", page), "several mounts")
        argv = self.instance.command_line("report", *flags, "--instance=t", "-o", page)
        done = as_nobody(lambda: (lambda run: (run.returncode, run.stderr))(
            subprocess.run(argv, text=True, capture_output=True, timeout=60)))
        self.assertEqual(done[0], 1)
        self.assertRegex(done[1], "^holdfast: a report needs root.*\n$")


if __name__ == "__main__":
    main()
