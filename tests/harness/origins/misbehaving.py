"""MisbehavingOrigin: an HTTP server that serves one file, and lies about it when told to.

Set the fields between requests:
  status       answer every request with this code
  page         answer with this body as text/html, 200, whatever was asked for
  etag         the entity tag; changing it is changing the file
  body         what is served; changing its length is changing the size
  cut_to       send only that many bytes of those announced, then close
  delay        seconds before each answer
Range and If-Range are honoured as RFC 9110 says.
"""

import re
import threading
import time

from harness.origins.quiet_server import QuietHandler, QuietServer


class _Handler(QuietHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._answer(True)

    def do_HEAD(self):
        self._answer(False)

    def _answer(self, with_body):
        origin = self.server.origin
        with origin.lock:
            origin.requests.append((self.command, self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        if origin.delay:
            time.sleep(origin.delay)
        if origin.status:
            return self._send(origin.status, b"no\n", with_body, {"Content-Type": "text/plain"})
        if origin.page is not None:
            return self._send(200, origin.page, with_body, {"Content-Type": "text/html"})
        headers = {"Content-Type": "application/octet-stream", "ETag": origin.etag, "Accept-Ranges": "bytes"}
        body = origin.body
        span = re.match(r"bytes=(\d+)-(\d*)$", self.headers.get("Range") or "")
        if not span or self.headers.get("If-Range") not in (None, origin.etag):
            return self._send(200, body, with_body, headers)
        begin, end = int(span[1]), int(span[2]) + 1 if span[2] else len(body)
        if begin >= len(body):
            headers["Content-Range"] = f"bytes */{len(body)}"
            return self._send(416, b"", with_body, headers)
        end = min(end, len(body))
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(body)}"
        return self._send(206, body[begin:end], with_body, headers)

    def _send(self, status, body, with_body, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not with_body:
            return
        cut_to = self.server.origin.cut_to
        self.wfile.write(body[:cut_to])
        if cut_to is not None:
            self.close_connection = True


class MisbehavingOrigin:
    def __init__(self, body=b"", etag='"one"'):
        self.body, self.etag = body, etag
        self.status, self.page, self.cut_to, self.delay = 0, None, None, 0
        self.requests = []
        self.lock = threading.Lock()
        self._server = QuietServer(("127.0.0.1", 0), _Handler)
        self._server.origin = self
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def url(self, path="image.erofs"):
        return f"http://127.0.0.1:{self.port}/{path}"

    def close(self):
        self._server.shutdown()
        self._server.server_close()
