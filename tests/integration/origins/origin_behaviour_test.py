"""What origins do wrong, and what that leads to: right bytes, a wait, or a stated error; never a lasting wrong conclusion.

ROWS is the table of docs/sources.md, "Results of an origin's answers": a behaviour, and for an object without a
validator, with an ETag, and with a digest, what a read leads to while the origin behaves so:

  right    the bytes
  waits    nothing, until it behaves again
  changed  EIO after some seconds, and the log says that the object has changed
  error    EIO, or a mount that says why
  refused  the mount says why

Whatever it was, afterwards the next read is right, and what was present is present.
"""

import os
import random
import re
import time

import _path  # noqa: F401
from harness import verity
from harness.case import Case, main
from harness.holdfast import NO_READ_AHEAD
from harness.origins.scripted import OLD, Answer, ScriptedOrigin, date, whole_or_range
from harness.readers import RIGHT, WRONG_BYTES, Reader

DOCUMENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../docs/sources.md")
KINDS = ("plain", "validator", "digest")
SIZE = 2 << 20
PAGE = Answer(200, b"<html>no</html>\n\n", {"Content-Type": "text/html"})


class Cell:
    """One object, and how its origin answers."""

    def __init__(self, kind, name):
        self.kind, self.name = kind, name
        self.body = random.Random(name).randbytes(SIZE)
        self.behave = None   # (cell, request, right answer) -> Answer, or None for the right one.
        self.asked = 0       # Times that it has been asked to misbehave.
        self.modified = None
        self.tree = None
        self.tag = '"one"'

    def right(self, request, body=None, etag=None, **options):
        return whole_or_range(request, self.body if body is None else body,
                              etag=(etag or self.tag) if self.kind != "plain" else None, modified=self.modified, **options)

    def answer(self, request):
        if request.path.endswith(".merkle"):
            return whole_or_range(request, self.tree)
        right = self.right(request)
        if self.behave is None:
            return right
        self.asked += 1
        return self.behave(self, request, right) or right


def once(answer):
    """Misbehaves at the first request only."""
    return lambda cell, request, right: answer(cell, request) if cell.asked == 1 else None


def always(answer):
    return lambda cell, request, right: answer(cell, request)


def headers(right, **more):
    return Answer(right.status, right.body, {**right.headers, **{k.replace("_", "-"): v for k, v in more.items()}})


def larger(cell, request):
    return cell.right(request, body=cell.body + b"more", etag='"two"')


def other_etag(cell, request):
    return cell.right(request, etag='"two"')


def first_byte_refused(cell, request, right):
    return Answer(416, b"") if request.range == "bytes=0-0" else None


def total_unsaid(cell, request, right):
    if right.status == 206 and request.range:
        right.headers["Content-Range"] = re.sub(r"/\d+$", "/*", right.headers["Content-Range"])
    return right


# (what the origin does, from the first request on?, how, outcome for plain, validator, digest)
ROWS = [
    ("serves ranges", True, None, "right", "right", "right"),
    ("one HTML page under status 200", False, once(lambda c, r: PAGE), "right", "right", "right"),
    ("HTML pages under status 200 for a while", False, always(lambda c, r: PAGE), "waits", "waits", "waits"),
    ("one redirect to an HTML page", False,
     once(lambda c, r: Answer(302, b"", {"Location": "/login"})), "right", "right", "right"),
    ("one 416 without a size", False, once(lambda c, r: Answer(416)), "right", "right", "right"),
    ("one 416 that says another size", False,
     once(lambda c, r: Answer(416, b"", {"Content-Range": "bytes */17"})), "right", "right", "right"),
    ("one empty 200", False, once(lambda c, r: Answer(200)), "right", "right", "right"),
    ("empty 200s for a while", False, always(lambda c, r: Answer(200)), "waits", "waits", "waits"),
    ("one answer of 17 bytes of JSON under status 200", False,
     once(lambda c, r: Answer(200, b'{"error": "no no"', {"Content-Type": "application/json"})),
     "right", "right", "right"),
    ("another size once", False, once(larger), "right", "right", "right"),
    ("another size for a while", False, always(larger), "changed", "changed", "waits"),
    ("another ETag of the same bytes once (one node of many)", False, once(other_etag), "right", "right", "right"),
    ("another ETag of the same bytes for a while (rebuilt, copied)", False, always(other_etag),
     "right", "changed", "right"),
    ("another ETag at every second request (two nodes)", False,
     lambda c, r, right: other_etag(c, r) if c.asked % 2 else None, "right", "right", "right"),
    ("a body that ends early", False,
     once(lambda c, r: Answer(206, (right := c.right(r)).body, right.headers, cut_to=5000)), "right", "right", "right"),
    ("a wrong range", False,
     once(lambda c, r: Answer(206, (right := c.right(r)).body,
                              {**right.headers, "Content-Range": f"bytes 0-4095/{SIZE}"})), "right", "right", "right"),
    ("503 for a while", False, always(lambda c, r: Answer(503)), "waits", "waits", "waits"),
    ("404 for a while", False, always(lambda c, r: Answer(404)), "error", "error", "error"),
    ("403 for a while", False, always(lambda c, r: Answer(403)), "error", "error", "error"),
    ("answers If-Range with everything, and the pinned ETag", False,
     lambda c, r, right: c.right(r, ranges=False) if r.if_range else None, "right", "right", "right"),
    ("ignores If-Range", True, lambda c, r, right: c.right(r, if_range=False), "right", "right", "right"),
    ("refuses the range 0-0 with 416", True, first_byte_refused, "right", "right", "right"),
    ("answers the range 0-0 with everything", True,
     lambda c, r, right: c.right(r, ranges=False) if r.range == "bytes=0-0" else None, "right", "right", "right"),
    ("does not say the total of a range", True, total_unsaid, "right", "right", "right"),
    ("encodes what it sends (gzip)", True,
     lambda c, r, right: headers(right, Content_Encoding="gzip"), "refused", "refused", "refused"),
    ("serves no ranges", True, lambda c, r, right: c.right(r, ranges=False), "refused", "refused", "refused"),
    ("HTML pages under status 200 from the first request on", True, always(lambda c, r: PAGE),
     "refused", "refused", "refused"),
]
REFUSALS = {
    "encodes what it sends (gzip)": r"Content-Encoding: gzip",
    "serves no ranges": r"does not serve ranges",
    "HTML pages under status 200 from the first request on": r"(?i)html page",
}


def documented_rows(heading, columns):
    """The cells of the table below a heading of docs/sources.md."""
    with open(DOCUMENT) as f:
        section = f.read().split(f"## {heading}\n", 1)[1].split("\n#", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
    return [row for row in rows[1:] if len(row) == columns]


class OriginBehaviourTest(Case):
    def setUp(self):
        super().setUp()
        self.cells = {}
        self.origin = ScriptedOrigin(self.answer)
        self.addCleanup(self.origin.close)
        self.instance = self.holdfast()
        self.settings = (NO_READ_AHEAD,)

    def answer(self, request):
        if request.path == "/login":
            return PAGE
        return self.cells[request.path.split("/")[1]].answer(request)

    def add(self, kind, name):
        cell = self.cells[name] = Cell(kind, name)
        directory = self.box.make_directory("files-" + name)
        with open(os.path.join(directory, "body"), "wb") as f:
            f.write(cell.body)
        if kind == "digest":
            cell.digest = verity.with_tree(f.name, directory)
            with open(os.path.join(directory, "image.merkle"), "rb") as tree:
                cell.tree = tree.read()
        return cell

    def try_mount(self, cell):
        flags = [f"--verify={cell.digest}"] if cell.kind == "digest" else []
        cell.point = self.box.make_directory("m-" + cell.name)
        url = self.origin.url(cell.name + "/object.bin")
        done = self.instance.try_mount(url, cell.point, "--as=file", *self.settings, *flags)
        if done.returncode == 0:
            self.settings = ()
            cell.path = os.path.join(cell.point, "object.bin")
        return done

    def start_read(self, cell, offset):
        return self.keep(Reader(cell.path, offset, 4096, cell.body[offset:offset + 4096]))

    def assert_right(self, cell, offset):
        reader = self.start_read(cell, offset)
        self.assertTrue(reader.wait(40), f"{cell.name}: the read at {offset} still waits")
        self.assertEqual(reader.result, RIGHT, f"{cell.name}: the read at {offset}")

    def object_of(self, cell):
        volumes = [o for o in self.instance.status()["objects"] if o["volume"].endswith(self.volume_of(cell))]
        return volumes[0] if volumes else None

    def volume_of(self, cell):
        names = {o["volume"] for o in self.instance.status()["objects"]}
        for name in names:
            if f"_{cell.name}-" in name:
                return name
        return "none"

    def check(self, row, cell, expected):
        what, from_first, behave = row[:3]
        cell.behave = behave if from_first else None
        done = self.try_mount(cell)
        if expected == "refused":
            self.assert_one_line(done, REFUSALS[what])
            cell.behave = None
            done = self.try_mount(cell)
            self.assertEqual(done.returncode, 0, f"{cell.name}: {done.stderr}")
            return self.assert_right(cell, 0)
        self.assertEqual(done.returncode, 0, f"{cell.name}: {done.stderr}")
        self.assert_right(cell, 0)
        cell.behave, cell.asked = behave, 0
        reader = self.start_read(cell, SIZE // 2)
        if expected == "waits":
            self.assertFalse(reader.wait(1), f"{cell.name}: it should wait, but ended with {reader.result}")
            cell.behave = None
        self.assertTrue(reader.wait(40), f"{cell.name}: the read still waits")
        self.assertNotEqual(reader.result, WRONG_BYTES, cell.name)
        wanted = RIGHT if expected in ("right", "waits") else 5
        self.assertEqual(reader.result, wanted, f"{cell.name}: {what}")
        said = any("changed since it was mounted" in line and cell.name in line
                   for line in self.instance.log_text().splitlines())
        self.assertEqual(said, expected == "changed", f"{cell.name}: {what}: the log says that it has changed: {said}")
        before = self.object_of(cell)
        cell.behave = None
        self.assert_right(cell, SIZE // 2 + (256 << 10))
        self.assert_right(cell, SIZE // 2)
        if expected == "right":
            return
        # The next mount of it finds what is there, also where it seemed changed.
        self.instance.umount(cell.point)
        done = self.try_mount(cell)
        self.assertEqual(done.returncode, 0, f"{cell.name}: {done.stderr}")
        after = self.object_of(cell)
        self.assertEqual((after["number"], after["stale"]), (before["number"], False), cell.name)
        self.assertGreaterEqual(after["present"], before["present"], cell.name)

    def test_every_behaviour_with_every_kind_of_object(self):
        keeper = self.add("plain", "keeper")  # The instance lives on.
        self.assertEqual(self.try_mount(keeper).returncode, 0)
        for number, row in enumerate(ROWS):
            for kind, expected in zip(KINDS, row[3:]):
                with self.subTest(origin=row[0], kind=kind):
                    self.check(row, self.add(kind, f"c{number}{kind}"), expected)

    def test_the_table_is_the_documents(self):
        self.assertEqual(documented_rows("Results of an origin's answers", 4), [(row[0], *row[3:]) for row in ROWS])

    def test_a_file_has_the_time_of_its_origin(self):
        cell = self.add("validator", "timed")
        cell.modified = OLD
        self.assertEqual(self.try_mount(cell).returncode, 0)
        self.assertEqual(os.stat(cell.path).st_mtime, OLD)
        self.instance.umount(cell.point)
        asked = len(self.origin.requests)
        self.assertEqual(self.try_mount(cell).returncode, 0)
        self.assertEqual(os.stat(cell.path).st_mtime, OLD)
        self.assertEqual(len(self.origin.requests), asked, "what is known was asked for")
        directory = self.box.make_directory("local")
        with open(os.path.join(directory, "object.bin"), "wb") as f:
            f.write(cell.body)
        os.utime(f.name, ns=(0, 1_234_567_890_123_456_789))
        path = self.instance.mount_file("file://" + f.name)
        self.assertEqual(os.stat(path).st_mtime_ns, 1_234_567_890_123_456_789)

    def test_a_young_last_modified_is_not_sent_in_if_range(self):
        cell = self.add("plain", "young")
        now = cell.modified = time.time()
        self.assertEqual(self.try_mount(cell).returncode, 0)
        self.assert_right(cell, 0)
        self.assertEqual({request.if_range for request in self.origin.requests}, {None})
        self.assertEqual({request.headers.get("Accept-Encoding") for request in self.origin.requests}, {"identity"})
        cell.modified = OLD  # Another time, the same size.
        reader = self.start_read(cell, SIZE // 2)
        self.assertTrue(reader.wait(40))
        self.assertEqual(reader.result, 5)
        self.assertIn(f"Last-Modified was {date(now)}, is {date(OLD)}", self.instance.log_text())

    def test_what_no_validator_tells_is_asked_again_by_the_next_mount(self):
        keeper = self.add("plain", "keeper")
        self.assertEqual(self.try_mount(keeper).returncode, 0)
        cell = self.add("plain", "bare")
        self.assertEqual(self.try_mount(cell).returncode, 0)
        self.assert_right(cell, 0)
        first = self.object_of(cell)
        self.instance.umount(cell.point)
        asked = len(self.origin.requests)
        self.assertEqual(self.try_mount(cell).returncode, 0)
        self.assertGreater(len(self.origin.requests), asked, "no origin was asked")
        self.assertEqual(self.object_of(cell)["number"], first["number"])
        self.instance.umount(cell.point)
        # Where the origin can't say, what is known is mounted.
        cell.behave = lambda c, request, right: Answer(404)
        self.assertEqual(self.try_mount(cell).returncode, 0)
        self.assertEqual(self.object_of(cell)["number"], first["number"])
        self.instance.umount(cell.point)
        # Another one takes its place.
        cell.behave = None
        cell.body = random.Random("new").randbytes(SIZE + 4096)
        self.assertEqual(self.try_mount(cell).returncode, 0)
        self.assertNotEqual(self.object_of(cell)["number"], first["number"])
        self.assert_right(cell, 0)

    def test_a_live_mount_keeps_its_bytes_when_another_mount_finds_a_change(self):
        keeper = self.add("plain", "keeper")
        self.assertEqual(self.try_mount(keeper).returncode, 0)
        cell = self.add("plain", "live")
        cell.modified = young = int(time.time())  # No validator, being so young.
        self.assertEqual(self.try_mount(cell).returncode, 0)
        self.assert_right(cell, 0)
        first, old_body, old_path, old_point = self.object_of(cell), cell.body, cell.path, cell.point
        cell.body, cell.modified = random.Random("newer").randbytes(SIZE), OLD
        second = self.box.make_directory("second")
        done = self.instance.try_mount(self.origin.url(cell.name + "/object.bin"), second, "--as=file")
        self.assert_one_line(done, "has changed at its origin since it was mounted on")
        with open(old_path, "rb") as f:
            self.assertEqual(f.read(4096), old_body[:4096])
        self.assertEqual(os.stat(old_path).st_mtime, young)
        self.instance.umount(old_point)
        self.assertEqual(self.try_mount(cell).returncode, 0)
        self.assertNotEqual(self.object_of(cell)["number"], first["number"])
        self.assert_right(cell, 0)
        self.assertEqual(os.stat(cell.path).st_mtime, OLD)

    def test_what_has_changed_stays_until_its_successor_can_be_opened(self):
        keeper = self.add("plain", "keeper")
        self.assertEqual(self.try_mount(keeper).returncode, 0)
        cell = self.add("validator", "away")
        self.assertEqual(self.try_mount(cell).returncode, 0)
        self.assert_right(cell, 0)
        cell.tag = '"another"'
        reader = self.start_read(cell, SIZE // 2)
        self.assertTrue(reader.wait(40))
        self.assertEqual(reader.result, 5)
        before = self.object_of(cell)
        self.assertTrue(before["stale"])
        self.instance.umount(cell.point)
        cell.behave = lambda c, request, right: Answer(404)
        done = self.try_mount(cell)
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(self.object_of(cell), before)
        cell.behave = None
        self.assertEqual(self.try_mount(cell).returncode, 0)
        self.assertNotEqual(self.object_of(cell)["number"], before["number"])
        self.assert_right(cell, SIZE // 2)


if __name__ == "__main__":
    main(tools=("fsverity",))
