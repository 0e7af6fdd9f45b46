"""Images with a digest: a wrong byte at the origin, in the Merkle tree or in the cache is never read."""

import json
import os
import signal
import subprocess

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.holdfast import BIN, NO_READ_AHEAD
from harness.readers import RIGHT, Reader
from harness.sandbox import wait_until
from harness.verity import BLOCK, data_files, flip_bits, forget_pages, read_blocks, with_tree

SIZE = (8 << 20) + 1234


class VerityTest(Case):
    def setUp(self):
        super().setUp()
        self.source = images.random_file(SIZE, seed=7)
        with open(self.source, "rb") as f:
            self.truth = f.read()
        self.good_root = self.box.make_directory("good")
        self.bad_root = self.box.make_directory("bad")
        self.digest = with_tree(self.source, self.good_root)
        with_tree(self.source, self.bad_root)
        self.good = self.serve(self.good_root, name="nginx-good")
        self.bad = self.serve(self.bad_root, name="nginx-bad")
        self.instance = self.holdfast()

    def bad_path(self, name="image"):
        return os.path.join(self.bad_root, name)

    def mount(self, *origins, digest=None):
        urls = [origin.url("image") for origin in origins]
        flags = [flag for url in urls[1:] for flag in ("--origin", url)]
        return self.instance.mount_file(urls[0], f"--verify={digest or self.digest}", *flags)

    def object(self):
        return self.instance.status()["objects"][0]

    def verify(self, name, *flags):
        return self.instance.run("verify", "--root", self.instance.root, "--instance", self.instance.name, *flags, name)

    def test_a_good_image_reads_right_and_is_told_from_one_without_a_digest(self):
        path = self.mount(self.good)
        self.assertEqual(read_blocks(path, self.truth), [])
        self.assertEqual(self.object()["digest"], self.digest)
        text = self.instance.run("status", "--root", self.instance.root).stdout
        self.assertRegex(text, r"image.*, verified")
        other = self.holdfast("u")
        other.mount_file(self.good.url("image"))
        self.assertRegex(other.run("status", "--root", other.root).stdout, r"image.*, unverified")

    def test_small_objects_need_no_tree(self):
        for size in (0, 1, BLOCK):
            name = f"small{size}"
            with open(os.path.join(self.good_root, name + ".src"), "wb") as f:
                f.write(self.truth[:size])
            digest = with_tree(f.name, self.good_root, name)
            path = self.instance.mount_file(self.good.url(name), f"--verify={digest}")
            self.assertEqual(read_blocks(path, self.truth[:size]), [])

    def test_a_wrong_digest_fails_the_mount_with_the_digest_named(self):
        wrong = "sha256:" + "12" * 32
        point = self.box.make_directory("p")
        done = self.instance.try_mount(self.good.url("image"), point, f"--verify={wrong}", "--as=file")
        self.assert_one_line(done, rf"image: is not the file of digest {wrong}")
        self.assert_one_line(self.instance.try_mount(self.good.url("image"), point, "--verify=sha256:12"),
                             r"--verify: .*no fs-verity digest")

    def test_an_image_without_its_tree_fails_the_mount(self):
        os.unlink(self.bad_path("image.merkle"))
        done = self.instance.try_mount(self.bad.url("image"), self.box.make_directory("p"), f"--verify={self.digest}")
        self.assert_one_line(done, r"image\.merkle.*404")

    def test_flipped_bits_at_the_only_origin_are_errors_of_their_blocks_alone(self):
        flipped = flip_bits(self.bad_path())
        path = self.mount(self.bad)
        failed = read_blocks(path, self.truth)
        self.assertEqual(failed, flipped)
        log = self.instance.log_text("holdfastd")
        first = flipped[1] * BLOCK
        self.assertRegex(log, rf"image.*bytes \[{first}, {first + BLOCK}\) are wrong at {self.bad.url('image')}")
        # Put right, under the same validator: a later read asks again.
        was = os.stat(self.bad_path())
        with_tree(self.source, self.bad_root)
        os.utime(self.bad_path(), ns=(was.st_atime_ns, was.st_mtime_ns))
        self.assertEqual(read_blocks(path, self.truth), [])

    def test_a_check_that_takes_long_holds_up_no_other_object(self):
        with_tree(self.source, self.good_root, "other")
        fault = self.box.path("fault")
        with open(fault, "w") as f:
            f.write("fuse.before_check 1 block")
        path = self.instance.mount_file(self.good.url("image"), f"--verify={self.digest}", NO_READ_AHEAD,
                                        f"--daemon-flag=--fault-file={fault}")
        other = self.instance.mount_file(self.good.url("other"), f"--verify={self.digest}")
        stuck = self.keep(Reader(path, 0, BLOCK, self.truth[:BLOCK]))
        wait_until(lambda: "fuse.before_check: waiting" in self.instance.log_text("holdfastd"), 20, "the check is under way")
        for at in range(0, SIZE - (1 << 20), 1 << 20):
            reader = self.keep(Reader(other, at, 1 << 20, self.truth[at:at + (1 << 20)]))
            self.assertTrue(reader.wait(20), f"{at}: {self.instance.log_text('holdfastd')[-2000:]}")
            self.assertEqual(reader.result, RIGHT)
        self.assertFalse(stuck.wait(0), stuck.result)
        os.kill(self.instance.daemon_pid(), signal.SIGKILL)  # The next one is asked again.
        self.assertTrue(stuck.wait(20))
        self.assertEqual(stuck.result, RIGHT)

    def test_a_good_origin_beside_a_bad_one_makes_every_read_right(self):
        flip_bits(self.bad_path())
        path = self.mount(self.bad, self.good)
        self.assertEqual(read_blocks(path, self.truth), [])

    def test_flipped_bits_in_the_tree_cost_what_they_cover(self):
        blocks = os.path.getsize(self.bad_path("image.merkle")) // BLOCK
        flipped = flip_bits(self.bad_path("image.merkle"), every=4, first=1)
        leaves = [block - (blocks - (len(self.truth) + 128 * BLOCK - 1) // (128 * BLOCK)) for block in flipped]
        covered = {leaf * 128 + i for leaf in leaves for i in range(128)}
        path = self.mount(self.bad)
        failed = set(read_blocks(path, self.truth))
        self.assertEqual(failed, {block for block in covered if block * BLOCK < len(self.truth)})

    def test_a_bit_in_every_64th_block_of_the_tree_affects_two_leaves(self):
        source = images.random_file(48 << 20, seed=8)  # 96 leaves below the root.
        digest = with_tree(source, self.bad_root, "large")
        with open(source, "rb") as f:
            truth = f.read()
        self.assertEqual(flip_bits(self.bad_path("large.merkle"), first=1), [1, 65])
        path = self.instance.mount_file(self.bad.url("large"), f"--verify={digest}")
        failed = read_blocks(path, truth)
        self.assertEqual(failed, [leaf * 128 + i for leaf in (0, 64) for i in range(128)])
        self.assertRegex(self.instance.log_text("holdfastd"),
                         rf"block 65 of the Merkle tree over bytes .* is wrong at {self.bad.url('large.merkle')}")

    def test_a_bit_in_the_root_of_the_tree_fails_the_mount_but_not_beside_a_good_one(self):
        self.assertEqual(flip_bits(self.bad_path("image.merkle")), [0])
        done = self.instance.try_mount(self.bad.url("image"), self.box.make_directory("p"), f"--verify={self.digest}")
        self.assert_one_line(done, rf"is not the file of digest {self.digest}, or "
                                   rf"{self.bad.url('image.merkle')} is not its Merkle tree")
        path = self.mount(self.bad, self.good)
        self.assertEqual(read_blocks(path, self.truth), [])

    def test_a_good_tree_beside_a_bad_one_makes_every_read_right(self):
        flip_bits(self.bad_path("image.merkle"), every=4, first=1)
        path = self.mount(self.bad, self.good)
        self.assertEqual(read_blocks(path, self.truth), [])

    def test_flipped_bits_in_the_cache_are_found_and_fetched_again(self):
        path = self.mount(self.good)
        self.assertEqual(read_blocks(path, self.truth), [])
        stored = data_files(self.instance)[0]
        flipped = flip_bits(stored, end=SIZE)
        forget_pages(path)
        self.assertEqual(read_blocks(path, self.truth), [])
        found = self.instance.status()["counters"]["bytes_found_wrong"]
        self.assertGreaterEqual(found, len(flipped) * BLOCK - BLOCK)
        with open(stored, "rb") as f:
            self.assertEqual(f.read(SIZE), self.truth)

    def test_flipped_bits_in_the_cache_between_two_mounts(self):
        path = self.mount(self.good)
        self.assertEqual(read_blocks(path, self.truth), [])
        self.instance.umount(os.path.dirname(path))
        self.instance.stop()
        stored = data_files(self.instance)[0]
        flip_bits(stored, end=SIZE)
        flip_bits(stored, begin=(SIZE + 65535) // 65536 * 65536, every=3)  # The tree, its root among it.
        path = self.mount(self.good)
        self.assertEqual(read_blocks(path, self.truth), [])

    def test_what_is_present_with_its_tree_needs_no_origin(self):
        path = self.mount(self.good)
        self.assertEqual(read_blocks(path, self.truth), [])
        self.instance.umount(os.path.dirname(path))
        self.instance.stop()
        self.good.stop()
        path = self.mount(self.good)
        self.assertEqual(read_blocks(path, self.truth), [])

    def test_through_an_erofs_mount(self):
        image, tree = images.random_image(4, 1 << 20, seed=5)
        digest = with_tree(image, self.good_root, "e.erofs")
        with_tree(image, self.bad_root, "e.erofs")
        flip_bits(self.bad_path("e.erofs"), first=1)
        point = self.instance.mount(self.bad.url("e.erofs"), f"--verify={digest}", "--origin",
                                    self.good.url("e.erofs"))
        self.assertEqual(images.manifest(point), images.manifest(tree))

    def test_verify_finds_and_heals(self):
        path = self.mount(self.good)
        self.assertEqual(read_blocks(path, self.truth), [])
        stored = data_files(self.instance)[0]
        flipped = flip_bits(stored, first=3, end=SIZE)
        done = self.verify(os.path.dirname(path), "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        report = json.loads(done.stdout.splitlines()[-1])
        self.assertEqual((report["wrong"], report["healed"]), (len(flipped) * BLOCK, len(flipped) * BLOCK))
        self.assertEqual(report["checked"], SIZE)
        with open(stored, "rb") as f:
            self.assertEqual(f.read(SIZE), self.truth)
        self.assertEqual(self.verify(os.path.dirname(path)).returncode, 0)

    def test_verify_says_what_it_cannot_heal(self):
        path = self.mount(self.good)
        self.assertEqual(read_blocks(path, self.truth), [])
        flip_bits(data_files(self.instance)[0], every=10 ** 6, first=5, end=SIZE)
        self.good.stop()
        done = self.verify(os.path.dirname(path), "--timeout=1s")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"image: bytes \[20480, 24576\)")

    def test_a_verify_that_waits_does_not_keep_the_daemon_from_stopping(self):
        path = self.mount(self.good)
        self.assertEqual(read_blocks(path, self.truth), [])
        flip_bits(data_files(self.instance)[0], every=10 ** 6, first=5, end=SIZE)
        self.good.stop()
        verify = self.box.start([os.path.join(BIN, "holdfast"), "verify", "--root", self.instance.root, "--instance",
                                 self.instance.name, "--timeout=1h", os.path.dirname(path)],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.instance.wait_waiting(1)
        os.kill(self.instance.daemon_pid(), signal.SIGTERM)
        said = verify.communicate(timeout=20)[1]
        self.assertEqual(verify.returncode, 1)
        self.assertIn("the daemon is stopping; try again", said)
        wait_until(lambda: "exited with code 0" in self.instance.log_text("supervise"), 20, "its end")

    def test_verify_of_an_object_without_a_digest_says_so(self):
        path = self.instance.mount_file(self.good.url("image"))
        self.assert_one_line(self.verify(os.path.dirname(path)), r"without --verify")


if __name__ == "__main__":
    main(["fsverity", "mkfs.erofs"])
