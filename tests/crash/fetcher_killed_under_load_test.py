"""200 SIGKILLs of the fetcher under 16 verifying readers: no error, no wrong byte, nothing left waiting."""

import os
import random
import threading
import unittest

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.fio import complaints, start_verifying
from harness.killer import kill_while
from harness.sandbox import wait_until

KILLS = 200
SIZE = 128 << 20
JOBS = 16


class FetcherKilledUnderLoadTest(Case):
    def test_every_block_of_the_fuse_file_is_right(self):
        self.run_rounds(images.fio_file(SIZE), lambda holdfast, url: holdfast.mount_file(url, "--fetch-size=4096"))

    def test_every_block_of_a_file_in_the_erofs_mount_is_right(self):
        self.run_rounds(images.fio_image(SIZE), lambda holdfast, url: os.path.join(
            holdfast.mount(url, "--as=erofs", "--fetch-size=4096"), "data"))

    def run_rounds(self, served, mount):
        """Rounds, each with an empty cache, until there were enough kills; a round ends when all is read."""
        seed = int(os.environ.get("HOLDFAST_TEST_SEED") or random.SystemRandom().randrange(1 << 31))
        print(f"HOLDFAST_TEST_SEED={seed}", flush=True)
        origin = self.serve(os.path.dirname(served), delay_ms=5)
        kills, rounds = [], 0
        while len(kills) < KILLS:
            rounds += 1
            self.assertLess(rounds, 8, f"too few kills ({len(kills)}) while data was being fetched")
            holdfast = self.holdfast(f"r{rounds}")
            path = mount(holdfast, origin.url(os.path.basename(served)))
            kills += self.verify_under_kills(holdfast, path, KILLS - len(kills), seed + rounds)
            holdfast.umount(os.path.dirname(path))
            holdfast.stop()
        in_the_middle = sum(kill.waiting > 0 for kill in kills)
        print(f"{len(kills)} kills, {rounds} caches filled, {in_the_middle} with reads waiting", flush=True)
        self.assertGreater(in_the_middle, 0.8 * KILLS, "the kills missed the reads")

    def verify_under_kills(self, holdfast, path, most, seed):
        fio = start_verifying(self.box, path, SIZE, JOBS, seed)
        output = []
        drain = threading.Thread(target=lambda: output.append(fio.stdout.read()), daemon=True)
        drain.start()
        kills = kill_while(holdfast, lambda: fio.poll() is None, most, seed)
        fio.wait(300)
        drain.join(10)
        self.assertEqual(complaints(fio, output[0]), [])
        wait_until(lambda: holdfast.pending() == 0, 20, "nothing waiting")
        return kills


if __name__ == "__main__":
    main(tools=("fio", "mkfs.erofs"))
