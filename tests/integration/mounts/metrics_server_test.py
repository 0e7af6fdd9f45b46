"""The metrics by HTTP: on the Unix socket, on a port of loopback, and with clients that behave badly."""

import contextlib
import http.client
import os
import signal
import socket
import stat
import unittest

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.origins.nginx import free_port
from harness.sandbox import wait_gone, wait_until

CLIENTS = 16  # As many as the server has at a time.
NEEDED = 1 << 2 | 1 << 19  # CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE.
LOW_PORT = 1 << 10  # CAP_NET_BIND_SERVICE


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout=60):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class MetricsServerTest(Case):
    def start(self, *flags):
        truth = images.random_file(1 << 20)
        self.instance = self.holdfast()
        origin = self.serve(os.path.dirname(truth))
        self.path = self.instance.mount_file(origin.url(os.path.basename(truth)), *flags)
        self.socket = self.instance.run_path("metrics.sock")
        wait_until(self.serves, 30, "the server of metrics")

    def ask(self, path="/metrics", method="GET", connection=None):
        connection = connection or UnixConnection(self.socket)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type"), answer.read().decode()
        finally:
            connection.close()

    def serves(self):
        try:
            return self.ask()[0] == 200
        except OSError:
            return False

    def connect(self):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(60)
        client.connect(self.socket)
        self.addCleanup(client.close)
        return client

    def test_the_socket_gives_what_the_command_prints(self):
        self.start()
        self.assertEqual(stat.S_IMODE(os.stat(self.socket).st_mode), 0o600)
        status, kind, text = self.ask()
        self.assertEqual((status, kind), (200, "text/plain; version=0.0.4; charset=utf-8"))
        printed = self.instance.run("metrics", *self.instance.root_flags()).stdout
        names = [line for line in text.splitlines() if line.startswith("# TYPE")]
        self.assertEqual(names, [line for line in printed.splitlines() if line.startswith("# TYPE")])
        self.assertIn('holdfast_up{instance_name="t"} 1\n', text)
        self.assertEqual(self.ask("/")[0], 404)
        self.assertEqual(self.ask(method="POST")[0], 405)
        self.assertEqual(self.ask(method="HEAD")[::2], (200, ""))

    def test_a_dead_daemon_is_told(self):
        self.start()
        self.instance.hold_supervisor()
        os.kill(self.instance.daemon_pid(), signal.SIGKILL)
        wait_until(lambda: 'holdfast_up{instance_name="t"} 0\n' in self.ask()[2], 30, "it is down")
        self.instance.release_supervisor()
        wait_until(lambda: 'holdfast_up{instance_name="t"} 1\n' in self.ask()[2], 30, "it is up")

    def test_its_death_costs_no_read_and_it_comes_back(self):
        self.start()
        before = self.instance.daemon_pid()
        for _ in range(3):
            os.kill(self.instance.pid_of("metricsd"), signal.SIGKILL)
            wait_until(self.serves, 30, "the next one")
        self.instance.assert_daemon_is(before)

    def test_it_gives_up_the_rights_that_it_does_not_need(self):
        self.start()
        self.assert_has_no_more_than(NEEDED)

    def assert_has_no_more_than(self, rights):
        pid = self.instance.pid_of("metricsd")
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/status") as f:
                fields = dict(line.split(":\t") for line in f.read().splitlines())
            for held in ("CapPrm", "CapEff"):
                self.assertEqual(int(fields[held], 16) & ~rights, 0, (task, held))
            for none in ("CapInh", "CapBnd", "CapAmb"):
                self.assertEqual(int(fields[none], 16), 0, (task, none))
            self.assertEqual(fields["NoNewPrivs"].strip(), "1")

    def test_bad_clients_hold_up_nobody_for_long(self):
        self.start()
        for sent in (b"", b"GET /metrics HTTP/1.1\r\nHost: x\r\n", b"\x00\xff" * 20):
            for _ in range(CLIENTS):
                self.connect().sendall(sent)
        huge = self.connect()
        try:
            huge.sendall(b"GET /metrics HTTP/1.1\r\nX: " + b"x" * (1 << 20))
            answer = huge.recv(64)
        except OSError:
            answer = b""
        self.assertNotIn(b" 200 ", answer)
        self.assertEqual(self.ask()[0], 200)  # Waits until a place is free.
        pid = self.instance.pid_of("metricsd")
        with open(f"/proc/{pid}/status") as f:
            resident_kb = int(f.read().split("VmRSS:")[1].split()[0])
        self.assertLess(resident_kb, 100 << 10)

    def test_a_port_of_loopback_is_served_when_it_is_asked_for(self):
        self.assert_serves("127.0.0.1", free_port())
        self.assert_has_no_more_than(NEEDED)

    def test_a_port_that_only_root_may_serve_is_served(self):
        own = free_port()
        self.assert_serves(f"127.1.{own >> 8}.{own & 255}", 1023)
        self.assert_has_no_more_than(NEEDED | LOW_PORT)

    def assert_serves(self, host, port):
        self.start(f"--metrics-listen={host}:{port}")

        def answers():
            try:
                return self.ask(connection=http.client.HTTPConnection(host, port, timeout=60))[0] == 200
            except OSError:
                return False

        wait_until(answers, 30, "the port")
        os.kill(self.instance.pid_of("metricsd"), signal.SIGKILL)
        wait_until(answers, 30, "the port again")

    def test_a_port_that_is_taken_is_said_at_the_start_of_an_instance(self):
        truth = images.random_file(1 << 20)
        instance = self.holdfast()
        with socket.create_server(("127.0.0.1", 0)) as other:
            address = "127.0.0.1:%d" % other.getsockname()[1]
            point = self.box.make_directory("m")
            mount = ("file://" + truth, point, "--as=file", f"--metrics-listen={address}")
            done = instance.try_mount(*mount)
            self.assert_one_line(done, f"metrics cannot be served on {address}: Address already in use; .*--metrics-listen$")
            self.assertFalse(os.path.exists(instance.state_path()), "nothing stays behind")
            conf = os.path.join(instance.root, "etc/holdfast/t.conf")
            os.makedirs(os.path.dirname(conf))
            with open(conf, "w") as f:
                f.write(f'[instance]\nmetrics-listen = "{address}"\n')
            done = instance.try_mount(*mount[:3])
            self.assertEqual(done.returncode, 0, "a port of the configuration holds up no mount")
            self.assertRegex(done.stderr, f"{address}: Address already in use; .*metrics-listen in {conf}; until")
            instance.umount(point)
        self.assertEqual(instance.try_mount(*mount).returncode, 0)
        # Its own server has the port now, also where it has outlived its supervisor.
        other = ("file://" + truth, self.box.make_directory("n"), *mount[2:])
        self.assertEqual(instance.try_mount(*other).returncode, 0)
        metrics = instance.pid_of("metricsd")
        os.kill(metrics, signal.SIGSTOP)
        self.addCleanup(self.go_on, metrics)
        fetcher, daemon = instance.attached_pid(), instance.daemon_pid()
        instance.kill_supervisor()
        for pid in (fetcher, daemon):
            os.kill(pid, signal.SIGKILL)
            wait_gone(pid, 30)
        done = instance.try_mount(*mount)
        self.assertEqual(done.returncode, 0, done.stderr)

    def go_on(self, pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def test_a_port_that_others_could_reach_is_refused(self):
        instance = self.holdfast()
        for address in ("0.0.0.0:9100", "[::]:9100", "9100", "localhost:9100", "127.0.0.1:0", "127.0.0.1:65536", "10.0.0.1:9100"):
            done = instance.try_mount("http://127.0.0.1:1/x", self.box.make_directory("m"), f"--metrics-listen={address}")
            self.assert_one_line(done, "127.0.0.1:PORT")


if __name__ == "__main__":
    main()
