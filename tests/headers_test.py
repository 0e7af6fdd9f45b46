"""Every public header's comment keeps the format of docs/HACKING.md: a label starts its own line, and the lines that
continue it are indented to its text. No comment in a header passes 100 columns: clang-format does not break them."""

import glob
import os
import re
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LABELS = ("Model", "Units", "Errors", "Threads", "Owns", "Cost", "Crash", "See")
FOLDERS = ("cachecore", "cli", "fetcher", "fusefs", "host", "snapshotter", "tests")
INDENT = "// " + " " * 9
COLUMNS = 100
LABEL = re.compile("// (%s) +" % "|".join(LABELS))
BURIED = re.compile(r"\S (%s)\S" % "|".join(label + " " * (9 - len(label)) for label in LABELS))


def opening_comment(lines):
    """(line number, line) of the comment at the top of a file."""
    for number, line in enumerate(lines, 1):
        if not line.startswith("//"):
            return
        yield number, line


def faults_of(lines):
    """(line number, what is wrong) of the comment at the top of a header."""
    in_label = False
    for number, line in opening_comment(lines):
        label = LABEL.match(line)
        if label:
            in_label = True
            if len(label.group()) != len(INDENT):
                yield number, f"the text of {label.group(1)} does not start in column {len(INDENT) + 1}"
        elif line.strip() == "//":
            in_label = False
        elif in_label and not line.startswith(INDENT):
            yield number, "a line that continues a label is not indented to its text"
        buried = BURIED.search(line[len("// "):])
        if buried:
            yield number, f"{buried.group(1).strip()} does not start its own line"


def wide_comments(lines):
    """(line number, what is wrong) of the comments of a header."""
    for number, line in enumerate(lines, 1):
        if "//" in line and len(line) > COLUMNS:
            yield number, f"a comment of {len(line)} columns, more than {COLUMNS}"


def faults_of_headers(find):
    headers = [path for folder in FOLDERS for path in glob.glob(os.path.join(ROOT, folder, "**", "*.h"), recursive=True)]
    faults = []
    for path in sorted(headers):
        with open(path) as f:
            lines = f.read().split("\n")
        faults += [f"{os.path.relpath(path, ROOT)}:{number}: {fault}" for number, fault in find(lines)]
    return len(headers), faults


class HeadersTest(unittest.TestCase):
    def test_each_label_starts_its_own_line(self):
        count, faults = faults_of_headers(faults_of)
        self.assertGreater(count, 100)
        self.assertEqual(faults, [])

    def test_no_comment_passes_100_columns(self):
        self.assertEqual(faults_of_headers(wide_comments)[1], [])

    def test_a_wide_comment_is_found(self):
        lines = ["// " + "a" * 97, "  // " + "a" * 96, "int a;  // " + "b" * 90]
        self.assertEqual([number for number, _ in wide_comments(lines)], [2, 3])

    def test_a_reflowed_comment_is_found(self):
        lines = ["// Thing: what it is.", "//", "// Model    one of them, and", "// another.",
                 "// Errors   none. Threads  any.", "", "#ifndef A"]
        self.assertEqual([number for number, _ in faults_of(lines)], [4, 5])


if __name__ == "__main__":
    unittest.main()
