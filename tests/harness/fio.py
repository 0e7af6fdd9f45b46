"""fio, reading files that were written with its own checksums (images.fio_file)."""

import subprocess

from harness.images import fio_verify_flags


def start_verifying(box, path, size, jobs, seed):
    """`jobs` threads that each read every block of `path` once, in random order, and verify it."""
    argv = ["fio", "--name=read", f"--filename={path}", f"--size={size}", "--rw=randread", "--readonly", "--thread",
            f"--numjobs={jobs}", "--group_reporting", "--randrepeat=0", f"--randseed={seed}", *fio_verify_flags()]
    return box.start(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=box.directory)


def complaints(process, output):
    """What fio found wrong; empty when every block was right."""
    wrong = [line for line in output.splitlines() if "verify:" in line or "error=" in line or "err=" in line]
    wrong = [line for line in wrong if "err= 0" not in line]
    return wrong or ([f"fio: exit {process.returncode}"] if process.returncode else [])
