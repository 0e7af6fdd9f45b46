"""The completions for zsh and fish, asked by those shells themselves."""

import os
import shutil
import sys
import unittest

import _path  # noqa: F401
from harness.case import SKIP
from harness.sandbox import Sandbox

COMPLETIONS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../packaging/completions")
# What zsh's completion system has in place of this prints nothing outside an editor.
ZSH = """compadd() { print -rl -- "${@:#--}" }; compset() { :; }; compdef() { :; }
_files() { print "FILES $*" }; _command_names() { print COMMANDS }
source "$1"; shift; words=("$@"); CURRENT=$#; _holdfast
"""
LINES = (
    (["holdfast", "umo"], "umount", None),
    (["holdfast", "umount", "--keep"], "--keep-persistent", "--plain-http"),
    (["holdfast", "cache", ""], "prune", "umount"),
    (["holdfast", "config", "check", "--"], "--instance", "--json"),
    (["holdfast", "mount", "--as", ""], "erofs", "--as"),
    (["holdfast", "umount", "/mnt/o"], "/mnt/os", None),
    (["holdfast", "status", "--instance", ""], "default", None),
)


class CompletionTest(unittest.TestCase):
    def setUp(self):
        self.box = Sandbox("completion")
        self.addCleanup(self.box.close)
        mounts = self.box.make_directory("run/holdfast/default/mounts")
        with open(os.path.join(mounts, "mnt-os.json"), "w") as f:
            f.write('{"mount_point":"/mnt/os"}')

    def complete(self, shell, words):
        environment = ["env", f"HOLDFAST_ROOT={self.box.directory}", f"HOME={self.box.directory}"]
        if shell == "zsh":
            argv = ["zsh", "-f", "-c", ZSH, "zsh", f"{COMPLETIONS}/holdfast.zsh", *words]
        else:
            argv = ["fish", "--no-config", "-c", f"source {COMPLETIONS}/holdfast.fish; complete -C '{' '.join(words)}'"]
        done = self.box.run([*environment, *argv])
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout.split()

    def test_each_shell_offers_verbs_options_and_what_follows_them(self):
        for shell in ("zsh", "fish"):
            if not shutil.which(shell):
                print(f"no {shell}; its completion is not tried", file=sys.stderr)
                continue
            for words, offered, not_offered in LINES:
                with self.subTest(shell=shell, words=words):
                    found = self.complete(shell, words)
                    self.assertIn(offered, found)
                    self.assertNotIn(not_offered, found)


if __name__ == "__main__":
    if not shutil.which("zsh") and not shutil.which("fish"):
        print("SKIP: neither zsh nor fish")
        sys.exit(SKIP)
    unittest.main(verbosity=2)
