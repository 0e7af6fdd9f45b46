"""`--cache-max` and `--cache-min-free`: the cache has a size, and what is culled is fetched again."""

import os
import random
import signal

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.disk import Disk
from harness.readers import RIGHT, WRONG_BYTES, Child, pread_all
from harness.sandbox import wait_gone, wait_until

MB = 1 << 20
SIZE = 16 * MB
COUNT = 10
MAX = 64 * MB


def is_right(path, truth, at, length):
    """Of what the cache has, not the kernel's page cache."""
    with open(path, "rb", buffering=0) as f, open(truth, "rb", buffering=0) as right:
        os.posix_fadvise(f.fileno(), at, length, os.POSIX_FADV_DONTNEED)
        return pread_all(f.fileno(), at, length) == pread_all(right.fileno(), at, length)


class CacheLimitTest(Case):
    def setUp(self):
        super().setUp()
        self.root = self.box.make_directory("root")
        for number in range(COUNT):
            images.write_random(self.truth(number), SIZE, 300 + number)
        self.origin = self.serve(self.root)
        self.instance = self.holdfast()

    def truth(self, number):
        return os.path.join(self.root, f"image{number}")

    def mount(self, number, *flags):
        return self.instance.mount_file(self.origin.url(f"image{number}"), *flags)

    def data_directory(self):
        return self.instance.state_path("cache", "data")

    def allocated(self):
        total = 0
        for where, _, names in os.walk(self.data_directory()):
            for name in names:
                total += os.stat(os.path.join(where, name)).st_blocks * 512
        return total

    def assert_right(self, path, number):
        self.assertTrue(is_right(path, self.truth(number), 0, SIZE), path)

    def wait_kept(self):
        """How far the cache is above its limit meanwhile depends on what else the machine does."""
        wait_until(lambda: self.allocated() <= MAX, 30, "the limit is kept")

    def bytes_culled(self):
        return self.instance.status()["counters"]["bytes_culled"]

    def test_images_that_are_larger_than_the_cache_together(self):
        paths = [self.mount(number, f"--cache-max={MAX}") for number in range(COUNT)]
        for _ in range(2):
            for number, path in enumerate(paths):
                self.assert_right(path, number)
                self.wait_kept()
        self.assertGreater(self.bytes_culled(), COUNT * SIZE)

    def test_what_was_used_last_stays(self):
        paths = [self.mount(number, f"--cache-max={MAX}") for number in range(COUNT)]
        for number in range(3):
            self.assert_right(paths[number], number)
        for number in range(3, COUNT):
            self.assert_right(paths[0], 0)
            self.assert_right(paths[number], number)
            self.wait_kept()
        before = self.instance.status()["counters"]["bytes_filled"]
        self.assert_right(paths[0], 0)
        self.assertLess(self.instance.status()["counters"]["bytes_filled"] - before, SIZE // 2)

    def test_what_no_mount_shows_goes_first(self):
        kept = self.mount(0, f"--cache-max={MAX}")
        self.assert_right(kept, 0)
        for number in range(1, COUNT):
            path = self.mount(number)
            self.assert_right(path, number)
            self.instance.umount(os.path.dirname(path))
        self.wait_kept()
        before = self.instance.status()["counters"]["bytes_filled"]
        self.assert_right(kept, 0)
        self.assertEqual(self.instance.status()["counters"]["bytes_filled"], before)

    def test_a_file_of_no_object_does_not_stop_it(self):
        paths = [self.mount(0, f"--cache-max={MAX}")]
        stray = os.path.join(self.data_directory(), "7f", "383.data")
        os.makedirs(os.path.dirname(stray), exist_ok=True)
        images.write_random(stray, SIZE // 2, 7)
        os.utime(stray, (0, 0))  # It is the first to go.
        paths += [self.mount(number) for number in range(1, COUNT)]
        for number, path in enumerate(paths):
            self.assert_right(path, number)
        self.wait_kept()

    def test_readers_and_deaths_while_it_culls(self):
        """Eight readers of all images, at random; both processes are killed again and again."""
        paths = [self.mount(number, f"--cache-max={MAX}") for number in range(COUNT)]

        def read(seed):
            rng = random.Random(seed)
            for _ in range(60):
                number, at = rng.randrange(COUNT), rng.randrange(SIZE // MB) * MB
                if not is_right(paths[number], self.truth(number), at, MB):
                    return WRONG_BYTES
            return RIGHT
        readers = [self.keep(Child(f"reader {seed}", lambda seed=seed: read(seed))) for seed in range(8)]

        def is_done():
            return all(reader.wait(0) for reader in readers)

        def culls():
            try:
                return self.bytes_culled() > 0  # Of this life.
            except (OSError, ValueError):
                return False  # Between two.
        while not is_done():
            wait_until(lambda: culls() or is_done(), 60, "it culls")
            daemon = self.instance.daemon_pid()
            os.kill(daemon, signal.SIGKILL)
            self.assertTrue(wait_gone(daemon, 20))
            wait_until(lambda: culls() or is_done(), 60, "it culls")
            self.wait_served()  # Readers that are done do not wait for the next daemon.
            self.instance.kill_fetcher()
            self.wait_served()
        for reader in readers:
            self.assertEqual(reader.result, RIGHT, reader.what)
        for number, path in enumerate(paths):
            self.assert_right(path, number)

    def test_the_daemon_dies_at_each_step_of_a_cull(self):
        fault = os.path.join(self.box.path("fault"))
        paths = [self.mount(number, f"--cache-max={MAX}", f"--daemon-flag=--fault-file={fault}") for number in range(COUNT)]
        for point in ("cull.recorded", "cull.punched", "store.before_removal"):
            with self.subTest(point=point):
                with open(fault, "w") as f:
                    f.write(point + " 1 exit\n")
                deaths = self.deaths()
                os.kill(self.instance.daemon_pid(), signal.SIGKILL)
                # The next daemon takes it; it may cull, and die of it, before anything is read.
                wait_until(lambda: not os.path.exists(fault), 30, "the fault point is armed")
                self.assert_all_right(paths)
                wait_until(lambda: self.deaths() >= deaths + 2, 30, "a death at " + point)
                self.wait_served()
                self.assert_all_right(paths)

    def assert_all_right(self, paths):
        for number, path in enumerate(paths):
            self.assert_right(path, number)

    def wait_served(self):
        """Between two daemons there is no control socket and no pid file."""
        def is_served():
            try:
                return self.instance.attached_pid() is not None
            except (OSError, ValueError):
                return False
        wait_until(is_served, 30, "a daemon with a fetcher")

    def deaths(self):
        """Of the daemon, as its supervisor counts them."""
        return self.instance.service("holdfastd")["restarts"]

    def test_room_is_left_for_others(self):
        disk = Disk(self.box, "d", 160 * MB)
        cache = os.path.join(disk.path, "cache")
        paths = [self.mount(number, "--cache-min-free=64M", "--cache-dir", cache) for number in range(COUNT)]
        for number, path in enumerate(paths):
            self.assert_right(path, number)

        def free():
            info = os.statvfs(disk.path)
            return info.f_bavail * info.f_frsize
        wait_until(lambda: free() >= 64 * MB, 30, "the room is free")

    def test_values_that_are_no_limit(self):
        for flag in ("--cache-max", "--cache-min-free"):
            for value in ("much", "0%", "101%", "-1"):
                done = self.instance.try_mount(self.origin.url("image0"), self.box.make_directory("m"), f"{flag}={value}")
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(flag, done.stderr)


if __name__ == "__main__":
    main()
