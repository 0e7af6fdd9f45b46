"""Registry: docker-registry on loopback, whose every answer can be accounted for."""

import hashlib
import json
import os
import re
import urllib.parse
import urllib.request
from dataclasses import dataclass

from harness.nginx import free_port
from harness.sandbox import wait_gone, wait_until

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
_LINE = re.compile(r'"(\w+) (\S+) HTTP/[\d.]+" (\d+) (\d+) "[^"]*" "([^"]*)"')


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
    def __init__(self, box, name="registry"):
        self._box = box
        self._directory = box.make_directory(name)
        self._log = os.path.join(self._directory, "access.log")
        self._process = None
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        with open(os.path.join(self._directory, "config.yml"), "w") as f:
            json.dump({"version": "0.1",
                       "log": {"accesslog": {"disabled": False}, "level": "warn"},
                       "storage": {"filesystem": {"rootdirectory": os.path.join(self._directory, "data")}},
                       "http": {"addr": self.host}}, f)

    def start(self):
        with open(self._log, "ab") as out, open(os.path.join(self._directory, "registry.err"), "ab") as err:
            self._process = self._box.start(
                ["docker-registry", "serve", os.path.join(self._directory, "config.yml")], stdout=out, stderr=err)
        wait_until(self._answers, 20, f"docker-registry listening on {self.host}")
        return self

    def _answers(self):
        try:
            with urllib.request.urlopen(f"http://{self.host}/v2/", timeout=5):
                return True
        except OSError:
            return False

    def stop(self):
        self._process.kill()
        assert wait_gone(self._process.pid, 10), "docker-registry does not end"
        self._process.wait()

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
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": {"mediaType": CONFIG, **config_blob},
                    "layers": layers, "annotations": annotations or {}}
        self._send("PUT", f"http://{self.host}/v2/{repository}/manifests/{tag}",
                   json.dumps(manifest, sort_keys=True).encode(), MANIFEST)
        return f"{self.host}/{repository}:{tag}"

    def manifest(self, reference):
        repository, tag = reference.removeprefix(self.host + "/").rsplit(":", 1)
        request = urllib.request.Request(f"http://{self.host}/v2/{repository}/manifests/{tag}", headers={"Accept": MANIFEST})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def blob_path(self, digest):
        """Where it keeps a blob's bytes."""
        digits = digest.removeprefix("sha256:")
        return os.path.join(self._directory, "data/docker/registry/v2/blobs/sha256", digits[:2], digits, "data")

    def log(self):
        """Every answer so far."""
        with open(self._log) as f:
            return [Answer(method, path, int(status), int(size), agent)
                    for method, path, status, size, agent in _LINE.findall(f.read())]

    def forget(self):
        """Empties the log."""
        os.truncate(self._log, 0)
