"""`holdfast image push` and images that come from a registry: Debian's docker-registry, and the digests stay what they are."""

import hashlib
import json
import os
import shutil
import urllib.request

import _path  # noqa: F401
from harness.build_case import TOOLS, BuildCase
from harness.case import main
from harness.holdfast import BIN
from harness.layers import Layer
from harness.oci_layout import MANIFEST_TYPE
from harness.origins.oci_registry import Registry
from image_build_test import rich_layers


class PushTest(BuildCase):
    """Into Debian's docker-registry and out of it."""

    def setUp(self):
        super().setUp()
        self.host = Registry(self.box).start().host
        self.reference = f"oci://{self.host}/some/image:v1"

    def image(self, *arguments, **options):
        return self.box.run([os.path.join(BIN, "holdfast"), "image", *arguments], **options)

    def test_what_is_pushed_has_the_same_digests_and_can_be_inspected(self):
        built = self.built(self.layout(rich_layers(), config={"config": {"Cmd": ["/x", "y"], "User": "7"}}).directory)
        done = self.image("push", "--plain-http", self.out, self.reference)
        pinned = f"oci://{self.host}/some/image@{built['manifest']['digest']}"
        self.assertEqual((done.returncode, done.stdout), (0, pinned + "\n"), done.stderr)
        question = urllib.request.Request(f"http://{self.host}/v2/some/image/manifests/v1", headers={"Accept": MANIFEST_TYPE})
        with urllib.request.urlopen(question, timeout=30) as answer:
            manifest = answer.read()
        self.assertEqual("sha256:" + hashlib.sha256(manifest).hexdigest(), built["manifest"]["digest"])
        root = self.box.path("h-i")
        for reference in (self.reference, pinned):
            done = self.image("inspect", "--plain-http", "--json", "--root", root, reference)
            self.assertEqual(done.returncode, 0, done.stderr)
            shown = json.loads(done.stdout)
            self.assertEqual({key: shown[key] for key in ("manifest", "verity", "cmd", "user", "erofs")},
                             {"manifest": built["manifest"]["digest"], "verity": built["verity"], "cmd": ["/x", "y"], "user": "7",
                              "erofs": built["erofs"]})
        self.assertRegex(self.image("inspect", "--plain-http", "--root", root, pinned).stdout, 'cmd +\\["/x","y"\\]\nuser +7\n')

    def test_a_layout_is_named_by_its_directory_or_as_a_reference(self):
        tree = self.box.make_directory("tree")
        self.out = self.box.path("some:dir")
        digest = self.built(tree)["manifest"]["digest"]
        for layout in (self.out, f"oci-layout:{self.out}:latest", f"oci-layout:{self.out}/"):
            done = self.image("push", "--plain-http", layout, self.reference)
            self.assertEqual((done.returncode, done.stdout), (0, f"oci://{self.host}/some/image@{digest}\n"), done.stderr)
            done = self.image("inspect", "--json", layout, "--root", self.box.path("h-i"))
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(json.loads(done.stdout)["manifest"], digest)

    def test_an_image_of_a_registry_is_built_as_that_of_a_layout(self):
        layout = self.layout(rich_layers())
        done = self.box.run(["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout.directory}:v1",
                             f"docker://{self.host}/plain:v1"])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.built(layout.directory)
        for scheme in ("docker", "oci"):
            again = self.box.path("again-" + scheme)
            self.built(f"{scheme}://{self.host}/plain:v1", "--plain-http", out=again)
            self.assertEqual(self.blobs_of(self.out), self.blobs_of(again))
        shutil.rmtree(self.out)
        self.refused(self.build(f"docker://{self.host}/plain:v2", "--plain-http"), "can't be copied: .*manifest unknown")
        self.refused(self.build(f"docker://{self.host}/plain:v1"), "can't be copied: .*HTTP response to HTTPS client")

    def test_what_cannot_be_pushed_is_said(self):
        tree = self.box.make_directory("tree")
        self.built(tree)
        for layout, reference, code, words in (
                (self.out, "nonsense", 2, "nonsense"),
                (self.out, "oci-layout:/x", 2, "can't be pushed to; give oci://REGISTRY/REPO:TAG$"),
                (self.out, f"oci://{self.host}/a@sha256:{'0' * 64}", 2, "can't be pushed to; give oci://REGISTRY/REPO:TAG$"),
                (tree, self.reference, 1, f"not an OCI layout: .*; to make an image .*: holdfast image build {tree} OUT; .*oci-layout:OUT$"),
                ("/nowhere", self.reference, 1, "not an OCI layout: /nowhere: No such file or directory$"),
                (self.reference, self.reference, 1, r"can't be pushed; give the directory of an OCI layout, or oci-layout:DIR\[:TAG\]$"),
                (self.layout([Layer().add("x")]).directory, self.reference, 1, "is not a Holdfast image"),
                (self.out, "oci://127.0.0.1:1/a:v1", 1, "can't be pushed to oci://127.0.0.1:1/a:v1: .*refused")):
            done = self.image("push", "--plain-http", layout, reference)
            self.assertEqual((done.returncode, done.stdout), (code, ""), done.stderr)
            self.assertRegex(done.stderr.splitlines()[-1], "^holdfast: .*" + words)


if __name__ == "__main__":
    main((*TOOLS, "docker-registry"))
