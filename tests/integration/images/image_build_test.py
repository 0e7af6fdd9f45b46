"""`holdfast image build`: what goes into an image comes out of it, the same bytes each time, and nothing gets beside it."""

import gzip
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time

import _path  # noqa: F401
from harness.case import Case, main
from harness.holdfast import BIN
from harness.layers import Compressed, Layer, container_layout, zeros_layer
from harness.oci_layout import OciLayout
from harness.sandbox import wait_until
from harness.snapshot import differences, snapshot

TOOLS = ("skopeo", "umoci", "zstd", "mkfs.erofs", "fsverity", "setfacl", "setcap")
# Version 1, user:1000 may read; as the kernel keeps it.
ACL = bytes.fromhex("0200000001000600ffffffff02000400e803000004000400ffffffff10000400ffffffff20000400ffffffff")
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service+ep
ODD_NAMES = [b"with space", b"new\nline", b"\xff\xfe bytes", b"-rf", b"quote'\"", b"back\\slash", b"*?[x]", "ünï".encode(),
             b"n" * 254]


class BuildCase(Case):
    def setUp(self):
        super().setUp()
        self.out = self.box.path("out", "image")
        self.box.make_directory("out")

    def build(self, source, *flags, out=None, timeout=120, before=()):
        return self.box.run([*before, os.path.join(BIN, "holdfast"), "image", "build", *flags, source, out or self.out],
                            timeout=timeout)

    def built(self, source, *flags, out=None, timeout=120):
        """What it says in JSON of a build that has to succeed."""
        done = self.build(source, "--json", *flags, out=out, timeout=timeout)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def refused(self, done, pattern):
        """It failed, the last line says why, and nothing is left."""
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertEqual(done.stdout, "")
        self.assertRegex(done.stderr.strip().splitlines()[-1], "^holdfast: .*" + pattern)
        self.assert_nothing_left()

    def assert_nothing_left(self):
        self.assertEqual(os.listdir(self.box.path("out")), [])

    def blob(self, built, which="erofs", out=None):
        return os.path.join(out or self.out, "blobs/sha256", built[which]["digest"].removeprefix("sha256:"))

    def mounted(self, built, out=None):
        """Where the image is mounted, by the kernel alone."""
        point = self.box.make_directory("mounted", built["erofs"]["digest"][7:19])
        done = self.box.run(["mount", "-t", "erofs", "-o", "loop,ro", self.blob(built, out=out), point])
        self.assertEqual(done.returncode, 0, done.stderr)
        return point

    def assert_same_tree(self, left, right, times_of=None):
        found = differences(snapshot(left, times_of), snapshot(right, times_of))
        self.assertEqual(found, [], "\n".join(found[:20]))

    def layout(self, layers, name="layout", **options):
        return container_layout(self.box.path(name), layers, **options)

    def blobs_of(self, out):
        """{path: bytes} of a whole layout."""
        found = {}
        for folder, _, names in os.walk(out):
            for name in names:
                path = os.path.join(folder, name)
                with open(path, "rb") as f:
                    found[os.path.relpath(path, out)] = f.read()
        return found


def rich_layers():
    """Three layers with all that one can say, and what the next takes back."""
    first = Layer()
    first.directory("etc/", mode=0o750, uid=3, gid=4, mtime="900000000.5")
    first.add("etc/passwd", data=b"root:x:0:0\n").add("etc/shadow", data=b"secret\n", mode=0o600, gid=42)
    first.directory("usr/").directory("usr/lib/").symlink("lib", "usr/lib").symlink("dangling", "/nowhere/at/all")
    first.add("usr/lib/x.so", data=random.Random(1).randbytes(300_001), mode=0o755, uid=70000, gid=80000,
              xattrs={"user.b": b"2", "user.a": b"1", "user.empty": b"", "trusted.t": b"\xffbytes", "user.long": b"x" * 900,
                      "security.capability": CAPABILITY})
    first.add("usr/acl", data=b"a", xattrs={"system.posix_acl_access": ACL}, mode=0o644)
    first.add("su", data=b"#!", mode=0o4755).add("sg", data=b"#!", mode=0o2755)
    first.directory("tmp/", mode=0o1777).directory("setgid/", mode=0o2775, gid=50)
    first.link("hard1", "etc/passwd").link("usr/lib/hard2", "etc/passwd")
    first.device("dev/null", 1, 3, mode=0o666).device("dev/disk", 259, 70000, kind=tarfile.BLKTYPE, mode=0o660).fifo("pipe")
    first.add("empty").add("block", data=b"b" * 4096).add("block1", data=b"b" * 4097).add("old", mtime="1", data=b"o")
    first.add("future", mtime="4102444800.000000001", data=b"f")
    for i, name in enumerate(ODD_NAMES):
        first.add("odd/" + os.fsdecode(name), data=b"%d" % i)
    for directory in ("plain", "opaque", "replaced"):
        first.directory(f"{directory}/").add(f"{directory}/a", data=b"a").add(f"{directory}/b", data=b"b")
    second = Layer()
    second.add("plain/.wh.a").directory("opaque/", mode=0o700).add("opaque/.wh..wh..opq").add("opaque/c", data=b"c")
    second.add(".wh.sg").add("replaced", data=b"now a file").add("dev/null", data=b"no device any more")
    second.directory("old", mode=0o711).add("etc/passwd", data=b"another: the links keep the first\n")
    third = Layer()
    third.add("plain/a", data=b"back again", mode=0o600).symlink("etc/shadow", "passwd").add(".wh.su")
    third.add("implicit/deep/file", data=b"its directories have no entry", uid=9)
    return [first, second, third]


def zstd(data):
    """As zstd:chunked has it: frames, and one behind them that decompression skips."""
    packed = subprocess.run(["zstd", "-q", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout
    return packed + b"\x50\x2a\x4d\x18" + (8).to_bytes(4, "little") + b"GNUlInUx"


# What an estargz layer ends with: an empty member of gzip.
STARGZ_FOOTER = gzip.compress(b"", mtime=0)
COMPRESSIONS = {"zstd": zstd, "none": bytes, "gzip": lambda data: gzip.compress(data[:512]) + gzip.compress(data[512:])}


# Directories that no layer names: umoci gives them the time of the unpacking.
IMPLICIT = {b".", b"dev", b"implicit", b"implicit/deep", b"odd"}


class ContainerImageTest(BuildCase):
    def unpacked(self, layout):
        tree = self.box.path("umoci")
        done = self.box.run(["umoci", "raw", "unpack", "--image", f"{layout.directory}:v1", tree])
        self.assertEqual(done.returncode, 0, done.stderr)
        return tree

    def test_the_image_has_the_tree_that_umoci_unpacks(self):
        layout = self.layout(rich_layers())
        built = self.built(layout.directory)
        point = self.mounted(built)
        tree = self.unpacked(layout)
        # umoci takes an extended attribute without a value for one that is not there; containerd does not.
        os.setxattr(os.path.join(tree, "usr/lib/x.so"), "user.empty", b"")
        self.assert_same_tree(point, tree, times_of=lambda path: path not in IMPLICIT)
        for path in IMPLICIT:
            self.assertEqual(os.stat(os.path.join(os.fsencode(point), path)).st_mtime_ns, 0, path)
        self.assertEqual(sorted(os.listdir(os.path.join(point, "plain"))), ["a", "b"])
        self.assertEqual(os.listdir(os.path.join(point, "opaque")), ["c"])
        self.assertEqual(built["files"], len({(os.lstat(os.path.join(f, n)).st_ino) for f, d, names in os.walk(point)
                                              for n in d + names}) + 1)

    def test_layers_are_taken_whatever_they_are_compressed_with(self):
        plain = self.built(self.layout(rich_layers()).directory)
        for name, compress in COMPRESSIONS.items():
            with self.subTest(name):
                layers = [Compressed(layer, compress(layer.data()), name) for layer in rich_layers()]
                layout = self.layout(layers, name)
                out = self.box.path("out-" + name)
                self.assertEqual(self.built(layout.directory, out=out)["erofs"], plain["erofs"])
                archive = self.box.path(name + ".tar")
                self.copy(f"oci:{layout.directory}:v1", "oci-archive:" + archive)
                shutil.rmtree(out)
                self.assertEqual(self.built("oci-archive:" + archive, out=out)["erofs"], plain["erofs"])

    def test_files_for_readers_of_stargz_layers_are_left_out(self):
        layer = Layer().add("a", data=b"a").add(".no.prefetch.landmark", data=b"\x0f").add("stargz.index.json", data=b"{}")
        data = layer.data()
        annotations = {"containerd.io/snapshot/stargz/toc.digest": "sha256:" + "0" * 64}
        layout = self.layout([Compressed(layer, gzip.compress(data, mtime=0) + STARGZ_FOOTER, "gzip", annotations)])
        self.assertEqual(os.listdir(self.mounted(self.built(layout.directory))), ["a"])
        layout = self.layout([layer], "ordinary")
        out = self.box.path("ordinary-out")
        self.assertEqual(len(os.listdir(self.mounted(self.built(layout.directory, out=out), out=out))), 3)

    def copy(self, source, destination):
        done = self.box.run(["skopeo", "copy", "-q", "--dest-oci-accept-uncompressed-layers", source, destination])
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_archives_are_told_apart_and_their_images_chosen_by_tag(self):
        layout = self.layout([Layer().add("one", data=b"1")])
        archive, both, docker = self.box.path("one.tar"), self.box.path("both.tar"), self.box.path("docker.tar")
        self.copy(f"oci:{layout.directory}:v1", f"oci-archive:{archive}:v1")
        self.copy(f"oci:{layout.directory}:v1", f"docker-archive:{docker}:a/b:v1")
        other = self.layout([Layer().add("two", data=b"2")], "other")
        directory = self.box.path("two-images")
        shutil.copytree(layout.directory, directory)
        self.copy(f"oci:{other.directory}:v1", f"oci:{directory}:v2")
        self.assertEqual(self.box.run(["tar", "-C", directory, "-cf", both, "."]).returncode, 0)
        for source, names in ((archive, ["one"]), ("oci-archive:" + archive, ["one"]), (f"oci-archive:{archive}:v1", ["one"]),
                              (f"oci-archive:{both}:v2", ["two"]), (docker, ["one"]), ("docker-archive:" + docker, ["one"]),
                              (f"docker-archive:{docker}:a/b:v1", ["one"])):
            with self.subTest(source):
                point = self.mounted(self.built(source, "--force"))
                self.assertEqual(os.listdir(point), names)
        shutil.rmtree(self.out)
        self.refused(self.build("oci-archive:" + both), "can't be copied: .*more than one image")
        self.refused(self.build(f"oci-archive:{archive}:v9"), "can't be copied: .*v9")

    def test_without_a_policy_of_the_machine_everything_is_accepted_and_with_one_it_counts(self):
        layout = self.layout([Layer().add("x")])
        home = self.box.make_directory("home")
        self.box.environment["HOME"] = home
        self.box.environment.pop("XDG_CONFIG_HOME", None)
        empty = self.box.make_directory("no-configuration")
        hide = ["unshare", "--mount", "sh", "-c", 'mkdir -p /etc/containers && mount --bind "$0" /etc/containers && exec "$@"', empty]
        done = self.build(layout.directory, before=hide)
        self.assertEqual(done.returncode, 0, done.stderr)
        shutil.rmtree(self.out)
        for place in (empty, os.path.join(home, ".config/containers")):
            os.makedirs(place, exist_ok=True)
            with open(os.path.join(place, "policy.json"), "w") as f:
                json.dump({"default": [{"type": "reject"}]}, f)
            self.refused(self.build(layout.directory, before=hide), "can't be copied: .*rejected by policy")
            os.unlink(os.path.join(place, "policy.json"))

    def test_a_path_below_what_was_a_file_becomes_a_directory(self):
        lower = Layer().add("file", data=b"f").symlink("dangling", "/nowhere").symlink("tofile", "other").add("deep/file", data=b"d")
        lower.add("other", data=b"o").directory("usr/").directory("usr/lib/").symlink("lib", "usr/lib").symlink("named", "usr/lib").symlink("loop", "loop")
        upper = Layer().add("file/a", data=b"1").add("dangling/a", data=b"2").add("tofile/a", data=b"3").add("deep/file/x/y", data=b"4")
        upper.add("lib/inside", data=b"5").directory("named/").add("named/a", data=b"6").add("loop/a", data=b"7")
        upper.add(".wh.file")  # Of the lower layer's: it hides nothing of its own.
        point = self.mounted(self.built(self.layout([lower, upper]).directory))
        for path, data in (("file/a", "1"), ("dangling/a", "2"), ("tofile/a", "3"), ("deep/file/x/y", "4"), ("usr/lib/inside", "5"),
                           ("named/a", "6"), ("loop/a", "7")):
            with open(os.path.join(point, path)) as f:
                self.assertEqual(f.read(), data, path)
            folder = os.path.join(point, path.split("/")[0])
            self.assertEqual(os.path.islink(folder), path.startswith("lib/"), path)
        self.assertTrue(os.path.islink(os.path.join(point, "lib")))
        self.assertEqual((os.stat(os.path.join(point, "file")).st_mtime, os.stat(os.path.join(point, "file")).st_mode & 0o7777),
                         (0, 0o755))

    def test_whiteouts_hide_what_lower_layers_have_and_nothing_of_their_own(self):
        lower = Layer().directory("d/", mtime="5").add("d/old", data=b"o").add("d/sub/old", data=b"o").add("gone", data=b"g")
        upper = Layer().add("d/new", data=b"n").add("d/sub/new", data=b"n").add("d/.wh..wh..opq").add("gone", data=b"here")
        upper.add(".wh.gone").add(".wh.absent").add("absent/.wh.x").add("absent2/.wh..wh..opq").add(".wh..wh.plnk/1", data=b"x")
        point = self.mounted(self.built(self.layout([lower, upper]).directory))
        self.assertEqual(sorted(os.listdir(point)), ["d", "gone"])
        self.assertEqual(sorted(os.listdir(os.path.join(point, "d"))), ["new", "sub"])
        self.assertEqual(os.listdir(os.path.join(point, "d/sub")), ["new"])
        self.assertEqual(os.stat(os.path.join(point, "d")).st_mtime, 5)

    def test_the_manifest_is_as_the_format_says(self):
        built = self.built(self.layout(rich_layers(), config={"x-kept": {"n": 1}, "config": {"Env": ["A=1"]}}).directory)
        blobs = self.blobs_of(self.out)
        manifest = json.loads(blobs["blobs/sha256/" + built["manifest"]["digest"][7:]])
        self.assertEqual(manifest["annotations"], {"org.holdfast.image.version": "1"})
        self.assertEqual([layer["mediaType"].rsplit(".", 2)[1] for layer in manifest["layers"]], ["erofs", "merkle"])
        erofs = manifest["layers"][0]
        self.assertEqual(erofs["annotations"], {
            "containerd.io/snapshot/holdfast.verity": built["verity"],
            "containerd.io/snapshot/holdfast.size": str(erofs["size"]),
            "containerd.io/snapshot/holdfast.merkle": manifest["layers"][1]["digest"]})
        config = json.loads(blobs["blobs/sha256/" + manifest["config"]["digest"][7:]])
        self.assertEqual((config["x-kept"], config["config"]), ({"n": 1}, {"Env": ["A=1"]}))
        self.assertEqual(config["rootfs"]["diff_ids"], [manifest["layers"][0]["annotations"]["containerd.io/snapshot/holdfast.verity"],
                                                           manifest["layers"][1]["digest"]])
        self.assertEqual([bool(entry.get("empty_layer")) for entry in config["history"]], [True] * 3 + [False] * 2)
        tree = self.box.path("tree")
        said = self.box.run(["fsverity", "digest", "--compact", f"--out-merkle-tree={tree}", self.blob(built)])
        self.assertEqual("sha256:" + said.stdout.strip().removeprefix("sha256:"), built["verity"])
        with open(tree, "rb") as f:
            self.assertEqual(f.read(), blobs["blobs/sha256/" + built["merkle"]["digest"][7:]])
        shown = self.box.run([os.path.join(BIN, "holdfast"), "image", "inspect", "--json", "--root", self.box.path("h"), self.out])
        shown = json.loads(shown.stdout)
        self.assertEqual((shown["manifest"], shown["verity"], shown["env"], shown["platform"]),
                         (built["manifest"]["digest"], built["verity"], ["A=1"], "linux/amd64"))

    def test_a_layout_an_archive_and_a_second_time_give_the_same_bytes(self):
        layout = self.layout(rich_layers())
        first = self.built(layout.directory)
        again = self.box.path("again")
        self.built(f"oci-layout:{layout.directory}:v1", out=again)
        self.assertEqual(self.blobs_of(self.out), self.blobs_of(again))
        archive = self.box.path("archive.tar")
        done = self.box.run(["skopeo", "copy", "-q", f"oci:{layout.directory}:v1", f"docker-archive:{archive}:a/b:v1"])
        self.assertEqual(done.returncode, 0, done.stderr)
        for source in (archive, "docker-archive:" + archive):
            shutil.rmtree(again)
            self.assertEqual(self.built(source, out=again)["erofs"], first["erofs"])

    def test_holdfast_mounts_what_it_has_built(self):
        built = self.built(self.layout(rich_layers()).directory)
        holdfast = self.holdfast()
        point = holdfast.mount("oci-layout:" + self.out)
        self.assert_same_tree(point, self.mounted(built))
        holdfast.umount(point)


class DirectoryTest(BuildCase):
    def fill(self, tree, rng=None):
        """Every kind of file.  With `rng` everything that has no meaning is in another order."""
        order = (lambda things: rng.sample(things, len(things))) if rng else list
        os.makedirs(tree, exist_ok=True)
        root = os.fsencode(tree)
        for name in order(["f%03d" % i for i in range(200)] + ["sub/f%d" % i for i in range(20)]):
            path = os.path.join(tree, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as f:
                f.write(name.encode() * 500)
            for key, value in order([("user.a", b"1"), ("user.longer", b"22"), ("trusted.z", name.encode()), ("user.b", b"x" * 40),
                                     ("trusted.overlay.opaque", b"y")]):
                os.setxattr(path, key, value)
        for name in order(ODD_NAMES):
            with open(os.path.join(root, name), "wb") as f:
                f.write(name)
        for i in range(10):
            names = order([f"{tree}/l{i}a", f"{tree}/l{i}b", f"{tree}/sub/l{i}c"])
            with open(names[0], "w") as f:
                f.write(f"links {i}")
            for name in names[1:]:
                os.link(names[0], name)
        with open(f"{tree}/sparse", "wb") as f:
            f.truncate(5 << 20)
            f.seek(3 << 20)
            f.write(b"in the middle")
        os.mkfifo(f"{tree}/pipe")
        os.mknod(f"{tree}/char", 0o20600, os.makedev(4, 66000))
        os.mknod(f"{tree}/whiteout", 0o20000, os.makedev(0, 0))
        os.mknod(f"{tree}/block", 0o60640, os.makedev(259, 1))
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(f"{tree}/socket")
        os.symlink("../../outside", f"{tree}/symlink")
        os.symlink("x" * 4000, f"{tree}/longlink")
        os.chmod(f"{tree}/f000", 0o6711)
        os.chown(f"{tree}/f001", 123456, 234567)
        for command in (["setfacl", "-m", "u:1000:rw,g:100:r", f"{tree}/f002"], ["setfacl", "-d", "-m", "u:1:rwx", f"{tree}/sub"],
                        ["setcap", "cap_net_raw+ep", f"{tree}/f003"]):
            self.assertEqual(self.box.run(command).returncode, 0, command)
        for i, (folder, folders, names) in enumerate(os.walk(root, topdown=False)):
            for name in names:
                os.utime(os.path.join(folder, name), ns=(1, 1_500_000_000_123_456_789 + len(name)), follow_symlinks=False)
            os.utime(folder, ns=(1, 1_400_000_000_000_000_001 + len(names)))
        return tree

    def test_a_directory_becomes_an_image_of_itself(self):
        tree = self.fill(self.box.path("tree"))
        self.assert_same_tree(tree, self.mounted(self.built(tree)))

    def test_order_and_file_system_make_no_difference(self):
        seed = int(os.environ.get("HOLDFAST_TEST_SEED", random.randrange(1 << 30)))
        print(f"HOLDFAST_TEST_SEED={seed}", file=sys.stderr)
        rng = random.Random(seed)
        self.built(self.fill(self.box.path("tree")))
        memory = self.box.make_directory("memory")
        self.assertEqual(self.box.run(["mount", "-t", "tmpfs", "none", memory]).returncode, 0)
        for i, tree in enumerate((self.box.path("other"), os.path.join(memory, "tree"))):
            again = self.box.path(f"again{i}")
            self.built(self.fill(tree, rng), out=again)
            self.assertEqual(self.blobs_of(self.out), self.blobs_of(again), tree)

    def test_an_empty_directory_and_a_file_of_one_byte(self):
        empty = self.box.make_directory("empty")
        built = self.built(empty)
        self.assertGreater(built["merkle"]["size"], 0)
        self.assert_same_tree(empty, self.mounted(built))
        with open(os.path.join(empty, "x"), "w") as f:
            f.write("x")
        self.assert_same_tree(empty, self.mounted(self.built(empty, "--force")))

    def test_a_config_can_be_given(self):
        tree = self.box.make_directory("tree")
        path = self.box.path("config.json")
        with open(path, "w") as f:
            json.dump({"os": "linux", "architecture": "arm64", "variant": "v8", "config": {"Cmd": ["/x"]}}, f)
        self.assertEqual(self.built(tree, "--config", path)["platform"], "linux/arm64/v8")
        shutil.rmtree(self.out)
        with open(path, "w") as f:
            f.write("{}")
        self.refused(self.build(tree, "--config", path), "config.json is not an image config: it has no \"os\"")

    def test_a_user_who_is_not_root_builds_of_what_is_his(self):
        tree = self.box.make_directory("tree")
        with open(os.path.join(tree, "x"), "w") as f:
            f.write("x")
        os.chmod(self.box.path("out"), 0o777)
        done = self.build(tree, before=["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"])
        self.assertEqual(done.returncode, 0, done.stderr)


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
        self.refused(self.build("oci-layout:" + self.box.directory), "is not an OCI layout: it has no index.json")
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
        except OSError:  # EIO: nobody has the other end.
            pass
        os.close(master)
        self.assertEqual(json.loads(process.communicate(timeout=60)[0])["files"], 2)
        self.assertRegex(shown, rb"\rmaking the image: \[[#.]{30}\] 0 bytes of 1\.0 MiB\x1b\[K\rmaking the image: ")

    def begin(self):
        """A build in the middle of unpacking: its process."""
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
            self.assertEqual((process.returncode, output), (1, ""), errors)
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
