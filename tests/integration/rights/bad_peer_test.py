"""Peers of the two sockets that send garbage, too much, too little, at the wrong time, too often, as another user."""

import errno
import os
import random
import socket
import struct
import unittest

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.neighbour import Neighbour
from harness.sandbox import die_with_parent, wait_until

HELLO, REPLY = 0x80000000, 0x80000001
NOBODY = 65533  # 65534 may be the fetcher's user.


class Peer:
    """A connection to the device socket."""

    def __init__(self, holdfast):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(5)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self._socket.connect(holdfast.run_path("device.sock"))
        opcode, payload = self.receive()
        assert opcode == HELLO
        self.status = struct.unpack_from("<i", payload)[0]

    def receive(self):
        """(opcode, payload) of one message; (None, b"") when the daemon has hung up."""
        try:
            packet = self._socket.recv(1 << 16)
        except ConnectionResetError:
            return None, b""
        if not packet:
            return None, b""
        _, opcode, length, _ = struct.unpack_from("<IIII", packet)
        assert length == len(packet), f"length {length} in a packet of {len(packet)} bytes"
        return opcode, packet[16:]

    def send(self, packet):
        """The results of one packet of commands, as negative errnos; None when the daemon has hung up."""
        try:
            self._socket.send(packet)
        except BrokenPipeError:
            return None
        while True:
            opcode, payload = self.receive()
            if opcode is None:
                return None
            if opcode == REPLY:
                return [result for result, in struct.iter_unpack("<i", payload)]

    def close(self):
        self._socket.close()


class BadPeerTest(Case):
    def setUp(self):
        super().setUp()
        self.instance = self.holdfast()
        # Else the connection of a dead fetcher would still be attached.
        self.neighbour = Neighbour(self, self.instance, "--fetcher-flag=--nokeep-connection")
        self.truth = images.random_file(8 << 20, seed=4)
        self.origin = self.serve(os.path.dirname(self.truth))
        self.path = self.instance.mount_file(self.origin.url(os.path.basename(self.truth)))

    def tearDown(self):
        if not self.has_failed():
            self.neighbour.assert_undisturbed()
            self.assert_reads_right(self.path, self.truth)

    def take_the_fetchers_place(self):
        """Until the test is over, or gives it back."""
        self.instance.hold_supervisor()
        self.instance.kill_fetcher()
        wait_until(lambda: self.instance.attached_pid() is None, 5, "the fetcher detached")
        peer = self.attach()
        self.addCleanup(peer.close)
        return peer

    def attach(self):
        def try_once():
            peer = Peer(self.instance)
            if peer.status == 0:
                return peer
            peer.close()
            return None
        return wait_until(try_once, 5, "attached")

    def give_it_back(self, peer):
        peer.close()
        self.instance.release_supervisor()
        self.instance.wait_fetcher(other_than=os.getpid())

    def test_a_second_fetcher_gets_ebusy(self):
        peer = Peer(self.instance)
        self.addCleanup(peer.close)
        self.assertEqual(peer.status, -errno.EBUSY)

    def test_garbage_gets_an_error_for_an_answer(self):
        seed = random.SystemRandom().randrange(1 << 31)
        rng = random.Random(seed)
        peer = self.take_the_fetchers_place()
        with self.subTest(seed=seed):
            for _ in range(2000):
                results = peer.send(rng.randbytes(rng.choice((1, 2, 16, 300, 9000))))
                if results is None:
                    peer.close()
                    peer = self.attach()
                else:
                    self.assertTrue(all(r < 0 for r in results), results)
        self.give_it_back(peer)

    def test_too_long_a_packet_gets_e2big(self):
        peer = self.take_the_fetchers_place()
        self.assertEqual(peer.send(b"restore " * 20000), [-errno.E2BIG])
        self.assertLess(peer.send(b"cread " + b"1" * 60000)[0], 0)
        self.assertEqual(peer.send(b"restore"), [0])
        self.give_it_back(peer)

    def test_too_short_ones_get_an_error_or_a_hang_up(self):
        peer = self.take_the_fetchers_place()
        for packet in (b"c", b"\n", b"\0", b"copen", b"copen ", b"copen 1", b"copen 1,", b"cread 1", b"filled 1,2"):
            results = peer.send(packet)
            self.assertTrue(results is not None and results[0] < 0, (packet, results))
        self.assertIsNone(peer.send(b""))
        self.give_it_back(self.attach())

    def test_commands_out_of_order_get_an_error(self):
        peer = self.take_the_fetchers_place()
        for packet in (b"copen 123456,4096", b"cread 77,88", b"filled 77,0,4096", b"close 77", b"attr 77,00",
                       b"cause 99,none", b"credit 4294967295", b"bind", b"bind ondemand"):
            results = peer.send(packet)
            self.assertTrue(results is not None and results[0] < 0, (packet, results))
        self.give_it_back(peer)

    def test_ten_thousand_connects_disturb_no_reader(self):
        fetcher = self.instance.attached_pid()
        descriptors = f"/proc/{self.instance.daemon_pid()}/fd"
        before = len(os.listdir(descriptors))
        for _ in range(10000):
            peer = Peer(self.instance)
            self.assertEqual(peer.status, -errno.EBUSY)
            peer.close()
        wait_until(lambda: len(os.listdir(descriptors)) <= before + 2, 5, "the daemon's descriptors closed")
        self.assertEqual(self.instance.attached_pid(), fetcher)

    def test_a_peer_with_the_wrong_uid_is_refused(self):
        for folder in ("run", "run/holdfast", f"run/holdfast/{self.instance.name}"):
            os.chmod(os.path.join(self.instance.root, folder), 0o755)
        for name in ("device.sock", "control.sock"):
            os.chmod(self.instance.run_path(name), 0o777)
        fetcher = self.instance.attached_pid()
        self.assertEqual(as_nobody(lambda: 0 if Peer(self.instance).status == -errno.EPERM else 1), 0)
        answer = as_nobody(lambda: self.instance.control({"op": "stop"})["errno"])
        self.assertEqual(answer, errno.EPERM)
        self.assertEqual(self.instance.attached_pid(), fetcher)

    def test_garbage_and_silence_on_the_control_socket_disturb_no_other_client(self):
        rng = random.Random(5)
        silent = []
        for i in range(100):
            s = socket.socket(socket.AF_UNIX)
            self.addCleanup(s.close)
            s.connect(self.instance.run_path("control.sock"))
            if i < 30:
                silent.append(s)
                continue
            s.settimeout(10)
            try:
                s.sendall(rng.randbytes(rng.choice((1, 100, 5000))) + b"\n")
                answer = s.recv(4096)
            except (BrokenPipeError, ConnectionResetError):
                continue  # It hung up on us, which is an answer too.
            self.assertIn(b'"ok":false', answer.replace(b" ", b""))
        for request in ({}, [], {"op": 7}, {"op": "nonsense"}, {"op": "acquire"}, {"op": "acquire", "volume": "../x"}):
            self.assertFalse(self.instance.control(request)["ok"], request)
        self.assertTrue(self.instance.status()["ok"])


def as_nobody(action):
    """What `action` returns (0 to 254) in a child without privileges."""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            die_with_parent()
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            code = action()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    main()
