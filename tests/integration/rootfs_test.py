"""`holdfast rootfs` and `holdfast run`: containers on images, by runc, and what is left of them: nothing."""

import json
import os
import random
import shutil
import signal
import subprocess
import time

import _path  # noqa: F401
from harness.case import Case, main
from harness.holdfast import BIN
from harness.sandbox import wait_until

PASSWD = "root:x:0:0::/:/bin/sh\napp:x:1000:1001::/:/bin/sh\n"
CONTAINERS = 10
KILLS = 8


class RootfsTest(Case):
    def setUp(self):
        super().setUp()
        self.holdfast_ = self.holdfast()
        self.flags = ["--root", self.holdfast_.root, "--instance", self.holdfast_.name]

    def tearDown(self):
        for name in self.names():
            self.command("rootfs", "rm", "--force", name)

    def image(self, text):
        """A layout of busybox, whose /text says `text`."""
        tree = self.box.make_directory("tree-" + text)
        for folder in ("bin", "etc", "proc", "sys", "dev"):
            os.mkdir(os.path.join(tree, folder))
        shutil.copy("/bin/busybox", os.path.join(tree, "bin/busybox"))
        for tool in ("sh", "cat", "id", "sleep"):
            os.symlink("busybox", os.path.join(tree, "bin", tool))
        for path, contents in (("etc/passwd", PASSWD), ("text", text)):
            with open(os.path.join(tree, path), "w") as f:
                f.write(contents)
        layout = self.box.path("image-" + text)
        done = self.holdfast_.run("image", "build", tree, layout)
        self.assertEqual(done.returncode, 0, done.stderr)
        return "oci-layout:" + layout

    def arguments(self, *words):
        """`words`, with the instance's flags behind the verb."""
        verb = 2 if words[0] == "rootfs" else 1
        return [os.path.join(BIN, "holdfast"), *words[:verb], *self.flags, *words[verb:]]

    def command(self, *words):
        return self.box.run(self.arguments(*words), timeout=90)

    def start(self, *words):
        process = subprocess.Popen(self.arguments(*words), stdin=subprocess.DEVNULL, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process):
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()

    def names(self):
        done = self.command("rootfs", "list", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        return [one["name"] for one in json.loads(done.stdout)]

    def mounts(self, kind):
        with open("/proc/self/mountinfo") as f:
            return [line for line in f if self.holdfast_.root in line and f" - {kind} " in line]

    def assert_nothing_left(self):
        self.assertEqual(self.names(), [])
        self.assertEqual(os.listdir(self.holdfast_.state_path("rootfs")), [])
        self.assertEqual(self.mounts("overlay") + self.mounts("erofs"), [])
        self.assertFalse(os.path.exists(self.holdfast_.run_path()))

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
        running = [(text, self.start("run", f"--volume={go}:/go", images[text], "--", "/bin/sh", "-c",
                                     f"echo > /go/{text}-{i}; cat /text; while [ ! -e /go/now ]; do sleep 1; done"))
                   for text in images for i in range(CONTAINERS)]
        def all_run():
            failed = [process.communicate()[1] for _, process in running if process.poll() is not None]
            self.assertEqual(failed, [])
            return len(os.listdir(go)) == len(running)

        wait_until(all_run, 120, "all containers running")
        self.assertEqual((len(self.mounts("overlay")), len(self.mounts("erofs"))), (len(running), len(images)))
        with open(os.path.join(go, "now"), "w"):
            pass
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

    def test_one_that_is_used_is_not_removed(self):
        done = self.command("rootfs", "create", "a", "--image", self.image("one"))
        self.assertEqual(done.returncode, 0, done.stderr)
        bundle = done.stdout.strip()
        user = subprocess.Popen(["unshare", "--mount", "sleep", "1000"])
        self.addCleanup(user.wait)
        self.addCleanup(user.kill)
        own = os.readlink("/proc/self/ns/mnt")
        wait_until(lambda: os.readlink(f"/proc/{user.pid}/ns/mnt") != own, 30, "its namespace")
        self.assert_one_line(self.command("rootfs", "rm", "a"), f"a is used by process {user.pid} of a container")
        self.assertTrue(os.path.ismount(bundle + "/rootfs"))
        user.kill()
        user.wait()
        done = self.command("rootfs", "rm", "a")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assert_nothing_left()


if __name__ == "__main__":
    main(tools=("runc", "mkfs.erofs", "fsverity"))
