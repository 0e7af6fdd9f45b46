"""What is said when an origin can't be used: the object, the cause and the cure, in one line and without waiting for what
waiting can't help."""

import os
import re
import socket
import ssl
import threading
import time

import _path  # noqa: F401
from harness.case import main
from harness.holdfast import NO_READ_AHEAD
from harness.origins.nginx import free_port
from harness.origins.scripted import ScriptedOrigin, whole_or_range
from harness.origins.strict_tls import StrictServer
from harness.origins.tls_case import TlsCase
from harness.readers import RIGHT, Reader, pread
from harness.sandbox import wait_until

# Of a mount that has nothing to wait for; --timeout is 30 s.
AT_ONCE_S = 15


class _Speaker:
    """Says `text` to every client, and closes."""

    def __init__(self, case, text):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._text = text
        self.port = self._listener.getsockname()[1]
        case.addCleanup(self._listener.close)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        try:
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    connection.sendall(self._text)
                    connection.settimeout(10)
                    while connection.recv(4096):  # A reset would take away what was said.
                        pass
        except OSError:
            pass


class OriginMessagesTest(TlsCase):
    def serve_files(self, **options):
        return self.serve(os.path.dirname(self.truth), **options)

    def refused(self, url, pattern, *flags):
        start = time.monotonic()
        done = self.instance.try_mount(url, self.point, "--as=file", *flags)
        self.assert_one_line(done, re.escape(url.split("?")[0]) + ": .*" + pattern)
        self.assertLess(time.monotonic() - start, AT_ONCE_S, done.stderr)
        self.assertFalse(os.path.ismount(self.point))

    def says(self, pattern):
        def said():
            return re.search(pattern, self.instance.run("status", "--root", self.instance.root).stdout)
        wait_until(said, 30, f"`holdfast status` says {pattern}")

    def read_waits_until(self, path, offset, pattern, mend):
        """A read waits, `holdfast status` says why, and once it is mended the read is right."""
        reader = self.keep(Reader(path, offset, 4096, pread(self.truth, offset, 4096)))
        self.says(pattern)
        self.assertFalse(reader.wait(0), "it did not wait")
        mend()
        self.assertTrue(reader.wait(40), "still waiting")
        self.assertEqual(reader.result, RIGHT)

    # The wrong protocol.
    def test_tls_to_a_port_of_plain_http_is_refused_at_once(self):
        web = self.serve_files()
        self.refused(web.url(self.name).replace("http:", "https:"), r"TLS: .*; if this port serves plain HTTP, use http://")

    def test_plain_http_to_a_port_of_tls_is_refused_at_once(self):
        web = self.serve_files(tls=self.server)
        self.refused(web.url(self.name).replace("https:", "http:"), r"400 Bad Request; the port serves TLS: use https://")

    def test_a_port_that_speaks_neither_is_refused_at_once(self):
        speaker = _Speaker(self, b"SSH-2.0-OpenSSH_9.2\r\n")
        self.refused(f"http://127.0.0.1:{speaker.port}/x", r"does not answer in HTTP; if this port serves TLS, use https://")
        self.refused(f"https://127.0.0.1:{speaker.port}/x", r"TLS: .*; if this port serves plain HTTP, use http://")

    def test_an_ipv6_address_with_a_zone_is_reached(self):
        with open("/proc/net/if_inet6") as f:
            links = [line.split() for line in f if line.startswith("fe80")]
        if not links:
            self.skipTest("no link of this machine has a link-local address")
        address, link = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(links[0][0])), links[0][5]
        body = pread(self.truth, 0, self.FILE_SIZE)
        origin = ScriptedOrigin(lambda request: whole_or_range(request, body, etag='"a"'), (address, int(links[0][1], 16)))
        self.addCleanup(origin.close)
        path = self.instance.mount_file(f"http://[{address}%25{link}]:{origin.port}/{self.name}")
        self.assert_reads_right(path, self.truth)

    def test_a_living_mount_waits_while_its_port_speaks_no_tls(self):
        web = self.serve_files(tls=self.server)
        path = self.instance.mount_file(web.url(self.name), self.ca, NO_READ_AHEAD)
        self.assert_reads_right(path, self.truth, 0, 4096)
        web.stop()
        web._tls = None
        web.configure()
        web.start()

        def mend():
            web.stop()
            web._tls = self.server
            web.configure()
            web.start()
        self.read_waits_until(path, 1 << 20, r"TLS: .*if this port serves plain HTTP", mend)

    # Certificates.
    def test_an_expired_certificate_is_said_with_the_cure(self):
        web = self.serve_files(tls=self.authority.issue("old", days=-1))
        self.refused(web.url(self.name), r"TLS: .*expired; renew the server's certificate, or set this machine's clock", self.ca)

    def test_an_unknown_authority_is_said_with_the_cure(self):
        web = self.serve_files(tls=self.server)
        self.refused(web.url(self.name), r"TLS: .*; name the authority that signed the server's certificate by --ca-file")

    def test_another_host_name_is_said_with_the_cure(self):
        web = self.serve_files(tls=self.authority.issue("elsewhere", names="DNS:images.example"))
        self.refused(web.url(self.name), r"TLS: .*; use the name that the server's certificate is for", self.ca)

    def test_a_file_that_is_no_certificate_is_said_with_the_cure(self):
        web = self.serve_files(tls=self.server)
        self.refused(web.url(self.name), r"TLS: .*; --ca-file must name a file of PEM certificates", "--ca-file=" + self.truth)

    def test_a_client_certificate_that_is_wanted_in_the_handshake_is_said_with_the_cure(self):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            with self.subTest(version), StrictServer(self.truth, self.server, self.authority.certificate, version) as server:
                self.refused(server.url(self.name), r"TLS: .*alert.*; the server may want a client certificate: --client-cert",
                             self.ca)

    def test_a_living_mount_waits_while_the_certificate_has_expired(self):
        web = self.serve_files(tls=self.server)
        path = self.instance.mount_file(web.url(self.name), self.ca, NO_READ_AHEAD)
        self.assert_reads_right(path, self.truth, 0, 4096)
        web._tls = self.authority.issue("old", days=-1)
        web.restart()

        def mend():
            web._tls = self.server
            web.restart()
        self.read_waits_until(path, 1 << 20, r"expired; renew the server's certificate", mend)

    # What the server says.
    def test_each_status_is_said_with_the_cure(self):
        cures = {
            300: r"HTTP status 300; it names no place to go on at: check the URL",
            400: r"400 Bad Request; the server takes no such request: check the URL, and the server's log",
            401: r"401 Unauthorized; it wants credentials, which are sent over https only: .* --headers-file",
            402: r"HTTP status 402; the server takes no such request",
            403: r"403 Forbidden; if it wants credentials, mount its https:// URL with --headers-file",
            404: r"404 Not Found; check the URL",
            405: r"405 Method Not Allowed; the server takes no such request",
            407: r"407 Proxy Authentication Required; HTTP_PROXY or HTTPS_PROXY must have .* user and password",
            410: r"410 Gone; check the URL",
            418: r"HTTP status 418; the server takes no such request",
            501: r"501 Not Implemented; the server takes no such request",
        }
        origin = self.misbehave(body=b"x" * 65536)
        for status, pattern in cures.items():
            with self.subTest(status=status):
                origin.status = status
                self.refused(origin.url(f"{status}.bin"), pattern)

    def test_a_status_that_may_pass_is_said_with_the_flag_that_waits_longer(self):
        origin = self.misbehave(body=b"x" * 65536)
        for status, words in ((408, "Request Timeout"), (429, "Too Many Requests"), (500, "Internal Server Error"),
                              (503, "Service Unavailable")):
            with self.subTest(status=status):
                origin.status = status
                self.refused(origin.url(f"{status}.bin"), rf"{status} {words}.*--timeout waits longer", "--timeout=1s")

    def test_errors_of_credentials_over_tls_name_their_flags(self):
        web = self.serve_files(tls=self.server, locations="location /401/ { return 401; } location /403/ { return 403; }"
                               "location /404/ { return 404; } location /204/ { return 204; }")
        self.refused(web.url("401/x"), r"401 Unauthorized; it wants credentials: --headers-file, or --client-cert", self.ca)
        self.refused(web.url("403/x"), r"403 Forbidden; if it wants credentials: --headers-file, or --client-cert", self.ca)
        self.refused(web.url("403/x?sig=1"), r"403 Forbidden; if the URL's query is a signature, .* --renew", self.ca)
        self.refused(web.url("204/x"), r"HTTP status 204; it serves no file there: check the URL", self.ca)
        headers = self.box.path("headers")
        with open(os.open(headers, os.O_WRONLY | os.O_CREAT, 0o600), "w") as f:
            f.write("X-Token: abc\n")
        flags = (self.ca, "--headers-file=" + headers)
        self.refused(web.url("401/x"), r"401 Unauthorized \(with the headers file\); renew what it has", *flags)
        self.refused(web.url("404/x"), r"404 Not Found; check the URL", *flags)

    # Proxies.
    def through_proxy(self, proxy, url, pattern, *flags, name="HTTP_PROXY"):
        self.box.environment[name] = proxy
        done = self.instance.try_mount(url, self.point, "--as=file", "--timeout=2s", *flags)
        self.assertNotIn("sesame", done.stderr + self.instance.log_text() + self.instance.log_text("holdfast-fetcherd"))
        self.assertRegex(done.stderr.splitlines()[-1], pattern)

    def test_a_dead_proxy_is_named_without_its_password(self):
        dead = free_port()
        for name, scheme in (("HTTP_PROXY", "http"), ("HTTPS_PROXY", "https")):
            with self.subTest(name):
                self.through_proxy(f"http://me:sesame@127.0.0.1:{dead}", f"{scheme}://images.example/x",
                                   rf"connection refused \(through the proxy http://127.0.0.1:{dead}\)", name=name)

    def test_a_proxy_that_is_not_found_is_named(self):
        self.through_proxy("http://proxy.invalid:3128", "http://images.example/x",
                           r"the host of the proxy not found \(through the proxy http://proxy.invalid:3128\)")

    def test_what_a_proxy_refuses_is_said_as_its_answer(self):
        refusal = b"HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        for status, pattern in ((b"407 Proxy Authentication Required", "407 .*HTTPS_PROXY must have the proxy's user and password"),
                                (b"403 Forbidden", "403 Forbidden"), (b"503 Service Unavailable", "503 Service Unavailable")):
            speaker = _Speaker(self, refusal % status)
            proxy = f"http://127.0.0.1:{speaker.port}"
            with self.subTest(status=status):
                self.through_proxy(proxy, "https://images.example/x",
                                   rf"the proxy refuses the connection: {pattern}.* \(through the proxy {proxy}\)", name="HTTPS_PROXY")
                self.through_proxy(proxy, "http://images.example/x",
                                   rf"{status.decode()}.*\(through the proxy {proxy}\)")

    # Redirects.
    def test_a_redirect_loop_is_said_with_the_place_and_the_cure(self):
        web = self.serve_files(locations="location / { return 308 $uri; }")
        self.refused(web.url(self.name), r"more than 5 redirects \(ELOOP\); mount the URL that they should lead to")
        two = self.serve_files(name="two", locations=f"location / {{ return 308 {web.url()}secret?token=abc; }}")
        done = self.instance.try_mount(two.url(self.name), self.point, "--as=file")
        self.assert_one_line(done, rf"more than 5 redirects .*\(redirected to http://127.0.0.1:{web.port}\)")
        self.assertNotIn("secret", done.stderr)

    def test_headers_without_an_end_are_said(self):
        for headers in (b"X: " + b"a" * (1 << 20) + b"\r\n", b"X: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * (1 << 14)):
            speaker = _Speaker(self, b"HTTP/1.1 206 Partial Content\r\n" + headers)
            done = self.instance.try_mount(f"http://127.0.0.1:{speaker.port}/{self.name}", self.point, "--timeout=2s")
            self.assert_one_line(done, "its answer's headers are too large")

    def test_the_place_that_is_redirected_to_is_named_when_it_fails(self):
        dead = free_port()
        front = self.serve_files(locations=f"location / {{ return 302 http://127.0.0.1:{dead}/secret?token=abc; }}")
        done = self.instance.try_mount(front.url(self.name), self.point, "--as=file", "--timeout=2s")
        self.assert_one_line(done, rf"connection refused \(redirected to http://127.0.0.1:{dead}\)")
        self.assertNotIn("secret", done.stderr)

    def test_a_living_mount_waits_while_it_is_redirected_in_a_circle(self):
        web = self.serve_files()
        path = self.instance.mount_file(web.url(self.name), NO_READ_AHEAD)
        self.assert_reads_right(path, self.truth, 0, 4096)
        web.locations = "location / { return 308 $uri; }"
        web.restart()

        def mend():
            web.locations = ""
            web.restart()
        self.read_waits_until(path, 1 << 20, r"more than 5 redirects", mend)


if __name__ == "__main__":
    main(tools=("openssl",))
