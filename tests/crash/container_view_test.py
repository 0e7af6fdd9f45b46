"""What is started in a container under fire sees a whole file system: it lists, maps, compiles and writes."""

import hashlib
import os
import random
import shutil
import subprocess

import _path  # noqa: F401
from harness.case import main
from harness.containers import TOOLS, ContainerCase
from harness.readers import drop_page_cache
from harness.sandbox import wait_until
from harness.soak.strikes import Strikes

ROUNDS = 8
PYTHON = "/usr/bin/python3.11"
PYTHON_LIBRARY = "/usr/lib/python3.11"
LIBRARIES = "/usr/lib/x86_64-linux-gnu"
START_FILES = [f"{LIBRARIES}/{name}" for name in ("crt1.o", "crti.o", "crtn.o", "libc.so", "libc_nonshared.a",
                                                     "ld-linux-x86-64.so.2")]
OF_THE_MACHINE = ("/etc/hosts", "/etc/resolv.conf")  # Mounted into each container.
LIST = ["/bin/find", "/", "-xdev", "(", "-path", "/out", "-o", "-path", "/go", ")", "-prune", "-o", "-print"]
SOURCE = '#include <stdio.h>\n#include <string.h>\nint main(int c, char **v) { printf("%s %zu\\n", v[1], strlen(v[1])); return c - 2; }\n'
COMPILE = ["/bin/sh", "-c", "/usr/bin/tcc -o /out/p-$0 /src/p.c && /out/p-$0 round-$0 && echo $0 >> /out/rounds"]
# Touches each page of each library through a mapping, the last first, and says what all of them held.
MAP = """
import glob, hashlib, mmap, os
for path in sorted(glob.glob("/usr/lib/**/*.so*", recursive=True)):
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
        for page in range((len(m) - 1) // 4096, -1, -1):
            m[page * 4096]
        print(hashlib.sha256(m).hexdigest(), path)
"""


def libraries_of(program):
    said = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    return [word for word in said.split() if word.startswith("/")]


def add(tree, path):
    """A file or directory of this machine at its own place in the tree."""
    target = tree + path
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.isdir(path):
        shutil.copytree(path, target, ignore=shutil.ignore_patterns("__pycache__"), ignore_dangling_symlinks=True)
    else:
        shutil.copy(path, target)


class ContainerViewTest(ContainerCase):
    def add_files(self, tree):
        for name in ("tmp", "out", "src", "usr"):
            os.mkdir(os.path.join(tree, name))
        os.symlink("usr/lib64", os.path.join(tree, "lib64"))
        os.symlink("usr/lib", os.path.join(tree, "lib"))
        add(tree, "/usr/include")
        add(tree, LIBRARIES + "/tcc")
        add(tree, PYTHON_LIBRARY)
        extensions = [os.path.join(tree + PYTHON_LIBRARY, "lib-dynload", name)
                      for name in os.listdir(PYTHON_LIBRARY + "/lib-dynload")]
        for program in (PYTHON, "/usr/bin/tcc"):
            add(tree, program)
        for program in (PYTHON, "/usr/bin/tcc", *extensions):
            for library in libraries_of(program):
                add(tree, os.path.join("/usr", library.removeprefix("/usr").lstrip("/")))
        for path in START_FILES:
            add(tree, path)
        with open(os.path.join(tree, "src/p.c"), "w") as f:
            f.write(SOURCE)

    def in_container(self, *command):
        done = subprocess.run(["runc", "--root", self.bundle + "/runc", "exec", "c", *command], capture_output=True,
                              text=True, timeout=120)
        self.assertEqual((done.returncode, done.stderr), (0, ""), command[0])
        return done.stdout

    def expected(self, tree):
        """(what find says, what the maps hold)."""
        listed, mapped = {"/", *OF_THE_MACHINE}, {}
        for folder, folders, names in os.walk(tree):
            inside = folder.removeprefix(tree)
            listed |= {f"{inside}/{name}" for name in (*folders, *names)} - {"/out"}
            for name in names:
                path = os.path.join(folder, name)
                if inside.startswith("/usr/lib/") and ".so" in name and os.path.isfile(path):
                    with open(path, "rb") as f:
                        mapped[f"{inside}/{name}"] = hashlib.file_digest(f, "sha256").hexdigest()
        return listed, mapped

    def test_what_is_started_in_it_under_fire_lists_maps_compiles_and_writes(self):
        seed = int(os.environ.get("HOLDFAST_TEST_SEED") or random.randrange(1 << 32))
        print("seed", seed)
        image = self.image("view", add_files=self.add_files)
        listed, mapped = self.expected(self.tree("view"))
        go = self.box.make_directory("go")
        process = self.start("run", "--name=c", f"--volume={go}:/go", image, "--", "/bin/sh", "-c", "echo > /go/here; sleep 1000")
        self.bundle = self.holdfast_.state_path("rootfs", "c")
        wait_until(lambda: os.listdir(go) or process.poll() is not None, 60, "the container running")
        with Strikes(self.holdfast_, seed) as strikes:
            for i in range(ROUNDS):
                self.assertEqual(set(self.in_container(*LIST).splitlines()), listed)
                said = self.in_container(PYTHON, "-S", "-B", "-c", MAP).splitlines()
                self.assertEqual({path: digest for digest, path in (line.split(" ", 1) for line in said)}, mapped)
                self.assertEqual(self.in_container(*COMPILE, str(i)), f"round-{i} {len(f'round-{i}')}\n")
        print(strikes.kills, "kills")
        self.assertGreaterEqual(strikes.kills, ROUNDS)
        drop_page_cache()
        self.assertEqual(self.in_container("/bin/cat", "/out/rounds"), "".join(f"{i}\n" for i in range(ROUNDS)))
        for i in range(ROUNDS):
            self.assertEqual(self.in_container(f"/out/p-{i}", "x"), "x 1\n")
        self.assertIsNone(process.poll(), "the container has ended")
        subprocess.run(["runc", "--root", self.bundle + "/runc", "kill", "c", "KILL"], check=True, timeout=60)
        process.communicate(timeout=60)
        self.assert_nothing_left()


if __name__ == "__main__":
    missing = [f"no {path}" for path in (PYTHON, PYTHON_LIBRARY, *START_FILES) if not os.path.exists(path)]
    main(tools=(*TOOLS, "tcc"), reasons=missing)
