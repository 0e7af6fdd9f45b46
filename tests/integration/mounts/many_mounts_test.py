"""Many mounts, several at once: none fails, no record is lost, also when daemon and command are killed in between.

HOLDFAST_TEST_MOUNTS=1000 makes as many; by default there are fewer."""

import json
import os
import random
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import _path  # noqa: F401
from harness import images
from harness.case import Case, main

COUNT = int(os.environ.get("HOLDFAST_TEST_MOUNTS", "48"))
AT_ONCE = 16


class ManyMountsTest(Case):
    def setUp(self):
        super().setUp()
        tree = self.box.make_directory("tree")
        images.write_random(os.path.join(tree, "f"), 50_000, 3)
        with open(os.path.join(tree, "f"), "rb") as f:
            self.truth = f.read()
        web = self.box.make_directory("web")
        images.make_erofs(tree, os.path.join(web, "image"))
        self.url = self.serve(web).url("image")
        self.instance = self.holdfast()
        self.points = [self.box.make_directory("points", f"{i:04}") for i in range(COUNT)]

    def all_at_once(self, work):
        """What `work(point)` says of each point, where that is something."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return [said for said in pool.map(work, self.points) if said]

    def mount(self, point):
        done = self.instance.try_mount(self.url, point, "--timeout=120s", timeout=300)
        return done.stderr if done.returncode else None

    def umount(self, point):
        done = self.instance.run("umount", *self.instance.root_flags(), point, timeout=300)
        return done.stderr if done.returncode else None

    def read(self, point):
        with open(os.path.join(point, "f"), "rb") as f:
            return None if f.read() == self.truth else f"{point}: wrong bytes"

    def recorded(self):
        done = self.instance.run("status", *self.instance.root_flags(), "--json")
        mounts = json.loads(done.stdout)["instances"][0]["mounts"]
        return sorted(mount["mount_point"] for mount in mounts if mount["alive"])

    def assert_nothing_left(self):
        self.assertEqual(self.instance.processes(), [])
        run = self.instance.run_path()
        self.assertEqual(os.listdir(run) if os.path.exists(run) else "gone", "gone")

    def test_none_fails_and_no_record_is_lost(self):
        for _ in range(2):
            self.assertEqual(self.all_at_once(self.mount), [])
            self.assertEqual(self.recorded(), self.points)
            self.assertEqual(self.all_at_once(self.read), [])
            self.assertEqual(self.all_at_once(self.umount), [])
            self.assert_nothing_left()

    def try_until_done(self, start, is_done):
        """Starts a command and kills it now and then at a random moment, until one has done its work."""
        while True:
            process = self.box.start(start, stdout=-3, stderr=-3)
            if random.random() < 0.3:
                try:
                    process.wait(random.random() * 0.3)
                except Exception:  # Still running: killed.
                    process.kill()
            process.wait(300)
            if is_done():
                return

    def test_kills_of_daemon_and_command_lose_none(self):
        stopping = threading.Event()

        def kill_daemons():
            while not stopping.wait(1.5):
                try:
                    os.kill(self.instance.daemon_pid(), signal.SIGKILL)
                except (OSError, ValueError, IndexError):
                    pass  # Not started yet, or just dead.
        killer = threading.Thread(target=kill_daemons)
        killer.start()
        try:
            self.all_at_once(lambda point: self.try_until_done(
                self.instance.command_line(*self.instance.mount_arguments(self.url, point, "--timeout=120s")),
                lambda: os.path.ismount(point)))
        finally:
            stopping.set()
            killer.join()
        self.assertEqual(self.recorded(), self.points)
        self.assertEqual(self.all_at_once(self.read), [])
        self.all_at_once(lambda point: self.try_until_done(
            self.instance.command_line("umount", *self.instance.root_flags(), point),
            lambda: not os.path.ismount(point)))
        self.instance.stop()
        # A command that was killed while it ended the instance may leave files, which the next start clears away.
        self.assertEqual(self.instance.processes(), [])
        mounts = self.instance.run_path("mounts")
        self.assertEqual(os.listdir(mounts) if os.path.exists(mounts) else [], [])


if __name__ == "__main__":
    main(tools=("mkfs.erofs",))
