"""Root file systems where something is in the way: signals, links, masks, and images that mean no good."""

import fcntl
import os
import random
import select
import signal
import socket
import stat
import subprocess
import sys
import time

import _path  # noqa: F401
from harness.case import main
from harness.containers import TOOLS, ContainerCase
from harness.origins.oci_registry import Registry
from harness.sandbox import wait_until

SIGNALS = 12


class RootfsTroubleTest(ContainerCase):
    def created(self, name, image, *flags):
        done = self.command("rootfs", "create", name, "--image", image, *flags)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.strip()

    def test_a_wrong_command_line_is_told_from_a_failure(self):
        for words, complaint in ((("rootfs", "mount", "a", "--timeout=never"), "--timeout"),
                                 (("rootfs", "create", "a", "--image", "nonsense"), "nonsense"),
                                 (("run", "--timeout=0s", "oci://h/a:v1"), "--timeout must be at least 1ms")):
            done = self.command(*words)
            self.assert_one_line(done, complaint)
            self.assertEqual(done.returncode, 2)
        for verb in ("mount", "rm"):
            done = self.command("rootfs", verb, "a")
            self.assertEqual(done.returncode, 1)
            self.assert_one_line(done, r"^holdfast: there is no root file system a \(holdfast rootfs list\)$")

    def test_users_of_the_machine_cannot_reach_an_images_programs(self):
        self.created("a", self.image("one"))
        self.assertEqual(stat.S_IMODE(os.stat(self.holdfast_.run_path("images")).st_mode), 0o700)
        self.assertEqual(stat.S_IMODE(os.stat(self.holdfast_.state_path("rootfs/a")).st_mode), 0o700)

    def test_a_user_file_that_is_no_file_is_not_opened(self):
        def device(tree):
            os.unlink(os.path.join(tree, "etc/passwd"))
            # No device has this number: to open it is ENXIO.
            os.mknod(os.path.join(tree, "etc/passwd"), stat.S_IFCHR | 0o666, os.makedev(240, 99))

        def loop(tree):
            os.unlink(os.path.join(tree, "etc/passwd"))
            os.symlink("passwd", os.path.join(tree, "etc/passwd"))

        for name, change in (("device", device), ("loop", loop)):
            image = self.image(name, add_files=change)
            done = self.command("run", image, "--", "/bin/cat", "/text")
            self.assertEqual((done.returncode, done.stdout), (0, name), done.stderr)
            done = self.command("run", "--user=app", image, "--", "/bin/cat", "/text")
            self.assert_one_line(done, "etc/passwd has no user 'app'; use a number")
        self.assert_nothing_left()

    def test_what_lies_beside_upper_stays(self):
        upper = self.box.make_directory("upper")
        os.mkdir(os.path.join(upper, "work"))
        mine = os.path.join(upper, "work/mine")
        open(mine, "w").close()
        self.created("a", self.image("one"), "--upper", upper)
        again = self.command("rootfs", "create", "b", "--image", self.image("two"), "--upper", upper + "/./")
        self.assert_one_line(again, "is the upper directory of a already")
        other = self.holdfast("other")
        again = other.run("rootfs", "create", "--root", other.root, "--instance", other.name, "b", "--image",
                          self.image("three"), "--upper", upper)
        self.assert_one_line(again, f"if that is no more, remove {upper}/.holdfast-work")
        self.assertEqual(other.run("rootfs", "list", "--root", other.root, "--instance", other.name, "--json").stdout, "[]\n")
        self.assertTrue(os.path.isdir(os.path.join(upper, ".holdfast-work")))
        done = self.command("rootfs", "rm", "a")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(sorted(os.listdir(upper)), ["upper", "work"])
        self.assertTrue(os.path.exists(mine))
        self.assert_nothing_left()

    def test_a_state_directory_behind_a_link_is_the_same(self):
        there = self.box.make_directory("elsewhere")
        os.makedirs(os.path.join(self.holdfast_.root, "var/lib"), exist_ok=True)
        os.symlink(there, os.path.join(self.holdfast_.root, "var/lib/holdfast"))
        image = self.image("one")
        bundle = self.created("a", image)
        self.assertTrue(os.path.ismount(os.path.join(bundle, "rootfs")))
        self.assertIn("a  mounted", self.command("rootfs", "list").stdout)
        done = self.command("run", image, "--", "/bin/cat", "/text")
        self.assertEqual((done.returncode, done.stdout), (0, "one"), done.stderr)
        with open(os.path.join(bundle, "rootfs/text")) as f:
            self.assertEqual(f.read(), "one")
        done = self.command("rootfs", "rm", "a")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.names(), [])
        self.assertEqual(os.listdir(os.path.join(there, self.holdfast_.name, "rootfs")), [])

    def test_a_signal_undoes_what_was_begun(self):
        image = self.image("one")
        seed = int(os.environ.get("HOLDFAST_TEST_SEED") or random.randrange(1 << 32))
        print("seed", seed, file=sys.stderr)
        chance = random.Random(seed)
        for i in range(SIGNALS):
            process = self.start("rootfs", "create", f"s{i}", "--image", image)
            time.sleep(chance.uniform(0.01, 0.5))  # Anywhere in it: that is the point.
            process.send_signal(chance.choice((signal.SIGINT, signal.SIGTERM)))
            process.communicate(timeout=60)
            if process.returncode == 0:
                done = self.command("rootfs", "rm", f"s{i}")
                self.assertEqual(done.returncode, 0, done.stderr)
            self.assert_nothing_left()
        done = self.command("run", image, "--", "/bin/cat", "/text")
        self.assertEqual((done.returncode, done.stdout), (0, "one"), done.stderr)
        self.assert_nothing_left()

    def test_an_image_in_use_affects_no_other_image(self):
        self.created("a", self.image("one"))
        place = self.holdfast_.run_path("images")
        looker = subprocess.Popen(["/bin/sleep", "1000"], cwd=os.path.join(place, os.listdir(place)[0]))
        self.addCleanup(looker.wait)
        self.addCleanup(looker.kill)
        done = self.command("rootfs", "rm", "a")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("an image stays mounted", done.stderr)
        done = self.command("run", self.image("two"), "--", "/bin/sh", "-c", "exit 7")
        self.assertEqual(done.returncode, 7, done.stderr)
        looker.kill()
        looker.wait()
        self.assertEqual(self.names(), [])
        self.assert_nothing_left()

    def test_a_silent_registry_delays_only_its_own_images(self):
        mute = socket.create_server(("127.0.0.1", 0))  # Connections to it are made, and that is all.
        self.addCleanup(mute.close)
        registry = Registry(self.box).start()
        reference = f"oci://{registry.host}/slow:v1"
        done = self.holdfast_.run("image", "push", self.image("slow").removeprefix("oci-layout:"), reference, "--plain-http")
        self.assertEqual(done.returncode, 0, done.stderr)
        layer = registry.manifest(registry.host + "/slow:v1")["layers"][0]["digest"]
        blobs = self.serve(os.path.join(registry.directory, "data"), locations=(
            f"location ~ {layer.removeprefix('sha256:')} {{ proxy_pass http://127.0.0.1:{mute.getsockname()[1]}; }}"))
        registry.stop()
        registry.redirect_blobs(blobs.url())
        registry.start()

        slow = self.start("rootfs", "create", "slow", "--image", reference, "--plain-http", "--timeout=2m")
        asked = lambda: slow.poll() is not None or select.select([mute], [], [], 0)[0]
        wait_until(asked, 60, "the image's first bytes asked for")
        self.assertIsNone(slow.poll())
        self.created("quick", self.image("one"))
        done = self.command("run", self.image("two"), "--", "/bin/cat", "/text")
        self.assertEqual((done.returncode, done.stdout), (0, "two"), done.stderr)
        done = self.command("rootfs", "rm", "slow")
        self.assert_one_line(done, "root file system slow is in use by another holdfast")
        done = self.command("rootfs", "rm", "quick")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIsNone(slow.poll(), "it still waits")
        slow.send_signal(signal.SIGTERM)
        slow.communicate(timeout=60)
        self.assertNotEqual(slow.returncode, 0)
        self.assert_nothing_left()
        self.assertNotIn("did not stop in time", self.holdfast_.log_text("supervise"))

    def hold(self, path, flags=os.O_RDWR):
        fd = os.open(path, flags)
        self.addCleanup(os.close, fd)
        fcntl.flock(fd, fcntl.LOCK_EX)
        return fd

    def test_a_wait_for_another_command_has_an_end_and_says_for_what(self):
        image = self.image("one")
        self.created("a", image)
        place = self.holdfast_.run_path("images")
        digest = os.listdir(place)[0]
        lock = self.hold(os.path.join(os.path.dirname(self.holdfast_.run_path()), ".locks", f"rootfs@{self.holdfast_.name}.lock"))
        for words in (("rootfs", "rm", "a"), ("rootfs", "list"), ("rootfs", "mount", "a"),
                      ("rootfs", "create", "b", "--image", image), ("run", image)):
            done = self.command(*words[:2 if words[0] == "rootfs" else 1], "--timeout=500ms", *words[2 if words[0] == "rootfs" else 1:])
            self.assert_one_line(done, f"holds the lock .*rootfs@{self.holdfast_.name}.lock for longer than \\d+ ms; wait for it")
        fcntl.flock(lock, fcntl.LOCK_UN)
        # Another command mounts the image.
        os.mkdir(os.path.join(place, digest + ".lock"))
        lock = self.hold(os.path.join(place, digest + ".lock"), os.O_RDONLY | os.O_DIRECTORY)
        done = self.command("rootfs", "create", "--timeout=500ms", "b", "--image", image)
        self.assert_one_line(done, f"another holdfast mounts oci-layout:.* and holds the lock .*{digest}.lock; wait for it")
        fcntl.flock(lock, fcntl.LOCK_UN)
        self.created("b", image)

    def test_the_umask_is_not_the_containers(self):
        image = self.image("one", add_files=lambda tree: os.chmod(tree, 0o751))
        done = subprocess.run(self.arguments("run", "--user=app", image, "--", "/bin/sh", "-c", "cat /text; stat -c %a /"),
                              env=self.box.environment, umask=0o077, text=True, capture_output=True, timeout=90)
        self.assertEqual((done.returncode, done.stdout), (0, "one751\n"), done.stderr)
        self.assert_nothing_left()

    def test_containers_of_one_name_in_two_instances_have_separate_cgroups(self):
        go = self.box.make_directory("go")
        image = self.image("one")
        first = self.start("run", "--name=same", f"--volume={go}:/go", image, "--", "/bin/sh", "-c",
                           "cat /proc/self/cgroup > /go/first; sleep 1000")
        path = os.path.join(go, "first")
        wait_until(lambda: os.path.exists(path) and os.path.getsize(path) or first.poll() is not None, 60, "the first one")
        other = self.holdfast("other")
        done = other.run("run", "--root", other.root, "--instance", other.name, "--name=same", image, "--", "/bin/cat",
                         "/proc/self/cgroup")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        with open(path) as f:
            self.assertNotEqual(f.read(), done.stdout)
        subprocess.run(["runc", "--root", self.holdfast_.state_path("rootfs/same/runc"), "kill", "same", "KILL"], check=True)
        first.communicate(timeout=60)
        self.assert_nothing_left()


if __name__ == "__main__":
    main(tools=(*TOOLS, "docker-registry", "nginx", "skopeo"))
