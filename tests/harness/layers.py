"""Container images made by hand: layers with everything that a tar archive can say, and layouts of them."""

import gzip
import hashlib
import io
import tarfile

from harness.oci_layout import CONFIG_TYPE, MANIFEST_TYPE, OciLayout

LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"


class Layer:
    """A tar archive in the making; each method adds one entry."""

    def __init__(self):
        self._bytes = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._bytes, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8",
                                 errors="surrogateescape")

    def add(self, name, kind=tarfile.REGTYPE, data=b"", xattrs=None, mtime="1000000000.123456789", **fields):
        info = tarfile.TarInfo(name)
        info.type, info.size = kind, len(data)
        info.mode = fields.pop("mode", 0o755 if kind == tarfile.DIRTYPE else 0o644)
        info.mtime = int(mtime.split(".")[0])
        for field, value in fields.items():
            setattr(info, field, value)
        info.pax_headers = {"mtime": mtime}
        for key, value in (xattrs or {}).items():
            info.pax_headers["SCHILY.xattr." + key] = value.decode("utf-8", "surrogateescape")
        self._tar.addfile(info, io.BytesIO(data))
        return self

    def directory(self, name, **fields):
        return self.add(name, tarfile.DIRTYPE, **fields)

    def symlink(self, name, target, **fields):
        return self.add(name, tarfile.SYMTYPE, linkname=target, **fields)

    def link(self, name, target):
        return self.add(name, tarfile.LNKTYPE, linkname=target)

    def device(self, name, major, minor, kind=tarfile.CHRTYPE, **fields):
        return self.add(name, kind, devmajor=major, devminor=minor, **fields)

    def fifo(self, name):
        return self.add(name, tarfile.FIFOTYPE)

    def data(self):
        self._tar.close()
        return self._bytes.getvalue()


def zeros_layer(name, size):
    """A compressed layer with one file of `size` zeros (a multiple of 64 MiB), made in no time."""
    info = tarfile.TarInfo(name)
    info.size = size
    piece = 64 << 20
    zeros = gzip.compress(bytes(piece), mtime=0)
    return gzip.compress(info.tobuf(tarfile.GNU_FORMAT), mtime=0) + zeros * (size // piece) + \
        gzip.compress(bytes(10240), mtime=0)


class Compressed:
    """A layer and what it is when compressed with "gzip", "zstd" or "none"."""

    def __init__(self, layer, data, how, annotations=None):
        self.layer, self.data, self.annotations = layer, data, annotations
        self.media_type = LAYER_TYPE + ("" if how == "none" else "+" + how)


def container_layout(directory, layers, config=None, tag="v1", layer_type=None):
    """An OCI layout of an image with these layers: Layer, Compressed, or the bytes of a compressed one."""
    layout = OciLayout(directory)
    descriptors, diffs = [], []
    for layer in layers:
        if isinstance(layer, Compressed):
            descriptors.append({"mediaType": layer.media_type, **layout.add_blob(layer.data)})
            if layer.annotations:
                descriptors[-1]["annotations"] = layer.annotations
            diffs.append("sha256:" + hashlib.sha256(layer.layer.data()).hexdigest())
            continue
        compressed = layer if isinstance(layer, bytes) else gzip.compress(layer.data(), mtime=0)
        descriptors.append({"mediaType": layer_type or LAYER_TYPE + "+gzip", **layout.add_blob(compressed)})
        diffs.append("sha256:" + "0" * 64 if isinstance(layer, bytes) else layout.add_blob(layer.data())["digest"])
    config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"]},
              "history": [{"created_by": "a test"} for _ in layers], **(config or {}),
              "rootfs": {"type": "layers", "diff_ids": diffs}}
    layout.tag(tag, layout.add_json({
        "schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": {"mediaType": CONFIG_TYPE, **layout.add_json(config)},
        "layers": descriptors}))
    return layout
