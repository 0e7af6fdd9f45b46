"""A reboot with the registry gone: what was complete works as before, of the rest what had come."""

import os
import random
import sys

import _path  # noqa: F401
from harness.case import main
from harness.containers import TOOLS, ContainerCase
from harness.holdfast import NO_READ_AHEAD
from harness.origins.oci_registry import Registry
from harness.readers import Reader, drop_page_cache, pread
from harness.reboot import Machine
from harness.sandbox import wait_gone, wait_until

SIZE = 32 << 20
PART = 1 << 20


class RootfsRebootTest(ContainerCase):
    def setUp(self):
        super().setUp()
        self.machine = Machine(self.box)
        self.addCleanup(self.machine.leave)
        self.registry = Registry(self.box).start()
        seed = int(os.environ.get("HOLDFAST_TEST_SEED") or random.randrange(1 << 32))
        print("seed", seed, file=sys.stderr)
        self.data = random.Random(seed).randbytes(SIZE)

    def pushed(self, text):
        layout = self.image(text, self.data).partition(":")[2]
        reference = f"oci://{self.registry.host}/images/{text}:v1"
        done = self.holdfast_.run("image", "push", "--plain-http", layout, reference)
        self.assertEqual(done.returncode, 0, done.stderr)
        return reference

    def created(self, name, reference):
        done = self.command("rootfs", "create", name, "--plain-http", "--image", reference)
        self.assertEqual(done.returncode, 0, done.stderr)
        return os.path.join(done.stdout.strip(), "rootfs")

    def is_durable(self):
        lines = [line.split() for line in self.holdfast_.dump().splitlines() if line.startswith("presence ")]
        durable = [line[2:] for line in lines if line[1] == "durable"]
        return all(line[2:] in durable for line in lines)

    def reboot_without_registry(self):
        wait_until(self.is_durable, 60, "all presence to be on the disk")
        before = self.holdfast_.daemon_pid()
        self.machine.reboot(self.holdfast_)
        self.registry.stop()
        self.assertTrue(wait_gone(before, 30), "holdfastd outlived the reboot")
        self.assertEqual(self.mounts("overlay") + self.mounts("erofs"), [])
        drop_page_cache()

    def assert_complete(self, root):
        for name, contents in (("data", self.data), ("text", b"whole")):
            self.assertEqual(pread(os.path.join(root, name), 0, SIZE), contents)

    def test_a_complete_root_file_system_works_offline_and_runs_containers(self):
        reference = self.pushed("whole")
        root = self.created("a", reference)
        with open(os.path.join(root, "written"), "w") as f:
            f.write("kept")
        self.assert_complete(root)
        for name in os.listdir(os.path.join(root, "bin")):
            with open(os.path.join(root, "bin", name), "rb") as f:
                f.read()
        self.reboot_without_registry()
        self.assertFalse(os.path.exists(os.path.join(root, "text")))
        self.assertEqual(self.names(), ["a"])
        done = self.command("rootfs", "mount", "a")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assert_complete(root)
        with open(os.path.join(root, "written")) as f:
            self.assertEqual(f.read(), "kept")
        # A new one too, by its tag: what that named last time is known.
        done = self.command("run", "--plain-http", reference, "--", "/bin/cat", "/text")
        self.assertEqual((done.returncode, done.stdout), (0, "whole"), done.stderr)
        self.assertIn("going on with what it was before", done.stderr)
        done = self.command("rootfs", "rm", "a")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assert_nothing_left()

    def test_of_a_partial_one_what_had_come_is_read_and_the_rest_waits_for_the_registry(self):
        reference = self.pushed("part")
        self.holdfast_.mount(reference, "--plain-http", NO_READ_AHEAD)  # Starts the instance so.
        root = self.created("a", reference)
        path = os.path.join(root, "data")
        self.assertEqual(pread(path, 0, PART), self.data[:PART])
        self.reboot_without_registry()
        done = self.command("rootfs", "mount", "a")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(pread(path, 0, PART), self.data[:PART])
        reader = self.keep(Reader(path, SIZE - 4096, 4096, self.data[-4096:]))
        wait_until(lambda: self.holdfast_.waiting(), 30, "a read to wait")
        self.assertFalse(reader.wait(0), "absent bytes were read without the registry")
        self.registry.start()
        self.assertTrue(reader.wait(60), "the read did not finish when the registry was back")
        done = self.command("rootfs", "rm", "a")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assert_nothing_left()

    def test_one_of_a_layout_that_is_gone_is_mounted_again(self):
        image = self.image("whole", self.data)
        done = self.command("rootfs", "create", "a", "--image", image)
        self.assertEqual(done.returncode, 0, done.stderr)
        root = os.path.join(done.stdout.strip(), "rootfs")
        self.assert_complete(root)
        self.reboot_without_registry()
        layout = image.partition(":")[2]
        os.rename(layout, layout + ".away")
        done = self.command("rootfs", "mount", "a")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assert_complete(root)


if __name__ == "__main__":
    main(tools=(*TOOLS, "docker-registry", "skopeo"))
