"""Images in a real registry: how the fetcher gets in, what it does when it no longer does, and what needs no registry."""

import errno
import json
import os
import ssl
import time
import urllib.error
import urllib.request

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.holdfast import NO_READ_AHEAD
from harness.oci_layout import OciLayout
from harness.origins.certificates import Authority
from harness.origins.oci_registry import PASSWORD, USER, Registry, auth_file
from harness.readers import RIGHT, Reader, pread
from harness.sandbox import wait_until
from harness.secrets import assert_no_secrets

MIB = 1 << 20


class RegistryCase(Case):
    """A registry (`auth`, `tls`) that has one image, `repo/image:v1`."""

    auth, tls = None, True

    def setUp(self):
        super().setUp()
        self.authority = Authority(self.box) if self.tls else None
        self.registry = self.make_registry("registry")
        self.image, self.tree = images.random_image(8, MIB, seed=42)
        self.layout = OciLayout(self.box.path("layout"))
        self.manifest = self.layout.holdfast_manifest(self.image)
        self.digest = self.layout.tag("v1", self.layout.add_json(self.manifest))
        self.blob = self.manifest["layers"][0]["digest"]
        self.reference = self.registry.push(self.layout, "v1", "repo/image")
        self.pinned = self.reference.rsplit(":", 1)[0] + "@" + self.digest
        self.instance = self.holdfast()
        self.credentials = auth_file(self.box, self.registry.host) if self.auth else None
        self.flags = self.registry.flags(self.credentials)

    def make_registry(self, name):
        registry = Registry(self.box, self.authority, self.auth, name)
        if registry.tokens:
            self.addCleanup(registry.tokens.close)
        return registry.start()

    def mount_as_file(self, *flags, reference=None):
        """The path of the image's bytes, of which nothing is fetched ahead."""
        point = self.instance.mount(reference or self.reference, "--as=file", NO_READ_AHEAD, *self.flags, *flags)
        return os.path.join(point, self.blob)

    def refused(self, reference, pattern, *flags):
        point = self.box.make_directory("refused")
        self.assert_one_line(self.instance.try_mount(reference, point, *flags), pattern)
        self.assertFalse(os.path.ismount(point))

    def reader_at(self, path, offset, length=65536):
        return self.keep(Reader(path, offset, length, pread(self.image, offset, length)))

    def assert_ends_right(self, reader, seconds=60):
        self.assertTrue(reader.wait(seconds), f"{reader.what}: still waiting after {seconds} s")
        self.assertEqual(reader.result, RIGHT, reader.what)

    def cause(self):
        """The fetcher's word on what waits; "" for none."""
        causes = [request.get("cause") for request in self.instance.status()["requests"]["list"]]
        return next((cause for cause in causes if cause), "")

    def wait_cause(self, words):
        wait_until(lambda: words in self.cause(), 60, f"a cause with {words!r}; it is {self.cause()!r}")


class PasswordRegistryTest(RegistryCase):
    auth = "basic"

    def test_an_image_is_mounted_and_only_what_is_read_of_it_is_fetched(self):
        since = self.registry.log_size()
        point = self.instance.mount(self.reference, NO_READ_AHEAD, *self.flags)
        self.assert_reads_right(os.path.join(point, "000"), os.path.join(self.tree, "000"))
        shown = self.instance.run("status", "--root", self.instance.root).stdout
        self.assertRegex(shown, f"mount +{point}  erofs  {self.reference}  {self.digest}\n")
        asked = {path for _, path, status in self.registry.blob_requests(since) if status < 300}
        config = self.manifest["config"]["digest"]
        merkle = self.manifest["layers"][1]["digest"]
        self.assertEqual(asked, {f"/v2/repo/image/blobs/{digest}" for digest in (self.blob, merkle, config)})
        present = self.instance.status()["objects"][0]["present"]
        # The kernel reads ahead of mount(2) and of the reader, but not this far.
        self.assertLess(present, os.path.getsize(self.image) * 3 // 4)
        self.assertEqual(images.manifest(point), images.manifest(self.tree))
        assert_no_secrets(self, self.instance, [PASSWORD])

    def test_a_wrong_authority_is_refused(self):
        other = Authority(self.box, "other")
        flags = ["--ca-file", other.certificate, "--auth-file", self.credentials]
        self.refused(self.reference, f"cannot mount: {self.reference}: .*x509: certificate", *flags)
        blob = f"oci-blob://{self.registry.host}/repo/image@{self.blob}"
        self.refused(blob, "cannot mount oci-blob.*TLS: SSL certificate problem", "--timeout=3s", *flags)

    def test_a_wrong_password_is_refused_and_not_repeated(self):
        wrong = auth_file(self.box, self.registry.host, "wrong.json", password="pw-wrong-77ab")
        flags = ["--ca-file", self.registry.ca, "--auth-file", wrong]
        self.refused(self.reference, "^(?!.*pw-wrong).*(unauthorized|authentication required)", *flags)
        blob = f"oci-blob://{self.registry.host}/repo/image@{self.blob}"
        self.refused(blob, f"^(?!.*pw-wrong).*401 Unauthorized.*credentials come from {wrong}", "--timeout=5s", *flags)
        none = auth_file(self.box, "another.example", "none.json")
        flags = ["--ca-file", self.registry.ca, "--auth-file", none]
        self.refused(blob, f"wants a user and a password, and {none} has none for it", "--timeout=5s", *flags)

    def test_no_image_no_tag_and_no_tls_are_refused(self):
        nothing = f"oci://{self.registry.host}/repo/image:v9"
        self.refused(nothing, f"{nothing}: the registry has no such image: .*manifest unknown", *self.flags)
        self.layout.add_list("none", {"linux/s390x": self.manifest, "linux/mips64le": self.manifest})
        other = self.registry.push(self.layout, "none", "repo/list")
        self.refused(other, r"has no image for linux/\w+(/v8)?; it has linux/s390x, linux/mips64le$", *self.flags)
        foreign = {**self.manifest, "annotations": {}}
        self.layout.tag("foreign", self.layout.add_json(foreign))
        other = self.registry.push(self.layout, "foreign", "repo/foreign")
        self.refused(other, "is not a Holdfast image .*holdfast image build$", *self.flags)

    def test_a_manifest_that_is_not_what_its_digest_says_is_refused(self):
        path = self.registry.blob_path(self.digest)
        with open(path, "rb") as f:
            text = f.read()
        verity = text.index(b"sha256:", text.index(b"holdfast.verity")) + len("sha256:")
        # One bit: in a digit of the digest that all bytes are held against, of a size, of the format's version.
        for at in (verity, text.index(b"%d" % os.path.getsize(self.image)), text.index(b'"1"') + 1):
            with open(path, "wb") as f:
                f.write(text[:at] + bytes([text[at] ^ 1]) + text[at + 1:])
            self.refused(self.pinned, f"cannot mount: {self.pinned}: what came for {self.digest} has the digest sha256:",
                         *self.flags)

    def test_without_skopeo_its_package_is_named(self):
        self.box.environment["PATH"] = self.box.make_directory("empty")
        self.refused(self.reference, "skopeo is needed for this and not installed; install the package skopeo",
                     *self.flags)

    def test_a_credential_helper_is_asked_without_arguments_that_tell(self):
        programs = self.box.make_directory("programs")
        helper = os.path.join(programs, "docker-credential-test")
        with open(helper, "w") as f:
            f.write(f'#!/bin/sh\nread server\necho "$@ $server" >>{programs}/asked\n'
                    f'echo \'{{"ServerURL":"x","Username":"{USER}","Secret":"{PASSWORD}"}}\'\n')
        os.chmod(helper, 0o755)
        self.box.environment["PATH"] = programs + ":" + os.environ["PATH"]
        path = self.box.path("helper.json")
        with open(path, "w") as f:
            json.dump({"credHelpers": {self.registry.host: "test"}}, f)
        os.chmod(path, 0o600)
        self.flags = self.registry.flags(path)
        self.assert_ends_right(self.reader_at(self.mount_as_file(), 0))
        with open(os.path.join(programs, "asked")) as f:
            self.assertEqual(set(f.read().split("\n")), {f"get {self.registry.host}", ""})
        assert_no_secrets(self, self.instance, [PASSWORD])


class PlainRegistryTest(RegistryCase):
    tls = False

    def test_without_tls_only_when_asked_to(self):
        self.refused(self.reference, "server gave HTTP response to HTTPS client")
        blob = f"oci-blob://{self.registry.host}/repo/image@{self.blob}"
        self.refused(blob, "cannot mount oci-blob.*TLS: ", "--timeout=3s")
        point = self.instance.mount(self.reference, *self.flags)
        self.assertEqual(images.manifest(point), images.manifest(self.tree))

    def test_a_mount_stays_with_what_its_tag_named_and_the_next_one_follows(self):
        point = self.instance.mount(self.reference, NO_READ_AHEAD, *self.flags)
        self.assert_reads_right(os.path.join(point, "000"), os.path.join(self.tree, "000"))
        image, tree = images.random_image(3, MIB, seed=43)
        self.layout.add_holdfast("v2", image)
        self.assertEqual(self.registry.push(self.layout, "v2", "repo/image", "v1"), self.reference)
        os.kill(self.instance.daemon_pid(), 9)
        self.instance.kill_fetcher()
        self.assertEqual(images.manifest(point), images.manifest(self.tree))
        second = self.instance.mount(self.reference, *self.flags)
        self.assertEqual(images.manifest(second), images.manifest(tree))

    def test_what_is_present_needs_no_registry_by_tag_or_digest(self):
        point = self.instance.mount(self.reference, NO_READ_AHEAD, *self.flags)
        self.assertEqual(images.manifest(point), images.manifest(self.tree))
        self.instance.umount(point)
        self.registry.stop()
        done = self.instance.try_mount(self.reference, point, *self.flags)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stderr, f"^holdfast: {self.reference}: .*refused; going on with what it was before, "
                                      f"{self.digest}\n$")
        self.assertEqual(images.manifest(point), images.manifest(self.tree))
        self.instance.umount(point)
        done = self.instance.try_mount(self.pinned, point, *self.flags)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(images.manifest(point), images.manifest(self.tree))

    def test_a_mirror_takes_over_in_the_middle(self):
        mirror = self.make_registry("mirror")
        mirror.push(self.layout, "v1", "kept/repo/image")
        path = self.mount_as_file("--mirror", mirror.host + "/kept")
        self.assert_ends_right(self.reader_at(path, 0))
        self.assertEqual(mirror.blob_requests(), [])
        self.registry.stop()
        self.assert_ends_right(self.reader_at(path, 4 * MIB, 2 * MIB))
        wait_until(mirror.blob_requests, 10, "the mirror's log of what it was asked for")
        # Nothing but the mirror is needed for another instance to begin with.
        other = self.holdfast("other")
        point = other.mount(self.pinned, *self.flags, "--mirror", mirror.host + "/kept")
        self.assertEqual(images.manifest(point), images.manifest(self.tree))


class RedirectTest(RegistryCase):
    auth, tls = "basic", False

    def setUp(self):
        super().setUp()
        # A request with credentials is refused there, and the log has it.
        self.store = self.serve(os.path.join(self.registry.directory, "data"), name="store",
                                locations="if ($http_authorization) { return 403; }")
        self.registry.stop()
        self.registry.redirect_blobs(self.store.url())
        self.registry.start()

    def test_another_host_that_has_the_blobs_is_sent_no_credentials(self):
        since = self.registry.log_size()
        point = self.instance.mount(self.reference, *self.flags)
        self.assertEqual(images.manifest(point), images.manifest(self.tree))
        self.assertEqual({sent.status for sent in self.store.log()}, {200, 206})
        told = {status for _, path, status in self.registry.blob_requests(since) if self.blob in path}
        self.assertLessEqual(told, {307, 401})
        self.assertIn(307, told)
        digits = self.blob.removeprefix("sha256:")
        served = self.store.served(f"/docker/registry/v2/blobs/sha256/{digits[:2]}/{digits}/data")
        self.assertGreaterEqual(served.bytes, os.path.getsize(self.image) // 2)


class TokenRegistryTest(RegistryCase):
    auth = "token"

    def last_token_is_refused(self):
        request = urllib.request.Request(f"https://{self.registry.host}/v2/repo/image/blobs/{self.blob}", method="HEAD",
                                         headers={"Authorization": "Bearer " + self.registry.tokens.last_token})
        context = ssl.create_default_context(cafile=self.authority.certificate)
        try:
            with urllib.request.urlopen(request, context=context, timeout=10):
                return False
        except urllib.error.HTTPError as e:
            return e.code == 401

    def test_tokens_are_asked_for_reading_this_repository_alone(self):
        point = self.instance.mount(self.reference, *self.flags)
        before = len(self.registry.tokens.granted)
        self.assertEqual(images.manifest(point), images.manifest(self.tree))
        granted = self.registry.tokens.granted
        self.assertEqual({(user, actions) for user, actions in granted if user == USER}, {(USER, "pull")})
        self.assertLessEqual(len(granted) - before, 1, "one token serves until it expires")
        token = self.registry.tokens.last_token
        assert_no_secrets(self, self.instance, [PASSWORD, token[-40:]], in_fetcher=[token[-40:]])

    def test_a_mount_without_credentials_is_refused(self):
        path = auth_file(self.box, "another.example", "none.json")
        blob = f"oci-blob://{self.registry.host}/repo/image@{self.blob}"
        self.refused(blob, f"401 Unauthorized.*credentials come from {path}", "--timeout=5s",
                     *self.registry.flags(path))
        wrong = auth_file(self.box, self.registry.host, "wrong.json", password="pw-wrong-77ab")
        self.refused(blob, f"the token service of {self.registry.host} answers 401 Unauthorized to the credentials in "
                           f"{wrong}", "--timeout=5s", *self.registry.flags(wrong))

    def test_an_identity_token_is_swapped_for_tokens(self):
        path = auth_file(self.box, self.registry.host, "identity.json", identitytoken=self.registry.tokens.REFRESH)
        self.flags = self.registry.flags(path)
        self.assert_ends_right(self.reader_at(self.mount_as_file(reference=f"oci-blob://{self.registry.host}/repo/image@{self.blob}"), 0))

    def wait_for_answers(self, since, statuses):
        """The registry writes its log after the answer, whose bytes a reader may have first."""
        def answered():
            return {status for _, _, status in self.registry.blob_requests(since)} == statuses
        wait_until(answered, 10, f"answers to requests for blobs: {statuses}")

    def test_an_expired_token_is_renewed_in_the_middle_of_reading(self):
        # It says that its tokens live for five minutes.
        self.registry.tokens.life_s, self.registry.tokens.told_life_s = 2, 300
        path = self.mount_as_file()
        self.assert_ends_right(self.reader_at(path, 0))
        for i in (1, 2):
            wait_until(self.last_token_is_refused, 30, "the token has expired")
            before, since = len(self.registry.tokens.granted), self.registry.log_size()
            self.assert_ends_right(self.reader_at(path, i * MIB, MIB // 2))
            self.wait_for_answers(since, {401, 206})
            self.assertGreater(len(self.registry.tokens.granted), before)

    def test_a_token_is_renewed_before_it_expires(self):
        # They live longer than it says, so nothing but the clock can have been the reason.
        self.registry.tokens.told_life_s = 3
        path = self.mount_as_file()
        since = self.registry.log_size()
        for i in (1, 2):
            self.assert_ends_right(self.reader_at(path, i * MIB))
            before = len(self.registry.tokens.granted)
            due = time.monotonic() + 3
            wait_until(lambda: time.monotonic() >= due, 10, "the time that the token was said to live")
            self.assert_ends_right(self.reader_at(path, i * MIB + MIB // 2))
            wait_until(lambda: len(self.registry.tokens.granted) > before, 30, "a new token")
        self.wait_for_answers(since, {206})

    def lose_credentials(self):
        """Another password from now on, and no token that lives on."""
        self.registry.tokens.password = "pw-new-8d20"
        wait_until(self.last_token_is_refused, 30, "the token has expired")

    def test_without_credentials_reads_wait_status_says_why_and_new_ones_end_it(self):
        self.registry.tokens.life_s = self.registry.tokens.told_life_s = 2
        path = self.mount_as_file()
        self.assert_ends_right(self.reader_at(path, 0))
        self.lose_credentials()
        reader = self.reader_at(path, 3 * MIB)
        self.wait_cause("answers 401 Unauthorized to the credentials in " + self.credentials)
        shown = self.instance.run("status", "--root", self.instance.root).stdout
        self.assertIn("answers 401 Unauthorized to the credentials in " + self.credentials, shown)
        self.assertFalse(reader.wait(0))
        # What is present is none of its business.
        self.assert_reads_right(path, self.image, 0, 65536)
        os.rename(self.credentials, self.credentials + ".away")
        self.wait_cause(f"auth file {self.credentials}: No such file")
        auth_file(self.box, self.registry.host, password="pw-new-8d20")
        self.assert_ends_right(reader)

    def test_without_credentials_a_read_ends_at_the_request_timeout_with_eio(self):
        self.registry.tokens.life_s = self.registry.tokens.told_life_s = 2
        path = self.mount_as_file("--request-timeout=3s")
        self.assert_ends_right(self.reader_at(path, 0))
        self.lose_credentials()
        reader = self.reader_at(path, 3 * MIB)
        self.assertTrue(reader.wait(60))
        self.assertEqual(reader.result, errno.EIO)
        self.assertRegex(self.instance.log_text(), f"{self.blob}.*answers 401 Unauthorized to the credentials in")


if __name__ == "__main__":
    main(["docker-registry", "skopeo", "htpasswd", "openssl", "mkfs.erofs", "fsverity"])
