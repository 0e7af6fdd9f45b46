"""What skopeo is told of registries (registries.conf, certs.d, policy.json, proxies) holds for the fetcher too."""

import json
import os
import shutil
import socket
import socketserver
import threading

import _path  # noqa: F401
from harness import images
from harness.case import main
from harness.holdfast import NO_READ_AHEAD
from harness.origins.certificates import Authority
from harness.origins.oci_registry import PASSWORD, auth_file
from harness.secrets import assert_no_secrets
from registry_test import RegistryCase

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy")


class Proxy:
    """An HTTP proxy that connects every client to one server, and records the hosts that they named."""

    def __init__(self, port):
        self.asked = []
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                head = b""
                while b"\r\n\r\n" not in head:
                    if not (piece := self.request.recv(65536)):
                        return
                    head += piece
                method, target = head.split(b" ", 2)[:2]
                agent = next((line for line in head.split(b"\r\n") if line.lower().startswith(b"user-agent")), b"")
                proxy.asked.append((method.decode(), target.decode(), agent.decode()))
                with socket.create_connection(("127.0.0.1", port)) as there:
                    if method == b"CONNECT":
                        self.request.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                    else:
                        there.sendall(head)
                    back = threading.Thread(target=pump, args=(there, self.request), daemon=True)
                    back.start()
                    pump(self.request, there)
                    back.join()

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads, self._server.block_on_close = True, False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


def pump(source, sink):
    try:
        while piece := source.recv(65536):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


class ConfiguredCase(RegistryCase):
    """`holdfast` is given no flag: all is in files below a home directory of its own."""

    def setUp(self):
        super().setUp()
        self.home = self.box.make_directory("home")
        self.containers = self.box.make_directory("home/.config/containers")
        self.box.environment["HOME"] = self.home
        for name in VARIABLES:
            self.box.environment.pop(name, None)
        self.configure("")

    def configure(self, text):
        with open(os.path.join(self.containers, "registries.conf"), "w") as f:
            f.write(text)

    def set_policy(self, policy):
        with open(os.path.join(self.containers, "policy.json"), "w") as f:
            json.dump(policy, f)

    def trust(self, host):
        directory = self.box.make_directory("home/.config/containers/certs.d", host)
        shutil.copyfile(self.registry.ca, os.path.join(directory, "ca.crt"))

    def assert_mounts(self, reference, *flags):
        # Settings are taken by the mount that starts the instance.
        settings = () if os.path.exists(self.instance.run_path("control.sock")) else (NO_READ_AHEAD,)
        point = self.instance.mount(reference, *settings, *flags)
        self.assertEqual(images.manifest(point), images.manifest(self.tree))
        return point


class TlsConfigurationTest(ConfiguredCase):
    auth = "basic"

    def test_certificates_are_taken_from_certs_d(self):
        self.trust(self.registry.host)
        self.assert_mounts(self.reference, "--auth-file", self.credentials)

    def test_a_client_key_of_certs_d_that_only_root_can_read_is_used(self):
        self.trust(self.registry.host)
        clients = Authority(self.box, "clients")
        self.registry.want_client_certificate(clients)
        self.registry.stop()
        self.registry.start()
        self.refused(self.reference, "certificate", "--auth-file", self.credentials)
        identity = clients.issue("client")
        directory = self.box.path("home/.config/containers/certs.d", self.registry.host)
        shutil.copy(identity.certificate, os.path.join(directory, "client.cert"))
        shutil.copy(identity.key, os.path.join(directory, "client.key"))
        os.chmod(os.path.join(directory, "client.key"), 0o600)
        os.chmod(self.home, 0o700)
        point = self.instance.mount(self.reference, "--auth-file", self.credentials, NO_READ_AHEAD)
        fetcher = self.instance.attached_pid()
        self.assertNotEqual(os.stat(f"/proc/{fetcher}").st_uid, 0)
        self.instance.kill_fetcher()
        self.instance.wait_fetcher(other_than=fetcher)
        self.assertEqual(images.manifest(point), images.manifest(self.tree))

    def test_another_location_of_a_registry_is_where_bytes_come_from(self):
        self.trust(self.registry.host)
        self.configure(f'[[registry]]\nprefix = "registry.invalid/team"\nlocation = "{self.registry.host}/repo"\n')
        point = self.assert_mounts("oci://registry.invalid/team/image:v1", "--auth-file", self.credentials)
        shown = self.instance.run("status", "--root", self.instance.root).stdout
        self.assertRegex(shown, f"mount +{point}  erofs  oci://registry.invalid/team/image:v1")

    def test_a_mirror_is_used_with_the_credentials_of_its_own(self):
        self.trust(self.registry.host)
        self.configure(f'[[registry]]\nlocation = "registry.invalid/repo"\n[[registry.mirror]]\nlocation = "{self.registry.host}/repo"\n')
        self.assert_mounts("oci://registry.invalid/repo/image:v1", "--auth-file", self.credentials)

    def test_insecure_means_tls_with_whatever_certificate(self):
        self.configure(f'[[registry]]\nlocation = "{self.registry.host}"\ninsecure = true\n')
        self.assert_mounts(self.reference, "--auth-file", self.credentials)

    def test_what_is_blocked_or_rejected_is_refused_also_when_its_manifest_is_known(self):
        self.trust(self.registry.host)
        flags = ["--auth-file", self.credentials]
        self.instance.umount(self.assert_mounts(self.pinned, *flags))
        self.configure(f'[[registry]]\nlocation = "{self.registry.host}"\nblocked = true\n')
        self.refused(self.pinned, "registries.conf blocks its registry", *flags)
        self.configure("")
        self.set_policy({"default": [{"type": "insecureAcceptAnything"}],
                         "transports": {"docker": {self.registry.host: [{"type": "reject"}]}}})
        self.refused(self.pinned, r"is rejected by .*policy.json \(the scope '127.0.0.1:\d+'\)", *flags)
        self.set_policy({"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/nowhere"}]})
        self.refused(self.pinned, "wants it signedBy, which Holdfast does not check; check the image before", *flags)

    def test_the_policy_of_layouts_is_followed_by_directory(self):
        layout = f"oci-layout:{self.layout.directory}:v1"
        accepts, rejects = [{"type": "insecureAcceptAnything"}], [{"type": "reject"}]
        self.set_policy({"default": accepts, "transports": {"oci": {self.box.directory: rejects}}})
        self.refused(layout, r"is rejected by .*policy.json \(the scope '" + self.box.directory)
        self.set_policy({"default": rejects, "transports": {"docker": {"": accepts}}})
        self.refused(layout, r"is rejected by .*policy.json \(default\)")
        self.set_policy({"default": accepts, "transports": {"oci": {"": [{"type": "sigstoreSigned", "keyPath": "/nowhere"}]}}})
        self.refused(layout, "wants it sigstoreSigned, which Holdfast does not check")
        self.set_policy({"default": rejects, "transports": {"oci": {"": rejects, self.layout.directory: accepts}}})
        self.assert_mounts(layout)

    def test_the_verbs_for_images_trust_the_authority_that_they_are_given_and_no_other(self):
        built = self.box.path("built")
        target = f"oci://{self.registry.host}/repo/pushed:v1"
        verbs = (("inspect", self.reference), ("build", self.reference, built), ("push", built, target))
        other = Authority(self.box, "other-ca").certificate
        for verb, *arguments in verbs:
            with self.subTest(verb):
                def run(*flags):
                    return self.instance.run("image", verb, "--auth-file", self.credentials, *flags, *arguments)
                self.assertRegex(run().stderr, "certificate")
                self.assertRegex(run("--ca-file", other).stderr, "certificate")
                done = run("--ca-file", self.registry.ca)
                if verb == "build":  # What is in the registry is no ordinary image: it was read.
                    self.assertRegex(done.stderr, "(?i)image")
                    self.assertNotIn("certificate", done.stderr)
                    tree = self.box.make_directory("plain-tree")
                    done = self.instance.run("image", "build", tree, built)
                self.assertEqual(done.returncode, 0, done.stderr)

    def test_signatures_of_sigstore_are_refused_by_name(self):
        self.trust(self.registry.host)
        self.set_policy({"default": [{"type": "insecureAcceptAnything"}], "transports": {"docker": {
            self.registry.host + "/repo": [{"type": "sigstoreSigned", "keyPath": "/nowhere"}]}}})
        blob = f"oci-blob://{self.registry.host}/repo/image@{self.blob}"
        self.refused(blob, "wants it sigstoreSigned, which Holdfast does not check", "--auth-file", self.credentials)

    def test_a_mirror_that_is_down_is_passed_over(self):
        self.trust(self.registry.host)
        with socket.create_server(("127.0.0.1", 0)) as gone:
            down = f"127.0.0.1:{gone.getsockname()[1]}"
        self.configure(f'[[registry]]\nlocation = "{self.registry.host}"\n[[registry.mirror]]\nlocation = "{down}"\n')
        self.assert_mounts(self.reference, "--auth-file", self.credentials)

    def test_hosts_of_no_proxy_are_reached_directly(self):
        proxy = Proxy(self.registry.port)
        self.addCleanup(proxy.close)
        self.trust(self.registry.host)
        self.box.environment.update(HTTPS_PROXY=proxy.url, NO_PROXY="another.example,127.0.0.0/8")
        self.assert_mounts(self.reference, "--auth-file", self.credentials)
        self.assertEqual(proxy.asked, [])

    def test_a_helper_for_every_registry_is_refused_by_name(self):
        self.configure('credential-helpers = ["secretservice"]\n')
        blob = f"oci-blob://{self.registry.host}/repo/image@{self.blob}"
        self.refused(blob, "names the credential helper secretservice for every registry", "--auth-file", self.credentials)


class DefaultAuthFilesTest(ConfiguredCase):
    auth = "basic"

    def setUp(self):
        super().setUp()
        self.trust(self.registry.host)
        self.box.environment["XDG_RUNTIME_DIR"] = self.box.make_directory("runtime")
        for name in ("XDG_CONFIG_HOME", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE"):
            self.box.environment.pop(name, None)
        self.places = ["runtime/containers/auth.json", "home/.config/containers/auth.json", "home/.docker/config.json",
                       "home/.dockercfg"]
        for place in self.places:
            os.makedirs(os.path.dirname(self.box.path(place)), exist_ok=True)

    def write(self, place, registry, password=PASSWORD):
        path = auth_file(self.box, registry, place, password=password)
        if place.endswith(".dockercfg"):
            with open(path) as f:
                auths = json.load(f)["auths"]
            with open(path, "w") as f:
                json.dump(auths, f)
        return path

    def assert_reads(self):
        """Manifest and bytes, by a cache that has none of them."""
        instance = self.holdfast(f"i{len(os.listdir(self.box.directory))}")
        point = instance.mount(self.reference, NO_READ_AHEAD)
        self.assertEqual(images.manifest(point), images.manifest(self.tree))
        instance.umount(point)

    def test_a_file_that_appears_later_does_not_stand_in_the_way_of_a_second_mount(self):
        self.write(self.places[2], self.registry.host)
        first = self.assert_mounts(self.reference)
        self.write(self.places[0], "another.example")
        second = self.assert_mounts(self.reference)
        os.unlink(self.box.path(self.places[0]))
        third = self.assert_mounts(self.reference)
        given = self.write("given.json", self.registry.host)
        self.refused(self.reference, "with other options of access", "--auth-file", given)
        for point in (first, second, third):
            self.instance.umount(point)

    def test_the_next_file_counts_where_one_lacks_the_registry(self):
        for i, place in enumerate(self.places):
            for earlier in self.places[:i]:
                self.write(earlier, "another.example")
            for later in self.places[i + 1:]:
                if os.path.exists(self.box.path(later)):
                    os.unlink(self.box.path(later))
            self.write(place, self.registry.host)
            with self.subTest(place):
                self.assert_reads()

    def test_the_first_that_has_it_counts_and_a_named_one_alone(self):
        self.write(self.places[1], self.registry.host)
        self.write(self.places[2], self.registry.host, "pw-wrong-77ab")
        self.assert_reads()
        self.box.environment["REGISTRY_AUTH_FILE"] = auth_file(self.box, "another.example", "named.json")
        blob = f"oci-blob://{self.registry.host}/repo/image@{self.blob}"
        self.refused(blob, "named.json has none for it")


class PlainConfigurationTest(ConfiguredCase):
    tls = False

    def test_insecure_means_no_tls_where_there_is_none(self):
        self.configure(f'[[registry]]\nlocation = "{self.registry.host}"\ninsecure = true\n')
        self.assert_mounts(self.reference)

    def test_a_proxy_is_used_in_either_case_of_its_variable(self):
        for name in ("HTTP_PROXY", "http_proxy"):
            proxy = Proxy(self.registry.port)
            self.addCleanup(proxy.close)
            self.box.environment[name] = proxy.url
            # One that no name service knows: only the proxy can have brought it.
            host = "upper.invalid:5000" if name.isupper() else "lower.invalid:5000"
            self.assert_mounts(f"oci://{host}/repo/image:v1", "--plain-http")
            del self.box.environment[name]
            self.assertTrue(any("holdfast-fetcherd" in agent for _, _, agent in proxy.asked), proxy.asked)

    def test_a_proxy_with_a_password_is_in_the_fetcher_alone(self):
        proxy = Proxy(self.registry.port)
        self.addCleanup(proxy.close)
        self.box.environment["HTTP_PROXY"] = proxy.url.replace("//", "//user:pw-of-the-proxy@")
        point = self.box.make_directory("m")
        done = self.instance.try_mount("oci://registry.invalid:5000/repo/image:v1", point, "--plain-http", NO_READ_AHEAD)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("a proxy of the environment has a user or password, which is written to no file", done.stderr)
        assert_no_secrets(self, self.instance, ["pw-of-the-proxy"])
        self.instance.kill_fetcher()
        del self.box.environment["HTTP_PROXY"]
        asked = len(proxy.asked)
        for name in os.listdir(point):
            self.assert_reads_right(os.path.join(point, name), os.path.join(self.tree, name))
        self.assertGreater(len(proxy.asked), asked)
        assert_no_secrets(self, self.instance, ["pw-of-the-proxy"])

    def test_an_error_does_not_show_the_password_of_a_proxy(self):
        # Go's own sentence quotes a proxy that it can't parse.
        self.box.environment["HTTP_PROXY"] = "http://user:pw-of-the%zz-proxy@127.0.0.1:1"
        done = self.instance.try_mount("oci://registry.invalid:5000/repo/image:v1", self.box.make_directory("m"), "--plain-http",
                                       "--timeout=5s")
        self.assertNotEqual(done.returncode, 0)
        self.assertNotIn("pw-of-the", done.stderr)


class TlsProxyTest(ConfiguredCase):
    def test_tls_goes_through_the_proxy_too(self):
        proxy = Proxy(self.registry.port)
        self.addCleanup(proxy.close)
        self.configure('[[registry]]\nlocation = "registry.invalid"\ninsecure = true\n')
        self.box.environment["HTTPS_PROXY"] = proxy.url
        self.assert_mounts("oci://registry.invalid/repo/image:v1")
        self.assertEqual({(method, target) for method, target, _ in proxy.asked}, {("CONNECT", "registry.invalid:443")})


if __name__ == "__main__":
    main(["docker-registry", "skopeo", "htpasswd", "openssl", "mkfs.erofs", "fsverity"])
