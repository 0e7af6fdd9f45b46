"""`holdfast image build` of what is hostile, wrong or too much, and mounts of what is no image."""

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time

import _path  # noqa: F401
from harness.build_case import TOOLS, BuildCase
from harness.case import main
from harness.holdfast import BIN
from harness.layers import Layer, zeros_layer
from harness.oci_layout import OciLayout
from harness.sandbox import wait_until
from harness.snapshot import differences, snapshot


class HostileTest(BuildCase):
    def setUp(self):
        super().setUp()
        outside = self.box.make_directory("outside")
        for name in ("canary", "passwd"):
            with open(os.path.join(outside, name), "w") as f:
                f.write("untouched")
        self.outside = outside
        self.before = snapshot(outside)

    def assert_contained(self, layers, **options):
        """Whether it was built or refused, nothing outside has changed."""
        name = f"hostile-{len(os.listdir(self.box.directory))}"
        layout = self.layout(layers, name, **options)
        done = self.build(layout.directory)
        self.assertIn(done.returncode, (0, 1), done.stderr)
        self.assertEqual(differences(self.before, snapshot(self.outside)), [])
        self.assertEqual(os.listdir(self.box.path("out")), ["image"] if done.returncode == 0 else [], done.stderr)
        shutil.rmtree(self.out, ignore_errors=True)
        return done

    def test_names_that_climb_stay_inside(self):
        up = "../" * 30
        for name in (up + self.outside[1:] + "/new", self.outside + "/canary", "a/../../" + self.outside[1:] + "/canary"):
            self.assert_contained([Layer().add(name, data=b"hostile")])
        self.assert_contained([Layer().add(up + self.outside[1:] + "/.wh.canary")])
        self.assert_contained([Layer().add(".wh..").add(".wh...").add("x/.wh...")])

    def test_links_that_lead_outside_are_not_followed(self):
        canary = self.outside + "/canary"
        through = [Layer().symlink("door", self.outside), Layer().add("door/canary", data=b"hostile").add("door/new", data=b"x")]
        self.assert_contained(through)
        self.assert_contained([Layer().symlink("a", "b").symlink("b", "../" * 30 + self.outside[1:]).add("a/new", data=b"x")])
        self.assert_contained([Layer().symlink("file", canary).add("file", data=b"hostile")])
        self.assert_contained([Layer().link("hard", canary), Layer().add("hard", data=b"hostile")])
        self.assert_contained([Layer().symlink("s", canary).link("hard", "s"), Layer().add("hard", data=b"hostile")])
        self.assert_contained([Layer().symlink("door", self.outside).add("door/.wh.canary").add("door/.wh..wh..opq")])
        self.assert_contained([Layer().symlink("self", "self").add("self/x", data=b"x")])

    def test_a_device_is_a_file_of_the_image_and_nothing_else(self):
        loop = self.box.path("disk")
        with open(loop, "wb") as f:
            f.write(b"untouched" * 1000)
        device = self.box.run(["losetup", "--find", "--show", loop]).stdout.strip()
        self.addCleanup(subprocess.run, ["losetup", "-d", device])
        number = os.stat(device).st_rdev
        node = Layer().device("disk", os.major(number), os.minor(number), kind=tarfile.BLKTYPE, mode=0o666)
        done = self.assert_contained([node, Layer().add("disk", data=b"hostile" * 1000)])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assert_contained([Layer().symlink("door", device).link("hard", "door"), Layer().add("hard", data=b"hostile")])
        with open(device, "rb") as f:
            self.assertEqual(f.read(9), b"untouched")

    def test_ten_gigabytes_of_zeros_are_stopped_in_the_middle(self):
        layout = self.layout([zeros_layer("zeros", 10 << 30)])
        begin = time.monotonic()
        self.refused(self.build(layout.directory, "--max-size=256M"),
                     "can't be unpacked: it has more than 268435456 bytes; if that is right, allow it with --max-size$")
        print(f"10 GiB of zeros refused after {time.monotonic() - begin:.1f} s", file=sys.stderr)

    def test_more_files_than_there_is_room_for_are_refused(self):
        small = self.box.make_directory("small")
        self.assertEqual(self.box.run(["mount", "-t", "tmpfs", "-o", "size=64m,nr_inodes=3000", "none", small]).returncode, 0)
        bomb = Layer()
        for i in range(6000):
            bomb.device(f"dev/{i}", 1, 3)
        self.refused(self.build(self.layout([bomb]).directory, f"--tmp-dir={small}"),
                     "can't be unpacked: (more files than half of what .* can hold|the file system of .* is full)")
        self.assertEqual(os.listdir(small), [])

    def test_archives_that_are_cut_off_are_refused(self):
        whole = gzip.compress(Layer().add("x", data=random.Random(1).randbytes(1 << 20)).data())
        for cut in (10, len(whole) // 2, len(whole) - 4):
            self.refused(self.build(self.layout([whole[:cut]], f"cut{cut}").directory), "can't be unpacked: .*(truncated|EOF)")
        self.refused(self.build(self.layout([b"no archive at all"], "none").directory), "can't be unpacked: .*layer 1: Unrecognized archive format")

    def test_a_layout_with_a_flipped_bit_is_refused(self):
        layout = self.layout([Layer().add("x", data=b"x" * 100000)])
        for name in sorted(os.listdir(layout.blob_directory)):
            path = os.path.join(layout.blob_directory, name)
            with open(path, "rb") as f:
                data = bytearray(f.read())
            if data[:2] == b"x/" or tarfile.is_tarfile(path) and data[:2] != b"\x1f\x8b":
                continue  # Not of the image: the layer as it was before it was compressed.
            data[len(data) // 2] ^= 1
            with open(path, "wb") as f:
                f.write(data)
            self.refused(self.build(layout.directory), "can't be (copied|read|unpacked): ")
            data[len(data) // 2] ^= 1
            with open(path, "wb") as f:
                f.write(data)
        self.built(layout.directory)


class TroubleTest(BuildCase):
    def test_what_is_nothing_that_can_be_built_is_refused(self):
        text = self.box.path("text")
        with open(text, "w") as f:
            f.write("no archive")
        what = r"give a directory, an OCI layout \(oci-layout:DIR\[:TAG\]\), an archive \(docker-archive"
        self.refused(self.build("nowhere"), "nowhere: No such file or directory; " + what)
        self.refused(self.build(text), "text is neither a directory nor an archive; " + what)
        self.refused(self.build("docker-archive:" + text), "text is neither a directory nor an archive")
        self.refused(self.build("docker://h/a"), "'oci://h/a' has neither tag nor digest")
        self.refused(self.build("oci-layout:" + self.box.directory),
                     f"is not an OCI layout: it has no index.json; a directory of files is given as {self.box.directory}$")
        other = self.box.path("other.tar")
        with tarfile.open(other, "w") as tar:
            tar.add(text, "x")
        self.refused(self.build(other), r"other.tar can't be copied: .*manifest.json")

    def test_foreign_media_types_and_holdfast_images_are_refused(self):
        chart = self.layout([Layer().add("x")], layer_type="application/vnd.cncf.helm.chart.content.v1.tar+gzip")
        self.refused(self.build(chart.directory), "has a layer of type 'application/vnd.cncf.helm[^']*', no tar archive$")
        done = self.box.path("done")
        self.built(self.box.make_directory("tree"), out=done)
        self.refused(self.build(done), "done is a Holdfast image already$")

    def test_a_name_that_is_too_long_for_the_tool_is_refused(self):
        tree = self.box.make_directory("tree")
        for length in (254, 255):
            with open(os.path.join(tree, "n" * length), "w") as f:
                f.write(str(length))
        self.refused(self.build(tree), "nnn: its name has 255 bytes; mkfs.erofs takes 254 at most$")

    def test_an_output_that_is_there_is_not_touched(self):
        tree = self.box.make_directory("tree")
        os.makedirs(self.out)
        precious = os.path.join(self.out, "precious")
        with open(precious, "w") as f:
            f.write("x")
        for flags, words in (((), "exists already; --force replaces it$"),
                             (("--force",), "is not an OCI layout, so --force does not replace it$")):
            done = self.build(tree, *flags)
            self.assert_one_line(done, words)
            self.assertEqual(os.listdir(self.box.path("out")), ["image"])
        self.assertTrue(os.path.exists(precious))
        shutil.rmtree(self.out)
        self.built(tree)
        with open(os.path.join(tree, "x"), "w") as f:
            f.write("x")
        self.built(tree, "--force")
        self.assertEqual(os.listdir(self.box.path("out")), ["image"])
        self.assert_one_line(self.build(tree, out="/nowhere/x"), "make a directory in /nowhere: No such file")

    def test_a_program_that_is_missing_is_named_with_its_package(self):
        source = self.layout([Layer().add("x")]).directory
        for program, package in (("mkfs.erofs", "erofs-utils"), ("skopeo", "skopeo"), ("fsverity", "fsverity")):
            hide = ["unshare", "--mount", "sh", "-c", 'mount --bind /dev/null "$0" && exec "$@"', shutil.which(program)]
            self.refused(self.build(source, before=hide), f"{program} is needed .* install the package {package} ")

    def test_a_program_that_cannot_be_run_is_no_lack_of_rights(self):
        tree = self.box.make_directory("tree")
        broken = self.box.path("broken")
        with open(broken, "w") as f:
            f.write("#!/missing/interpreter\n")
        os.chmod(broken, 0o755)
        hide = ["unshare", "--mount", "sh", "-c", 'mount --bind "$1" "$0" && shift && exec "$@"', shutil.which("mkfs.erofs"), broken]
        self.refused(self.build(tree, before=hide), "run .*mkfs.erofs: No such file or directory$")

    def test_a_full_file_system_is_said(self):
        small = self.box.make_directory("small")
        self.assertEqual(self.box.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", small]).returncode, 0)
        tree = self.box.make_directory("tree")
        with open(os.path.join(tree, "x"), "wb") as f:
            f.write(random.Random(1).randbytes(8 << 20))
        done = self.build(tree, "--max-size=1G", out=os.path.join(small, "image"))
        self.assertRegex(done.stderr, "holdfast: the file system of .*small/image is full; make room, or choose another\n$")
        self.assertEqual(os.listdir(small), [])
        done = self.build(tree, out=os.path.join(small, "image"))
        self.assertRegex(done.stderr, "has 8388608 bytes of files, more than [0-9]+; if that is right, allow it with --max-size\n$")
        layout = self.layout([Layer().add("x", data=random.Random(1).randbytes(3 << 20))])
        self.refused(self.build(layout.directory, "--max-size=1G", f"--tmp-dir={small}"),
                     "the file system of .* is full; make room, or choose another with --tmp-dir$")
        self.assertEqual(os.listdir(small), [])

    def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(self):
        tree = self.box.make_directory("tree")
        with open(os.path.join(tree, "x"), "wb") as f:
            f.write(bytes(1 << 20))
        done = self.build(tree, "--json")
        self.assertRegex(done.stderr, r"^making the image: 1\.0 MiB, [0-9.]+ s\nhashing it: sha256:[0-9a-f]{64}, [0-9.]+ s\n$")
        self.assertEqual(json.loads(done.stdout)["files"], 2)
        shutil.rmtree(self.out)
        master, slave = os.openpty()
        process = self.box.start([os.path.join(BIN, "holdfast"), "image", "build", "--json", tree, self.out],
                                 stdout=subprocess.PIPE, stderr=slave, text=True)
        os.close(slave)
        shown = b""
        try:
            while piece := os.read(master, 4096):
                shown += piece
        except OSError:  # EIO: the other end is closed.
            pass
        os.close(master)
        self.assertEqual(json.loads(process.communicate(timeout=60)[0])["files"], 2)
        self.assertRegex(shown, rb"\rmaking the image: \[[#.]{30}\] 0 bytes of 1\.0 MiB\x1b\[K\rmaking the image: ")

    def begin(self):
        """A build while it unpacks: its process."""
        layout = self.layout([zeros_layer("zeros", 64 << 30)])
        process = self.box.start([os.path.join(BIN, "holdfast"), "image", "build", "--max-size=60G", layout.directory, self.out],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: self.unpacking(), 60, "umoci writes")
        return process

    def unpacking(self):
        for folder, _, names in os.walk(self.box.path("out")):
            if "zeros" in names and os.path.getsize(os.path.join(folder, "zeros")) > 0:
                return True
        return False

    def test_a_signal_ends_it_and_nothing_is_left(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            process = self.begin()
            process.send_signal(number)
            output, errors = process.communicate(timeout=60)
            self.assertEqual((process.returncode, output), (128 + number, ""), errors)
            self.assertIn("interrupted by a signal", errors)
            self.assert_nothing_left()
            shutil.rmtree(self.box.path("layout"))

    def test_its_children_end_with_it(self):
        process = self.begin()
        process.kill()
        process.communicate(timeout=60)
        wait_until(lambda: not self.children_in_out(), 30, "umoci is gone")
        # What it leaves, the next one removes.
        self.assertNotEqual(os.listdir(self.box.path("out")), [])
        self.built(self.box.make_directory("small"))
        self.assertEqual(os.listdir(self.box.path("out")), [os.path.basename(self.out)])

    def children_in_out(self):
        """Processes whose working directory is below the output's directory."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.readlink(f"/proc/{pid}/cwd").startswith(self.box.path("out")):
                    found.append(pid)
            except OSError:
                continue
        return found


class RefusedImageTest(BuildCase):
    """Images that the kernel can't mount."""

    def changed(self, offset, data):
        """The path of an image whose bytes at `offset` are others."""
        built = self.built(self.box.make_directory("tree"))
        path = self.box.path("changed.erofs")
        shutil.copyfile(self.blob(built), path)
        with open(path, "r+b") as f:
            f.seek(offset)
            f.write(data)
        return path

    def refused_mount(self, path, pattern):
        point = self.box.make_directory("m")
        self.assert_one_line(self.holdfast().try_mount("file://" + path, point, "--as=erofs"), pattern)
        self.assertFalse(os.path.ismount(point))

    def test_features_that_the_kernel_does_not_have_are_named(self):
        path = self.changed(1024 + 80, (0x40000).to_bytes(4, "little"))
        self.refused_mount(path, "cannot mount file://.*changed.erofs on .*: the image needs EROFS features that this kernel "
                                 "does not have: 0x40000; use a newer kernel, or make the image without them$")

    def test_an_image_without_the_magic_number_is_refused(self):
        self.refused_mount(self.changed(1024, b"\0\0\0\0"), "is not an EROFS image: it has no EROFS superblock")

    def test_a_reference_to_what_is_no_erofs_image_is_refused(self):
        data = self.box.path("data")
        with open(data, "wb") as f:
            f.write(random.Random(1).randbytes(100000))
        layout = OciLayout(self.box.path("layout"))
        layout.add_holdfast("v1", data)
        point = self.box.make_directory("m")
        self.assert_one_line(self.holdfast().try_mount("oci-layout:" + layout.directory, point),
                             "is not an EROFS image: it has no EROFS superblock")


if __name__ == "__main__":
    main(TOOLS)
