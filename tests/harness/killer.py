"""Kills the fetcher, again and again, and remembers when and during what."""

import random
import time
from dataclasses import dataclass


# The supervisor waits longer and longer before it restarts what dies younger than 0.1 s; these tests want
# many deaths, not long pauses.
PAUSE_S = (0.1, 0.25)


@dataclass
class Kill:
    at: float               # Wall clock.
    waiting: int            # Just before it.
    in_flight_bytes: int    # Of the requests that the fetcher had and hadn't answered.


def kill_once(holdfast):
    """One SIGKILL of the attached fetcher; None when there was none to kill."""
    status = holdfast.status()
    at = holdfast.kill_fetcher()
    if at is None:
        return None
    requests = status["requests"]
    in_flight = sum(r["length"] for r in requests["list"] if r["delivered"])
    return Kill(at, requests["waiting"], in_flight)


def kill_while(holdfast, is_busy, most, seed, pause=PAUSE_S):
    """Kills at random moments while `is_busy()`, at most `most` times; waits for each successor to attach."""
    rng = random.Random(seed)
    kills = []
    while is_busy() and len(kills) < most:
        time.sleep(rng.uniform(*pause))
        kill = kill_once(holdfast)
        if kill:
            kills.append(kill)
            holdfast.wait_fetcher()
    return kills
