"""`holdfast image build`: what goes into an image comes out of it, the same bytes each time, and nothing gets beside it."""

import gzip
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tarfile

import _path  # noqa: F401
from harness.build_case import TOOLS, BuildCase
from harness.case import main
from harness.holdfast import BIN
from harness.layers import Compressed, Layer
from harness.snapshot import differences, snapshot

# Version 1, user:1000 may read; as the kernel keeps it.
ACL = bytes.fromhex("0200000001000600ffffffff02000400e803000004000400ffffffff10000400ffffffff20000400ffffffff")
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service+ep
ODD_NAMES = [b"with space", b"new\nline", b"\xff\xfe bytes", b"-rf", b"quote'\"", b"back\\slash", b"*?[x]", "ünï".encode(),
             b"n" * 254]


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

    def test_an_output_inside_the_input_is_refused(self):
        tree = self.fill(self.box.path("tree"))
        before = snapshot(tree)
        inside = os.path.join(tree, "out")
        done = self.build(tree, out=inside)
        self.assert_one_line(done, f"output {inside} lies in the input {tree}")
        self.assert_one_line(self.build(tree, "--tmp-dir", tree), f"--tmp-dir {tree} lies in the input {tree}")
        self.assertEqual(differences(before, snapshot(tree)), [])

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

    def test_a_user_without_root_builds_from_own_files(self):
        tree = self.box.make_directory("tree")
        with open(os.path.join(tree, "x"), "w") as f:
            f.write("x")
        os.chmod(self.box.path("out"), 0o777)
        done = self.build(tree, before=["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"])
        self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    main(TOOLS)
