"""Boots of a real systemd: what --persist has mounted, and a mount unit as fstab makes it, before the network is up."""

import os
import sys
import time

import _path  # noqa: F401
from harness import images, systemd
from harness.case import SKIP, Case, main
from harness.sandbox import wait_until

DAEMON = "holdfastd@t.service"
MOUNTS = "holdfast-mounts.service"
PATIENCE_S = 60
# What is tried once may hold up the boot for so long.
QUICKLY = "[Service]\nExecStart=\nExecStart=holdfast mounts --restore --until-mounted --timeout 2s\n"
MOUNT_UNIT = """[Unit]
Wants=holdfastd@t.service
After=holdfastd@t.service
DefaultDependencies=no
[Mount]
What={url}
Where=/run/mnt
Type=holdfast
Options=ro,nofail,_netdev,instance=t,as=file,timeout=5m
TimeoutSec=5min
"""


class BootTest(Case):
    def setUp(self):
        super().setUp()
        self.truth = images.random_file(8 << 20)
        self.name = os.path.basename(self.truth)
        self.origin = self.serve(os.path.dirname(self.truth))
        self.machine = None
        self.addCleanup(self._end)

    def _end(self):
        if self.machine is None:
            return
        if self.has_failed():
            print(f"--- systemd and services\n{self.machine.log()[-8000:]}", file=sys.stderr)
        self.machine.close()

    def boot(self, **options):
        """The machine before it, if there was one, loses its power."""
        if self.machine is not None:
            self.machine.close()
        self.machine = systemd.SystemdMachine(self.box, **options)

    def is_mounted(self):
        return self.machine.run("mountpoint", "-q", "/run/mnt", check=False).returncode == 0

    def assert_right(self, offset=0, length=1 << 20):
        self.assert_reads_right(self.machine.path(f"/run/mnt/{self.name}"), self.truth, offset, length)

    def persist(self, *units):
        self.boot(units=(("holdfast-mounts.service.d/test.conf", QUICKLY),))
        if units:
            self.machine.systemctl("start", *units)
        self.machine.run("holdfast", "mount", "--persist", "--instance", "t", "--as=file", self.origin.url(self.name), "/run/mnt")
        self.assert_right()
        self.machine.run("sync")

    def boot_again(self, *wants):
        self.boot(wants=(MOUNTS, *wants), after=(MOUNTS,))

    def test_a_persistent_mount_is_there_when_a_boot_without_network_is_done(self):
        for units in ((), (DAEMON,)):
            with self.subTest(units=units):
                self.origin.start()
                self.persist(*units)
                self.origin.stop()
                self.boot_again(*units)
                self.assertTrue(self.is_mounted(), "it is not mounted after the boot")
                self.assertEqual(os.stat(self.machine.path(f"/run/mnt/{self.name}")).st_size, 8 << 20)
                self.origin.start()
                self.assert_right(4 << 20)
                # At shutdown it goes before its daemons, and is there after the next boot.
                self.machine.systemctl("stop", MOUNTS)
                self.assertFalse(self.is_mounted())
                self.machine.systemctl("start", MOUNTS)
                self.assert_right(2 << 20)
                self.machine.run("holdfast", "umount", "/run/mnt")

    def test_one_whose_origin_is_needed_holds_up_no_boot_and_comes_when_the_network_does(self):
        self.persist()
        self.machine.run("rm", "-rf", "/var/lib/holdfast/t/cache")
        self.origin.stop()
        began = time.monotonic()
        self.boot_again()
        print(f"booted after {time.monotonic() - began:.1f} s", file=sys.stderr)
        self.assertFalse(self.is_mounted())
        self.assertEqual(self.machine.show(MOUNTS, "ActiveState"), "active")
        self.assertIn("/run/mnt is not mounted again", self.machine.log())
        self.origin.start()
        wait_until(self.is_mounted, PATIENCE_S, "it is mounted")
        self.assert_right()

    def test_a_mount_unit_waits_for_its_origin_and_holds_up_no_boot(self):
        self.origin.stop()
        self.boot(wants=("run-mnt.mount",), units=(("run-mnt.mount", MOUNT_UNIT.format(url=self.origin.url(self.name))),))
        wait_until(lambda: self.machine.show("run-mnt.mount", "ActiveState") == "activating", PATIENCE_S, "it waits")
        self.origin.start()
        wait_until(lambda: self.machine.show("run-mnt.mount", "ActiveState") == "active", PATIENCE_S, "the mount unit is active")
        self.assert_right()
        self.machine.systemctl("stop", "run-mnt.mount")
        self.assertFalse(self.is_mounted())


if __name__ == "__main__":
    reasons = systemd.unmet()
    if reasons:
        print("SKIP: " + ", ".join(reasons))
        sys.exit(SKIP)
    main(tools=("nsenter", "systemctl", "systemd-sysusers"))
