"""README.md's example: its commands run as typed, in a shell of their own, and print what it shows."""

import os
import re
import subprocess

import _path  # noqa: F401
from harness.case import Case, main
from harness.holdfast import BIN

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../..")
EXAMPLE = "\n## 60 seconds\n"
INSTALL = "packaging/build-release.sh build demo"
SET_PATH = "PATH=$PWD/build/release/bin:$PATH"
# A PID namespace, so that `pidof` finds the daemons of this test alone, and all of them end with the shell.
ALONE = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


def example(text):
    """The commands, and the lines that they print: two indented blocks."""
    blocks = re.findall(r"(?:^    .*\n)+", text.partition(EXAMPLE)[2].partition("\n## ")[0], re.M)
    commands, printed = ([line[4:] for line in block.splitlines()] for block in blocks)
    return commands, printed


class ReadmeTest(Case):
    def setUp(self):
        super().setUp()
        with open(os.path.join(ROOT, "README.md")) as f:
            self.commands, self.printed = example(f.read())

    def run_example(self):
        commands = self.commands[2:]
        script = "\n".join(commands).replace("/tmp/", self.box.directory + "/")
        environment = dict(self.box.environment, PATH=BIN + ":" + os.environ["PATH"])
        environment["HOLDFAST_ROOT"] = self.box.make_directory("root")
        return subprocess.run([*ALONE, "bash", "-c", "set -e\n" + script], env=environment, timeout=120,
                              capture_output=True, text=True)

    def test_the_first_commands_are_those_of_the_demo(self):
        self.assertEqual(self.commands[:2], [INSTALL, SET_PATH])
        with open(os.path.join(ROOT, "packaging/demo.sh")) as f:
            self.assertIn("\n" + INSTALL + "\n", f.read())

    def test_the_other_commands_run_and_print_what_is_shown(self):
        done = self.run_example()
        self.assertEqual(done.returncode, 0, done.stderr)
        # The numbers, and what a machine adds to a line, differ; the first word of each line does not.
        shown = [line.split()[0] for line in self.printed]
        self.assertEqual([line.split()[0] for line in done.stdout.splitlines()], shown)
        self.assertIn("identical\n", done.stdout)
        self.assertRegex(done.stdout, r"  daemon .* restarted \d+ times?.*SIGKILL")
        self.assertRegex(done.stdout, r"  mount +/mnt +erofs +file:///")


if __name__ == "__main__":
    main(tools=("diff", "mkfs.erofs", "pidof", "unshare"))
