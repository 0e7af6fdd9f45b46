"""The shipped units under a real systemd: kills, restarts, hangs, and what `holdfast mount` makes of it."""

import errno
import mmap
import os
import random
import shutil
import signal
import sys
import unittest

import _path  # noqa: F401
from harness import images, systemd
from harness.case import SKIP, Case, main
from harness.readers import Reader
from harness.sandbox import die_with_parent, wait_gone, wait_until

DAEMON = "holdfastd@t.service"
FETCHER = "holdfast-fetcherd@t.service"
BLOCK = 4096
READERS = 6
PATIENCE_S = 30
ROUNDS = 3
# As /etc/holdfast/t.env: each block is fetched for itself, so that there is something to fetch all the time.
ENVIRONMENT = 'HOLDFASTD_FLAGS="--readahead-max=0 --fetch-size=4K"'
DELAY_MS = 40


class Load:
    """Processes that read and compare for as long as it is open, by turns what was not read yet and what is present.

    Every read reaches the daemon (O_DIRECT).
    """

    def __init__(self, path, truth, seed):
        self._counts = mmap.mmap(-1, 8 * READERS)
        self._pids = []
        for i in range(READERS):
            pid = os.fork()
            if pid == 0:
                self._read_for_ever(path, truth, i, random.Random(seed + i))
            self._pids.append(pid)

    def _read_for_ever(self, path, truth, index, rng):
        error = "nothing fresh is left; the test takes too long for its file"
        try:
            die_with_parent()
            buffer = mmap.mmap(-1, BLOCK)
            fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
            fresh = list(range(index, len(truth) // BLOCK, READERS))
            rng.shuffle(fresh)
            count = 0
            while count < 2 * len(fresh):
                # Even: the next fresh one.  Odd: one of those before.
                offset = BLOCK * fresh[count // 2 if count % 2 == 0 else rng.randrange(count // 2 + 1)]
                got = os.preadv(fd, [buffer], offset)
                if got != BLOCK or buffer[:] != truth[offset:offset + BLOCK]:
                    error = f"wrong bytes at {offset} ({got} of {BLOCK})"
                    break
                count += 1
                self._counts[8 * index:8 * index + 8] = count.to_bytes(8, "little")
        except OSError as e:
            error = str(e)
        finally:
            os.write(2, f"reader {index}: {error}\n".encode())
            os._exit(1)

    def counts(self):
        return [int.from_bytes(self._counts[8 * i:8 * i + 8], "little") for i in range(READERS)]

    def wait_progress(self, times=3):
        """Each reader has got so many right answers to what it asked from now on, and one more for what it had."""
        before = self.counts()
        wait_until(lambda: self._all_alive() and all(now > then + times for now, then in zip(self.counts(), before)),
                   PATIENCE_S, "every reader goes on")

    def _all_alive(self):
        for pid in self._pids:
            assert not wait_gone(pid, 0), "a reader has ended: an error or wrong bytes"
        return True

    def close(self):
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
        for pid in self._pids:
            assert wait_gone(pid, 10), f"reader {pid} survives SIGKILL"
            os.waitpid(pid, 0)


class SystemdTest(Case):
    def setUp(self):
        super().setUp()
        self.truth = images.random_file(32 << 20)
        with open(self.truth, "rb") as f:
            self.bytes = f.read()
        self.name = os.path.basename(self.truth)
        self.origin = self.serve(os.path.dirname(self.truth), delay_ms=DELAY_MS)
        self.machine = systemd.SystemdMachine(self.box)
        self.addCleanup(self._end)

    def _end(self):
        if self.has_failed():
            print(f"--- systemd and services\n{self.machine.log()[-8000:]}", file=sys.stderr)
        self.machine.close()

    def mount(self):
        """Starts the units; the path of the mounted file, seen from here."""
        self.machine.run("sh", "-c", f"mkdir -p /etc/holdfast && echo '{ENVIRONMENT}' >/etc/holdfast/t.env")
        self.machine.systemctl("start", DAEMON)
        return self.mount_file("/run/mnt")

    def mount_file(self, point):
        self.machine.run("mkdir", "-p", point)
        self.machine.run("holdfast", "mount", "--instance", "t", "--as=file", self.origin.url(self.name), point)
        return self.machine.path(f"{point}/{self.name}")

    def start_load(self):
        seed = random.randrange(1 << 32)
        print(f"seed {seed}", file=sys.stderr)
        load = Load(self.mount(), self.bytes, seed)
        self.addCleanup(load.close)
        load.wait_progress()
        return load

    def wait_other_pid(self, unit, pid):
        """The unit's next life has said that it is ready."""
        wait_until(lambda: self.machine.show(unit, "SubState") == "running" and
                   self.machine.main_pid(unit) not in (0, pid), PATIENCE_S, f"{unit} runs anew")

    def end(self, units, end_one):
        """Each ends by its process's death, and comes back; the readers go on."""
        pids = {unit: self.machine.main_pid(unit) for unit in units}
        for pid in pids.values():
            end_one(pid)
        for unit, pid in pids.items():
            self.wait_other_pid(unit, pid)
        self.load.wait_progress()

    def test_reads_go_on_over_sigkill_of_the_daemon_of_the_fetcher_and_of_both(self):
        self.load = self.start_load()
        for i in range(ROUNDS):
            for units in ((DAEMON,), (FETCHER,), (DAEMON, FETCHER), (FETCHER, DAEMON)):
                with self.subTest(round=i, units=units):
                    self.end(units, lambda pid: os.kill(pid, signal.SIGKILL))
        self.assertGreaterEqual(int(self.machine.show(DAEMON, "NRestarts")), 3 * ROUNDS)

    def test_reads_go_on_over_systemctl_restart(self):
        self.load = self.start_load()
        for _ in range(ROUNDS):
            for units in ((DAEMON,), (FETCHER,), (DAEMON, FETCHER)):
                pids = [self.machine.main_pid(unit) for unit in units]
                self.machine.systemctl("restart", *units)
                for unit, pid in zip(units, pids):
                    self.wait_other_pid(unit, pid)
                self.load.wait_progress()
        self.assertEqual(self.machine.show(DAEMON, "NRestarts"), "0")

    def test_the_watchdog_ends_what_hangs_and_reads_go_on(self):
        for unit in ("holdfastd@", "holdfast-fetcherd@"):
            self.machine.drop_in(unit, "[Service]\nWatchdogSec=2s\nTimeoutAbortSec=2s\n")
        self.load = self.start_load()
        for units in ((DAEMON,), (FETCHER,), (DAEMON, FETCHER)):
            with self.subTest(units=units):
                self.end(units, lambda pid: os.kill(pid, signal.SIGSTOP))
        self.assertEqual([self.machine.show(unit, "NRestarts") for unit in (DAEMON, FETCHER)], ["2", "2"])

    def test_what_the_snapshotter_does_is_within_the_limits_of_its_unit(self):
        tree = self.box.make_directory("tree")
        shutil.copy(self.truth, os.path.join(tree, "f"))
        web = self.box.make_directory("web")
        images.make_erofs(tree, os.path.join(web, "erofs"))
        url = self.serve(web).url("erofs")
        self.mount()
        with open(os.path.join(systemd.PACKAGING, "holdfast-snapshotter.service")) as f:
            unit = f.read()
        limits = unit[unit.index("NoNewPrivileges="):unit.index("[Install]")]
        self.machine.run("mkdir", "/run/erofs")
        for arguments in (f"mount --instance t {url} /run/erofs", "umount /run/erofs"):
            self.machine.add_unit("probe.service", "[Service]\nType=oneshot\n"
                                  "StandardOutput=append:/var/lib/holdfast/services.log\n"
                                  f"ExecStart=/usr/local/sbin/holdfast {arguments}\n{limits}")
            self.machine.systemctl("start", "probe.service")
            if arguments.startswith("mount"):
                self.assert_reads_right(self.machine.path("/run/erofs/f"), self.truth, 0, 1 << 20)
        self.machine.add_unit("holdfast-snapshotter.service", unit)
        self.machine.run("sh", "-c", "echo HOLDFAST_SNAPSHOTTER_FLAGS=--instance=t >/etc/holdfast/snapshotter.env")
        self.machine.systemctl("start", "holdfast-snapshotter.service")
        self.assertEqual(self.machine.show("holdfast-snapshotter.service", "SubState"), "running")

    def test_holdfast_mount_uses_the_units_and_leaves_them_to_systemd(self):
        path = self.mount()
        self.assert_reads_right(path, self.truth, 1 << 20, 1 << 20)
        self.assertIn(f"kept by systemd as {DAEMON}", self.machine.run("holdfast", "status").stdout)
        self.machine.run("mkdir", "/run/mnt2")
        done = self.machine.run("holdfast", "mount", "--instance", "t", "--fetch-size=1M", "--as=file",
                                self.origin.url(self.name), "/run/mnt2", check=False)
        self.assert_one_line(done, "was not started by holdfast mount.*/etc/holdfast/t.conf")
        self.machine.run("holdfast", "umount", "/run/mnt")
        self.assert_one_line(self.machine.run("holdfast", "stop", "--instance", "t", check=False),
                             f"systemctl stop {DAEMON}")
        pid = self.machine.main_pid(DAEMON)
        self.assertNotEqual(pid, 0)
        # Not even while there is no daemon.
        self.machine.drop_in("holdfastd@", "[Service]\nRestartSec=1h\n")
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: self.machine.show(DAEMON, "SubState") == "auto-restart", PATIENCE_S, "no daemon")
        self.assert_one_line(self.machine.run("holdfast", "stop", "--instance", "t", check=False),
                             f"systemctl stop {DAEMON}")
        self.machine.systemctl("restart", DAEMON)
        self.assert_reads_right(self.mount_file("/run/mnt"), self.truth, 1 << 20, 1 << 20)

    def test_a_configuration_file_applies_and_a_fault_in_it_ends_nothing(self):
        write = "mkdir -p /etc/holdfast && printf '[holdfastd]\\nfetch-size = \"%s\"\\n' >/etc/holdfast/t.conf"
        self.machine.run("sh", "-c", write % "8K")
        self.machine.systemctl("start", DAEMON)
        path = self.mount_file("/run/mnt")
        self.assertIn("t.conf:2", self.machine.run("holdfast", "config", "show", "--instance", "t").stdout)
        self.machine.run("sh", "-c", write % "3K")
        for unit in (DAEMON, FETCHER):
            pid = self.machine.main_pid(unit)
            os.kill(pid, signal.SIGKILL)
            self.wait_other_pid(unit, pid)
        self.assert_reads_right(path, self.truth, 1 << 20, 1 << 20)
        self.assertIn("/etc/holdfast/t.conf:2: holdfastd.fetch-size: ", self.machine.log())
        with open(self.machine.path("/run/holdfast/t/holdfastd.flags")) as f:
            self.assertEqual(f.read(), "--fetch-size=8K\n")

    def test_the_fetcher_has_no_rights_and_all_users_see_the_mount(self):
        self.mount()
        with open(f"/proc/{self.machine.main_pid(FETCHER)}/status") as f:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
        self.assertNotEqual(status["Uid"].split()[0], "0")
        self.assertEqual(int(status["CapBnd"], 16), 0)
        self.assertEqual(status["NoNewPrivs"], "1")
        self.assertEqual(os.readlink(f"/proc/{self.machine.main_pid(DAEMON)}/ns/mnt"),
                         os.readlink(f"/proc/{self.machine.pid}/ns/mnt"))
        source = os.listdir(self.machine.path("/var/lib/holdfast/t/sources"))[0]
        info = os.stat(self.machine.path(f"/var/lib/holdfast/t/sources/{source}"))
        self.assertEqual((info.st_mode & 0o777, info.st_uid), (0o600, 0))

    def test_an_image_that_only_root_can_read_is_mounted_and_read_on_after_deaths(self):
        self.machine.systemctl("start", DAEMON)
        directory = self.machine.path("/var/lib/holdfast/private")
        os.mkdir(directory, 0o700)
        shutil.copy(self.truth, directory + "/x.img")
        os.chmod(directory + "/x.img", 0o600)
        self.machine.run("mkdir", "-p", "/run/mnt")
        self.machine.run("holdfast", "mount", "--instance", "t", "--as=file", "file:///var/lib/holdfast/private/x.img",
                         "/run/mnt")
        path = self.machine.path("/run/mnt/x.img")
        for i, unit in enumerate((None, FETCHER, DAEMON)):
            if unit:
                pid = self.machine.main_pid(unit)
                os.kill(pid, signal.SIGKILL)
                self.wait_other_pid(unit, pid)
            self.assert_reads_right(path, self.truth, i << 23, 1 << 20)

    def test_stop_ends_the_mount_and_start_begins_with_the_fetched_bytes(self):
        path = self.mount()
        self.assert_reads_right(path, self.truth, 1 << 20, 1 << 20)
        self.machine.systemctl("stop", DAEMON, FETCHER)
        # Opening it fails too once its name has to be looked up again, which is after a second.
        reader = self.keep(Reader(path, 8 << 20, BLOCK))
        self.assertTrue(reader.wait(PATIENCE_S))
        self.assertEqual(reader.result, errno.ENOTCONN)
        self.machine.run("holdfast", "umount", "/run/mnt")
        self.origin.stop()
        self.assert_reads_right(self.mount(), self.truth, 1 << 20, 1 << 20)


if __name__ == "__main__":
    reasons = systemd.unmet()
    if reasons:
        print("SKIP: " + ", ".join(reasons))
        sys.exit(SKIP)
    main(tools=("nsenter", "systemctl", "systemd-sysusers"))
