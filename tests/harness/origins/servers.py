"""Real HTTP servers of one directory each, beside harness.origins.nginx: Apache, lighttpd, the httpd of busybox."""

import os
import signal
import socket

from harness.origins.nginx import Nginx, free_port
from harness.sandbox import wait_gone, wait_until


class _Server:
    """Subclasses have `command()`, the command line that serves self.root on self.port in the foreground."""

    tool = ""

    def __init__(self, box, root):
        self._box, self.root = box, root
        self.port = free_port()
        self.prefix = box.make_directory(self.tool)
        self._process = None

    def start(self):
        with open(os.path.join(self.prefix, "output"), "ab") as output:
            self._process = self._box.start(self.command(), stdout=output, stderr=output)
        wait_until(self._listening, 20, f"{self.tool} listening on port {self.port}")
        return self

    def _listening(self):
        if self._process.poll() is not None:
            with open(os.path.join(self.prefix, "output")) as f:
                raise AssertionError(f"{self.tool} ended: {f.read()}")
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self):
        self._process.send_signal(signal.SIGKILL)
        assert wait_gone(self._process.pid, 10), f"{self.tool} does not end"
        self._process.wait()

    def url(self, path):
        return f"http://127.0.0.1:{self.port}/{path}"

    def configure(self, text):
        path = os.path.join(self.prefix, "conf")
        with open(path, "w") as f:
            f.write(text)
        return path


class Apache(_Server):
    tool = "apache2"

    def command(self):
        modules = "/usr/lib/apache2/modules"
        conf = self.configure(f"""
ServerRoot {self.prefix}
ServerName localhost
Listen 127.0.0.1:{self.port}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
PidFile {self.prefix}/pid
ErrorLog {self.prefix}/error.log
DocumentRoot {self.root}
<Directory {self.root}>
  Require all granted
</Directory>
""")
        # One process: what is killed is all there is.
        return ["/usr/sbin/apache2", "-X", "-f", conf]


class Lighttpd(_Server):
    tool = "lighttpd"

    def command(self):
        conf = self.configure(f"""
server.document-root = "{self.root}"
server.bind = "127.0.0.1"
server.port = {self.port}
# What it remembers of a file it serves for some seconds more.
server.stat-cache-engine = "disable"
# Else another ETag of the same bytes in another inode.
etag.use-inode = "disable"
# Of what has no type it gives no validator either.
mimetype.assign = ("" => "application/octet-stream")
""")
        return ["/usr/sbin/lighttpd", "-D", "-f", conf]


class BusyboxHttpd(_Server):
    tool = "busybox"

    def command(self):
        return ["busybox", "httpd", "-f", "-p", f"127.0.0.1:{self.port}", "-h", self.root]


class PlainNginx:
    """Nginx with the interface of the others."""

    tool = "nginx"

    def __init__(self, box, root):
        self._nginx = Nginx(box, root)

    def start(self):
        self._nginx.start()
        return self

    def stop(self):
        self._nginx.stop()

    def url(self, path):
        return f"http://127.0.0.1:{self._nginx.port}/{path}"


SERVERS = (PlainNginx, Apache, Lighttpd, BusyboxHttpd)
