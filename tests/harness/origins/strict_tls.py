"""An HTTPS server of one file that refuses clients without its authority's certificate inside the TLS handshake.

nginx takes any certificate and answers 400 to the request; many proxies refuse with an alert instead.
"""

import http.server
import os
import re
import ssl
import threading


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self):
        size = os.path.getsize(self.server.file)
        span = re.match(r"bytes=(\d+)-(\d+)$", self.headers.get("Range", ""))
        begin, end = (int(span[1]), min(int(span[2]) + 1, size)) if span else (0, size)
        self.send_response(206 if span else 200)
        if span:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(end - begin))
        self.end_headers()
        with open(self.server.file, "rb") as f:
            f.seek(begin)
            self.wfile.write(f.read(end - begin))

    def log_message(self, *_):
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def finish_request(self, request, client_address):
        """The handshake is done in the connection's own thread; a refused one is over."""
        request.settimeout(30)
        try:
            with self.context.wrap_socket(request, server_side=True) as connection:
                super().finish_request(connection, client_address)
        except OSError:
            pass


class StrictServer:
    """Serves `file` under any name, as `identity`, to certificates of `authority`, by TLS of that version only."""

    def __init__(self, file, identity, authority, version):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = context.maximum_version = version
        context.load_cert_chain(identity.certificate, identity.key)
        context.load_verify_locations(authority)
        context.verify_mode = ssl.CERT_REQUIRED
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.context = context
        self._server.file = file
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def url(self, name):
        return f"https://127.0.0.1:{self._server.server_address[1]}/{name}"
