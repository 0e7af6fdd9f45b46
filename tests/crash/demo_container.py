"""The demonstration behind packaging/demo-container.sh: see there."""

import argparse
import glob
import hashlib
import json
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import time

import _path  # noqa: F401
from harness.case import unmet
from harness.holdfast import BIN, Holdfast
from harness.origins.oci_registry import Registry
from harness.readers import drop_page_cache
from harness.sandbox import Sandbox, mounts_below
from demo_report import megabytes, milliseconds, print_rows, stalls
from harness.soak.strikes import KILL_EVERY_S, Strikes

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGES = "python3"
TOOLS = ("docker-registry", "fsverity", "mkfs.erofs", "mmdebstrap", "runc", "skopeo")
FIRST_OUTPUT_S = 120
END_S = 120  # For the program to notice that its time is over, and for the container to go.


class TooSlow(Exception):
    """What did not come in time."""


def step(text):
    print(f"{text} ...", flush=True)


def debian_sources():
    """(release, files): where this machine gets that release from; no files mean Debian's own servers."""
    with open("/etc/os-release") as f:
        release = re.search(r"^VERSION_CODENAME=(\w+)$", f.read(), re.MULTILINE)[1]
    files = []
    for path in ["/etc/apt/sources.list", *glob.glob("/etc/apt/sources.list.d/*.list"),
                 *glob.glob("/etc/apt/sources.list.d/*.sources")]:
        if not os.path.exists(path):
            continue
        with open(path) as f:
            lines = [line.split() for line in f if not line.startswith("#")]
        if any(release in words for words in lines):
            files.append(path)
    return release, files


def make_root(box):
    """A Debian root with Python, the program, and the list of its files."""
    root = box.path("root")
    release, sources = debian_sources()
    box.run(["mmdebstrap", "--quiet", "--variant=minbase", "--include=" + PACKAGES, release, root, *sources],
            timeout=900, check=True)
    place = os.path.join(root, "opt/demo")
    os.makedirs(place)
    count = 0
    with open(os.path.join(place, "files"), "w") as f:
        for folder, _, names in os.walk(root):
            for name in names:
                path = os.path.join(folder, name)
                inside = path.removeprefix(root)
                # What the runtime puts its own over, and this list.
                if os.path.islink(path) or not os.path.isfile(path) or inside.startswith(("/opt/", "/dev/", "/etc/")):
                    continue
                with open(path, "rb") as read:
                    f.write(f"{hashlib.file_digest(read, 'sha256').hexdigest()}  {inside}\n")
                count += 1
    shutil.copy(os.path.join(HERE, "demo_container_program.py"), os.path.join(place, "program.py"))
    return root, count


def holdfast_json(box, *arguments):
    done = box.run([os.path.join(BIN, "holdfast"), *arguments], timeout=600)
    if done.returncode:
        sys.exit(f"demo-container: holdfast {' '.join(arguments[:2])}: {done.stderr}")
    return done.stdout


def run_container(box, holdfast, reference, seconds, seed):
    """(exit code, what the program saw, time to its first output, the kills)."""
    began = time.monotonic()
    process = subprocess.Popen(
        [os.path.join(BIN, "holdfast"), "run", "--root", holdfast.root, "--instance", holdfast.name, "--plain-http",
         reference, "--", "/usr/bin/python3", "-B", "/opt/demo/program.py", str(seconds), str(seed)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=box.environment)
    try:
        if not select.select([process.stdout], [], [], FIRST_OUTPUT_S)[0]:
            raise TooSlow(f"the container says nothing for {FIRST_OUTPUT_S} s")
        first = process.stdout.readline()
        first_s = time.monotonic() - began
        out = None
        with Strikes(holdfast, seed) as strikes:
            try:
                out, errors = process.communicate(timeout=2 * seconds + END_S / 2)
            except subprocess.TimeoutExpired:
                pass  # In peace what waits can come.
        try:
            if out is None:
                out, errors = process.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            raise TooSlow(f"the program in the container did not end within {2 * seconds + 1.5 * END_S:.0f} s, "
                          f"in the last {END_S} of which no process was killed") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
            # The container outlives it; the next such command ends the container and removes what is left.
            holdfast.run("rootfs", "list", "--root", holdfast.root, "--instance", holdfast.name)
    if first != "running\n" or not out.startswith("{"):
        raise AssertionError(f"the container ended with {process.returncode}: {first}{out}{errors}")
    return process.returncode, json.loads(out), first_s, strikes.events


def report(seen, events, first_s, image_bytes, fetched, files):
    kills = [at for event in events for at in event.killed]
    waits = stalls(seen["slow"], kills)
    print_rows([
        ("first output after", f"{first_s:.1f} s", "holdfast run, an empty cache"),
        ("reads", f"{seen['reads']}", f"{megabytes(seen['bytes'])} of {seen['files']} files, {seen['different']} of {files} different"),
        ("imports", f"{seen['imports']}", "of 22 modules by a Python of their own"),
        ("errors", f"{len(seen['errors'])}", "failed reads, wrong bytes, failed imports"),
        ("kills", f"{len(kills)}", f"SIGKILL of fetcher, daemon or both, every {KILL_EVERY_S * 1000:.0f} ms"),
        ("stall p50", milliseconds(waits, 0.5), f"{len(waits)} reads that a kill fell into"),
        ("stall p99", milliseconds(waits, 0.99), ""),
        ("stall max", milliseconds(waits, 1), ""),
        ("bytes in the image", megabytes(image_bytes), ""),
        ("bytes fetched", megabytes(fetched), "of it, by the registry's log"),
    ])


def demonstrate(box, seconds, seed):
    """What went wrong."""
    step("Making a Debian root with Python")
    root, files = make_root(box)
    registry = Registry(box).start()
    holdfast = Holdfast(box, "demo")
    step("Building and pushing its image")
    layout = box.path("image")
    built = json.loads(holdfast_json(box, "image", "build", "--json", root, layout))
    reference = f"oci://{registry.host}/debian/python:demo"
    holdfast_json(box, "image", "push", "--plain-http", layout, reference)
    step(f"Running a container of it for {seconds:.0f} s under fire, seed {seed}")
    drop_page_cache()
    code, seen, first_s, events = run_container(box, holdfast, reference, seconds, seed)
    report(seen, events, first_s, built["erofs"]["size"], registry.bytes_sent(built["erofs"]["digest"]), files)
    faults = seen["errors"] + ([f"exit code {code}"] if code else [])
    if sum(len(event.killed) for event in events) < seconds:
        faults.append("fewer kills than seconds")
    left = [holdfast.run_path()] if os.path.exists(holdfast.run_path()) else []
    left += os.listdir(holdfast.state_path("rootfs")) + mounts_below(box.directory)
    return faults + [f"{path} is left" for path in left]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    given = parser.parse_args()
    reasons = unmet(TOOLS)
    if reasons:
        sys.exit("demo-container: cannot run here: " + ", ".join(reasons))
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # Takes everything down on its way.
    with Sandbox("demo-container") as box:
        try:
            faults = demonstrate(box, given.seconds, given.seed)
        except (TooSlow, subprocess.TimeoutExpired) as e:
            what = e if isinstance(e, TooSlow) else f"{os.path.basename(e.cmd[0])} did not end within {e.timeout:.0f} s"
            sys.exit(f"demo-container: too slow: {what}; the load is {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores")
        if faults:
            for path, text in box.logs():
                print(f"--- {path}\n{text}", file=sys.stderr)
            sys.exit(f"FAILED: {len(faults)} faults, the first: {faults[0]}")
    print("Exit code 0, every byte right, nothing failed, nothing left.")


if __name__ == "__main__":
    main()
