"""Nginx: an origin whose every byte can be accounted for.

A private nginx (one process, own prefix, own port on 127.0.0.1) that serves one directory.  It can wait before
each answer (echo module), send slowly, die, and come back on the same port.  Its log tells which range of
which file went out when, from which `served()` computes what was sent more than once.
"""

import json
import os
import re
import signal
import socket
import urllib.request
from dataclasses import dataclass

from harness.sandbox import wait_gone, wait_until

SO_MAX_PACING_RATE = 47
ECHO_MODULE = "/usr/lib/nginx/modules/ngx_http_echo_module.so"

_CONFIG = """
daemon off;
master_process {master};
worker_processes 1;
pid nginx.pid;
error_log error.log warn;
worker_rlimit_nofile 8192;
load_module {echo_module};
events {{ worker_connections 4096; }}
http {{
  log_format account '$msec $request_time $request_method $status $body_bytes_sent "$http_range" $uri $connection';
  access_log access.log account;
  log_format shown escape=json '{seen}';
  access_log shown.log shown;
  client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
  default_type application/octet-stream;
  sendfile on;
  sendfile_max_chunk {chunk};
  tcp_nopush on;
  keepalive_requests 1000000;
  server {{
    listen 127.0.0.1:{port}{tls};
    root {root};
    autoindex {autoindex};
    limit_rate {limit_rate};
    {location}
  }}
}}
"""

_DELAYED = """
    location / { echo_sleep %.3f; echo_exec @files; }
    location @files { }
"""

_LINE = re.compile(r'^([\d.]+) ([\d.]+) (\w+) (\d+) (\d+) "([^"]*)" (\S+) (\d+)$')


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@dataclass
class Sent:
    """One answered request: what of `uri` was asked for, and how much of it left the origin, when."""

    start: float  # Wall clock, seconds.
    end: float
    method: str
    status: int
    begin: int    # First byte of the file that was sent.
    length: int   # Bytes of body that were sent.
    asked: int    # Bytes that were asked for.
    uri: str

    @property
    def is_probe(self):
        """One byte, asked for to learn the size and the entity tag; not a fetch."""
        return self.begin == 0 and self.asked == 1


@dataclass
class Served:
    requests: int
    bytes: int
    unique_bytes: int

    @property
    def twice_bytes(self):
        return self.bytes - self.unique_bytes


def union_size(ranges):
    """Bytes covered by any of the (begin, end) pairs."""
    total, reached = 0, 0
    for begin, end in sorted(ranges):
        begin = max(begin, reached)
        if end > begin:
            total += end - begin
            reached = end
    return total


class Nginx:
    """`locations`: further directives of the server.  `tls`: a harness.origins.certificates.Identity, for https with HTTP/2.
    `seen`: nginx's variables whose values each request is logged with, for seen().  `pace`: bytes a second that no
    connection exceeds, kept by the kernel (limit_rate lets a second's worth of each answer through at once)."""

    def __init__(self, box, root, delay_ms=0, limit_rate="0", autoindex=False, locations="", name="nginx", tls=None,
                 seen=("server_protocol",), pace=0):
        self._box = box
        self._prefix = box.make_directory(name)
        os.makedirs(os.path.join(self._prefix, "tmp"), exist_ok=True)
        self._root = root
        self._process = None
        self._autoindex = autoindex
        self.locations = locations
        self._tls = tls
        self._seen = seen
        self._pace = pace
        self.port = free_port()
        self.configure(delay_ms, limit_rate)

    def configure(self, delay_ms=0, limit_rate="0"):
        """Takes effect at the next start()."""
        location = self.locations + (_DELAYED % (delay_ms / 1000) if delay_ms else "")
        with open(os.path.join(self._prefix, "nginx.conf"), "w") as f:
            if self._tls:
                location += f"ssl_certificate {self._tls.certificate}; ssl_certificate_key {self._tls.key};"
            seen = json.dumps({name: f"${name}" for name in self._seen})
            f.write(_CONFIG.format(echo_module=ECHO_MODULE, tls=" ssl http2" if self._tls else "", seen=seen, port=self.port,
                                   # Without a master nginx crashes with a socket that it inherits.
                                   master="on" if self._pace else "off", root=self._root, limit_rate=limit_rate,
                                   # A limited rate is kept by pauses between chunks; small ones make a slow link.
                                   chunk="512k" if limit_rate == "0" else "64k",
                                   autoindex="on" if self._autoindex else "off", location=location))

    def start(self):
        argv = ["/usr/sbin/nginx", "-p", self._prefix, "-c", "nginx.conf", "-e", "error.log"]
        with open(os.path.join(self._prefix, "nginx.err"), "ab") as err, socket.socket() as listener:
            if self._pace:  # What is accepted inherits the option; nginx inherits the socket.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, self._pace)
                listener.bind(("127.0.0.1", self.port))
                listener.listen(511)
                argv = ["/usr/bin/env", f"NGINX={listener.fileno()};"] + argv
            self._process = self._box.start(argv, stdout=err, stderr=err,
                                            pass_fds=(listener.fileno(),) if self._pace else ())
        wait_until(self._listening, 10, f"nginx listening on port {self.port}")
        return self

    def _listening(self):
        if self._process.poll() is not None:
            with open(os.path.join(self._prefix, "nginx.err")) as f:
                raise AssertionError(f"nginx ended: {f.read()}")
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self, sig=signal.SIGKILL):
        self._process.send_signal(signal.SIGTERM if self._pace else sig)  # A master ends its worker.
        assert wait_gone(self._process.pid, 10), "nginx does not end"
        self._process.wait()

    def restart(self, delay_ms=0, limit_rate="0"):
        """With other speed; connections of the old one are reset."""
        self.stop()
        self.configure(delay_ms, limit_rate)
        return self.start()

    def url(self, path=""):
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}/{path}"

    def seen(self):
        """What each answered request had in the variables of `seen`: a dict for each."""
        with open(os.path.join(self._prefix, "shown.log")) as f:
            return [json.loads(line) for line in f if line.endswith("\n")]

    def get(self, path, headers=None):
        """(status, headers, body) of one GET."""
        request = urllib.request.Request(self.url(path), headers=headers or {})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read()

    def log(self):
        """Every answered request, as Sent, in the order of their ends.  What a SIGKILL cut off is missing."""
        entries = []
        with open(os.path.join(self._prefix, "access.log")) as f:
            for line in f:
                match = _LINE.match(line)
                if not match:
                    continue
                end, took, method, status, length, header, uri, _ = match.groups()
                span = re.match(r"bytes=(\d+)-(\d*)$", header)
                length = int(length) if int(status) in (200, 206) else 0
                begin = int(span[1]) if span and status == "206" else 0
                asked = int(span[2]) + 1 - begin if span and span[2] and status == "206" else length
                entries.append(Sent(float(end) - float(took), float(end), method, int(status), begin, length,
                                    asked, uri))
        return entries

    def served(self, uri=None):
        """Totals over the log, of one path or of all, probes left out."""
        by_uri, total, count = {}, 0, 0
        for sent in self.log():
            if uri in (None, sent.uri) and sent.method == "GET" and not sent.is_probe:
                count += 1
                total += sent.length
                by_uri.setdefault(sent.uri, []).append((sent.begin, sent.begin + sent.length))
        return Served(count, total, sum(union_size(ranges) for ranges in by_uri.values()))
