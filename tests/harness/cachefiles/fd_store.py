"""FdStore: the part of a service manager that keeps descriptors, for one daemon that a test starts again and again."""

import fcntl
import os
import shlex
import socket
import threading

FIRST = 3  # As sd_listen_fds(3) has it.
_OUT_OF_THE_WAY = 200


class FdStore:
    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)
        self.path = path
        self._lock = threading.Lock()
        self._stored = []  # [(name, descriptor)]
        self._passes_on = False
        # A reader that waits for the daemon must not be what keeps the daemon's descriptors.
        os.register_at_fork(after_in_child=self._forget)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _forget(self):
        if not self._passes_on:
            for _, fd in self._stored:
                os.close(fd)
            self._stored = []

    def _serve(self):
        while True:
            text, descriptors, _, _ = socket.recv_fds(self._socket, 4096, 16)
            if text == b"end":
                return
            words = dict(line.split("=", 1) for line in text.decode().splitlines() if "=" in line)
            name = words.get("FDNAME", "stored")
            with self._lock:
                if "FDSTORE" in words:
                    self._stored += [(name, fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY)) for fd in descriptors]
                if "FDSTOREREMOVE" in words:
                    self._remove(name)
            for fd in descriptors:  # Of a barrier too, which ends with that.
                os.close(fd)

    def _remove(self, name):
        for fd in (fd for stored, fd in self._stored if stored == name):
            os.close(fd)
        self._stored = [entry for entry in self._stored if entry[0] != name]

    def names(self):
        with self._lock:
            return [name for name, _ in self._stored]

    def start(self, box, argv, **options):
        """Popen of a program that finds what is stored."""
        with self._lock:
            stored = list(self._stored)
            names = ":".join(name for name, _ in stored)
            lines = [f"exec {FIRST + i}<&{fd} {fd}<&-" for i, (_, fd) in enumerate(stored)]
            lines.append(f"export NOTIFY_SOCKET={shlex.quote(self.path)} LISTEN_FDS={len(stored)} LISTEN_FDNAMES={names}")
            # Only the program itself knows its pid before it runs.
            lines.append('export LISTEN_PID=$$; exec "$@"')
            self._passes_on = True
            process = box.start(["/bin/bash", "-c", "\n".join(lines), "start", *argv], pass_fds=[fd for _, fd in stored], **options)
            self._passes_on = False
            return process

    def close(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.connect(self.path)
            end.send(b"end")
        self._thread.join()
        self._socket.close()
        for name in set(self.names()):
            self._remove(name)
