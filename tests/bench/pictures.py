"""Draws docs/images/report.png and status-watch.png from a real run.  Root; needs chromium and erofs-utils.

    python3 tests/bench/pictures.py
"""

import html
import os
import random
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

from harness import images  # noqa: E402
from harness.case import leave_mounts_of_others, unmet  # noqa: E402
from harness.holdfast import Holdfast  # noqa: E402
from harness.origins.nginx import Nginx  # noqa: E402
from harness.readers import Child, drop_page_cache, wait_all  # noqa: E402
from harness.sandbox import Sandbox, wait_until  # noqa: E402
from harness.screens import browser  # noqa: E402
from harness.screens.terminal import Terminal  # noqa: E402

IMAGES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../docs/images")
POINT = "/mnt/os"
SCREEN = """<!DOCTYPE html><meta charset="utf-8"><style>body { margin: 0; background: #16181b; }
pre { margin: 18px; color: #e8e8e4; font: 15px/1.35 "DejaVu Sans Mono", monospace; }</style><pre>%s</pre>"""
LARGEST = 200_000


def read_files(files):
    for name in files:
        with open(name, "rb") as f:
            while f.read(1 << 20):
                pass
    return 0


def regular_files(directory):
    found = [os.path.join(place, name) for place, _, names in os.walk(directory) for name in names]
    return sorted(name for name in found if os.path.isfile(name) and not os.path.islink(name))


def draw(name, picture):
    assert len(picture) < LARGEST, f"{name}: {len(picture)} bytes"
    with open(os.path.join(IMAGES, name), "wb") as f:
        f.write(picture)


def run(box):
    """A program starts slowly, its origin fails for a while, some of it is evicted; then it goes on."""
    image, _ = images.real_image()
    origin = Nginx(box, os.path.dirname(image), limit_rate="6m").start()
    instance = Holdfast(box, "default")
    instance.mount(origin.url(os.path.basename(image)), mount_point=POINT)
    files = regular_files(POINT)
    chosen = random.Random(4711).sample(files, len(files) // 3)
    readers = [Child("a reader", lambda part=part: read_files(chosen[part:len(chosen) // 2:3])) for part in range(3)]
    wait_all(readers, 120)
    evicted = instance.run("cache", "rm", *instance.root_flags(), "--bytes", POINT)
    assert evicted.returncode == 0, evicted.stderr
    drop_page_cache()
    terminal = Terminal(box, instance.command_line("status", *instance.root_flags(), "--watch=0.5"))
    readers = [Child("a reader", lambda part=part: read_files(chosen[part::4])) for part in range(4)]
    wait_until(lambda: instance.status()["counters"]["reads_waited"] > 40, 60, "reads that wait")
    origin.stop()
    frame = terminal.wait_for(r"below 10 s; the oldest \d\.\d s\n +\S[^\n]*refused")
    origin.configure(limit_rate="20m")
    origin.start()
    terminal.process.send_signal(signal.SIGTERM)
    terminal.process.wait()
    terminal.close()
    wait_all(readers, 180)
    page = box.path("report.html")
    done = instance.run("report", *instance.root_flags(), "-o", page)
    assert done.returncode == 0, done.stderr
    return frame, page


def main():
    reasons = [reason for reason in unmet(["mkfs.erofs"]) + [browser.unmet()] if reason]
    if reasons:
        sys.exit("pictures.py: " + ", ".join(reasons))
    leave_mounts_of_others()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=True)
    os.makedirs(POINT)
    os.makedirs(IMAGES, exist_ok=True)
    with Sandbox("pictures") as box:
        frame, page = run(box)
        draw("report.png", browser.show(box, page, height=1200).picture)
        screen = box.path("screen.html")
        with open(screen, "w") as f:
            f.write(SCREEN % html.escape(frame))
        draw("status-watch.png", browser.show(box, screen, height=36 + 21 * (frame.count("\n") + 1), width=800).picture)
        subprocess.run(["umount", "--lazy", POINT], check=True)


if __name__ == "__main__":
    main()
