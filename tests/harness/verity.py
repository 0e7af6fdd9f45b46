"""Images with a digest: what fsverity(1) says of a file, and copies of a file with bits flipped."""

import os
import shutil
import subprocess

BLOCK = 4096


def with_tree(path, directory, name="image"):
    """Copies `path` to DIRECTORY/NAME and puts its Merkle tree beside it.  Returns the digest."""
    target = os.path.join(directory, name)
    shutil.copyfile(path, target)
    done = subprocess.run(["fsverity", "digest", "--compact", f"--out-merkle-tree={target}.merkle", target],
                          text=True, capture_output=True)
    if done.returncode:
        raise AssertionError(f"fsverity: {done.stderr}")
    return "sha256:" + done.stdout.strip()


def flip_bits(path, every=64, first=0, begin=0, end=None):
    """Flips one bit in every `every`-th block of path[begin:end].  Returns the numbers of these blocks, from `begin` on."""
    end = os.path.getsize(path) if end is None else end
    blocks = list(range(first, (end - begin + BLOCK - 1) // BLOCK, every))
    with open(path, "r+b") as f:
        for block in blocks:
            at = begin + block * BLOCK + (block * 37) % (min(BLOCK, end - begin - block * BLOCK))
            f.seek(at)
            byte = f.read(1)[0]
            f.seek(at)
            f.write(bytes([byte ^ (1 << block % 8)]))
    return blocks


def read_blocks(path, truth):
    """Reads block by block; returns the numbers of blocks that gave an error.  Fails for one wrong byte."""
    failed = []
    fd = os.open(path, os.O_RDONLY)
    try:
        for block in range((len(truth) + BLOCK - 1) // BLOCK):
            want = truth[block * BLOCK:(block + 1) * BLOCK]
            try:
                got = os.pread(fd, BLOCK, block * BLOCK)
            except OSError:
                failed.append(block)
                continue
            assert got == want, f"{path}: block {block} reads wrong"
    finally:
        os.close(fd)
    return failed


def forget_pages(path):
    """Has the kernel ask for the file's bytes again."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def data_files(instance):
    """The data files of the cache, the largest first."""
    root = instance.state_path("cache", "data")
    paths = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names]
    return sorted(paths, key=os.path.getsize, reverse=True)
