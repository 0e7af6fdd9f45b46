"""The calls of the conformance, names and cull tests made by clients that know <linux/cachefiles.h> alone; prints a table."""

import os
import re
import subprocess
import sys
import unittest

import _path  # noqa: F401
from harness.case import main
from harness.holdfast import BIN

HERE = os.path.dirname(os.path.abspath(__file__))
SCRIPTS = ("conformance_test.py", "names_test.py", "cull_test.py")
CALLERS = {
    "preloaded C": ["holdfast", "cachefiles-run", "--", "cachefiles_caller"],
    "static C": ["cachefiles_caller_static"],
    "exact ids": ["holdfast", "cachefiles-run", "--static", "--exact-ids", "--cachefiles-device={device}", "--", "cachefiles_caller_static"],
    "linked C": ["cachefiles_caller_linked"],
    "static Go": ["cachefiles_caller_go"],
}
UNAIDED = ("static C", "static Go")
LINE = re.compile(r"^test_(\w+) \(.*\) \.\.\. (ok|skipped|FAIL|ERROR)", re.M)


def command(words):
    return " ".join(os.path.join(BIN, word) if os.path.exists(os.path.join(BIN, word)) else word for word in words)


class ClientsTest(unittest.TestCase):
    results = {}

    def assert_conforms(self, name):
        words = CALLERS[name]
        if not os.path.exists(os.path.join(BIN, words[-1])):
            self.skipTest("no Go compiler")
        environment = dict(os.environ, HOLDFAST_TEST_CALLER=command(words), **({"HOLDFAST_TEST_UNAIDED": "1"} if name in UNAIDED else {}))
        self.results[name] = {}
        for script in SCRIPTS:
            done = subprocess.run(["/usr/bin/python3", "-B", os.path.join(HERE, script)], env=environment, capture_output=True,
                                  text=True, timeout=400)
            results = dict(LINE.findall(done.stderr))
            self.results[name].update(results)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(set(results.values()), {"ok"}, "a client that cannot make a call")
        self.assertGreater(len(self.results[name]), 55)

    def test_a_dynamic_one_in_c(self):
        self.assert_conforms("preloaded C")

    def test_a_static_one_in_c(self):
        self.assert_conforms("static C")

    def test_a_static_one_with_exact_ids(self):
        self.assert_conforms("exact ids")

    def test_one_that_links_the_two_calls(self):
        self.assert_conforms("linked C")

    def test_a_static_one_in_go(self):
        self.assert_conforms("static Go")

    @classmethod
    def tearDownClass(cls):
        names = sorted({line for lines in cls.results.values() for line in lines})
        print("".join(f"{name:14}" for name in cls.results), file=sys.stderr)
        for name in names:
            print("".join(f"{lines.get(name, '-'):14}" for lines in cls.results.values()) + name, file=sys.stderr)


if __name__ == "__main__":
    main()
