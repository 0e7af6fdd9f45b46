"""Many mounts, several at once: none fails, no record is lost, also when daemon and command are killed in between.

As many as the argument says (--mounts=1000), by default fewer; prints what each step has taken."""

import json
import os
import random
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import _path  # noqa: F401
from harness import images
from harness.case import Case, main

COUNT = next((int(argument.split("=")[1]) for argument in sys.argv if argument.startswith("--mounts=")), 48)
AT_ONCE = 16
# Of one command: sixteen wait for one lock, and the machine may have other work.
PATIENCE_S = 600


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

    def all_at_once(self, what, work):
        """What `work(point)` says of each point, where that is something."""
        begin = time.monotonic()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            said = [words for words in pool.map(work, self.points) if words]
        took = time.monotonic() - begin
        print(f"{COUNT} {what}, {AT_ONCE} at once: {took:.1f} s, {took / COUNT * 1000:.0f} ms each", flush=True)
        return said

    def mount(self, point):
        done = self.instance.try_mount(self.url, point, f"--timeout={PATIENCE_S}s", timeout=2 * PATIENCE_S)
        return done.stderr if done.returncode else None

    def umount(self, point):
        done = self.instance.run("umount", *self.instance.root_flags(), f"--timeout={PATIENCE_S}s", point,
                                 timeout=2 * PATIENCE_S)
        return done.stderr if done.returncode else None

    def read(self, point):
        with open(os.path.join(point, "f"), "rb") as f:
            return None if f.read() == self.truth else f"{point}: wrong bytes"

    def assert_all_recorded(self):
        done = self.instance.run("status", *self.instance.root_flags(), "--json", timeout=PATIENCE_S)
        self.assertEqual(done.returncode, 0, done.stderr)
        mounts = {mount["mount_point"]: mount for mount in json.loads(done.stdout)["instances"][0]["mounts"]}
        lost = [point for point in self.points if not mounts.get(point, {}).get("alive")]
        self.assertEqual([(point, os.path.ismount(point), mounts.get(point, "no record")) for point in lost[:5]], [],
                         f"{len(lost)} of {COUNT}")
        self.assertEqual(sorted(mounts), self.points)

    def assert_nothing_left(self):
        self.assertEqual(self.instance.processes(), [])
        run = self.instance.run_path()
        self.assertEqual(os.listdir(run) if os.path.exists(run) else "gone", "gone")

    def test_none_fails_and_no_record_is_lost(self):
        for _ in range(2):
            self.assertEqual(self.all_at_once("mounts", self.mount), [])
            self.assert_all_recorded()
            self.assertEqual(self.all_at_once("reads", self.read), [])
            self.assertEqual(self.all_at_once("unmounts", self.umount), [])
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
            process.wait(2 * PATIENCE_S)
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
            self.all_at_once("mounts with kills", lambda point: self.try_until_done(
                self.instance.command_line(*self.instance.mount_arguments(self.url, point, f"--timeout={PATIENCE_S}s")),
                lambda: os.path.ismount(point)))
        finally:
            stopping.set()
            killer.join()
        self.assert_all_recorded()
        self.assertEqual(self.all_at_once("reads", self.read), [])
        self.all_at_once("unmounts with kills", lambda point: self.try_until_done(
            self.instance.command_line("umount", *self.instance.root_flags(), f"--timeout={PATIENCE_S}s", point),
            lambda: not os.path.ismount(point)))
        # A command that was killed while it ended the instance may leave something, which the next one clears away.
        self.instance.stop()
        self.assert_nothing_left()
        self.assertEqual([name for name in os.listdir(self.instance.state_path("sources")) if ".new" in name], [])


if __name__ == "__main__":
    sys.argv = [argument for argument in sys.argv if not argument.startswith("--mounts=")]
    main(tools=("mkfs.erofs",))
