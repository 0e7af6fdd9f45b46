"""The image of the soak: a Python that can be run from it, and data to read."""

import os
import shutil
import subprocess
import sys

from harness.images import make_erofs, write_random

DATA_FILES = 60
DATA_FILE_SIZE = 2 << 20
_LIBRARY = "/usr/lib/python3.11"
_INTERPRETER = "/usr/bin/python3.11"
_COMPILED = ("", "asyncio", "collections", "email", "encodings", "http", "importlib", "json", "logging", "unittest",
             "urllib", "xml", "xml/dom")

# Imports a good part of the library and digests what it was imported from.
SCRIPT = """
import argparse, asyncio, decimal, email.message, hashlib, http.client, json, sqlite3, sys, unittest, xml.dom.minidom
digest = hashlib.sha256()
files = sorted(m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None))
for path in files:
    with open(path, "rb") as f:
        digest.update(f.read())
print(len(files), digest.hexdigest())
"""


def missing():
    """What this machine lacks to make it."""
    return [f"no {path}" for path in (_LIBRARY, _INTERPRETER) if not os.path.exists(path)]


def make(box):
    """(image, tree)."""
    tree = box.make_directory("tree")
    os.makedirs(os.path.join(tree, "usr/bin"))
    shutil.copy(_INTERPRETER, os.path.join(tree, "usr/bin"))
    library = tree + _LIBRARY
    shutil.copytree(_LIBRARY, library, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    # The image has no times, so what is compiled must not be compared with its source's.
    subprocess.run([sys.executable, "-m", "compileall", "-qq", "-l", "--invalidation-mode", "unchecked-hash",
                    *(os.path.join(library, name) for name in _COMPILED)], stdout=subprocess.DEVNULL)
    with open(os.path.join(tree, "script.py"), "w") as f:
        f.write(SCRIPT)
    os.mkdir(os.path.join(tree, "data"))
    for i in range(DATA_FILES):
        write_random(os.path.join(tree, "data", f"{i:03}"), DATA_FILE_SIZE, i)
    image = box.path("image.erofs")
    make_erofs(tree, image)
    return image, tree


def run_script(root, timeout):
    """What the script prints when the Python below `root` runs it; raises when that fails or takes too long."""
    done = subprocess.run([root + _INTERPRETER, "-S", "-B", os.path.join(root, "script.py")],
                          env={"PYTHONHOME": root + "/usr", "PATH": "/bin"}, timeout=timeout,
                          capture_output=True, text=True)
    if done.returncode != 0 or done.stderr:
        raise AssertionError(f"the script in {root}: exit {done.returncode}: {done.stderr}")
    return done.stdout
