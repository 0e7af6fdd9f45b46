"""Pointers lead somewhere: sections and files that comments name exist; man pages have each field and each message."""

import os
import re
import sys

from layering_test import ROOT, tracked_files

SOURCES = (".h", ".cc", ".def", ".py", ".md", ".pod", ".sh", "CMakeLists.txt")
OWN_FOLDERS = ("cachecore/", "cli/", "docs/", "fetcher/", "fusefs/", "host/", "packaging/", "snapshotter/", "tests/")
MAN = "packaging/man/"
# docs/design.md, "Locks"; design.md "Locks".  A comment may break the line between the two.
SECTION = re.compile(r'\b(?:docs/)?([\w-]+\.md),?(?:\s|//|#)+"([^"]+)"')
MAN_SECTION = re.compile(r'\b(holdfast(?:d|-fetcherd|-snapshotter)?)\([18]\),? (?:"([^"]+)"|([A-Z]{3}[A-Z0-9 ]*))')
UNQUOTED = re.compile(r"\bdocs/[\w-]+\.md, (?!and\b|or\b)([a-z][\w ]*)")
FILE = re.compile(r"(?<![\w./-])([\w-]+(?:/[\w.-]+)*\.(?:h|cc|def|py|md|pod))(?![\w/])")
COMMENTED = (".h", ".cc", ".def")
COMMENT = re.compile(r"//.*$", re.M)
# Of other projects.
FOREIGN = {"erofs_fs.h", "fuse.h", "layer.md", "manager.c", "service.c", "parser.go"}
# A class or a function that a document names.
NAME = re.compile(r"`([A-Z][a-z]+[A-Z]\w*|[A-Z]\w+::~?\w+)(?:\(\))?`")
FIELDS = "fetcher/source/source_config.cc"
FIELD_CHECK = re.compile(r"CheckFields\(\s*[^{}]*\{([^}]*)\}", re.S)
# One man page item of DIAGNOSTICS, and its markup.
ITEM = re.compile(r"^=item (.*)$", re.M)
MARKUP = re.compile(r"[IBFC]<[^>]*>|\.\.\.")
LEAST_MESSAGE = 8


def read(path):
    with open(os.path.join(ROOT, path)) as f:
        return f.read()


def headings(path, text):
    """Of a document or man page, in the words that pointers use."""
    if path.endswith(".md"):
        found = re.findall(r"^#+ (.*)$", text, re.M) + re.findall(r"^\*\*([^*]+)\.\*\*", text, re.M)
        return {heading.replace("`", "").strip() for heading in found}
    found = re.findall(r"^=head[12] (.*)$", text, re.M)
    return {re.split(r" \[| I<", re.sub(r"[BC]<([^>]*)>", r"\1", heading))[0].strip() for heading in found}


def is_there(name, known):
    return name in known or any(heading.startswith(name) for heading in known)


def section_faults(path, text, documents):
    """`documents`: the headings by the name that a pointer uses: semantics.md, holdfast."""
    for document, section in SECTION.findall(text):
        section = " ".join(re.sub(r"\n\s*(?://|#)?", " ", section).replace("`", "").split())
        if document in documents and section not in documents[document]:
            yield f'{path}: {document} has no section "{section}"'
    for page, quoted, capitals in MAN_SECTION.findall(text):
        section = quoted or capitals.strip()
        if page in documents and not is_there(section, documents[page]):
            yield f'{path}: the man page {page} has no section "{section}"'
    for found in UNQUOTED.findall(text):
        yield f"{path}: a section's name is not quoted: {found}"


def file_faults(path, text, files, names):
    """Files that comments name.  Documents are checked by docs_test.py."""
    for comment in COMMENT.findall(text) if path.endswith(COMMENTED) else ():
        for name in FILE.findall(comment):
            known = name in files if name.startswith(OWN_FOLDERS) else "/" in name or name in names
            if not known and os.path.basename(name) not in FOREIGN:
                yield f"{path}: a comment names {name}, which is not there"


def name_faults(path, text, code):
    """Classes and functions.  AddName is one that the reader is to write."""
    for name in NAME.findall(text):
        if "AddName" != name and not all(re.search(rf"\b{re.escape(part)}\b", code) for part in name.split("::")):
            yield f"{path}: names {name}, which no code has"


def field_faults(source, page):
    for fields in FIELD_CHECK.findall(source):
        for field in re.findall(r'"(\w+)"', fields):
            if not re.search(rf'["<]{field}[">]', page):
                yield f"holdfast-fetcherd.8.pod: SOURCES has no field {field}"


def message_faults(path, page, code):
    """Each literal part of an item of DIAGNOSTICS is in the code."""
    for item in ITEM.findall(page.partition("=head1 DIAGNOSTICS")[2].partition("=head1")[0]):
        for part in MARKUP.split(item):
            part = part.strip(' ":;,')
            if len(part) >= LEAST_MESSAGE and part not in code:
                yield f"{path}: no program logs: {part}"


def faults():
    paths = [path for path in tracked_files() if path.endswith(SOURCES)]
    texts = {path: read(path) for path in paths}
    documents = {os.path.basename(path): headings(path, text) for path, text in texts.items()
                 if path.endswith(".md")}
    documents |= {re.sub(r"\.\d\.pod$", "", os.path.basename(path)): headings(path, text) for path, text in texts.items()
                  if path.endswith(".pod")}
    names = {os.path.basename(path) for path in tracked_files()}
    code = "".join(re.sub(r'"\s*\n\s*"', "", text) for path, text in texts.items()
                   if path.endswith((".cc", ".h")) and not path.startswith("tests/"))
    for path, text in texts.items():
        if path == "tests/pointers_test.py":
            continue
        yield from section_faults(path, text, documents)
        yield from file_faults(path, text, set(texts) | set(tracked_files()), names)
        if path.endswith(".md") and path != "CHANGELOG.md":
            yield from name_faults(path, text, code)
        if path.startswith(MAN):
            yield from message_faults(path, text, code)
    yield from field_faults(texts[FIELDS], texts[MAN + "holdfast-fetcherd.8.pod"])


def self_test():
    documents = {"a.md": {"One two"}, "holdfast": {"FILES", "holdfast umount"}}
    must_fail = (
        section_faults("x.h", '// See docs/a.md "One".', documents),
        section_faults("x.h", '// See docs/a.md, "One\n// three".', documents),
        section_faults("x.h", "// See docs/a.md, one two.", documents),
        section_faults("x.h", "// See holdfast(1) SETTINGS", documents),
        section_faults("x.h", '// See holdfast(1) "mount".', documents),
        file_faults("x.h", "// See y.h.", set(), {"x.h"}),
        file_faults("x.h", "// See host/y.h.", {"host/x.h"}, {"y.h"}),
        name_faults("a.md", "`OneTwo` does it", "class OneTwoThree"),
        name_faults("a.md", "`One::Two()` does it", "class One { void Three(); }"),
        field_faults('CheckFields(root, {"a", "b"})', '"a"'),
        message_faults("p", "=head1 DIAGNOSTICS\n\n=item it has failed: I<why>\n", "it has ended"),
    )
    must_pass = (
        section_faults("x.h", '// See docs/a.md, "One\n// two"; holdfast(1) FILES, "umount"; docs/a.md, and b.', documents),
        section_faults("x.h", '// See holdfast(1) "holdfast umount".', documents),
        file_faults("x.h", '// See y.h, Linux fs/erofs/erofs_fs.h\n#include "z.h"', set(), {"y.h"}),
        name_faults("a.md", "`One::Two`, `OneTwo`, `ETIMEDOUT`, `One`", "class One { void Two(); } OneTwo x;"),
        field_faults('CheckFields(root,\n {"a", "b"})', '"a" I<b>'),
        message_faults("p", "=head1 DIAGNOSTICS\n\n=item it has failed: I<why>\n", '"it has failed: "'),
    )
    return all(list(found) for found in must_fail) and not any(list(found) for found in must_pass)


def main():
    if not self_test():
        print("the test of pointers no longer finds what it is for")
        return 1
    found = sorted(set(faults()))
    print("\n".join(found) or "every pointer leads somewhere")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
