"""The power goes while a cache is filled: what is claimed present afterwards is right, and what is lost is bounded.

The cache is on ext4 in a loop file.  At a random moment FS_IOC_SHUTDOWN (NOLOGFLUSH) drops everything that was not
synced, the processes are ended, the disk is mounted again, and the daemon starts as on a new boot.

  --cases N      cuts of the first test; those of each other one are a third of it
  --seed S       that of an earlier run
  --daemon P     another program than holdfastd
  --must-find    the first test passes if it finds wrong bytes, and fails if it does not
"""

import argparse
import os
import random
import shutil
import sys
import time

import _path  # noqa: F401
from harness import disk, images
from harness.case import Case, main
from harness.machine import Machine, Workload, read_ranges
from harness.readers import RIGHT, WRONG_BYTES, Child
from harness.sandbox import wait_until

MB = 1 << 20
TRUTHS = {"big": 80 * MB, "mid": 11 * MB + 123, "odd": 3 * MB + 4097}
CUTS_PER_DISK = 5
CULLED_TO = 32 * MB
TICK_S = 0.05   # How often the daemon looks whether it is time to sync.
SLACK_S = 0.25  # For processes that wait for a processor.
OPTIONS = None  # Of the command line.


class Progress:
    """What was filled when, over the lives of one boot."""

    def __init__(self):
        self._samples = []  # (time, bytes filled in this boot)
        self._before = self._synced_before = 0
        self.filled = self.synced = 0
        self.sync_s = 0

    def take(self, counters):
        self.filled = self._before + counters["bytes_filled"]
        # What was filled twice may have been synced twice.
        self.synced = self._synced_before + counters["bytes_synced"] - counters["bytes_filled_twice"]
        self.sync_s = max(self.sync_s, counters["sync_ms_max"] / 1000)
        self._samples.append((time.monotonic(), self.filled))

    def next_life(self):
        """What the dead daemon had not synced is as good as filled now: the next one begins to count now."""
        self._before, self._synced_before = self.filled, self.synced
        self._samples = [(time.monotonic(), self.filled)]

    def filled_before_end(self, seconds):
        """How much had been filled so long before the cut."""
        moment = self._samples[-1][0] - seconds
        return max([filled for when, filled in self._samples if when <= moment], default=0)

    def age_of(self, amount):
        """How long before the last sample more than `amount` was first seen."""
        return max([self._samples[-1][0] - when for when, filled in self._samples if filled > amount], default=0)


class PowerCutTest(Case):
    def setUp(self):
        super().setUp()
        self.rng = random.Random(OPTIONS.seed)
        print(f"\n--seed={OPTIONS.seed} --cases={OPTIONS.cases}", flush=True)
        self.root = self.box.make_directory("root")
        self.origin = self.serve(self.root, limit_rate="12m")  # A connection.
        self.truth = {}
        for i, (name, size) in enumerate(TRUTHS.items()):  # Beside the root, so that links can be made.
            self.truth[name] = self.box.path(name)
            images.write_random(self.truth[name], size, 70 + i)
        self.machines = 0

    def machine(self, *flags, size=900 * MB):
        self.machines += 1
        sources = {"h": self.origin.url(), "f": f"file://{self.root}/"}
        return Machine(self.box, f"d{self.machines}", size, sources, OPTIONS.daemon, flags)

    def offer(self, kind, number):
        """(volume, cookie) of a new object."""
        cookie = f"{number:04}-{kind}"
        origin = self.rng.choice("hhhhhhf")
        # A link changes the inode's ctime, which is part of a local file's identity.
        (shutil.copyfile if origin == "f" else os.link)(self.truth[kind], os.path.join(self.root, cookie))
        return origin, cookie

    def truth_of(self, name):
        return self.truth[name[1].split("-")[1]]

    def fill_until_cut(self, machine, objects, seconds, kill_daemon):
        """Readers at work for so long, and then no power.  Returns the Progress up to then."""
        progress = Progress()
        for life in range(2 if kill_daemon else 1):
            if life > 0:
                machine.kill(machine.daemon)
                workload.stop()
                self.assertTrue(machine.start_daemon(), machine.last_words())
                progress.next_life()
            paths = [(machine.acquire(*name), self.truth_of(name)) for name in objects]
            workload = Workload(paths, self.rng.randrange(1 << 30))
            end = time.monotonic() + seconds / (life + 1)
            while time.monotonic() < end:
                progress.take(machine.counters())
                time.sleep(0.01)
        self.cut(machine, workload)
        return progress

    def cut(self, machine, workload):
        if self.rng.random() < 0.7:  # The worst moment: something is on its way to the disk.
            machine.disk.wait_writing(0.5)
        machine.disk.cut()
        machine.kill(machine.daemon, machine.fetcher)
        right = workload.stop()
        machine.power_off()
        self.assertTrue(right, "a reader met wrong bytes before the cut")

    def assert_reads_right_as_on_a_new_boot(self, machine, claimed):
        """Every durable range, through a mount, with no fetcher to ask."""
        ranges = [(machine.acquire(*name), self.truth_of(name), begin, end)
                  for name, spans in claimed.items() for begin, end in spans]
        reader = self.keep(Child("the durable ranges", lambda: read_ranges(ranges)))
        self.assertTrue(reader.wait(60), "a read of durable bytes waits")
        self.assertEqual(reader.result, RIGHT, "durable bytes read through the mount")

    def test_what_is_present_after_a_cut_is_right_and_what_is_lost_was_not_synced(self):
        totals = {"filled": 0, "lost": 0, "bounded": 0, "killed": 0}
        losses, ages, machine, wrong_in_case = [], [], None, None
        sync_s = 0
        for case in range(OPTIONS.cases):
            if case % CUTS_PER_DISK == 0:
                self.retire(machine)
                by_bytes = self.rng.random() < 0.2
                interval, limit = (5.0, 8 * MB) if by_bytes else (self.rng.choice((0.05, 0.1, 0.2)), 1 << 40)
                machine = self.machine(f"--sync-interval={int(interval * 1000)}ms", f"--sync-bytes={limit}")
                objects, durable = [], 0
            machine.power_on()
            self.assertTrue(machine.start_daemon(), machine.last_words())
            if objects:
                self.assert_reads_right_as_on_a_new_boot(machine, claimed)
            machine.start_fetcher()
            objects += [self.offer(kind, case) for kind in TRUTHS]
            killed = self.rng.random() < 0.25
            seconds = self.rng.choice((self.rng.uniform(0.1, 0.8), self.rng.uniform(0.8, 2.2)))
            progress = self.fill_until_cut(machine, objects[-6:], seconds, killed)
            sync_s = max(sync_s, progress.sync_s)

            claimed = machine.known()
            found = machine.verify({name: self.truth_of(name) for name in claimed})
            wrong = [fault for fault in found["faults"] if "present bytes differ" in fault["what"]]
            if OPTIONS.must_find and wrong:
                wrong_in_case = case + 1
                break
            self.assertEqual(found["faults"], [], f"case {case + 1}")
            self.assertEqual(found["compared_bytes"], found["durable_bytes"])
            kept = found["durable_bytes"] - durable
            durable = found["durable_bytes"]

            lost = progress.filled - kept
            totals["filled"] += progress.filled
            totals["lost"] += max(lost, 0)
            totals["killed"] += killed
            losses.append(max(lost, 0))
            ages.append(progress.age_of(kept))
            self.assertGreaterEqual(kept, progress.synced, f"case {case + 1}: the daemon had called more durable")
            # One sync may be on its way, and what came after it began waits for the next.
            grace = TICK_S + SLACK_S + 2 * sync_s
            bound = max(progress.filled_before_end(grace + interval), progress.filled_before_end(grace) - limit)
            totals["bounded"] += bound > 0
            if not OPTIONS.must_find:  # A bound by the clock; a broken order is found by wrong bytes.
                self.assertGreaterEqual(kept, bound, f"case {case + 1}: more is lost than the sync flags allow")
        self.retire(machine)
        if OPTIONS.must_find:
            self.assertIsNotNone(wrong_in_case, f"no wrong bytes in {OPTIONS.cases} cases")
            print(f"wrong bytes in case {wrong_in_case}: {wrong[0]['subject']}: {wrong[0]['what']}")
            return
        losses.sort()
        ages.sort()
        print(f"{OPTIONS.cases} cuts, {totals['killed']} of them after holdfastd had been killed: "
              f"{totals['filled'] / MB:.0f} MB filled, {totals['lost'] / MB:.0f} MB lost; "
              f"a cut: median {losses[len(losses) // 2] / MB:.1f}, at most {losses[-1] / MB:.1f} MB; "
              f"age of the oldest lost byte: median {ages[len(ages) // 2]:.2f}, at most {ages[-1]:.2f} s; "
              f"longest sync {sync_s:.2f} s; {totals['bounded']} cuts after which some had to be there; no wrong byte")

    def test_a_cut_while_it_culls_leaves_no_presence_of_what_is_gone(self):
        """Presence goes before the bytes do, durably where it was durable."""
        if OPTIONS.must_find:
            self.skipTest("it is the first test that must find something")
        machine, cases, culled = None, max(4, OPTIONS.cases // 3), 0
        for case in range(cases):
            if case % CUTS_PER_DISK == 0:
                self.retire(machine)
                machine, objects = self.machine("--sync-interval=50ms", f"--cache-max={CULLED_TO}"), []
            machine.power_on()
            self.assertTrue(machine.start_daemon(), machine.last_words())
            machine.start_fetcher()
            objects += [self.offer(kind, 5000 + case) for kind in TRUTHS]
            # Those of the life before, too: what was culled of them is fetched again.
            paths = [(machine.acquire(*name), self.truth_of(name)) for name in objects[-6:]]
            workload = Workload(paths, self.rng.randrange(1 << 30))
            wanted = self.rng.uniform(0, 32 * MB)
            wait_until(lambda: machine.counters()["bytes_culled"] > wanted, 60, "it culls")
            culled += machine.counters()["bytes_culled"]
            self.cut(machine, workload)
            claimed = machine.known()
            found = machine.verify({name: self.truth_of(name) for name in claimed})
            self.assertEqual(found["faults"], [], f"case {case + 1}")
            self.assertEqual(found["compared_bytes"], found["durable_bytes"])
        self.retire(machine)
        print(f"{cases} cuts while {culled / MB:.0f} MB were culled; no wrong byte")

    def test_a_cut_while_the_cache_is_made_leaves_one_that_starts_or_says_what_to_do(self):
        if OPTIONS.must_find:
            self.skipTest("it is the first test that must find something")
        refused = 0
        for case in range(max(4, OPTIONS.cases // 3)):
            machine = self.machine("--sync-interval=100ms", size=100 * MB)
            name = self.offer("odd", case)
            machine.power_on()
            if case % 2 == 0:  # While the database is made.
                machine.spawn_daemon()
                time.sleep(self.rng.uniform(0, 0.3))
            else:  # During the first look-up and the first reads.
                self.assertTrue(machine.start_daemon(), machine.last_words())
                machine.start_fetcher()
                child = self.keep(Child("first look-up", lambda: Workload.once(machine, name, self.truth_of(name))))
                time.sleep(self.rng.uniform(0, 0.3))
            machine.disk.cut()
            machine.power_off()
            if case % 2 == 1:
                child.close()
                self.assertNotEqual(child.result, WRONG_BYTES)
            refused += self.assert_starts_or_says_what_to_do(machine)
            machine.start_fetcher()
            self.assertEqual(Workload.once(machine, name, self.truth_of(name)), RIGHT)
            self.retire(machine)
        print(f"{case + 1} cuts while the cache was made; holdfastd refused {refused} of the caches")

    def assert_starts_or_says_what_to_do(self, machine):
        """1 if what it said had to be done."""
        machine.power_on()
        if os.path.exists(os.path.join(machine.cache, "db", "CURRENT")):
            self.assertEqual(machine.verify({})["faults"], [])
        if machine.start_daemon():
            return 0
        self.assertRegex(machine.last_words(), f"{machine.cache}.*remove the cache directory to start empty")
        shutil.rmtree(machine.cache)
        self.assertTrue(machine.start_daemon(), machine.last_words())
        return 1

    def retire(self, machine):
        if machine is not None:
            machine.kill(machine.daemon, machine.fetcher)
            machine.disk.unmount()
            os.unlink(machine.disk.image)
            for name in os.listdir(self.root):
                os.unlink(os.path.join(self.root, name))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=30)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--daemon", default="holdfastd")
    parser.add_argument("--must-find", action="store_true")
    OPTIONS, rest = parser.parse_known_args()
    sys.argv = sys.argv[:1] + rest
    main(tools=("mkfs.ext4",), reasons=[disk.unmet()])
