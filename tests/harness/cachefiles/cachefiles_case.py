"""Holdfast with a cachefiles device, and daemons of the kernel's interface that serve it."""

import os
import re
import signal

from harness import images
from harness.case import Case
from harness.holdfast import BIN
from harness.machine import Machine
from harness.sandbox import wait_gone, wait_until

SYSTEMD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "packaging", "systemd")
# How each client is started: the dynamic one under the preloaded library, the static ones as they are,
# and one with the two calls of <holdfast/cachefiles.h>.
CLIENTS = {
    "preloaded C": [os.path.join(BIN, "holdfast"), "cachefiles-run", "--", os.path.join(BIN, "cachefiles_client")],
    "static C": [os.path.join(BIN, "cachefiles_client_static")],
    "linked C": [os.path.join(BIN, "cachefiles_client_linked")],
    "static Go": [os.path.join(BIN, "cachefiles_client_go")],
}


class Clients:
    """Of a Case with a sandbox, `device`, `directory` and `sources`.  `kind` is the client that client() starts."""

    kind = "preloaded C"

    def program(self):
        """The words that start the client."""
        return CLIENTS[self.kind]

    def source(self, name, path):
        os.symlink(path, os.path.join(self.sources, name))
        return path

    def client(self, device, *arguments, under=(), **options):
        """A started daemon, and the path of its output.  `under`: the words of a program that starts it."""
        path = self.box.path(f"client-{len(self.box._children)}.log")
        with open(path, "wb") as log:
            process = self.box.start([*under, *self.program(), device, self.directory, self.sources, *arguments],
                                     stdout=log, stderr=log, **options)
        wait_until(lambda: "ready" in self.text(path) or process.poll() is not None, 20, "the client is ready")
        self.assertIsNone(process.poll(), self.text(path))
        return process, path

    @staticmethod
    def text(path):
        with open(path, errors="replace") as f:
            return f.read()

    def kill(self, process):
        process.send_signal(signal.SIGKILL)
        self.assertTrue(wait_gone(process.pid, 20))
        process.wait()

    def open_device(self):
        """For a supervisor: an fd that daemons inherit."""
        fd = os.open(self.device, os.O_RDWR)
        os.set_inheritable(fd, True)
        self.addCleanup(os.close, fd)
        return fd


class CachefilesCase(Clients, Case):
    """`self.device` is the device's path; nobody has opened it."""

    def setUp(self):
        super().setUp()
        self.device = self.box.path("cachefiles")
        self.sources = self.box.make_directory("sources")
        self.machine = self.make_machine()
        self.directory = self.box.make_directory("disk", "cache-of-the-daemon")
        self.machine.power_on()
        self.assertTrue(self.machine.start_daemon(), self.machine.last_words())

    def machine_flags(self):
        return ["--cachefiles-device=" + self.device]

    def make_machine(self, **options):
        """Not started yet."""
        return Machine(self.box, "disk", 600 << 20, {}, flags=self.machine_flags(), **options)

    def mount(self, path):
        """An EROFS image that is served at `path`."""
        where = self.box.make_directory("mnt")
        done = self.box.run(["mount", "-t", "erofs", "-o", "ro", path, where])
        self.assertEqual(done.returncode, 0, done.stderr)
        return where


class UnderTheUnit:
    """Of a CachefilesCase: holdfastd has the capabilities of its systemd unit and of the drop-in for a cachefiles device, and no others."""

    def make_machine(self, **options):
        machine = super().make_machine(**options)
        text = "".join(self.text(os.path.join(SYSTEMD, name)) for name in ("holdfastd@.service", "cachefiles.conf"))
        lines = re.findall(r"^CapabilityBoundingSet=(.*)", text, re.M)
        capabilities = ",".join(["-all", *("+" + word[len("CAP_"):].lower() for line in lines for word in line.split())])
        machine.daemon_name = self.box.path("holdfastd-of-the-unit")
        with open(machine.daemon_name, "w") as f:
            f.write(f"#!/bin/sh\nexec setpriv --bounding-set={capabilities} --inh-caps={capabilities} {BIN}/holdfastd \"$@\"\n")
        os.chmod(machine.daemon_name, 0o755)
        return machine


def image():
    return images.random_image(8, 2 << 20)
