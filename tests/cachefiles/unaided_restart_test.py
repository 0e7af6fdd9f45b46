"""holdfastd, holdfast-injectd and both are killed while a static program gets OPENs: it goes on, and gets each once."""

import argparse
import collections
import os
import random
import sys
import time

import _path  # noqa: F401
from harness import images
from harness.case import main
from harness.readers import RIGHT, WRONG_BYTES, Child, pread_all
from harness.sandbox import wait_until
from injectd_test import POINTS, injectd_of, kill_injectd_of
from harness.cachefiles.raw_device import READ, RawDevice
from restart_test import RestartCase

KILLS = 40
LIVES = 40  # Of holdfastd.
SIZE = 64 << 20
PAGE = 4096
DELAY_MS = "2"  # Of the program before each READ.
OPTIONS = None


def print_pauses(what, kills, pauses):
    pauses.sort()
    print(f"{what}: {kills} kills, {len(pauses)} with an OPEN under way; from a kill to its answer: "
          f"p50 {pauses[len(pauses) // 2] * 1000:.0f} ms, p99 {pauses[len(pauses) * 99 // 100] * 1000:.0f} ms", file=sys.stderr)


class PlainDevice(RawDevice):
    """With the calls of a program without the library."""

    is_plain = True


class UnaidedRestartTest(RestartCase):
    kind = "static C"

    def setUp(self):
        super().setUp()
        self.truth = images.random_file(64 << 10)

    def machine_flags(self):
        return [*super().machine_flags(), "--fault-file=" + self.box.path("fault")]

    def acquire(self, number):
        """A process that asks until a daemon has answered."""
        name = f"object-{number}"
        self.source(name, self.truth)
        request = {"op": "acquire", "volume": "volume", "object": name, "timeout_ms": 20000}

        def ask():
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                try:
                    return self.machine.control(request).get("errno", 0)
                except (OSError, ValueError):
                    pass  # Its daemon has died.
            return 201
        return self.keep(Child("acquires", ask))

    def begin_to_read(self):
        """A reader of another object, each page of which is a READ; the path of the file that ends it."""
        path, enough = self.source("load", images.random_file(SIZE)), self.box.path("enough")
        served = self.machine.acquire("volume", "load")

        def read():
            fd = os.open(served, os.O_RDONLY | os.O_DIRECT)
            with open(path, "rb") as truth:
                while (right := truth.read(PAGE)) and not os.path.exists(enough):
                    if pread_all(fd, truth.tell() - PAGE, PAGE) != right:
                        return WRONG_BYTES
            return RIGHT
        return self.keep(Child("reads", read)), enough

    def kill_under_load(self, choices):
        """As often as there are kills, with an OPEN under way and READs beside it; `choices` says of what."""
        rng = random.Random(OPTIONS.seed)
        fd = self.open_device()
        program = self.client(f"fd:{fd}", "bind", "0", DELAY_MS, pass_fds=[fd])
        reader, enough = self.begin_to_read()
        pauses = []
        for number in range(OPTIONS.kills):
            look = self.acquire(number)
            is_under_way = not look.wait(rng.random() * 0.004)
            which, killed = rng.choice(choices), time.monotonic()
            if "injectd" in which:
                kill_injectd_of(self.machine.daemon.pid)
            if "program" in which:
                self.kill(program[0])
            if "daemon" in which:
                self.restart()
            if "program" in which:
                program = self.client(f"fd:{fd}", "restore", "0", DELAY_MS, pass_fds=[fd])
            self.assertTrue(look.wait(30), self.text(program[1]) + self.machine.last_words())
            self.assertEqual(look.result, 0, self.text(program[1]) + self.machine.last_words())
            if is_under_way:
                pauses.append(time.monotonic() - killed)
        open(enough, "w").close()
        self.assertTrue(reader.wait(30), self.text(program[1]) + self.machine.last_words())
        self.assertEqual(reader.result, RIGHT)
        self.assertEqual(self.machine.counters()["reads_failed"], 0)
        self.assertGreater(len(pauses), 0, "no OPEN was under way")
        print_pauses(self._testMethodName, OPTIONS.kills, pauses)
        return program

    def kill_and_look(self, *choices):
        process, log = self.kill_under_load(choices)
        reads = [line for line in self.text(log).splitlines() if line.startswith("read ")]
        self.assertEqual(len(reads), len(set(reads)), "a page was asked for twice")
        self.assert_all_is_well(process, log, OPTIONS.kills, others=1)

    def test_the_daemon_is_killed(self):
        self.kill_and_look(("daemon",))

    def test_injectd_is_killed(self):
        self.kill_and_look(("injectd",))

    def test_the_daemon_and_injectd_are_killed_together(self):
        self.kill_and_look(("injectd", "daemon"))

    def test_the_daemon_injectd_and_the_program_are_killed_at_random(self):
        process, log = self.kill_under_load((("daemon",), ("injectd",), ("program",), ("injectd", "daemon"),
                                             ("program", "daemon"), ("injectd", "program", "daemon")))
        self.assertIsNone(process.poll(), self.text(log))
        self.assertEqual(self.machine.control({"op": "status"})["requests"]["total"], 0)

    def test_a_read_is_answered_after_many_daemons(self):
        # As by two threads of a program: one has a READ of the first daemon, the other one of the last.
        raw = PlainDevice(self.device)
        self.addCleanup(raw.close)
        raw.bind(self.directory)
        look = self.acquire(0)
        opened = raw.await_message()
        raw.write(f"copen {opened.msg_id},{os.path.getsize(self.truth)}")
        self.assertTrue(look.wait(20))
        path = self.machine.acquire("volume", "object-0")
        with open(self.truth, "rb") as f:
            truth = f.read()

        def begin(offset):
            def read():
                raw.close()
                fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
                return RIGHT if pread_all(fd, offset, PAGE) == truth[offset:offset + PAGE] else WRONG_BYTES
            reader, message = self.keep(Child("reads", read)), raw.await_message()
            self.assertEqual((message.opcode, message.offset), (READ, offset))
            message.fd = opened.fd
            return reader, message
        began = [begin(0)]
        for _ in range(LIVES):
            self.restart()
        began.append(begin(8 * PAGE))
        for reader, message in began[::-1]:
            raw.serve(message, truth)
            self.assertEqual(raw.complete(opened.fd, message.msg_id), 0)
            self.assertTrue(reader.wait(20), self.machine.last_words())
            self.assertEqual(reader.result, RIGHT)

    def test_the_daemon_is_killed_at_each_step_of_injectd(self):
        process, log = self.client(self.device, "bind")
        for number, point in enumerate(POINTS):
            kill_injectd_of(self.machine.daemon.pid)
            wait_until(lambda: not injectd_of(self.machine.daemon.pid), 20, "it is gone")
            with open(self.box.path("fault.injectd"), "w") as f:
                f.write(f"{point} 1 block\n")
            look = self.acquire(number)
            wait_until(lambda p=point: f"fault point {p}: waiting" in self.machine.all_words(), 20, "it is there")
            self.restart()
            self.assertTrue(look.wait(30), self.text(log) + self.machine.last_words())
            self.assertEqual(look.result, 0, self.text(log) + self.machine.last_words())
        self.assert_all_is_well(process, log, len(POINTS))

    def assert_all_is_well(self, process, log, count, others=0):
        """Each object was opened once, and can be read; the program has one descriptor of each, and of the others."""
        self.assertIsNone(process.poll(), self.text(log))
        opens = collections.Counter(line.split()[2] for line in self.text(log).splitlines() if line.startswith("open "))
        self.assertEqual(set(opens.values()), {1}, opens)
        self.assertEqual(len(opens), count + others)
        for number in (0, count - 1):
            self.assert_reads_right(self.machine.acquire("volume", f"object-{number}"), self.truth)
        fds = [os.stat(f"/proc/{process.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{process.pid}/fd")]
        self.assertEqual(len([fd for fd in fds if fd.st_ino >> 32 == 0x686f6c66 and fd.st_ino & 0xffffffff < 1 << 24]),
                         count + others)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=KILLS, help=f"of each of the tests under load ({KILLS})")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("HOLDFAST_TEST_SEED", "11")))
    OPTIONS, sys.argv[1:] = parser.parse_known_args()
    main()
