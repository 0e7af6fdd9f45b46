"""What the soak's logs say: how long reads stalled, and what the origin sent more than once."""

import bisect
from dataclasses import dataclass, field

# A read that ends so soon after the kill was answered before it, and its thread has waited for a processor.
ANSWERED_BEFORE_NS = 3_000_000
# How long after the origin has sent the last byte of a range it may still be lost by a kill: it stands in a
# socket, or is written and not yet declared.
SETTLED_S = 0.5
LOG_S = 0.02  # The origin's clock is that coarse under load.
UNNOTICED_S = 0.25  # A fetcher goes on until it notices that its daemon is dead.


@dataclass
class Stalls:
    """Of one kind of event, in ms."""

    first: list = field(default_factory=list)  # From the kill to the first read answered.
    all: list = field(default_factory=list)    # To all that were waiting then.
    idle: int = 0                              # Events with no reader waiting.
    overtaken: int = 0                         # The next event came before all were answered.


def add_stalls(table, events, waits):
    for i, event in enumerate(events):
        stalls = table.setdefault(event.kind, Stalls())
        ends = [end for end in (w.end_of_wait_at(event.at_ns) for w in waits) if end]
        ends = [end - event.at_ns for end in ends if end - event.at_ns > ANSWERED_BEFORE_NS]
        if not ends:
            stalls.idle += 1
            continue
        next_ns = events[i + 1].at_ns - event.at_ns if i + 1 < len(events) else max(ends) + 1
        if min(ends) < next_ns:
            stalls.first.append(min(ends) / 1e6)
        if max(ends) < next_ns:
            stalls.all.append(max(ends) / 1e6)
        else:
            stalls.overtaken += 1


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


def print_stalls(table):
    print(f"{'ms from':<17}|{'to the first answered read':^33}|{'to all that waited answered':^33}|")
    print(f"{'':<17}|" + f"{'events':>9}{'p50':>8}{'p99':>8}{'max':>8}|" * 2 + " overtaken   idle")
    for kind, stalls in sorted(table.items()):
        print(f"{kind:<17}|", end="")
        for values in (stalls.first, stalls.all):
            print(f"{len(values):>9}" + "".join(f"{percentile(values, p):8.0f}" for p in (0.5, 0.99, 1)), end="|")
        print(f"{stalls.overtaken:>10}{stalls.idle:>7}")


class Deaths:
    """When something was killed, and for how long after being sent a range was in danger."""

    def __init__(self, events):
        self._kills = sorted(at for event in events for at in event.killed)
        self._stops = sorted((event.at, event.stopped_s) for event in events if event.stopped_s)

    def explain(self, first, second):
        """Whether a kill can be why `second` was fetched after `first`."""
        settled = first.end + SETTLED_S
        for at, seconds in self._stops:
            if first.end - 1 < at < settled:
                settled += seconds
        i = bisect.bisect_left(self._kills, first.start - UNNOTICED_S)
        return i < len(self._kills) and self._kills[i] <= min(second.start + LOG_S, settled)


def unexplained(entries, deaths):
    """Pairs of fetches of one range, of which no kill explains the second."""
    found = []
    active = []
    for sent in sorted((e for e in entries if e.length and not e.is_probe), key=lambda e: e.begin):
        active = [other for other in active if other.begin + other.length > sent.begin]
        for other in active:
            first, second = sorted((other, sent), key=lambda e: e.start)
            if not deaths.explain(first, second):
                found.append((first, second))
        active.append(sent)
    return found
