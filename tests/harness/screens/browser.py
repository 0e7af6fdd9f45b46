"""Chromium without a window: what it shows of a file, says and asks for."""

import json
import os
import re
import shutil
import struct
import subprocess
import zlib

WIDTH, HEIGHT = 1280, 800
_QUIET = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
          "--disable-sync", "--disable-extensions", "--no-first-run", "--hide-scrollbars", "--enable-logging=stderr", "--v=0")


def unmet():
    """Why there is no browser; "" when there is one."""
    return "" if shutil.which("chromium") else "no chromium"


class Shown:
    def __init__(self, picture, said, asked_for):
        self.picture = picture      # The bytes of a PNG.
        self.said = said            # Lines of the console.
        self.asked_for = asked_for  # URLs that are not the page's.

    def corner(self):
        """(red, green, blue) of the first pixel."""
        data = b""
        at = 8
        while at < len(self.picture):
            length, kind = struct.unpack(">I4s", self.picture[at:at + 8])
            if kind == b"IDAT":
                data += self.picture[at + 8:at + 8 + length]
            at += length + 12
        return tuple(zlib.decompress(data)[1:4])  # Behind the filter, which changes nothing of a first pixel.


def show(box, path, dark=False, width=WIDTH, height=HEIGHT):
    """Opens the page at `path` from file://, as a new user."""
    profile = box.make_directory("chromium")
    picture, log = box.path("shown.png"), box.path("netlog.json")
    done = subprocess.run(
        ["chromium", *_QUIET, f"--user-data-dir={profile}", f"--window-size={width},{height}", f"--log-net-log={log}",
         f"--blink-settings=preferredColorScheme={0 if dark else 1}", f"--screenshot={picture}", "file://" + path],
        env={**box.environment, "HOME": profile}, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0 and os.path.exists(picture), done.stderr[-2000:]
    with open(picture, "rb") as f:
        image = f.read()
    with open(log) as f:
        text = f.read()
    if not text.rstrip().endswith("}"):  # It was ended in the middle of a list.
        text = text.rstrip().rstrip(",") + "]}"
    urls = {event.get("params", {}).get("url", "") for event in json.loads(text)["events"]}
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    own = r"https?://[^/]*\.(google|googleapis|gstatic)\.com[:/]"  # What the browser asks for without any page.
    return Shown(image, said, sorted(url for url in urls if re.match(r"(https?|file|wss?|data):", url) and url != "file://" + path
                                     and not re.match(own, url)))
