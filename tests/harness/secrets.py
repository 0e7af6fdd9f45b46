"""Secrets: where none may be found.

assert_no_secrets() looks for strings in everything that Holdfast leaves or shows: the memory of each of its processes but the
fetcher's, arguments and environments of all, logs, the run and the state directory (the database and the source files among
them), and `holdfast dump`.  It finds them in the fetcher's memory, else it could not have found them elsewhere either.
"""

import os

from harness.holdfast import BIN
from harness.sandbox import processes_of

_CHUNK = 4 << 20


def assert_no_secrets(case, instance, secrets, in_fetcher=True):
    """`secrets`: strings of 8 characters or more.  `in_fetcher`: those must be in the fetcher's memory now; True for all."""
    secrets = list(secrets)
    case.assertTrue(secrets and all(len(secret) >= 8 for secret in secrets), "too short to look for")
    fetcher = instance.wait_fetcher()
    control = secrets if in_fetcher is True else list(in_fetcher or ())
    needles = {secret: secret.encode() for secret in secrets}
    held = _in_memory(fetcher, needles)
    for secret in control:
        case.assertIn(secret, held, "the fetcher's memory does not have it, so this search can't find it elsewhere")
    found = []
    pids = _programs(instance)
    case.assertGreaterEqual(len(pids), 3, "supervisor, daemon and fetcher were not all looked at")
    for pid in pids:
        name = f"{_read(f'/proc/{pid}/comm').decode().strip()} {pid}"
        for part in ("cmdline", "environ"):
            found += [f"{secret} in the {part} of {name}" for secret in _in(_read(f"/proc/{pid}/{part}"), needles)]
        if pid != fetcher:
            found += [f"{secret} in the memory of {name}" for secret in _in_memory(pid, needles)]
    for path in _files(instance):
        found += [f"{secret} in {path}" for secret in _in(_read(path), needles)]
    found += [f"{secret} in the dump" for secret in _in(instance.dump().encode(), needles)]
    case.assertEqual(found, [])


def _programs(instance):
    """Pids of the instance's processes; what else the sandbox has (origins) may hold secrets."""
    ours = os.path.realpath(BIN)
    pids = []
    for pid in processes_of(instance.box.directory):
        try:
            program = os.readlink(f"/proc/{pid}/exe")
        except OSError:
            continue
        if os.path.dirname(program.removesuffix(" (deleted)")) == ours and instance.root.encode() in _read(f"/proc/{pid}/cmdline"):
            pids.append(pid)
    return pids


def _in(data, needles):
    return [secret for secret, needle in needles.items() if needle in data]


def _in_memory(pid, needles):
    """The secrets that stand anywhere in what `pid` has mapped."""
    overlap = max(len(needle) for needle in needles.values())
    found = set()
    regions = []
    for line in _read(f"/proc/{pid}/maps").decode().splitlines():
        span, mode = line.split()[:2]
        if "r" in mode and not line.endswith(("[vvar]", "[vsyscall]")):
            regions.append([int(end, 16) for end in span.split("-")])
    try:
        mem = open(f"/proc/{pid}/mem", "rb", buffering=0)
    except FileNotFoundError:  # A process that has ended holds nothing: the supervisor's standby is replaced often.
        return found
    with mem:
        for begin, end in regions:
            tail = b""
            for at in range(begin, end, _CHUNK):
                try:
                    data = os.pread(mem.fileno(), min(_CHUNK, end - at), at)
                except OSError:  # A device's, or gone meanwhile.
                    break
                found.update(_in(tail + data, needles))
                tail = data[-overlap:]
    return found


def _files(instance):
    """Every file below the instance's root, but data files: those are what was mounted."""
    for folder, folders, names in os.walk(instance.root):
        folders[:] = [name for name in folders if not os.path.ismount(os.path.join(folder, name))]
        yield from (os.path.join(folder, name) for name in names if not name.endswith(".data"))


def _read(path):
    try:
        with open(path, "rb") as f:
            return f.read()
    except OSError:  # A socket, or gone meanwhile.
        return b""
