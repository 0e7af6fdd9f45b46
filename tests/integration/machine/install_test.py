"""What `cmake --install` installs: the documents, and every path of Holdfast that documents and man pages name."""

import glob
import os
import re

import _path  # noqa: F401
from harness.case import Case, main
from harness.holdfast import BIN

BUILD = os.path.dirname(os.path.abspath(BIN))
SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../..")
DEFAULT_PREFIX = "/usr/local"
OWN_PATH = re.compile(r"/usr/(?:local/)?(?:bin|sbin|lib|share)/[\w./@-]*holdfast[\w./@-]*\w")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def prefix():
    with open(os.path.join(BUILD, "CMakeCache.txt")) as f:
        return re.search(r"^CMAKE_INSTALL_PREFIX:PATH=(.*)$", f.read(), re.M)[1]


def read(path):
    with open(path) as f:
        return f.read()


class InstallTest(Case):
    def setUp(self):
        super().setUp()
        if prefix() != DEFAULT_PREFIX:
            self.skipTest(f"built for {prefix()}; the documents name what is below {DEFAULT_PREFIX}")
        self.box.environment["DESTDIR"] = self.box.make_directory("dest")
        done = self.box.run(["cmake", "--install", BUILD])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.documents = self.installed(DEFAULT_PREFIX + "/share/doc/holdfast")

    def installed(self, path):
        return self.box.path("dest") + path

    def test_the_documents_are_installed_and_their_links_lead_somewhere(self):
        names = sorted(map(os.path.basename, glob.glob(os.path.join(SOURCE, "docs/*.md"))))
        self.assertIn("containers.md", names)
        for name in names:
            for target in LINK.findall(read(os.path.join(self.documents, name))):
                if not target.startswith("../"):  # Only the source tree has what is beside docs/.
                    self.assertTrue(os.path.exists(os.path.join(self.documents, target)), f"{name}: {target}")

    def test_the_paths_that_documents_and_man_pages_name_are_installed(self):
        pages = glob.glob(self.installed(DEFAULT_PREFIX + "/share/man/man*/holdfast*"))
        documents = glob.glob(os.path.join(self.documents, "*.md"))
        has_snapshotter = os.path.exists(os.path.join(BIN, "holdfast-snapshotter"))
        named = {path for file in pages + documents for path in OWN_PATH.findall(read(file).replace("\\-", "-"))}
        self.assertIn(DEFAULT_PREFIX + "/share/doc/holdfast/protocol.md", named)
        for path in sorted(named):
            if has_snapshotter or "/containerd/" not in path:
                self.assertTrue(os.path.exists(self.installed(path)), path)

    def test_the_header_for_cachefiles_programs_compiles(self):
        program = self.box.path("program.c")
        with open(program, "w") as f:
            f.write("#include <holdfast/cachefiles.h>\n"
                    "int main(void) { return holdfast_cachefiles_read(-1, 0, 0) != -1 || holdfast_cachefiles_read_complete(-1, 0) != -1; }\n")
        warnings = ["-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror", "-I" + self.installed(DEFAULT_PREFIX + "/include")]
        for compiler in (["cc", "-std=c99"], ["c++", "-std=c++11", "-Wold-style-cast", "-x", "c++"]):
            done = self.box.run([*compiler, *warnings, program, "-o", self.box.path("program")])
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertEqual(self.box.run([self.box.path("program")]).returncode, 0)


if __name__ == "__main__":
    main()
