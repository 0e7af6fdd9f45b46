"""Objects in S3, on a server that checks every signature: where keys come from, how they are renewed, and what is said."""

import errno
import json
import os
import re
import shlex
import time
from datetime import datetime, timedelta, timezone

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.holdfast import NO_READ_AHEAD
from harness.origins import s3
from harness.origins.s3 import S3Server
from harness.readers import RIGHT, Reader, pread, wait_all
from harness.sandbox import wait_until
from harness.secrets import assert_no_secrets

KEY, SECRET, TOKEN = "AKIAFIRST0000000001", "first-secret-9fd2c1aa77", "first-token-1c5c7d0b42"
KEY2, SECRET2, TOKEN2 = "AKIASECOND000000002", "second-secret-31b7e90d5f", "second-token-8e22f1a6c9"
OBJECT = "os/image v1+(a).bin"
URL = "s3://images/os/image%20v1+(a).bin"

# Prints the credentials that it finds, and keeps count; without any it fails.
_PROCESS = """#!/bin/sh
echo call >>"$1/calls"
cat "$1/now" || exit 3
"""


FETCHER_IS_ROOT = "--fetcher-user=root"


class S3OriginTest(Case):
    def setUp(self):
        super().setUp()
        self.truth = images.random_file(8 << 20, seed=51)
        self.server = S3Server(self.box)
        self.server.put(OBJECT, self.truth)
        self.server.add_key(KEY, SECRET)
        self.instance = self.holdfast()
        self.home = self.box.make_directory("home", ".aws")
        for name in [name for name in self.box.environment if name.startswith("AWS_")]:
            del self.box.environment[name]
        self.box.environment["HOME"] = os.path.dirname(self.home)
        self.flags = ["--s3-endpoint=" + self.server.endpoint, "--s3-path-style", "--as=file", NO_READ_AHEAD]
        self.point = self.box.make_directory("point")

    def mount(self, *flags, url=URL):
        """The object's path.  Settings of the instance can only be given the first time."""
        path = os.path.join(self.instance.mount(url, *self.flags, *flags), url.rsplit("/", 1)[1])
        self.flags = [flag for flag in self.flags if flag not in (NO_READ_AHEAD, FETCHER_IS_ROOT)]
        return path

    def refused(self, pattern, *flags, url=URL, base=None):
        self.assert_one_line(self.instance.try_mount(url, self.point, *(self.flags if base is None else base), *flags),
                             pattern)
        self.assertFalse(os.path.ismount(self.point))

    def write(self, name, text, mode=0o600):
        path = os.path.join(self.home, name)
        with open(path + ".new", "w") as f:
            f.write(text)
        os.chmod(path + ".new", mode)
        os.rename(path + ".new", path)
        return path

    def write_process(self, profile="default", file="config"):
        """A profile whose keys a program prints; give() says which."""
        program = self.write("process", _PROCESS, 0o700)
        self.flags.append(FETCHER_IS_ROOT)  # The program is root's alone.
        self.write(file, f"[{profile}]\nregion = eu-central-1\ncredential_process = {shlex.quote(program)} {self.home}\n")

    def give(self, key, secret, token, lifetime=None):
        now = {"Version": 1, "AccessKeyId": key, "SecretAccessKey": secret, "SessionToken": token}
        if lifetime:
            now["Expiration"] = (datetime.now(timezone.utc) + timedelta(seconds=lifetime)).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.write("now", json.dumps(now))

    def calls(self):
        with open(os.path.join(self.home, "calls")) as f:
            return len(f.readlines())

    def reader(self, path, offset):
        return self.keep(Reader(path, offset, 65536, pread(self.truth, offset, 65536)))

    def assert_reads(self, path, offset):
        reader = self.reader(path, offset)
        self.assertTrue(reader.wait(30), "still waiting")
        self.assertEqual(reader.result, RIGHT)

    def says(self, pattern):
        def said():
            return re.search(pattern, self.instance.run("status", "--root", self.instance.root).stdout)
        wait_until(said, 30, f"`holdfast status` says {pattern}")

    # Where keys come from.
    def test_keys_of_the_environment_reach_the_fetcher_alone(self):
        self.server.add_key(KEY2, SECRET2, TOKEN2)
        keys = {"AWS_ACCESS_KEY_ID": KEY2, "AWS_SECRET_ACCESS_KEY": SECRET2, "AWS_SESSION_TOKEN": TOKEN2}
        self.box.environment.update(keys)
        path = self.mount()
        self.assert_reads_right(path, self.truth)
        assert_no_secrets(self, self.instance, [SECRET2, TOKEN2])
        # Another fetcher is given them too.
        killed = self.instance.attached_pid()
        self.instance.kill_fetcher()
        self.instance.wait_fetcher(other_than=killed)
        self.server.put("other.bin", images.random_file(1 << 20, seed=52))
        other = self.box.make_directory("other")
        done = self.instance.try_mount("s3://images/other.bin", other, *self.flags)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stderr, r"^holdfast: instance t already runs: it signs with what it was started with, not with "
                                      r"the AWS keys in this environment")
        assert_no_secrets(self, self.instance, [SECRET2, TOKEN2])
        self.assertEqual({entry["key"] for entry in self.server.log()}, {KEY2})

    def test_keys_of_the_shared_credentials_file_and_of_a_profile(self):
        self.write("credentials", f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n\n"
                                  f"[build]\naws_access_key_id={KEY2}\naws_secret_access_key={SECRET2}\n")
        self.assert_reads(self.mount(), 0)
        assert_no_secrets(self, self.instance, [SECRET, SECRET2], in_fetcher=[SECRET])
        self.server.add_key(KEY2, SECRET2)
        self.server.put("other.bin", images.random_file(1 << 20, seed=52))
        self.mount("--s3-profile=build", url="s3://images/other.bin")
        self.assertEqual(self.server.log()[-1]["key"], KEY2)

    # What is said when they are wrong.
    def test_the_reason_of_a_refusal_is_said_in_s3s_own_words(self):
        # Credentials may come while the mount waits, so this is said at its end.
        self.refused(r"no S3 credentials in the fetcher's environment", "--timeout=3s")
        self.write("credentials", f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = wrong-secret\n")
        self.refused(r"^holdfast: cannot mount s3://images/os/image%20v1\+\(a\)\.bin: 403 Forbidden: SignatureDoesNotMatch "
                     r"\(the secret key does not belong to the access key\)")
        self.write("credentials", f"[default]\naws_access_key_id = {KEY2}\naws_secret_access_key = {SECRET2}\n")
        self.refused(r"403 Forbidden: InvalidAccessKeyId \(the access key is not known there\)")
        self.write("credentials", f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
        self.refused(r"404 Not Found: NoSuchKey \(the bucket has no such key\)", url="s3://images/nothing")
        self.refused(r"404 Not Found: NoSuchBucket \(there is no such bucket\)", url="s3://elsewhere/nothing")
        self.refused(r"no S3 credentials in \[nobody\] of \S+/\.aws/credentials", "--s3-profile=nobody")

    def test_bad_names_and_options_are_refused_at_once(self):
        self.refused(r"'s3://images' has no key; it is s3://BUCKET/KEY", url="s3://images")
        self.refused(r"'s3:///x' has no valid bucket", url="s3:///x")
        self.refused(r"'gs://images/x' is not an image URL; use http://, https://, s3://BUCKET/KEY", url="gs://images/x", base=[])
        for endpoint in ("127.0.0.1:9000", "https://h/path", "https://h:port", "https://user@h", "ftp://h", "http://"):
            self.refused(r"--s3-endpoint must be http://HOST\[:PORT\] or https://HOST\[:PORT\], without path",
                         "--s3-endpoint=" + endpoint, base=[])
        self.refused(r"--s3-region must be a name", "--s3-region=../x")
        self.refused(r"the --s3-\.\.\. options are for s3:// origins", url="file:///x")
        self.write("credentials", "[default]\n", mode=0o644)
        self.refused(r"S3 credentials file \S+ can be read by all users; run: chmod o-rwx ")
        self.box.environment["AWS_SHARED_CREDENTIALS_FILE"] = "/nowhere/credentials"
        self.refused(r"S3 credentials file /nowhere/credentials: No such file")

    # Keys that expire.
    def test_a_token_that_expires_in_mid_read_is_renewed_and_reads_go_on(self):
        self.server.add_key(KEY2, SECRET2, TOKEN2)
        self.server.add_key(KEY + "T", SECRET, TOKEN)
        self.write_process()
        self.give(KEY + "T", SECRET, TOKEN)
        path = self.mount()
        self.assert_reads(path, 0)
        self.give(KEY2, SECRET2, TOKEN2)
        self.server.expire(KEY + "T")
        for offset in range(1 << 20, 8 << 20, 1 << 20):
            self.assert_reads(path, offset)
        self.assertEqual(self.calls(), 2)
        statuses = [entry["status"] for entry in self.server.log()]
        self.assertEqual(statuses.count(400), 1, "an expired token was used more than once")
        assert_no_secrets(self, self.instance, [SECRET, TOKEN, SECRET2, TOKEN2], in_fetcher=[SECRET2, TOKEN2])

    def test_keys_that_say_when_they_expire_are_renewed_before(self):
        self.server.add_key(KEY2, SECRET2, TOKEN2)
        self.server.add_key(KEY + "T", SECRET, TOKEN)
        self.write_process(profile="profile ci")
        self.give(KEY + "T", SECRET, TOKEN, lifetime=5)
        path = self.mount("--s3-profile=ci")
        self.give(KEY2, SECRET2, TOKEN2, lifetime=3600)
        offsets = iter(range(0, 8 << 20, 64 << 10))
        while self.server.log()[-1]["key"] != KEY2:  # Ends with the file, at the latest.
            self.assert_reads(path, next(offsets))
            time.sleep(0.1)  # So that the file is longer than the keys live.
        self.assertEqual({entry["status"] for entry in self.server.log()}, {206})
        self.assertEqual(self.calls(), 2)

    def test_a_program_that_the_fetchers_user_cannot_run_is_refused_with_the_cure(self):
        self.write_process()
        self.flags.remove(FETCHER_IS_ROOT)
        self.refused(r"credential_process of .*: run \S+/process as user \d+ \(--fetcher-user names another\): Permission denied")

    def test_without_keys_reads_wait_say_why_and_end_at_the_request_timeout(self):
        self.server.add_key(KEY2, SECRET2, TOKEN2)
        self.server.add_key(KEY + "T", SECRET, TOKEN)
        self.write_process()
        self.give(KEY + "T", SECRET, TOKEN)
        path = self.mount("--request-timeout=6s")
        self.assert_reads(path, 0)
        os.unlink(os.path.join(self.home, "now"))
        self.server.expire(KEY + "T")
        readers = [self.reader(path, offset << 20) for offset in (1, 3, 5)]
        self.says(r"credential_process of \S+/config: \S+/process ended with exit code 3")
        self.assertEqual([reader.what for reader in wait_all(readers, 40)], [], "readers still waiting")
        self.assertEqual({reader.result for reader in readers}, {errno.EIO})
        self.assertGreater(min(reader.seconds for reader in readers), 5)
        said = [line for line in self.instance.log_text().splitlines() if "exit code 3" in line]
        self.assertTrue(said, f"the log does not say why:\n{self.instance.log_text()}")
        self.give(KEY2, SECRET2, TOKEN2)
        self.assert_reads(path, 6 << 20)


if __name__ == "__main__":
    main(reasons=[s3.missing()])
