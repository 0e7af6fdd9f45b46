"""Certificates: an authority of one test and what it has signed, by openssl(1)."""

import os
import subprocess
from dataclasses import dataclass


@dataclass
class Identity:
    certificate: str
    key: str


class Authority:
    """Signs for 127.0.0.1 and localhost."""

    def __init__(self, box, name="ca"):
        self._directory = box.make_directory(name)
        self.certificate = os.path.join(self._directory, "ca.pem")
        self._key = os.path.join(self._directory, "ca.key")
        self._run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                  "-subj", f"/CN=Holdfast test {name}", "-keyout", self._key, "-out", self.certificate)

    def _run(self, *arguments):
        done = subprocess.run(["openssl", *arguments], text=True, capture_output=True)
        assert done.returncode == 0, f"openssl {arguments[0]}: {done.stderr}"

    def issue(self, name, names="IP:127.0.0.1,DNS:localhost", days=2):
        """A server's or a client's certificate and its key, of mode 0600.  `days` below 0: it has expired."""
        identity = Identity(*(os.path.join(self._directory, name + end) for end in (".pem", ".key")))
        request = os.path.join(self._directory, name + ".csr")
        extension = os.path.join(self._directory, name + ".ext")
        with open(extension, "w") as f:
            f.write(f"subjectAltName={names}\n")
        self._run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}",
                  "-keyout", identity.key, "-out", request)
        self._run("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial",
                  "-days", str(days), "-extfile", extension, "-out", identity.certificate)
        os.chmod(identity.key, 0o600)
        return identity
