"""Which directory a daemon of the kernel's interface may bind while images are mounted from the last one."""

import os
import signal

import _path  # noqa: F401
from harness.cachefiles.cachefiles_case import image
from harness.cachefiles.erofs_case import ErofsCase
from harness.case import main
from harness.sandbox import wait_gone, wait_until

REFUSAL = "may not bind"


class BoundDirectoryTest(ErofsCase):
    """The reads of a mounted image would go to a client that has other bytes by the same name."""

    def setUp(self):
        super().setUp()
        self.source("image", image()[0])
        self.tree = image()[1]
        self.first, self.other = self.directory, self.box.make_directory("disk", "another-cache")

    def bind(self, directory):
        self.directory = directory
        return self.client(self.device, "bind")

    def end(self, client):
        """And the device is free."""
        self.kill(client)
        self.await_closed()

    def await_closed(self):
        wait_until(lambda: not self.status()["open"], 20, "the device is closed")

    def kill_daemon(self):
        daemon = self.instance.daemon_pid()
        os.kill(daemon, signal.SIGKILL)
        self.assertTrue(wait_gone(daemon, 20))

    def assert_refused(self, count):
        refused = self.box.run([*self.program(), self.device, self.other, self.sources, "bind"])
        self.assertIn("Device or resource busy", refused.stderr)
        lines = [line for line in self.instance.log_text().splitlines() if REFUSAL in line]
        self.assertEqual(len(lines), count, lines)
        self.assertIn("unmount it first", lines[-1])
        self.await_closed()

    def test_no_other_directory_is_bound_under_a_mounted_image(self):
        client, _ = self.bind(self.first)
        point = self.point("a")
        self.assertEqual(self.mount(point, "fsid=image"), (0, ""))
        self.end(client)
        self.assert_refused(1)
        self.kill_daemon()
        self.assert_refused(2)
        client, log = self.bind(self.first)
        self.assert_same_tree(point, self.tree)
        self.umount(point)
        self.wait_count(log, "close", 1)
        self.end(client)
        self.bind(self.other)

    def test_nor_when_the_device_was_unmounted_in_between(self):
        client, _ = self.bind(self.first)
        point = self.point("a")
        self.assertEqual(self.mount(point, "fsid=image"), (0, ""))
        self.end(client)
        self.umount(self.device)
        self.kill_daemon()  # The next one mounts it again.
        wait_until(lambda: os.path.ismount(self.device), 20, "the device is mounted")
        self.assert_refused(1)
        self.bind(self.first)
        self.assert_same_tree(point, self.tree)

    def test_another_directory_is_bound_at_once_after_the_unmount(self):
        """Without a wait for the daemon to notice the unmount."""
        directories = [self.first, self.other]
        for mounts in range(4):
            client, _ = self.bind(directories[mounts % 2])
            point = self.point("a")
            self.assertEqual(self.mount(point, "fsid=image"), (0, ""))
            self.end(client)
            self.umount(point)
        self.assertNotIn(REFUSAL, self.instance.log_text())


if __name__ == "__main__":
    main(tools=["mkfs.erofs"])
