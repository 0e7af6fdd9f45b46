"""Strikes: while readers work, the two daemons are killed, and the kernel forgets what it has read."""

import threading

from harness.readers import drop_page_cache
from harness.soak.killer import Killer

KILL_EVERY_S = 0.3
KINDS = {"fetcher": 1, "daemon": 1, "both": 1}


class Strikes:
    """From entering to leaving; the `events` are soak_killer's."""

    def __init__(self, holdfast, seed):
        self._killer = Killer(seed, KINDS)
        self._holdfast = holdfast
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._strike, daemon=True)

    def _strike(self):
        while not self._over.wait(KILL_EVERY_S):
            self._killer.strike(self._holdfast)
            drop_page_cache()

    @property
    def events(self):
        return self._killer.events

    @property
    def kills(self):
        return self._killer.kills

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._over.set()
        self._thread.join()
