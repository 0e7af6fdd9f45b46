"""Random deaths and pauses of the daemons and their supervisor."""

import os
import random
import signal
import time
from dataclasses import dataclass, field

FETCHER, DAEMON, SUPERVISOR, SPARE, STANDBY = "fetcherd", "holdfastd", "supervise", "spare", "standby"
# What may happen, and how often.
KINDS = {"fetcher": 20, "daemon": 20, "both": 15, "daemon twice": 10, "fetcher stopped": 7, "daemon stopped": 8,
         "supervisor": 10, "and daemon": 5, "and fetcher": 5, "and spare": 5}
# Of the supervisor alone, and with each other process.
SUPERVISOR_KINDS = {"supervisor": 4, "and daemon": 4, "and fetcher": 4, "and spare": 4, "and standby": 4}
VICTIMS = {"both": (FETCHER, DAEMON), "supervisor": (SUPERVISOR,), "and daemon": (SUPERVISOR, DAEMON),
           "and fetcher": (SUPERVISOR, FETCHER), "and spare": (SUPERVISOR, SPARE), "and standby": (SUPERVISOR, STANDBY)}
PAUSE_S = (0.05, 0.6)
STOPPED_S = (0.02, 0.5)
TWICE_WITHIN_S = 0.1


@dataclass
class Event:
    kind: str
    at: float       # Wall clock, as in the origin's log.
    at_ns: int      # Monotonic, as in the readers' logs.
    killed: list = field(default_factory=list)  # Wall clock of each SIGKILL.
    stopped_s: float = 0


class Killer:
    def __init__(self, seed, kinds=None):
        self._random = random.Random(seed)
        self._kinds = kinds or KINDS
        self.events = []

    @property
    def kills(self):
        return sum(len(event.killed) for event in self.events)

    def pause(self):
        time.sleep(self._random.uniform(*PAUSE_S))

    def strike(self, holdfast):
        """One random event; nothing when its victims are dead already."""
        kind = self._random.choices(list(self._kinds), list(self._kinds.values()))[0]
        victims = VICTIMS.get(kind, (FETCHER if kind.startswith("fetcher") else DAEMON,))
        pids = [_pid(holdfast, name) for name in victims]
        self._random.shuffle(pids)
        if None in pids or (kind == "and standby" and not _serves(holdfast)):
            return
        event = Event(kind, time.time(), time.monotonic_ns())
        if kind.endswith("stopped"):
            event.stopped_s = self._random.uniform(*STOPPED_S)
            _stop_for(pids[0], event.stopped_s)
        else:
            for pid in pids:
                event.killed += _kill(pid)
            if kind == "daemon twice":
                event.killed += self._kill_successor(holdfast, pids[0])
            if kind == "and standby":
                holdfast.start()  # Another supervisor goes on with the daemons.
        self.events.append(event)

    def _kill_successor(self, holdfast, first):
        """Kills the next daemon at a random moment, if it is there by then."""
        time.sleep(self._random.uniform(0.005, TWICE_WITHIN_S))
        pid = _pid(holdfast, DAEMON)
        return _kill(pid) if pid not in (None, first) else []


def _serves(holdfast):
    """Of a daemon that is dead, only the supervisor and its standby have the descriptors."""
    try:
        return holdfast.control({"op": "ping"})["ok"]
    except (OSError, ValueError):
        return False


def _pid(holdfast, name):
    try:
        if name == SUPERVISOR:
            return holdfast.supervisor_pid()
        if name == STANDBY:
            return holdfast.supervise_status()["standby"] or None
        if name == SPARE:
            return holdfast.service(DAEMON)["spare"] or None
        return holdfast.pid_of(name)
    except (OSError, IndexError, ValueError):
        return None  # Dead, and its successor has not been started, or there is none now.


def _kill(pid):
    """The moment, in a list; empty when it was dead already."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return []
    return [time.time()]


def _stop_for(pid, seconds):
    try:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
    except ProcessLookupError:
        return
    finally:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass
