"""Native EROFS images of several layers: an overlay of one EROFS mount per layer, shared by all images that have it."""

import errno
import hashlib
import json
import os
import random
import signal
import stat
import subprocess
import threading
import time

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.containers import TOOLS, ContainerCase
from harness.holdfast import NO_READ_AHEAD
from harness.oci_layout import OciLayout
from harness.origins.oci_registry import Registry
from harness.readers import RIGHT, Reader, drop_page_cache, pread
from harness.reboot import Machine
from harness.sandbox import wait_gone, wait_until

FILE_SIZE = 300000
IMAGES = 8
KILLS = 12


def write(path, text):
    with open(path, "w") as f:
        f.write(text)


def listing(root, but=()):
    """{path: (mode, owner, size, time, extended attributes, contents)} of a tree; nothing of what is in the folders `but`."""
    found = {}
    for folder, folders, names in os.walk(root):
        if os.path.relpath(folder, root) in but:
            folders.clear()
            continue
        for name in folders + names:
            path = os.path.join(folder, name)
            at = os.lstat(path)
            text = os.readlink(path) if stat.S_ISLNK(at.st_mode) else ""
            if stat.S_ISREG(at.st_mode):
                with open(path, "rb") as f:
                    text = hashlib.sha256(f.read()).hexdigest()
            xattrs = {key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)}
            size = 0 if stat.S_ISDIR(at.st_mode) else at.st_size
            found[os.path.relpath(path, root)] = (at.st_mode, at.st_uid, at.st_gid, size, at.st_mtime_ns, xattrs, text)
    return found


class NativeLayersCase(Case):
    def setUp(self):
        super().setUp()
        self.holdfast_ = self.holdfast()
        self.layout = OciLayout(self.box.path("layout"))
        # Of many bytes, so that they are not all there once it is mounted.
        self.base, self.base_tree = images.random_image(4, FILE_SIZE, seed=50)

    def layer(self, name, fill):
        """An EROFS image of what `fill` makes in a directory."""
        tree = self.box.make_directory("tree-" + name)
        fill(tree)
        image = self.box.path(name + ".erofs")
        images.make_erofs(tree, image)
        return image

    def file_layer(self, name, text=None):
        return self.layer(name, lambda tree: write(os.path.join(tree, name), text or name))

    def native(self, tag, *layers, **fields):
        """A reference to an image of these layers, the lowest first."""
        self.layout.tag(tag, self.layout.add_json(self.layout.native_manifest(*layers, **fields)))
        return f"oci-layout:{self.layout.directory}:{tag}"

    def three(self, tag="three"):
        return self.native(tag, self.base, self.file_layer("middle"), self.file_layer("top"))

    def mounts(self, kind):
        """What this test has mounted of a type."""
        with open("/proc/self/mounts") as f:
            lines = [line.split() for line in f]
        return [point for _, point, type_, *_ in lines if type_ == kind and point.startswith(self.box.directory)]

    def assert_nothing_left(self):
        """Of an instance that has ended."""
        wait_until(lambda: not os.path.exists(self.holdfast_.run_path()), 30, "the run directory is gone")
        self.assertEqual(self.mounts("erofs") + self.mounts("overlay"), [])

    def status_mounts(self):
        done = self.holdfast_.run("status", "--json", *self.holdfast_.root_flags())
        return [mount for one in json.loads(done.stdout)["instances"] for mount in one["mounts"]]

    def assert_shows_three(self, point):
        self.assertEqual(sorted(os.listdir(point)), ["000", "001", "002", "003", "middle", "top"])
        self.assertEqual(images.manifest(point), {**images.manifest(self.base_tree), **{
            name: hashlib.sha256(name.encode()).hexdigest() for name in ("middle", "top")}})

    def refused(self, reference, pattern, *flags):
        point = self.box.make_directory("m")
        self.assert_one_line(self.holdfast_.try_mount(reference, point, *flags), pattern)
        self.assertFalse(os.path.ismount(point))
        self.assert_nothing_left()


class NativeLayersTest(NativeLayersCase):
    def test_it_is_one_mount_of_all_its_layers_and_leaves_nothing(self):
        reference = self.three()
        point = self.holdfast_.mount(reference)
        self.assert_shows_three(point)
        self.assertEqual((len(self.mounts("erofs")), self.mounts("overlay")), (3, [point]))
        self.assertEqual(os.stat(self.holdfast_.run_path("layers")).st_mode & 0o777, 0o700)
        shown = self.holdfast_.run("status", *self.holdfast_.root_flags()).stdout
        self.assertRegex(shown, f"mount +{point}  overlay  3 layers  {reference}  sha256:")
        self.assertEqual(shown.count("  mount  "), 1, shown)
        self.assertEqual(shown.count("unverified"), 3, shown)
        self.assertEqual([(mount["mount_point"], len(mount["layers"])) for mount in self.status_mounts()], [(point, 3)])
        with self.assertRaises(OSError) as caught:
            write(os.path.join(point, "top"), "no")
        self.assertEqual(caught.exception.errno, errno.EROFS)
        inspected = json.loads(self.holdfast_.run("image", "inspect", "--json", reference).stdout)
        self.assertEqual([layer["size"] for layer in inspected["layers"]],
                         [os.path.getsize(path) for path in (self.base, self.box.path("middle.erofs"), self.box.path("top.erofs"))])
        listed = self.holdfast_.run("cache", "ls", *self.holdfast_.root_flags(), "--instance", self.holdfast_.name, "--json").stdout
        self.assertEqual(listed.count(f'"{point}"'), 3, listed)
        self.holdfast_.umount(point)
        self.assert_nothing_left()

    def test_only_what_is_read_is_fetched(self):
        point = self.holdfast_.mount(self.three(), NO_READ_AHEAD, "--fetch-size=4K")
        layer = next(one for one in self.holdfast_.status()["objects"] if one["size"] == os.path.getsize(self.base))
        self.assertLess(layer["present"], FILE_SIZE)
        self.assert_reads_right(os.path.join(point, "002"), os.path.join(self.base_tree, "002"))
        self.holdfast_.umount(point)

    def whiteouts(self):
        """Three layers with everything that an upper one says of a lower one."""
        def low(tree):
            for folder in ("removed", "opaque/deep", "both", "file-then-directory-of", "kept", "forged"):
                os.makedirs(os.path.join(tree, folder))
            for name in ("removed/a", "opaque/old", "opaque/deep/old", "both/one", "both/two", "gone", "comes-back", "swap-file",
                         "kept/same", "changed"):
                write(os.path.join(tree, name), "low " + name)
            os.mkdir(os.path.join(tree, "swap-directory"))
            write(os.path.join(tree, "swap-directory/inside"), "low")
            os.link(os.path.join(tree, "kept/same"), os.path.join(tree, "kept/link"))
            os.symlink("same", os.path.join(tree, "kept/symlink"))
            os.setxattr(os.path.join(tree, "kept/same"), "user.word", b"value")
            os.chmod(os.path.join(tree, "kept"), 0o750)

        def middle(tree):
            for folder in ("opaque", "both", "swap-file"):
                os.mkdir(os.path.join(tree, folder))
            for name in ("gone", "removed", "comes-back", "both/one"):
                os.mknod(os.path.join(tree, name), stat.S_IFCHR, os.makedev(0, 0))
            os.setxattr(os.path.join(tree, "opaque"), "trusted.overlay.opaque", b"y")
            os.setxattr(os.path.join(tree, "both"), "trusted.overlay.origin", b"")
            write(os.path.join(tree, "opaque/new"), "middle")
            write(os.path.join(tree, "swap-file/inside"), "middle")
            write(os.path.join(tree, "swap-directory"), "middle")
            write(os.path.join(tree, "changed"), "middle")

        def high(tree):
            os.mkdir(os.path.join(tree, "opaque"))
            write(os.path.join(tree, "opaque/newer"), "high")
            write(os.path.join(tree, "comes-back"), "high")
            # Of a tar archive these can come from anyone: neither is followed.
            os.makedirs(os.path.join(tree, "forged/redirected"))
            write(os.path.join(tree, "forged/metacopy"), "own")
            os.setxattr(os.path.join(tree, "forged/metacopy"), "trusted.overlay.metacopy", b"")
            os.setxattr(os.path.join(tree, "forged/redirected"), "trusted.overlay.redirect", b"/both")

        return [self.layer(name, fill) for name, fill in (("low", low), ("middle", middle), ("high", high))]

    def test_whiteouts_and_opaque_directories_hide_what_is_below(self):
        layers = self.whiteouts()
        point = self.holdfast_.mount(self.native("whiteouts", *layers))
        self.assertEqual(set(listing(point, but=["forged"])), {
            "opaque", "opaque/new", "opaque/newer", "both", "both/two", "file-then-directory-of", "kept", "kept/same",
            "kept/link", "kept/symlink", "comes-back", "swap-file", "swap-file/inside", "swap-directory", "changed",
            "forged"})
        texts = {name: pread(os.path.join(point, name), 0, 100).decode()
                 for name in ("comes-back", "swap-directory", "swap-file/inside", "changed")}
        self.assertEqual(texts, {"comes-back": "high", "swap-directory": "middle", "swap-file/inside": "middle",
                                 "changed": "middle"})
        for name in ("metacopy", "redirected"):
            with self.assertRaises(PermissionError):
                os.stat(os.path.join(point, "forged", name))
        # As containerd mounts them.
        by_hand = [self.box.make_directory("by-hand", os.path.basename(image)) for image in layers]
        for image, place in zip(layers, by_hand):
            done = self.box.run(["mount", "-t", "erofs", "-o", "ro,loop", image, place])
            self.assertEqual(done.returncode, 0, done.stderr)
            self.addCleanup(self.box.run, ["umount", "--lazy", place])
        overlay = self.box.make_directory("overlay-by-hand")
        done = self.box.run(["mount", "-t", "overlay", "-o", "ro,lowerdir=" + ":".join(reversed(by_hand)), "overlay", overlay])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.addCleanup(self.box.run, ["umount", "--lazy", overlay])
        # There what is forged is followed, where the kernel's defaults say so.
        self.assertEqual(listing(point, but=["forged"]), listing(overlay, but=["forged"]))
        self.holdfast_.umount(point)

    def test_images_that_share_layers_share_their_mounts_and_bytes(self):
        middle = self.file_layer("middle")
        one = self.native("one", self.base, middle, self.file_layer("of-one"))
        two = self.native("two", self.base, middle, self.file_layer("of-two"))
        first = self.holdfast_.mount(one)
        second = self.holdfast_.mount(two)
        self.assertEqual((len(self.mounts("erofs")), len(self.mounts("overlay"))), (4, 2))
        objects = [line for line in self.holdfast_.dump().splitlines() if line.startswith("object ")]
        self.assertEqual(len(objects), 4, objects)
        self.holdfast_.umount(first)
        self.assertEqual((len(self.mounts("erofs")), self.mounts("overlay")), (3, [second]))
        self.assert_reads_right(os.path.join(second, "001"), os.path.join(self.base_tree, "001"))
        self.holdfast_.umount(second)
        self.assert_nothing_left()

    def test_the_same_image_at_two_places_and_a_layer_that_is_there_twice(self):
        twice = self.native("twice", self.base, self.file_layer("middle"), self.base, self.file_layer("top"))
        points = [self.holdfast_.mount(twice) for _ in range(2)]
        self.assertEqual((len(self.mounts("erofs")), len(self.mounts("overlay"))), (3, 2))
        for point in points:
            self.assert_shows_three(point)
            self.holdfast_.umount(point)
        self.assert_nothing_left()

    def ends_well(self, process):
        said = process.communicate(timeout=180)[1]
        self.assertEqual(process.returncode, 0, said)

    def test_eight_at_once_share_what_they_share(self):
        middle = self.file_layer("middle")
        references = [self.native(f"i{i}", self.base, middle, self.file_layer(f"of-{i}")) for i in range(IMAGES)]
        points = [self.box.make_directory(f"at-once-{i}") for i in range(IMAGES)]
        for _ in range(2):
            running = [self.box.start(self.holdfast_.command_line(*self.holdfast_.mount_arguments(reference, point, "--timeout=90s")),
                                      stderr=subprocess.PIPE, text=True) for reference, point in zip(references, points)]
            for process in running:
                self.ends_well(process)
            self.assertEqual((len(self.mounts("erofs")), len(self.mounts("overlay"))), (IMAGES + 2, IMAGES))
            for i, point in enumerate(points):
                self.assertEqual(sorted(os.listdir(point)), ["000", "001", "002", "003", "middle", f"of-{i}"])
            running = [self.box.start(self.holdfast_.command_line("umount", *self.holdfast_.root_flags(), "--keep", point),
                                      stderr=subprocess.PIPE, text=True) for point in points]
            for process in running:
                self.ends_well(process)
            self.assertEqual(self.mounts("erofs") + self.mounts("overlay"), [])
        self.holdfast_.stop()
        self.assert_nothing_left()

    def has_another_daemon(self, pid):
        try:
            return self.holdfast_.daemon_pid() != pid
        except FileNotFoundError:  # For a moment there is none.
            return False

    def test_reads_go_on_while_the_processes_are_killed(self):
        point = self.holdfast_.mount(self.three(), NO_READ_AHEAD, "--fetch-size=4K")
        truth = {}
        for name in os.listdir(self.base_tree):
            with open(os.path.join(self.base_tree, name), "rb") as f:
                truth[name] = f.read()
        stop = threading.Event()
        wrong = []

        def read_on():
            while not stop.is_set():
                drop_page_cache()
                for name, data in truth.items():
                    if pread(os.path.join(point, name), 0, FILE_SIZE) != data:
                        wrong.append(name)

        reader = threading.Thread(target=read_on)
        reader.start()
        try:
            for i in range(KILLS):
                what = ("daemon", "fetcher", "supervisor")[i % 3]
                if what == "daemon":
                    pid = self.holdfast_.daemon_pid()
                    os.kill(pid, signal.SIGKILL)
                    wait_until(lambda: self.has_another_daemon(pid), 30, "another daemon")
                elif what == "fetcher":
                    self.holdfast_.kill_fetcher()
                else:
                    pid = self.holdfast_.supervisor_pid()
                    os.kill(pid, signal.SIGKILL)
                    wait_until(lambda: self.holdfast_.supervisor_pid() != pid, 30, "its standby in its place")
                self.holdfast_.wait_fetcher()
        finally:
            stop.set()
            reader.join(180)
        self.assertFalse(reader.is_alive(), "a read hangs")
        self.assertEqual(wrong, [])
        self.assert_shows_three(point)
        self.holdfast_.umount(point)
        self.assert_nothing_left()

    def test_a_mount_that_fails_leaves_nothing_and_names_the_layer(self):
        reference = self.three()
        with open(self.box.path("top.erofs"), "rb") as f:
            digest = "sha256:" + hashlib.sha256(f.read()).hexdigest()
        os.rename(self.layout.blob_path(digest), self.box.path("hidden"))
        self.refused(reference, "^holdfast: cannot mount oci-layout:[^ ]*: layer 3 of 3: .*" + digest.removeprefix("sha256:"))
        # What another image has mounted stays.
        other = self.holdfast_.mount(self.native("other", self.base, self.box.path("middle.erofs")))
        point = self.box.make_directory("m")
        self.assertNotEqual(self.holdfast_.try_mount(reference, point).returncode, 0)
        self.assertEqual((len(self.mounts("erofs")), self.mounts("overlay")), (2, [other]))
        os.rename(self.box.path("hidden"), self.layout.blob_path(digest))
        self.holdfast_.mount(reference, mount_point=point)
        self.assert_shows_three(point)
        self.holdfast_.umount(point)
        self.holdfast_.umount(other)
        self.assert_nothing_left()

    def test_what_is_for_one_image_is_refused(self):
        reference = self.three()
        self.refused(reference, "it has 3 layers, and --as, --offset and --partition are for one object", "--as=file")
        self.refused(reference, "it has 3 layers, and --verify is for one EROFS image", "--verify=sha256:" + 64 * "a")
        self.refused(reference, "mount option dax=never is for one EROFS image, and the 3 layers", "--erofs-options=dax=never")
        point = self.holdfast_.mount(reference)
        flags = [*self.holdfast_.root_flags(), "--instance", self.holdfast_.name]
        self.assert_one_line(self.holdfast_.run("verify", *flags, point), "has 3 layers, .*name the layer: ")
        layer = self.status_mounts()[0]["layers"][0]
        self.assert_one_line(self.holdfast_.run("umount", *self.holdfast_.root_flags(), layer), f"lower layer of the overlay on {point}")
        self.holdfast_.umount(point)

    def test_what_a_killed_mount_leaves_goes_with_the_next_command(self):
        reference = self.three()
        seed = random.randrange(1 << 32)
        print("seed", seed)
        chance = random.Random(seed)
        point = self.box.make_directory("m")
        other = self.holdfast_.mount(self.native("other", self.base, self.file_layer("else")))
        for _ in range(KILLS):
            process = self.box.start(self.holdfast_.command_line(*self.holdfast_.mount_arguments(reference, point)))
            time.sleep(chance.uniform(0.005, 0.15))  # Anywhere in it: that is the point.
            process.kill()
            process.wait()
            done = self.holdfast_.try_mount(reference, point)
            if done.returncode != 0:
                self.assertIn("already shows", done.stderr)  # It was done, or nearly.
            self.assert_shows_three(point)
            self.holdfast_.umount(point)
            self.assertEqual((len(self.mounts("erofs")), self.mounts("overlay")), (2, [other]))
        process = self.box.start(self.holdfast_.command_line(*self.holdfast_.mount_arguments(reference, point)))
        wait_until(lambda: len(self.mounts("erofs")) > 2 or process.poll() is not None, 30, "a layer mounted")
        process.kill()
        process.wait()
        self.holdfast_.umount(other, "--keep")
        if os.path.ismount(point):
            self.holdfast_.umount(point, "--keep")
        self.holdfast_.stop()
        self.assert_nothing_left()

    def test_what_a_killed_umount_leaves_goes_with_the_next_command(self):
        reference = self.three()
        seed = random.randrange(1 << 32)
        print("seed", seed)
        chance = random.Random(seed)
        point = self.box.make_directory("m")
        for _ in range(KILLS):
            self.holdfast_.mount(reference, mount_point=point)
            process = self.box.start(self.holdfast_.command_line("umount", "--keep", *self.holdfast_.root_flags(), point),
                                     stderr=subprocess.DEVNULL)
            time.sleep(chance.uniform(0.005, 0.15))  # Anywhere in it: that is the point.
            process.kill()
            process.wait()
            if self.status_mounts() and self.status_mounts()[0]["mount_point"] == point:
                self.holdfast_.umount(point, "--keep")
        if os.path.exists(self.holdfast_.run_path()):
            self.holdfast_.stop()
        self.assert_nothing_left()

    def test_when_all_processes_are_killed_the_next_mount_replaces_it(self):
        reference = self.three()
        point = self.holdfast_.mount(reference)
        daemon, fetcher = self.holdfast_.daemon_pid(), self.holdfast_.attached_pid()
        self.holdfast_.kill_supervisor()
        for pid in (daemon, fetcher):
            os.kill(pid, signal.SIGKILL)
            self.assertTrue(wait_gone(pid, 30))
        done = self.holdfast_.try_mount(reference, point)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn("/layers/", done.stderr)
        self.assert_shows_three(point)
        self.assertEqual((len(self.mounts("erofs")), self.mounts("overlay")), (3, [point]))
        self.holdfast_.umount(point)
        self.assert_nothing_left()

    def test_renewed_options_count_for_layers_that_are_mounted(self):
        registry = Registry(self.box).start()
        references = []
        for tag in ("one", "two"):
            self.native(tag, self.base, self.file_layer("of-" + tag))
            references.append(registry.push(self.layout, tag, "repository-of-" + tag))
        first = self.holdfast_.mount(references[0], *registry.flags())
        secrets = self.box.path("auth.json")
        write(secrets, "{}")
        os.chmod(secrets, 0o600)
        second = self.holdfast_.mount(references[1], *registry.flags(), "--renew", "--auth-file=" + secrets)
        shared = self.status_mounts()[0]["layers"][0]
        self.assertEqual(self.status_mounts()[1]["layers"][0], shared)
        with_it = []
        for name in os.listdir(self.holdfast_.state_path("sources")):
            with open(self.holdfast_.state_path("sources", name)) as f:
                with_it += [name] if secrets in f.read() else []
        self.assertEqual(len(with_it), 2)  # The shared layer's and the one that is new.
        for point in (first, second):
            self.holdfast_.umount(point)
        self.assert_nothing_left()

    def test_a_forced_umount_ends_its_reads_and_no_other_image_is_lost(self):
        middle = self.file_layer("middle")
        registry = Registry(self.box).start()
        references = []
        for tag in ("one", "two"):
            self.native(tag, self.base, middle, self.file_layer("of-" + tag))
            references.append(registry.push(self.layout, tag, "repository-of-" + tag))
        flags = [*registry.flags(), NO_READ_AHEAD, "--fetch-size=4K"]
        first, second = (self.holdfast_.mount(reference, *flags) for reference in references)
        self.assertEqual(len(self.mounts("erofs")), 4)
        registry.stop()
        reader = self.keep(Reader(os.path.join(first, "002"), 0, FILE_SIZE))
        wait_until(lambda: self.holdfast_.waiting() > 0, 30, "a read that waits")
        done = self.holdfast_.run("umount", "--force", *self.holdfast_.root_flags(), first)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"{second} shows the same image", done.stderr)
        self.assertTrue(reader.wait(60))
        self.assertEqual(reader.result, errno.EIO)
        self.assertEqual((len(self.mounts("erofs")), self.mounts("overlay")), (3, [second]))
        registry.start()
        self.assert_reads_right(os.path.join(second, "002"), os.path.join(self.base_tree, "002"), seconds=120)
        self.holdfast_.umount(second, "--force")
        self.assert_nothing_left()

    def force(self, point):
        """What a forced umount says on stderr."""
        done = self.holdfast_.run("umount", "--force", *self.holdfast_.root_flags(), point)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stderr

    def test_a_forced_umount_of_the_last_takes_along_the_layers_of_a_killed_mount(self):
        layers = [self.file_layer(f"layer-{i}") for i in range(12)]
        reference = self.native("killed", self.base, *layers)
        other = self.holdfast_.mount(self.native("other", self.file_layer("else")))
        point = self.box.make_directory("m")
        for _ in range(KILLS):
            process = self.box.start(self.holdfast_.command_line(*self.holdfast_.mount_arguments(reference, point)),
                                     stderr=subprocess.DEVNULL)
            wait_until(lambda: len(self.mounts("erofs")) > 1 or process.poll() is not None, 30, "a layer mounted")
            process.kill()
            process.wait()
            if not os.path.ismount(point):
                break
            self.holdfast_.umount(point)
        self.assertGreater(len(self.mounts("erofs")), 1)
        self.assertEqual(self.mounts("overlay"), [])
        self.assertEqual(self.force(other), "")
        self.assert_nothing_left()

    def test_a_forced_umount_of_the_last_takes_along_the_layers_of_one_that_umount_8_took(self):
        point = self.holdfast_.mount(self.three())
        other = self.holdfast_.mount(self.native("other", self.file_layer("else")))
        self.assertEqual(self.box.run(["umount", point]).returncode, 0)
        self.assertEqual(self.force(other), "")
        self.assert_nothing_left()

    def test_a_forced_umount_of_a_daemon_that_hangs_takes_along_layers_without_an_image(self):
        point = self.holdfast_.mount(self.three())
        other = self.holdfast_.mount(self.native("other", self.file_layer("else")))
        self.assertEqual(self.box.run(["umount", point]).returncode, 0)
        os.kill(self.holdfast_.daemon_pid(), signal.SIGSTOP)
        said = self.force(other)
        self.assertIn("; its supervisor and its daemons are ended\n", said)
        self.assertNotIn("/layers/", said)
        self.assert_nothing_left()

    def test_what_one_repository_has_brought_is_read_for_another(self):
        registry = Registry(self.box).start()
        references = []
        for tag in ("one", "two"):
            self.native(tag, self.base, self.file_layer("of-" + tag))
            references.append(registry.push(self.layout, tag, "repository-of-" + tag))
        flags = [*registry.flags(), NO_READ_AHEAD, "--fetch-size=4K"]
        point = self.holdfast_.mount(references[0], *flags)
        self.assert_reads_right(os.path.join(point, "000"), os.path.join(self.base_tree, "000"), length=4096)
        self.holdfast_.umount(point)
        since = registry.log_size()
        point = self.holdfast_.mount(references[1], *flags)
        drop_page_cache()
        with open(self.base, "rb") as f:
            digest = "sha256:" + hashlib.file_digest(f, "sha256").hexdigest()
        self.assert_reads_right(os.path.join(point, "000"), os.path.join(self.base_tree, "000"), length=4096)
        self.assertEqual([path for _, path, _ in registry.blob_requests(since) if path.endswith(digest)], [])
        self.assert_reads_right(os.path.join(point, "003"), os.path.join(self.base_tree, "003"))
        wait_until(lambda: f"/v2/repository-of-two/blobs/{digest}" in {path for _, path, _ in registry.blob_requests(since)},
                   30, "the registry's log to have what was asked of it")
        self.holdfast_.umount(point)
        self.assert_nothing_left()

    def test_one_that_is_in_use_is_refused_and_detached_with_lazy(self):
        point = self.holdfast_.mount(self.three(), NO_READ_AHEAD, "--fetch-size=4K")
        with open(os.path.join(point, "003"), "rb") as held:
            done = self.holdfast_.run("umount", *self.holdfast_.root_flags(), point)
            self.assert_one_line(done, "is busy, held by ")
            self.assertEqual(len(self.mounts("erofs")), 3)
            self.holdfast_.umount(point, "--lazy")
            self.assertEqual(self.mounts("erofs") + self.mounts("overlay"), [])
            with open(os.path.join(self.base_tree, "003"), "rb") as truth:
                self.assertEqual(held.read(), truth.read())
            # The instance is still in use.
            done = self.holdfast_.run("stop", *self.holdfast_.root_flags(), "--instance", self.holdfast_.name)
            self.assert_one_line(done, "in use: held by ")
        self.holdfast_.stop()
        self.assert_nothing_left()


class NativeLayersRebootTest(NativeLayersCase):
    def setUp(self):
        super().setUp()
        self.machine = Machine(self.box)
        self.addCleanup(self.machine.leave)

    def test_a_persistent_one_comes_back_as_one_mount(self):
        point = self.box.make_directory("point")
        reference = self.three()
        self.holdfast_.mount(reference, "--persist", mount_point=point)
        self.assert_shows_three(point)
        daemon = self.holdfast_.daemon_pid()

        def is_durable():
            lines = [line.split() for line in self.holdfast_.dump().splitlines() if line.startswith("presence ")]
            durable = [line[2:] for line in lines if line[1] == "durable"]
            return lines and all(line[2:] in durable for line in lines)

        wait_until(is_durable, 60, "all presence to be on the disk")
        self.machine.reboot(self.holdfast_)
        self.assertTrue(wait_gone(daemon, 30), "holdfastd outlived the reboot")
        os.rename(self.layout.directory, self.layout.directory + ".away")
        self.assertEqual(os.listdir(point), [])
        done = self.holdfast_.run("mounts", "--restore", "--timeout=30s", *self.holdfast_.root_flags(), timeout=120)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        self.assert_shows_three(point)
        self.assertEqual((len(self.mounts("erofs")), self.mounts("overlay")), (3, [point]))
        listed = json.loads(self.holdfast_.run("mounts", "--json", *self.holdfast_.root_flags()).stdout)["mounts"]
        self.assertEqual([(mount["mount_point"], mount["state"]) for mount in listed], [(point, "mounted")])
        self.holdfast_.umount(point)
        self.assert_nothing_left()


class NativeLayersContainerTest(NativeLayersCase, ContainerCase):
    def references(self):
        """Two images with one layer of busybox, and an upper one each."""
        self.image_tree("one")
        base = self.box.path("container-base.erofs")
        images.make_erofs(self.tree("one"), base)

        def upper(name):
            def fill(tree):
                write(os.path.join(tree, "text"), name)
                os.mkdir(os.path.join(tree, "bin"))
                os.mknod(os.path.join(tree, "bin/wc"), stat.S_IFCHR, os.makedev(0, 0))
            return self.layer("upper-" + name, fill)

        return [self.native(name, base, upper(name)) for name in ("one", "two")]

    def test_containers_run_on_it_and_leave_nothing(self):
        one, _ = self.references()
        done = self.command("run", "--user=app", one, "--", "/bin/sh", "-c", "id -u; cat /text; ls /bin/wc; stat -c %a /; exit 7")
        self.assertEqual((done.returncode, done.stdout), (7, "1000\none755\n"), done.stderr)
        done = self.command("run", "--tmpfs", one, "--", "/bin/sh", "-c", "echo new > /text; cat /text")
        self.assertEqual((done.returncode, done.stdout), (0, "new\n"), done.stderr)
        self.assert_nothing_left()

    def test_root_file_systems_share_its_layers(self):
        one, two = self.references()
        for name, reference in (("one", one), ("two", two), ("three", one)):
            done = self.command("rootfs", "create", name, "--image", reference)
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((len(self.mounts("erofs")), len(self.mounts("overlay"))), (3, 5))
        self.assertEqual(len(self.status_mounts()), 2)
        self.assert_one_line(self.holdfast_.run("stop", *self.flags), "; the root file system .* remove it first: ")
        for name, left in (("one", 3), ("two", 2), ("three", 0)):
            done = self.command("rootfs", "rm", name)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(len(self.mounts("erofs")), left)
        self.assert_nothing_left()


if __name__ == "__main__":
    main(("skopeo", "docker-registry", *TOOLS))
