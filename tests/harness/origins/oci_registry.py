"""Registry: Debian's docker-registry on loopback, as its users run it: TLS, passwords or tokens, and a log.

Certificates come from an Authority; without one there is no TLS.  Authentication is one of
None, "basic" (htpasswd, bcrypt) and "token" (a TokenService, whose tokens the registry checks by its certificate).
"""

import base64
import hashlib
import http.server
import json
import math
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass

from harness.oci_layout import CONFIG_TYPE, MANIFEST_TYPE
from harness.origins.nginx import free_port
from harness.sandbox import wait_gone, wait_until

USER, PASSWORD = "reader", "pw-5f2c81d0a94e"


def auth_file(box, registry, name="auth.json", user=USER, password=PASSWORD, **entry):
    """A docker config.json for one registry."""
    path = box.path(name)
    value = entry or {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}
    temporary = path + ".new"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
        json.dump({"auths": {registry: value}}, f)
    os.rename(temporary, path)
    return path


@dataclass
class Answer:
    method: str
    path: str
    status: int
    bytes: int
    agent: str


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Registry:
    def __init__(self, box, authority=None, auth=None, name="registry"):
        self._box, self._name = box, name
        self.directory = box.make_directory(name)
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.ca = authority.certificate if authority else None
        self._tls = authority.issue(name) if authority else None
        self._auth = auth
        self.tokens = TokenService(box, authority, name + "-tokens") if auth == "token" else None
        self._redirect = None
        self._client_ca = None
        self._process = None
        self._log = os.path.join(self.directory, "registry.log")
        self._configure()

    def _configure(self):
        http_ = {"addr": self.host, "secret": "of no use here"}
        if self._tls:
            http_["tls"] = {"certificate": self._tls.certificate, "key": self._tls.key}
        config = {"version": "0.1", "log": {"level": "warn", "accesslog": {"disabled": False}},
                  "storage": {"filesystem": {"rootdirectory": os.path.join(self.directory, "data")},
                              "delete": {"enabled": True}, "maintenance": {"uploadpurging": {"enabled": False}}},
                  "http": http_}
        if self._client_ca:
            http_["tls"]["clientcas"] = [self._client_ca]
        if self._redirect:
            config["middleware"] = {"storage": [{"name": "redirect", "options": {"baseurl": self._redirect}}]}
        if self._auth == "basic":
            path = os.path.join(self.directory, "htpasswd")
            done = self._box.run(["htpasswd", "-nbB", "-C", "4", USER, PASSWORD])
            assert done.returncode == 0, done.stderr
            with open(path, "w") as f:
                f.write(done.stdout)
            config["auth"] = {"htpasswd": {"realm": "holdfast test", "path": path}}
        elif self._auth == "token":
            config["auth"] = {"token": {"realm": self.tokens.url, "service": "holdfast-test", "issuer": "holdfast-test",
                                        "rootcertbundle": self.tokens.certificate}}
        with open(os.path.join(self.directory, "config.yml"), "w") as f:
            json.dump(config, f)  # JSON is YAML.

    def want_client_certificate(self, authority):
        """From its next start on it serves only clients whose certificate `authority` has signed."""
        self._client_ca = authority.certificate
        self._configure()

    def redirect_blobs(self, url):
        """From its next start on it redirects requests for a blob to below `url`, where `directory`/data is to be."""
        self._redirect = url
        self._configure()

    def start(self):
        with open(self._log, "ab") as log:
            self._process = self._box.start(
                ["/usr/bin/docker-registry", "serve", os.path.join(self.directory, "config.yml")],
                stdout=log, stderr=log)
        wait_until(self._listening, 30, f"docker-registry listening on {self.host}")
        return self

    def _listening(self):
        assert self._process.poll() is None, f"docker-registry ended: {self._log}"
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self):
        self._process.send_signal(signal.SIGKILL)
        assert wait_gone(self._process.pid, 10), "docker-registry does not end"
        self._process.wait()

    def blob_path(self, digest):
        """Where it keeps a blob's bytes."""
        digits = digest.removeprefix("sha256:")
        return os.path.join(self.directory, "data/docker/registry/v2/blobs/sha256", digits[:2], digits, "data")

    # What its users do.
    def flags(self, auth_file_=None):
        """For `holdfast`, to get in."""
        flags = ["--ca-file", self.ca] if self.ca else ["--plain-http"]
        return flags + (["--auth-file", auth_file_] if auth_file_ else [])

    def push_flags(self):
        """For `holdfast image push`."""
        if not self._auth:
            return self.flags()
        return self.flags(auth_file(self._box, self.host, self._name + "-push.json", "writer" if self._auth == "token" else USER))

    def push(self, layout, tag, repository, as_tag=None):
        """An image of an OciLayout; returns its reference by tag."""
        certificates = self._box.make_directory(self._name + "-push-certificates")
        if self.ca:
            shutil.copyfile(self.ca, os.path.join(certificates, "ca.crt"))
        access = ["--dest-no-creds"]
        if self._auth:
            access = ["--dest-authfile", auth_file(self._box, self.host, self._name + "-push.json", "writer"
                                                   if self._auth == "token" else USER)]
        access += ["--dest-cert-dir", certificates] if self.ca else ["--dest-tls-verify=false"]
        as_tag = as_tag or tag
        policy = self._box.path("policy.json")
        with open(policy, "w") as f:
            json.dump({"default": [{"type": "insecureAcceptAnything"}]}, f)
        done = self._box.run(["skopeo", "--policy", policy, "copy", "--quiet", "--all", *access,
                              f"oci:{layout.directory}:{tag}", f"docker://{self.host}/{repository}:{as_tag}"])
        assert done.returncode == 0, done.stderr
        return f"oci://{self.host}/{repository}:{as_tag}"

    # What a client of its protocol does; without TLS and authentication.
    def _send(self, method, url, data=b"", content_type="application/octet-stream"):
        request = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": content_type})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.headers

    def push_blob(self, repository, data):
        """Returns its descriptor's digest and size."""
        digest = digest_of(data)
        location = self._send("POST", f"http://{self.host}/v2/{repository}/blobs/uploads/")["Location"]
        joint = "&" if "?" in location else "?"
        self._send("PUT", f"{location}{joint}digest={urllib.parse.quote(digest)}", data)
        return {"digest": digest, "size": len(data)}

    def push_image(self, repository, tag, config, layers, annotations=None):
        """`layers`: descriptors of blobs that are there, lowest first.  Returns the reference."""
        config_blob = self.push_blob(repository, json.dumps(config, sort_keys=True).encode())
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": {"mediaType": CONFIG_TYPE, **config_blob},
                    "layers": layers, "annotations": annotations or {}}
        self._send("PUT", f"http://{self.host}/v2/{repository}/manifests/{tag}",
                   json.dumps(manifest, sort_keys=True).encode(), MANIFEST_TYPE)
        return f"{self.host}/{repository}:{tag}"

    def manifest(self, reference):
        repository, tag = reference.removeprefix(self.host + "/").rsplit(":", 1)
        request = urllib.request.Request(f"http://{self.host}/v2/{repository}/manifests/{tag}", headers={"Accept": MANIFEST_TYPE})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    # What it has seen.
    def log_size(self):
        return os.path.getsize(self._log)

    def requests(self, since=0):
        """[(method, path, status)] of its access log, from a log_size() on."""
        with open(self._log, errors="replace") as f:
            f.seek(since)
            return [(m[1], m[2], int(m[3])) for m in _ACCESS.finditer(f.read())]

    def blob_requests(self, since=0):
        return [entry for entry in self.requests(since) if "/blobs/" in entry[1] and entry[0] == "GET"]

    def bytes_sent(self, digest):
        """Of one blob, what was sent twice counted twice."""
        with open(self._log, errors="replace") as f:
            return sum(int(m[4]) for m in _ACCESS.finditer(f.read()) if m[1] == "GET" and m[2].endswith("/blobs/" + digest))

    def log(self):
        """Every answer so far."""
        with open(self._log, errors="replace") as f:
            return [Answer(method, path, int(status), int(size), agent)
                    for method, path, status, size, agent in _ANSWER.findall(f.read())]

    def forget(self):
        """Empties the log."""
        os.truncate(self._log, 0)


_ACCESS = re.compile(r'"(GET|HEAD|PUT|POST|PATCH|DELETE) (\S+) HTTP/[\d.]+" (\d+) (\d+)')
_ANSWER = re.compile(_ACCESS.pattern + r' "[^"]*" "([^"]*)"')


class TokenService:
    """The distribution project's token authentication: JSON web tokens signed by openssl, for user and password.

    `writer` may push, `reader` pull; a request without credentials gets a token that permits nothing.  The password may be
    changed, tokens may be short-lived, and REFRESH stands for the password.
    """

    REFRESH = "refresh-c41d7eb2905f"

    def __init__(self, box, authority, name):
        directory = box.make_directory(name)
        self.password = PASSWORD
        self.life_s = self.told_life_s = 300   # What they live, and what it says that they do.
        self.granted, self.last_token = [], ""  # (user, actions) of each token.
        self._key = os.path.join(directory, "sign.key")
        self.certificate = os.path.join(directory, "sign.pem")
        done = box.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", self._key,
                        "-out", self.certificate, "-days", "30", "-subj", "/CN=holdfast test tokens"])
        assert done.returncode == 0, done.stderr
        self._chain = _der(self.certificate)
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                service._answer(self, urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query))

            def do_POST(self):
                form = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                service._answer(self, urllib.parse.parse_qs(form))

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        scheme = "http"
        if authority:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            identity = authority.issue(name)
            context.load_cert_chain(identity.certificate, identity.key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}/token"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def _user(self, handler, fields):
        """The user that asks; None for a wrong password, "" without credentials."""
        if fields.get("grant_type") == ["refresh_token"]:
            return USER if fields.get("refresh_token") == [self.REFRESH] else None
        if fields.get("grant_type") == ["password"]:  # As containerd asks.
            user, password = fields.get("username", [""])[0], fields.get("password", [""])[0]
        elif header := handler.headers.get("Authorization", ""):
            user, _, password = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
        else:
            return ""
        return user if user in (USER, "writer") and password == self.password else None

    def _answer(self, handler, fields):
        user = self._user(handler, fields)
        if user is None:
            return self._send(handler, 401, {"errors": [{"code": "UNAUTHORIZED"}]})
        access = []
        for scope in " ".join(fields.get("scope", [])).split():
            kind, name, actions = scope.split(":")
            may = {"writer": {"pull", "push"}, USER: {"pull"}, "": set()}[user] & set(actions.split(","))
            access.append({"type": kind, "name": name, "actions": sorted(may)})
            self.granted.append((user, ",".join(sorted(may))))
        self.last_token = token = self._sign(user, access)
        self._send(handler, 200, {"token": token, "access_token": token, "expires_in": self.told_life_s})

    @staticmethod
    def _send(handler, status, value):
        body = json.dumps(value).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _sign(self, user, access):
        now = math.ceil(time.time())
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(self._chain).decode()]}
        claims = {"iss": "holdfast-test", "sub": user, "aud": "holdfast-test", "iat": now, "nbf": now - 60,
                  # docker-registry allows a minute for clocks that differ.
                  "exp": now - 60 + self.life_s, "jti": os.urandom(8).hex(), "access": access}
        text = ".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
        signed = subprocess.run(["openssl", "dgst", "-sha256", "-sign", self._key], input=text.encode(),
                                capture_output=True, check=True)
        return text + "." + _base64url(signed.stdout)


def _base64url(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _der(pem):
    with open(pem) as f:
        return base64.b64decode("".join(line.strip() for line in f if "-----" not in line))
