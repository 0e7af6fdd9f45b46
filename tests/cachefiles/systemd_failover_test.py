"""A daemon of the kernel's interface is a service of a real systemd, which keeps its device while it is dead."""

import os
import shutil
import signal
import sys

import _path  # noqa: F401
from harness import images, systemd
from harness.case import SKIP, Case, main
from harness.disk import Disk
from harness.machine import read_ranges
from harness.readers import RIGHT, Child
from harness.sandbox import wait_until

CLIENT, DAEMON = "client.service", "holdfastd@t.service"
SIZE = 16 << 20
ROUNDS = ((CLIENT,), (CLIENT,), (CLIENT, DAEMON), (CLIENT,), (DAEMON, CLIENT))
STATE = "/var/lib/holdfast"
UNIT = f"""[Unit]
Description=A daemon of /dev/cachefiles
StartLimitIntervalSec=0
[Service]
Type=notify
FileDescriptorStoreMax=1
Restart=always
EnvironmentFile={STATE}/client.env
ExecStart=/usr/bin/python3 -B {STATE}/storing_daemon.py /run/cachefiles /usr/local/sbin/cachefiles_client_static \\
  {STATE}/cache-of-the-daemon {STATE}/sources $STOP_AT
StandardOutput=append:{STATE}/client.log
StandardError=append:{STATE}/client.log
"""


class SystemdFailoverTest(Case):
    def setUp(self):
        super().setUp()
        Disk(self.box, "state", 300 << 20)  # The directory of a cache is on a file system of its own.
        image, self.tree = images.random_image(1, SIZE)
        shutil.copy(image, os.path.join(self.box.make_directory("state", "sources"), "image"))
        self.box.make_directory("state", "cache-of-the-daemon")
        here = os.path.dirname(os.path.abspath(__file__))
        shutil.copy(os.path.join(here, "clients", "storing_daemon.py"), self.box.path("state"))
        self.machine = systemd.SystemdMachine(self.box)
        self.addCleanup(self._end)
        with open(os.path.join(systemd.PACKAGING, "cachefiles.conf")) as f:
            self.machine.add_unit(DAEMON + ".d/cachefiles.conf", f.read())
        self.machine.add_unit(CLIENT, UNIT)
        self.machine.run("sh", "-c", "mkdir -p /etc/holdfast && "
                         "echo 'HOLDFASTD_FLAGS=--cachefiles-device=/run/cachefiles' >/etc/holdfast/t.env")

    def _end(self):
        if self.has_failed():
            print(f"--- systemd and services\n{self.machine.log()[-8000:]}\n--- the daemon\n{self.log()}", file=sys.stderr)
        self.machine.close()

    def log(self):
        path = self.box.path("state", "client.log")
        if not os.path.exists(path):
            return ""
        with open(path, errors="replace") as f:
            return f.read()

    def set_stop_at(self, number):
        """Of the daemon's next lives: the READ at which it answers nothing any more."""
        with open(self.box.path("state", "client.env"), "w") as f:
            f.write(f"STOP_AT={number}\n")

    def kill(self, *units):
        for pid in [self.machine.main_pid(unit) for unit in units]:
            self.assertNotEqual(pid, 0)
            os.kill(pid, signal.SIGKILL)

    def begin_to_read(self):
        served, truth = self.machine.path("/run/mnt/000"), os.path.join(self.tree, "000")
        return self.keep(Child("reader", lambda: read_ranges([(served, truth, 0, SIZE)])))

    def test_reads_go_on_over_deaths_of_the_daemon(self):
        self.set_stop_at(0)
        self.machine.systemctl("start", DAEMON)
        self.machine.systemctl("start", CLIENT)
        self.machine.run("holdfast", "mount-erofs", "--instance", "t", "--timeout=30s", "-o", "fsid=image", "/run/mnt")
        self.set_stop_at(2)
        self.kill(CLIENT)
        reader = self.begin_to_read()
        for number, units in enumerate(ROUNDS, 1):
            wait_until(lambda n=number: self.log().count("stopped\n") == n, 30, f"the daemon stops in mid-read {number}")
            self.assertFalse(reader.wait(0), "the load lasts")
            if number == len(ROUNDS):
                self.set_stop_at(0)
            self.kill(*units)
        self.assertTrue(reader.wait(60), self.log())
        self.assertEqual(reader.result, RIGHT)
        self.assertEqual(self.machine.show(CLIENT, "NRestarts"), str(len(ROUNDS) + 1))
        self.assertEqual(self.machine.show(CLIENT, "NFileDescriptorStore"), "1")
        self.assertEqual(self.machine.show(DAEMON, "NRestarts"), "2")


if __name__ == "__main__":
    reasons = systemd.unmet()
    if reasons:
        print("SKIP: " + ", ".join(reasons))
        sys.exit(SKIP)
    main(tools=("nsenter", "systemctl", "systemd-sysusers", "mkfs.erofs"))
