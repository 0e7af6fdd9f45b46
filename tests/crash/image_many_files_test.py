"""An image of 100,000 files."""

import os
import sys
import time

import _path  # noqa: F401
from harness.build_case import TOOLS, BuildCase
from harness.case import main
from harness.layers import Layer


class ManyFilesTest(BuildCase):
    def test_a_hundred_thousand_files(self):
        layer, count = Layer(), 100_000
        for i in range(count // 100):
            layer.directory(f"d{i:04}/")
            for j in range(99):
                layer.add(f"d{i:04}/f{j}", data=b"%d" % (i * j))
        layout = self.layout([layer])
        # To remove as many files takes a minute where freed blocks are discarded at once.
        memory = self.box.make_directory("memory")
        self.assertEqual(self.box.run(["mount", "-t", "tmpfs", "-o", "size=2g", "none", memory]).returncode, 0)
        begin = time.monotonic()
        built = self.built(layout.directory, f"--tmp-dir={memory}", timeout=250)
        print(f"{built['files']} files, {built['erofs']['size']} bytes of image, built in {time.monotonic() - begin:.1f} s",
              file=sys.stderr)
        self.assertEqual(built["files"], count + 1)
        point = self.mounted(built)
        found = {os.path.relpath(os.path.join(folder, name), point) for folder, _, names in os.walk(point) for name in names}
        self.assertEqual(found, {f"d{i:04}/f{j}" for i in range(count // 100) for j in range(99)})
        for i, j in ((0, 0), (count // 100 - 1, 98), (123, 45)):
            with open(os.path.join(point, f"d{i:04}/f{j}")) as f:
                self.assertEqual(f.read(), str(i * j))


if __name__ == "__main__":
    main(TOOLS)
