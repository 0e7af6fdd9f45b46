"""`holdfast status --watch`: on a terminal of 80x24, and elsewhere."""

import os
import re
import signal
import subprocess
import termios

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.holdfast import NO_READ_AHEAD
from harness.readers import Reader
from harness.sandbox import wait_until
from harness.screens.terminal import COLUMNS, ROWS, Terminal


class StatusScreenTest(Case):
    def setUp(self):
        super().setUp()
        self.truth = images.random_file(16 << 20)
        self.origin = self.serve(os.path.dirname(self.truth))
        self.instance = self.holdfast()
        self.path = self.instance.mount_file(self.origin.url(os.path.basename(self.truth)), NO_READ_AHEAD)

    def argv(self, *arguments):
        return self.instance.command_line("status", *self.instance.root_flags(), *arguments)

    def on_terminal(self, *arguments):
        terminal = Terminal(self.box, self.argv(*arguments))
        self.addCleanup(terminal.close)
        return terminal

    def assert_ends_well(self, terminal):
        self.assertEqual(terminal.process.wait(30), 0)
        terminal.read_rest()
        self.assertTrue(terminal.text.endswith("\x1b[?25h\x1b[?1049l"), "the screen is given back")
        self.assertEqual(termios.tcgetattr(terminal.slave), terminal.before)

    def test_a_terminal_shows_what_happens_until_q(self):
        terminal = self.on_terminal("--watch=0.2")
        frame = terminal.wait_for("no read waits")
        self.assertRegex(frame, r"instance t  OK")
        self.assertRegex(frame, rf"  .*{re.escape(os.path.dirname(self.path)[-20:])} +16\.0 MiB +0\.\d %")
        self.assert_reads_right(self.path, self.truth, 0, 8 << 20)
        frame = terminal.wait_for(r"16\.0 MiB +[56]\d\.\d %")
        self.origin.stop()
        reader = self.keep(Reader(self.path, 12 << 20, 65536))
        frame = terminal.wait_for(r"(?i)reads? waits?:[^\n]*below 10 s; the oldest \d\.\d s\n +\S[^\n]*(refused|connect)")
        for frame in terminal.frames():
            lines = frame.split("\n")
            self.assertLessEqual(len(lines), ROWS)
            self.assertLessEqual(max(map(len, lines)), COLUMNS)
        os.write(terminal.master, b"q")
        self.assert_ends_well(terminal)
        self.assertIsNone(reader.result)

    def test_ctrl_c_ends_it_and_a_daemon_that_is_replaced_is_said(self):
        terminal = self.on_terminal("--watch=0.2")
        terminal.wait_for("instance t  OK")
        daemon = self.instance.daemon_pid()
        os.kill(daemon, signal.SIGKILL)
        frame = terminal.wait_for(rf"the daemon was replaced: pid {daemon} is now \d+")
        self.assertIn("instance t", frame)
        os.write(terminal.master, b"\x03")
        # The terminal sends the signal to its foreground group, which this process is not in.
        terminal.process.send_signal(signal.SIGINT)
        self.assert_ends_well(terminal)

    def test_elsewhere_a_frame_an_interval_comes_without_escape_codes(self):
        out = self.box.path("frames")
        with open(out, "w") as f:
            process = self.box.start(self.argv("--watch=0.1", "--instance=t"), stdout=f, stderr=subprocess.PIPE)
        def text():
            with open(out) as f:
                return f.read()
        wait_until(lambda: text().count("holdfast status at ") >= 3, 30, "three frames")
        process.send_signal(signal.SIGTERM)
        self.assertEqual((process.wait(30), process.stderr.read()), (0, b""))
        self.assertNotIn("\x1b", text())
        self.assertEqual(text().count("instance t  OK"), text().count("holdfast status at "))

    def test_a_wrong_command_line_is_an_error(self):
        for flags in (["--watch=0"], ["--watch", "--json"], ["--watch", "--check"]):
            self.assertNotEqual(self.box.run(self.argv(*flags)).returncode, 0, flags)
        self.assert_one_line(self.instance.run("status", *self.instance.root_flags(), "--watch", "--instance=other"), "other")


if __name__ == "__main__":
    main()
