"""What others of the machine can cause many times is logged at a limited rate and counted, and what a status leaves out is found by name."""

import errno
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.other_user import error_of
from harness.sandbox import wait_until

TIMES = 400
# Of the daemon's log: a burst of 100, one line a second, and what it says of itself.
MOST_LINES = 160
USER = 1000  # Not the fetcher's.
MANY = 1100  # Objects; a status lists 1,000.


class LimitedLogsTest(Case):
    def setUp(self):
        super().setUp()
        os.chmod(self.box.directory, 0o711)
        self.instance = self.holdfast()

    def lines(self, program="holdfastd"):
        return self.instance.log_text(program).count("\n")

    def left_out(self):
        return self.instance.status()["counters"]["log_lines_left_out"]

    def test_a_user_that_is_refused_again_and_again_as_fetcher(self):
        self.instance.mount_file("file://" + images.random_file(1 << 20, seed=3))
        # Open by mistake; as delivered no other user can open it.
        os.chmod(os.path.dirname(self.instance.run_path()), 0o711)
        os.chmod(self.instance.run_path(), 0o711)
        os.chmod(self.instance.run_path("device.sock"), 0o666)
        before = self.lines()
        done = subprocess.run(
            ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "/usr/bin/python3", "-c",
             "import socket, sys\n"
             f"for _ in range({TIMES}):\n"
             "    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:\n"
             "        s.connect(sys.argv[1])\n"
             "        s.recv(4096)\n", self.instance.run_path("device.sock")], capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        wait_until(lambda: self.left_out() > TIMES // 2, 20, "lines left out")
        self.assertIn(f"a process of uid {USER} may not attach as fetcher", self.instance.log_text())
        self.assertLess(self.lines() - before, MOST_LINES)

    def test_reads_that_fail_again_and_again(self):
        truth = images.random_file(8 << 20, seed=4)
        origin = self.serve(os.path.dirname(truth))
        path = self.instance.mount_file(origin.url(os.path.basename(truth)), "--request-timeout=100ms",
                                        "--daemon-flag=--readahead-max=0", "--daemon-flag=--fetch-size=4K")
        origin.stop()
        before = self.lines(), self.lines("fetcherd")

        def read_many(first):
            errors = set()
            for i in range(first, TIMES, 8):
                errors.add(error_of(read_file_at, path, 16384 * i))
            return errors

        with ThreadPoolExecutor(8) as pool:
            self.assertEqual(set().union(*pool.map(read_many, range(8))), {errno.EIO})
        self.assertLess(self.lines() - before[0], MOST_LINES)
        self.assertLess(self.lines("fetcherd") - before[1], MOST_LINES)
        print(f"{TIMES} failed reads: {self.lines() - before[0]} lines of the daemon, "
              f"{self.lines('fetcherd') - before[1]} of the fetcher, {self.left_out()} left out", flush=True)

    def test_an_object_beyond_those_that_a_status_lists_is_found_by_its_name(self):
        web = self.box.make_directory("web")
        for i in range(MANY):
            with open(os.path.join(web, f"o{i:04}"), "wb") as f:
                f.write(b"content" * 100)
        images.make_erofs(self.box.make_directory("tree"), os.path.join(web, "z-image"))
        origin = self.serve(web)
        self.instance.mount(origin.url("o0000"), "--as=file")
        volume = self.instance.status()["objects"][0]["volume"]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda i: self.instance.control(
                {"op": "acquire", "volume": volume, "object": f"o{i:04}", "lend_ms": 600000}), range(MANY)))
        self.assertEqual([answer for answer in answers if not answer["ok"]], [])
        point = self.instance.mount(origin.url("z-image"))
        objects = self.instance.status()["objects"]
        self.assertEqual(len(objects), 1000)
        self.assertNotIn("z-image", [thing["name"] for thing in objects])
        fuse = self.instance.run_path("fuse")
        its_volume = next(name for name in os.listdir(fuse) if os.path.exists(os.path.join(fuse, name, "z-image")))
        for name in (point, f"{its_volume}/z-image", f"{volume}/o{MANY - 1:04}"):
            done = self.instance.run("verify", "--root", self.instance.root, "--instance", "t", name)
            self.assertNotIn("neither a mount point nor an object", done.stderr, name)
        # As `mount` asks for the error of the one that it could not read.
        answer = self.instance.control({"op": "status", "volume": its_volume, "object": "z-image"})
        self.assertEqual([thing["name"] for thing in answer["objects"]], ["z-image"])


def read_file_at(path, offset):
    fd = os.open(path, os.O_RDONLY)
    try:
        os.pread(fd, 4096, offset)
    finally:
        os.close(fd)


if __name__ == "__main__":
    main(tools=("mkfs.erofs", "setpriv"))
