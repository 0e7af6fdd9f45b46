"""What another user of the machine can do: an action, in a child process as uid 65534."""

import ctypes
import os
import pickle

from harness.sandbox import die_with_parent

NOBODY = 65534
_libc = ctypes.CDLL(None, use_errno=True)


def as_nobody(action, *arguments):
    """What `action(*arguments)` returns, or raises if that is an OSError, in a child without privileges."""
    def become_nobody():
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        os.chdir("/")
    return _in_child(become_nobody, action, arguments)


def in_mounts_of(pid, action, *arguments):
    """The same in a child that is root and sees the files that process `pid` sees."""
    def enter():
        namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
        if _libc.setns(namespace, 0) != 0:  # It changes the root directory, too.
            raise OSError(ctypes.get_errno(), "setns")
    return _in_child(enter, action, arguments)


def _in_child(prepare, action, arguments):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            die_with_parent()
            try:
                prepare()
                answer = action(*arguments)
            except OSError as e:
                answer = e
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(answer, pipe)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    assert text, "the child ended without an answer"
    answer = pickle.loads(text)
    if isinstance(answer, OSError):
        raise answer
    return answer


def read_file(path):
    with open(path, "rb") as f:
        return f.read()


def error_of(action, *arguments):
    """The errno with which the action fails as nobody; 0 when it does not."""
    try:
        as_nobody(action, *arguments)
    except OSError as e:
        return e.errno
    return 0


def readable_below(directory):
    """Every file below it that uid 65534 can open, and every directory that it can list."""
    found = []

    def look(path):
        for entry in os.scandir(path):
            name = os.path.join(path, entry.name)
            if entry.is_dir(follow_symlinks=False):
                paths.append(name)
            elif entry.is_file(follow_symlinks=False):
                paths.append(name)

    # Root lists the names, since it sees them all; what they allow is asked as the user nobody.
    paths = [directory]
    for path in paths:
        if os.path.isdir(path):
            look(path)
    for path in paths:
        if error_of(os.listdir if os.path.isdir(path) else read_file, path) == 0:
            found.append(path)
    return found
