"""`holdfast cachefiles-run --static`: a program finds the device at /dev/cachefiles, and its mounts reach the host."""

import os
import unittest

import _path  # noqa: F401
from harness.cachefiles.cachefiles_case import CLIENTS, CachefilesCase, UnderTheUnit, image
from harness.case import main
from harness.holdfast import BIN
from harness.sandbox import wait_until

HOLDFAST = os.path.join(BIN, "holdfast")
PLACE = "/dev/cachefiles"


class LauncherCase(CachefilesCase):
    def launch(self, *command):
        return [HOLDFAST, "cachefiles-run", "--static", "--cachefiles-device=" + self.device, "--", *command]

    def program(self):
        return self.launch(*CLIENTS[self.kind])

    def run_on_host(self, script, *arguments):
        """Runs a shell script on a host of its own, all of whose mounts are shared, and whose /dev is a tmpfs with a file that
        is not the device; the script's arguments are the sandbox's directory and the rest."""
        host = ('mount -t tmpfs holdfast-test "$1/host" && mount -t tmpfs dev /dev && mkdir "$1/host/elsewhere" && '
                'mknod -m 666 /dev/null c 1 3 && echo another >/dev/other && ')
        self.box.make_directory("host")
        return self.box.run(["unshare", "--mount", "--propagation", "private", "sh", "-c",
                             "mount --make-rshared / && " + host + script, "sh", self.box.directory, *arguments])

    def assert_is_done(self, done):
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)


class UsualPlaceTest:
    """Of a LauncherCase; a class below for each client."""

    def test_an_image_is_read_through_a_daemon_that_opens_the_usual_path(self):
        path, _ = image()
        self.source("image", path)
        process, log = self.client(PLACE, "bind")
        served = self.machine.acquire("erofs,image", "image")
        self.assert_reads_right(served, path)
        self.assertIn("open erofs,image image", self.text(log))
        # Its directory is reached by another mount than holdfastd's own.
        self.kill(process)
        wait_until(self.files, 20, "the object has its name")
        self.assertEqual(os.stat(self.files()[0]).st_nlink, 2, "it takes no space of its own")
        _, log = self.client(PLACE, "bind")
        self.machine.acquire("erofs,image", "image")
        self.assert_reads_right(served, path)
        self.assertNotIn("read ", self.text(log), "what was cached is dropped")

    def files(self):
        return [os.path.join(where, name) for where, _, names in os.walk(self.directory) for name in names]


class StaticC(UsualPlaceTest, LauncherCase):
    kind = "static C"


class StaticCUnderTheUnit(UsualPlaceTest, UnderTheUnit, LauncherCase):
    kind = "static C"


@unittest.skipUnless(os.path.exists(CLIENTS["static Go"][0]), "no Go compiler")
class StaticGo(UsualPlaceTest, LauncherCase):
    kind = "static Go"


class PreloadedC(UsualPlaceTest, LauncherCase):
    """The library, and a device at another path."""

    def program(self):
        return [*CLIENTS["preloaded C"][:2], "--cachefiles-device=" + self.device, *CLIENTS["preloaded C"][2:]]


class LauncherTest(LauncherCase):
    def has_device(self, path):
        return f'test "$(stat -c %i {path})" = "$(stat -c %i "{self.device}")"'

    def test_the_host_has_no_such_file(self):
        was_there = os.path.lexists(PLACE)
        done = self.box.run(self.launch("sh", "-c", self.has_device(PLACE) + " && ls -A /dev && echo >/dev/null && head -c 1 /dev/zero >/dev/null"))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertLessEqual({"cachefiles", "null", "zero", "pts", "ptmx", "fd"}, set(done.stdout.split()))
        self.assertEqual(os.path.lexists(PLACE), was_there)

    def test_mounts_below_dev_are_the_hosts(self):
        done = self.run_on_host('mkdir /dev/shm && mount -t tmpfs shm /dev/shm && echo 1 >/dev/shm/mark && ln -s shm /dev/link && '
                                '"$2" cachefiles-run --static --cachefiles-device="$3" -- '
                                'sh -c "cat /dev/link/mark; mount -t tmpfs more /dev/shm && echo 2 >/dev/shm/mark" && cat /dev/shm/mark && '
                                'test ! -e /dev/cachefiles', HOLDFAST, self.device)
        self.assert_is_done(done)
        self.assertEqual(done.stdout, "1\n2\n")

    def test_the_hosts_file_is_another(self):
        for make in ("echo another >/dev/cachefiles", "mknod /dev/cachefiles c 1 3", "ln -s other /dev/cachefiles",
                     "ln -s nowhere /dev/cachefiles", "mkdir /dev/cachefiles"):
            with self.subTest(make):
                done = self.run_on_host(make + ' && before=$(stat -c %i,%F /dev/cachefiles) && "$2" cachefiles-run --static '
                                        '--cachefiles-device="$3" -- sh -c \'' + self.has_device("-L " + PLACE) + '\' && '
                                        'test "$before" = "$(stat -c %i,%F /dev/cachefiles)" && cat /dev/other',
                                        HOLDFAST, self.device)
                self.assert_is_done(done)
                self.assertEqual(done.stdout, "another\n", "the host's own file")

    def test_mounts_of_the_program_reach_the_host_and_the_hosts_reach_it(self):
        # With the link, /dev/cachefiles lies on the mount that the directories are on.
        for make, file in (("true", ""), ('ln -s "$1/host/file" /dev/cachefiles && echo another >"$1/host/file"', "another\n")):
            with self.subTest(make):
                program = ("sh -c '" + self.has_device("-L " + PLACE) + ' && mount -t tmpfs inner "$1/host/inner" && echo ready >"$1/host/ready" && '
                           'cat "$1/host/go" && cat "$1/host/outer/mark"\' sh "$1"')
                done = self.run_on_host(
                    make + ' && mkdir "$1/host/inner" "$1/host/outer" && mkfifo "$1/host/go" "$1/host/ready" && '
                    '{ { "$2" cachefiles-run --static --cachefiles-device="$3" -- ' + program + ' || echo failed >"$1/host/ready"; } & } && '
                    'cat "$1/host/ready" && findmnt -n -o SOURCE "$1/host/inner" && mount -t tmpfs outer "$1/host/outer" && '
                    'echo here >"$1/host/outer/mark" && echo go >"$1/host/go" && wait && { cat "$1/host/file" 2>/dev/null || true; }',
                    HOLDFAST, self.device)
                self.assertEqual((done.returncode, done.stdout), (0, "ready\ninner\ngo\nhere\n" + file), done.stderr)

    def test_a_launcher_that_is_alone_in_its_mount_namespace(self):
        for make in ("true", "echo another >/dev/cachefiles"):
            with self.subTest(make):
                done = self.run_on_host(make + ' && exec "$2" cachefiles-run --static --cachefiles-device="$3" -- '
                                        'sh -c \'' + self.has_device("-L " + PLACE) + '\'', HOLDFAST, self.device)
                self.assert_is_done(done)

    def test_the_device_is_at_the_usual_path_already(self):
        done = self.box.run(self.launch(HOLDFAST, "cachefiles-run", "--static", "--", "sh", "-c", self.has_device(PLACE)))
        self.assert_is_done(done)

    def test_the_program_takes_the_place_of_the_command(self):
        process = self.box.start(self.launch("sh", "-c", "echo $$; exec cat"), stdin=-1, stdout=-1, text=True)
        self.assertEqual(process.stdout.readline(), f"{process.pid}\n")
        process.stdin.close()
        self.assertEqual(process.wait(20), 0)
        process.stdout.close()

    # Errors.

    def test_what_is_not_the_device(self):
        plain = self.box.path("plain")
        with open(plain, "w"):
            pass
        for path, pattern in ((plain, "is not the cachefiles device"), (self.box.directory, "is not the cachefiles device"),
                              (self.box.path("missing"), "No such file or directory; start an instance with --cachefiles-device=")):
            done = self.box.run([HOLDFAST, "cachefiles-run", "--static", "--cachefiles-device=" + path, "--", "true"])
            self.assert_one_line(done, path + ".*" + pattern)
            self.assertEqual(done.returncode, 1)

    def test_a_program_that_cannot_be_run(self):
        file = self.box.path("file")
        with open(file, "w"):
            pass
        script = self.box.path("script")
        with open(script, "w") as f:
            f.write("#!/nowhere\n")
        os.chmod(script, 0o755)
        for options in ([], ["--static", "--cachefiles-device=" + self.device]):
            for program, code in (("nonexistent", 127), (file, 126), (self.box.directory, 126), (script, 127)):
                done = self.box.run([HOLDFAST, "cachefiles-run", *options, "--", program])
                self.assert_one_line(done, program)
                self.assertEqual(done.returncode, code, program)

    def test_a_static_program_without_the_flag(self):
        done = self.box.run([HOLDFAST, "cachefiles-run", "--", *CLIENTS["static C"]])
        self.assert_one_line(done, "start it with --static")

    def test_a_user_who_may_make_no_namespace(self):
        os.chmod(self.box.directory, 0o755)
        done = self.box.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *self.launch("true")])
        self.assert_one_line(done, "CAP_SYS_ADMIN")


if __name__ == "__main__":
    main()
