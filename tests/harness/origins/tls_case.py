"""TlsCase: a file to be served with TLS, the authority of the server's certificate, and an instance."""

import os

from harness import images
from harness.case import Case
from harness.origins.certificates import Authority


class TlsCase(Case):
    FILE_SIZE = 4 << 20

    def setUp(self):
        super().setUp()
        self.truth = images.random_file(self.FILE_SIZE, seed=50)
        self.name = os.path.basename(self.truth)
        self.authority = Authority(self.box)
        self.server = self.authority.issue("server")
        self.instance = self.holdfast()
        self.ca = "--ca-file=" + self.authority.certificate
        self.point = self.box.make_directory("point")
