"""Every C++ file is laid out as .clang-format says; `clang-format -i FILE` mends one."""

import os
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SKIP = 77
VERSION = 14  # Debian 12's; others lay out some lines in another way.


def sources():
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", "*.h", "*.cc"],
                            capture_output=True, text=True)
    return [path for path in listed.stdout.splitlines() if os.path.isfile(os.path.join(ROOT, path))]


def badly_laid_out(paths):
    return subprocess.run(["clang-format", "--dry-run", "-Werror", *paths],
                          cwd=ROOT, capture_output=True, text=True)


def self_test():
    """A checker that finds nothing must have been able to."""
    command = ["clang-format", "--dry-run", "-Werror", "--assume-filename=x.cc"]
    return subprocess.run(command, cwd=ROOT, input="int  x ;\n", capture_output=True, text=True).returncode != 0


def main():
    if not shutil.which("clang-format"):
        print("SKIP: clang-format is not installed")
        return SKIP
    version = subprocess.run(["clang-format", "--version"], capture_output=True, text=True, check=True).stdout
    if f"version {VERSION}." not in version:
        print(f"SKIP: the tree is laid out by clang-format {VERSION}; this is {version.strip()}")
        return SKIP
    paths = sources()
    if not paths:
        print("SKIP: not a checkout: git lists no file")
        return SKIP
    if not self_test():
        print("clang-format no longer finds what is laid out badly")
        return 1
    done = badly_laid_out(paths)
    print(done.stderr or f"{len(paths)} files are laid out as .clang-format says")
    return 1 if done.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
