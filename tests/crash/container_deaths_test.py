"""A container reads, runs programs and writes while the fetcher, holdfastd or both are SIGKILLed: it does not notice."""

import os
import random
import signal
import subprocess

import _path  # noqa: F401
from harness.case import main
from harness.containers import TOOLS, ContainerCase
from harness.sandbox import wait_gone, wait_until

DEATHS = 30
SIZE = 24 << 20
# Each turn rereads all of the image's data, runs two programs from it and writes a line to the overlay.
PROGRAM = """
set -e
sum=$(sha256sum < /data)
echo "$sum" > /go/first
while [ ! -e /go/end ]; do
  [ "$(sha256sum < /data)" = "$sum" ]
  echo turn >> /turns
  wc -l < /turns > /go/turns.new
  cat /go/turns.new > /go/turns
done
cat /text
"""


class ContainerDeathsTest(ContainerCase):
    def turns(self, go):
        try:
            with open(os.path.join(go, "turns")) as f:
                return int(f.read() or 0)
        except FileNotFoundError:
            return 0

    def kill(self, which):
        victims = {"fetcher": [self.holdfast_.attached_pid()], "daemon": [self.holdfast_.daemon_pid()]}
        victims["both"] = victims["fetcher"] + victims["daemon"]
        for pid in victims[which]:
            os.kill(pid, signal.SIGKILL)
        for pid in victims[which]:
            self.assertTrue(wait_gone(pid, 20), f"{pid} survives SIGKILL")
        return victims[which]

    def test_a_container_reads_runs_and_writes_through_the_deaths_of_both_daemons(self):
        seed = int(os.environ.get("HOLDFAST_TEST_SEED") or random.randrange(1 << 32))
        print("seed", seed)
        chance = random.Random(seed)
        image = self.image("alive", chance.randbytes(SIZE))
        go = self.box.make_directory("go")
        process = self.start("run", "--name=c", f"--volume={go}:/go", image, "--", "/bin/sh", "-c", PROGRAM)
        wait_until(lambda: self.turns(go) > 0 or process.poll() is not None, 60, "the first turn")
        bundle = self.holdfast_.state_path("rootfs", "c")
        for _ in range(DEATHS):
            with open("/proc/sys/vm/drop_caches", "w") as f:
                f.write("3")  # Else the kernel would serve what was read before.
            seen = self.turns(go)
            dead = self.kill(chance.choice(("fetcher", "daemon", "both")))
            done = subprocess.run(["runc", "--root", bundle + "/runc", "exec", "c", "/bin/cat", "/text"], text=True,
                                  capture_output=True, timeout=60)
            self.assertEqual((done.returncode, done.stdout), (0, "alive"), done.stderr)
            wait_until(lambda: self.turns(go) > seen or process.poll() is not None, 60, "the next turn")
            self.assertIsNone(process.poll(), "the container has ended")
            wait_until(lambda: self.serves_anew(dead), 30, "the next daemons")
        with open(os.path.join(go, "end"), "w"):
            pass
        out, errors = process.communicate(timeout=90)
        self.assertEqual((process.returncode, out), (0, "alive"), errors)
        self.assertGreaterEqual(self.turns(go), DEATHS)
        self.assert_nothing_left()

    def serves_anew(self, dead):
        try:
            return self.holdfast_.daemon_pid() not in dead and self.holdfast_.attached_pid() not in [None, *dead]
        except (OSError, ValueError):
            return False  # Between two lives.


if __name__ == "__main__":
    main(tools=TOOLS)
