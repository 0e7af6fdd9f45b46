"""ScriptedOrigin: an HTTP server whose every answer is what a function of the test makes of the request.

`answer(request)` returns an Answer.  `whole_or_range(request, body, ...)` is how a right server answers; a test
changes what it returns, or makes an Answer of its own.  `requests` has every request in the order of their coming.
"""

import email.utils
import re
import socket
import threading
import time
from dataclasses import dataclass, field

from harness.origins.quiet_server import QuietHandler, QuietServer

OLD = 1_000_000_000.0  # A date that is long past, for Last-Modified.


@dataclass
class Request:
    number: int  # From 0, over all connections.
    method: str
    path: str
    query: str
    range: str | None
    if_range: str | None
    headers: dict
    connection: int  # The peer's port: another one is another connection.


@dataclass
class Answer:
    status: int
    body: bytes = b""
    headers: dict = field(default_factory=dict)
    cut_to: int | None = None  # Close after so many bytes of the body.
    delay: float = 0
    date: bool = True          # With a Date.


def date(seconds):
    return email.utils.formatdate(seconds, usegmt=True)


def whole_or_range(request, body, etag=None, modified=None, if_range=True, ranges=True):
    """The answer of RFC 9110.  `if_range` False ignores that header, `ranges` False serves no ranges."""
    headers = {"Content-Type": "application/octet-stream"}
    validators = []
    if etag is not None:
        headers["ETag"] = etag
        validators.append(etag)
    if modified is not None:
        headers["Last-Modified"] = date(modified)
        validators.append(date(modified))
    span = re.match(r"bytes=(\d+)-(\d*)$", request.range or "")
    if not span or not ranges or (if_range and request.if_range and request.if_range not in validators):
        return Answer(200, body, headers)
    begin, end = int(span[1]), int(span[2]) + 1 if span[2] else len(body)
    if begin >= len(body):
        return Answer(416, b"", {**headers, "Content-Range": f"bytes */{len(body)}"})
    end = min(end, len(body))
    headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(body)}"
    return Answer(206, body[begin:end], headers)


class _Handler(QuietHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        origin = self.server.origin
        path, _, query = self.path.partition("?")
        with origin.lock:
            request = Request(len(origin.requests), self.command, path, query, self.headers.get("Range"),
                              self.headers.get("If-Range"), dict(self.headers.items()), self.client_address[1])
            origin.requests.append(request)
            answer = origin.answer(request)
        if answer.delay:
            time.sleep(answer.delay)
        self.send_response_only(answer.status)
        if answer.date:
            self.send_header("Date", self.date_time_string())
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if "Content-Length" not in answer.headers:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(answer.body if answer.cut_to is None else answer.body[:answer.cut_to])
        self.close_connection |= answer.cut_to is not None

    do_HEAD = do_GET


class _Server6(QuietServer):
    address_family = socket.AF_INET6


class ScriptedOrigin:
    """Close it when done.  `address`: (an IPv6 address, the index of its link) to listen at."""

    def __init__(self, answer, address=None):
        self.answer = answer
        self.requests = []
        self.lock = threading.Lock()
        self._server = _Server6((address[0], 0, 0, address[1]), _Handler) if address else QuietServer(("127.0.0.1", 0), _Handler)
        self._server.origin = self
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def url(self, path="object.bin"):
        return f"http://127.0.0.1:{self.port}/{path}"

    def asked(self, method="GET"):
        """Ranges that were asked for so far."""
        with self.lock:
            return [request.range for request in self.requests if request.method == method]

    def close(self):
        self._server.shutdown()
        self._server.server_close()
