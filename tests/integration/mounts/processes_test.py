"""Locks, pids, limits and deaths: a command touches its own instance's processes only, and waits for no other's."""

import fcntl
import os
import re
import resource
import signal
import subprocess
import threading
import time

import _path  # noqa: F401
from harness.case import Case, main
from harness.holdfast import BIN, helper
from harness.programs import Programs
from harness.sandbox import wait_gone, wait_until

NOBODY = 65534
# Takes every lock it can on the paths that it is given, says so, and holds them.
LOCKER = """
import fcntl, os, sys, time
kept = []
for path in sys.argv[1:]:
    for kind in (os.O_RDONLY, os.O_RDWR):
        try:
            fd = os.open(path, kind)
        except OSError:
            continue
        for lock in (fcntl.flock, fcntl.lockf):
            for how in (fcntl.LOCK_EX, fcntl.LOCK_SH):
                try:
                    lock(fd, how | fcntl.LOCK_NB)
                except OSError:
                    pass
        kept.append(fd)
print("holds", flush=True)
time.sleep(600)
"""


class ProcessesTest(Case):
    def setUp(self):
        super().setUp()
        self.serve_random_image(2, 1 << 20)

    def command(self, *arguments, **options):
        return self.box.run([helper("holdfast"), *arguments, "--root", self.instance.root], **options)

    def kill(self, *services):
        self.instance.kill_supervisor()
        for pid in [self.instance.pid_of(service) for service in services]:
            os.kill(pid, signal.SIGKILL)
            self.assertTrue(wait_gone(pid, 5))

    # Locks.
    def test_locks_of_another_user_hold_up_no_command(self):
        first = self.instance.mount(self.url)
        run = self.instance.run_path()
        paths = [self.instance.root, os.path.dirname(run), os.path.join(os.path.dirname(run), ".locks"), run]
        for folder, folders, names in os.walk(run):
            folders[:] = [name for name in folders if name != "fuse"]
            paths += [os.path.join(folder, name) for name in folders + names if not name.endswith(".sock")]
        locks = os.path.join(os.path.dirname(run), ".locks")
        paths += [os.path.join(locks, name) for name in os.listdir(locks)]
        holder = self.box.start(["/usr/bin/python3", "-c", LOCKER, *paths], user=NOBODY, stdout=subprocess.PIPE,
                                text=True)
        self.assertEqual(holder.stdout.readline(), "holds\n")
        second = self.instance.mount(self.url)
        self.instance.umount(first)
        self.instance.umount(second)
        self.assertFalse(os.path.exists(self.instance.run_path("supervise.pid")))
        third = self.instance.mount(self.url)
        self.assertIsNone(holder.poll())
        self.instance.umount(third)

    def test_every_command_that_waits_for_a_lock_ends_with_its_timeout_and_names_the_holder(self):
        point = self.instance.mount(self.url)
        lock = os.path.join(os.path.dirname(self.instance.run_path()), ".locks", self.instance.name + ".lock")
        self.assertEqual(os.stat(lock).st_mode & 0o7777, 0o600)
        self.assertEqual(os.stat(os.path.dirname(lock)).st_mode & 0o7777, 0o700)
        with open(lock, "r+") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            f.truncate()
            f.write(f"{os.getpid()}\n")
            f.flush()
            other = self.box.make_directory("other")
            instance = ("--instance", self.instance.name)
            for command in (("mount", *instance, self.url, other), ("umount", point), ("umount", *instance, point),
                            ("umount", "--lazy", point), ("stop", *instance), ("upgrade", *instance)):
                with self.subTest(command[0]):
                    begin = time.monotonic()
                    done = self.command(*command, "--timeout=1500ms")
                    self.assertGreaterEqual(time.monotonic() - begin, 1.5)
                    self.assertEqual(done.returncode, 1)
                    self.assertRegex(done.stderr, rf"process {os.getpid()} \(python3.*holds the lock {lock} for longer "
                                                  r"than 1[45]\d\d ms; wait for it \(--timeout\) or end it")
            for verb in ("umount", "stop", "upgrade"):
                done = self.command(verb, "--timeout=0s", *([point] if verb == "umount" else []))
                self.assertEqual(done.returncode, 2)
                self.assertIn("--timeout must be at least 1ms", done.stderr)
        self.assertEqual(sorted(os.listdir(point)), sorted(os.listdir(self.tree)))
        self.assertEqual(os.listdir(other), [])
        self.instance.umount(point)

    def test_directories_that_another_user_could_change_are_refused(self):
        state = self.instance.state_path()
        os.makedirs(state)
        os.chown(os.path.dirname(state), NOBODY, NOBODY)
        point = self.box.make_directory("point")
        self.assert_one_line(self.instance.try_mount(self.url, point), "belongs to user 65534")
        os.chown(os.path.dirname(state), 0, 0)
        cache = self.box.make_directory("cache")
        os.chmod(cache, 0o1777)
        self.assert_one_line(self.instance.try_mount(self.url, point, f"--cache-dir={cache}"), "others.*may write")
        self.assertEqual(os.listdir(cache), [])
        self.instance.mount(self.url, mount_point=point)

    def test_a_signal_finds_no_thread_of_a_daemon_that_does_not_block_it(self):
        """It would end the daemon at once, without its last sync.  A spare has threads of RocksDB from before its turn."""
        self.instance.mount(self.url)
        for _ in range(2):
            pid = self.instance.daemon_pid()
            threads = []
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/status") as f:
                    fields = dict(line.split(":\t") for line in f.read().splitlines() if ":\t" in line)
                if not int(fields["SigBlk"], 16) >> (signal.SIGTERM - 1) & 1:
                    threads.append(fields["Name"])
            self.assertEqual(threads, [])
            wait_until(lambda: self.instance.service("holdfastd")["spare"], 30, "a spare")
            spare = self.instance.service("holdfastd")["spare"]
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: self.instance.service("holdfastd")["pid"] == spare and
                       self.instance.service("holdfastd")["state"] == "ready", 30, "the spare serves")

    # Pids.
    def test_only_the_instances_own_processes_are_ended(self):
        self.instance.mount(self.url)
        other = self.holdfast(self.instance.name + "2")
        other.root = self.instance.root
        kept = other.mount(self.url)
        run = self.instance.run_path()
        bystander = self.box.start(["/bin/sh", "-c", "sleep 600; :", f"--run-dir={run}"])
        point = self.instance.mount(self.url)
        self.kill("holdfastd", "fetcherd")
        for service, pid in (("holdfastd", other.daemon_pid()), ("fetcherd", bystander.pid)):
            with open(self.instance.run_path(service + ".pid"), "w") as f:
                f.write(f"{pid}\n")
        self.instance.umount(point)
        done = self.command("umount", "--force", os.path.dirname(point) + "/m-t-1")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIsNone(bystander.poll(), "a bystander was ended")
        self.assertEqual(sorted(os.listdir(kept)), sorted(os.listdir(self.tree)))
        self.assertTrue(other.status()["ok"])
        other.umount(kept)

    def test_supervise_leaves_an_instance_alone_that_others_run(self):
        for path in (self.instance.run_path(), self.instance.state_path("cache"), self.instance.state_path("sources")):
            os.makedirs(path)
        daemon = self.box.start([os.path.join(BIN, "holdfastd"), f"--cache-dir={self.instance.state_path('cache')}",
                                 f"--run-dir={self.instance.run_path()}"], stderr=subprocess.DEVNULL)
        wait_until(lambda: os.path.exists(self.instance.run_path("control.sock")), 20, "the daemon's socket")
        self.assertTrue(self.instance.status()["ok"])
        wait_until(lambda: os.path.exists(self.instance.run_path("fuse.init.answer")), 20, "the daemon at rest")
        before = sorted(os.listdir(self.instance.run_path()))
        done = self.command("supervise", "--instance", self.instance.name)
        self.assert_one_line(done, "was not started by holdfast.*systemctl stop")
        self.assertEqual(sorted(os.listdir(self.instance.run_path())), before)
        self.assertIsNone(daemon.poll())
        self.assertTrue(self.instance.status()["ok"])

    def test_a_claim_that_was_cut_short_by_a_death_is_taken_over(self):
        point = self.instance.mount(self.url)
        records = os.listdir(self.instance.run_path("mounts"))
        self.instance.umount(point)
        os.makedirs(self.instance.run_path("mounts"))
        for name in records:
            open(self.instance.run_path("mounts", name), "w").close()
        self.instance.mount(self.url, mount_point=point)

    # Names.
    def test_a_mount_point_that_is_not_utf_8_is_like_any_other(self):
        point = os.fsencode(self.box.directory) + b"/m-\xff\xe4,:\\ \xc3\xa4"
        os.mkdir(point)
        done = self.instance.try_mount(self.url, os.fsdecode(point))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(sorted(os.listdir(point)), [os.fsencode(name) for name in sorted(os.listdir(self.tree))])
        second = self.instance.try_mount(self.url, os.fsdecode(point))
        self.assertIn("already shows", second.stderr)
        done = self.command("status", "--json")
        self.assertIn(r"m-\u0000ff\u0000e4,:", done.stdout)
        self.instance.umount(os.fsdecode(point))
        self.assertFalse(os.path.ismount(point))

    # Limits.
    def limited(self, limit, values, *arguments):
        def impose():
            resource.setrlimit(limit, values)
        return self.box.run(self.holdfast_command(*arguments), preexec_fn=impose)

    def holdfast_command(self, *flags):
        point = self.box.make_directory("limited")
        return [helper("holdfast"), *self.instance.mount_arguments(self.url, point, *flags)]

    def test_a_soft_limit_on_descriptors_is_raised(self):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        done = self.limited(resource.RLIMIT_NOFILE, (256, hard))
        self.assertEqual(done.returncode, 0, done.stderr)
        for pid in (self.instance.supervisor_pid(), self.instance.daemon_pid(), self.instance.attached_pid()):
            # prlimit(2) on a process of another user needs CAP_SYS_RESOURCE.
            with open(f"/proc/{pid}/limits") as f:
                limits = re.search(r"Max open files +(\d+) +(\d+)", f.read())
            self.assertEqual([int(limit) for limit in limits.groups()], [hard, hard])

    def test_a_limit_on_file_size_is_raised_or_said_and_passes_with_its_cause(self):
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        done = self.limited(resource.RLIMIT_FSIZE, (4096, hard))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.instance.umount(self.box.path("limited"))
        done = self.limited(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        if done.returncode != 0:  # A user that may raise a hard limit does.
            self.assert_one_line(done, r"1048576 bytes at most \(ulimit -f\).*raise the limit")
        else:
            self.instance.umount(self.box.path("limited"))
        self.instance.mount(self.url)

    # Deaths.
    def test_a_daemon_that_a_signal_ends_at_its_start_is_reported_as_that(self):
        programs = Programs(self.box)
        programs.replace_by_script("holdfastd", "kill -SEGV $$\n")
        point = self.box.make_directory("point")
        self.assert_one_line(self.instance.try_mount(self.url, point), r"holdfastd ended: killed by signal 11")
        programs.replace("holdfastd")
        self.instance.mount(self.url, mount_point=point)

    def test_a_mount_outlives_the_death_of_the_daemon_that_it_asked(self):
        first = self.instance.mount(self.url)
        with open(self.image, "rb") as f:
            slow = self.misbehave(body=f.read())
        slow.delay = 2
        point = self.box.make_directory("point")
        mounting = self.box.start([helper("holdfast"), *self.instance.mount_arguments(slow.url(), point)],
                                  stderr=subprocess.PIPE, text=True)
        wait_until(lambda: slow.requests, 30, "the origin asked")
        daemon = self.instance.daemon_pid()
        os.kill(daemon, signal.SIGKILL)
        self.assertTrue(wait_gone(daemon, 5))
        slow.delay = 0
        _, said = mounting.communicate(timeout=60)
        self.assertEqual(mounting.returncode, 0, said)
        self.assertEqual(sorted(os.listdir(point)), sorted(os.listdir(first)))

    def test_the_settings_that_it_runs_with_may_be_given_again(self):
        settings = ("--fetch-size=128K", "--daemon-flag=--v=0")
        self.assertEqual(self.instance.try_mount(self.url, self.box.make_directory("one"), *settings).returncode, 0)
        self.assertEqual(self.instance.try_mount(self.url, self.box.make_directory("two"), *settings).returncode, 0)
        done = self.instance.try_mount(self.url, self.box.make_directory("three"), "--fetch-size=64K")
        self.assert_one_line(done, r"is running with other settings")

    def test_the_timeout_bounds_a_mount_as_a_whole_and_nothing_gives_up_sooner(self):
        self.instance.mount(self.url)
        with open(self.image, "rb") as f:
            origin = self.misbehave(body=f.read())
        origin.status = 503
        point = self.box.make_directory("point")
        begin = time.monotonic()
        done = self.instance.try_mount(origin.url(), point, "--timeout=6s")
        took = time.monotonic() - begin
        self.assert_one_line(done, r"503.*--timeout waits longer")
        self.assertGreater(took, 4.9)
        self.assertLess(took, 20)
        healed = threading.Timer(6, lambda: setattr(origin, "status", 0))
        healed.start()
        self.addCleanup(healed.cancel)
        done = self.instance.try_mount(origin.url(), point, "--timeout=40s")
        self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    main(tools=("mkfs.erofs",))
