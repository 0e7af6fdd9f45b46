"""Terminal: a command on a pseudo-terminal of 80x24, and the frames that it draws in place of each other."""

import fcntl
import os
import pty
import re
import select
import struct
import termios
import time

from harness.sandbox import Timeout

ROWS, COLUMNS = 24, 80
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A command on a pseudo-terminal, and the frames that it has drawn."""

    def __init__(self, box, argv):
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        self.process = box.start(argv, stdin=self.slave, stdout=self.slave, stderr=self.slave)
        self.text = ""

    def read(self, seconds):
        if select.select([self.master], [], [], seconds)[0]:
            self.text += os.read(self.master, 65536).decode(errors="replace")

    def read_rest(self):
        """What a process that has ended wrote: a read gives a part of it."""
        while select.select([self.master], [], [], 0)[0]:
            self.read(0)

    def frames(self):
        """Those that are whole."""
        return [ESCAPE.sub("", part).replace("\r", "") for part in self.text.split("\x1b[H")[1:] if "\x1b[J" in part]

    def wait_for(self, pattern, seconds=60):
        """The first frame from now on that has it."""
        begun = len(self.frames())
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.read(0.1)
            for frame in self.frames()[begun:]:
                if re.search(pattern, frame):
                    return frame
        raise Timeout(f"no frame has {pattern}; the last one: {self.frames()[-1:]}")

    def close(self):
        os.close(self.master)
        os.close(self.slave)
