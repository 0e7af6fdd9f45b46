"""What a daemon costs: a GiB read through it, ten thousand reads waiting in it, a thousand objects open."""

import json
import os
import subprocess
import unittest

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.holdfast import NO_READ_AHEAD, helper
from harness.readers import pread
from harness.sandbox import wait_until

MIB = 1 << 20
WAITING = 10000
OBJECTS = 1000


class LimitsTest(Case):
    def test_the_daemon_stays_below_40_mb_with_a_gib_image_fully_read(self):
        image, tree = images.random_image(16, 64 * MIB)
        origin = self.serve(os.path.dirname(image))
        instance = self.holdfast()
        point = instance.mount(origin.url(os.path.basename(image)), "--as=erofs")
        for name in sorted(os.listdir(tree)):
            same = subprocess.run(["cmp", os.path.join(point, name), os.path.join(tree, name)])
            self.assertEqual(same.returncode, 0, name)
        print(f"RSS after reading 1 GiB: {instance.rss_bytes() / 1e6:.1f} MB", flush=True)
        self.assertLess(instance.rss_bytes(), 40e6)

    def test_the_supervisor_keeps_less_than_12_mb_locked(self):
        origin = self.serve(os.path.dirname(images.random_file(MIB)))
        instance = self.holdfast()
        instance.mount_file(origin.url(os.path.basename(images.random_file(MIB))))
        with open(f"/proc/{instance.supervisor_pid()}/status") as f:
            memory = {line.split(":")[0]: int(line.split()[1]) << 10 for line in f if line.startswith("Vm")}
        print(f"supervisor: RSS {memory['VmRSS'] / 1e6:.1f} MB, locked {memory['VmLck'] / 1e6:.1f} MB", flush=True)
        self.assertGreater(memory["VmLck"], 1e6)
        self.assertLess(memory["VmLck"], 12e6)
        self.assertLess(memory["VmRSS"], 28e6)

    def test_ten_thousand_reads_wait_at_once_and_cost_less_than_10_kb_each(self):
        stride = 100 << 10
        truth = images.random_file(WAITING * stride)
        origin = self.serve(os.path.dirname(truth))
        instance = self.holdfast()
        path = instance.mount_file(origin.url(os.path.basename(truth)), NO_READ_AHEAD)
        pread(path, 0, 4096)
        wait_until(lambda: instance.pending() == 0, 10, "nothing pending")
        instance.hold_supervisor()
        instance.kill_fetcher()
        before = instance.rss_bytes()
        reads = self.box.start([helper("waiting_reads"), path, truth, str(WAITING), str(stride)],
                               stdout=subprocess.PIPE, text=True)
        self.assertEqual(reads.stdout.readline(), "started\n")
        wait_until(lambda: instance.waiting() > 0.98 * WAITING, 60, f"{WAITING} reads waiting")
        waiting = instance.waiting()
        each = (instance.rss_bytes() - before) / waiting
        print(f"{waiting} reads waiting, {each:.0f} bytes of RSS each", flush=True)
        self.assertLess(each, 10e3)
        instance.release_supervisor()
        self.assertEqual(reads.stdout.readline().split(), [str(WAITING), "0", "0"])
        self.assertEqual(reads.wait(60), 0)
        wait_until(lambda: instance.waiting() == 0, 10, "nothing waiting")

    def test_a_thousand_objects_are_open_at_once(self):
        root = self.box.make_directory("many")
        for i in range(OBJECTS):
            with open(os.path.join(root, f"{i:04}"), "w") as f:
                f.write(f"object {i}\n" * (i + 1))
        origin = self.serve(root)
        instance = self.holdfast()
        instance.mount_file(origin.url("0000"))  # Starts what must run.
        with open(instance.state_path("sources", "many.json"), "w") as f:
            json.dump({"version": 1, "origins": [origin.url()]}, f)
        opened = []
        for i in range(OBJECTS):
            answer = instance.control({"op": "acquire", "volume": "many", "object": f"{i:04}"})
            self.assertTrue(answer["ok"], answer)
            opened.append(os.open(instance.run_path("fuse", "many", f"{i:04}"), os.O_RDONLY))
        try:
            for i, fd in enumerate(opened):
                self.assertEqual(os.read(fd, 1 << 16), (f"object {i}\n" * (i + 1)).encode()[:1 << 16])
            self.assertGreaterEqual(instance.status()["object_count"], OBJECTS)
            print(f"RSS with {OBJECTS} objects open: {instance.rss_bytes() / 1e6:.1f} MB", flush=True)
        finally:
            for fd in opened:
                os.close(fd)


if __name__ == "__main__":
    main(tools=("mkfs.erofs",))
