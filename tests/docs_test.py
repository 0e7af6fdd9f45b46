"""The documents say what is so: semantics.md names tests that exist, --help and man pages agree, no link leads nowhere."""

import ast
import os
import re
import subprocess
import sys

from layering_test import ROOT, tracked_files

BIN = os.environ.get("HOLDFAST_BIN") or os.path.join(ROOT, "build/dev/bin")
MAX_README_LINES = 149
# `holdfast` has verbs, and a test of its own: tests/cli/docs_test.cc.
PROGRAMS = {"holdfastd": "holdfastd.8.pod", "holdfast-fetcherd": "holdfast-fetcherd.8.pod"}
# Built where its libraries are.
OPTIONAL_PROGRAMS = {"holdfast-snapshotter": "holdfast-snapshotter.8.pod"}

GTEST = re.compile(r"^TEST(?:_F|_P)?\(\s*(\w+),\s*(\w+)\)", re.M)
PARAGRAPH = re.compile(r"\*\*(\d+)\.\*\* ")
REFERENCE = re.compile(r"`(\w+Test)\.(\w+)`")
HELP_OPTION = re.compile(r"^  --([a-z_]+)(?:, --([a-z_]+))?", re.M)
MAN_OPTION = re.compile(r"^=item (.*)$", re.M)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
PLANNING = re.compile(r"\bshared/(?:design|users|style|spec)")


def read(path):
    with open(os.path.join(ROOT, path)) as f:
        return f.read()


def tests_in(path, text):
    """Names of the tests in one file, as Suite.Name."""
    if path.endswith(".cc"):
        return {f"{suite}.{name}" for suite, name in GTEST.findall(text)}
    return {f"{node.name}.{item.name}" for node in ast.parse(text).body if isinstance(node, ast.ClassDef)
            for item in node.body if isinstance(item, ast.FunctionDef) and item.name.startswith("test_")}


def semantics_faults(text, known):
    numbers = []
    for paragraph in text.split("\n\n"):
        match = PARAGRAPH.match(paragraph)
        body, _, shown = paragraph.partition("\nShown by ")
        if not match:
            if shown:
                yield f"semantics.md: a paragraph without a number names tests: {body[:60]}"
            continue
        numbers.append(int(match[1]))
        named = [".".join(found) for found in REFERENCE.findall(shown)]
        if not named or not shown.rstrip().endswith("`."):
            yield f"semantics.md: paragraph {match[1]} does not end with the tests that show it"
        for name in named:
            if name not in known:
                yield f"semantics.md: paragraph {match[1]} names {name}, which is no test"
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"semantics.md: the numbers are not 1, 2, 3, ...: {numbers}"


def option_faults(program, help_text, man_text):
    in_help = {name for pair in HELP_OPTION.findall(help_text) for name in pair if name}
    in_man = {name for item in MAN_OPTION.findall(man_text) for name in re.findall(r"--([a-z_]+)", item)}
    if not in_help:
        yield f"{program} --help lists no options"
    for name in sorted(in_help ^ in_man):
        yield f"{program}: --{name} is in {'its --help' if name in in_help else 'its man page'} only"


def text_faults(path, text, exists):
    if path.endswith(".md"):
        for target in LINK.findall(text):
            if not exists(os.path.normpath(os.path.join(os.path.dirname(path), target))):
                yield f"{path}: a link leads to {target}, which is not there"
    if PLANNING.search(text):
        yield f"{path}: names a document outside the tree"


def faults():
    known = set()
    for path in tracked_files():
        try:
            text = read(path)
        except UnicodeDecodeError:
            continue  # A fuzz corpus, an image.
        if path.startswith("tests/") and path.endswith(("_test.cc", "_test.py")):
            known |= tests_in(path, text)
        if path != "tests/docs_test.py":
            yield from text_faults(path, text, lambda target: os.path.exists(os.path.join(ROOT, target)))
    yield from semantics_faults(read("docs/semantics.md"), known)
    lines = len(read("README.md").splitlines())
    if lines > MAX_README_LINES:
        yield f"README.md: {lines} lines, at most {MAX_README_LINES}"
    for program, page in (PROGRAMS | OPTIONAL_PROGRAMS).items():
        binary = os.path.join(BIN, program)
        if not os.path.exists(binary):
            if program in PROGRAMS:
                yield f"{binary} is not built"
            continue
        shown = subprocess.run([binary, "--help"], capture_output=True, text=True, timeout=20)
        yield from option_faults(program, shown.stdout, read("packaging/man/" + page))


def self_test():
    """A checker that finds nothing must have been able to."""
    known = tests_in("x.cc", "TEST_F(ATest,\n       IsRight) {") | tests_in("y.py", "class BTest:\n  def test_b(self): pass")
    must_fail = (
        semantics_faults("**1.** It is so.\n", known),
        semantics_faults("**1.** It is so.\nShown by `ATest.IsWrong`.", known),
        semantics_faults("**2.** It is so.\nShown by `ATest.IsRight`.", known),
        semantics_faults("It is so.\nShown by `ATest.IsRight`.", known),
        option_faults("p", "  --a_b\n      text\n", "=item B<--a>"),
        option_faults("p", "  --a\n      text\n  --help, --version\n", "=item B<--a>"),
        text_faults("docs/a.md", "see [b](b.md)", lambda target: target == "b.md"),
        text_faults("x.h", "// See shared/" + "design.md.", lambda target: True),
    )
    must_pass = (
        semantics_faults("# A\n\n**1.** It is so.\nShown by `ATest.IsRight`,\n`BTest.test_b`.\n", known),
        option_faults("p", "  --a\n      text, not --b\n  --help, --version\n", "=item B<--a>\n\nas --c\n\n=item B<--help>, B<--version>"),
        text_faults("docs/a.md", "see [b](b.md#c) and [d](https://e/f.md)", lambda target: target == "docs/b.md"),
    )
    return all(list(found) for found in must_fail) and not any(list(found) for found in must_pass)


def main():
    if not self_test():
        print("the documents' test no longer finds what it is for")
        return 1
    found = sorted(set(faults()))
    print("\n".join(found) or "the documents name what exists")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
