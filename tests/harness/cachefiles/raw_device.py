"""RawDevice: the cachefiles device call by call.

Where this process has the preloaded library, or $HOLDFAST_TEST_UNAIDED is set, the calls are those of any program of
the kernel's interface.  Otherwise the two calls that the library makes in a program's place are made here.
"""

import ctypes
import fcntl
import mmap
import os
import resource
import select
import socket
import struct
import subprocess
import threading
import time

from harness.sandbox import die_with_parent

OPEN, CLOSE, READ = 0, 1, 2
MAX_MESSAGE = 1024
_READ_AND_OPEN = 0x6861 << 32
_HANDLE_TYPE = 0x81
_READ_COMPLETE = 0x40049881
READ_COMPLETE_OF_THE_KERNEL = 0x40049801
PRELOADED = "libholdfast-cachefiles" in os.environ.get("LD_PRELOAD", "")
# A program that makes these calls in this one's place (clients/caller.c), as the words that start it; {device} stands for the
# device's path, and a program that is started with it opens the usual path.
CALLER = os.environ.get("HOLDFAST_TEST_CALLER", "").split()
# Without the library: holdfast-injectd gives the objects' files.
UNAIDED = "HOLDFAST_TEST_UNAIDED" in os.environ
FIRST_ID = 0x60000000 if UNAIDED else 0
# What a caller writes into an object's file lies in memory that it shares with this process.
_SHARED_SIZE = 4 << 20
_AT_THE_POSITION = (1 << 64) - 1
_libc = ctypes.CDLL(None, use_errno=True)


class Message:
    """One message of the device; `data` is what read gave."""

    def __init__(self, data):
        self.size = len(data)
        self.msg_id, self.opcode, self.length, self.object_id = struct.unpack_from("=IIII", data)
        self.fd = None
        if self.opcode == OPEN:
            volume_size, cookie_size, self.fd, self.flags = struct.unpack_from("=IIII", data, 16)
            self.volume = data[32:32 + volume_size]
            self.cookie = data[32 + volume_size:]
            assert len(self.cookie) == cookie_size
        if self.opcode == READ:
            self.offset, self.bytes = struct.unpack_from("=QQ", data, 16)


def error_of(call, *arguments):
    """The errno that a call fails with; 0 when it does not."""
    try:
        call(*arguments)
        return 0
    except OSError as error:
        return error.errno


def open_object(mount, object_id, node_high=1):
    """The object's file, as the library opens it.  `mount` is an fd of any file of the device's mount."""
    handle = struct.pack("=IiIII", 12, _HANDLE_TYPE, node_high, object_id, 0)
    fd = _libc.open_by_handle_at(mount, handle, os.O_WRONLY)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "open_by_handle_at")
    return fd


class Caller:
    """CALLER, which makes a call for each packet."""

    def __init__(self, device):
        self._socket, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()  # A caller makes one call at a time.
        self._owner = os.getpid()
        memory = os.memfd_create("caller")  # Its number is above those of the socket.
        os.ftruncate(memory, _SHARED_SIZE)
        self._shared = mmap.mmap(memory, _SHARED_SIZE)

        def start():
            os.dup2(its.fileno(), 3)
            os.dup2(memory, 4)
            die_with_parent()
        with its:
            self.process = subprocess.Popen([word.replace("{device}", device) for word in CALLER], preexec_fn=start, pass_fds=[3, 4])
        os.close(memory)

    def call(self, letter, argument, fd=None):
        """(the result, the bytes, the descriptor or None)."""
        with self._lock:
            return self._call(letter, argument, fd)

    def write(self, fd, data, offset, shift):
        with self._lock:
            self._shared[shift:shift + len(data)] = bytes(data)
            return self._call(b"P", struct.pack("=IQQ", shift, offset, len(data)), fd)[0]

    def _call(self, letter, argument, fd):
        socket.send_fds(self._socket, [letter + argument], [fd] if fd is not None else [])
        answer, fds, _, _ = socket.recv_fds(self._socket, 1 << 15, 1)
        result = int.from_bytes(answer[:4], "little", signed=True)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result, answer[4:], fds[0] if fds else None

    def close_device(self):
        if os.getpid() == self._owner:  # Not in a child that gives its copies back.
            self.call(b"C", b"")

    def close(self):
        self._socket.close()
        if os.getpid() == self._owner:
            self.process.wait()


class RawDevice:
    is_plain = bool(PRELOADED or UNAIDED or CALLER)
    caller = None
    _edges = None

    def __init__(self, path):
        if CALLER:
            self.caller = Caller(path)
            path = "/dev/cachefiles" if any("{device}" in word for word in CALLER) else path
        self.anons = set()
        self.fd = -1
        try:
            self.fd = self.caller.call(b"O", os.fsencode(path))[2] if CALLER else os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            self.end()
            raise

    def write(self, text):
        text = text.encode() if isinstance(text, str) else text
        return self.caller.call(b"W", text)[0] if self.caller else os.write(self.fd, text)

    def read_bytes(self, room=MAX_MESSAGE):
        """What a program's read gives."""
        return self.caller.call(b"R", struct.pack("=I", room))[1] if self.caller else os.read(self.fd, room)

    def error(self, text):
        return error_of(self.write, text)

    def bind(self, directory):
        self.write("dir " + directory)
        self.write("bind ondemand")

    def read(self, room=MAX_MESSAGE, call=b"R"):
        """The next message, with the object's file open, or None.  `call`: as clients/caller.c has it."""
        if self.caller:
            _, data, fd = self.caller.call(call, struct.pack("=I", room))
        else:
            data, fd = self._read_here(room, call), None
        return self.take(data, fd) if data else None

    def _read_here(self, room, call):
        if call == b"V":  # A border of the parts lies in the file's number.
            parts = [bytearray(25), bytearray(2), bytearray(room - 27)]
            size = os.readv(self.fd, parts)
            return b"".join(parts)[:size]
        if not self.is_plain:
            return os.pread(self.fd, room, _READ_AND_OPEN)
        return os.pread(self.fd, room, 0) if call == b"A" else os.read(self.fd, room)

    def take(self, data, fd=None):
        message = Message(data)
        if message.opcode == OPEN:
            if fd is not None:
                message.fd = fd
            if self.is_plain:
                self.anons.add(message.fd)
            else:
                self.take_file(message)
        return message

    def read_only(self):
        """The next message, of an OPEN without its file: the half of the library's read."""
        return Message(os.pread(self.fd, MAX_MESSAGE, _READ_AND_OPEN))

    def take_file(self, message):
        """The other half."""
        message.fd = self.open_object(message.object_id)
        self.anons.add(message.fd)

    def open_object(self, object_id):
        return open_object(self.fd, object_id)

    def close_object(self, fd):
        self.anons.discard(fd)
        os.close(fd)

    def await_message(self, seconds=20):
        """The next one.  A read may give nothing although the device is readable: a signal ended it, as Go's runtime sends them."""
        deadline = time.monotonic() + seconds
        while self.is_readable(max(0, deadline - time.monotonic())):
            message = self.read()
            if message is not None:
                return message
        raise AssertionError("the device gives no message")

    def is_readable(self, seconds=0):
        return bool(self.poll(select.POLLIN, seconds))

    def poll(self, events, seconds=0, fd=None):
        """What poll says of the device, or of an object's file."""
        if self.caller:
            return self.caller.call(b"Q", struct.pack("=Ii", events, int(seconds * 1000)), fd)[0]
        poller = select.poll()
        poller.register(self.fd if fd is None else fd, events)
        return dict(poller.poll(seconds * 1000)).get(self.fd if fd is None else fd, 0)

    def edge(self, seconds=0):
        """The events of the device's next edge, as an epoll of its own sees them from its first call on; 0 for none."""
        if self.caller:
            return self.caller.call(b"E", struct.pack("=i", int(seconds * 1000)))[0]
        if self._edges is None:
            self._edges = select.epoll()
            self._edges.register(self.fd, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
        return dict(self._edges.poll(seconds)).get(self.fd, 0)

    def pwrite(self, fd, data, offset=None, shift=0):
        """Writes at the position without an offset.  `shift`: of the memory past a page's border."""
        if self.caller:
            return self.caller.write(fd, data, _AT_THE_POSITION if offset is None else offset, shift)
        memory = memoryview(bytearray(shift) + data)[shift:] if shift else data
        return os.write(fd, memory) if offset is None else os.pwrite(fd, memory, offset)

    def lseek(self, fd, offset, whence):
        return self.caller.call(b"L", struct.pack("=IQ", whence, offset), fd)[0] if self.caller else os.lseek(fd, offset, whence)

    def chdir(self, path):
        """`inuse` and `cull` look there."""
        if self.caller:
            self.caller.call(b"D", os.fsencode(path))
        else:
            os.chdir(path)

    def fill_descriptor_table(self, is_full):
        """No file can be opened any more, or some can again."""
        if self.caller:
            self.caller.call(b"N", struct.pack("=I", is_full))
            return
        if not is_full:
            resource.setrlimit(resource.RLIMIT_NOFILE, self._limit)
            return
        self._limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        first_free = os.dup(0)
        os.close(first_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (first_free, self._limit[1]))

    def serve(self, read, truth):
        """Writes the bytes that a READ asks for."""
        return self.pwrite(read.fd, truth[read.offset:read.offset + read.bytes], read.offset)

    def complete(self, fd, msg_id):
        """0, or the errno."""
        if self.caller:
            return error_of(self.caller.call, b"I", struct.pack("=I", msg_id), fd)
        if self.is_plain:
            return error_of(fcntl.ioctl, fd, READ_COMPLETE_OF_THE_KERNEL, msg_id)
        return error_of(fcntl.ioctl, fd, _READ_COMPLETE, struct.pack("=I", msg_id))

    def close(self):
        for fd in list(self.anons):
            self.close_object(fd)
        if self._edges is not None:
            self._edges.close()
            self._edges = None
        if self.fd >= 0:
            os.close(self.fd)
            if self.caller:
                self.caller.close_device()
        self.fd = -1

    def end(self):
        """Closes the device, and ends the program that has made the calls."""
        self.close()
        if self.caller:
            self.caller.close()
