"""BuildCase: `holdfast image build`, and what it has built."""

import json
import os

from harness.case import Case
from harness.holdfast import BIN
from harness.layers import container_layout
from harness.snapshot import differences, snapshot

TOOLS = ("skopeo", "umoci", "zstd", "mkfs.erofs", "fsverity", "setfacl", "setcap")


class BuildCase(Case):
    def setUp(self):
        super().setUp()
        self.out = self.box.path("out", "image")
        self.box.make_directory("out")

    def build(self, source, *flags, out=None, timeout=120, before=()):
        return self.box.run([*before, os.path.join(BIN, "holdfast"), "image", "build", *flags, source, out or self.out],
                            timeout=timeout)

    def built(self, source, *flags, out=None, timeout=120):
        """What it says in JSON of a build that has to succeed."""
        done = self.build(source, "--json", *flags, out=out, timeout=timeout)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def refused(self, done, pattern):
        """It failed, the last line says why, and nothing is left."""
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertEqual(done.stdout, "")
        self.assertRegex(done.stderr.strip().splitlines()[-1], "^holdfast: .*" + pattern)
        self.assert_nothing_left()

    def assert_nothing_left(self):
        self.assertEqual(os.listdir(self.box.path("out")), [])

    def blob(self, built, which="erofs", out=None):
        return os.path.join(out or self.out, "blobs/sha256", built[which]["digest"].removeprefix("sha256:"))

    def mounted(self, built, out=None):
        """Where the image is mounted, by the kernel alone."""
        point = self.box.make_directory("mounted", built["erofs"]["digest"][7:19])
        done = self.box.run(["mount", "-t", "erofs", "-o", "loop,ro", self.blob(built, out=out), point])
        self.assertEqual(done.returncode, 0, done.stderr)
        return point

    def assert_same_tree(self, left, right, times_of=None):
        found = differences(snapshot(left, times_of), snapshot(right, times_of))
        self.assertEqual(found, [], "\n".join(found[:20]))

    def layout(self, layers, name="layout", **options):
        return container_layout(self.box.path(name), layers, **options)

    def blobs_of(self, out):
        """{path: bytes} of a whole layout."""
        found = {}
        for folder, _, names in os.walk(out):
            for name in names:
                path = os.path.join(folder, name)
                with open(path, "rb") as f:
                    found[os.path.relpath(path, out)] = f.read()
        return found
