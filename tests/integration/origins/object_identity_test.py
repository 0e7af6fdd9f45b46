"""What names an object: two versions never meet under one name, and a renewed signature finds what is there."""

import json
import os
import random
import re
import urllib.parse

import _path  # noqa: F401
from harness.case import Case, main
from harness.holdfast import NO_READ_AHEAD
from harness.origins.scripted import OLD, Answer, ScriptedOrigin, whole_or_range
from harness.readers import RIGHT, Reader, pread

SIZE = 4 << 20
SIGNED = "?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=k&X-Amz-Date=d&X-Amz-Expires=60&X-Amz-Signature="


class ObjectIdentityTest(Case):
    def setUp(self):
        super().setUp()
        self.bodies = {name: random.Random(name).randbytes(SIZE) for name in ("1", "2")}
        self.good = {"one"}  # Signatures that are accepted.
        self.origin = ScriptedOrigin(self.answer)
        self.addCleanup(self.origin.close)
        self.instance = self.holdfast()

    def answer(self, request):
        query = dict(urllib.parse.parse_qsl(request.query))
        if query.get("X-Amz-Signature", "one") not in self.good:
            return Answer(403, b"no\n")
        body = self.bodies[query.get("versionId", request.headers.get("X-Version", "1"))]
        return whole_or_range(request, body, modified=OLD)

    def mount_file(self, query, *flags):
        settings = () if self.origin.requests else (NO_READ_AHEAD,)
        point = self.instance.mount(self.origin.url() + query, "--as=file", *settings, *flags)
        return os.path.join(point, "object.bin")

    def assert_is(self, path, body, offset=0, length=4096):
        reader = self.keep(Reader(path, offset, length, body[offset:offset + length]))
        self.assertTrue(reader.wait(30), "the read waits")
        self.assertEqual(reader.result, RIGHT, "wrong bytes, or an error")

    def test_two_versions_of_equal_size_are_two_objects(self):
        one = self.mount_file("?versionId=1")
        two = self.mount_file("?versionId=2")
        for offset in (0, SIZE // 2):
            self.assert_is(one, self.bodies["1"], offset)
            self.assert_is(two, self.bodies["2"], offset)
        self.assertEqual(len({o["volume"] for o in self.instance.status()["objects"]}), 2)

    def test_with_identity_path_the_query_selects_nothing(self):
        one = self.mount_file("?ticket=1", "--identity=path")
        self.assert_is(one, self.bodies["1"])
        self.instance.umount(os.path.dirname(one))
        asked = len(self.origin.requests)
        again = self.mount_file("?ticket=2", "--identity=path")
        self.assert_is(again, self.bodies["1"])
        fetched = [request.range for request in self.origin.requests[asked:]]
        self.assertNotIn("bytes=0-65535", fetched, "what was present was fetched again")

    def test_a_renewed_signature_finds_the_cache_and_reaches_a_live_mount_when_told_to(self):
        first = self.mount_file(SIGNED + "one")
        self.assert_is(first, self.bodies["1"])
        self.good = {"two"}  # The first has expired.
        with self.assertRaises(OSError):
            pread(first, SIZE // 2, 4096)
        # Another mount does not change how this one reaches its origin, unless it is told to.
        done = self.instance.try_mount(self.origin.url() + SIGNED + "two", self.box.make_directory("kept"), "--as=file")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stderr, "another signature, which is kept; --renew replaces it")
        with self.assertRaises(OSError):
            pread(first, SIZE // 2, 4096)
        self.instance.mount(self.origin.url() + SIGNED + "two", "--as=file", "--renew")
        self.assert_is(first, self.bodies["1"], SIZE // 2)
        self.assertEqual(len({o["volume"] for o in self.instance.status()["objects"]}), 1)

    def test_a_mount_does_not_change_the_access_of_another(self):
        first = self.mount_file("")
        point = self.box.make_directory("second")
        volume = self.instance.status()["objects"][0]["volume"]
        path = self.instance.state_path("sources", volume + ".json")
        with open(path) as f:
            source = json.load(f)
        with open(path, "w") as f:
            json.dump(source | {"client_cert": "/of/the/first"}, f)
        done = self.instance.try_mount(self.origin.url(), point, "--as=file")
        self.assert_one_line(done, rf"mounted on {re.escape(os.path.dirname(first))} with other options of access")
        self.assert_is(first, self.bodies["1"], SIZE // 2)


if __name__ == "__main__":
    main()
