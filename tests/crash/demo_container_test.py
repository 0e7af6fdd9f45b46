"""The demonstration of a container says in one line what was too slow for it."""

import os

import _path  # noqa: F401
import demo_container
from harness.case import Case, main


class NoDaemons:
    """An instance of which no process can be killed."""

    root, name = "/nowhere", "none"

    def pid_of(self, program):
        raise FileNotFoundError(program)

    def run(self, *arguments):
        return None


class SlowDemonstrationTest(Case):
    def setUp(self):
        super().setUp()
        for name, value in (("BIN", self.box.directory), ("FIRST_OUTPUT_S", 5), ("END_S", 1)):
            self.addCleanup(setattr, demo_container, name, getattr(demo_container, name))
            setattr(demo_container, name, value)

    def run_container(self, script):
        path = self.box.path("holdfast")
        with open(path, "w") as f:
            f.write("#!/bin/sh\n" + script)
        os.chmod(path, 0o755)
        return demo_container.run_container(self.box, NoDaemons(), "oci://h/a:1", 0.1, 1)

    def test_a_container_that_says_nothing_is_said_to_be_too_slow(self):
        with self.assertRaisesRegex(demo_container.TooSlow, "^the container says nothing for 5 s$"):
            self.run_container("exec sleep 60\n")

    def test_a_program_that_does_not_end_is_said_to_be_too_slow(self):
        with self.assertRaisesRegex(demo_container.TooSlow, "^the program in the container did not end within 2 s, in the last 1 "):
            self.run_container("echo running\nexec sleep 60\n")

    def test_what_comes_after_the_kills_have_ended_still_counts(self):
        code, seen, _, _ = self.run_container("echo running\nsleep 1.2\necho '{\"reads\": 1}'\n")
        self.assertEqual((code, seen), (0, {"reads": 1}))


if __name__ == "__main__":
    main()
