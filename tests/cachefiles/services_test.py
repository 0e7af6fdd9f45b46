"""Two services as others build them on the kernel's interface run for a while under kills.

One has a blob cache of its own, and several images that share their blobs by domain.  The other is a package
store: one slab of 1 TiB holds the contents of its packages.  The service, holdfastd and holdfast-injectd are killed
again and again while programs read the mounted images; the run ends when all has been read.  `--mib` says how much
that is.
"""

import argparse
import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import time

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.holdfast import BIN
from harness.readers import RIGHT, WRONG_BYTES, Child
from harness.sandbox import wait_until

OPTIONS = None
READERS = 3
FILE = 1 << 20
CHUNK = 1 << 20


def text(path):
    with open(path, errors="replace") as f:
        return f.read()


def files_of(tree):
    return sorted(os.path.join(folder, name)[len(tree) + 1:] for folder, _, names in os.walk(tree) for name in names)


def compare(where, tree, seed):
    """For a child: reads all files in an order of its own."""
    names = files_of(tree)
    random.Random(seed).shuffle(names)
    for name in names:
        with open(os.path.join(where, name), "rb") as f, open(os.path.join(tree, name), "rb") as truth:
            if f.read() != truth.read():
                return WRONG_BYTES
    return RIGHT


class ServicesTest(Case):
    def setUp(self):
        super().setUp()
        self.rng = random.Random(OPTIONS.seed)
        self.box.environment["DELAY_MS"] = "100"
        self.readers = []
        self.instance = self.holdfast()
        device = self.box.path("cachefiles")
        self.directory = self.box.make_directory("directory")
        self.must("start", *self.flags(), "--cachefiles-device", device)
        # As a file-descriptor store does: the device outlives the service.
        self.fd = os.open(device, os.O_RDWR)
        self.addCleanup(os.close, self.fd)

    def flags(self):
        return [*self.instance.root_flags(), "--instance", self.instance.name]

    def must(self, *arguments):
        done = self.instance.run(*arguments)
        self.assertEqual(done.returncode, 0, done.stderr)

    def tree(self, name, seed):
        tree = self.box.make_directory(name)
        for i in range(OPTIONS.mib):
            images.write_random(os.path.join(tree, f"{i:04}"), FILE, seed * 10_000 + i)
        return tree

    def image_with_blob(self, tree, image, blob):
        """An image of the tree's names alone; its files are in `blob`."""
        done = self.box.run(["mkfs.erofs", "-T0", "--all-root", f"--chunksize={CHUNK}", f"--blobdev={blob}", image, tree])
        self.assertEqual(done.returncode, 0, done.stderr)

    def start(self, how):
        """The service: as `self.command` starts it."""
        path = self.box.path(f"service-{len(self.box._children)}.log")
        with open(path, "wb") as log:
            process = self.box.start([*self.command, how], stdout=log, stderr=log, pass_fds=[self.fd])
        wait_until(lambda: "ready" in text(path) or process.poll() is not None, 20, "the service is ready")
        self.assertIsNone(process.poll(), text(path))
        return process, path

    def mount(self, name, options, tree):
        """An image by its fsid, and its readers."""
        where = self.box.make_directory(name)
        self.must("mount-erofs", *self.flags(), "-o", options, where)
        self.addCleanup(self.box.run, ["umount", where])
        for i in range(READERS):
            seed = self.rng.randrange(1 << 30)
            child = Child(f"reader {i} of {name}", lambda seed=seed: compare(where, tree, seed))
            self.readers.append(self.keep(child))

    def kill_until_all_is_read(self, process, log):
        began, kills = time.monotonic(), {"the service": 0, "holdfastd": 0, "holdfast-injectd": 0}
        while not all(reader.wait(0) for reader in self.readers):
            self.assertLess(time.monotonic() - began, OPTIONS.seconds_max, f"{kills}")
            try:
                process.wait(self.rng.uniform(0.05, 0.5))
                self.fail(f"the service has ended: {text(log)}")
            except subprocess.TimeoutExpired:
                victim = self.rng.choice(("the service", "the service", *kills))
            if victim == "the service":
                process.kill()
                process.wait()
                process, log = self.start("restore")
                kills[victim] += 1
                continue
            for pid, program in self.instance.processes():
                if program != victim:
                    continue
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    kills[victim] += 1
        self.assertEqual({reader.result for reader in self.readers}, {RIGHT})
        print(f"{kills} kills in {time.monotonic() - began:.0f} s", file=sys.stderr)
        self.assertGreater(sum(kills.values()), 5)

    def test_images_that_share_blobs_by_domain(self):
        self.box.environment["DELAY_MS"] = "500"  # Four threads wait at a time.
        blobs, cache = self.box.make_directory("blobs"), self.box.make_directory("blob-cache")
        self.command = [os.path.join(BIN, "cachefiles_blob_daemon"), f"fd:{self.fd}", self.directory, blobs, cache]
        process, log = self.start("bind")
        for i in range(2):
            tree = self.tree(f"tree-{i}", i)
            self.image_with_blob(tree, os.path.join(blobs, f"image-{i}"), os.path.join(blobs, f"blob-{i}"))
            # Another image of the same blob.
            os.link(os.path.join(blobs, f"image-{i}"), os.path.join(blobs, f"again-{i}"))
            for name in (f"image-{i}", f"again-{i}"):
                self.mount(name, f"fsid={name},domain_id=shared,device=blob-{i}", tree)
        self.kill_until_all_is_read(process, log)

    def test_a_package_store(self):
        store = self.box.make_directory("store")
        os.makedirs(os.path.join(store, "packages"))
        os.makedirs(os.path.join(store, "chunks"))
        tree, slab = self.tree("package", 7), self.box.path("slab")
        self.image_with_blob(tree, os.path.join(store, "packages", "package"), slab)
        with open(slab, "rb") as f, open(os.path.join(store, "slab.map"), "w") as slab_map:
            for offset in range(0, os.path.getsize(slab), CHUNK):
                chunk = f.read(CHUNK)
                name = hashlib.sha256(chunk).hexdigest()
                with open(os.path.join(store, "chunks", name), "wb") as out:
                    out.write(chunk)
                slab_map.write(f"{offset} {len(chunk)} {name}\n")
        self.command = [os.path.join(BIN, "cachefiles_store_daemon"), f"fd:{self.fd}", self.directory, store]
        process, log = self.start("bind")
        self.mount("mnt", "fsid=package,device=slab", tree)
        self.kill_until_all_is_read(process, log)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=50, help="of each tree (50)")
    parser.add_argument("--seconds-max", type=int, default=200, help="of each service (200)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    OPTIONS, sys.argv[1:] = parser.parse_known_args()
    print(f"--seed {OPTIONS.seed}")
    main(tools=("mkfs.erofs",))
