"""Images of the kernel's other file systems, partitions and offsets: each made by its own program, and mounted."""

import errno
import os
import shutil
import signal
import struct
import subprocess

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.readers import RIGHT, TreeReaders, wait_all
from harness.sandbox import wait_until

MIB = 1 << 20
MADE = {
    "squashfs": lambda tree, image: [["mksquashfs", tree, image, "-quiet", "-no-progress", "-all-root"]],
    "ext4": lambda tree, image: [["truncate", "--size=32M", image], ["mkfs.ext4", "-q", "-d", tree, image]],
    "ext2": lambda tree, image: [["truncate", "--size=32M", image], ["mkfs.ext2", "-q", "-d", tree, image]],
    "btrfs": lambda tree, image: [["truncate", "--size=128M", image], ["mkfs.btrfs", "-q", "--rootdir", tree, image]],
    "xfs": lambda tree, image: [["truncate", "--size=300M", image], ["mkfs.xfs", "-q", image]],
    "iso9660": lambda tree, image: [["genisoimage", "-quiet", "-R", "-o", image, tree]],
    "cramfs": lambda tree, image: [["mkfs.cramfs", tree, image]],
}
KERNEL_TYPE = {"ext2": "ext4"}
LOST_AND_FOUND = "lost+found"


def kernel_has(file_system):
    if shutil.which("modprobe"):
        subprocess.run(["modprobe", "--quiet", "fs-" + file_system], check=False)  # It may be a module.
    with open("/proc/filesystems") as f:
        return file_system in (line.split()[-1] for line in f)


class FileSystemsTest(TreeReaders, Case):
    def setUp(self):
        super().setUp()
        self.image, self.tree = images.random_image(6, MIB, seed=14)
        self.directory = self.box.make_directory("images")
        self.origin = self.serve(self.directory)
        self.instance = self.holdfast()

    def do(self, *argv):
        done = self.box.run(list(argv))
        self.assertEqual(done.returncode, 0, f"{argv}: {done.stderr}")

    def on_loop(self, image, do):
        """do(mount point) while the image is mounted, writable, without us."""
        point = self.box.make_directory("loop")
        self.do("mount", "-o", "loop", image, point)
        try:
            do(point)
        finally:
            self.do("umount", point)

    def make(self, file_system, name="image"):
        image = os.path.join(self.directory, name)
        for argv in MADE[file_system](self.tree, image):
            self.do(*argv)
        if file_system == "xfs" and kernel_has("xfs"):
            self.on_loop(image, lambda point: self.do("cp", "-a", self.tree + "/.", point))
        return image

    def mounted_type(self, point):
        done = self.box.run(["findmnt", "--noheadings", "--output", "FSTYPE,OPTIONS", "--mountpoint", point])
        return done.stdout.split()

    def assert_shows_tree(self, point):
        shown = sorted(name for name in os.listdir(point) if name != LOST_AND_FOUND)
        self.assertEqual(shown, sorted(os.listdir(self.tree)))
        for name in shown:
            self.assert_reads_right(os.path.join(point, name), os.path.join(self.tree, name))

    def loops_of_ours(self):
        """The loop devices that have a file of the instance."""
        loops = []
        for name in os.listdir("/sys/block"):
            try:
                with open(f"/sys/block/{name}/loop/backing_file") as f:
                    if f.read().startswith(self.instance.run_path()):
                        loops.append(name)
            except OSError:
                pass
        return loops

    def assert_nothing_is_left(self):
        self.assertEqual(self.loops_of_ours(), [])
        self.assertFalse(os.path.exists(self.instance.run_path()))
        self.assertEqual(self.instance.processes(), [])

    def test_each_file_system_shows_what_its_own_program_put_there(self):
        for file_system in MADE:
            with self.subTest(file_system=file_system):
                name = "image-" + file_system
                self.make(file_system, name)
                kernel_type = KERNEL_TYPE.get(file_system, file_system)
                if not kernel_has(kernel_type):
                    point = self.box.make_directory("none")
                    self.assert_one_line(self.instance.try_mount(self.origin.url(name), point), f"no {kernel_type}; load it")
                    self.assert_nothing_is_left()
                    continue
                point = self.instance.mount(self.origin.url(name))
                found, options = self.mounted_type(point)
                self.assertEqual(found, kernel_type)
                self.assertLessEqual({"ro", "nosuid", "nodev"}, set(options.split(",")))
                self.assert_shows_tree(point)
                again = self.instance.mount(self.origin.url(name)) if file_system != "btrfs" else None
                shown = self.instance.run("status", *self.instance.root_flags()).stdout
                self.assertIn(point, shown)
                self.instance.umount(point)
                if again:
                    self.assert_shows_tree(again)
                    self.instance.umount(again)
                self.assert_nothing_is_left()

    def test_reads_outlive_the_daemon_and_the_fetcher(self):
        for file_system in ("squashfs", "ext4", "xfs", "btrfs"):
            if not kernel_has(file_system):
                continue
            with self.subTest(file_system=file_system):
                name = "killed-" + file_system
                self.make(file_system, name)
                self.point = self.instance.mount(self.origin.url(name), "--readahead-max=0")
                self.start_reading(sorted(os.listdir(self.tree)))
                os.kill(self.instance.daemon_pid(), signal.SIGKILL)
                self.instance.kill_fetcher()
                self.assert_all_right()
                self.origin.restart()
                self.instance.umount(self.point)
                self.assert_nothing_is_left()

    def test_the_journal_of_a_dirty_image_is_not_replayed(self):
        image = self.make("ext4", "clean")
        dirty = os.path.join(self.directory, "dirty")

        def copy(point):
            with open(os.path.join(point, "new"), "w") as f:
                os.fsync(f.fileno())
            shutil.copyfile(image, dirty)

        self.on_loop(image, copy)
        done = self.box.run(["dumpe2fs", "-h", dirty])
        self.assertIn("needs_recovery", done.stdout)
        with open(dirty, "rb") as f:
            before = f.read()
        point = self.instance.mount(self.origin.url("dirty"))
        for name in os.listdir(self.tree):
            self.assert_reads_right(os.path.join(point, name), os.path.join(self.tree, name))
        with open(dirty, "rb") as f:
            self.assertEqual(f.read(), before)

    def test_a_forced_umount_ends_its_reads_and_leaves_no_loop_device(self):
        self.make("ext4", "forced")
        self.point = self.instance.mount(self.origin.url("forced"), "--readahead-max=0")
        self.start_reading(sorted(os.listdir(self.tree)))
        self.origin.stop()
        self.instance.umount(self.point, "--force")
        self.assertEqual([r.what for r in wait_all(self.readers, 30)], [])
        self.assertLessEqual({r.result for r in self.readers}, {RIGHT, errno.EIO})
        self.assertFalse(os.path.ismount(self.point))
        wait_until(lambda: not self.loops_of_ours(), 20, "the end of the loop device")

    def test_a_umount_does_not_wait_for_reads_that_dead_readers_left(self):
        self.make("ext4", "left")
        self.point = self.instance.mount(self.origin.url("left"), "--readahead-max=0")
        self.start_reading(sorted(os.listdir(self.tree)))
        self.origin.stop()
        for reader in self.readers:
            reader.kill()
        self.assertGreater(self.instance.waiting(), 0)
        done = self.instance.run("umount", *self.instance.root_flags(), self.point)
        self.assert_one_line(done, r"is busy: \d+ reads? of it waits?.*; end them with --force")
        self.assertTrue(os.path.ismount(self.point))
        self.instance.umount(self.point, "--force")
        wait_until(lambda: not self.loops_of_ours(), 20, "the end of the loop device")

    def test_readers_of_what_was_detached_are_freed_by_force(self):
        """The kernel lets nobody kill a reader of squashfs that waits."""
        self.make("squashfs", "detached")
        self.point = self.instance.mount(self.origin.url("detached"), "--readahead-max=0")
        self.start_reading(sorted(os.listdir(self.tree)))
        self.origin.stop()
        self.instance.umount(self.point, "--lazy")
        self.assertFalse(os.path.ismount(self.point))
        done = self.instance.run("umount", *self.instance.root_flags(), "--force", self.point)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("was detached before; what still reads it gets EIO", done.stderr)
        self.assertEqual([r.what for r in wait_all(self.readers, 30)], [])
        self.assertLessEqual({r.result for r in self.readers}, {RIGHT, errno.EIO})
        wait_until(lambda: not self.instance.processes(), 20, "the end of the instance")
        self.assert_nothing_is_left()
        done = self.instance.run("umount", *self.instance.root_flags(), "--force", self.point)
        self.assert_one_line(done, "is not mounted")

    def test_a_mount_that_fails_while_the_kernel_reads_leaves_no_read(self):
        self.make("ext4", "half")
        url = self.origin.url("half")
        shutil.copyfile(self.image, os.path.join(self.directory, "other"))
        self.instance.mount(self.origin.url("other"))  # The instance goes on.
        path = self.instance.mount_file(url)
        with open(path, "rb", buffering=0) as f:
            f.read(128 << 10)
        self.instance.umount(os.path.dirname(path))
        self.origin.stop()
        point = self.box.make_directory("half")
        done = self.instance.try_mount(url, point, "--timeout=4s")
        self.assert_one_line(done, "cannot mount ")
        wait_until(lambda: not self.loops_of_ours(), 20, "the end of the loop device")
        self.assertEqual(self.instance.waiting(), 0)
        self.origin.start()
        self.assert_shows_tree(self.instance.mount(url))

    def test_many_mounts_at_once_each_have_their_loop_device(self):
        self.make("squashfs", "many")
        points = [self.box.make_directory(f"many-{i}") for i in range(8)]
        url = self.origin.url("many")
        running = [self.box.start(self.instance.command_line(*self.instance.mount_arguments(url, point)),
                                  stderr=subprocess.PIPE, text=True) for point in points]
        for process in running:
            self.assertEqual((process.communicate(timeout=60)[1], process.returncode), ("", 0))
        for point in points:
            self.assert_shows_tree(point)
        self.assertEqual(len(self.loops_of_ours()), 8)
        for point in points:
            self.instance.umount(point)
        self.assert_nothing_is_left()

    def test_a_persistent_mount_of_a_partition_comes_back_as_it_was(self):
        self.make_disk()
        point = self.instance.mount(self.origin.url("disk.img"), "--partition=2", "--persist")
        self.assertEqual(self.mounted_type(point)[0], "ext4")
        self.instance.umount(point, "--keep-persistent")
        self.assertFalse(os.path.ismount(point))
        done = self.instance.run("mounts", *self.instance.root_flags(), "--restore")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.mounted_type(point)[0], "ext4")
        self.assert_shows_tree(point)
        self.instance.umount(point)

    def test_a_disk_with_large_sectors_is_known(self):
        part = self.make("ext4", "part")
        disk = os.path.join(self.directory, "large.img")
        self.do("truncate", "--size=40M", disk)
        loop = self.box.run(["losetup", "--find", "--show", "--sector-size=4096", disk]).stdout.strip()
        done = self.box.run(["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", loop], input="label: gpt\nstart=256, size=8192\n")
        self.do("losetup", "--detach", loop)
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(part, "rb") as source, open(disk, "r+b") as target:
            target.seek(MIB)
            shutil.copyfileobj(source, target)
        self.assert_shows_tree(self.instance.mount(self.origin.url("large.img"), "--partition=1"))

    def make_disk(self):
        """A disk with a swap partition and an ext4 one; returns where the second begins."""
        part = self.make("ext4", "part")
        disk = os.path.join(self.directory, "disk.img")
        self.do("truncate", "--size=48M", disk)
        table = "label: gpt\nstart=2048, size=4096, type=swap\nstart=8192, size=65536\n"
        done = self.box.run(["sfdisk", "--quiet", disk], input=table)
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(part, "rb") as source, open(disk, "r+b") as target:
            target.seek(8192 * 512)
            shutil.copyfileobj(source, target)
        return 8192 * 512

    def test_a_partition_is_mounted_by_its_number_or_its_offset(self):
        offset = self.make_disk()
        url = self.origin.url("disk.img")
        for flag in ("--partition=2", f"--offset={offset}"):
            with self.subTest(flag=flag):
                point = self.instance.mount(url, flag)
                self.assert_shows_tree(point)
                shown = self.instance.run("status", *self.instance.root_flags()).stdout
                self.assertIn(f"{point}  ext4  from byte {offset} of {url}", shown)
                self.instance.umount(point)
        point = self.box.make_directory("refused")
        for flags, pattern in ((["--partition=3"], r"no partition 3; its partitions \(gpt\): 1 \(2097152 bytes\), 2 \("),
                               (["--partition=1"], "no file system that is known at byte 1048576"),
                               (["--offset=50331600"], "no file system that is known at byte 50331600"),
                               (["--offset=1G"], "has 50331648 bytes: --offset=1073741824 is not in it"),
                               (["--partition=1", "--as=file"], "leave --offset and --partition out")):
            with self.subTest(flags=flags):
                self.assert_one_line(self.instance.try_mount(url, point, *flags), pattern)
        self.assert_nothing_is_left()
        done = self.instance.try_mount(url, point)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("shown as a file: it is a disk (gpt); --partition=N mounts one of its partitions: 1 (", done.stderr)
        self.assertEqual(os.listdir(point), ["disk.img"])

    def test_the_root_of_an_apptainer_image_is_mounted(self):
        """A SIF image as its specification has it: no Debian package makes one."""
        with open(self.make("squashfs", "root"), "rb") as f:
            root = f.read()
        header = struct.pack("<32s10s3s3s16s8q", b"#!/usr/bin/env run-singularity\n", b"SIF_MAGIC", b"01", b"02", b"", 0, 0,
                             46, 48, 4096, 48 * 585, 32768, len(root))
        labels = struct.pack("<iBIIIqqq4q128s384s", 0x4003, 1, 1, 0, 0, 32768, 16, 16, 0, 0, 0, 0, b"labels", b"")
        extra = struct.pack("<ii3s", 1, 2, b"02")
        system = struct.pack("<iBIIIqqq4q128s384s", 0x4004, 1, 2, 0, 0, 36864, len(root), len(root), 0, 0, 0, 0, b"squashfs", extra)
        with open(os.path.join(self.directory, "image.sif"), "wb") as f:
            f.write(header.ljust(4096, b"\0") + labels + system)
            f.seek(36864)
            f.write(root)
        point = self.instance.mount(self.origin.url("image.sif"))
        self.assertEqual(self.mounted_type(point)[0], "squashfs")
        self.assert_shows_tree(point)
        self.instance.umount(point)
        point = self.instance.mount(self.origin.url("image.sif"), "--as=file")
        self.assertEqual(os.listdir(point), ["image.sif"])

    def test_an_erofs_image_is_found_at_an_offset(self):
        with open(self.image, "rb") as source, open(os.path.join(self.directory, "at"), "wb") as target:
            target.write(b"\1" * 4096)
            shutil.copyfileobj(source, target)
        point = self.instance.mount(self.origin.url("at"), "--offset=4K")
        self.assert_shows_tree(point)

    def test_what_cannot_be_mounted_is_refused_by_its_name(self):
        point = self.box.make_directory("refused")
        for file_system, argv in (("vfat", ["mkfs.vfat", "-C"]), ("f2fs", ["mkfs.f2fs", "-q"])):
            image = os.path.join(self.directory, file_system)
            if file_system == "f2fs":
                self.do("truncate", "--size=64M", image)
            self.do(*argv, image, *(["16384"] if file_system == "vfat" else []))
            done = self.instance.try_mount(self.origin.url(file_system), point)
            self.assert_one_line(done, f"holds the file system {file_system}, and Holdfast mounts erofs, .*use --as=file")
        self.make("squashfs", "squash")
        done = self.instance.try_mount(self.origin.url("squash"), point, "--as=ext4")
        self.assert_one_line(done, "the kernel refused to mount the ext4 image")
        self.assert_nothing_is_left()
        with open(os.path.join(self.directory, "q.qcow2"), "wb") as f:
            f.write(b"QFI\xfb" + bytes(8192))
        done = self.instance.try_mount(self.origin.url("q.qcow2"), point)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("it is a qcow2 disk; qemu-nbd", done.stderr)

    def test_a_truncated_image_is_an_error(self):
        for file_system in ("squashfs", "ext4", "xfs", "btrfs"):
            if not kernel_has(file_system):
                continue
            with self.subTest(file_system=file_system):
                image = self.make(file_system, "cut-" + file_system)
                os.truncate(image, os.path.getsize(image) // 2 & ~0xFFF)
                point = self.box.make_directory("cut")
                done = self.instance.try_mount(self.origin.url("cut-" + file_system), point)
                self.assert_one_line(done, "cannot mount ")
                self.assert_nothing_is_left()

    def test_an_image_that_ends_within_a_sector_says_so(self):
        image = self.make("squashfs", "odd")
        with open(image, "rb") as f:
            used = struct.unpack_from("<Q", f.read(48), 40)[0]
        os.truncate(image, used + (used % 512 == 0))
        point = self.box.make_directory("odd")
        done = self.instance.try_mount(self.origin.url("odd"), point)
        if used % 512:
            self.assert_one_line(done, f"leaves out the last {used % 512} bytes, which fill no sector: pad the image")
        else:
            self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    main(["mksquashfs", "mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "genisoimage", "mkfs.cramfs", "mkfs.vfat", "mkfs.f2fs",
          "sfdisk", "dumpe2fs", "findmnt"])
