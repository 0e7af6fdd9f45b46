"""Runs in the container of the demonstration: imports and checks files of the image for as long as it is told.

/opt/demo/files lists the image's regular files with their SHA-256.  A file not read before comes when its share of
the time has; until then earlier ones are read again.  Where the machine is too slow for that, it ends after twice the
time with those that it has read.  The last line on stdout is what it saw, as JSON.
"""

import hashlib
import json
import os
import random
import subprocess
import sys
import time

HERE = "/opt/demo"
CHUNK = 128 << 10
SLOW_S = 0.001
IMPORT_EVERY = 200  # Files.
IMPORTS = """
import argparse, asyncio, configparser, csv, ctypes, decimal, difflib, email.message, fractions, hashlib, http.client
import json, logging, sqlite3, ssl, statistics, tarfile, tempfile, unittest, urllib.request, xml.dom.minidom, zipfile
"""


class Checker:
    def __init__(self):
        self.seen = {"reads": 0, "bytes": 0, "files": 0, "imports": 0, "errors": [], "slow": []}

    def timed(self, work):
        start = time.time()
        value = work()
        end = time.time()
        self.seen["reads"] += 1
        if end - start > SLOW_S:
            self.seen["slow"].append((start, end))
        return value

    def check(self, path, truth):
        digest = hashlib.sha256()
        try:
            fd = self.timed(lambda: os.open(path, os.O_RDONLY))
            try:
                while data := self.timed(lambda: os.read(fd, CHUNK)):
                    self.seen["bytes"] += len(data)
                    digest.update(data)
            finally:
                os.close(fd)
        except OSError as e:
            self.seen["errors"].append(f"{path}: {e}")
            return
        self.seen["files"] += 1
        if digest.hexdigest() != truth:
            self.seen["errors"].append(f"{path}: wrong bytes")

    def run_imports(self):
        done = subprocess.run([sys.executable, "-B", "-c", IMPORTS], capture_output=True, text=True)
        self.seen["imports"] += 1
        if done.returncode or done.stderr:
            self.seen["errors"].append(f"imports: exit {done.returncode}: {done.stderr}")


def main():
    seconds, seed = float(sys.argv[1]), int(sys.argv[2])
    print("running", flush=True)
    with open(HERE + "/files") as f:
        files = [line.rstrip("\n").split("  ", 1) for line in f]
    chance = random.Random(seed)
    chance.shuffle(files)
    checker = Checker()
    start = time.monotonic()
    new = turn = 0
    while (share := (time.monotonic() - start) / seconds) < 1 or (new < len(files) and share < 2):
        is_due = new <= share * len(files)
        truth, path = files[new] if is_due else files[chance.randrange(new)]
        new += is_due
        checker.check(path, truth)
        if turn % IMPORT_EVERY == 0:
            checker.run_imports()
        turn += 1
    checker.seen["different"] = new
    print(json.dumps(checker.seen), flush=True)
    sys.exit(1 if checker.seen["errors"] else 0)


if __name__ == "__main__":
    main()
