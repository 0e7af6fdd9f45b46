"""OCI layouts made by hand: the smallest right Holdfast image, and every wrong one that a test wants."""

import hashlib
import json
import os
import shutil
import subprocess

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
EROFS_TYPE = "application/vnd.oci.image.layer.holdfast.erofs.v1"
NATIVE_TYPE = "application/vnd.erofs.layer.v1"
MERKLE_TYPE = "application/vnd.oci.image.layer.holdfast.merkle.v1"
PREFIX = "containerd.io/snapshot/holdfast."


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def fsverity(path, tree):
    """The fs-verity digest of a file; its Merkle tree is written to `tree`."""
    done = subprocess.run(["fsverity", "digest", "--compact", f"--out-merkle-tree={tree}", path],
                          text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return "sha256:" + done.stdout.strip().removeprefix("sha256:")


class OciLayout:
    """A directory in the OCI image layout."""

    def __init__(self, directory):
        self.directory = directory
        self._entries = []
        os.makedirs(self.blob_directory, exist_ok=True)
        self._write("oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}))
        self._write_index()

    @property
    def blob_directory(self):
        return os.path.join(self.directory, "blobs/sha256")

    def blob_path(self, digest):
        return os.path.join(self.blob_directory, digest.removeprefix("sha256:"))

    def _write(self, name, text):
        with open(os.path.join(self.directory, name), "w") as f:
            f.write(text)

    def _write_index(self):
        self._write("index.json", json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": self._entries}))

    def add_blob(self, data):
        """Bytes, under their digest; what a descriptor says of them."""
        digest = digest_of(data)
        with open(self.blob_path(digest), "wb") as f:
            f.write(data)
        return {"digest": digest, "size": len(data)}

    def add_file(self, path):
        with open(path, "rb") as f:
            digest = "sha256:" + hashlib.file_digest(f, "sha256").hexdigest()
        if not os.path.exists(self.blob_path(digest)):  # A file that is written again is another one to who reads it.
            shutil.copyfile(path, self.blob_path(digest))
        return {"digest": digest, "size": os.path.getsize(path)}

    def add_json(self, value):
        return self.add_blob(json.dumps(value).encode())

    def tag(self, name, descriptor, media_type=MANIFEST_TYPE):
        """Names a manifest, and returns its digest."""
        entry = {"mediaType": media_type, **descriptor}
        if name:
            entry["annotations"] = {"org.opencontainers.image.ref.name": name}
        self._entries.append(entry)
        self._write_index()
        return descriptor["digest"]

    def holdfast_manifest(self, erofs, config=None):
        """The manifest, as a dictionary, of a Holdfast image of the EROFS file `erofs`; its blobs are added."""
        tree = os.path.join(self.directory, "tree")
        verity = fsverity(erofs, tree)
        image, merkle = self.add_file(erofs), self.add_file(tree)
        os.unlink(tree)
        config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/true"]}, **(config or {}),
                  "rootfs": {"type": "layers", "diff_ids": [verity, merkle["digest"]]}}
        return {
            "schemaVersion": 2, "mediaType": MANIFEST_TYPE, "annotations": {"org.holdfast.image.version": "1"},
            "config": {"mediaType": CONFIG_TYPE, **self.add_json(config)},
            "layers": [
                {"mediaType": EROFS_TYPE, **image, "annotations": {
                    PREFIX + "verity": verity, PREFIX + "size": str(image["size"]),
                    PREFIX + "merkle": merkle["digest"]}},
                {"mediaType": MERKLE_TYPE, **merkle}]}

    def add_holdfast(self, tag, erofs, config=None):
        """A Holdfast image of the file `erofs`; returns its manifest's digest."""
        return self.tag(tag, self.add_json(self.holdfast_manifest(erofs, config)))

    def native_manifest(self, *layers, config=None):
        """The manifest of an image as containerd 2.3 makes them (ctr image convert --erofs raw), the lowest layer first."""
        images = [self.add_file(layer) for layer in layers]
        config = {"architecture": "amd64", "os": "linux", "os.features": ["erofs"], "config": {"Cmd": ["/bin/true"]},
                  **(config or {}), "rootfs": {"type": "layers", "diff_ids": [image["digest"] for image in images]}}
        return {"schemaVersion": 2, "mediaType": MANIFEST_TYPE,
                "config": {"mediaType": CONFIG_TYPE, **self.add_json(config)},
                "layers": [{"mediaType": NATIVE_TYPE, **image} for image in images]}

    def add_native_beside(self, tag, erofs, other):
        """A list of a native image and another one, both for this machine."""
        machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
        platform = {"os": "linux", "architecture": machine}
        entries = [
            {"mediaType": MANIFEST_TYPE, **self.add_json(self.native_manifest(erofs)),
             "platform": {**platform, "os.features": ["erofs"]}},
            {"mediaType": MANIFEST_TYPE, **self.add_json(other), "platform": platform}]
        return self.tag(tag, self.add_json({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries}),
                        INDEX_TYPE)

    def add_list(self, tag, platforms):
        """A list of {platform text: manifest}; returns its digest."""
        entries = []
        for platform, manifest in platforms.items():
            parts = dict(zip(("os", "architecture", "variant"), platform.split("/")))
            entries.append({"mediaType": MANIFEST_TYPE, **self.add_json(manifest), "platform": parts})
        return self.tag(tag, self.add_json({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries}),
                        INDEX_TYPE)
