"""holdfast-injectd is killed at each step of its work and at random: its reader goes on and gets each OPEN once."""

import os
import random
import re
import shutil
import signal

import _path  # noqa: F401
from harness.cachefiles.cachefiles_case import CachefilesCase
from harness import images
from harness.case import main
from harness.holdfast import BIN
from harness.readers import Child
from harness.sandbox import wait_until
from harness.cachefiles.raw_device import MAX_MESSAGE, OPEN, RawDevice

SIZE = 64 << 10
POINTS = ("inject.seized", "inject.stopped", "inject.written", "inject.started")
KILLS = 100
OBJECTS, MOST_OBJECTS = 20, 60


def state(pid):
    with open(f"/proc/{pid}/status") as f:
        return re.search(r"^State:\s+(\w)", f.read(), re.M)[1]


def injectd_of(daemon):
    """Its pid; 0 while none runs."""
    pids = []
    for task in os.listdir(f"/proc/{daemon}/task"):
        try:
            with open(f"/proc/{daemon}/task/{task}/children") as f:
                pids += [int(word) for word in f.read().split()]
        except FileNotFoundError:
            pass  # That thread has ended.
    return pids[0] if pids else 0


def kill_injectd_of(daemon):
    """True when one runs."""
    pid = injectd_of(daemon)
    try:
        os.kill(pid, signal.SIGKILL) if pid else None
    except ProcessLookupError:
        return False
    return bool(pid)


class InjectdTest(CachefilesCase):
    kind = "static C"

    def setUp(self):
        super().setUp()
        self.fault_file = self.box.path("fault")
        self.truth = images.random_file(SIZE)

    def machine_flags(self):
        return [*super().machine_flags(), "--fault-file=" + self.box.path("fault")]

    def injectd(self):
        return injectd_of(self.machine.daemon.pid)

    def kill_injectd(self):
        return kill_injectd_of(self.machine.daemon.pid)

    def acquire(self, number):
        name = f"object-{number}"
        self.source(name, self.truth)
        request = {"op": "acquire", "volume": "volume", "object": name, "timeout_ms": 20000}
        return self.keep(Child("acquires", lambda: self.machine.control(request).get("errno", 0)))

    def assert_all_is_well(self, process, log, count):
        """`count` objects were opened, each once, and the client has one descriptor of each."""
        self.assertIsNone(process.poll(), self.text(log))
        wait_until(lambda: state(process.pid) == "S", 20, "the client waits in poll")
        fds = [os.stat(f"/proc/{process.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{process.pid}/fd")]
        self.assertEqual(len([fd for fd in fds if fd.st_ino >> 32 == 0x686f6c66 and fd.st_ino & 0xffffffff < 1 << 24]), count)
        self.assertEqual(len(re.findall(r"^open ", self.text(log), re.M)), count)

    def test_it_dies_at_each_step(self):
        count = 0
        for action in ("exit", "block"):
            for point in POINTS:
                with self.subTest(point=point, action=action):
                    process, log = self.client(self.device, "bind")
                    self.kill_injectd()
                    wait_until(lambda: not self.injectd(), 20, "it is gone")
                    with open(self.fault_file + ".injectd", "w") as f:
                        f.write(f"{point} 1 {action}\n")
                    looks = [self.acquire(count + number) for number in range(3)]
                    if action == "block":
                        wait_until(lambda p=point: self.machine.all_words().count(f"fault point {p}: waiting") > 0, 20, "it is there")
                        self.assertTrue(self.kill_injectd())
                    for look in looks:
                        self.assertTrue(look.wait(20), self.text(log) + self.machine.last_words())
                        self.assertEqual(look.result, 0)
                    self.assertFalse(os.path.exists(self.fault_file + ".injectd"))
                    self.assert_all_is_well(process, log, 3)
                    count += 3
                    self.kill(process)

    def test_a_program_with_the_library_gets_what_it_could_not_give(self):
        raw = RawDevice(self.device)  # The test makes the library's calls itself.
        self.addCleanup(raw.close)
        raw.bind(self.directory)
        with open(self.fault_file + ".injectd", "w") as f:
            f.write("inject.stopped 1 exit\n")
        look = self.acquire(0)
        self.assertTrue(raw.is_readable(20))
        self.assertEqual(os.read(raw.fd, MAX_MESSAGE), b"", "as a program without it reads")
        message = raw.await_message()
        self.assertEqual(message.opcode, OPEN)
        raw.write(f"copen {message.msg_id},{SIZE}")
        self.assertTrue(look.wait(20))
        self.assertEqual(look.result, 0)
        self.assertFalse(raw.is_readable())

    def test_it_is_killed_at_random(self):
        rng = random.Random(5)
        process, log = self.client(self.device, "bind")
        killed = count = 0
        while count < OBJECTS or (killed < KILLS and count < MOST_OBJECTS):
            look = self.acquire(count)
            count += 1
            patience = 0.004
            while not look.wait(rng.random() * patience):  # It lives long enough for a part of its work, or all.
                killed += self.kill_injectd()
                patience *= 1.1  # On a slow machine it would never come to the end of its work.
            self.assertEqual(look.result, 0, self.text(log))
        print(f"{killed} kills while {count} objects were opened")
        self.assert_all_is_well(process, log, count)

    def test_it_does_not_answer(self):
        process, log = self.client(self.device, "bind")
        look = self.acquire(0)
        self.assertTrue(look.wait(20))
        os.kill(self.injectd(), signal.SIGSTOP)
        look = self.acquire(1)
        self.assertTrue(look.wait(20), self.text(log))
        self.assertEqual(look.result, 0)
        self.assert_all_is_well(process, log, 2)

    def test_it_ends_with_holdfastd(self):
        self.client(self.device, "bind")
        self.assertTrue(self.acquire(0).wait(20))
        pid = self.injectd()
        self.machine.kill(self.machine.daemon)
        wait_until(lambda: not os.path.exists(f"/proc/{pid}"), 20, "it is gone")

    def test_it_is_missing(self):
        self.machine.kill(self.machine.daemon)
        self.box.run(["umount", "-l", os.path.join(self.machine.run, "fuse")])
        alone = os.path.join(self.box.make_directory("alone"), "holdfastd")
        shutil.copy(os.path.join(BIN, "holdfastd"), alone)
        self.machine.daemon_name = alone
        self.assertTrue(self.machine.start_daemon(), self.machine.last_words())
        process, log = self.client(self.device, "bind")
        look = self.acquire(0)
        self.assertTrue(look.wait(20))
        self.assertEqual(look.result, 95)
        process.wait(20)
        self.assertIn("Operation not supported", self.text(log))
        self.assertIn("holdfast-injectd", self.machine.all_words())
        self.assertIn("cachefiles-run", self.machine.all_words())


if __name__ == "__main__":
    main()
