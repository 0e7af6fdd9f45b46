"""holdfast-snapshotter is SIGKILLed again and again while containerd uses it and a container runs."""

import _path  # noqa: F401

import os
import random
import threading
import time

from harness.case import Case, main
from harness.container_images import busybox_tree, push_holdfast_image, push_ordinary_image
from harness.containerd import TOOLS, Containerd, Snapshotter, unmet_by_containerd
from harness.origins.oci_registry import Registry
from harness.sandbox import Timeout, mounts_below, wait_until

KILLS = 50
SEED = int(os.environ.get("HOLDFAST_TEST_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
# Reads all it has again and again, writes into its upper layer, and says how often it did.
READER = ("n=0; while test ! -e /out/stop; do sha256sum -c -s /SUMS || { echo wrong > /out/error; exit 1; }; "
          "echo $n > /tmp/x || exit 1; n=$((n+1)); echo $n > /out/passes.new; mv /out/passes.new /out/passes; "
          "done; echo $n > /out/ended")


class Worker(threading.Thread):
    """Does one thing after the other through containerd, each until it succeeds."""

    def __init__(self, steps):
        super().__init__(daemon=True)
        self._steps = steps
        self._stop_asked = threading.Event()
        self.done = 0
        self.tries = 0
        self.error = None

    def run(self):
        while not self._stop_asked.is_set():
            for step in self._steps:
                self._until_it_succeeds(step)
                if self.error:
                    return

    def _until_it_succeeds(self, step):
        deadline = time.monotonic() + 60
        while True:
            self.tries += 1
            failed = step()
            if not failed:
                self.done += 1
                return
            if time.monotonic() > deadline:
                self.error = failed
                return

    def end(self):
        self._stop_asked.set()
        self.join(150)
        assert not self.is_alive(), "a step does not end"


class SnapshotterKilledTest(Case):
    def setUp(self):
        super().setUp()
        self.registry = Registry(self.box).start()
        self.h = self.holdfast()
        self.snapshotter = Snapshotter(self.box, self.h, [self.registry.host]).start_and_wait()
        self.containerd = Containerd(self.box, self.snapshotter)
        self.addCleanup(self.containerd.close)
        self.containerd.start()

    def push(self, repository, seed, **options):
        tree = busybox_tree(self.box.path("tree-" + repository), seed=seed, **options)
        return push_holdfast_image(self.h, self.registry, repository, "1", tree)[0]

    def steps(self, ours, ordinary, top):
        """Each returns what went wrong, or nothing."""
        def cri(verb, reference):
            def step():
                done = self.containerd.try_cri(verb, reference)
                return done.stderr if done.returncode else None
            return step

        def snapshots(*arguments, or_else):
            def step():
                done = self.containerd.ctr("snapshots", "--snapshotter", "holdfast", *arguments)
                return done.stderr if done.returncode and or_else not in done.stderr else None
            return step
        # A step that was done although its answer was lost is done.
        return [cri("pull", ours), snapshots("prepare", "work", top, or_else="already exists"),
                cri("pull", ordinary), snapshots("rm", "work", or_else="not found"),
                cri("remove", ours), cri("remove", ordinary)]

    def test_a_container_reads_on_and_everything_is_done_in_the_end(self):
        print(f"seed {SEED}")
        rng = random.Random(SEED)
        running = self.push("running", 1, file_count=32)
        ours = self.push("ours", 2)
        tree = busybox_tree(self.box.path("tree-ordinary"), seed=3, file_count=1)
        ordinary = push_ordinary_image(self.registry, "ordinary", "1", [tree])[0]
        self.containerd.pull(running)
        rows = [line.split() for line in self.containerd.snapshots("ls").splitlines()[1:]]
        top = next(row[0] for row in rows if len(row) == 3)
        out = self.box.make_directory("out")
        self.containerd.run_detached(running, "reader", "sh", "-c", READER,
                                     mounts=[f"type=bind,src={out},dst=/out,options=rbind:rw"])
        wait_until(lambda: os.path.exists(os.path.join(out, "passes")), 30, "the container reading")
        passes = self.passes(out)

        worker = Worker(self.steps(ours, ordinary, top))
        worker.start()
        for kill in range(KILLS):
            time.sleep(rng.uniform(0.005, 0.25))  # The moment of the death is what varies.
            self.snapshotter.kill()
            self.snapshotter.start_and_wait()
            if kill % 2:  # containerd waits a second and longer before it connects again.
                before = worker.done
                wait_until(lambda: worker.done > before or worker.error, 60, "a step done after a death")
        worker.end()
        self.assertIsNone(worker.error)
        print(f"{KILLS} kills, {worker.done} steps done in {worker.tries} tries")
        self.assertGreaterEqual(worker.done, KILLS // 2)

        self.assertFalse(os.path.exists(os.path.join(out, "error")))
        wait_until(lambda: self.passes(out) > passes + 1, 30, "the container still reading")
        open(os.path.join(out, "stop"), "w").close()
        wait_until(lambda: os.path.exists(os.path.join(out, "ended")), 30, "the container ending by itself")
        self.leave_nothing(running)

    def passes(self, out):
        with open(os.path.join(out, "passes")) as f:
            return int(f.read())

    def leave_nothing(self, running):
        """What was pulled can be removed, and then nothing is left of it."""
        self.containerd.ctr("tasks", "delete", "-f", "reader")
        self.containerd.ctr("containers", "delete", "reader")
        self.containerd.remove(running)

        # A collection that met a dead snapshotter is taken up at the next removal.
        for _ in range(10):
            self.containerd.ctr("snapshots", "--snapshotter", "holdfast", "prepare", "last")
            self.containerd.ctr("snapshots", "--snapshotter", "holdfast", "rm", "last")
            try:
                wait_until(lambda: not self.snapshotter.records(), 5, "nothing left")
                break
            except Timeout:
                continue
        self.assertEqual(self.snapshotter.records(), {})
        self.assertEqual(mounts_below(self.snapshotter.root), [])


if __name__ == "__main__":
    main(tools=TOOLS, reasons=unmet_by_containerd())
