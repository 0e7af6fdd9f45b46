"""holdfastd is killed again and again under a program that has the cachefiles device open: neither the program nor a
reader notices, nothing is delivered twice, and nothing that was answered is undone.
"""

import argparse
import errno
import filecmp
import os
import random
import select
import signal
import sys
import threading
import time

import _path  # noqa: F401
from harness.cachefiles.backing_case import BackingCase
from harness.cachefiles.cachefiles_case import CachefilesCase
from harness.cachefiles.fd_store import FdStore
from harness import images
from harness.case import Case, main
from harness.readers import RIGHT, WRONG_BYTES, Child, pread_all
from harness.sandbox import mounts_below, wait_gone, wait_until
from harness.cachefiles.raw_device import OPEN, READ, RawDevice, error_of

KILLS = 30
RECEIVE_BUFFER = "Size:               1088 kB\n"  # A write of 1 MiB, and its headers.
SIZE = 64 << 20
SMALL = 1 << 20
READERS = 4
DELAY = "1"  # Of the program before each READ, in ms.
PAGE = 4096
BEFORE = ("cachefiles.taken_over", "cachefiles.received")
KEPT = BEFORE + ("cachefiles.done", "cachefiles.kept")
# The steps of a call.  What is written is kept by the store, and by the data file.
POINTS = {"read": KEPT, "restore": KEPT, "complete": KEPT, "write": BEFORE + ("store.before_presence", "store.presence")}


class RestartCase(CachefilesCase):
    """A machine whose daemon finds what the last one has stored."""

    def make_machine(self, **options):
        self.store = FdStore(self.box.path("store"))
        self.addCleanup(self.store.close)
        return super().make_machine(store=self.store, **options)

    def restart(self):
        self.machine.kill(self.machine.daemon)
        self.assertTrue(self.machine.start_daemon(), self.machine.last_words())


class CullRestartTest(RestartCase, BackingCase):
    def test_a_restarted_daemon_knows_what_is_used_before_it_answers(self):
        self.raw.bind(self.directory)
        self.stored()
        self.enter()
        self.machine.kill(self.machine.daemon)
        grants = os.path.join(self.machine.run, "grants")
        os.rename(grants, grants + ".kept")
        os.mkfifo(grants)  # The daemon waits for what it has granted.
        self.machine.spawn_daemon()
        asked = self.keep(Child("asks", lambda: self.raw.error("inuse Dobject")))
        told = os.open(grants, os.O_WRONLY)
        try:
            self.assertFalse(asked.wait(0.3), "the call has been answered")
        finally:
            with open(grants + ".kept", "rb") as f:
                os.write(told, f.read())
            os.close(told)
        self.assertTrue(asked.wait(20))
        self.assertEqual(asked.result, 0)


class BeginAndEndTest(RestartCase):
    """The device's own life, which no program is part of."""

    def machine_flags(self):
        return [*super().machine_flags(), "--fault-file=" + self.box.path("fault")]

    def stop(self):
        self.machine.control({"op": "stop"})
        self.assertEqual(self.machine.daemon.wait(20), 0)

    def test_a_fork_leaves_the_receive_buffer_writable(self):
        """Otherwise the kernel would fault its pages in during read(), and answer EIO if the daemon is killed then."""
        with open(f"/proc/{self.machine.daemon.pid}/smaps") as f:
            mappings = f.read().split("VmFlags:")
        flags = [rest.split("\n")[0].split() for text, rest in zip(mappings, mappings[1:]) if RECEIVE_BUFFER in text]
        self.assertTrue(flags)
        for of_one in flags:
            self.assertTrue({"lo", "dc"} <= set(of_one), of_one)  # Locked, and not copied by fork().

    def assert_serves(self):
        with open(self.device, "r+b", buffering=0) as device:
            device.write(b"dir " + os.fsencode(self.directory))
            device.write(b"bind ondemand")

    def test_a_daemon_that_dies_while_it_makes_the_device(self):
        for point in ("cachefiles.stored", "cachefiles.made", "cachefiles.mounted"):
            with self.subTest(point=point):
                self.stop()
                with open(self.box.path("fault"), "w") as f:
                    f.write(point + " 1 exit\n")
                self.machine.spawn_daemon()
                self.assertEqual(self.machine.daemon.wait(20), 99)
                if point == "cachefiles.made":
                    self.assertEqual(error_of(os.open, self.device, os.O_RDWR), errno.ENXIO, "no program takes it for a device")
                self.assertTrue(self.machine.start_daemon(), self.machine.last_words())
                self.assert_serves()
        self.stop()
        self.assertFalse(os.path.lexists(self.device))

    def test_a_stop_ends_the_device_and_a_signal_does_not(self):
        with open(self.device, "r+b", buffering=0) as device:
            device.write(b"dir " + os.fsencode(self.directory))
            self.machine.daemon.send_signal(signal.SIGTERM)
            self.assertEqual(self.machine.daemon.wait(20), 0)
            self.assertTrue(self.machine.start_daemon(), self.machine.last_words())
            self.assertEqual(error_of(device.write, b"dir /elsewhere"), errno.EEXIST)
        self.stop()
        self.assertNotIn(self.device, mounts_below(self.box.directory))
        self.assertEqual(self.store.names(), ["totals"])  # The counters go on.
        self.assertFalse(os.path.exists(self.device), "the daemon had made it")

    def test_a_device_of_another_path_ends(self):
        with open(self.device, "r+b", buffering=0) as device:
            self.machine.kill(self.machine.daemon)
            other = self.box.path("other-device")
            self.machine.flags = ["--cachefiles-device=" + other]
            self.assertTrue(self.machine.start_daemon(), self.machine.last_words())
            self.assertEqual(error_of(device.write, b"tag t"), errno.ENOTCONN)
        self.assertNotIn(self.device, mounts_below(self.box.directory))
        self.assertFalse(os.path.lexists(self.device), "what was made for it is gone")
        self.device = other
        self.assert_serves()

    def test_a_device_ends_with_a_start_without_one(self):
        self.machine.kill(self.machine.daemon)
        self.machine.flags = []
        self.assertTrue(self.machine.start_daemon(), self.machine.last_words())
        self.assertFalse(os.path.lexists(self.device))

    def test_an_unmounted_device_is_made_again(self):
        self.assertEqual(self.box.run(["umount", self.device]).returncode, 0)
        self.restart()
        self.assert_serves()


class SupervisedTest(Case):
    """Under `holdfast supervise`, whose spare takes over."""

    def test_a_device_goes_on(self):
        instance = self.holdfast()
        flags = [*instance.root_flags(), "--instance", instance.name]
        device, directory = self.box.path("cachefiles"), self.box.make_directory("cache-of-the-daemon")
        done = instance.run("start", *flags, "--cachefiles-device", device)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.addCleanup(instance.run, "stop", *flags)
        raw = RawDevice(device)
        self.addCleanup(raw.close)
        bind = raw.error("dir " + directory) or raw.error("bind ondemand")
        self.assertIn(bind, (0, errno.EOPNOTSUPP), "the file system has what the kernel wants of it")
        for _ in range(3):
            pid = instance.daemon_pid()
            os.kill(pid, signal.SIGKILL)
            self.assertTrue(wait_gone(pid, 20))
            self.assertEqual(raw.error("dir /elsewhere"), errno.EEXIST)
            self.assertIsNone(raw.read())


class RawRestartTest(RestartCase):
    """Call by call."""

    def machine_flags(self):
        return [*super().machine_flags(), "--fault-file=" + self.box.path("fault")]

    def setUp(self):
        super().setUp()
        with open(images.random_file(SMALL), "rb") as f:
            self.truth = f.read()
        self.raw = RawDevice(self.device)
        self.addCleanup(self.raw.close)
        self.raw.bind(self.directory)

    def child(self, work):
        """A process without the device."""
        def alone():
            self.raw.close()
            return work()
        return self.keep(Child("a process beside the daemon", alone))

    def opened(self, cookie="object"):
        """(the object's path, its OPEN)."""
        request = {"op": "acquire", "volume": "volume", "object": cookie, "timeout_ms": 20000}
        look = self.child(lambda: self.machine.control(request).get("errno", 0))
        message = self.raw.await_message()
        self.raw.write(f"copen {message.msg_id},{SMALL}")
        self.assertTrue(look.wait(20))
        self.assertEqual(look.result, 0)
        return self.machine.acquire("volume", cookie), message

    def reader(self, path, offset=0, length=PAGE):
        truth = self.truth[offset:offset + length]

        def read():
            fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
            return RIGHT if pread_all(fd, offset, length) == truth else WRONG_BYTES
        return self.child(read)

    def assert_right(self, reader):
        self.assertTrue(reader.wait(20), "it still waits")
        self.assertEqual(reader.result, RIGHT)

    def answer(self, anon):
        """Serves the READ that comes next."""
        read = self.raw.await_message()
        self.assertEqual(read.opcode, READ)
        read.fd = anon
        self.raw.serve(read, self.truth)
        self.assertEqual(self.raw.complete(anon, read.msg_id), 0)
        return read

    def test_a_bound_device_goes_on(self):
        self.raw.write("fstop 2%")
        self.restart()
        self.assertEqual(self.raw.error("bind ondemand"), errno.EBUSY)
        self.assertEqual(self.raw.error("dir /elsewhere"), errno.EEXIST)
        self.assertEqual(self.raw.error("fcull 2%"), errno.EINVAL)
        self.assertIsNone(self.raw.read())
        self.assertEqual(error_of(os.open, self.device, os.O_RDWR), errno.EBUSY)
        path, message = self.opened()
        reader = self.reader(path)
        self.answer(message.fd)
        self.assert_right(reader)

    def test_a_read_that_was_delivered_is_answered_to_the_next_daemon(self):
        path, message = self.opened()
        reader = self.reader(path)
        read = self.raw.await_message()
        for _ in range(3):
            self.restart()
            self.assertFalse(self.raw.is_readable(), "it comes twice")
            self.assertIsNone(self.raw.read())
        read.fd = message.fd
        self.assertEqual(self.raw.serve(read, self.truth), PAGE)
        self.restart()
        self.assertIsNone(reader.result)
        self.assertEqual(self.raw.complete(message.fd, read.msg_id), 0)
        self.assert_right(reader)
        self.restart()
        self.assertEqual(self.raw.complete(message.fd, read.msg_id), errno.EINVAL, "it is done")

    def test_a_read_that_was_completed_without_data_fails(self):
        path, message = self.opened()
        reader = self.reader(path)
        while not reader.wait(0):
            if self.raw.is_readable(0.05):
                read = self.raw.read()
                self.restart()
                self.assertEqual(self.raw.complete(message.fd, read.msg_id), 0)
        self.assertEqual(reader.result, errno.EIO)

    def test_an_open_that_was_delivered_is_answered_to_the_next_daemon(self):
        request = {"op": "acquire", "volume": "volume", "object": "object", "timeout_ms": 20000}

        def ask():
            try:
                return self.machine.control(request).get("errno", 0)
            except (OSError, ValueError):
                return errno.ECONNRESET
        self.child(ask)
        message = self.raw.await_message()
        self.assertEqual(message.opcode, OPEN)
        self.restart()
        self.assertIsNone(self.raw.read(), "it comes twice")
        self.assertEqual(error_of(os.pwrite, message.fd, bytes(PAGE), 0), errno.ENOBUFS)
        again = self.child(ask)
        wait_until(lambda: self.machine.control({"op": "status"})["requests"]["total"] == 1, 20, "it joins the OPEN")
        self.raw.write(f"copen {message.msg_id},{SMALL}")
        self.assertTrue(again.wait(20))
        self.assertEqual(again.result, 0)
        self.restart()
        reader = self.reader(self.machine.acquire("volume", "object"))
        self.answer(message.fd)
        self.assert_right(reader)

    def test_what_was_written_stays_and_a_prefetch_is_not_asked_for(self):
        path, message = self.opened()
        self.assertEqual(os.pwrite(message.fd, self.truth[:8 * PAGE], 0), 8 * PAGE)
        self.restart()
        self.assertEqual(os.lseek(message.fd, 0, os.SEEK_HOLE), 8 * PAGE)
        self.assert_right(self.reader(path, 0, 8 * PAGE))
        self.assertIsNone(self.raw.read())

    def test_closes_that_come_while_there_is_no_daemon(self):
        path, message = self.opened()
        reader = self.reader(path)
        read = self.raw.await_message()
        self.machine.kill(self.machine.daemon)
        self.raw.close_object(message.fd)
        self.assertTrue(self.machine.start_daemon(), self.machine.last_words())
        self.assertIsNone(self.raw.read(), "it stays with the program that has it")
        self.raw.write("restore")
        opened = self.raw.await_message()
        self.assertEqual(opened.opcode, OPEN)
        self.raw.write(f"copen {opened.msg_id},{SMALL}")
        again = self.answer(opened.fd)
        self.assertEqual((again.msg_id, again.offset), (read.msg_id, read.offset))
        self.assert_right(reader)

    def test_restore_is_not_forgotten(self):
        path, message = self.opened()
        reader = self.reader(path)
        read = self.raw.await_message()
        self.raw.write("restore")
        self.restart()
        self.assertTrue(self.raw.is_readable(20))
        self.assertEqual(self.answer(message.fd).msg_id, read.msg_id)
        self.assert_right(reader)

    def test_the_last_close_while_there_is_no_daemon(self):
        path, _ = self.opened()
        reader = self.reader(path)
        self.assertEqual(self.raw.await_message().opcode, READ)
        self.machine.kill(self.machine.daemon)
        self.raw.close()
        self.assertTrue(self.machine.start_daemon(), self.machine.last_words())
        self.assertTrue(reader.wait(20))
        self.assertEqual(reader.result, errno.EIO)
        self.restart()
        late = self.reader(path)
        self.assertTrue(late.wait(20), "it waits for a program that is gone")
        self.assertEqual(late.result, errno.EIO)
        self.raw = RawDevice(self.device)
        self.addCleanup(self.raw.close)
        self.raw.bind(self.directory)

    def test_poll_and_epoll_over_a_restart(self):
        path, message = self.opened()
        for number, flags in enumerate((select.EPOLLIN, select.EPOLLIN | select.EPOLLET)):
            with select.epoll() as poller:
                poller.register(self.raw.fd, flags)
                self.assertEqual(poller.poll(0), [])
                waiting, woken = threading.Event(), []

                def wait(poller=poller, waiting=waiting, woken=woken):
                    waiting.set()
                    woken.extend(poller.poll(30))
                thread = threading.Thread(target=wait)
                thread.start()
                waiting.wait()
                self.restart()
                reader = self.reader(path, (number + 1) * 16 * PAGE)
                thread.join()
                self.assertEqual(woken, [(self.raw.fd, select.EPOLLIN)])
                self.answer(message.fd)
                self.assert_right(reader)

    def test_a_request_that_was_on_its_way_is_carried_out_once(self):
        """At each step between a request and its answer, for each call that changes something."""
        path, message = self.opened()
        page = 0
        for call, points in POINTS.items():
            for point in points:
                with self.subTest(point=point, call=call):
                    page += 2
                    reader = self.reader(path, page * PAGE)
                    self.assertTrue(self.raw.is_readable(20))
                    steps = self.serving(message.fd)
                    while (step := next(steps)) != call:
                        pass
                    self.die_at(point, lambda steps=steps: next(steps, None))
                    for _ in steps:
                        pass
                    self.assert_right(reader)
                    self.assertFalse(self.raw.is_readable())
        self.assertEqual(self.machine.counters()["reads_failed"], 0)

    def serving(self, anon):
        """Names the next step, and takes it when it is asked to go on."""
        yield "read"
        # One that was not delivered is there when its reader has asked again.
        while (read := self.raw.read()) is None:
            self.assertTrue(self.raw.is_readable(20))
        self.assertEqual(read.opcode, READ)
        yield "restore"
        self.raw.write("restore")
        self.assertTrue(self.raw.is_readable(20))
        self.assertEqual(self.raw.read().msg_id, read.msg_id)
        yield "write"
        self.assertEqual(os.pwrite(anon, self.truth[read.offset:read.offset + read.bytes], read.offset), read.bytes)
        yield "complete"
        self.assertEqual(self.raw.complete(anon, read.msg_id), 0)

    def die_at(self, point, call):
        """The daemon ends itself at `point`, while `call` waits for its answer, and is started again."""
        fault = self.box.path("fault")
        with open(fault, "w") as f:
            f.write(point + " 1 exit\n")
        if point == "cachefiles.taken_over":
            self.machine.kill(self.machine.daemon)
        else:
            self.restart()
        thread = threading.Thread(target=call)
        thread.start()
        if point == "cachefiles.taken_over":
            self.machine.spawn_daemon()
        self.assertEqual(self.machine.daemon.wait(20), 99)
        self.assertTrue(self.machine.start_daemon(), self.machine.last_words())
        thread.join(20)
        self.assertFalse(thread.is_alive(), "the call has no answer")


class RestartUnderLoadTest(RestartCase):
    """A program of the kernel's interface, and readers of what it serves."""

    kills = KILLS
    seed = 1

    def setUp(self):
        super().setUp()
        self.path = self.source("file", images.random_file(SIZE))
        image, self.tree = images.random_image(8, 2 << 20)
        self.source("image", image)
        self.rng = random.Random(self.seed)

    def begin_to_read(self):
        with open(self.path, "rb") as f:
            truth = f.read()
        served, image = self.machine.acquire("volume", "file"), self.machine.acquire("volume", "image")
        part = SIZE // READERS
        self.readers = [self.keep(Child(f"reader {i}", lambda i=i: self.read_part(served, i * part, truth[i * part:(i + 1) * part])))
                        for i in range(READERS)]
        where = self.mount(image)
        self.readers.append(self.keep(Child("a reader of the image", lambda: self.compare(where))))

    def read_part(self, path, offset, truth):
        """In small pieces, so that the load lasts: there are thousands of READs."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
        piece = 4 * PAGE if self.kills <= 2 * KILLS else PAGE
        for at in range(0, len(truth), piece):
            if pread_all(fd, offset + at, piece) != truth[at:at + piece]:
                return WRONG_BYTES
        return RIGHT

    def compare(self, where):
        names = sorted(os.listdir(self.tree))
        if sorted(os.listdir(where)) != names:
            return WRONG_BYTES
        _, wrong, errors = filecmp.cmpfiles(where, self.tree, names, shallow=False)
        return WRONG_BYTES if wrong or errors else RIGHT

    def lines_of(self, log, word):
        return [line for line in self.text(log).splitlines() if line.startswith(word + " ")]

    def reads_of(self, log):
        return self.lines_of(log, "read")

    def assert_all_right(self):
        for reader in self.readers:
            self.assertTrue(reader.wait(120), reader.what + " still waits")
            self.assertEqual(reader.result, RIGHT, reader.what)
        wait_until(lambda: self.machine.control({"op": "status"})["requests"]["total"] == 0, 20, "each request is completed")

    def test_the_daemon_is_killed_many_times(self):
        process, log = self.client(self.device, "bind", "0", DELAY)
        self.begin_to_read()
        pauses = []
        for number in range(self.kills):
            before = len(self.reads_of(log))
            wanted = before + self.rng.randrange(3)
            wait_until(lambda: len(self.reads_of(log)) > wanted or not self.is_loaded(), 30, "the load goes on")
            if not self.is_loaded():
                break
            killed = time.monotonic()
            self.machine.kill(self.machine.daemon)
            had = len(self.reads_of(log))
            self.machine.spawn_daemon()
            wait_until(lambda: len(self.reads_of(log)) > had or not self.is_loaded(), 30, f"the program is served after kill {number}")
            pauses.append(time.monotonic() - killed)
            self.assertIsNone(process.poll(), self.text(log))
        self.assertGreater(len(pauses), self.kills // 3, "the load lasts")
        self.assert_all_right()
        self.assertIsNone(process.poll(), self.text(log))
        ids, reads = self.lines_of(log, "id"), self.reads_of(log)
        self.assertEqual(len(ids), len({line.split()[1] for line in ids}), "one was delivered twice")
        asked = [(line.split()[3], read) for line, read in zip(ids, reads)]
        self.assertEqual(len(asked), len(set(asked)), "bytes were asked for twice")
        self.assertEqual(self.text(log).count("open "), 2)
        pauses.sort()
        print(f"{len(pauses)} kills, {len(reads)} READs; from a kill to the next READ: "
              f"p50 {pauses[len(pauses) // 2] * 1000:.0f} ms, p99 {pauses[len(pauses) * 99 // 100] * 1000:.0f} ms")

    def test_the_daemon_and_the_program_are_killed_at_random(self):
        fd = self.open_device()
        process, log = self.client(f"fd:{fd}", "bind", "0", DELAY, pass_fds=[fd])
        self.begin_to_read()
        for _ in range(self.kills):
            before = len(self.reads_of(log))
            wait_until(lambda: len(self.reads_of(log)) > before or not self.is_loaded(), 30, "the load goes on")
            which = self.rng.choice(("daemon", "program", "both"))
            if which != "program":
                self.machine.kill(self.machine.daemon)
            if which != "daemon":
                process.send_signal(signal.SIGKILL)
            if which != "program":
                self.assertTrue(self.machine.start_daemon(), self.machine.last_words())
            if which != "daemon":
                process.wait(20)
                process, log = self.client(f"fd:{fd}", "restore", "0", DELAY, pass_fds=[fd])
            self.assertIsNone(process.poll(), self.text(log))
        self.assert_all_right()
        self.assertIsNone(process.poll(), self.text(log))

    def is_loaded(self):
        return not all(reader.wait(0) for reader in self.readers)


class StaticRestartUnderLoadTest(RestartUnderLoadTest):
    """Without the library: holdfast-injectd dies with each daemon."""

    kind = "static C"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=KILLS, help="of each of the two tests under load")
    parser.add_argument("--seed", type=int, default=1)
    options, rest = parser.parse_known_args()
    RestartUnderLoadTest.kills, RestartUnderLoadTest.seed = options.kills, options.seed
    sys.argv[1:] = rest
    main()
