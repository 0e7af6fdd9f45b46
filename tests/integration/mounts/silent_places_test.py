"""Mount points, images and secrets on file systems whose server never answers, and what else runs beside them."""

import ctypes
import os
import signal
import subprocess
import time

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.sandbox import wait_until

MNT_DETACH = 2
# --timeout is 3 s; what does not end by itself takes far longer.
BOUND_S = 20


class SilentPlacesTest(Case):
    def setUp(self):
        super().setUp()
        self.image, self.tree = images.random_image(2, 1 << 20)
        self.instance = self.holdfast()
        self.point = self.box.make_directory("point")
        self.silent = self.box.make_directory("silent")
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0"
        done = self._libc.mount(b"silent", os.fsencode(self.silent), b"fuse.silent", 0, options.encode())
        self.assertEqual(done, 0, os.strerror(ctypes.get_errno()))
        self.addCleanup(self.answer)

    def answer(self):
        """Whatever waits for it ends with an error."""
        if self._device is not None:
            os.close(self._device)
            self._device = None
            self._libc.umount2(os.fsencode(self.silent), MNT_DETACH)

    def places(self):
        """(what is in the silent file system, URL, mount point)."""
        # A name each: a second look-up of one name waits behind the first.
        point, image, layout = (os.path.join(self.silent, name) for name in ("point", "image", "layout"))
        yield self.silent, "file://" + self.image, self.silent
        yield point, "file://" + self.image, point
        yield image, "file://" + image, self.point
        yield layout, "oci-layout:" + layout, self.box.make_directory("second")

    def start_mount(self, url, point, timeout):
        return self.box.start(
            self.instance.command_line(*self.instance.mount_arguments(url, point, "--quiet", timeout)),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait_for_look_up(self, process):
        """Returns once a process of it waits for the silent file system."""
        def is_waiting():
            pids = [*self.children_of(process.pid), str(process.pid)]
            return any("fuse" in self.stack_of(pid) for pid in pids)
        wait_until(is_waiting, BOUND_S, "a look-up that waits")

    @staticmethod
    def children_of(pid):
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            return f.read().split()

    @staticmethod
    def stack_of(pid):
        try:
            with open(f"/proc/{pid}/wchan") as f:
                return f.read()
        except OSError:
            return ""

    def test_a_mount_ends_with_its_timeout_and_names_the_place(self):
        for place, url, point in self.places():
            with self.subTest(url=url, point=point):
                process = self.start_mount(url, point, "--timeout=3s")
                _, said = process.communicate(timeout=BOUND_S)
                self.assertEqual(process.returncode, 1, said)
                self.assertRegex(said, f"^holdfast: .*{place}.* is on a file system that does not answer .*--timeout.*\n$")
        self.assertEqual(self.instance.processes(), [])

    def test_a_signal_ends_a_mount(self):
        for _, url, point in self.places():
            with self.subTest(url=url, point=point):
                process = self.start_mount(url, point, "--timeout=5m")
                self.wait_for_look_up(process)
                process.send_signal(signal.SIGINT)
                _, said = process.communicate(timeout=BOUND_S)
                self.assertEqual(process.returncode, 128 + signal.SIGINT, said)
                self.assertIn("interrupted: ", said)

    def test_a_signal_ends_a_mount_whose_look_up_no_signal_ends(self):
        # The kernel does look-ups in one directory one by one, before the server has said otherwise.
        first = self.box.start(["stat", os.path.join(self.silent, "first")],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: "fuse" in self.stack_of(first.pid), BOUND_S, "the first look-up")
        process = self.start_mount("file://" + self.image, os.path.join(self.silent, "point"), "--timeout=5m")
        self.wait_for_look_up(process)
        children = self.children_of(process.pid)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=BOUND_S)
        self.assertEqual(process.returncode, 128 + signal.SIGTERM, said)
        self.assertIn("interrupted: ", said)
        first.kill()
        first.wait(BOUND_S)
        for pid in children:
            wait_until(lambda: not os.path.exists(f"/proc/{pid}/cwd"), BOUND_S, "the end of what was left behind")

    def test_a_signal_ends_every_command_with_a_path_there(self):
        place, here = os.path.join(self.silent, "place"), self.box.make_directory("here")
        flags = [*self.instance.root_flags(), "--instance", self.instance.name]
        for words in (["image", "build", place, here + "/out"], ["image", "build", here, place], ["image", "build", self.silent, here + "/out"],
                      ["image", "build", here, here + "/out", "--config", place], ["image", "build", here, here + "/out", "--tmp-dir", place],
                      ["image", "build", "oci-layout:" + place, here + "/out"], ["image", "build", f"oci-archive:{place}", here + "/out"],
                      ["start", *flags, "--cache-dir", place],
                      ["image", "push", place, "oci://localhost:1/image:tag"],
                      ["image", "inspect", *flags, f"oci-layout:{self.silent}:tag", "--timeout=5m"],
                      ["rootfs", "create", *flags, "--timeout=5m", "--upper", place, "--image", "oci-layout:" + here, "name"],
                      ["rootfs", "create", *flags, "--timeout=5m", "--image", "oci-layout:" + place, "name"]):
            with self.subTest(words=words):
                process = self.box.start(self.instance.command_line(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                self.wait_for_look_up(process)
                process.send_signal(signal.SIGINT)
                _, said = process.communicate(timeout=BOUND_S)
                self.assertEqual(process.returncode, 128 + signal.SIGINT, said)

    def test_an_inspection_ends_with_its_timeout_and_names_the_place(self):
        place = os.path.join(self.silent, "place")
        done = self.instance.run("image", "inspect", *self.instance.root_flags(), "--timeout=1s", "oci-layout:" + place)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr, f"{place} is on a file system that does not answer")

    def test_other_commands_do_not_wait_for_it(self):
        waiting = [self.start_mount(url, point, "--timeout=5m") for _, url, point in self.places()]
        for process in waiting:
            self.wait_for_look_up(process)
        begun = time.monotonic()
        self.instance.mount("file://" + self.image, mount_point=self.box.make_directory("other"))
        done = self.instance.run("status", *self.instance.root_flags())
        self.assertIn(self.box.path("other"), done.stdout)
        self.instance.umount(self.box.path("other"))
        self.instance.stop()
        self.assertLess(time.monotonic() - begun, BOUND_S)
        for process in waiting:
            self.assertIsNone(process.poll())
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=BOUND_S)


if __name__ == "__main__":
    main(tools=("mkfs.erofs",))
