"""Holdfast: the programs under test, on a root directory of their own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time

from harness.sandbox import Timeout, processes_of, wait_gone, wait_until

BIN = os.environ.get("HOLDFAST_BIN") or os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "..", "..", "build", "dev", "bin")


# The instances are where they are without --root.  Only in a mount namespace of one's own.
DEFAULT_ROOT = os.environ.get("HOLDFAST_TEST_DEFAULT_ROOT") == "1"

# For tests where what was not read is to be absent, or each read is to have a request of its own.
NO_READ_AHEAD = "--daemon-flag=--readahead-max=0"


class Holdfast:
    """One instance.  `name` chooses both --instance and the directory below the sandbox."""

    def __init__(self, box, name="t"):
        self.box = box
        self.name = name
        self.root = box.make_directory("h-" + name)
        if DEFAULT_ROOT:
            self.root = "/"
            _remove_default(name)
        self._mount_count = 0

    # Files.
    def run_path(self, *parts):
        return os.path.join(self.root, "run/holdfast", self.name, *parts)

    def state_path(self, *parts):
        return os.path.join(self.root, "var/lib/holdfast", self.name, *parts)

    def log_path(self, program):
        return os.path.join(self.root, "var/log/holdfast", self.name, program + ".log")

    def log_text(self, program="holdfastd"):
        try:
            with open(self.log_path(program), errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    # Commands.
    def root_flags(self):
        return [] if DEFAULT_ROOT else ["--root", self.root]

    @staticmethod
    def command_line(*arguments):
        return [os.path.join(BIN, "holdfast"), *arguments]

    def run(self, *arguments, timeout=60):
        """`holdfast ARGUMENTS`, whatever it says."""
        return self.box.run(self.command_line(*arguments), timeout=timeout)

    def mount_arguments(self, url, mount_point, *flags):
        return ["mount", *self.root_flags(), "--instance", self.name, *flags, url, mount_point]

    def try_mount(self, url, mount_point, *flags, timeout=60):
        return self.run(*self.mount_arguments(url, mount_point, *flags), timeout=timeout)

    def mount(self, url, *flags, mount_point=None):
        """Mounts, and returns the mount point."""
        if mount_point is None:
            self._mount_count += 1
            mount_point = self.box.make_directory(f"m-{self.name}-{self._mount_count}")
        done = self.try_mount(url, mount_point, *flags)
        assert done.returncode == 0, f"mount {url}: exit {done.returncode}: {done.stderr}"
        return mount_point

    def mount_file(self, url, *flags):
        """Mounts as a file, and returns the file's path."""
        point = self.mount(url, "--as=file", *flags)
        return os.path.join(point, url.rsplit("/", 1)[1])

    def umount(self, mount_point, *flags):
        done = self.run("umount", *self.root_flags(), *flags, mount_point)
        assert done.returncode == 0, f"umount {mount_point}: exit {done.returncode}: {done.stderr}"

    def start(self):
        done = self.run("start", *self.root_flags(), "--instance", self.name)
        assert done.returncode == 0, f"start: exit {done.returncode}: {done.stderr}"

    def stop(self):
        done = self.run("stop", *self.root_flags(), "--instance", self.name)
        assert done.returncode == 0, f"stop: exit {done.returncode}: {done.stderr}"

    def dump(self):
        done = self.run("dump", "--cache-dir", self.state_path("cache"))
        assert done.returncode == 0, f"dump: exit {done.returncode}: {done.stderr}"
        return done.stdout

    # What is so now.
    def control(self, request):
        """One question to the daemon's control socket."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(30)
            s.connect(self.run_path("control.sock"))
            try:
                s.sendall(json.dumps(request).encode() + b"\n")
            except BrokenPipeError:
                pass  # It has answered already: no.
            with s.makefile() as f:
                return json.loads(f.readline())

    def status(self):
        """What the daemon says of itself."""
        return self.control({"op": "status"})

    def waiting(self):
        """Requests that a reader waits for.  Reads far from each other each have their own."""
        return self.status()["requests"]["waiting"]

    def pending(self):
        """Requests of any kind that the fetcher has not answered, read-ahead among them."""
        return self.status()["requests"]["total"]

    def attached_pid(self):
        """The fetcher's pid, or None."""
        return self.status()["fetcher"].get("pid")

    def wait_waiting(self, count, seconds=20):
        try:
            wait_until(lambda: self.waiting() == count, seconds, f"{count} requests waited for")
        except Timeout as e:
            raise Timeout(f"{e}; now {self.waiting()}") from None

    def pid_of(self, program):
        with open(self.run_path(program + ".pid")) as f:
            return int(f.read().split()[0])

    def daemon_pid(self):
        return self.pid_of("holdfastd")

    def rss_bytes(self):
        with open(f"/proc/{self.daemon_pid()}/status") as f:
            for line in f:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) << 10
        raise AssertionError("no VmRSS")

    def assert_daemon_is(self, pid):
        """The daemon has not been replaced, and lives."""
        assert self.daemon_pid() == pid and not _is_zombie(pid), f"holdfastd {pid} has died"

    def processes(self):
        """(pid, program) of each of Holdfast's programs that runs in this sandbox."""
        found = []
        for pid in processes_of(self.box.directory):
            try:
                program = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
            except OSError:
                continue
            if program.startswith("holdfast") and not _is_zombie(pid):
                found.append((pid, program))
        return found

    # Deaths.
    def kill_fetcher(self):
        """SIGKILLs the fetcher that is attached, and sees it gone; returns when it was sent, or None."""
        pid = self.attached_pid()
        if pid is None:
            return None
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return None
        sent = time.time()
        assert wait_gone(pid, 30), f"fetcher {pid} survives SIGKILL"
        return sent

    def wait_fetcher(self, seconds=20, other_than=None):
        return wait_until(lambda: (lambda pid: pid if pid != other_than else None)(self.attached_pid()),
                          seconds, "a fetcher attached")

    def supervise_status(self):
        """What the supervisor sees."""
        with open(self.run_path("supervise.status")) as f:
            return json.load(f)

    def service(self, name):
        """What the supervisor sees of one service: holdfastd or fetcherd."""
        return next(service for service in self.supervise_status()["services"] if service["name"] == name)

    def supervisor_pid(self):
        return self.supervise_status()["pid"]

    def kill_supervisor(self):
        """SIGKILLs it, and its standby with it: nothing goes on in its place."""
        pid = self.supervisor_pid()
        os.kill(pid, signal.SIGSTOP)  # It makes no other standby.
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            children = [int(child) for child in f.read().split()]
        # Of an earlier standby, which has ended and is not reaped, there is no program.
        standbys = [child for child in children if _program_of(child) == "holdfast"]
        for end in [*standbys, pid]:
            os.kill(end, signal.SIGKILL)
        assert wait_gone(pid, 5), f"supervisor {pid} survives SIGKILL"

    def hold_supervisor(self):
        """From now on no supervisor restarts what dies, until release_supervisor()."""
        os.kill(self.supervisor_pid(), signal.SIGSTOP)

    def release_supervisor(self):
        os.kill(self.supervisor_pid(), signal.SIGCONT)


def _remove_default(name):
    """What another test has left of the instance; its processes are gone."""
    subprocess.run(["umount", "--lazy", "--quiet", f"/run/holdfast/{name}/fuse"], stderr=subprocess.DEVNULL)
    for place in ("run", "var/lib", "var/log"):
        shutil.rmtree(f"/{place}/holdfast/{name}", ignore_errors=True)


def _program_of(pid):
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except FileNotFoundError:
        return None


def _is_zombie(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def missing_binaries():
    return [b for b in ("holdfast", "holdfastd", "holdfast-fetcherd", "holdfast-metricsd") if not os.path.exists(os.path.join(BIN, b))]


def helper(name):
    """A C++ helper program of the tests."""
    return os.path.join(BIN, name)
