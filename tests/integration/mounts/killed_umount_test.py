"""SIGKILL of `holdfast umount` and `stop` at any moment: the next command finishes the job, and other mounts go on."""

import os
import random
import signal
import subprocess
import sys
import time

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.sandbox import mounts_below

ROUNDS = 15
# Afterwards no further round begins.
LONGEST_S = 100


class KilledUmountTest(Case):
    def setUp(self):
        super().setUp()
        self.image, self.tree = images.random_image(2, 1 << 20, seed=5)
        self.truth = images.random_file(1 << 20, seed=6)
        self.image_url, self.file_url = "file://" + self.image, "file://" + self.truth
        self.instance = self.holdfast()
        self.other = self.holdfast("other")
        self.untouched = self.other.mount_file(self.file_url)
        seed = random.randrange(1 << 32)
        print(f"seed {seed}", file=sys.stderr)
        self.random = random.Random(seed)

    def rounds(self):
        begin = time.monotonic()
        for i in range(ROUNDS):
            if time.monotonic() - begin > LONGEST_S:
                self.assertGreater(i, 3, "too slow a machine for this test")
                return
            yield i

    def run_and_kill(self, longest_s, *arguments):
        """Begins the command, kills it at a random moment, and returns whether it had ended by itself."""
        command = self.box.start(self.instance.command_line(*arguments))
        try:
            command.wait(self.random.uniform(0, longest_s))
            return True
        except subprocess.TimeoutExpired:
            pass
        command.send_signal(signal.SIGKILL)
        command.wait(10)
        return False

    def seconds_of(self, *arguments):
        begin = time.monotonic()
        done = self.instance.run(*arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return time.monotonic() - begin

    def assert_nothing_is_left(self, point):
        self.assertFalse(os.path.exists(self.instance.run_path()), "the run directory")
        self.assertEqual(self.processes(), [])
        self.assertFalse(os.path.ismount(point))
        here = [mount for mount in mounts_below(self.box.directory) if "h-other" not in mount]
        self.assertEqual(here, [os.path.dirname(self.untouched)])
        self.assert_reads_right(self.untouched, self.truth, 0, 4096)

    def processes(self):
        found = []
        for pid, program in self.instance.processes():
            with open(f"/proc/{pid}/cmdline") as f:
                if self.instance.run_path() in f.read().replace("\0", " "):
                    found.append((pid, program))
        return found

    def stop_arguments(self):
        return ["stop", *self.instance.root_flags(), "--instance", self.instance.name]

    def umount_arguments(self, point):
        return ["umount", *self.instance.root_flags(), point]

    def test_the_next_umount_or_stop_finishes_what_a_killed_umount_began(self):
        point = self.instance.mount(self.image_url)
        longest_s = 1.1 * self.seconds_of(*self.umount_arguments(point))
        counts = {"ended": 0, "umount": 0, "stop": 0}
        for _ in self.rounds():
            self.instance.mount(self.image_url, mount_point=point)
            if self.run_and_kill(longest_s, *self.umount_arguments(point)):
                counts["ended"] += 1
            else:
                again = self.instance.run(*self.umount_arguments(point))
                if again.returncode == 0:
                    counts["umount"] += 1
                else:  # The killed one had come that far.
                    self.assertIn("is not mounted", again.stderr)
                    counts["stop"] += 1
                    self.instance.stop()
            self.assert_nothing_is_left(point)
        print(f"finished by: {counts}", file=sys.stderr)

    def test_one_of_two_mounts_of_an_instance_goes_on(self):
        kept = self.instance.mount(self.image_url)
        point = self.instance.mount(self.file_url, "--as=file")
        longest_s = 1.1 * self.seconds_of(*self.umount_arguments(point))
        for _ in self.rounds():
            self.instance.mount(self.file_url, "--as=file", mount_point=point)
            if not self.run_and_kill(longest_s, *self.umount_arguments(point)):
                again = self.instance.run(*self.umount_arguments(point))
                if again.returncode != 0:
                    self.assertIn("is not mounted", again.stderr)
            self.assertFalse(os.path.ismount(point))
            self.assertEqual(sorted(os.listdir(kept)), sorted(os.listdir(self.tree)))
            self.assertEqual(len(os.listdir(self.instance.run_path("mounts"))), 1)
        self.instance.umount(kept)
        self.assert_nothing_is_left(point)

    def test_the_next_stop_finishes_what_a_killed_stop_began(self):
        point = self.instance.mount(self.image_url)
        self.assertEqual(self.instance.run(*self.umount_arguments(point), "--keep").returncode, 0)
        longest_s = 1.1 * self.seconds_of(*self.stop_arguments())
        for _ in self.rounds():
            self.instance.mount(self.image_url, mount_point=point)
            self.assertEqual(self.instance.run(*self.umount_arguments(point), "--keep").returncode, 0)
            self.run_and_kill(longest_s, *self.stop_arguments())
            self.instance.stop()
            self.assert_nothing_is_left(point)

    def test_a_mount_after_a_killed_umount_or_stop_works(self):
        point = self.instance.mount(self.image_url)
        longest_s = 1.1 * self.seconds_of(*self.umount_arguments(point))
        for i in self.rounds():
            self.instance.mount(self.image_url, mount_point=point)
            if self.run_and_kill(longest_s, *self.umount_arguments(point)):
                continue
            again = self.instance.try_mount(self.image_url, point)
            if again.returncode != 0:
                self.assertIn("already shows", again.stderr)
            self.assertEqual(sorted(os.listdir(point)), sorted(os.listdir(self.tree)))
            self.instance.umount(point)
            self.assert_nothing_is_left(point)


if __name__ == "__main__":
    main(tools=("mkfs.erofs",))
