"""30 s without a fetcher: 64 readers wait, each of them can be killed, and the rest finish when one is back."""

import os
import time
import unittest

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.holdfast import NO_READ_AHEAD
from harness.readers import RIGHT, Reader, wait_all
from harness.sandbox import wait_until

READERS = 64
DEAD_S = 30
GONE_S = 2  # 0.01 s on a machine that does nothing else.
LENGTH = 4096


class FetcherDeadForLongTest(Case):
    def test_readers_of_the_fuse_file_wait_can_be_killed_and_finish(self):
        served = images.random_file(READERS << 20)
        holdfast, path = self.mount(served, lambda h, url: h.mount_file(url, NO_READ_AHEAD))
        self.outlast(holdfast, [(path, served, (i << 20) + (512 << 10)) for i in range(READERS)])

    def test_readers_of_the_erofs_mount_wait_can_be_killed_and_finish(self):
        image, tree = images.random_image(READERS, 2 << 20)
        holdfast, point = self.mount(image, lambda h, url: h.mount(url, "--as=erofs", NO_READ_AHEAD))
        names = sorted(os.listdir(point))
        for name in names:
            os.stat(os.path.join(point, name))  # The metadata; what is to be missing is the data.
        wait_until(lambda: holdfast.pending() == 0, 10, "read-ahead done")
        self.outlast(holdfast, [(os.path.join(point, n), os.path.join(tree, n), 1 << 20) for n in names])

    def test_a_mount_that_waits_can_be_killed(self):
        served = images.random_file(1 << 20)
        holdfast, path = self.mount(served, lambda h, url: h.mount_file(url, NO_READ_AHEAD))
        other = images.random_file(1 << 20, seed=7)
        url = self.serve(os.path.dirname(other)).url(os.path.basename(other))
        holdfast.hold_supervisor()
        self.assertIsNotNone(holdfast.kill_fetcher())
        mounting = self.box.start(holdfast.command_line(*holdfast.mount_arguments(
            url, self.box.make_directory("other"), "--as=file", "--timeout=300s")))
        opening = lambda: [r for r in holdfast.status()["requests"]["list"] if r["op"] == "OPEN"]
        wait_until(opening, 10, "the mount waits")
        self.assertIsNone(mounting.poll())
        began = time.monotonic()
        mounting.kill()
        mounting.wait(10)
        self.assertLess(time.monotonic() - began, GONE_S)
        holdfast.release_supervisor()

    def mount(self, served, mount):
        origin = self.serve(os.path.dirname(served))
        holdfast = self.holdfast()
        return holdfast, mount(holdfast, origin.url(os.path.basename(served)))

    def outlast(self, holdfast, places):
        daemon = holdfast.daemon_pid()
        holdfast.hold_supervisor()
        died = time.monotonic()
        self.assertIsNotNone(holdfast.kill_fetcher())
        readers = []
        for path, truth, offset in places:
            with open(truth, "rb") as f:
                f.seek(offset)
                readers.append(self.keep(Reader(path, offset, LENGTH, f.read(LENGTH))))
        wait_until(lambda: holdfast.waiting() >= READERS, 20, f"{READERS} reads waiting")
        self.assertIsNone(holdfast.attached_pid())

        time.sleep(max(0, died + DEAD_S - time.monotonic()))  # The scenario, not a wait for something.
        self.assertEqual([r.what for r in readers if r.wait(0)], [], "readers that did not wait")
        taken = [reader.kill() for reader in readers[::2]]
        print(f"gone after SIGKILL: median {sorted(taken)[len(taken) // 2] * 1000:.1f} ms, "
              f"longest {max(taken) * 1000:.1f} ms", flush=True)
        self.assertLess(max(taken), GONE_S)
        self.assertEqual([r.what for r in readers[1::2] if r.wait(0)], [], "readers that did not wait")

        holdfast.release_supervisor()
        holdfast.wait_fetcher()
        self.assertEqual([r.what for r in wait_all(readers[1::2], 20)], [], "readers still waiting")
        self.assertEqual({r.result for r in readers[1::2]}, {RIGHT})
        wait_until(lambda: holdfast.waiting() == 0, 10, "nothing waiting")
        holdfast.assert_daemon_is(daemon)


if __name__ == "__main__":
    main(tools=("mkfs.erofs",))
