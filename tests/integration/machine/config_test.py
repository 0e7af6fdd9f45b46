"""holdfast.conf(5): what files of settings do to an instance, and how `holdfast config` names what is wrong with them."""

import json
import os
import socket

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.origins.nginx import free_port
from harness.sandbox import wait_until

WRONG = """# A comment.
[holdfastd]
fetch-size = "3K"
nonsense = 1
run-dir = "/somewhere"
cache-max = ["1G"]

[holdfast-fetcherd]
connections = 100

[instance]
watchdog = "soon"
cache-dir = "relative"
Spare = false
metrics-listen = "0.0.0.0:9464"

[else]
"""
FAULTS = ((3, "holdfastd.fetch-size"), (4, "holdfastd.nonsense"), (5, "holdfastd.run-dir"), (6, "holdfastd.cache-max"),
          (9, "holdfast-fetcherd.connections"), (12, "instance.watchdog"), (13, "instance.cache-dir"),
          (14, "instance.Spare"), (15, "instance.metrics-listen"),
          (17, "else"))


class ConfigTest(Case):
    def setUp(self):
        super().setUp()
        self.instance = self.holdfast()
        self.file = os.path.join(self.instance.root, "etc/holdfast/t.conf")
        self.drop_ins = self.file + ".d"
        os.makedirs(self.drop_ins)
        self.image = images.random_file(1 << 20)

    def write(self, text, path=None):
        with open(path or self.file, "w") as f:
            f.write(text)

    def config(self, *arguments):
        return self.instance.run("config", *arguments, *self.instance.root_flags(), "--instance", "t")

    def shown(self):
        done = self.config("show", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        return {one["key"]: (one["value"], one["from"]) for one in json.loads(done.stdout)["settings"]}

    def argv(self, program):
        with open(f"/proc/{self.instance.pid_of(program)}/cmdline") as f:
            return f.read().split("\0")

    def mount(self, *flags):
        return self.instance.try_mount("file://" + self.image, self.box.make_directory("point"), "--as=file", *flags)

    def test_files_apply_in_their_order_and_flags_outweigh_them(self):
        cache = self.box.path("cache")
        port = free_port()
        self.write(f'[instance]\ncache-dir = "{cache}"\nno-spare = true\n'
                   f'metrics-listen = "127.0.0.1:{port}"\n[holdfastd]\nfetch-size = "128K"\n'
                   'request-timeout = "7s"\nfuse-threads = 2\n[holdfast-fetcherd]\nconnections = 3\n')
        self.write('[holdfastd]\nfetch-size = "256K"\n', self.drop_ins + "/20.conf")
        self.write('[holdfastd]\nfetch-size = "512K"\n', self.drop_ins + "/10.conf")
        self.write("not read", self.drop_ins + "/30.conf.bak")
        self.assertEqual(self.config("check").returncode, 0)
        self.assertEqual(self.mount("--request-timeout=9s").returncode, 0)
        self.assertTrue(os.path.isdir(cache + "/db"))
        self.assertFalse(os.path.exists(self.instance.state_path("cache/db")))
        daemon = self.argv("holdfastd")
        self.assertIn("--fetch-size=256K", daemon)
        self.assertIn("--fuse-threads=2", daemon)
        self.assertLess(daemon.index("--request-timeout=7s"), daemon.index("--request-timeout=9s"))
        self.assertIn("--connections=3", self.argv("fetcherd"))
        wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, 20, "metrics at the port of the file")
        shown = self.shown()
        self.assertEqual(shown["holdfastd.fetch-size"], ("256K", self.drop_ins + "/20.conf:2"))
        self.assertEqual(shown["instance.cache-dir"], (cache, self.file + ":2"))
        self.assertEqual(shown["holdfastd.request-timeout"], ("9s", "the command line that started the instance"))
        self.assertIn("holdfastd.fetch-size = 256K  # ", self.config("show").stdout)
        # The same settings once more; the files change nothing for an instance that runs.
        self.write("[holdfastd]\nfetch-size = 3\n")
        self.assertEqual(self.instance.try_mount("file://" + self.image, self.box.make_directory("other"), "--as=file",
                                                 "--request-timeout=9s").returncode, 0)

    def test_each_fault_is_named_with_file_line_and_key(self):
        self.write(WRONG)
        done = self.config("check")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        lines = done.stderr.splitlines()
        for line, key in FAULTS:
            self.assertTrue(any(said.startswith(f"holdfast: {self.file}:{line}: {key}: ") for said in lines),
                            f"{line} {key} in {lines}")
        self.assertEqual(len(lines), len(FAULTS))
        self.write("[holdfastd\n")
        self.assertRegex(self.config("check").stderr, f"^holdfast: {self.file}:[12]: ")
        # Right each for itself, and not together.
        self.write('[holdfastd]\nfetch-size = "1M"\nreadahead-max = "64K"\n')
        self.assertRegex(self.config("check").stderr, f"{self.file}: holdfastd: .*readahead-max")

    def test_an_instance_does_not_start_with_a_wrong_file_and_nothing_stays_behind(self):
        self.write('[holdfastd]\nfetch-size = "3K"\n')
        done = self.mount()
        self.assert_one_line(done, f"{self.file}:2: holdfastd.fetch-size: ")
        self.assertFalse(os.path.exists(self.instance.state_path()))
        self.write("")
        self.assertEqual(self.mount().returncode, 0)

    def test_a_mount_says_the_first_fault_and_how_to_see_the_others(self):
        cure = f"holdfast config check --root {self.instance.root} --instance t"
        self.write('[holdfastd]\nfetch-size = "3K"\nnonsense = 1\n')
        self.assert_one_line(self.mount(), rf"{self.file}:2: holdfastd.fetch-size: .*; and one more fault \({cure}\)$")
        self.write(WRONG)
        self.assert_one_line(self.mount(), rf"{self.file}:\d+: [^;]*(; [^;]*)?; and {len(FAULTS) - 1} more faults \({cure}\)$")

    def test_a_file_that_others_can_change_is_refused(self):
        self.write("[holdfastd]\n")
        os.chmod(self.file, 0o666)
        self.assertRegex(self.config("check").stderr, f"{self.file}: other users than root may write to it")
        os.chmod(self.file, 0o644)
        os.chown(self.file, 65534, 65534)
        self.assertRegex(self.config("check").stderr, f"{self.file}: it belongs to another user")
        os.unlink(self.file)
        os.mkfifo(self.file)
        self.assertRegex(self.config("check").stderr, f"{self.file}: it is no regular file")

    def test_flags_for_units_stay_as_they_were_while_a_file_is_wrong(self):
        flags = self.instance.run_path("holdfastd.flags")
        self.write('[holdfastd]\nfetch-size = "3K"\n')
        self.assertEqual(self.config("write").returncode, 1)
        self.assertFalse(os.path.exists(flags))
        self.write('[holdfastd]\nfetch-size = "8K"\nvmodule = "a b=1"\n')
        self.assertEqual(self.config("write").returncode, 0)
        self.write('[holdfastd]\nfetch-size = "3K"\n')
        done = self.config("write")
        self.assertEqual(done.returncode, 0)
        self.assertIn(f"{self.file}:2: holdfastd.fetch-size", done.stderr)
        self.assertIn("goes on with what it had before", done.stderr)
        with open(flags) as f:
            self.assertEqual(f.read(), "--fetch-size=8K\n--vmodule=a b=1\n")


if __name__ == "__main__":
    main()
