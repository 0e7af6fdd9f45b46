"""The fetcher's rights: a user of its own, and a process of root that opens for it what the sources name and nothing else."""

import errno
import os
import signal
import socket
import subprocess

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.holdfast import NO_READ_AHEAD
from harness.readers import RIGHT, Reader, pread
from harness.sandbox import processes_of, wait_gone, wait_until

SIZE = 8 << 20
NOBODY = 65534
USER = 1000
SECRET = b"root's own words; " * 300000


def status_of(pid):
    with open(f"/proc/{pid}/status") as f:
        return dict(line.rstrip().split(":", 1) for line in f if ":" in line)


def as_user(uid, function):
    """What `function` returned or raised as that user: None, or an errno."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            function()
            os._exit(0)
        except OSError as e:
            os._exit(e.errno)
        finally:
            os._exit(255)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) or None


class FetcherRightsTest(Case):
    def setUp(self):
        super().setUp()
        self.instance = self.holdfast()
        self.truth = images.random_file(SIZE, seed=77)
        self.directory = self.box.make_directory("images")

    def put(self, name="x.img", owner=0, mode=0o600):
        path = os.path.join(self.directory, name)
        subprocess.run(["cp", "--", self.truth, path], check=True)
        os.chown(path, owner, owner)
        os.chmod(path, mode)
        return path

    def mount(self, path, *flags):
        return self.instance.mount_file("file://" + path, NO_READ_AHEAD, *flags)

    def broker_pid(self):
        with open(f"/proc/{self.instance.attached_pid()}/task/{self.instance.attached_pid()}/children") as f:
            return int(f.read().split()[0])

    def read_at(self, path, offset, seconds=20):
        reader = self.keep(Reader(path, offset, 4096))
        self.assertTrue(reader.wait(seconds), f"still waiting at {offset}")
        return reader

    # Its user and its rights.
    def test_the_fetcher_is_no_root_and_its_environment_is_listed(self):
        self.box.environment.update(PRIVATE_OF_THE_CALLER="do-not-pass-on", https_proxy="http://127.0.0.1:1")
        self.mount(self.put())
        status = status_of(self.instance.wait_fetcher())
        self.assertNotIn("0", status["Uid"].split())
        self.assertNotIn("0", status["Gid"].split())
        self.assertEqual(status["Groups"].split(), [])
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            self.assertEqual(int(status[name], 16), 0, name)
        self.assertEqual(status["NoNewPrivs"].strip(), "1")
        pids = [pid for pid in processes_of(self.box.directory)
                if os.path.basename(os.readlink(f"/proc/{pid}/exe")).startswith("holdfast")]
        self.assertGreaterEqual(len(pids), 4, "supervisor, daemon, fetcher and broker")
        for pid in pids:
            with open(f"/proc/{pid}/environ") as f:
                names = {variable.split("=", 1)[0] for variable in f.read().split("\0") if variable}
            self.assertNotIn("PRIVATE_OF_THE_CALLER", names, f"process {pid}")

    def test_another_user_is_taken_when_it_is_named_and_one_that_is_not_there_is_refused(self):
        done = self.instance.try_mount("file://" + self.put(), self.box.make_directory("p"), "--fetcher-user=no-such-user")
        self.assert_one_line(done, "--fetcher-user: there is no user \"no-such-user\"")
        path = self.mount(self.put(), f"--fetcher-user={USER}")
        self.assertEqual(status_of(self.instance.wait_fetcher())["Uid"].split()[0], str(USER))
        self.assert_reads_right(path, self.truth)

    def test_root_is_possible_and_then_there_is_no_broker(self):
        path = self.mount(self.put(), "--fetcher-user=root")
        self.assertEqual(status_of(self.instance.wait_fetcher())["Uid"].split()[0], "0")
        self.assert_reads_right(path, self.truth)

    # What it gets.
    def test_what_only_root_can_read_is_read_on_after_the_deaths_of_both(self):
        os.chmod(self.directory, 0o700)
        path = self.mount(self.put())
        for offset in range(0, 6):
            if offset % 3 == 1:
                self.instance.kill_fetcher()
            elif offset % 3 == 2:
                pid, broker = self.instance.wait_fetcher(), self.broker_pid()
                os.kill(broker, signal.SIGKILL)
                self.assertTrue(wait_gone(broker, 5))
                self.assertTrue(wait_gone(pid, 10), "the fetcher ends with its broker")
            self.instance.wait_fetcher()
            self.assert_reads_right(path, self.truth, offset << 20, 65536)

    def test_the_broker_ends_with_the_fetcher(self):
        self.mount(self.put())
        broker = self.broker_pid()
        self.instance.kill_fetcher()
        self.assertTrue(wait_gone(broker, 10))

    def test_a_neighbour_of_the_image_is_not_opened(self):
        self.mount(self.put())
        self.put("other")
        volume = os.listdir(self.instance.state_path("sources"))[0].removesuffix(".json")
        answer = self.instance.control({"op": "acquire", "volume": volume, "object": "other", "timeout_ms": 10000,
                                        "replace_stale": False})
        self.assertIn("not what was mounted", str(answer))

    # A file of another user in its place.
    def swapped(self, swap):
        """An image in a user's directory: what a read gets once `swap` has put something else in its place."""
        os.chown(self.directory, USER, USER)
        secret = self.box.path("secret")
        with open(secret, "wb") as f:
            f.write(SECRET[:SIZE])
        os.chmod(secret, 0o600)
        image = self.put(owner=USER, mode=0o644)
        path = self.mount(image, "--request-timeout=8s")
        self.assert_reads_right(path, self.truth, 0, 65536)
        swap(image, secret)
        reader = self.read_at(path, 4 << 20)
        self.assertNotEqual(reader.result, RIGHT)
        self.assertIn(reader.result, (errno.EIO, errno.ESTALE))
        # Nor does a restarted fetcher.
        self.instance.kill_fetcher()
        self.instance.wait_fetcher()
        self.assertIn(self.read_at(path, 5 << 20).result, (errno.EIO, errno.ESTALE))
        data = b""
        for folder, _, names in os.walk(self.instance.state_path("cache", "data")):
            for name in names:
                with open(os.path.join(folder, name), "rb") as f:
                    data += f.read()
        self.assertNotIn(SECRET[:64], data)

    def test_a_symbolic_link_in_the_images_place_is_not_followed(self):
        def swap(image, secret):
            os.unlink(image)
            os.symlink(secret, image)
        self.swapped(swap)

    def test_a_link_in_place_of_its_directory_is_not_followed(self):
        def swap(image, secret):
            os.rename(self.directory, self.directory + ".old")
            other = self.box.make_directory("other")
            os.link(secret, os.path.join(other, os.path.basename(image)))
            os.symlink(other, self.directory)
        self.swapped(swap)

    def test_another_file_in_its_place_is_not_taken(self):
        def swap(image, secret):
            os.unlink(image)
            os.link(secret, image)
        self.swapped(swap)

    def test_a_fifo_in_its_place_stops_no_other_read(self):
        def swap(image, secret):
            os.unlink(image)
            os.mkfifo(image)
        self.swapped(swap)

    def test_the_broker_leaves_no_zombie(self):
        path = self.mount(self.put())
        self.assert_reads_right(path, self.truth, 0, 65536)
        broker = self.broker_pid()

        def children():
            with open(f"/proc/{broker}/task/{broker}/children") as f:
                return f.read().split()
        wait_until(lambda: not children(), 10, "the broker's children to be reaped")

    def test_a_link_that_the_url_names_is_followed_once(self):
        image = self.put()
        link = os.path.join(self.directory, "link.img")
        os.symlink("x.img", link)
        path = self.mount(link)
        self.assert_reads_right(path, self.truth, 0, 65536)
        os.unlink(link)
        os.symlink("/etc/shadow", link)
        self.assert_reads_right(path, self.truth, 4 << 20, 65536)
        self.assertTrue(os.path.exists(image))

    def test_what_is_no_regular_file_is_refused(self):
        fifo = os.path.join(self.directory, "fifo")
        os.mkfifo(fifo)
        for name, what in (("fifo", fifo), ("null", "/dev/null")):
            done = self.instance.try_mount("file://" + what, self.box.make_directory("p-" + name), "--as=file")
            self.assert_one_line(done, "not a regular file")

    # What others can reach.
    def test_no_other_user_reaches_the_run_directory(self):
        self.mount(self.put())

        def connect(name, kind):
            with socket.socket(socket.AF_UNIX, kind) as s:
                s.connect(self.instance.run_path(name))

        for uid in (NOBODY, USER):
            for name, kind in (("device.sock", socket.SOCK_SEQPACKET), ("control.sock", socket.SOCK_STREAM),
                               ("notify/fetcherd", socket.SOCK_DGRAM), ("notify/holdfastd", socket.SOCK_DGRAM)):
                with self.subTest(uid=uid, name=name):
                    self.assertEqual(as_user(uid, lambda: connect(name, kind)), errno.EACCES)
            for directory in (self.instance.run_path(), self.instance.state_path("sources")):
                self.assertEqual(as_user(uid, lambda: os.listdir(directory)), errno.EACCES, directory)
            fetcher = self.instance.attached_pid()
            self.assertEqual(as_user(uid, lambda: os.listdir(f"/proc/{fetcher}/fd")), errno.EACCES)


if __name__ == "__main__":
    main()
