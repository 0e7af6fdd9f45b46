"""Origins over TLS that authenticate clients: certificates, headers, redirects, rotation, and what a refusal says."""

import errno
import os
import re
import resource
import shutil
import signal
import ssl
import subprocess

import _path  # noqa: F401
from harness.case import main
from harness.holdfast import BIN, NO_READ_AHEAD
from harness.origins.certificates import Authority
from harness.origins.nginx import Nginx
from harness.origins.strict_tls import StrictServer
from harness.origins.tls_case import TlsCase
from harness.readers import RIGHT, Reader, pread, wait_all
from harness.sandbox import wait_until
from harness.secrets import assert_no_secrets

OLD_TOKEN = "old-token-5b1c88e2f0"
NEW_TOKEN = "new-token-d07f2a9c41"


def demand(token):
    return f'if ($http_x_token != "{token}") {{ return 401; }}'


class HttpsOriginTest(TlsCase):
    FILE_SIZE = 8 << 20

    def serve_tls(self, locations="", name="nginx", **options):
        options.setdefault("tls", self.server)
        return self.serve(os.path.dirname(self.truth), locations=locations, name=name, **options)

    def write_headers(self, token, mode=0o600):
        path = self.box.path("headers")
        with open(path + ".new", "w") as f:
            f.write(f"# who we are\nX-Token: {token}\n")
        os.chmod(path + ".new", mode)
        os.rename(path + ".new", path)
        return "--headers-file=" + path

    def refused(self, url, pattern, *flags):
        self.assert_one_line(self.instance.try_mount(url, self.point, "--as=file", *flags), pattern)
        self.assertFalse(os.path.ismount(self.point))

    def says(self, pattern):
        """`holdfast status` says why something waits."""
        def said():
            return re.search(pattern, self.instance.run("status", "--root", self.instance.root).stdout)
        wait_until(said, 30, f"`holdfast status` says {pattern}")

    def reader(self, path, offset):
        return self.keep(Reader(path, offset, 65536, pread(self.truth, offset, 65536)))

    def assert_reads(self, path, offset):
        reader = self.reader(path, offset)
        self.assertTrue(reader.wait(30), "still waiting")
        self.assertEqual(reader.result, RIGHT)

    # Trust.
    def test_a_private_authority_is_trusted_when_it_is_named_and_http_2_is_spoken(self):
        origin = self.serve_tls()
        path = self.instance.mount_file(origin.url(self.name), self.ca)
        self.assert_reads_right(path, self.truth)
        self.assertEqual({entry["server_protocol"] for entry in origin.seen()}, {"HTTP/2.0"})

    def test_the_wrong_authority_is_refused(self):
        origin = self.serve_tls()
        other = Authority(self.box, "other-ca")
        self.refused(origin.url(self.name), r"/random-.*: TLS: .*certificate", "--ca-file=" + other.certificate)
        self.refused(origin.url(self.name), r"/random-.*: TLS: .*certificate")
        self.assertEqual(origin.seen(), [])

    # Client certificates.
    def test_a_given_authority_takes_the_place_of_the_systems(self):
        web = self.serve_tls()
        trusted = self.box.make_directory("trusted")
        for name in ("ours.pem", "ca-certificates.crt"):
            shutil.copyfile(self.authority.certificate, os.path.join(trusted, name))
            os.chmod(os.path.join(trusted, name), 0o644)
        os.chmod(trusted, 0o755)
        self.assertEqual(self.box.run(["openssl", "rehash", trusted]).returncode, 0)
        other = Authority(self.box, "other-ca").certificate
        for flags, pattern in (((), None), (("--ca-file=" + other,), "TLS: ")):
            instance = self.holdfast("other" if flags else "system")
            arguments = instance.mount_arguments(web.url(self.name), self.point, "--as=file", "--timeout=5s", *flags)
            done = self.box.run(["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/ssl/certs && exec "$@"', trusted,
                                 *instance.command_line(*arguments)])
            if pattern:
                self.assert_one_line(done, pattern)
            else:
                self.assertEqual(done.returncode, 0, done.stderr)

    def test_a_client_certificate_lets_in_and_without_it_the_reason_is_said(self):
        origin = self.serve_tls(f"ssl_client_certificate {self.authority.certificate}; ssl_verify_client on;")
        url = origin.url(self.name)
        client = self.authority.issue("client")
        stranger = Authority(self.box, "other-ca").issue("stranger")
        wrong_key = self.authority.issue("another").key
        cert = "--client-cert=" + client.certificate
        self.refused(url, r"400 Bad Request; it wants a client certificate: --client-cert", self.ca)
        self.refused(url, r"client certificate and its key can't be used.*belong together", self.ca, cert,
                     "--client-key=" + wrong_key)
        self.refused(url, r"400 Bad Request \(with the client certificate\)", self.ca,
                     "--client-cert=" + stranger.certificate, "--client-key=" + stranger.key)
        os.chmod(client.key, 0o644)
        self.refused(url, r"client key .*can be read by all users; run: chmod o-rwx ", self.ca, cert,
                     "--client-key=" + client.key)
        os.chmod(client.key, 0o600)
        path = self.instance.mount_file(url, self.ca, cert, "--client-key=" + client.key)
        self.assert_reads_right(path, self.truth)
        with open(client.key) as f:
            key_text = f.read().splitlines()[1]
        assert_no_secrets(self, self.instance, [key_text])

    def test_a_client_certificate_that_is_refused_inside_the_handshake_is_read_again(self):
        client = self.authority.issue("client")
        stranger = Authority(self.box, "other-ca").issue("stranger")
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            with self.subTest(version), StrictServer(self.truth, self.server, self.authority.certificate, version) as server:
                folder = self.box.make_directory(f"rotated-{version.name}")
                pair = [os.path.join(folder, name) for name in ("cert.pem", "key.pem")]
                shutil.copy(client.certificate, pair[0])
                shutil.copy(client.key, pair[1])
                path = self.instance.mount_file(server.url(self.name), self.ca, "--client-cert=" + pair[0],
                                                "--client-key=" + pair[1], NO_READ_AHEAD)
                self.assert_reads(path, 0)
                for source, target in zip((stranger.certificate, stranger.key), pair):
                    shutil.copy(source, target)
                self.instance.kill_fetcher()
                reader = self.reader(path, 1 << 20)
                self.says(r"TLS: .*alert.*\(with the client certificate\)")
                for source, target in zip((client.certificate, client.key), pair):
                    shutil.copy(source, target)
                self.assertTrue(reader.wait(30), "still waiting")
                self.assertEqual(reader.result, RIGHT)
                self.instance.umount(os.path.dirname(path))

    def test_a_file_whose_name_is_not_utf_8_is_used(self):
        origin = self.serve_tls(demand(OLD_TOKEN))
        named = {}
        for name, source in (("ca", self.authority.certificate), ("headers", self.write_headers(OLD_TOKEN).split("=", 1)[1])):
            named[name] = os.fsencode(self.box.directory) + b"/" + name.encode() + b"-\xff\xfe"
            shutil.copy(source, named[name])
        arguments = self.instance.command_line(*self.instance.mount_arguments(origin.url(self.name), self.point, "--as=file"))
        done = self.box.run([*map(os.fsencode, arguments), b"--ca-file=" + named["ca"], b"--headers-file=" + named["headers"]])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assert_reads(os.path.join(self.point, self.name), 0)

    # Headers.
    def test_a_rotated_headers_file_is_taken_in_mid_read_and_its_text_is_nowhere(self):
        origin = self.serve_tls(demand(OLD_TOKEN))
        flags = [self.ca, self.write_headers(OLD_TOKEN), NO_READ_AHEAD]
        path = self.instance.mount_file(origin.url(self.name), *flags)
        self.assert_reads(path, 0)
        assert_no_secrets(self, self.instance, [OLD_TOKEN])
        origin.locations = demand(NEW_TOKEN)
        origin.restart()
        readers = [self.reader(path, offset << 20) for offset in (1, 3, 5)]
        self.says(r"401 Unauthorized \(with the headers file\)")
        self.assertEqual([reader.what for reader in readers if reader.wait(0)], [], "readers that did not wait")
        self.write_headers(NEW_TOKEN)
        self.assertEqual([reader.what for reader in wait_all(readers, 30)], [], "readers still waiting")
        self.assertEqual({reader.result for reader in readers}, {RIGHT})
        assert_no_secrets(self, self.instance, [OLD_TOKEN, NEW_TOKEN], in_fetcher=[NEW_TOKEN])

    def test_without_credentials_reads_wait_and_end_at_the_request_timeout(self):
        origin = self.serve_tls(demand(OLD_TOKEN))
        path = self.instance.mount_file(origin.url(self.name), self.ca, self.write_headers(OLD_TOKEN), NO_READ_AHEAD,
                                        "--request-timeout=6s")
        origin.locations = demand(NEW_TOKEN)
        origin.restart()
        os.unlink(self.box.path("headers"))
        reader = self.reader(path, 1 << 20)
        self.says(r"headers file \S+/headers: No such file")
        self.assertTrue(reader.wait(40), "still waiting")
        self.assertEqual(reader.result, errno.EIO)
        lines = [line for line in self.instance.log_text().splitlines() if self.name in line and "headers file" in line]
        self.assertTrue(lines, f"the log does not say why:\n{self.instance.log_text()}")
        self.write_headers(NEW_TOKEN)
        self.assert_reads(path, 3 << 20)

    # Redirects.
    def test_nothing_secret_goes_to_another_host_that_is_redirected_to(self):
        seen = ("http_authorization", "http_cookie", "http_x_token", "ssl_client_fingerprint", "server_protocol")
        optional = f"ssl_client_certificate {self.authority.certificate}; ssl_verify_client optional;"
        store = self.serve_tls(optional, name="store", seen=seen)
        front = self.serve_tls(optional + demand(OLD_TOKEN) + f"location / {{ return 307 {store.url()}$uri; }}",
                               name="front", seen=seen)
        client = self.authority.issue("client")
        with open(self.box.path("more"), "w") as f:
            f.write(f"X-Token: {OLD_TOKEN}\nAuthorization: Bearer {OLD_TOKEN}\nCookie: session={OLD_TOKEN}\n")
        os.chmod(self.box.path("more"), 0o600)
        path = self.instance.mount_file(front.url(self.name), self.ca, "--headers-file=" + self.box.path("more"),
                                        "--client-cert=" + client.certificate, "--client-key=" + client.key)
        self.assert_reads_right(path, self.truth)
        self.assertTrue(front.seen())
        for entry in front.seen():
            self.assertEqual(entry["http_x_token"], OLD_TOKEN)
            self.assertTrue(entry["ssl_client_fingerprint"])
        self.assertTrue(store.seen())
        for entry in store.seen():
            self.assertEqual({name: value for name, value in entry.items() if value}, {"server_protocol": "HTTP/2.0"})

    def test_a_refusal_by_the_other_host_is_not_taken_for_ours(self):
        store = self.serve_tls("return 403;", name="store")
        front = self.serve_tls(f"location / {{ return 302 {store.url()}$uri; }}", name="front")
        self.refused(front.url(self.name), r"403 Forbidden \(by another host that it redirects to, where no credentials",
                     self.ca, self.write_headers(OLD_TOKEN))

    def test_a_redirect_within_the_origin_keeps_the_credentials(self):
        origin = self.serve_tls(demand(OLD_TOKEN) + "location /moved/ { rewrite ^/moved/(.*)$ /$1 redirect; }")
        path = self.instance.mount_file(origin.url("moved/" + self.name), self.ca, self.write_headers(OLD_TOKEN))
        self.assert_reads_right(path, self.truth)

    def test_a_redirect_from_tls_to_the_open_is_not_followed(self):
        store = Nginx(self.box, os.path.dirname(self.truth), name="store").start()
        front = self.serve_tls(f"location / {{ return 302 {store.url()}$uri; }}", name="front")
        self.refused(front.url(self.name), r"redirected to a protocol that is not allowed", self.ca)
        self.assertEqual(store.seen(), [])

    # Mirrors.
    def test_the_other_origin_takes_over_when_one_is_killed_in_mid_read(self):
        near = self.serve_tls(name="near", limit_rate="1m")
        far = self.serve_tls(name="far")
        path = self.instance.mount_file(near.url(self.name), "--origin=" + far.url(self.name), self.ca)
        reader = self.keep(Reader(path, 0, self.FILE_SIZE, pread(self.truth, 0, self.FILE_SIZE)))
        wait_until(lambda: self.instance.status()["requests"]["waiting"] > 0, 20, "a read under way")
        near.stop()
        self.assertTrue(reader.wait(40), "still waiting")
        self.assertEqual(reader.result, RIGHT)
        self.assertGreater(far.served().bytes, 0)

    # What is wrong with the command.
    def test_options_that_fit_no_origin_or_no_file_are_refused(self):
        url = "https://127.0.0.1:1/x"
        headers = self.write_headers(OLD_TOKEN)
        self.refused("http://127.0.0.1:1/x", "--headers-file is for https: an http:// origin would have it sent in the open",
                     headers)
        self.refused("file:///x", "--headers-file is for https:// origins, and there is none", headers)
        self.refused(url, "--client-key needs --client-cert", "--client-key=/x")
        self.refused(url, "headers file /nowhere: No such file", "--headers-file=/nowhere")
        self.refused(url, "client certificate /nowhere: No such file", "--client-cert=/nowhere",
                     "--client-key=" + self.server.key)
        self.refused(url, "CA file /nowhere: No such file", "--ca-file=/nowhere")
        self.refused(url, r"headers file \S+ can be read by all users; run: chmod o-rwx \S+/headers",
                     self.write_headers(OLD_TOKEN, mode=0o644))
        self.refused(url, r"headers file \S+ is not a regular file", "--headers-file=" + self.box.directory)
        with open(self.box.path("bad"), "w") as f:
            f.write("#\nRange: bytes=0-1\n")
        os.chmod(self.box.path("bad"), 0o600)
        self.refused(url, r"headers file \S+/bad: line 2 sets range", "--headers-file=" + self.box.path("bad"))

    def test_a_crash_of_the_fetcher_leaves_no_core(self):
        def crash(*argv):
            process = subprocess.Popen(argv, cwd=self.box.directory, env=self.box.environment, stderr=subprocess.DEVNULL,
                                       preexec_fn=_allow_cores)
            if "sleep" not in argv[0]:
                wait_until(lambda: _blocks_sigterm(process.pid), 20, "the fetcher's start")
            process.send_signal(signal.SIGSEGV)
            process.wait(20)
            return process.returncode, sorted(name for name in os.listdir(self.box.directory) if "core" in name)
        if not crash("/bin/sleep", "60")[1]:
            self.skipTest("cores of processes don't go into their directory on this machine")
        for name in os.listdir(self.box.directory):
            if "core" in name:
                os.unlink(self.box.path(name))
        code, cores = crash(os.path.join(BIN, "holdfast-fetcherd"), "--device=" + self.box.path("none.sock"),
                            "--sources-dir=" + self.box.directory)
        self.assertEqual((code, cores), (-signal.SIGSEGV, []))


def _allow_cores():
    resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)


def _blocks_sigterm(pid):
    """The fetcher does so once it has made itself undumpable."""
    with open(f"/proc/{pid}/status") as f:
        for line in f:
            if line.startswith("SigBlk:"):
                return int(line.split()[1], 16) & (1 << (signal.SIGTERM - 1))
    return False


if __name__ == "__main__":
    main(tools=("openssl",))
