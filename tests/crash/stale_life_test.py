"""What a life that was SIGKILLed as a whole has left behind is taken away by the next start; the cache is kept."""

import errno
import os
import signal

import _path  # noqa: F401
from harness.case import Case, main
from harness.holdfast import NO_READ_AHEAD
from harness.readers import Reader, drop_page_cache, pread, wait_all
from harness.sandbox import mounts_below, wait_gone, wait_until

FILES = 8
FILE_SIZE = 4 << 20


class StaleLifeTest(Case):
    def setUp(self):
        super().setUp()
        self.serve_random_image(FILES, FILE_SIZE, seed=7)
        self.point = self.instance.mount(self.url, "--as=erofs", NO_READ_AHEAD)
        self.assert_right(self.point, "000")
        wait_until(lambda: self.instance.pending() == 0, 20, "nothing being fetched")

    def assert_right(self, point, name):
        self.assert_reads_right(os.path.join(point, name), os.path.join(self.tree, name))

    def kill(self, *services):
        self.instance.kill_supervisor()
        for pid in [self.instance.pid_of(service) for service in services]:
            os.kill(pid, signal.SIGKILL)
            self.assertTrue(wait_gone(pid, 5))

    def assert_served_from_the_cache(self, point):
        """What was read before is not fetched again; the rest is brought."""
        drop_page_cache()
        self.assert_right(point, "000")
        self.assertEqual(self.origin.served().twice_bytes, 0, "what was in the cache was fetched again")
        self.assert_right(point, f"{FILES - 1:03}")

    def fuse_mounts(self):
        with open("/proc/self/mountinfo") as f:
            return sum(self.instance.run_path("fuse") == line.split()[4] for line in f)

    def test_the_same_image_is_mounted_on_the_same_point_over_a_dead_mount(self):
        os.chdir(self.point)  # A user that never left.
        self.addCleanup(os.chdir, "/")
        self.origin.restart(delay_ms=600_000)
        readers = [self.keep(Reader(os.path.join(self.point, f"{i:03}"), 3 << 20, 4096)) for i in (3, 5)]
        wait_until(lambda: self.instance.waiting() >= 2, 20, "two reads waiting")
        self.kill("holdfastd", "fetcherd")
        self.assertEqual([r.what for r in wait_all(readers, 10)], [])
        self.assertEqual({r.result for r in readers}, {errno.EIO})
        self.assertEqual(self.fuse_mounts(), 1)
        self.origin.restart()
        done = self.instance.try_mount(self.url, self.point, "--as=erofs", NO_READ_AHEAD)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"{self.point} had lost its daemons and is no longer mounted", done.stderr)
        self.assertEqual(self.fuse_mounts(), 1)
        self.assert_served_from_the_cache(self.point)
        self.instance.umount(self.point)
        self.assertEqual(mounts_below(self.box.directory), [])

    def test_a_file_mount_that_is_dead_does_not_stand_in_the_way(self):
        path = self.instance.mount_file(self.url)
        point = os.path.dirname(path)
        self.kill("holdfastd", "fetcherd")
        with self.assertRaises(OSError):
            pread(path, 20 << 20, 4096)
        self.instance.mount(self.url, "--as=file", mount_point=point)
        self.assertEqual(pread(path, 0, 65536), pread(self.image, 0, 65536))
        self.assertEqual(mounts_below(self.box.directory).count(point), 1)
        self.assertNotIn(self.point, mounts_below(self.box.directory))

    def test_a_mount_elsewhere_takes_the_dead_one_away_too(self):
        self.kill("holdfastd", "fetcherd")
        other = self.instance.mount(self.url, "--as=erofs", NO_READ_AHEAD)
        self.assertNotIn(self.point, mounts_below(self.box.directory))
        self.assert_served_from_the_cache(other)

    def test_umount_and_stop_work_on_what_is_dead(self):
        self.kill("holdfastd", "fetcherd")
        self.instance.umount(self.point)
        self.instance.stop()
        self.assertEqual(mounts_below(self.box.directory), [])
        self.assertFalse(os.path.exists(self.instance.run_path()))

    def test_status_says_that_nothing_serves_a_dead_mount(self):
        self.kill("holdfastd", "fetcherd")
        done = self.instance.run("status", "--root", self.instance.root)
        self.assertEqual(done.returncode, 0)
        cure = f"holdfast umount --root {self.instance.root} --force {self.point}"
        self.assertIn(f"[dead: nothing serves it; {cure}]", done.stdout)

    def test_stale_pid_files_spare_the_stranger_that_has_the_pid_now(self):
        self.kill("holdfastd", "fetcherd")
        stranger = self.box.start(["sleep", "600"])
        for service in ("holdfastd", "fetcherd", "supervise"):
            with open(self.instance.run_path(service + ".pid"), "w") as f:
                f.write(f"{stranger.pid}\n")
        self.instance.mount(self.url, "--as=erofs", NO_READ_AHEAD, mount_point=self.point)
        self.assert_served_from_the_cache(self.point)
        self.assertIsNone(stranger.poll(), "a stranger was ended")
        stranger.kill()

    def test_a_supervisor_that_is_told_to_stop_says_what_happens_to_its_mounts(self):
        os.kill(self.instance.supervisor_pid(), signal.SIGINT)
        wait_until(lambda: not self.answers(), 20, "the daemon's end")
        self.assertIn(f"signal 2 (Interrupt) ends the daemons of instance {self.instance.name}", self.instance.log_text("supervise"))
        self.assertRegex(self.instance.log_text("supervise"), f"holdfast umount .*--force MOUNTPOINT: {self.point}\n")

    def answers(self):
        try:
            return self.instance.control({"op": "ping"})["ok"]
        except OSError:
            return False


if __name__ == "__main__":
    main(tools=("mkfs.erofs",))
