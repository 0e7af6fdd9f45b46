"""holdfast-snapshotter under a real containerd, with a real registry."""

import hashlib
import os
import shutil
import tarfile

import _path  # noqa: F401
import harness.disk
from harness.case import Case, main
from harness.container_images import busybox_tree, push_holdfast_image, push_liar, push_ordinary_image
from harness.containerd import TOOLS, Containerd, Snapshotter, unmet_by_containerd
from harness.origins.certificates import Authority
from harness.origins.oci_registry import PASSWORD, USER, Registry, auth_file
from harness.sandbox import clean_processes, mounts_below, unmount_below, wait_until


def sha256_of(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


class SnapshotterTest(Case):
    annotations = True

    def setUp(self):
        super().setUp()
        self.registry = Registry(self.box).start()
        self.h = self.holdfast()
        self.snapshotter = Snapshotter(self.box, self.h, [self.registry.host]).start_and_wait()
        self.containerd = Containerd(self.box, self.snapshotter, annotations=self.annotations)
        self.addCleanup(self.containerd.close)
        self.containerd.start()

    def push(self, repository="os", **options):
        """A Holdfast image: its reference, its layers, its tree."""
        tree = busybox_tree(self.box.path("tree-" + repository), **options)
        reference, layers = push_holdfast_image(self.h, self.registry, repository, "1", tree)
        return reference, layers, tree

    def assert_runs(self, reference, tree, name="one", file="data/000"):
        for attempt in range(3):  # ctr can end before it has copied the output of a container that ends at once.
            done = self.containerd.run(reference, f"{name}-{attempt}" if attempt else name, "sha256sum", "/" + file)
            self.assertEqual(done.returncode, 0, done.stderr)
            if done.stdout:
                break
        self.assertEqual(done.stdout.split()[0], sha256_of(os.path.join(tree, file)))

    def image_mounts(self):
        """Images that are mounted for the snapshotter."""
        return mounts_below(self.snapshotter.root)


class PullTest(SnapshotterTest):
    def test_a_pull_brings_no_layer_and_the_container_runs(self):
        reference, layers, tree = self.push(file_count=64, file_size=1 << 20)
        self.registry.forget()
        self.containerd.pull(reference)
        for answer in self.registry.log():
            if any(layer in answer.path for layer in layers):
                self.assertNotRegex(answer.agent, "containerd", answer)
                self.assertEqual(answer.status, 206, answer)
        size = os.path.getsize(self.registry.blob_path(layers[0]))
        brought = sum(answer.bytes for answer in self.registry.log() if layers[0] in answer.path)
        self.assertLess(brought, size / 50)
        print(f"a pull brought {brought / 1e3:.0f} kB of an image of {size / 1e6:.0f} MB")
        self.assertEqual(len(self.image_mounts()), 1)

        self.assert_runs(reference, tree, file="data/003")
        done = self.containerd.run(reference, "two", "sh", "-c", "sha256sum -c -s /SUMS && echo x > /tmp/x && cat /tmp/x")
        self.assertEqual((done.returncode, done.stdout), (0, "x\n"), done.stderr)
        answers = [answer for answer in self.registry.log() if any(layer in answer.path for layer in layers)]
        self.assertEqual({answer.status for answer in answers}, {206})
        self.assertEqual({answer.agent.split("/")[0] for answer in answers}, {"holdfast-fetcherd"})

    def test_an_image_that_is_removed_leaves_nothing(self):
        reference, _, _ = self.push()
        self.containerd.pull(reference)
        self.assertEqual(len(self.image_mounts()), 1)
        self.containerd.remove(reference)
        wait_until(lambda: not self.snapshotter.records(), 30, "the snapshots collected")
        self.assertEqual(self.image_mounts(), [])

    def test_the_same_layers_in_another_tag_are_one_mount(self):
        reference, _, tree = self.push()
        self.containerd.pull(reference)
        other, _ = push_holdfast_image(self.h, self.registry, "os", "2", tree)
        self.containerd.pull(other)
        self.assertEqual(len(self.image_mounts()), 1)
        self.assert_runs(other, tree)

    def test_an_ordinary_image_works_beside_it(self):
        reference, _, tree = self.push()
        ordinary_tree = busybox_tree(self.box.path("tree-ordinary"), seed=2)
        upper = self.box.make_directory("upper", "data")
        with open(os.path.join(upper, "000"), "w") as f:
            f.write("from above\n")
        open(os.path.join(upper, ".wh.001"), "w").close()
        ordinary, layers = push_ordinary_image(self.registry, "ordinary", "1", [ordinary_tree, self.box.path("upper")])
        self.containerd.pull(ordinary)
        self.containerd.pull(reference)
        brought = {answer.path.rsplit("/", 1)[1] for answer in self.registry.log()
                   if answer.method == "GET" and "containerd" in answer.agent}
        self.assertTrue(set(layers) <= brought)
        done = self.containerd.run(ordinary, "ordinary", "sh", "-c", "cat /data/000; ls /data; sha256sum /data/002")
        self.assertEqual(done.stdout.split(), ["from", "above", "000", "002", "003",
                                               sha256_of(os.path.join(ordinary_tree, "data/002")), "/data/002"], done.stderr)
        self.assert_runs(reference, tree)


class TrustTest(SnapshotterTest):
    def test_bytes_that_the_registry_changes_are_never_read(self):
        reference, layers, tree = self.push()
        self.containerd.pull(reference)
        with open(os.path.join(tree, "data/002"), "rb") as f:
            wanted = f.read()
        with open(self.registry.blob_path(layers[0]), "r+b") as f:
            at = f.read().index(wanted[4096:8192])
            f.seek(at)
            f.write(bytes([wanted[4096] ^ 1]))
        self.assert_runs(reference, tree, file="data/001")
        # ctr can lose what a container that ends at once has written to its standard error.
        done = self.containerd.run(reference, "two", "sh", "-c", "{ cat /data/002 | sha256sum; } 2>&1")
        self.assertIn("Input/output error", done.stdout)
        # Up to the wrong block everything is right.
        self.assertIn(hashlib.sha256(wanted[:4096]).hexdigest(), done.stdout)

    def test_an_image_cannot_take_the_place_of_another(self):
        reference, _, tree = self.push()
        other, _, other_tree = self.push("other", seed=2)
        theirs = self.registry.manifest(reference)["layers"]
        verity = theirs[0]["annotations"]["containerd.io/snapshot/holdfast.verity"]
        liar = push_liar(self.registry, other, "liar", [verity, theirs[1]["digest"]])
        done = self.containerd.try_cri("pull", liar)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(f"claims the diff id {verity} and has the fs-verity digest", done.stderr)
        self.assertEqual(self.snapshotter.records(), {})
        self.containerd.pull(reference)
        self.assert_runs(reference, tree)
        self.containerd.pull(other)
        self.assert_runs(other, other_tree, name="other")


class ReferenceTest(SnapshotterTest):
    annotations = False

    def test_without_the_annotations_the_setting_is_named(self):
        reference, _, _ = self.push()
        done = self.containerd.try_cri("pull", reference)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("set disable_snapshot_annotations = false in the CRI plugin of containerd 1.x and 2.0", done.stderr)
        self.assertEqual(self.snapshotter.records(), {})

    def test_a_client_that_does_not_say_which_layer_it_prepares_gets_no_image(self):
        reference, _, _ = self.push()
        done = self.containerd.ctr("images", "pull", "--plain-http", "--snapshotter", "holdfast", reference)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("media-type", done.stderr)
        kept = [record["kind"] for record in self.snapshotter.records().values() if record]  # Some are just going.
        self.assertNotIn("committed", kept)


class SecureRegistryTest(Case):
    def test_an_image_of_a_registry_with_tls_and_a_password_runs(self):
        authority = Authority(self.box)
        for auth in ("basic", "token"):
            with self.subTest(auth):
                self.run_from(Registry(self.box, authority, auth, "registry-" + auth), auth)

    def run_from(self, registry, auth):
        if registry.tokens:
            self.addCleanup(registry.tokens.close)
        registry.start()
        # Where containers' tools look for the certificates of a registry.
        home = self.box.make_directory("home-" + auth)
        directory = self.box.make_directory("home-" + auth, ".config/containers/certs.d", registry.host)
        shutil.copyfile(registry.ca, os.path.join(directory, "ca.crt"))
        self.box.environment["HOME"] = home
        holdfast = self.holdfast(auth)
        tree = busybox_tree(self.box.path("tree-" + auth))
        reference, layers = push_holdfast_image(holdfast, registry, "os", "1", tree)
        credentials = auth_file(self.box, registry.host, auth + ".json")
        snapshotter = Snapshotter(self.box, holdfast, name="snapshotter-" + auth, flags=["--auth-file=" + credentials])
        plugin = '[plugins."io.containerd.grpc.v1.cri".registry.'
        # containerd takes a registry of this machine for one without TLS, unless an endpoint says so.
        config = f'{plugin}mirrors."{registry.host}"]\nendpoint = ["https://{registry.host}"]\n'
        plugin += f'configs."{registry.host}".'
        containerd = Containerd(
            self.box, snapshotter.start_and_wait(), name="containerd-" + auth,
            more_config=config + f'{plugin}tls]\nca_file = "{registry.ca}"\n{plugin}auth]\nusername = "{USER}"\npassword = "{PASSWORD}"\n')
        self.addCleanup(containerd.close)
        containerd.start().pull(reference)
        done = containerd.run(reference, "one", "sha256sum", "/data/000")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.split()[0], sha256_of(os.path.join(tree, "data/000")))
        asked = [path for _, path, status in registry.blob_requests() if layers[0] in path and status == 206]
        self.assertNotEqual(asked, [])


class PowerCutTest(Case):
    def test_what_was_committed_is_whole_after_a_power_cut(self):
        if reason := harness.disk.unmet():
            self.skipTest(reason)
        disk = harness.disk.Disk(self.box, "disk", 128 << 20)
        snapshotter = Snapshotter(self.box, self.holdfast(), name="disk/snapshotter").start_and_wait()
        containerd = Containerd(self.box, snapshotter)
        self.addCleanup(containerd.close)
        containerd.start()
        containerd.snapshots("prepare", "work", "")
        point = self.box.make_directory("mnt")
        for line in containerd.snapshots("mounts", point, "work").splitlines():
            self.assertEqual(self.box.run(["sh", "-c", line]).returncode, 0, line)
        files = {f"deep/{i}": os.urandom(50000 + i) for i in range(20)}
        os.mkdir(os.path.join(point, "deep"))
        for name, data in files.items():
            with open(os.path.join(point, name), "wb") as f:
                f.write(data)
        self.assertEqual(self.box.run(["umount", point]).returncode, 0)
        containerd.snapshots("commit", "saved", "work")
        disk.cut()
        snapshotter.kill()
        disk.restore_power()
        record = next(record for record in snapshotter.records().values() if record["name"].endswith("saved"))
        for name, data in files.items():
            with open(os.path.join(snapshotter.fs_path(record), name), "rb") as f:
                self.assertEqual(f.read(), data, name)


class VerbsTest(SnapshotterTest):
    def test_the_verbs_of_ctr_snapshots_work(self):
        reference, _, tree = self.push()
        self.containerd.pull(reference)
        ctr = self.containerd.snapshots
        rows = [line.split() for line in ctr("ls").splitlines()[1:]]
        self.assertEqual([row[-1] for row in rows], ["Committed", "Committed"])
        top = next(row[0] for row in rows if len(row) == 3)
        self.assertIn('"Kind": "Committed"', ctr("info", top))
        self.assertEqual(len(ctr("tree").splitlines()), 2)

        ctr("prepare", "work", top)
        point = self.box.make_directory("mnt")
        for line in ctr("mounts", point, "work").splitlines():
            done = self.box.run(["sh", "-c", line])
            self.assertEqual(done.returncode, 0, f"{line}: {done.stderr}")
        self.assertEqual(sha256_of(os.path.join(point, "data/001")), sha256_of(os.path.join(tree, "data/001")))
        with open(os.path.join(point, "data/000"), "w") as f:
            f.write("changed\n")
        with open(os.path.join(point, "new"), "wb") as f:
            f.write(os.urandom(300000))
        self.box.run(["umount", point])
        self.assertRegex(ctr("usage", "work"), r"work\s+3\d\d(\.\d+)? KiB\s+4")
        ctr("commit", "saved", "work")
        ctr("label", "saved", "colour=blue")
        self.assertIn('"colour": "blue"', ctr("info", "saved"))

        ctr("view", "look", "saved")
        ctr("label", "look", "containerd.io/gc.root=1")  # ctr makes no root of a view: containerd may remove it at any time.
        for line in ctr("mounts", point, "look").splitlines():
            done = self.box.run(["sh", "-c", line])
            self.assertEqual(done.returncode, 0, f"{line}: {done.stderr}")
        with open(os.path.join(point, "data/000")) as f:
            self.assertEqual(f.read(), "changed\n")
        self.assertRaises(OSError, open, os.path.join(point, "x"), "w")
        self.box.run(["umount", point])
        refused = self.containerd.ctr("snapshots", "--snapshotter", "holdfast", "rm", "saved")
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("child", refused.stderr)
        ctr("rm", "look")
        with open(self.box.path("diff.tar"), "wb") as f:
            done = self.box.start(["ctr", "--address", self.containerd.socket, "--namespace", "k8s.io", "snapshots",
                                   "--snapshotter", "holdfast", "diff", "--media-type",
                                   "application/vnd.oci.image.layer.v1.tar", top, "saved"], stdout=f)
            self.assertEqual(done.wait(60), 0)
        with tarfile.open(self.box.path("diff.tar")) as archive:
            self.assertEqual(sorted(archive.getnames()), ["data", "data/000", "new"])
        ctr("rm", "saved")
        wait_until(lambda: len(self.snapshotter.records()) == 2, 30, "the snapshots collected")


class RebootTest(SnapshotterTest):
    def test_after_a_reboot_without_a_registry_a_container_starts_again(self):
        reference, _, tree = self.push()
        self.containerd.pull(reference)
        done = self.containerd.run(reference, "before", "sha256sum", "-c", "-s", "/SUMS")
        self.assertEqual(done.returncode, 0, done.stderr)
        # What the container did not read is fetched ahead, and a page of busybox may be read by the next alone.
        wait_until(lambda: all(o["present"] == o["size"] for o in self.h.status()["objects"]), 20, "all being present")
        # Every process and mount gone, and what lies in /run.
        clean_processes(self.box.directory)
        unmount_below(self.box.directory)
        shutil.rmtree(self.h.run_path())
        shutil.rmtree(os.path.join(self.containerd.directory, "state"), ignore_errors=True)
        orphan = os.path.join(self.snapshotter.root, "snapshots", "99", "fs")
        os.makedirs(orphan)

        self.snapshotter.start_and_wait()
        self.assertFalse(os.path.exists(orphan))
        self.containerd.start()
        self.assertEqual(self.image_mounts(), [])
        done = self.containerd.run(reference, "after", "sha256sum", "-c", "-s", "/SUMS")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(self.image_mounts()), 1)


if __name__ == "__main__":
    main(tools=TOOLS, reasons=unmet_by_containerd())
