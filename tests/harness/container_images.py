"""Small images to run: the same tree as a Holdfast image, and as an ordinary one."""

import hashlib
import io
import json
import os
import tarfile
import tempfile

from harness.images import write_random
from harness.origins.oci_registry import digest_of

TAR_LAYER = "application/vnd.oci.image.layer.v1.tar"
BUSYBOX = "/bin/busybox"


def busybox_tree(directory, file_count=4, file_size=1 << 20, seed=1):
    """A root with busybox, /data/000, 001, ... and their sums in /SUMS; returns `directory`."""
    for folder in ("bin", "data", "dev", "proc", "sys", "tmp", "etc", "out"):
        os.makedirs(os.path.join(directory, folder))
    os.chmod(os.path.join(directory, "tmp"), 0o1777)
    with open(BUSYBOX, "rb") as source, open(os.path.join(directory, "bin/busybox"), "wb") as target:
        target.write(source.read())
    os.chmod(os.path.join(directory, "bin/busybox"), 0o755)
    for name in ("sh", "cat", "sha256sum", "sleep", "echo", "ls", "mv", "true", "test"):
        os.symlink("busybox", os.path.join(directory, "bin", name))
    with open(os.path.join(directory, "SUMS"), "w") as sums:
        for i in range(file_count):
            path = os.path.join(directory, "data", f"{i:03}")
            write_random(path, file_size, seed * 1000 + i)
            with open(path, "rb") as f:
                sums.write(f"{hashlib.sha256(f.read()).hexdigest()}  /data/{i:03}\n")
    return directory


def _config(diff_ids):
    return {"architecture": "amd64", "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids}}


def push_holdfast_image(holdfast, registry, repository, tag, tree):
    """Built and pushed as its users do it.  Returns the reference and the layers' digests."""
    layout = tempfile.mkdtemp(dir=holdfast.box.directory) + "/layout"
    reference = f"{registry.host}/{repository}:{tag}"
    for arguments in (("build", tree, layout), ("push", *registry.push_flags(), layout, "oci://" + reference)):
        done = holdfast.run("image", *arguments)
        assert done.returncode == 0, done.stderr
    with open(os.path.join(layout, "index.json")) as f:
        digest = json.load(f)["manifests"][0]["digest"].removeprefix("sha256:")
    with open(os.path.join(layout, "blobs/sha256", digest)) as f:
        return reference, [layer["digest"] for layer in json.load(f)["layers"]]


def push_liar(registry, reference, tag, diff_ids):
    """The image of `reference` again, with a config that claims these diff ids."""
    manifest = registry.manifest(reference)
    repository = reference.partition("/")[2].rpartition(":")[0]
    return registry.push_image(repository, tag, _config(diff_ids), manifest["layers"], manifest["annotations"])


def push_ordinary_image(registry, repository, tag, trees):
    """One tar a tree, lowest first.  Returns the reference and the layers' digests."""
    layers, diff_ids = [], []
    for tree in trees:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.add(tree, arcname=".")
        layers.append({"mediaType": TAR_LAYER, **registry.push_blob(repository, buffer.getvalue())})
        diff_ids.append(digest_of(buffer.getvalue()))
    return registry.push_image(repository, tag, _config(diff_ids), layers), diff_ids
