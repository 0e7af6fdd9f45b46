"""nginx, Apache, lighttpd and busybox httpd, and what is done to their files.

ROWS is the table of docs/sources.md, "Servers": what is done, and what a read leads to meanwhile, of an object that is
known by its validator and of one that is known by a digest.  The words are those of origin_behaviour_test.py.
"""

import os
import random
import shutil

import _path  # noqa: F401
from harness import verity
from harness.case import Case, main
from harness.holdfast import NO_READ_AHEAD
from harness.origins.scripted import OLD
from harness.origins.servers import SERVERS
from harness.readers import RIGHT, WRONG_BYTES, Reader
from origin_behaviour_test import documented_rows

SIZE = 2 << 20
KINDS = ("validator", "digest")


class File:
    """An image of a server's directory."""

    def __init__(self, case, root, name, kind):
        self.name, self.kind = name, kind
        self.body = random.Random(name).randbytes(SIZE)
        plain = os.path.join(case.box.make_directory("bodies"), name)
        with open(plain, "wb") as f:
            f.write(self.body)
        self.served = os.path.join(root, name)
        self.digest = verity.with_tree(plain, root, name)
        self.to_date(OLD)

    def to_date(self, seconds):
        os.utime(self.served, (seconds, seconds))


def touch(file, server):
    file.to_date(OLD + 7200)
    return lambda: file.to_date(OLD)


def remove(file, server):
    os.rename(file.served, file.served + ".away")
    return lambda: os.rename(file.served + ".away", file.served)


def replace(file, server):
    """By one of another size, as deployments do it."""
    os.rename(file.served, file.served + ".away")
    with open(file.served, "wb") as f:
        f.write(bytes(SIZE + 4096))
    return lambda: os.rename(file.served + ".away", file.served)


def copy(file, server):
    """By a copy of it with the same date: another inode."""
    shutil.copy2(file.served, file.served + ".copy")
    os.rename(file.served + ".copy", file.served)
    return lambda: None


def kill(file, server):
    server.stop()
    return lambda: server.start()


def nothing(file, server):
    return lambda: None


# (what is done to the file while it is mounted, how, outcome by validator, by digest)
ROWS = [
    ("nothing", nothing, "right", "right"),
    ("it is touched", touch, "changed", "right"),
    ("it is copied to another inode, with its date", copy, "right", "right"),
    ("it is replaced by one of another size for a while", replace, "changed", "waits"),
    ("it is removed for a while", remove, "error", "error"),
    ("the server is killed and started again", kill, "waits", "waits"),
]


class RealServersTest(Case):
    def test_every_server(self):
        for server_type in SERVERS:
            root = self.box.make_directory("root-" + server_type.tool)
            server = server_type(self.box, root).start()
            instance = self.holdfast(server_type.tool)
            for number, row in enumerate(ROWS):
                for kind, expected in zip(KINDS, row[2:]):
                    with self.subTest(server=server_type.tool, done=row[0], kind=kind):
                        self.check(instance, server, File(self, root, f"f{number}{kind}", kind), row[1], expected)
            server.stop()

    def check(self, instance, server, file, do, expected):
        flags = [f"--verify={file.digest}"] if file.kind == "digest" else []
        settings = [] if os.path.exists(instance.run_path("control.sock")) else [NO_READ_AHEAD]
        point = instance.mount(server.url(file.name), "--as=file", *settings, *flags)
        path = os.path.join(point, file.name)
        self.assert_right(path, file, 0)
        self.assertEqual(os.stat(path).st_mtime, OLD)
        undo = do(file, server)
        reader = self.keep(Reader(path, SIZE // 2, 4096, file.body[SIZE // 2:SIZE // 2 + 4096]))
        if expected == "waits":
            self.assertFalse(reader.wait(1), f"it should wait, but ended with {reader.result}")
            undo()
        self.assertTrue(reader.wait(40), "the read still waits")
        self.assertNotEqual(reader.result, WRONG_BYTES)
        self.assertEqual(reader.result, RIGHT if expected in ("right", "waits") else 5)
        if expected != "waits":
            undo()
        self.assert_right(path, file, SIZE // 2 + (256 << 10))
        self.assert_right(path, file, SIZE // 2)

    def assert_right(self, path, file, offset):
        reader = self.keep(Reader(path, offset, 4096, file.body[offset:offset + 4096]))
        self.assertTrue(reader.wait(40), f"the read at {offset} still waits")
        self.assertEqual(reader.result, RIGHT, f"the read at {offset}")

    def test_the_table_is_the_documents(self):
        self.assertEqual(documented_rows("Servers", 3), [(row[0], *row[2:]) for row in ROWS])


if __name__ == "__main__":
    main(tools=("fsverity", *(server.tool for server in SERVERS)))
