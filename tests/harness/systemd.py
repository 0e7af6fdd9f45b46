"""SystemdMachine: a real systemd of one test, which runs the shipped units and can reach nothing else.

It is process 1 of a PID namespace of its own.  Its mount namespace has the machine's files read-only, empty
directories in place of /tmp, /var/lib, /var/log, /var/tmp and of everything that would make systemd start or change more
than it is told to (the distribution's units, generators, tmpfiles.d, sysctl.d), and a state directory of the
sandbox as /var/lib/holdfast.  The programs under test stand in /usr/local/sbin, where units find them.
"""

import os
import shutil
import signal

from harness.holdfast import BIN
from harness.sandbox import Sandbox, Timeout, wait_gone, wait_until

PACKAGING = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", "packaging", "systemd"))
SYSTEMD = "/lib/systemd/systemd"
# What default dependencies name.
TARGETS = ("sysinit", "basic", "shutdown", "multi-user", "local-fs", "network", "nss-lookup")

# In a mount namespace of its own, so that nothing is left mounted; then again, in the group of control groups
# that systemd is to take for the root of all.
_OUTER = """set -e
mount --make-rprivate /
mount -t cgroup2 cgroup2 "$BOX/cgroup"
group=$BOX/cgroup/holdfast-test-$$
mkdir "$group"
# Its last processes may be about to go.
trap 'for i in $(seq 50); do find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break; sleep 0.1; done' EXIT
sh -c 'echo $$ >"$1/cgroup.procs"; exec unshare --pid --fork --kill-child=KILL --mount --cgroup --ipc --uts \
  bash "$BOX/inner.sh"' sh "$group"
"""

_INNER = """set -e
mount --make-rprivate /
mount -t proc proc /proc
while read -r _ _ _ _ point _; do
  case $(printf '%b' "$point") in
    /proc | /proc/*) ;;
    *) mount -o remount,bind,ro "$(printf '%b' "$point")" 2>/dev/null || true ;;
  esac
done </proc/self/mountinfo
# If this were not so, systemd could do harm.
for directory in / /dev /etc /home /root /tmp /usr /var /var/lib /var/tmp "$BOX"; do
  if [ -w "$directory" ]; then echo "$directory cannot be made read-only" >&2; exit 1; fi
done

mount -t tmpfs tmpfs /run
mkdir /run/helpers /run/helpers-work /run/etc /run/work /run/units /run/state /run/sbin /run/empty
mount --bind "$BOX/units" /run/units
mount --bind "$BOX/state" /run/state
mount -o remount,bind,rw /run/state
mount --bind "$PROGRAMS" /run/sbin
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/work /etc
systemd-sysusers "$PACKAGING/holdfast.sysusers"
for directory in /tmp /var/tmp /var/lib /var/log; do mount -t tmpfs tmpfs "$directory"; done
for directory in systemd/system systemd/system-generators systemd/system-environment-generators \
    systemd/system-shutdown systemd/system-preset tmpfiles.d sysctl.d modules-load.d binfmt.d environment.d; do
  if [ -d "/usr/lib/$directory" ]; then mount --bind /run/empty "/usr/lib/$directory"; fi
done
mount -t tmpfs tmpfs /etc/systemd
mount --bind /run/state/console /dev/console
mkdir /var/lib/holdfast /run/mnt
mount --move /run/state /var/lib/holdfast
mount --move /run/sbin /usr/local/sbin
# Where mount(8) looks for it.
mount -t overlay overlay -o lowerdir=/usr/sbin,upperdir=/run/helpers,workdir=/run/helpers-work /usr/sbin
ln -sf /usr/local/sbin/holdfast /usr/sbin/mount.holdfast
umount -l /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec env -i PATH="$PATH" container=test SYSTEMD_UNIT_PATH=/run/units SYSTEMD_GENERATOR_PATH=/run/empty \
  /lib/systemd/systemd --system --unit=test.target --log-target=console --show-status=no
"""


class Unavailable(Exception):
    """Why there can be no such machine here."""


class SystemdMachine:
    def __init__(self, box, wants=(), after=(), units=()):
        """`wants`: what is started at boot; `after`: of these, what the boot waits for; `units`: more of them, name and text.

        The state of an earlier machine of the same sandbox, once that is closed, is found again: a reboot.
        """
        self._box = box
        self._units = box.make_directory("units")
        self._console = os.path.join(box.make_directory("state"), "console")
        open(self._console, "w").close()
        box.make_directory("cgroup")
        for name in ("holdfastd@.service", "holdfast-fetcherd@.service", "holdfast-metricsd@.service",
                     "holdfast-mounts.service"):
            shutil.copy(os.path.join(PACKAGING, name), self._units)
            # There is no journal.
            self._write_unit(f"{name}.d/log.conf", "[Service]\nStandardOutput=append:/var/lib/holdfast/services.log\n")
        for target in TARGETS:
            self._write_unit(f"{target}.target", f"[Unit]\nDescription={target}\n")
        for name, text in units:
            self._write_unit(name, text)
        self._write_unit("test.target", "[Unit]\nDescription=test\nDefaultDependencies=no\n"
                         f"Wants={' '.join(wants)}\nAfter={' '.join(after)}\n")
        for name, text in (("outer.sh", _OUTER), ("inner.sh", _INNER)):
            with open(box.path(name), "w") as f:
                f.write(text)
        self._log = open(box.path("systemd.log"), "wb")
        self._process = box.start(
            ["env", f"BOX={box.directory}", f"PROGRAMS={os.path.abspath(BIN)}", f"PACKAGING={PACKAGING}",
             "unshare", "--mount", "bash", box.path("outer.sh")], stdout=self._log, stderr=self._log)
        self.pid = None
        self._boot()

    def _boot(self):
        def booted():
            if self._process.poll() is not None:
                raise Unavailable("no namespace for systemd: " + self.log()[-300:].strip().replace("\n", "; "))
            self.pid = self.pid or self._find_init()
            return self.pid and self.systemctl("is-active", "test.target", check=False).stdout.strip() == "active"
        wait_until(booted, 20, "systemd has booted")

    def _find_init(self):
        """systemd, once it is that and no longer the shell that prepares for it."""
        pids = [self._process.pid]
        while pids:
            pid = pids.pop()
            try:
                with open(f"/proc/{pid}/task/{pid}/children") as f:
                    pids += [int(child) for child in f.read().split()]
                if os.path.realpath(f"/proc/{pid}/exe") == os.path.realpath(SYSTEMD):
                    return pid
            except (FileNotFoundError, ProcessLookupError):
                pass
        return None

    def _write_unit(self, name, text):
        path = os.path.join(self._units, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(text)

    def log(self):
        text = ""
        for path in (self._box.path("systemd.log"), self._console, self._box.path("state", "services.log")):
            if os.path.exists(path):
                with open(path, errors="replace") as f:
                    text += f.read()
        return text

    def path(self, path):
        """Where a file of that machine is to be found from outside."""
        return f"/proc/{self.pid}/root{path}"

    def run(self, *argv, timeout=60, check=True):
        """A command on that machine."""
        done = self._box.run(["nsenter", "-t", str(self.pid), "-p", "-m", "-C", "-i", "-u", "env", "-i",
                              f"PATH={os.environ['PATH']}", *argv], timeout=timeout)
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr}{done.stdout}")
        return done

    def systemctl(self, *argv, **options):
        return self.run("systemctl", *argv, **options)

    def add_unit(self, name, text):
        """A file of a unit, from the unit's next start on."""
        self._write_unit(name, text)
        self.systemctl("daemon-reload")

    def drop_in(self, unit, text):
        """A setting of the test's own, for every instance from its next start on."""
        self.add_unit(f"{unit}.service.d/test.conf", text)

    def show(self, unit, name):
        return self.systemctl("show", "--value", "-p", name, unit).stdout.strip()

    def main_pid(self, unit):
        """As seen from outside; 0 when there is none."""
        inside = self.show(unit, "MainPID")
        if inside == "0":
            return 0
        for name in os.listdir("/proc"):
            if name.isdigit() and self._pid_inside(name) == inside:
                return int(name)
        return 0

    def _pid_inside(self, pid):
        try:
            if os.readlink(f"/proc/{pid}/ns/pid") != os.readlink(f"/proc/{self.pid}/ns/pid"):
                return None
            with open(f"/proc/{pid}/status") as f:
                return next(line.split()[-1] for line in f if line.startswith("NSpid:"))
        except OSError:
            return None

    def close(self):
        """Everything of it dies with process 1."""
        self._process.terminate()
        if self.pid:
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        wait_gone(self._process.pid, 10)
        self._log.close()


def unmet():
    """Why there can be no such machine, or nothing: one is tried."""
    if os.geteuid() != 0:
        return ["not root"]
    if not os.path.exists(SYSTEMD):
        return ["no systemd"]
    with Sandbox("systemd") as box:
        try:
            SystemdMachine(box).close()
        except (Unavailable, Timeout) as e:
            return [str(e)]
    return []
