"""Containerd: Debian's containerd on directories of its own, with holdfast-snapshotter as its snapshotter."""

import json
import os
import signal

from harness.container_images import BUSYBOX
from harness.holdfast import BIN
from harness.sandbox import wait_gone, wait_until

SNAPSHOTTER = os.path.join(BIN, "holdfast-snapshotter")
CRI_IMAGE = os.path.join(BIN, "cri_image")
NAMESPACE = "k8s.io"  # The CRI plugin's.
TOOLS = ("containerd", "ctr", "runc", "docker-registry", "mkfs.erofs", "fsverity")


def unmet_by_containerd():
    """Further reasons why these tests can't run here."""
    return [f"{os.path.basename(path)} is not built" for path in (SNAPSHOTTER, CRI_IMAGE)
            if not os.path.exists(path)] + ([] if os.path.exists(BUSYBOX) else ["no static busybox"])

_CONFIG = """
version = 2
root = "{root}"
state = "{state}"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "{socket}"
[ttrpc]
  address = "{socket}.ttrpc"
[proxy_plugins.holdfast]
  type = "snapshot"
  address = "{snapshotter}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{root}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{root}/cni/bin"
    conf_dir = "{root}/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "holdfast"
    disable_snapshot_annotations = {no_annotations}
"""


class Snapshotter:
    """The plugin; its images are mounted in `holdfast`."""

    def __init__(self, box, holdfast, registries=(), name="snapshotter", flags=()):
        self._box = box
        self._holdfast = holdfast
        self._registries = registries
        self._flags = list(flags)
        self.root = box.path(name)
        self.socket = box.path(name + ".sock")
        self._process = None

    def arguments(self):
        return [SNAPSHOTTER, f"--socket={self.socket}", f"--root={self.root}", f"--instance={self._holdfast.name}",
                f"--holdfast-root={self._holdfast.root}", "--plain-http=" + ",".join(self._registries), *self._flags]

    def start(self):
        with open(self.root + ".log", "ab") as log:
            self._process = self._box.start(self.arguments(), stdout=log, stderr=log)
        return self

    def start_and_wait(self):
        """Started, and listening."""
        log = self.root + ".log"
        begin = os.path.getsize(log) if os.path.exists(log) else 0
        self.start()

        def serves():
            assert self._process.poll() is None, "holdfast-snapshotter has ended"
            with open(log) as f:
                f.seek(begin)
                return "serving on" in f.read()
        wait_until(serves, 30, "holdfast-snapshotter serving")
        return self

    def kill(self, sig=signal.SIGKILL):
        self._process.send_signal(sig)
        assert wait_gone(self._process.pid, 20), "holdfast-snapshotter does not end"
        return self._process.wait()

    def records(self):
        """Every record on disk, by its directory's name; None for a directory without one."""
        folder = os.path.join(self.root, "snapshots")
        found = {}
        for name in os.listdir(folder):
            path = os.path.join(folder, name, "record")
            try:
                with open(path) as f:
                    found[name] = json.load(f)
            except FileNotFoundError:
                found[name] = None
        return found

    def fs_path(self, record):
        return os.path.join(self.root, "snapshots", str(record["id"]), "fs")


class Containerd:
    def __init__(self, box, snapshotter, annotations=True, name="containerd", more_config=""):
        self._box = box
        self._log = box.path(name + ".log")
        self.directory = box.make_directory(name)
        self.socket = os.path.join(self.directory, "containerd.sock")
        self._process = None
        with open(os.path.join(self.directory, "config.toml"), "w") as f:
            f.write(_CONFIG.format(root=os.path.join(self.directory, "root"), state=os.path.join(self.directory, "state"),
                                   socket=self.socket, snapshotter=snapshotter.socket,
                                   no_annotations="false" if annotations else "true") + more_config)

    def start(self):
        with open(self._log, "ab") as log:
            self._process = self._box.start(
                ["containerd", "--config", os.path.join(self.directory, "config.toml")], stdout=log, stderr=log)
        wait_until(lambda: self.ctr("version").returncode == 0, 30, "containerd answering")
        return self

    def kill(self):
        self._process.kill()
        assert wait_gone(self._process.pid, 20), "containerd does not end"
        self._process.wait()

    def ctr(self, *arguments, timeout=60):
        return self._box.run(["ctr", "--address", self.socket, "--namespace", NAMESPACE, *arguments], timeout=timeout)

    def snapshots(self, *arguments):
        """`ctr snapshots`, which must succeed; returns what it says."""
        done = self.ctr("snapshots", "--snapshotter", "holdfast", *arguments)
        assert done.returncode == 0, f"ctr snapshots {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def try_cri(self, verb, reference):
        return self._box.run([CRI_IMAGE, self.socket, verb, reference], timeout=90)

    def pull(self, reference):
        done = self.try_cri("pull", reference)
        assert done.returncode == 0, f"pull {reference}: {done.stderr}"

    def remove(self, reference):
        done = self.try_cri("remove", reference)
        assert done.returncode == 0, f"remove {reference}: {done.stderr}"

    def run(self, reference, name, *command):
        """`ctr run` in the foreground."""
        return self.ctr("run", "--rm", "--snapshotter", "holdfast", reference, name, *command)

    def run_detached(self, reference, name, *command, mounts=()):
        flags = [part for mount in mounts for part in ("--mount", mount)]
        done = self.ctr("run", "-d", "--snapshotter", "holdfast", *flags, reference, name, *command)
        assert done.returncode == 0, f"ctr run {name}: {done.stderr}"

    def tasks(self):
        return self.ctr("tasks", "ls", "-q").stdout.split()

    def close(self):
        """Ends every container: their processes carry no mark of the sandbox."""
        if self._process is None or self._process.poll() is not None:
            return
        for name in self.tasks():
            self.ctr("tasks", "delete", "-f", name)
            self.ctr("containers", "delete", name)
