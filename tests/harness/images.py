"""Things to serve: made once, kept under a cache directory by what went into them, the same bytes every time."""

import fcntl
import hashlib
import os
import random
import shutil
import subprocess
import tempfile

CACHE = os.environ.get("HOLDFAST_TEST_IMAGES") or os.path.join(tempfile.gettempdir(), "holdfast-test-images")
_UUID = "6f1dfa57-0000-4000-8000-000000000001"
_TREE_SOURCES = ("/usr/include", "/usr/share/doc", "/usr/lib/python3", "/usr/lib/python3.11", "/usr/share/perl",
                 "/usr/share/locale", "/usr/lib/gcc", "/usr/share/man", "/usr/lib/x86_64-linux-gnu", "/usr/bin")
TREE_BYTES = 300 << 20
TREE_FILES = 5000


def _kept(name, make):
    """CACHE/name, made by make(temporary path) if it is not there."""
    path = os.path.join(CACHE, name)
    os.makedirs(CACHE, exist_ok=True)
    with open(path + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Another test may be making it.
        if os.path.exists(path):
            return path
        work = tempfile.mkdtemp(dir=CACHE, prefix=".making-")
        try:
            os.chmod(work, 0o755)
            made = os.path.join(work, "it")
            make(made)
            os.rename(made, path)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return path


def make_erofs(tree, image):
    """An uncompressed image whose bytes depend on the tree alone."""
    done = subprocess.run(["mkfs.erofs", "-T0", "-U", _UUID, "--all-root", image, tree], text=True, capture_output=True)
    if done.returncode:
        raise AssertionError(f"mkfs.erofs: {done.stderr}")


def write_random(path, size, seed):
    """`size` bytes that depend on `seed` alone."""
    rng = random.Random(seed)
    with open(path, "wb") as f:
        for begin in range(0, size, 1 << 20):
            f.write(rng.randbytes(min(1 << 20, size - begin)))


def random_file(size, seed=1):
    return _kept(f"random-{size}-{seed}.bin", lambda path: write_random(path, size, seed))


def random_image(file_count, file_size, seed=1):
    """(image, tree): an EROFS image of files 000, 001, ..., and the directory it was made from."""
    def fill(directory):
        os.mkdir(directory)
        for i in range(file_count):
            write_random(os.path.join(directory, f"{i:03}"), file_size, seed * 1000 + i)
    name = f"random-{file_count}x{file_size}-{seed}"
    tree = _kept(name, fill)
    return _kept(name + ".erofs", lambda path: make_erofs(tree, path)), tree


def fio_file(size):
    """A file that fio has written with its own verification headers (see fio_verify_flags)."""
    def write(path):
        done = subprocess.run(["fio", "--name=w", f"--filename={path}", f"--size={size}", "--rw=write",
                               "--do_verify=0", "--randseed=1", "--output=/dev/null", *fio_verify_flags()],
                              text=True, capture_output=True, cwd=os.path.dirname(path))
        if done.returncode:
            raise AssertionError(f"fio: {done.stderr}")
    return _kept(f"fio-{size}.bin", write)


def fio_image(size):
    """An EROFS image with that file in it, as `data`."""
    def fill(path):
        tree = path + ".tree"
        os.mkdir(tree)
        os.link(fio_file(size), os.path.join(tree, "data"))
        make_erofs(tree, path)
    return _kept(f"fio-{size}.erofs", fill)


def fio_verify_flags():
    """4 KiB blocks, each with a checksum of itself and its own offset in it."""
    return ["--bs=4k", "--verify=crc32c"]


def real_tree():
    """A directory of real files: more than TREE_BYTES in more than TREE_FILES files."""
    return _kept("tree", _copy_real_tree)


def real_image():
    """(image, tree)."""
    tree = real_tree()
    return _kept("tree.erofs", lambda path: make_erofs(tree, path)), tree


def _copy_real_tree(target):
    total, count = 0, 0
    for source in _TREE_SOURCES:
        for folder, folders, names in os.walk(source):
            folders.sort()
            into = target + folder
            for name in sorted(names):
                path = os.path.join(folder, name)
                if os.path.islink(path) or not os.path.isfile(path):
                    continue
                size = os.path.getsize(path)
                if size > 32 << 20:
                    continue
                os.makedirs(into, exist_ok=True)
                shutil.copyfile(path, os.path.join(into, name))
                total, count = total + size, count + 1
        if total > TREE_BYTES and count > TREE_FILES:
            return
    raise AssertionError(f"this machine has only {count} files, {total} bytes to copy; "
                         f"wanted {TREE_FILES}, {TREE_BYTES}")


def manifest(tree):
    """{path relative to tree: sha256} of every regular file."""
    sums = {}
    for folder, _, names in os.walk(tree):
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb") as f:
                sums[os.path.relpath(path, tree)] = hashlib.file_digest(f, "sha256").hexdigest()
    return sums
