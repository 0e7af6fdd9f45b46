"""`holdfast rootfs` and `holdfast run`: containers on images, by runc, and what is left of them: nothing."""

import json
import os
import random
import shutil
import signal
import subprocess
import time

import _path  # noqa: F401
from harness.case import main
from harness.containers import TOOLS, ContainerCase
from harness.sandbox import wait_until

CONTAINERS = 10
KILLS = 8


class RootfsTest(ContainerCase):
    def test_a_container_has_its_own_exit_code_and_leaves_nothing(self):
        image = self.image("one")
        done = self.command("run", "--user=app", "--env=A=b", image, "--", "/bin/sh", "-c",
                            "id -u; id -g; echo $A; cat /text; exit 7")
        self.assertEqual((done.returncode, done.stdout), (7, "1000\n1001\nb\none"), done.stderr)
        done = self.command("run", "--tmpfs", image, "--", "/bin/sh", "-c", "echo new > /text; cat /text")
        self.assertEqual((done.returncode, done.stdout), (0, "new\n"), done.stderr)
        self.assert_nothing_left()

    def test_ten_containers_at_once_share_one_mount_of_each_of_two_images(self):
        images = {text: self.image(text) for text in ("one", "two")}
        go = self.box.make_directory("go")
        gate = self.box.path("gate")
        os.mkfifo(gate)
        opened = os.open(gate, os.O_RDWR)  # Until it is closed no reader sees the gate's end.
        self.addCleanup(lambda: os.close(opened) if opened >= 0 else None)
        running = [(text, self.start("run", f"--volume={go}:/go", f"--volume={gate}:/gate", images[text], "--", "/bin/sh", "-c",
                                     f"exec 3< /gate; echo > /go/{text}-{i}; cat /text; cat <&3"))
                   for text in images for i in range(CONTAINERS)]
        def all_run():
            failed = [process.communicate()[1] for _, process in running if process.poll() is not None]
            self.assertEqual(failed, [])
            return len(os.listdir(go)) == len(running)

        wait_until(all_run, 120, "all containers running")
        self.assertEqual((len(self.mounts("overlay")), len(self.mounts("erofs"))), (len(running), len(images)))
        os.close(opened)
        opened = -1
        for text, process in running:
            out, errors = process.communicate(timeout=90)
            self.assertEqual((process.returncode, out), (0, text), errors)
        self.assert_nothing_left()

    def test_what_a_killed_create_leaves_is_cleared_away(self):
        image = self.image("one")
        seed = random.randrange(1 << 32)
        print("seed", seed)
        chance = random.Random(seed)
        for i in range(KILLS):
            process = self.start("rootfs", "create", f"k{i}", "--image", image)
            time.sleep(chance.uniform(0.01, 0.6))  # Anywhere in it: that is the point.
            process.kill()
            process.communicate()
            wait_until(lambda: set(self.names()) <= {f"k{i}"}, 60, "the rest to be cleared away")
            for name in self.names():
                done = self.command("rootfs", "rm", name)
                self.assertEqual(done.returncode, 0, done.stderr)
        # One that was killed after it had started the instance left that running, or still starting.
        wait_until(lambda: self.holdfast_.run("stop", *self.holdfast_.root_flags(), "--instance", self.holdfast_.name)
                   .returncode == 0 and not os.path.exists(self.holdfast_.run_path()), 30, "the instance has ended")
        self.assert_nothing_left()

    def test_what_a_killed_run_leaves_is_cleared_away(self):
        go = self.box.make_directory("go")
        process = self.start("run", f"--volume={go}:/go", self.image("one"), "--", "/bin/sh", "-c",
                             "echo > /go/here; sleep 1000")
        wait_until(lambda: os.listdir(go), 60, "the container running")
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.assert_nothing_left()
        process.communicate(timeout=30)  # The container had its pipes.

    def test_stop_says_how_a_root_file_system_goes(self):
        done = self.command("rootfs", "create", "a", "--image", self.image("one"))
        self.assertEqual(done.returncode, 0, done.stderr)
        flags = [*self.holdfast_.root_flags(), "--instance", self.holdfast_.name]
        done = self.holdfast_.run("stop", *flags)
        self.assert_one_line(done, "has mounts: .*; the root file system a is made of .*; remove it first: holdfast rootfs rm .* a$")
        cure = done.stderr.split("holdfast rootfs ")[1].split()
        done = self.holdfast_.run("rootfs", *cure)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assert_nothing_left()

    def test_two_of_one_image_go_in_either_order_and_share_its_mount(self):
        image = self.image("one")
        for first, second in (("a", "b"), ("b", "a")):
            for name in "ab":
                done = self.command("rootfs", "create", name, "--image", image)
                self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(len(self.mounts("erofs")), 1)
            objects = [line for line in self.holdfast_.dump().splitlines() if line.startswith("object ")]
            self.assertEqual(len(objects), 1, objects)  # One copy for both.
            for name, left in ((first, 1), (second, 0)):
                done = self.command("rootfs", "rm", name)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual(len(self.mounts("erofs")), left)
            self.assert_nothing_left()

    def test_what_is_written_below_upper_is_there_the_next_time(self):
        image = self.image("one")
        upper = self.box.make_directory("upper")
        done = self.command("run", "--upper", upper, image, "--", "/bin/sh", "-c", "echo kept > /written")
        self.assertEqual(done.returncode, 0, done.stderr)
        done = self.command("run", "--upper", upper, image, "--", "/bin/cat", "/written")
        self.assertEqual((done.returncode, done.stdout), (0, "kept\n"), done.stderr)
        self.assert_nothing_left()

    def test_an_upper_directory_may_have_any_name(self):
        """The kernel splits an overlay's options at commas and colons."""
        image = self.image("one")
        upper = self.box.make_directory("a,b:c\\d e=f")
        done = self.command("run", "--upper", upper, image, "--", "/bin/sh", "-c", "echo kept > /written")
        self.assertEqual(done.returncode, 0, done.stderr)
        done = self.command("rootfs", "create", "a", "--image", image, "--upper", upper)
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(done.stdout.strip() + "/rootfs/written") as f:
            self.assertEqual(f.read(), "kept\n")
        user = self.in_other_namespace("--root=" + done.stdout.strip() + "/rootfs")
        self.assert_one_line(self.command("rootfs", "rm", "a"), f"a is used by process {user.pid} of a container")
        user.kill()
        user.wait()
        self.assertEqual(self.command("rootfs", "rm", "a").returncode, 0)
        self.assertEqual(os.listdir(upper), ["upper"])

    def test_the_instances_root_may_have_any_name(self):
        """The lower directory is below it."""
        image = self.image("one")
        self.holdfast_.root = self.flags[1] = self.box.make_directory("r,o:o\\t x=y")
        done = self.command("run", image, "--", "/bin/sh", "-c", "cat /text; echo x > /written && cat /written")
        self.assertEqual((done.returncode, done.stdout), (0, "onex\n"), done.stderr)
        done = self.command("rootfs", "create", "a", "--image", image)
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(done.stdout.strip() + "/rootfs/text") as f:
            self.assertEqual(f.read(), "one")
        self.assertEqual(self.command("rootfs", "rm", "a").returncode, 0)
        self.assertEqual(self.names(), [])

    def test_an_upper_directory_whose_name_is_not_utf_8_keeps_every_byte(self):
        image = self.image("one")
        upper = os.fsencode(self.box.directory) + b"/u-\xff\xe4,:\\ \xc3\xa4"
        os.mkdir(upper)
        done = self.command("rootfs", "create", "a", "--image", image, "--upper", upper)
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(done.stdout.strip() + "/rootfs/written", "w") as f:
            f.write("kept")
        self.assertEqual(os.listdir(upper + b"/upper"), [b"written"])
        done = self.command("rootfs", "create", "b", "--image", image, "--upper", upper)
        self.assertNotEqual(done.returncode, 0)
        subprocess.run(["umount", "-l", self.holdfast_.state_path("rootfs/a/rootfs")], check=True)
        done = self.command("rootfs", "mount", "a")
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(self.holdfast_.state_path("rootfs/a/rootfs/written")) as f:
            self.assertEqual(f.read(), "kept")
        self.assertEqual(self.command("rootfs", "rm", "a").returncode, 0)
        self.assertEqual(os.listdir(upper), [b"upper"])

    def test_a_long_host_name_is_cut_between_characters(self):
        image = self.image("one")
        layout = image.removeprefix("oci-layout:")
        config = self.box.path("config.json")
        with open(config, "w") as f:
            json.dump({"architecture": "amd64", "os": "linux", "config": {"Hostname": "x" + "\u00e4" * 40}}, f)
        done = self.holdfast_.run("image", "build", "--force", "--config", config, self.tree("one"), layout)
        self.assertEqual(done.returncode, 0, done.stderr)
        done = self.command("run", image, "--", "/bin/cat", "/proc/sys/kernel/hostname")
        self.assertEqual((done.returncode, done.stdout), (0, "x" + "\u00e4" * 31 + "\n"), done.stderr)

    def test_an_upper_directory_on_an_unsuitable_file_system_is_refused(self):
        layers = {name: self.box.make_directory("overlay", name) for name in ("lower", "upper", "work", "merged")}
        options = ",".join(f"{name}dir={layers[name]}" for name in ("lower", "upper", "work"))
        subprocess.run(["mount", "-t", "overlay", "none", "-o", options, layers["merged"]], check=True)
        done = self.command("rootfs", "create", "a", "--image", self.image("one"), "--upper", layers["merged"])
        self.assert_one_line(done, "overlay's upper directory; use one on ext4, xfs or btrfs, or --tmpfs")
        self.assert_nothing_left()

    def test_without_runc_its_package_is_named(self):
        image = self.image("one")
        tools = self.box.make_directory("tools")
        os.symlink(shutil.which("fusermount3"), os.path.join(tools, "fusermount3"))
        done = subprocess.run(self.arguments("run", image), text=True, capture_output=True, timeout=60,
                              env=dict(self.box.environment, PATH=tools))
        self.assert_one_line(done, "runc")
        self.assert_nothing_left()

    def in_other_namespace(self, *flags):
        """A process with a mount namespace of its own."""
        process = subprocess.Popen(["unshare", "--mount", *flags, "/bin/sleep", "1000"])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        own = os.readlink("/proc/self/ns/mnt")
        wait_until(lambda: os.readlink(f"/proc/{process.pid}/ns/mnt") != own and "sleep" in self.program_of(process.pid),
                   30, "its namespace")
        return process

    @staticmethod
    def program_of(pid):
        with open(f"/proc/{pid}/cmdline") as f:
            return f.read().partition("\0")[0]

    def test_one_that_is_used_is_not_removed(self):
        done = self.command("rootfs", "create", "a", "--image", self.image("one"))
        self.assertEqual(done.returncode, 0, done.stderr)
        bundle = done.stdout.strip()
        user = self.in_other_namespace("--root=" + bundle + "/rootfs")
        self.assert_one_line(self.command("rootfs", "rm", "a"), f"a is used by process {user.pid} of a container")
        self.assertTrue(os.path.ismount(bundle + "/rootfs"))
        user.kill()
        user.wait()
        done = self.command("rootfs", "rm", "a")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assert_nothing_left()

    def test_a_process_with_a_copy_of_its_mounts_is_no_user(self):
        done = self.command("rootfs", "create", "a", "--image", self.image("one"))
        self.assertEqual(done.returncode, 0, done.stderr)
        other = self.in_other_namespace("--propagation", "private")
        done = self.command("rootfs", "rm", "a")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.names(), [])
        self.assertEqual(self.mounts("overlay") + self.mounts("erofs"), [])
        self.assertTrue(self.holdfast_.processes(), "the copy is still served")
        other.kill()
        other.wait()
        self.holdfast_.stop()
        self.assert_nothing_left()


if __name__ == "__main__":
    main(tools=TOOLS)
