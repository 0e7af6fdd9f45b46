"""Images named by references, in a layout on the disk: what they lead to, and what is said when they lead nowhere."""

import os

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.oci_layout import OciLayout


class OciLayoutTest(Case):
    def setUp(self):
        super().setUp()
        self.image, self.tree = images.random_image(4, 300000, seed=40)
        self.layout = OciLayout(self.box.path("layout"))
        self.holdfast_ = self.holdfast()

    def reference(self, tag):
        return f"oci-layout:{self.layout.directory}:{tag}"

    def refused(self, reference, pattern, *flags):
        point = self.box.make_directory("m")
        self.assert_one_line(self.holdfast_.try_mount(reference, point, *flags), pattern)
        self.assertFalse(os.path.ismount(point))

    def test_an_image_of_a_layout_is_mounted_and_status_names_its_manifest(self):
        digest = self.layout.add_holdfast("v1", self.image)
        point = self.holdfast_.mount(self.reference("v1"))
        self.assertEqual(images.manifest(point), images.manifest(self.tree))
        shown = self.holdfast_.run("status", "--root", self.holdfast_.root).stdout
        self.assertRegex(shown, f"mount +{point}  erofs  {self.reference('v1')}  {digest}\n")
        self.holdfast_.umount(point)

    def test_a_layouts_only_image_needs_no_tag(self):
        self.layout.add_holdfast("v1", self.image)
        point = self.holdfast_.mount("oci-layout:" + self.layout.directory)
        self.assertEqual(sorted(os.listdir(point)), sorted(os.listdir(self.tree)))
        self.layout.add_holdfast("v2", self.image)
        self.refused("oci-layout:" + self.layout.directory, "several images, so say which: v1, v2$")

    def test_of_a_list_the_image_for_this_machine_is_mounted(self):
        machine = {"x86_64": "linux/amd64", "aarch64": "linux/arm64/v8"}.get(os.uname().machine)
        if not machine:
            self.skipTest("what Go calls this machine is not known here")
        other = self.layout.holdfast_manifest(images.random_image(1, 5000, seed=41)[0])
        self.layout.add_list("all", {"linux/s390x": other, machine: self.layout.holdfast_manifest(self.image)})
        point = self.holdfast_.mount(self.reference("all"))
        self.assertEqual(images.manifest(point), images.manifest(self.tree))
        self.layout.add_list("none", {"linux/s390x": other, "linux/mips64le": other})
        self.refused(self.reference("none"), r"has no image for linux/\w+(/v8)?; it has linux/s390x, linux/mips64le$")

    def test_a_native_image_of_one_layer_is_mounted_unverified(self):
        self.layout.tag("native", self.layout.add_json(self.layout.native_manifest(self.image)))
        point = self.holdfast_.mount(self.reference("native"))
        self.assertEqual(images.manifest(point), images.manifest(self.tree))
        self.assertIn("unverified", self.holdfast_.run("status", "--root", self.holdfast_.root).stdout)
        shown = self.holdfast_.run("image", "inspect", *self.holdfast_.root_flags(), self.reference("native"))
        self.assertEqual(shown.returncode, 0, shown.stderr)
        self.assertRegex(shown.stdout, "verity +none: what is read is not checked\n")
        self.holdfast_.umount(point)

    def test_of_several_for_this_machine_the_one_with_a_digest_is_taken(self):
        self.layout.add_native_beside("both", images.random_image(1, 5000, seed=41)[0],
                                      self.layout.holdfast_manifest(self.image))
        point = self.holdfast_.mount(self.reference("both"))
        self.assertEqual(images.manifest(point), images.manifest(self.tree))
        self.holdfast_.umount(point)
        foreign = self.layout.holdfast_manifest(self.image)
        foreign["layers"] = [{**foreign["layers"][0], "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"}]
        del foreign["annotations"]
        self.layout.add_native_beside("ordinary", self.image, foreign)
        point = self.holdfast_.mount(self.reference("ordinary"))
        self.assertEqual(images.manifest(point), images.manifest(self.tree))
        self.holdfast_.umount(point)

    def test_native_images_that_cannot_be_mounted_say_what_they_are(self):
        manifest = self.layout.native_manifest(self.image)
        layer = manifest["layers"][0]
        self.layout.tag("many", self.layout.add_json({**manifest, "layers": [layer] * 501}))
        self.refused(self.reference("many"), "has 501 layers, and an overlay takes 500; build it with fewer")
        self.layout.tag("zstd", self.layout.add_json(
            {**manifest, "layers": [{**layer, "mediaType": layer["mediaType"] + "+zstd"}]}))
        self.refused(self.reference("zstd"), "cannot be read in parts; convert the image with: ctr image convert --erofs raw")
        other = self.layout.native_manifest(images.random_image(1, 5000, seed=41)[0])
        self.layout.tag("lies", self.layout.add_json({**manifest, "layers": other["layers"]}))
        self.refused(self.reference("lies"), r'its config does not name its layers, \["sha256:')

    def test_what_is_no_reference_is_refused(self):
        self.refused("docker://h/a:v1", "'docker://h/a:v1' is not an image URL; use http://.*oci://")
        self.refused("oci://h/a", "'oci://h/a' has neither tag nor digest; add :TAG")
        self.refused("oci://h/UP:v1", "has the bad repository name 'UP'")
        self.refused("oci://h/a@sha256:12", "has the bad digest 'sha256:12'; a digest is sha256: and 64 hex digits")
        self.refused("oci://user:hidden@h/a:v1", "^(?!.*hidden).*use --auth-file")
        self.refused("file:///x", "--auth-file, --plain-http and --mirror are for images in registries", "--plain-http")
        self.refused("oci://h/a:v1", "auth file /nowhere: No such file", "--auth-file=/nowhere")
        self.refused("oci://h/a:v1", "the mirror 'http://h' is not HOST", "--mirror=http://h")

    def test_a_tag_that_is_not_there_is_refused_with_those_that_are(self):
        self.refused(self.reference("v1"), "the layout is empty$")
        self.layout.add_holdfast("v1", self.image)
        self.refused(self.reference("v9"), "v9: the layout has no such tag; it has v1$")
        self.refused("oci-layout:/nowhere:v1", "oci-layout:/nowhere:v1: not an OCI layout: .*No such file")

    def test_a_foreign_image_is_refused_with_the_cure(self):
        manifest = self.layout.holdfast_manifest(self.image)
        manifest["layers"] = [{**manifest["layers"][0], "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"}] * 2
        self.layout.tag("tar", self.layout.add_json(manifest))
        self.refused(self.reference("tar"), "tar is not a Holdfast image .*tar.gzip.*holdfast image build$")
        newer = self.layout.holdfast_manifest(self.image)
        newer["annotations"]["org.holdfast.image.version"] = "2"
        self.layout.tag("newer", self.layout.add_json(newer))
        self.refused(self.reference("newer"), "newer is a Holdfast image of version 2; this holdfast knows version 1$")

    def test_a_text_without_its_digest_is_refused(self):
        digest = self.layout.add_holdfast("v1", self.image)
        with open(self.layout.blob_path(digest), "r+") as f:
            text = f.read()
            f.seek(0)
            f.write(text.replace("linux", "Linux") if "linux" in text else text.replace("image", "Image", 1))
        self.refused(self.reference("v1"), f"what it has for {digest} has the digest sha256:")
        manifest = self.layout.holdfast_manifest(self.image)
        with open(self.layout.blob_path(manifest["config"]["digest"]), "a") as f:
            f.write(" ")
        self.layout.tag("v2", self.layout.add_json(manifest))
        self.refused(self.reference("v2"), f"what came for {manifest['config']['digest']} has the digest sha256:")

    def test_an_image_of_another_size_than_its_manifest_says_is_refused(self):
        manifest = self.layout.holdfast_manifest(self.image)
        with open(self.layout.blob_path(manifest["layers"][0]["digest"]), "ab") as f:
            f.write(bytes(4096))
        self.layout.tag("v1", self.layout.add_json(manifest))
        self.refused(self.reference("v1"), r"is not the file of digest sha256:[0-9a-f]{64}")

    def test_a_kept_text_that_is_damaged_is_fetched_again(self):
        digest = self.layout.add_holdfast("v1", self.image)
        self.holdfast_.umount(self.holdfast_.mount(self.reference("v1")))
        kept = self.holdfast_.state_path("images/blobs/sha256", digest.removeprefix("sha256:"))
        with open(kept, "rb") as f:
            right = f.read()
        for damage in (b"", right[:-1], right.replace(b"1", b"2", 1)):
            with open(kept, "wb") as f:
                f.write(damage)
            self.holdfast_.umount(self.holdfast_.mount(self.reference("v1")))
            with open(kept, "rb") as f:
                self.assertEqual(f.read(), right)


if __name__ == "__main__":
    main(["mkfs.erofs", "fsverity"])
