"""The documents say what is so: semantics.md names tests that exist, --help and man pages agree, no link leads nowhere."""

import ast
import json
import os
import re
import subprocess
import sys

from layering_test import ROOT, tracked_files

BIN = os.environ.get("HOLDFAST_BIN") or os.path.join(ROOT, "build/dev/bin")
MAX_README_LINES = 149
MAX_COLUMNS = 100
# Words for people where a program is meant, and idioms.  Text between backticks, and the user of that name, are exempt.
UNCLEAR = re.compile(r"\b(?:whoever|somebody|anybody|everybody|nobody|heirs?|anew|let go|of ours|lets? \w+ in|going on as before|"
                     r"takes? up the|in the middle of|hears? of)\b", re.I)
# `holdfast` has verbs, and a test of its own: tests/cli/docs_test.cc.
PROGRAMS = {"holdfastd": "holdfastd.8.pod", "holdfast-fetcherd": "holdfast-fetcherd.8.pod",
            "holdfast-injectd": "holdfast-injectd.8.pod"}
# Built where its libraries are.
OPTIONAL_PROGRAMS = {"holdfast-snapshotter": "holdfast-snapshotter.8.pod"}

GTEST = re.compile(r"^TEST(?:_F|_P)?\(\s*(\w+),\s*(\w+)\)", re.M)
PARAGRAPH = re.compile(r"\*\*(\d+)\.\*\* ")
REFERENCE = re.compile(r"`(\w+Test)\.(\w+)`")
HELP_OPTION = re.compile(r"^  --([a-z_-]+)(?:, --([a-z_-]+))?", re.M)
# gflags takes such a spelling, too; what people read has dashes.  The flags of GoogleTest are its own.
UNDERSCORE_FLAG = re.compile(r"(?<![\w-])--(?!gtest_|benchmark_|cpp_out|grpc_out)[a-z]+_[a-z_]+")
STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')
# What a daemon that an earlier version started was given.
EARLIER_FLAGS = ("host/instance/instance_processes.cc",)
MAN_OPTION = re.compile(r"^=item (.*)$", re.M)
ANCHOR = re.compile(r"\]\(([^)#:\s]*)#([^)]+)\)")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
# A file or folder of the tree, and perhaps a function in it.
PLACE = re.compile(r"`((?:cachecore|cli|docs|fetcher|fusefs|host|packaging|snapshotter|tests)/[\w./@+-]*)(?::([\w:~]+))?`")
# What may stand between the parameters of a function and its body.
QUALIFIERS = re.compile(r"(?:\s*(?:const|noexcept|override|final|->\s*[\w:<>*&]+|[A-Z_]+\([^()]*\)))*\s*\{")
# The first page of semantics.md: each item names the paragraphs that promise it.
SEEN = "## What you will see"
# FAULT(enumerator, name, program) of fault_points.def, and the heading of those that a start of the daemon passes.
FAULT = re.compile(r'^FAULT\(\w+, "([\w.]+)"', re.M)
START_FAULTS = "// holdfastd: its start."
LADDER = "## The ladder of a takeover"
# The tables of docs/cachefiles-compat.md.
KERNELS_LINES = "## The kernel's behaviour, line by line"
LAST_KERNELS_LINE = 22
# One of the table of metrics, and of the page that tells of them.
METRIC = re.compile(r'\{"(holdfast_\w+)", k(Gauge|Counter|Histogram),')
METRIC_LINE = re.compile(r"^\| `(holdfast_\w+)` \| (\w+) \|", re.M)
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
        body, _, shown = paragraph.partition("\nShown by")
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
    page = text.partition(SEEN)[2].partition("\n## ")[0]
    for item in page.split("\n- ")[1:]:
        named = re.findall(r"\d+", " ".join(re.findall(r"\((\d+(?:,\s+\d+)*)\)", item)))
        if not named or not set(map(int, named)) <= set(numbers):
            yield f"semantics.md: what you will see is not promised by a paragraph: {item[:60]}"
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"semantics.md: the numbers are not 1, 2, 3, ...: {numbers}"


def ladder_faults(text, fault_points, known):
    """Each step of recovery.md's ladder ends with what shows it, and each fault point of a start is on it."""
    ladder = text.partition(LADDER)[2].partition("\n## ")[0]
    steps = re.split(r"\n(?=\d+\. )", ladder)[1:]
    points = set(FAULT.findall(fault_points))
    named = set()
    for number, step in enumerate(steps, 1):
        body, _, shown = step.partition("Shown by")
        names = set(re.findall(r"`([^`]+)`", shown))
        named |= names
        if not body.startswith(f"{number}. ") or not names or not shown.rstrip().endswith("`."):
            yield f"recovery.md: step {number} of the ladder is misnumbered, or does not end with what shows it"
        for name in sorted(names - points - known):
            yield f"recovery.md: step {number} of the ladder names {name}, which is neither fault point nor test"
    if not steps:
        yield "recovery.md: the ladder has no steps"
    start = fault_points.partition(START_FAULTS)[2].partition("\n\n")[0]
    for name in sorted(set(FAULT.findall(start)) - named):
        yield f"recovery.md: the fault point {name} of a start is on no step of the ladder"


def compat_faults(text, known):
    """Each line of the tables of the kernel's behaviour is shown by tests, and the first table's lines are all there."""
    part = text.partition(KERNELS_LINES)[2].partition("\n## ")[0]
    rows = [row for row in re.findall(r"^\|(?!---)(.*)\|$", part, re.M) if "shown by" not in row]
    for row in rows:
        named = re.findall(r"`(\w+)\.(\w+)`", row)
        if not named:
            yield f"cachefiles-compat.md: no test shows: {row}"
        for name in map(".".join, named):
            if name not in known:
                yield f"cachefiles-compat.md: names {name}, which is no test"
    numbers = [int(number) for number in re.findall(r"^\| (\d+) \|", part, re.M)]
    if numbers != list(range(1, LAST_KERNELS_LINE + 1)):
        yield f"cachefiles-compat.md: the lines of the kernel's behaviour are not 1 to {LAST_KERNELS_LINE}: {numbers}"


def option_faults(program, help_text, man_text):
    in_help = {name for pair in HELP_OPTION.findall(help_text) for name in pair if name}
    in_man = {name for item in MAN_OPTION.findall(man_text) for name in re.findall(r"--([a-z_-]+)", item)}
    if not in_help:
        yield f"{program} --help lists no options"
    for name in sorted(in_help ^ in_man):
        yield f"{program}: --{name} is in {'its --help' if name in in_help else 'its man page'} only"


def spelling_faults(name, text):
    for flag in sorted(set(UNDERSCORE_FLAG.findall(text))):
        yield f"{name}: {flag} is written with dashes"


def text_faults(path, text, exists):
    if path.endswith(".md"):
        for target in LINK.findall(text):
            if not exists(os.path.normpath(os.path.join(os.path.dirname(path), target))):
                yield f"{path}: a link leads to {target}, which is not there"
    if PLANNING.search(text):
        yield f"{path}: names a document outside the tree"


def width_faults(path, text):
    """Lines of prose that a terminal of 100 columns breaks.  Tables, code, and what has no space to break at are exempt."""
    fenced = in_code = False
    after_blank = True
    in_list = False
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("```"):
            fenced = not fenced
        indent = len(line) - len(line.lstrip())
        if re.match(r"[-*] |\d+\. ", line):
            in_list = True
        elif stripped and not indent:
            in_list = False
        if after_blank or not stripped:
            in_code = indent >= (6 if in_list else 4)
        after_blank = not stripped
        if (len(line) > MAX_COLUMNS and not (fenced or in_code or stripped.startswith("|"))
                and len(line) - len(line.split()[-1]) > indent + 2):
            yield f"{path}:{number}: {len(line)} columns of prose, at most {MAX_COLUMNS}"


def readme_faults(text, run_help, presets, exists):
    """The commands of README.md: scripts and presets that are there, and verbs and options that the programs have."""
    commands = re.findall(r"^    (?:# )?((?:packaging|cmake|holdfast)\b.*?)(?: +#.*)?$", text, re.M)
    for command in commands:
        words = command.split()
        if words[0].startswith("packaging/") and not exists(words[0]):
            yield f"README.md: {words[0]} is not there"
        for preset in re.findall(r"--preset (\w+)", command):
            if preset not in presets:
                yield f"README.md: no preset is named {preset}"
        if words[0] == "holdfast":
            verb = words[1:3] if words[1] in ("image", "rootfs") else words[1:2]
            shown = run_help(verb)
            if shown is None:
                yield f"README.md: there is no verb {' '.join(verb)}"
            for option in re.findall(r" (--[a-z-]+)", command.partition(" -- ")[0]):
                if not re.search(rf"{option}\b", shown or ""):
                    yield f"README.md: holdfast {' '.join(verb)} has no {option}"
    if not commands:
        yield "README.md: shows no commands"


def help_of_verb(verb):
    """None where there is no such verb."""
    done = subprocess.run([os.path.join(BIN, "holdfast"), *verb, "--help"], capture_output=True, text=True, timeout=20)
    return done.stdout if done.returncode == 0 else None


def wording_faults(path, text):
    text = re.sub(r"`[^`]*`|[BCF]<[^>]*>", "", text)
    for found in UNCLEAR.finditer(text):
        before = " ".join(text[max(0, found.start() - 40):found.start()].split())
        yield f"{path}: names no component, or is an idiom: ...{before} '{' '.join(found[0].split())}'"


def end_of_parentheses(text, begin):
    """Of those that open just before `begin`; the text's end if they do not close."""
    depth = 1
    for place in range(begin, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place + 1
    return len(text)


def defines(path, text, name):
    """Whether the file has the body of a function, or of a class, of that name."""
    name = re.escape(name)
    if path.endswith(".py"):
        return bool(re.search(rf"^\s*(?:def|class) {name}\b", text, re.M))
    if re.search(rf"\b(?:class|struct|enum(?: class)?) {name}\b[^;(]*\{{", text):
        return True
    return any(QUALIFIERS.match(text, end_of_parentheses(text, found.end()))
               for found in re.finditer(rf"(?<![\w.>]){name}\(", text))


def place_faults(path, text, load):
    """`load` gives the text of a file, "" for a folder, and None for what is not there."""
    for place, name in PLACE.findall(text):
        if "NAME" in place:
            continue  # A file that the reader is to write.
        found = load(place)
        if found is None:
            yield f"{path}: names {place}, which is not there"
        elif name and not defines(place, found, name):
            yield f"{path}: names {place}:{name}, which is not defined there"


def anchors_of(text):
    """Of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def anchor_faults(path, text, load):
    for target, anchor in ANCHOR.findall(text):
        place = os.path.normpath(os.path.join(os.path.dirname(path), target)) if target else path
        if anchor not in anchors_of(load(place) or ""):
            yield f"{path}: a link leads to {place}#{anchor}, which is not there"


def load_place(place):
    full = os.path.join(ROOT, place)
    if os.path.isdir(full):
        return ""
    return read(place) if os.path.isfile(full) else None


def metric_faults(table, page):
    """Each metric of the table is a line of the page, with its type."""
    told = set(METRIC_LINE.findall(page))
    made = {(name, kind.lower()) for name, kind in METRIC.findall(table)}
    yield from (f"docs/metrics.md: {name} ({kind}) is not printed" for name, kind in told - made)
    yield from (f"docs/metrics.md: {name} ({kind}) is missing" for name, kind in made - told)


def faults():
    known = set()
    for path in tracked_files():
        try:
            text = read(path)
        except UnicodeDecodeError:
            continue  # A fuzz corpus, an image.
        if path.startswith("tests/") and path.endswith(("_test.cc", ".py")):
            known |= tests_in(path, text)
        if path.endswith(".md"):
            yield from place_faults(path, text, load_place)
            yield from anchor_faults(path, text, load_place)
            yield from width_faults(path, text)
        if path.endswith((".md", ".pod")):
            yield from wording_faults(path, text)
        if not path.startswith("tests/") and path not in EARLIER_FLAGS:
            is_code = path.endswith((".cc", ".h"))
            yield from spelling_faults(path, "\n".join(STRING.findall(text)) if is_code else text)
        if path != "tests/docs_test.py":
            yield from text_faults(path, text, lambda target: os.path.exists(os.path.join(ROOT, target)))
    yield from semantics_faults(read("docs/semantics.md"), known)
    yield from ladder_faults(read("docs/recovery.md"), read("cachecore/base/fault_points.def"), known)
    yield from compat_faults(read("docs/cachefiles-compat.md"), known)
    yield from metric_faults(read("host/service/metrics.cc"), read("docs/metrics.md"))
    presets = {preset["name"] for preset in json.loads(read("CMakePresets.json"))["configurePresets"]}
    yield from readme_faults(read("README.md"), help_of_verb, presets,
                             lambda path: os.access(os.path.join(ROOT, path), os.X_OK))
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
        yield from spelling_faults(f"{program} --help", shown.stdout)


def self_test():
    """A checker that finds nothing must have been able to."""
    known = tests_in("x.cc", "TEST_F(ATest,\n       IsRight) {") | tests_in("y.py", "class BTest:\n  def test_b(self): pass")
    files = {"fusefs/a.cc": "int A::Read(int (*f)(int)) const {\n  if (Other(1)) {\n    return B(x);\n  }\n}\nint Told(int);\n",
             "docs/b.md": "# B\n\n## One `two`, three\n", "tests/b.py": "class A:\n    def read(self):\n        write()\n", "fusefs/": ""}
    points = f'{START_FAULTS}\nFAULT(kA, "a.b", kDaemon)\n\n// More.\nFAULT(kC, "c.d", kDaemon)\n'
    step = "1. It is so.\n   Shown by `a.b`,\n   `ATest.IsRight`.\n"
    helps = {("a",): "--b", ("image", "c"): ""}
    readme = (lambda text: readme_faults(text, lambda verb: helps.get(tuple(verb)), {"dev"}, "packaging/d.sh".__eq__))
    lines = [f"| {number} | a | `ATest.IsRight`, `BTest.test_b` |\n" for number in range(1, LAST_KERNELS_LINE + 1)]
    compat = (lambda rows: compat_faults(f"{KERNELS_LINES}\n\n| | line | shown by |\n|---|---|---|\n{''.join(rows)}", known))
    must_fail = (
        *(compat(rows) for rows in (lines[:-1], lines[1:], [*lines, "| a | ATest |\n"], [*lines, "| a | `ATest.IsWrong` |\n"])),
        *(readme(f"A\n\n    {line}\n") for line in (
            "", "packaging/e.sh", "cmake --preset rel", "holdfast e", "holdfast image e", "# holdfast a --c x   # d")),
        anchor_faults("docs/a.md", "[b](b.md#one-two)", files.get),
        *(ladder_faults(f"{LADDER}\n\n{steps}\n## B\n", points, known) for steps in (
            "", "1. It is so.\n", step.replace("1.", "2."), step.replace("a.b", "c.d"), step.replace("Right", "Wrong"),
            step + "\n2. It is so.\n   Shown by `c.e`.\n")),
        *(place_faults("docs/a.md", f"1. `{place}`: reads.", files.get) for place in (
            "fusefs/b.cc", "fusefs/a.cc:Write", "fusefs/a.cc:Other", "fusefs/a.cc:B", "fusefs/a.cc:Told", "fusefs/a.cc:B::Read",
            "fusefs/a.cc:Rea", "tests/b.py:write")),
        wording_faults("docs/a.md", "Somebody waits."),
        metric_faults('{"holdfast_a", kGauge, "A.", A},', "| `holdfast_a` | counter | A | |\n"),
        metric_faults('{"holdfast_a", kGauge, "A.", A},', ""),
        *(width_faults("docs/a.md", text + "word " * 25) for text in ("", "- ", "A\n", "    code\n\n", "```\n```\n")),
        semantics_faults("**1.** It is so.\n", known),
        semantics_faults("**1.** It is so.\nShown by `ATest.IsWrong`.", known),
        semantics_faults("**2.** It is so.\nShown by `ATest.IsRight`.", known),
        semantics_faults("It is so.\nShown by `ATest.IsRight`.", known),
        *(semantics_faults(f"{SEEN}\n\n- It is so{numbers}.\n\n## A\n\n**1.** It is so.\nShown by `ATest.IsRight`.", known)
          for numbers in ("", " (2)", " (1, 2)")),
        spelling_faults("p", "holdfastd --cache_dir=DIR"),
        spelling_faults("p", "B<--no_a>"),
        option_faults("p", "  --a_b\n      text\n", "=item B<--a>"),
        option_faults("p", "  --a\n      text\n  --help, --version\n", "=item B<--a>"),
        text_faults("docs/a.md", "see [b](b.md)", lambda target: target == "b.md"),
        text_faults("x.h", "// See shared/" + "design.md.", lambda target: True),
    )
    must_pass = (
        compat([*lines, "| a | `BTest.test_b` |\n"]),
        *(readme(f"A\n\n    {line}\n") for line in (
            "packaging/d.sh   # --e", "cmake --preset dev", "holdfast image c x", "# holdfast a --b x -- y --c   # --d")),
        anchor_faults("docs/a.md", "[b](b.md#one-two-three), [c](https://d/e#f), [b](b.md)", files.get),
        metric_faults('{"holdfast_a", kGauge, "A.", A},', "| `holdfast_a` | gauge | A | |\n"),
        wording_faults("docs/a.md", "The fetcher runs as `nobody`."),
        *(width_faults("docs/a.md", text) for text in (
            "| " + "word " * 25, "    " + "word " * 25, "```\n" + "word " * 25, "- A\n  `" + "w" * 100 + "`,")),
        ladder_faults(f"# A\n\n{LADDER}\n\nText.\n\n{step}\n2. It is so.\n   Shown by `c.d`.\n\n## B\n", points, known),
        place_faults("docs/a.md", "1. `fusefs/a.cc:Read`, `fusefs/a.cc:A::Read`, `tests/b.py:read`, `fusefs/`, `fusefs/NAME.cc`, `http://a/b`", files.get),
        semantics_faults(f"{SEEN}\n\n- It is so (1).\n\n## A\n\n**1.** It is so.\nShown by `ATest.IsRight`.", known),
        semantics_faults("# A\n\n**1.** It is so.\nShown by `ATest.IsRight`,\n`BTest.test_b`.\n", known),
        spelling_faults("p", "--cache-dir --v=a_b --gtest_filter=A_B.* a--b_c --"),
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
