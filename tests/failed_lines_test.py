"""packaging/failed-lines.awk names the failed tests of a log and their assertions, in few lines."""

import os
import subprocess
import sys
import unittest

PROGRAM = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "packaging", "failed-lines.awk")
PYTHON = """\
 1/3 Test #11: integration.good ........   Passed    0.10 sec
 2/3 Test #12: integration.bad .........***Failed    1.25 sec
..F.
======================================================================
FAIL: test_a_thing (__main__.BadTest.test_a_thing)
----------------------------------------------------------------------
Traceback (most recent call last):
  File "/x/tests/integration/bad_test.py", line 7, in test_a_thing
    self.check(1)
  File "/x/tests/harness/case.py", line 70, in check
    self.assertEqual(number, 2, "the thing")
AssertionError: 1 != 2 : the thing
holdfast: said this

----------------------------------------------------------------------
Ran 4 tests in 1.2s

      Start 13: integration.other
"""
GOOGLETEST = """\
3/3 Test  #7: base_test.UrlTest.Parts ...***Exception: SegFault  0.02 sec
[ RUN      ] UrlTest.Parts
/x/tests/base/url_test.cc:12: Failure
Expected equality of these values:
  port
    Which is: 80
  81
[  FAILED  ] UrlTest.Parts (0 ms)
"""


def lines_of(log, most=39):
    return subprocess.run(["awk", "-v", f"max={most}", "-f", PROGRAM], input=log, capture_output=True, text=True,
                          check=True).stdout.splitlines()


class FailedLinesTest(unittest.TestCase):
    def test_a_python_test_is_named_with_its_line_and_its_error(self):
        self.assertEqual(lines_of(PYTHON), [
            "integration.bad  Failed    1.25 sec",
            "  FAIL: test_a_thing (__main__.BadTest.test_a_thing)",
            '    File "/x/tests/integration/bad_test.py", line 7, in test_a_thing',
            "  AssertionError: 1 != 2 : the thing",
            "  holdfast: said this"])

    def test_a_verbose_python_test_is_named_by_its_verdict(self):
        log = "\n".join(f"test_{n} (__main__.BadTest.test_{n}) ... {word}"
                        for n, word in enumerate(("ok", "ERROR", "FAIL", "FAIL", "FAIL")))
        self.assertEqual(lines_of(log + "\n"), [f"  test_{n} (__main__.BadTest.test_{n}) ... {word}"
                                               for n, word in ((1, "ERROR"), (2, "FAIL"), (3, "FAIL"))])

    def test_a_google_test_is_named_with_its_assertion(self):
        self.assertEqual(lines_of(GOOGLETEST), [
            "base_test.UrlTest.Parts  Exception: SegFault  0.02 sec",
            "  /x/tests/base/url_test.cc:12: Failure",
            "  Expected equality of these values:",
            "    port",
            "      Which is: 80",
            "    81"])

    def test_a_compiler_error_is_shown(self):
        log = "[1/9] Building\nFAILED: x.o\nc++ -c x.cc\nx.cc:3:4: error: no such thing\n   3 | thing();\n"
        self.assertEqual(lines_of(log), ["  FAILED: x.o", "  c++ -c x.cc", "  x.cc:3:4: error: no such thing",
                                         "     3 | thing();"])

    def test_another_log_gives_its_last_lines(self):
        self.assertEqual(lines_of("a\nb\nc\nd\n"), ["b", "c", "d"])
        self.assertEqual(lines_of("a\n"), ["a"])
        self.assertEqual(lines_of(""), [])

    def test_there_are_never_more_lines_than_asked_for(self):
        for most in (3, 8, 20, 39):
            self.assertLessEqual(len(lines_of(PYTHON * 50 + GOOGLETEST * 50, most)), most)
        self.assertIn("and 82 more tests", lines_of(PYTHON * 50 + GOOGLETEST * 50))


if __name__ == "__main__":
    sys.exit(unittest.main())
