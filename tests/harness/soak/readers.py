"""The 32 readers of one mounted object."""

import array
import bisect
import subprocess
import threading

from harness.holdfast import helper
from harness.soak.image import run_script

# (mode of soak_reader, threads, what it reads: the FUSE file or the mounted tree).
PROCESSES = (("pread", 6, "file"), ("direct", 6, "file"), ("tree", 6, "tree"), ("map", 6, "tree"), ("walk", 6, "tree"))
INTERPRETERS = 2
STUCK_S = 60


class Waits:
    """Operations of one reader that took long, in order: which waited at a given moment, and until when."""

    def __init__(self, begins, ends):
        self._begins = begins
        self._ends = ends

    def end_of_wait_at(self, moment_ns):
        i = bisect.bisect_right(self._begins, moment_ns) - 1
        return self._ends[i] if i >= 0 and self._ends[i] > moment_ns else None

    def longest_ns(self):
        return max((end - begin for begin, end in zip(self._begins, self._ends)), default=0)


class Readers:
    def __init__(self, box, file, tree, image, truth_tree, expected, seed):
        self.reads = self.bytes = self.runs = 0
        self.faults = []
        self.waits = []
        self._stop = threading.Event()
        self._processes = []
        for i, (mode, threads, kind) in enumerate(PROCESSES):
            target, truth = (file, image) if kind == "file" else (tree, truth_tree)
            log = box.path(f"waits-{mode}")
            process = box.start([helper("soak_reader"), mode, target, truth, str(threads), str(seed * 8 + i), log],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            self._processes.append((mode, log, process))
        self._threads = [threading.Thread(target=self._interpret, args=(tree, expected), daemon=True)
                         for _ in range(INTERPRETERS)]
        for thread in self._threads:
            thread.start()

    def _interpret(self, tree, expected):
        while not self._stop.is_set():
            try:
                printed = run_script(tree, STUCK_S)
                self.runs += 1
                if printed != expected:
                    self.faults.append(f"the script printed {printed!r}")
            except Exception as e:  # Whatever it is, it is a fault and not the end of the soak.
                self.faults.append(f"interpreter: {e}")

    def all_live(self):
        return all(process.poll() is None for _, _, process in self._processes)

    def finish(self):
        """Ends them all and gathers what they saw."""
        self._stop.set()
        for _, _, process in self._processes:
            process.stdin.close()
            process.stdin = None
        for mode, log, process in self._processes:
            try:
                out, err = process.communicate(timeout=STUCK_S + 20)
            except subprocess.TimeoutExpired:
                process.kill()
                self.faults.append(f"{mode}: stuck")
                continue
            if process.returncode != 0:
                self.faults.append(f"{mode}: exit {process.returncode}: {out.strip()} {err.strip()}")
            if out:
                reads, size, _, _ = map(int, out.split())
                self.reads += reads
                self.bytes += size
                self.waits += _load(log)
        for thread in self._threads:
            thread.join(STUCK_S + 20)
            if thread.is_alive():
                self.faults.append("an interpreter is stuck")


def _load(path):
    numbers = array.array("q")
    with open(path, "rb") as f:
        numbers.frombytes(f.read())
    found, at = [], 0
    while at < len(numbers):
        end = at + 1 + 2 * numbers[at]
        found.append(Waits(numbers[at + 1:end:2], numbers[at + 2:end:2]))
        at = end
    return found
