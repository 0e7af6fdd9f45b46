"""What the demonstrations print: how long reads stalled, the table, and the verdict."""

import sys

from harness.soak.report import percentile

SLOW_S = 0.001  # Shorter reads can't have waited for a killed process.


def stalls(slow, kills):
    """Seconds of those of the `slow` reads, (start, end) by the wall clock, into which a kill fell."""
    return [end - start for start, end in slow if any(start <= at <= end for at in kills)]


def megabytes(size):
    return f"{size / 1e6:.1f} MB"


def milliseconds(values, share):
    return f"{percentile(values, share) * 1000:.0f} ms" if values else "none"


def print_rows(rows):
    for name, value, remark in rows:
        print(f"{name:<20} {value:>12}   {remark}".rstrip())


def finish(box, faults):
    """Says how the demonstration has ended; with faults shows the logs, and exits 1."""
    if faults:
        for path, text in box.logs():
            print(f"--- {path}\n{text}", file=sys.stderr)
        sys.exit("FAILED: " + "; ".join(faults))
    print("Every byte right, no read failed.")
