"""Root file systems and containers of one instance, and a small image for them."""

import json
import os
import shutil
import subprocess

from harness.case import Case
from harness.holdfast import BIN

PASSWD = "root:x:0:0::/:/bin/sh\napp:x:1000:1001::/:/bin/sh\n"
TOOLS = ("runc", "mkfs.erofs", "fsverity")


class ContainerCase(Case):
    def setUp(self):
        super().setUp()
        self.holdfast_ = self.holdfast()
        self.flags = ["--root", self.holdfast_.root, "--instance", self.holdfast_.name]

    def tearDown(self):
        for name in self.names():
            self.command("rootfs", "rm", "--force", name)

    def tree(self, text):
        """Of what image(text) was made."""
        return self.box.path("tree-" + text)

    def image(self, text, data=b"", add_files=lambda tree: None):
        """A layout of busybox, whose /text says `text` and whose /data is `data`."""
        tree = self.image_tree(text, data, add_files)
        layout = self.box.path("image-" + text)
        done = self.holdfast_.run("image", "build", tree, layout)
        self.assertEqual(done.returncode, 0, done.stderr)
        return "oci-layout:" + layout

    def image_tree(self, text, data=b"", add_files=lambda tree: None):
        """What such an image is made of."""
        tree = self.box.make_directory("tree-" + text)
        for folder in ("bin", "etc", "proc", "sys", "dev"):
            os.mkdir(os.path.join(tree, folder))
        shutil.copy("/bin/busybox", os.path.join(tree, "bin/busybox"))
        for tool in ("sh", "cat", "find", "id", "sleep", "sha256sum", "stat", "wc"):
            os.symlink("busybox", os.path.join(tree, "bin", tool))
        for path, contents in (("etc/passwd", PASSWD), ("text", text)):
            with open(os.path.join(tree, path), "w") as f:
                f.write(contents)
        with open(os.path.join(tree, "data"), "wb") as f:
            f.write(data)
        add_files(tree)
        return tree

    def arguments(self, *words):
        """`words`, with the instance's flags behind the verb."""
        verb = 2 if words[0] == "rootfs" else 1
        return [os.path.join(BIN, "holdfast"), *words[:verb], *self.flags, *words[verb:]]

    def command(self, *words):
        return self.box.run(self.arguments(*words), timeout=90)

    def start(self, *words):
        process = subprocess.Popen(self.arguments(*words), stdin=subprocess.DEVNULL, text=True, env=self.box.environment,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(self.end, process)
        return process

    def end(self, process):
        if process.poll() is None:
            process.kill()
            process.wait()
            self.command("rootfs", "list")  # A container outlives its killed command; the next one ends it.
        process.stdout.close()
        process.stderr.close()

    def names(self):
        done = self.command("rootfs", "list", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        return [one["name"] for one in json.loads(done.stdout)]

    def mounts(self, kind):
        with open("/proc/self/mountinfo") as f:
            return [line for line in f if self.holdfast_.root in line and f" - {kind} " in line]

    def assert_nothing_left(self):
        self.assertEqual(self.names(), [])
        records = self.holdfast_.state_path("rootfs")
        self.assertEqual(os.listdir(records) if os.path.exists(records) else [], [])
        self.assertEqual(self.mounts("overlay") + self.mounts("erofs"), [])
        self.assertFalse(os.path.exists(self.holdfast_.run_path()))
