"""EROFS images mounted by fsid, by the command and by mount(8), from a daemon of the kernel's interface."""

import errno
import filecmp
import json
import os
import shutil
import signal
import socket
import struct
import subprocess

import _path  # noqa: F401
from harness.cachefiles.cachefiles_case import image
from harness.cachefiles.erofs_case import ErofsCase
from harness import images
from harness.case import main
from harness.holdfast import BIN
from harness.readers import Child
from harness.sandbox import mounts_below, wait_gone, wait_until
from harness.cachefiles.raw_device import RawDevice, error_of

_SUPERBLOCK, _DEVICES_AT, _SLOT_BYTES = 1024, 88, 128


def read_all(path):
    with open(path, "rb", buffering=0) as f:
        while f.read(1 << 20):
            pass


class MountErofsTest(ErofsCase):
    def blob_image(self, tag=b""):
        """An image whose file data is in another one: (image, blob, tree)."""
        _, tree = image()
        made, blob = self.box.path("with-blob.erofs"), self.box.path("blob")
        done = self.box.run(["mkfs.erofs", "-T0", "-Enosbcrc", "--all-root", "--chunksize=4096", f"--blobdev={blob}", made, tree])
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(made, "r+b") as f:
            f.seek(_SUPERBLOCK + _DEVICES_AT)
            slot = struct.unpack("<H", f.read(2))[0] * _SLOT_BYTES
            f.seek(slot)
            f.write(tag.ljust(64, b"\0"))
        return made, blob, tree

    def test_mounted_and_closed_by_umount(self):
        path, tree = image()
        self.source("image", path)
        log = self.bound_client()
        point = self.point("a")
        self.assertEqual(self.mount(point, "fsid=image"), (0, ""))
        self.assert_same_tree(point, tree)
        self.assertEqual(self.text(log).count("open erofs,image image"), 1)
        self.assertNotIn("close", self.text(log))
        self.umount(point)
        self.wait_count(log, "close", 1)
        reads = self.text(log).count("read ")
        self.assertEqual(self.mount(point, "fsid=image"), (0, ""))
        self.assert_same_tree(point, tree)
        self.assertEqual(self.text(log).count("open erofs,image image"), 2, "each mount begins with an OPEN")
        self.assertEqual(self.text(log).count("read "), reads, "what was fetched is kept")

    def test_one_fsid_is_mounted_once(self):
        path, _ = image()
        self.source("image", path)
        self.bound_client()
        self.assertEqual(self.mount(self.point("a"), "fsid=image"), (0, ""))
        self.assertEqual(self.mount(self.point("b"), "fsid=image")[0], errno.EBUSY)
        self.assertEqual(self.mount(self.point("c"), "fsid=image,domain_id=d"), (0, ""))
        self.assertEqual(self.mount(self.point("d"), "fsid=image,domain_id=d")[0], errno.EEXIST)
        self.umount(self.point("a"))
        self.assertEqual(self.mount(self.point("b"), "fsid=image"), (0, ""))

    def test_a_domain_shares_extra_devices(self):
        made, blob, tree = self.blob_image()
        shutil.copy(made, made + ".2")
        for name, path in (("one", made), ("two", made + ".2"), ("blob", blob)):
            self.source(name, path)
        log = self.bound_client()
        for name in ("one", "two"):
            self.assertEqual(self.mount(self.point(name), f"fsid={name},domain_id=d,device=blob"), (0, ""))
            self.assert_same_tree(self.point(name), tree)
        self.assertEqual(self.text(log).count("open erofs,d blob"), 1)
        self.umount(self.point("one"))
        self.wait_count(log, "close", 1)
        self.umount(self.point("two"))
        self.wait_count(log, "close", 3)

    def test_extra_devices_are_named_by_their_tags(self):
        made, blob, tree = self.blob_image(b"tagged")
        self.source("one", made)
        self.source("tagged", blob)
        self.bound_client()
        self.assertEqual(self.mount(self.point("a"), "fsid=one,device=x,device=y")[0], errno.EINVAL)
        self.assertEqual(self.mount(self.point("a"), "fsid=one"), (0, ""))
        self.assert_same_tree(self.point("a"), tree)

    def test_an_extra_device_without_a_name_is_refused(self):
        made, _, _ = self.blob_image()
        self.source("one", made)
        log = self.bound_client()
        code, message = self.mount(self.point("a"), "fsid=one")
        self.assertEqual(code, errno.EINVAL)
        self.assertIn("has no tag", message)
        self.wait_count(log, "close", 1)

    def test_the_client_refuses(self):
        log = self.bound_client()
        self.assertEqual(self.mount(self.point("a"), "fsid=unknown")[0], errno.EIO)
        self.assertEqual(os.listdir(self.point("a")), [])
        path, _ = image()
        self.source("unknown", path)
        self.assertEqual(self.mount(self.point("a"), "fsid=unknown"), (0, ""))
        self.assertEqual(self.text(log).count("open erofs,unknown unknown"), 1)

    def test_an_umount_that_no_daemon_saw(self):
        path, tree = image()
        self.source("image", path)
        log = self.bound_client()
        point = self.point("a")
        self.assertEqual(self.mount(point, "fsid=image"), (0, ""))
        self.instance.hold_supervisor()
        self.addCleanup(self.instance.release_supervisor)
        daemon = self.instance.daemon_pid()
        os.kill(daemon, signal.SIGKILL)
        self.assertTrue(wait_gone(daemon, 20))
        self.umount(point)
        self.instance.release_supervisor()
        self.wait_count(log, "close", 1)
        self.assertEqual(self.mount(point, "fsid=image"), (0, ""))
        self.assert_same_tree(point, tree)

    def test_mount_8_and_umount_8(self):
        self.install_mount_helper("mount.erofs.holdfast")
        path, tree = image()
        self.source("image", path)
        log = self.bound_client()
        point = self.point("a")
        options = f"fsid=image,instance={self.instance.name},root={self.instance.root}"
        done = self.box.run(["mount", "-t", "erofs.holdfast", "-o", options, "none", point])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assert_same_tree(point, tree)
        again = self.box.run(["mount", "-t", "erofs.holdfast", "-o", options, "none", self.point("b")])
        self.assertEqual(again.returncode, 32, again.stderr)
        self.assertIn(f"is mounted already, on {point}; unmount it first: umount {point}", again.stderr)
        missing = self.box.path("not-there")
        code, message = self.mount(missing, "fsid=image")
        self.assertEqual(code, errno.ENOENT)
        self.assertIn(f"mount point {missing} does not exist; create it: mkdir -p {missing}", message)
        self.umount(point)
        self.wait_count(log, "close", 1)

    def test_a_script_of_the_kernels_mounts_runs_as_it_is(self):
        self.install_mount_helper("mount.erofs")
        path, tree = image()
        self.source("image", path)
        log = self.bound_client()
        # In a script for the default instance the options are the kernel's alone.
        options = f"fsid=image,domain_id=d,instance={self.instance.name},root={self.instance.root}"
        done = self.box.run(["mount", "-t", "erofs", "none", "-o", options, self.point("a")])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assert_same_tree(self.point("a"), tree)
        done = self.box.run(["mount", "-t", "erofs", "-o", "ro", path, self.point("b")])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assert_same_tree(self.point("b"), tree)
        self.umount(self.point("b"))
        self.umount(self.point("a"))
        self.wait_count(log, "close", 1)

    def test_a_mount_waits_for_its_client(self):
        path, tree = image()
        self.source("image", path)
        point = self.point("a")
        command = [os.path.join(BIN, "holdfast"), "mount-erofs", *self.flags(), "-o", "fsid=image", point]
        killed = self.box.start(command)
        waiting = self.box.start(command)
        wait_until(lambda: self.instance.status()["requests"]["total"] == 1, 20, "an OPEN waits")
        self.assertEqual([request["delivered"] for request in self.instance.status()["requests"]["list"]], [False], "no client is there")
        killed.kill()
        killed.wait()
        self.bound_client()
        self.assertEqual(waiting.wait(30), 0)
        self.assert_same_tree(point, tree)

    QUESTION = {"op": "acquire", "volume": "erofs,image", "object": "image", "mount": "primary", "replace_stale": True,
                "timeout_ms": 600000, "lend_ms": 600000}

    def requests(self):
        return self.instance.status()["requests"]["list"]

    def test_a_mount_that_is_killed_while_it_waits_leaves_no_open(self):
        mount = socket.socket(socket.AF_UNIX)
        self.addCleanup(mount.close)
        mount.connect(self.instance.run_path("control.sock"))
        mount.sendall(json.dumps(self.QUESTION).encode() + b"\n")
        wait_until(self.requests, 20, "an OPEN waits")
        self.assertEqual([request["waiters"] for request in self.requests()], [1])
        mount.close()
        wait_until(lambda: not self.requests(), 20, "nothing waits")

    def test_a_mount_that_is_killed_after_its_open_gives_its_objects_back(self):
        self.source("image", image()[0])
        log = self.bound_client()
        answered = self.box.path("answered")

        def ask():
            with open(answered + ".new", "w") as f:
                json.dump(self.instance.control(self.QUESTION), f)
            os.rename(answered + ".new", answered)
            signal.pause()
        mount = self.keep(Child("mounts", ask))
        wait_until(lambda: os.path.exists(answered), 20, "the object is open")
        self.assertIn('"ok": true', self.text(answered))
        self.assertNotIn("close", self.text(log))
        mount.close()
        self.wait_count(log, "close", 1)
        self.assertEqual(self.mount(self.point("a"), "fsid=image"), (0, ""))

    def test_the_end_of_a_waiting_mount_names_what_is_missing(self):
        def why():
            return self.mount(self.point("a"), "fsid=image", timeout="1s")
        code, message = why()
        self.assertEqual(code, errno.ETIMEDOUT)
        self.assertIn(f"no program has the cachefiles device {self.device} open", message)
        raw = RawDevice(self.device)
        self.addCleanup(raw.close)
        code, message = why()
        self.assertEqual(code, errno.ETIMEDOUT)
        self.assertRegex(message, f"pid {os.getpid()} that has the cachefiles device .* has not written `bind ondemand`")
        raw.bind(self.directory)
        self.assertRegex(why()[1], f"no answer in time: the program with pid {os.getpid()} .* serves it")
        raw.close()
        wait_until(lambda: not self.status()["open"], 20, "the device is closed")
        code, message = why()
        self.assertEqual(code, errno.EIO)
        self.assertIn("no program has the cachefiles device", message)

    def test_a_mount_waits_for_a_daemon_that_is_restarted(self):
        path, tree = image()
        self.source("image", path)
        self.bound_client()
        self.instance.hold_supervisor()
        self.addCleanup(self.instance.release_supervisor)
        daemon = self.instance.daemon_pid()
        os.kill(daemon, signal.SIGKILL)
        self.assertTrue(wait_gone(daemon, 20))
        point = self.point("a")
        mount = self.box.start(self.instance.command_line("mount-erofs", *self.flags(), "-o", "fsid=image", point))
        # Longer than any answer may take that a mount asks for once.
        self.assertRaises(subprocess.TimeoutExpired, mount.wait, 7)
        self.instance.release_supervisor()
        self.assertEqual(mount.wait(30), 0)
        self.assert_same_tree(point, tree)

    def test_a_fsid_of_any_characters_leaves_messages_one_line(self):
        name = "im\nage\x1b[0m"
        log = self.bound_client()
        done = self.instance.run("mount-erofs", *self.flags(), "-o", "fsid=" + name, self.point("a"))
        self.assert_one_line(done, r"fsid im\\012age\\033\[0m")
        self.assertNotIn("\x1b", done.stderr)
        self.source(name, image()[0])
        self.assertEqual(self.mount(self.point("a"), "fsid=" + name), (0, ""))
        self.assertIn(f"open erofs,{name} {name}", self.text(log), "the client gets it as it is")
        done = self.instance.run("status", *self.flags())
        self.assertIn(r"erofs,im\012age\033[0m/im\012age\033[0m", done.stdout)

    def test_an_instance_whose_first_start_fails_is_not_listed(self):
        two = self.instance.root_flags() + ["--instance", "two"]
        done = self.instance.run("start", *two, "--cachefiles-device", self.device)
        self.assert_one_line(done, "instance two did not start: .* of another holdfastd")
        done = self.instance.run("status", *self.instance.root_flags(), "--json")
        self.assertEqual([instance["name"] for instance in json.loads(done.stdout)["instances"]], [self.instance.name])
        self.assertFalse(os.path.exists(os.path.join(self.instance.root, "var/lib/holdfast/two")))

    def test_help_of_the_helper_is_no_error(self):
        helper = self.box.path("mount.erofs.holdfast")
        os.symlink(os.path.join(BIN, "holdfast"), helper)
        for flag in ("--help", "-h"):
            done = self.box.run([helper, flag])
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertIn("usage: mount.erofs.holdfast", done.stdout)

    def test_the_helper_by_another_name_leaves_other_images_to_the_kernel(self):
        helper = self.box.path("mount.erofs")
        os.symlink(os.path.join(BIN, "holdfast"), helper)
        path, tree = image()
        point = self.point("a")
        done = self.box.run([helper, path, point, "-o", "ro"])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assert_same_tree(point, tree)
        self.umount(point)
        done = self.box.run([helper, path, point, "-o", "ro", "-o", "fsid=image,root=" + self.box.path("none")])
        self.assertEqual(done.returncode, 32, done.stderr)
        self.assertIn("holdfast start", done.stderr, "each -o counts")
        done = self.box.run([helper, path, point, "-o", "fsid=image,root=" + self.box.path("none"), "-o", "ro"])
        self.assertIn("holdfast start", done.stderr, "each -o counts")
        wrong = subprocess.run([helper, path], text=True, capture_output=True)
        self.assertEqual(wrong.returncode, 1)
        self.assertIn("usage: mount.erofs.holdfast", wrong.stderr)

    def test_words_and_instances_that_are_wrong(self):
        for options, word in (("ro", "fsid="), ("fsid=", "fsid="), ("fsid=f,device=", "device="), ("fsid=f,fsoffset=1", "fsoffset"),
                              ("fsid=a/b", "no slash"), ("fsid=f,domain_id=a/b", "no slash"), ("fsid=f,device=a/b", "no slash")):
            code, message = self.mount(self.point("a"), options)
            self.assertEqual(code, errno.EINVAL)
            self.assertIn(word, message)
            if "fsid=" in word or "slash" in word:
                self.assertIn("-o fsid=NAME[,domain_id=NAME]", message)
        code, message = self.mount(self.point("a"), "fsid=f,instance=other")
        self.assertNotEqual(code, 0)
        self.assertIn("holdfast start", message)
        plain = self.holdfast("plain")
        done = plain.run("start", *plain.root_flags(), "--instance", "plain", "--cachefiles-device", self.box.path("none/device"))
        self.assertNotEqual(done.returncode, 0)
        self.assertRegex(done.stderr, f"does not exist; create it: mkdir -p {self.box.path('none')}")
        done = plain.run("start", *plain.root_flags(), "--instance", "plain")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.addCleanup(plain.run, "stop", *plain.root_flags(), "--instance", "plain")
        done = plain.run("mount-erofs", *plain.root_flags(), "--instance", "plain", "-o", "fsid=f", self.point("a"))
        self.assert_one_line(done, "has no cachefiles device; .*holdfast start .*--cachefiles-device")

    def test_status_shows_the_client(self):
        self.assertEqual((self.status()["path"], self.status()["open"]), (self.device, False))
        self.bound_client()
        client = self.box._children[-1]
        wait_until(lambda: self.status()["bound"], 20, "the client has bound")
        self.assertEqual(self.status(), {"path": self.device, "open": True, "pid": client.pid, "bound": True, "ondemand": True,
                                         "directory": self.directory, "tag": "test", "culling": False, "trouble": ""})
        done = self.instance.run("status", *self.flags())
        self.assertIn(f"  cachefiles  {self.device}, open by pid {client.pid}, bound on demand to {self.directory}, tag test\n",
                      done.stdout)
        client.kill()
        wait_until(lambda: not self.status()["open"], 20, "the device is closed")

    def test_a_forced_umount_leaves_the_instance_to_its_client(self):
        path, tree = image()
        self.source("image", path)
        log = self.bound_client()
        point = self.point("a")
        self.assertEqual(self.mount(point, "fsid=image"), (0, ""))
        client = self.box._children[-1]
        client.send_signal(signal.SIGSTOP)
        reader = self.keep(Child("waits", lambda: 0 if error_of(read_all, os.path.join(point, "000")) == errno.EIO else 1))
        wait_until(lambda: self.instance.waiting() > 0, 20, "a READ waits")
        done = self.instance.run("umount", *self.instance.root_flags(), "--force", point)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(reader.wait(20), "the read has ended")
        self.assertEqual(reader.result, 0, "EIO")
        client.send_signal(signal.SIGCONT)
        self.wait_count(log, "close", 1)
        self.assertEqual(self.mount(point, "fsid=image"), (0, ""))
        self.assert_same_tree(point, tree)

    def kill_instance(self):
        """With SIGKILL: its supervisor, and its daemon."""
        daemon = self.instance.daemon_pid()
        self.instance.kill_supervisor()
        os.kill(daemon, signal.SIGKILL)
        self.assertTrue(wait_gone(daemon, 20))

    def assert_no_device(self):
        self.assertNotIn(self.device, mounts_below(self.box.directory))
        self.assertFalse(os.path.lexists(self.device), "what was made for it is gone")

    def test_stop_takes_the_device_of_a_killed_daemon_away(self):
        self.kill_instance()
        # The kernel gives ECONNABORTED to what was on its way.
        wait_until(lambda: error_of(os.stat, self.device) == errno.ENOTCONN, 20, "the device without a daemon")
        done = self.instance.run("stop", *self.flags())
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assert_no_device()

    def test_a_start_without_a_device_takes_that_of_a_killed_daemon_away(self):
        self.kill_instance()
        done = self.instance.run("start", *self.flags())
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assert_no_device()

    def test_umount_of_holdfast_leaves_the_instance_to_its_client(self):
        path, _ = image()
        self.source("image", path)
        log = self.bound_client()
        point = self.point("a")
        self.assertEqual(self.mount(point, "fsid=image"), (0, ""))
        self.instance.umount(point)
        self.wait_count(log, "close", 1)
        self.assertEqual(self.mount(point, "fsid=image"), (0, ""))

    def test_a_supervisor_that_is_terminated_leaves_no_device(self):
        for has_file in (False, True):
            with self.subTest(has_file=has_file):
                supervisor = self.supervise_another()
                supervisor.send_signal(signal.SIGTERM)
                self.assertEqual(supervisor.wait(20), 0)
                self.assertFalse(os.path.ismount(self.device))
                self.assertEqual(os.path.exists(self.device), has_file)
                with open(self.device, "w"):
                    pass  # For the second time.

    def test_an_image_by_url_is_refused(self):
        """Its bytes would come from the client, and stay in the cache under its URL."""
        path, _ = image()
        self.source(os.path.basename(path), path)
        self.bound_client()
        for flags in ((), ("--as=file",)):
            done = self.instance.try_mount("file://" + path, self.point("a"), *flags)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("serves a cachefiles device", done.stderr)
            self.assertIn("--instance", done.stderr)
        self.assertEqual(self.instance.status()["objects"], [])

    def test_a_mount_that_would_hide_the_instance_is_refused(self):
        self.source("image", image()[0])
        log = self.bound_client()
        for place in (self.instance.run_path(), self.instance.state_path(), os.path.dirname(self.instance.run_path())):
            code, message = self.mount(place, "fsid=image")
            self.assertEqual(code, errno.EBUSY, message)
            self.assertIn("would hide", message)
        self.wait_count(log, "close", 3)

    def test_a_mount_says_why_it_waits(self):
        done = self.box.run(self.instance.command_line("mount-erofs", *self.flags(), "--timeout=4s", "-o", "fsid=image", self.point("a")))
        self.assertEqual(done.returncode, 1)
        self.assertIn("still trying", done.stderr)
        self.assertIn("no program has the cachefiles device", done.stderr.split("still trying")[1].splitlines()[0])

    def test_umount_leaves_an_instance_of_supervise_to_its_client(self):
        self.supervise_another()
        self.source("image", image()[0])
        log = self.bound_client()
        point = self.point("a")
        for count, flags in enumerate(([], ["--force"]), 1):
            self.assertEqual(self.mount(point, "fsid=image"), (0, ""))
            done = self.instance.run("umount", *self.instance.root_flags(), *flags, point)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.wait_count(log, "close", count)
        self.assertEqual(self.mount(point, "fsid=image"), (0, ""))

    def test_umount_leaves_an_instance_whose_daemon_does_not_say_what_it_serves(self):
        supervisor = self.supervise_another()
        self.source("image", image()[0])
        log = self.bound_client()
        point = self.point("a")
        self.assertEqual(self.mount(point, "fsid=image"), (0, ""))
        daemon = self.instance.daemon_pid()
        os.kill(daemon, signal.SIGSTOP)
        self.addCleanup(error_of, os.kill, daemon, signal.SIGCONT)
        done = self.instance.run("umount", *self.instance.root_flags(), point)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("serves a cachefiles device is not known", done.stderr)
        os.kill(daemon, signal.SIGCONT)
        self.wait_count(log, "close", 1)
        self.assertIsNone(supervisor.poll(), "the instance goes on")
        self.assertEqual(self.mount(point, "fsid=image"), (0, ""))

    def test_a_mount_does_not_wait_for_the_client_of_another_instance(self):
        self.source("image", image()[0])
        self.bound_client()
        self.box._children[-1].send_signal(signal.SIGSTOP)
        waits = self.box.start(self.instance.command_line("mount-erofs", *self.flags(), "-o", "fsid=image", self.point("a")))
        wait_until(lambda: self.instance.waiting() > 0, 20, "the OPEN waits")
        self.supervise_another()
        self.bound_client()
        self.assertEqual(self.mount(self.point("b"), "fsid=image"), (0, ""))
        self.assertIsNone(waits.poll())


if __name__ == "__main__":
    main(tools=["mkfs.erofs"])
