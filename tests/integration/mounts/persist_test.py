"""`holdfast mount --persist`: what it has mounted comes back after a reboot, without its origin as far as it is cached."""

import errno
import json
import os
import stat

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.holdfast import NO_READ_AHEAD
from harness.origins.oci_registry import Registry
from harness.readers import RIGHT, Reader, drop_page_cache, pread
from harness.reboot import Machine
from harness.sandbox import wait_gone, wait_until

FILES = 6
FILE_SIZE = 2 << 20
BLOCK = 4096
SIGNATURE = "?Key-Pair-Id=k&Expires=2000000000&Signature="  # As CloudFront's.


class PersistTest(Case):
    def setUp(self):
        super().setUp()
        self.machine = Machine(self.box)
        self.addCleanup(self.machine.leave)
        self.serve_random_image(FILES, FILE_SIZE, seed=13)
        self.point = self.box.make_directory("point")

    def truth(self, name):
        with open(os.path.join(self.tree, name), "rb") as f:
            return f.read()

    def names(self):
        return sorted(os.listdir(self.tree))

    def mounts(self, *flags, timeout=120):
        return self.instance.run("mounts", *self.instance.root_flags(), *flags, timeout=timeout)

    def restore(self, *flags):
        return self.mounts("--restore", *flags)

    def states(self):
        done = self.mounts("--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        return {mount.get("mount_point", "?"): mount["state"] for mount in json.loads(done.stdout)["mounts"]}

    def is_durable(self):
        lines = [line.split() for line in self.instance.dump().splitlines() if line.startswith("presence ")]
        durable = [line[2:] for line in lines if line[1] == "durable"]
        return lines and all(line[2:] in durable for line in lines)

    def reboot(self, waits=True):
        if waits:
            wait_until(self.is_durable, 60, "all presence to be on the disk")
        daemon = self.instance.daemon_pid()
        self.machine.reboot(self.instance)
        self.assertTrue(wait_gone(daemon, 30), "holdfastd outlived the reboot")
        drop_page_cache()

    def record(self):
        directory = self.instance.state_path("mounts")
        return os.path.join(directory, *os.listdir(directory))

    def test_what_was_read_is_read_after_a_reboot_without_the_origin_and_the_rest_waits_for_it(self):
        self.instance.mount(self.url, "--persist", "--as=erofs", NO_READ_AHEAD, "--fetch-size=8K", mount_point=self.point)
        # What lies between is the kernel's to read ahead.
        present, absent = self.names()[:FILES // 2], self.names()[-1]
        for name in present:
            self.assertEqual(pread(os.path.join(self.point, name), 0, FILE_SIZE), self.truth(name))
        self.assertEqual(self.states(), {self.point: "mounted"})
        self.reboot()
        self.origin.stop()
        self.assertEqual(os.listdir(self.point), [])
        self.assertEqual(self.states(), {self.point: "not mounted"})
        done = self.restore("--timeout=20s")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        self.assertEqual(self.states(), {self.point: "mounted"})
        for name in present:
            self.assertEqual(pread(os.path.join(self.point, name), 0, FILE_SIZE), self.truth(name))
        # With the settings that the instance had.
        with open(self.instance.run_path("settings.json")) as f:
            self.assertIn("--fetch-size=8K", json.load(f)["daemon_flags"])
        offset = FILE_SIZE - BLOCK
        reader = self.keep(Reader(os.path.join(self.point, absent), offset, BLOCK, self.truth(absent)[offset:]))
        # The kernel may have split it, or reads ahead.
        wait_until(lambda: self.instance.waiting() >= 1, 20, "it waits")
        self.assertFalse(reader.wait(0))
        self.origin.start()
        self.assertTrue(reader.wait(60), "the read did not finish when the origin was back")
        self.assertEqual(reader.result, RIGHT)
        self.assertEqual(pread(os.path.join(self.point, absent), 0, FILE_SIZE), self.truth(absent))
        # Once more: nothing is to be done, and it comes back after the next reboot, too.
        self.assertEqual(self.restore().returncode, 0)
        self.reboot(waits=False)
        self.assertEqual(self.restore().returncode, 0)
        self.assertEqual(self.states(), {self.point: "mounted"})

    def test_a_read_of_what_is_absent_fails_as_the_settings_say(self):
        self.instance.mount(self.url, "--persist", NO_READ_AHEAD, "--request-timeout=2s", mount_point=self.point)
        self.reboot()
        self.origin.stop()
        self.assertEqual(self.restore().returncode, 0)
        reader = self.keep(Reader(os.path.join(self.point, self.names()[-1]), FILE_SIZE - BLOCK, BLOCK))
        self.assertTrue(reader.wait(30))
        self.assertEqual(reader.result, errno.EIO)

    def test_a_plain_file_comes_back_without_a_byte_of_it(self):
        path = images.random_file(1 << 20)
        origin = self.serve(os.path.dirname(path))
        url = origin.url(os.path.basename(path))
        self.instance.mount(url, "--persist", "--as=file", mount_point=self.point)
        daemon = self.instance.daemon_pid()
        self.machine.reboot(self.instance)
        self.assertTrue(wait_gone(daemon, 30))
        origin.stop()
        self.assertEqual(self.restore().returncode, 0)
        mounted = os.path.join(self.point, os.path.basename(path))
        self.assertEqual(os.stat(mounted).st_size, 1 << 20)
        origin.start()
        self.assert_reads_right(mounted, path)

    def test_an_image_of_a_registry_comes_back_by_its_digest(self):
        registry = Registry(self.box).start()
        reference = f"oci://{registry.host}/images/x:v1"
        texts = (b"first", b"second")
        for i, text in enumerate(texts):
            tree = self.box.make_directory("tree", str(i))
            with open(os.path.join(tree, "text"), "wb") as f:
                f.write(text)
            layout = self.box.path(f"layout-{i}")
            for arguments in (("build", tree, layout), ("push", "--plain-http", layout, reference)):
                done = self.instance.run("image", *arguments)
                self.assertEqual(done.returncode, 0, done.stderr)
            if i == 0:
                self.instance.mount(reference, "--persist", "--plain-http", mount_point=self.point)
                self.assertEqual(pread(os.path.join(self.point, "text"), 0, 100), texts[0])
        self.reboot()
        registry.stop()
        self.assertEqual(self.restore("--timeout=20s").returncode, 0)
        self.assertEqual(pread(os.path.join(self.point, "text"), 0, 100), texts[0])

    def test_umount_ends_it_and_keep_persistent_does_not(self):
        self.instance.mount(self.url, "--persist", mount_point=self.point)
        self.instance.umount(self.point, "--keep-persistent")
        self.assertEqual(self.states(), {self.point: "not mounted"})
        self.assertEqual(self.restore().returncode, 0)
        self.assertTrue(os.path.ismount(self.point))
        self.assertEqual(self.mounts("--unmount").returncode, 0)
        self.assertFalse(os.path.ismount(self.point))
        self.assertEqual(self.restore().returncode, 0)
        self.instance.umount(self.point)
        self.assertEqual(self.states(), {})
        # What is not mounted now is ended by the same command.
        self.instance.mount(self.url, "--persist", mount_point=self.point)
        self.assertEqual(self.mounts("--unmount").returncode, 0)
        done = self.instance.run("umount", *self.instance.root_flags(), self.point)
        self.assertEqual(done.returncode, 0)
        self.assertIn("does not come back any more", done.stderr)
        self.assertEqual(self.states(), {})
        self.assert_one_line(self.instance.run("umount", *self.instance.root_flags(), self.point), "is not mounted")

    def test_another_image_at_the_mount_point_ends_it_and_the_same_one_does_not(self):
        self.instance.mount(self.url, "--persist", mount_point=self.point)
        self.instance.umount(self.point, "--keep-persistent")
        self.instance.mount(self.url, mount_point=self.point)
        self.assertEqual(self.states(), {self.point: "mounted"})
        self.instance.umount(self.point, "--keep-persistent")
        path = images.random_file(1 << 20)
        done = self.instance.try_mount(self.serve(os.path.dirname(path)).url(os.path.basename(path)), self.point, "--as=file")
        self.assertEqual(done.returncode, 0)
        self.assertIn("does not come back there any more", done.stderr)
        self.assertEqual(self.states(), {})

    def test_no_signature_is_recorded_and_the_latest_one_is_used(self):
        self.instance.mount(self.url + SIGNATURE + "first", "--persist", mount_point=self.point)
        other = self.box.make_directory("other")
        self.instance.mount(self.url + SIGNATURE + "second", "--renew", mount_point=other)
        with open(self.record()) as f:
            self.assertNotIn("Signature", f.read())
        info = os.stat(self.record())
        self.assertEqual((stat.S_IMODE(info.st_mode), info.st_uid), (0o600, 0))
        self.assertEqual(stat.S_IMODE(os.stat(self.instance.state_path("mounts")).st_mode), 0o700)
        self.reboot()
        self.assertEqual(self.restore().returncode, 0)
        source = os.listdir(self.instance.state_path("sources"))
        self.assertEqual(len(source), 1)
        with open(self.instance.state_path("sources", source[0])) as f:
            self.assertEqual(json.load(f)["query"], SIGNATURE + "second")

    def test_a_bad_record_costs_only_itself(self):
        self.instance.mount(self.url, "--persist", mount_point=self.point)
        good = self.record()
        with open(good) as f:
            text = f.read()
        self.reboot()
        bad = {"cut.json": text[:40], "list.json": "[]", "deep.json": "[" * 100000, "version.json": '{"version":7}',
               "other-name.json": text, "large.json": '{"version":1,"x":"' + "x" * (2 << 20) + '"}',
               "options-.json": json.dumps(dict(json.loads(text), mount_point="/options/", options=["--help"]))}
        for name, contents in bad.items():
            with open(self.instance.state_path("mounts", name), "w") as f:
                f.write(contents)
        os.mkfifo(self.instance.state_path("mounts", "fifo.json"))
        os.symlink(good, self.instance.state_path("mounts", "link.json"))
        loose = self.instance.state_path("mounts", "loose.json")
        with open(loose, "w") as f:
            f.write(text)
        os.chmod(loose, 0o666)
        done = self.restore()
        self.assertEqual(done.returncode, 1)
        for name in [*bad, "fifo.json", "link.json", "loose.json"]:
            if name != "options-.json":
                self.assertIn("mounts/" + name, done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), len(bad) + 3, done.stderr)
        self.assertTrue(os.path.ismount(self.point))
        listed = self.mounts()
        self.assertEqual((listed.returncode, listed.stdout.count("bad record")), (0, len(bad) + 2))

    def test_one_that_cannot_be_mounted_holds_up_no_other_and_is_tried_again(self):
        point = os.path.join(self.point, "gone")
        os.mkdir(point)
        other = self.box.make_directory("other")
        self.instance.mount(self.url, "--persist", mount_point=point)
        self.instance.mount(self.url, "--persist", mount_point=other)
        self.reboot()
        os.rmdir(point)
        self.assert_one_line(self.restore(), f"{point} is not mounted again: .*does not exist")
        self.assertEqual(self.states(), {point: "not mounted", other: "mounted"})
        waits = self.box.start(self.instance.command_line("mounts", *self.instance.root_flags(), "--restore", "--until-mounted"))
        os.mkdir(point)
        self.assertTrue(wait_gone(waits.pid, 60), "it goes on after all is mounted")
        self.assertEqual(waits.wait(), 0)
        self.assertEqual(self.states(), {point: "mounted", other: "mounted"})

    def test_other_users_learn_nothing(self):
        self.instance.mount(self.url, "--persist", mount_point=self.point)
        done = self.box.run(["setpriv", "--reuid=65534", "--clear-groups", "--regid=65534",
                             *self.instance.command_line("mounts", *self.instance.root_flags())])
        self.assertEqual((done.returncode, done.stdout), (1, ""))


if __name__ == "__main__":
    main(tools=("docker-registry", "fsverity", "mkfs.erofs", "setpriv", "skopeo"))
