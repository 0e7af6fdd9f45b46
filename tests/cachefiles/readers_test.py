"""Readers of the device that holdfast-injectd has to reach without the preloaded library, or must refuse."""

import ctypes
import errno
import mmap
import os
import platform
import random
import re
import resource
import signal
import socket
import struct
import threading
import time

import _path  # noqa: F401
from harness.cachefiles.cachefiles_case import CachefilesCase
from guards_test import become_another_user
from harness import images
from harness.case import main
from harness.readers import RIGHT, Child, pread_all
from harness.sandbox import wait_until
from harness.cachefiles.raw_device import OPEN, RawDevice, error_of

SIZE = 1 << 20
PAGE = 4096
_CAP_DAC_READ_SEARCH = 1 << 2
_CAP_SYS_ADMIN = 1 << 21
_PR_SET_DUMPABLE = 4
_PTRACE_SEIZE = 0x4206
_CLONE_NEWNS, _CLONE_NEWPID, _CLONE_NEWUSER = 0x20000, 0x20000000, 0x10000000
_MS_BIND = 4096
_PROT_READ, _PROT_WRITE, _MAP_FIXED_NOREPLACE = 1, 2, 0x100000
# Of a seccomp filter.
MMAP, IOCTL = (9, 16) if platform.machine() == "x86_64" else (222, 29)
IDS = 0x60000000
OPEN_FAILED = 0x9883
_libc = ctypes.CDLL(None, use_errno=True)


def call(name, *arguments):
    if getattr(_libc, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), name)


def forbid(number, value, argument=0):
    """A seccomp filter: EPERM for that call with this value in the low half of an argument."""
    words = ((0x20, 0, 0, 0), (0x15, 0, 3, number), (0x20, 0, 0, 16 + 8 * argument), (0x15, 0, 1, value),
             (6, 0, 0, 0x50000 | errno.EPERM), (6, 0, 0, 0x7fff0000))
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *word) for word in words))
    call("prctl", 22, 2, struct.pack("@HP", len(words), ctypes.addressof(program)), 0, 0)


class UnaidedDevice(RawDevice):
    is_plain = True


class ReadersTest(CachefilesCase):
    def setUp(self):
        super().setUp()
        with open(images.random_file(SIZE), "rb") as f:
            self.truth = f.read()
        self.raw = None

    def reader(self, prepare, device=None, count=1):
        """A process that serves `count` objects after prepare(); its result is 0, or the errno of its first failure."""
        ready, told = os.pipe()

        def serve():
            prepare()
            raw = UnaidedDevice(device or self.device)
            raw.bind(self.directory)
            os.write(told, b"x")
            for number in range(count):
                message = raw.await_message()
                assert message.opcode == OPEN
                raw.write(f"copen {message.msg_id},{SIZE}")
                read = raw.await_message()
                os.pwrite(message.fd, self.truth[:PAGE], 0)
                error = raw.complete(message.fd, read.msg_id)
                if error != 0:
                    return error
            return 0
        reader = self.keep(Child("a reader", serve))
        os.close(told)
        os.read(ready, 1)  # It is attached, or has ended.
        os.close(ready)
        return reader

    def assert_is_served(self, reader, number=0):
        path = self.machine.acquire("volume", f"object-{number}")

        def read():
            fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
            return RIGHT if pread_all(fd, 0, PAGE) == self.truth[:PAGE] else 200
        served = self.keep(Child("a read", read))
        self.assertTrue(served.wait(20), "it still waits")
        self.assertEqual(served.result, RIGHT)

    def assert_serves(self, prepare, device=None):
        reader = self.reader(prepare, device)
        self.assert_is_served(reader)
        self.assertTrue(reader.wait(20), self.machine.last_words())
        self.assertEqual(reader.result, 0, self.machine.last_words())

    def acquire(self, number=0):
        request = {"op": "acquire", "volume": "volume", "object": f"object-{number}", "timeout_ms": 20000}
        return self.keep(Child("acquires", lambda: self.machine.control(request).get("errno", 0)))

    def start_refused(self, prepare, hold=lambda: None):
        """A reader of one OPEN, and what checks that the read and the OPEN end with an errno, and the log has the words.

        The reader has the device open until hold() returns.
        """
        def read():
            raw = UnaidedDevice(self.device)
            raw.bind(self.directory)
            prepare()
            assert raw.is_readable(20)
            error = error_of(raw.read)
            hold()
            return error
        reader = self.keep(Child("a reader that is refused", read))

        def finish(error, *words, end=lambda: None):
            look = self.acquire()
            self.assertTrue(look.wait(20), self.machine.last_words())
            self.assertEqual(look.result, error)
            end()
            self.assertTrue(reader.wait(20), self.machine.last_words())
            self.assertEqual(reader.result, error, self.machine.last_words())
            for word in words:
                self.assertIn(word, self.machine.all_words())
        return reader, finish

    def assert_is_refused(self, prepare, error, *words):
        _, finish = self.start_refused(prepare)
        finish(error, *words)

    # Those that it serves.

    def test_a_process(self):
        self.assert_serves(lambda: None)

    def test_one_in_a_chroot(self):
        root = self.box.make_directory("root")
        with open(os.path.join(root, "device"), "w"):
            pass

        def prepare():
            call("unshare", _CLONE_NEWNS)
            call("mount", b"none", b"/", None, 0x44000, None)  # Private, and what is below.
            call("mount", os.fsencode(self.device), os.fsencode(root + "/device"), None, _MS_BIND, None)
            os.makedirs(root + self.directory, exist_ok=True)
            call("mount", os.fsencode(self.directory), os.fsencode(root + self.directory), None, _MS_BIND, None)
            os.chroot(root)
            os.chdir("/")
        self.assert_serves(prepare, "/device")

    def test_one_in_a_pid_and_mount_namespace(self):
        def prepare():
            call("unshare", _CLONE_NEWNS | _CLONE_NEWPID)
            child = os.fork()
            if child != 0:
                os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            _libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
            assert os.getpid() == 1
        self.assert_serves(prepare)

    def test_another_user_with_the_two_capabilities(self):
        for directory in (self.box.directory, os.path.dirname(self.directory), self.directory):
            os.chmod(directory, 0o755)
        self.assert_serves(lambda: become_another_user(_CAP_SYS_ADMIN | _CAP_DAC_READ_SEARCH))

    def test_one_that_is_not_dumpable(self):
        self.assert_serves(lambda: _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))

    def test_one_that_is_stopped_and_continued(self):
        reader = self.reader(lambda: None, count=20)
        for number in range(20):
            look = self.acquire(number)
            while not look.wait(0):
                os.kill(reader.pid, signal.SIGSTOP)
                os.kill(reader.pid, signal.SIGCONT)
            self.assertEqual(look.result, 0)
            self.assert_is_served(reader, number)
        self.assertTrue(reader.wait(20))
        self.assertEqual(reader.result, 0)

    def test_signals_come_all_the_time(self):
        def prepare():
            signal.signal(signal.SIGALRM, lambda *_: None)
            signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
        reader = self.reader(prepare, count=30)
        for number in range(30):
            self.assert_is_served(reader, number)
        self.assertTrue(reader.wait(20))
        self.assertEqual(reader.result, 0)

    def test_another_thread_of_it_calls_exec(self):
        ready, told = os.pipe()
        for number in range(20):
            def read_and_exec(delay=number * 0.0001):
                raw = UnaidedDevice(self.device)
                raw.bind(self.directory)
                os.write(told, b"x")
                reads, never = threading.Event(), threading.Event()

                def read_on():
                    assert raw.is_readable(20)
                    reads.set()
                    while True:
                        raw.read()
                threading.Thread(target=read_on, daemon=True).start()
                reads.wait()
                never.wait(delay)
                os.execv("/bin/true", ["true"])
            reader = self.keep(Child("a reader that calls exec", read_and_exec))
            os.read(ready, 1)
            look = self.acquire(number)
            self.assertTrue(reader.wait(20), self.machine.last_words())
            self.assertEqual(reader.result, 0)
            self.assertTrue(look.wait(20))
        self.assert_serves(lambda: None)

    def test_one_that_is_killed(self):
        rng = random.Random(3)
        for number in range(40):
            reader = self.reader(lambda: None)
            look = self.acquire(number)
            look.wait(rng.random() * 0.004)
            self.assertLess(reader.kill(), 20, self.machine.last_words())
            self.assertTrue(look.wait(20), self.machine.last_words())
        self.assert_serves(lambda: None)

    def test_a_new_program_in_the_process_has_no_window(self):
        code = ("import os, sys; sys.path.insert(0, sys.argv[1]); import _path; from readers_test import UnaidedDevice\n"
                "device, anon = int(sys.argv[2]), int(sys.argv[3]); raw = UnaidedDevice.__new__(UnaidedDevice); raw.fd = device\n"
                "read = raw.await_message(); os.pwrite(anon, open(sys.argv[4], 'rb').read(read.bytes), read.offset)\n"
                "sys.exit(raw.complete(anon, read.msg_id))")

        def open_and_exec():
            raw = UnaidedDevice(self.device)
            raw.bind(self.directory)
            message = raw.await_message()
            raw.write(f"copen {message.msg_id},{SIZE}")
            assert raw.is_readable(20)
            os.set_inheritable(raw.fd, True)
            os.execv("/usr/bin/python3", ["python3", "-B", "-c", code, os.path.dirname(os.path.abspath(__file__)),
                                          str(raw.fd), str(message.fd), images.random_file(SIZE)])
        reader = self.keep(Child("a reader that calls exec", open_and_exec))
        wait_until(lambda: "is attached" in self.machine.all_words(), 20, "it is attached")
        look = self.acquire(0)
        self.assertTrue(look.wait(20))
        self.assertEqual(look.result, 0)
        self.assert_is_served(reader)
        self.assertTrue(reader.wait(20), self.machine.last_words())
        self.assertEqual(reader.result, 0, self.machine.last_words())

    def test_several_threads(self):
        count = 60

        def serve():
            raw = UnaidedDevice(self.device)
            raw.bind(self.directory)
            served = []

            def serve_some():
                while len(served) < count:
                    if not raw.is_readable(0.05):
                        continue
                    message = raw.read()
                    if message is None:
                        continue
                    raw.write(f"copen {message.msg_id},{PAGE}")
                    os.pwrite(message.fd, message.cookie.ljust(PAGE, b"."), 0)
                    served.append(message.fd)
            threads = [threading.Thread(target=serve_some) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return 0 if len(set(served)) == count else 201
        reader = self.keep(Child("a reader with three threads", serve))
        looks = [self.acquire(number) for number in range(count)]
        for look in looks:
            self.assertTrue(look.wait(30), self.machine.last_words())
            self.assertEqual(look.result, 0)
        self.assertTrue(reader.wait(20))
        self.assertEqual(reader.result, 0)

    def test_a_worker_that_was_forked_before_the_open(self):
        """It has no memory where the ids are, and completes a READ that its parent has read."""
        for size, drains in ((PAGE, False), (SIZE, False), (SIZE, True)):
            with self.subTest(size=size, drains=drains):
                def serve(size=size, drains=drains):
                    raw = UnaidedDevice(self.device)
                    raw.bind(self.directory)
                    ours, its = socket.socketpair()

                    def work():
                        with ours, its:
                            data, fds, _, _ = socket.recv_fds(its, 4, 1)
                        if os.pwrite(fds[0], self.truth[:size], 0) != size:
                            return 203
                        return raw.complete(fds[0], int.from_bytes(data, "little"))
                    worker = Child("a worker", work)
                    message = raw.await_message()
                    raw.write(f"copen {message.msg_id},{SIZE}")
                    read = raw.await_message()
                    assert not drains or raw.read() is None
                    with ours, its:
                        socket.send_fds(ours, [read.msg_id.to_bytes(4, "little")], [message.fd])
                    assert worker.wait(20)
                    return worker.result
                reader = self.keep(Child("a program with a worker", serve))
                wait_until(lambda: self.status_of_client()["ondemand"] or reader.wait(0), 20, "it is attached")
                self.assert_is_served(reader, size + drains)  # An object of its own.
                self.assertTrue(reader.wait(20), self.machine.last_words())
                self.assertEqual(reader.result, 0, self.machine.last_words())
                wait_until(lambda: not self.status_of_client()["open"], 20, "the device is free")

    def test_a_worker_with_the_number_of_one_that_could_get_no_window(self):
        def write_in_vain(fd):
            forbid(MMAP, IDS)
            end = time.monotonic() + 6  # Each try takes a second, and there are three.
            while time.monotonic() < end:
                os.pwrite(fd, self.truth[:PAGE], 0)
            return 0

        def work(fd, msg_id, raw):
            first = Child("a worker that may not map", lambda: write_in_vain(fd))
            assert first.wait(60) and first.result == 0
            for _ in range(10000):
                with open("/proc/sys/kernel/ns_last_pid", "w") as f:
                    f.write(str(first.pid - 1))
                child = os.fork()
                if child == 0:
                    if os.getpid() != first.pid:
                        os._exit(0)
                    os.pwrite(fd, self.truth[:PAGE], 0)
                    os._exit(raw.complete(fd, msg_id))
                _, status = os.waitpid(child, 0)
                if child == first.pid:
                    return os.waitstatus_to_exitcode(status)
            return 201

        def serve():
            raw = UnaidedDevice(self.device)
            raw.bind(self.directory)
            ours, its = socket.socketpair()

            def work_when_told():  # Forked before there is memory for ids, as what it forks.
                with ours, its:
                    data, fds, _, _ = socket.recv_fds(its, 4, 1)
                return work(fds[0], int.from_bytes(data, "little"), raw)
            worker = Child("what forks the workers", work_when_told)
            message = raw.await_message()
            raw.write(f"copen {message.msg_id},{SIZE}")
            read = raw.await_message()
            with ours, its:
                socket.send_fds(ours, [read.msg_id.to_bytes(4, "little")], [message.fd])
            assert worker.wait(90)
            return worker.result
        reader = self.keep(Child("a program with workers", serve))
        wait_until(lambda: self.status_of_client()["ondemand"] or reader.wait(0), 20, "it is attached")
        path = self.machine.acquire("volume", "object-0")
        read = self.keep(Child("a read", lambda: 0 if pread_all(os.open(path, os.O_RDONLY), 0, PAGE) == self.truth[:PAGE] else 1))
        self.assertTrue(reader.wait(100), self.machine.last_words())
        self.assertEqual(reader.result, 0, self.machine.last_words())
        self.assertTrue(read.wait(20))
        self.assertEqual(read.result, 0)

    # Those that it must not touch.

    def limit_descriptors(self, spare):
        """So that holdfastd can open `spare` more files.  The limits that it had."""
        pid = self.machine.daemon.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
        limit = 0
        while limit - len([fd for fd in used if fd < limit]) < spare or limit in used:
            limit += 1
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, before[1]))
        return before

    def test_a_daemon_that_can_open_no_more_files(self):
        errors = []
        for spare in range(20):
            def read(spare=spare):
                raw = UnaidedDevice(self.device)
                raw.bind(self.directory)
                assert raw.is_readable(20)
                before = self.limit_descriptors(spare)
                try:
                    return 0 if raw.read() is not None else 250
                except OSError as error:
                    return error.errno
                finally:
                    resource.prlimit(self.machine.daemon.pid, resource.RLIMIT_NOFILE, before)
            reader = self.keep(Child("a reader", read))
            wait_until(lambda: self.status_of_client()["ondemand"] or reader.wait(0), 20, "it is attached")
            look = self.acquire(spare)
            self.assertTrue(reader.wait(20))
            self.assertTrue(look.wait(20))
            errors.append(reader.result)
            wait_until(lambda: not self.status_of_client()["open"], 20, "the device is free")
            if reader.result == 0:
                break
            self.assertIn(look.result, (reader.result, errno.EIO), "what it failed with, or that the device was closed")
        self.assertEqual(set(errors[:-1]), {errno.EMFILE}, errors)
        self.assertEqual(errors[-1], 0, errors)
        self.assertIn("raise the limit of open files", self.machine.all_words())

    def test_one_that_is_traced(self):
        _libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        ready, told = os.pipe()
        go_on, tell = os.pipe()

        def trace():
            call("ptrace", _PTRACE_SEIZE, reader.pid, None, None)
            os.write(tell, b"x")
            while True:
                signal.pause()

        def prepare():
            os.write(told, b"x")
            os.read(go_on, 1)
        reader, finish = self.start_refused(prepare)
        os.read(ready, 1)
        tracer = Child("a tracer", trace)
        self.addCleanup(tracer.close)  # Before the reader, whose end a tracer holds up.
        finish(errno.EPERM, "is traced by process", "holdfast cachefiles-run", end=tracer.close)

    def start_under_strace(self, kind):
        """A client, and its trace."""
        self.source("image", images.random_file(SIZE))
        self.kind = kind
        trace = self.box.path("trace")
        # The tracer is a grandchild of the client, as which it ends.
        self.client(self.device, "bind", under=("strace", "-D", "-f", "-e", "trace=read,pread64,write", "-o", trace))
        return trace

    def test_one_under_strace(self):
        trace = self.start_under_strace("static C")
        answer = self.machine.control({"op": "acquire", "volume": "erofs,image", "object": "image", "timeout_ms": 20000})
        self.assertEqual(answer["errno"], errno.EPERM)
        wait_until(lambda: re.search(r"read\(.* = -1 EPERM", self.text(trace)), 20, "its read fails")
        self.assertIn("is traced by process", self.machine.all_words())

    def test_one_under_strace_with_the_library(self):
        trace = self.start_under_strace("preloaded C")
        self.assert_reads_right(self.machine.acquire("erofs,image", "image"), images.random_file(SIZE))
        wait_until(lambda: re.search(r'write\(\d+, "copen ', self.text(trace)), 20, "its answer is in the trace")

    def test_one_without_the_capability_for_handles(self):
        self.assert_is_refused(lambda: become_another_user(0), errno.EPERM, "CAP_DAC_READ_SEARCH")

    def test_one_with_memory_where_the_ids_are(self):
        for begin, size, rights in ((0x60400000, 1 << 20, _PROT_READ | _PROT_WRITE), (0x60000000, 8 << 20, 0),
                                    (0x5ff00000, 64 << 20, _PROT_READ), (0x60000000, PAGE, _PROT_READ)):
            with self.subTest(begin=hex(begin), size=size, rights=rights):
                def occupy(begin=begin, size=size, rights=rights):
                    _libc.mmap.restype = ctypes.c_void_p
                    where = _libc.mmap(ctypes.c_void_p(begin), ctypes.c_size_t(size), rights,
                                       mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED_NOREPLACE, -1, ctypes.c_long(0))
                    assert where == begin
                reader, finish = self.start_refused(occupy)
                wait_until(lambda: self.status_of_client()["ondemand"] or reader.wait(0), 20, "it is attached")
                finish(errno.EOPNOTSUPP, "0x60000000")
                wait_until(lambda: not self.status_of_client()["open"], 20, "the device is free")
        self.assert_serves(lambda: None)

    def limit_memory(self):
        """So that 4 MiB cannot be mapped."""
        with open("/proc/self/statm") as f:
            used = int(f.read().split()[0]) * PAGE
        resource.setrlimit(resource.RLIMIT_AS, (used + (3 << 20), resource.RLIM_INFINITY))

    def test_one_that_cannot_map_the_window(self):
        for prepare, error in ((self.limit_memory, errno.ENOMEM), (lambda: forbid(MMAP, IDS), errno.EPERM)):
            with self.subTest(error=errno.errorcode[error]):
                reader, finish = self.start_refused(prepare)
                wait_until(lambda: self.status_of_client()["ondemand"] or reader.wait(0), 20, "it is attached")
                finish(error, "cannot map the 4 MiB", "holdfast cachefiles-run")
                wait_until(lambda: not self.status_of_client()["open"], 20, "the device is free")
        self.assert_serves(lambda: None)

    def test_one_whose_filter_forbids_each_call_of_the_code(self):
        def prepare():
            forbid(IOCTL, OPEN_FAILED, argument=1)
            forbid(MMAP, IDS)
        go_on, tell = os.pipe()
        _, finish = self.start_refused(prepare, lambda: os.read(go_on, 1))
        finish(errno.EPERM, "its seccomp filter must allow", end=lambda: os.write(tell, b"x"))

    def test_a_read_that_one_thread_cannot_be_given_waits_for_another(self):
        for prepare, error, words in ((self.limit_memory, errno.ENOMEM, "cannot map the 4 MiB"),
                                      (lambda: forbid(MMAP, IDS), errno.EPERM, "cannot map the 4 MiB")):
            with self.subTest(error=errno.errorcode[error]):
                def serve(prepare=prepare, error=error):
                    raw = UnaidedDevice(self.device)
                    raw.bind(self.directory)
                    turn, start = os.pipe()

                    def read_it():
                        os.read(turn, 1)
                        prepare()
                        assert raw.is_readable(20)
                        return 0 if error_of(raw.read) == error else 202
                    other = Child("a reader that was forked before the OPEN", read_it)
                    message = raw.await_message()
                    raw.write(f"copen {message.msg_id},{SIZE}")
                    assert raw.is_readable(20)
                    os.write(start, b"x")
                    assert other.wait(20)
                    if other.result != 0:
                        return other.result
                    read = raw.await_message()
                    os.pwrite(message.fd, self.truth[:PAGE], 0)
                    return raw.complete(message.fd, read.msg_id)
                reader = self.keep(Child("a reader", serve))
                wait_until(lambda: self.status_of_client()["ondemand"] or reader.wait(0), 20, "it is attached")
                self.assert_is_served(reader, error)
                self.assertTrue(reader.wait(20), self.machine.last_words())
                self.assertEqual(reader.result, 0, self.machine.last_words())
                self.assertIn(words, self.machine.all_words())
                wait_until(lambda: not self.status_of_client()["open"], 20, "the device is free")

    def status_of_client(self):
        return self.machine.control({"op": "status"})["cachefiles"]

    def test_one_in_another_user_namespace(self):
        self.assert_is_refused(lambda: call("unshare", _CLONE_NEWUSER), errno.EPERM, "another user namespace")

    def test_others_go_on_after_a_refusal(self):
        self.assert_is_refused(lambda: call("unshare", _CLONE_NEWUSER), errno.EPERM, "another user namespace")
        wait_until(lambda: error_of(os.close, os.open(self.device, os.O_RDWR)) == 0, 20, "the device is free")
        self.assert_serves(lambda: None)

    def test_a_buffer_that_cannot_be_written_to(self):
        def read():
            raw = UnaidedDevice(self.device)
            raw.bind(self.directory)
            assert raw.is_readable(20)
            before = set(os.listdir("/proc/self/fd"))
            got = _libc.read(raw.fd, ctypes.c_void_p(8), 1024)
            assert got < 0 and ctypes.get_errno() == errno.EFAULT
            assert set(os.listdir("/proc/self/fd")) == before
            raw.write(f"copen {raw.await_message().msg_id},{SIZE}")
            return 0
        reader = self.keep(Child("a reader", read))
        look = self.acquire()
        self.assertTrue(reader.wait(20), self.machine.last_words())
        self.assertEqual(reader.result, 0, self.machine.last_words())
        self.assertTrue(look.wait(20))
        self.assertEqual(look.result, 0)


if __name__ == "__main__":
    main(("strace",))
