"""The device with its raw calls, and the kernel's names of objects' files in the directory that it has bound."""

import os
import threading

from harness.cachefiles.cachefiles_case import CachefilesCase
from harness import images
from harness.disk import Disk
from harness.readers import RIGHT, Child, pread_all
from harness.sandbox import wait_until
from harness.cachefiles.raw_device import CLOSE, OPEN, READ, RawDevice

SIZE = 1 << 20
PAGE = 4096
_WORD = 0xFFFFFFFF
_GOLDEN = 0x61C88647


def _rotated(value, bits):
    return (value << bits | value >> 32 - bits) & _WORD


def _hash(salt, data):
    data += bytes(-len(data) % 4)
    x, y = 0, salt
    for at in range(0, len(data), 4):
        x ^= int.from_bytes(data[at:at + 4], "little")
        y ^= x
        x = _rotated(x, 7) + y & _WORD
        y = _rotated(y, 20) * 9 & _WORD
    return (y ^ x * _GOLDEN & _WORD) * _GOLDEN & _WORD


def backing_path(directory, volume, cookie):
    """Of a printable cookie."""
    key = bytes([len(volume)]) + volume.encode() + b"\0"
    fan_out = _hash(_hash(0, key), cookie.encode()) & 0xFF
    return os.path.join(directory, "cache", "I" + volume, f"@{fan_out:02x}", "D" + cookie)


class BackingCase(CachefilesCase):
    def setUp(self):
        super().setUp()
        with open(images.random_file(SIZE), "rb") as f:
            self.truth = f.read()
        self.raw = self.open_raw()
        self.addCleanup(os.chdir, os.getcwd())

    def open_raw(self):
        raw = RawDevice(self.device)
        self.addCleanup(raw.end)
        return raw

    def bind_elsewhere(self, name):
        """Has self.directory on a small file system of its own, of which nearly all is free; not bound yet."""
        disk = Disk(self.box, name, 64 << 20)
        self.directory = os.path.join(disk.path, "dir")
        os.mkdir(self.directory)
        self.raw.end()  # Its program may have a mount namespace of its own.
        self.raw = self.open_raw()
        return disk

    def path_of(self, cookie="object"):
        return backing_path(self.directory, "volume", cookie)

    def enter(self, cookie="object"):
        """The directory that has the object's file becomes the program's working directory."""
        wait_until(lambda: os.path.exists(self.path_of(cookie)), 20, "the file has its name")
        self.raw.chdir(os.path.dirname(self.path_of(cookie)))

    def ask(self, **request):
        return self.machine.control({"volume": "volume", "timeout_ms": 20000, **request})

    def acquire_beside(self, cookie):
        answer = []
        thread = threading.Thread(target=lambda: answer.append(self.ask(op="acquire", object=cookie, replace_stale=True)))
        thread.start()
        self.addCleanup(thread.join)
        return thread, answer

    def acquire(self, cookie="object"):
        """(the object's path, its OPEN)"""
        thread, answer = self.acquire_beside(cookie)
        message = self.raw.await_message()
        self.assertEqual((message.opcode, message.cookie), (OPEN, cookie.encode()))
        self.raw.write(f"copen {message.msg_id},{SIZE}")
        thread.join(20)
        self.assertTrue(answer[0]["ok"], answer)
        return answer[0]["path"], message

    def reader(self, path, offset=0):
        """A process that reads a page, past the page cache."""
        truth = self.truth[offset:offset + PAGE]

        def read():
            self.raw.close()  # The reader holds no copy of the device.
            fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
            return RIGHT if pread_all(fd, offset, PAGE) == truth else 200
        return self.keep(Child(f"{offset}+{PAGE}", read))

    def assert_right(self, reader):
        self.assertTrue(reader.wait(20), reader.what)
        self.assertEqual(reader.result, RIGHT)

    def read_one(self, path, message, offset=0):
        """Reads a page that has to be fetched."""
        reader = self.reader(path, offset)
        asked = self.raw.await_message()
        self.assertEqual((asked.opcode, asked.offset, asked.bytes), (READ, offset, PAGE))
        asked.fd = message.fd
        self.raw.serve(asked, self.truth)
        self.assertEqual(self.raw.complete(asked.fd, asked.msg_id), 0)
        self.assert_right(reader)

    def release(self, message, cookie="object"):
        """Ends the object's use, and takes its CLOSE."""
        self.assertTrue(self.ask(op="release", object=cookie)["ok"])
        closed = self.raw.await_message()
        self.assertEqual((closed.opcode, closed.object_id), (CLOSE, message.object_id))
        self.raw.close_object(message.fd)

    def stored(self, cookie="object"):
        """An object of which the first page is cached, and which is not used any more."""
        path, message = self.acquire(cookie)
        self.read_one(path, message)
        self.release(message, cookie)
