"""`holdfast cachefiles-run --exact-ids`: a static program gets the kernel's ids, by a process that makes its completions."""

import errno
import fcntl
import os
import re
import signal
import subprocess
import unittest

import _path  # noqa: F401
from harness import images
from harness.cachefiles.cachefiles_case import CLIENTS, CachefilesCase, image
from harness.cachefiles.raw_device import READ_COMPLETE_OF_THE_KERNEL, error_of
from harness.case import main
from harness.holdfast import BIN
from harness.readers import RIGHT, Reader
from harness.sandbox import wait_until
from restart_test import RestartCase

PLACE = "/dev/cachefiles"
LIVES = 15  # Of holdfastd.
SMALL = 1 << 20  # No id of a test is as large; without the completer none is as small.


class Exact:
    """Of a case of the cachefiles device."""

    kind = "static C"

    def launch(self, *command):
        return [os.path.join(BIN, "holdfast"), "cachefiles-run", "--static", "--exact-ids", "--cachefiles-device=" + self.device, "--", *command]

    def program(self):
        return self.launch(*CLIENTS[self.kind])

    def completers(self):
        """The processes that make completions for programs of this test."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    words = f.read().split(b"\0")
            except OSError:
                continue
            if b"--exact-ids" in words and os.fsencode("--cachefiles-device=" + self.device) in words:
                found.append(int(pid))
        return found

    def assert_exact(self, log):
        ids = [int(number) for number in re.findall(r"^id (\d+) of", self.text(log), re.M)]
        self.assertTrue(ids)
        self.assertLess(max(ids), SMALL)
        self.assertEqual(len(ids), len(set(ids)), "a READ was delivered twice")


class StaticProgramTest(Exact, CachefilesCase):
    def test_an_image_is_read_by_ids_of_the_kernel(self):
        path, _ = image()
        self.source("image", path)
        process, log = self.client(PLACE, "bind")
        self.assert_reads_right(self.machine.acquire("erofs,image", "image"), path)
        self.assert_exact(log)
        self.assertEqual(len(self.completers()), 1)
        self.kill(process)
        wait_until(lambda: not self.completers(), 20, "the completer has ended")

    def test_a_child_goes_on_when_the_program_has_ended(self):
        path, _ = image()
        self.source("image", path)
        log = self.box.path("child.log")
        done = self.box.run(self.launch("sh", "-c", '"$@" >"$0" 2>&1 & exit 7', log, *CLIENTS[self.kind], PLACE, self.directory, self.sources, "bind"))
        self.assertEqual(done.returncode, 7)
        wait_until(lambda: os.path.exists(log) and "ready" in self.text(log), 20, "the child is ready")
        self.assert_reads_right(self.machine.acquire("erofs,image", "image"), path)
        self.assert_exact(log)


@unittest.skipUnless(os.path.exists(CLIENTS["static Go"][0]), "no Go compiler")
class StaticGoProgramTest(StaticProgramTest):
    kind = "static Go"


class ExactRestartTest(Exact, RestartCase):
    def test_the_ids_stay_exact_when_holdfastd_is_killed(self):
        path = self.source("image", images.random_file(64 << 20))
        process, log = self.client(PLACE, "bind", "0", "1")
        with open(path, "rb") as f:
            truth = f.read()
        reader = self.keep(Reader(self.machine.acquire("erofs,image", "image"), 0, len(truth), truth))
        reads, lives = -1, 0
        while lives < LIVES and reader.result is None and not reader.wait(0):
            now = self.text(log).count("\nid ")
            if now == reads:
                continue
            reads, lives = now, lives + 1
            self.restart()
        self.assertTrue(reader.wait(60), self.machine.last_words())
        self.assertEqual(reader.result, RIGHT)
        self.assertGreater(lives, 2)
        self.assertIsNone(process.poll(), self.text(log))
        self.assert_exact(log)


class CallsTest(Exact, CachefilesCase):
    def run_python(self, code, *arguments, **options):
        return self.box.run(self.launch("/usr/bin/python3", "-c", code, *arguments), **options)

    def test_the_same_ioctl_of_other_files_goes_on(self):
        code = ("import fcntl, os, socket, sys\n"
                "files = [os.open('/dev/null', os.O_RDWR), os.open(sys.argv[1], os.O_RDONLY), os.pipe()[0], socket.socket().fileno(), 999, -1,\n"
                "         os.memfd_create('x'), os.open('/proc/self/status', os.O_RDONLY), os.open('/', os.O_PATH), os.open(sys.argv[2], os.O_RDWR)]\n"
                "for fd in files:\n"
                "    for command, argument in ((%d, 5), (%d, 0), (0x5401, 0), (0x9802, 1)):\n"
                "        try: print(fcntl.ioctl(fd, command, argument) if fd >= 0 else 'none')\n"
                "        except OSError as error: print(error.errno)\n") % (READ_COMPLETE_OF_THE_KERNEL, READ_COMPLETE_OF_THE_KERNEL)
        plain = self.box.path("plain")
        with open(plain, "w"):
            pass
        alone = self.box.run(["/usr/bin/python3", "-c", code, plain, self.device])
        self.assertEqual((alone.returncode, alone.stderr), (0, ""))
        wait_until(lambda: error_of(lambda: os.close(os.open(self.device, os.O_RDWR))) == 0, 20, "the device is free")
        under = self.run_python(code, plain, self.device)
        self.assertEqual((under.returncode, under.stderr), (0, ""))
        self.assertEqual(under.stdout, alone.stdout)
        self.assertIn(f"{errno.ENOTTY}\n", alone.stdout)

    def test_the_completer_keeps_no_descriptor_of_the_program(self):
        fd = self.open_device()
        process = self.box.start(self.launch("cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[fd])
        process.stdin.write(b"x")
        process.stdin.flush()
        self.assertEqual(process.stdout.read(1), b"x")
        completer, = self.completers()

        def kept():
            try:
                return {os.readlink(f"/proc/{completer}/fd/{number}") for number in os.listdir(f"/proc/{completer}/fd")}
            except FileNotFoundError:  # It was closed just now.
                return None
        # The socket to the launcher is closed after the program has begun.
        wait_until(lambda: {name for name in kept() or () if not name.startswith(("anon_inode:", "pipe:"))} == {"/dev/null"}, 20,
                   f"it has closed all, and not: {kept()}")
        with open(f"/proc/{completer}/stat") as f:
            words = f.read().rpartition(")")[2].split()
        self.assertNotEqual(int(words[1]), process.pid, "it is no child of the program")
        self.assertEqual(int(words[3]), int(os.getsid(completer)))
        self.assertNotEqual(os.getsid(completer), os.getsid(process.pid))
        process.stdin.close()
        self.assertEqual(process.wait(20), 0)
        process.stdout.close()

    def test_the_program_keeps_its_process_its_signals_and_its_status(self):
        process = self.box.start(self.launch("sh", "-c", "echo $$; exec cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.assertEqual(process.stdout.readline(), f"{process.pid}\n")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), -signal.SIGTERM)
        process.stdin.close()
        process.stdout.close()
        wait_until(lambda: not self.completers(), 20, "the completer has ended")
        self.assertEqual(self.run_python("raise SystemExit(9)").returncode, 9)
        self.assertEqual(self.box.run(self.launch("nonexistent")).returncode, 127)

    def test_without_its_completer_the_ioctl_fails(self):
        path, _ = image()
        self.source("image", path)
        process, log = self.client(PLACE, "bind")
        served = self.machine.acquire("erofs,image", "image")
        for pid in self.completers():
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self.completers(), 20, "it is gone")
        reader = self.keep(Reader(served, 0, 4096))
        process.wait(20)
        self.assertIn("READ_COMPLETE: Function not implemented", self.text(log))
        self.assertTrue(reader.wait(20), "nothing holds the device")
        # The next program has a completer of its own.
        _, log = self.client(PLACE, "bind")
        self.assert_reads_right(served, path)
        self.assert_exact(log)

    def test_signals_that_restart_calls_do_not_interrupt_it(self):
        code = ("import fcntl, os, signal, sys\n"
                "count = [0]\n"
                "def caught(number, frame): count[0] += 1\n"
                "signal.signal(signal.SIGALRM, caught); signal.siginterrupt(signal.SIGALRM, False)\n"
                "null = os.open('/dev/null', os.O_RDWR)\n"
                "signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)\n"
                "while count[0] < 500:\n"
                "    try: fcntl.ioctl(null, %d, 5)\n"
                "    except OSError as error: assert error.errno == 25, error\n"
                "signal.setitimer(signal.ITIMER_REAL, 0)\n") % READ_COMPLETE_OF_THE_KERNEL
        done = self.run_python(code)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_no_program_begins_without_a_completer_that_serves(self):
        for limit in range(4, 16):
            with self.subTest(limit=limit):
                process = self.box.start(["sh", "-c", f'ulimit -n {limit} && exec "$@"', "sh", *self.launch("sh", "-c", "echo begun; read word")],
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                if process.stdout.readline() == "begun\n":
                    completer, = self.completers()
                    self.assertEqual(len(os.listdir(f"/proc/{completer}/task")), 2, "both of its threads run")
                _, said = process.communicate("\n", timeout=20)
                wait_until(lambda: not self.completers(), 20, "the completer has ended")
                self.assertLessEqual(said.count("\n"), 1, said)

    def test_errors(self):
        done = self.box.run([self.launch()[0], "cachefiles-run", "--exact-ids", "--", "true"])
        self.assert_one_line(done, "--static")
        self.assertEqual(done.returncode, 2)
        done = self.box.run(self.launch(*self.launch("true")))
        self.assert_one_line(done, "--exact-ids cannot be used below itself")
        self.machine.kill(self.machine.daemon)
        done = self.box.run(self.launch("true"))
        self.assert_one_line(done, "Transport endpoint is not connected")

    def test_the_attribute_is_for_administrators_and_the_device(self):
        os.chmod(self.box.directory, 0o755)
        code = ("import os, sys\nfor name in ('user.holdfast.exact-ids', 'user.other'):\n"
                "    try: os.setxattr(sys.argv[1], name, b'')\n    except OSError as error: print(error.errno)")
        done = self.box.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c", code, self.device])
        self.assertEqual(done.stdout, f"{errno.EPERM}\n{errno.EOPNOTSUPP}\n", done.stderr)


if __name__ == "__main__":
    main()
