"""Small images to run: the same tree as an image of ours, and as an ordinary one."""

import hashlib
import io
import os
import subprocess
import tarfile

from harness.images import make_erofs, write_random
from harness.registry import digest_of

EROFS_LAYER = "application/vnd.oci.image.layer.holdfast.erofs.v1"
MERKLE_LAYER = "application/vnd.oci.image.layer.holdfast.merkle.v1"
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


def push_holdfast_image(registry, repository, tag, tree, work):
    """As docs/image-format.md has it.  Returns the reference and the layers' digests."""
    erofs, merkle = os.path.join(work, "image.erofs"), os.path.join(work, "image.merkle")
    make_erofs(tree, erofs)
    done = subprocess.run(["fsverity", "digest", "--compact", f"--out-merkle-tree={merkle}", erofs],
                          text=True, capture_output=True, check=True)
    verity = "sha256:" + done.stdout.strip()
    with open(erofs, "rb") as f:
        image_blob = registry.push_blob(repository, f.read())
    with open(merkle, "rb") as f:
        merkle_blob = registry.push_blob(repository, f.read())
    layers = [
        {"mediaType": EROFS_LAYER, **image_blob, "annotations": {
            "containerd.io/snapshot/holdfast.verity": verity,
            "containerd.io/snapshot/holdfast.size": str(image_blob["size"]),
            "containerd.io/snapshot/holdfast.merkle": merkle_blob["digest"]}},
        {"mediaType": MERKLE_LAYER, **merkle_blob}]
    digests = [layer["digest"] for layer in layers]
    reference = registry.push_image(repository, tag, _config(digests), layers, {"org.holdfast.image.version": "1"})
    return reference, digests


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
