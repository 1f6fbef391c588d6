"""A disk that remembers what it was told: one image file, exported by a raw /dev/fuse server.

A loop device with direct I/O on the exported `image` hands every write, discard and flush of the filesystem on it to
this server, one request at a time. What is written to the file `markers` beside it takes the same way, so that the
log has one order: a marker stands after all that its writer had waited for.

The protocol is that of <linux/fuse.h>, version 7.31, with only the requests that a loop device needs.
"""

import errno
import multiprocessing
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from support import kernel

from powercut import linux, log

IMAGE: Final = "image"
MARKERS: Final = "markers"

_ROOT_NODE: Final = 1
_IMAGE_NODE: Final = 2
_MARKERS_NODE: Final = 3
_NODES: Final = {IMAGE: _IMAGE_NODE, MARKERS: _MARKERS_NODE}

_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _WRITE = 1, 2, 3, 14, 15, 16
_RELEASE, _FSYNC, _INIT, _INTERRUPT, _BATCH_FORGET, _FALLOCATE = 18, 20, 26, 36, 42, 43
_NO_REPLY: Final = (_FORGET, _INTERRUPT, _BATCH_FORGET)

_IN: Final = struct.Struct("=IIQQIIIHH")
_OUT: Final = struct.Struct("=IiQ")
_ATTR: Final = struct.Struct("=6Q 10I")
_ENTRY: Final = struct.Struct("=4Q 2I")
_ATTR_OUT: Final = struct.Struct("=Q 2I")
_OPEN_OUT: Final = struct.Struct("=Q 2I")
_READ_IN: Final = struct.Struct("=QQI")
_WRITE_IN: Final = struct.Struct("=QQI I Q 2I")
_WRITE_OUT: Final = struct.Struct("=2I")
_FALLOCATE_IN: Final = struct.Struct("=3Q 2I")
_INIT_OUT: Final = struct.Struct("=4I 2H 2I 2H 8I")

_ASYNC_READ, _BIG_WRITES, _ASYNC_DIO, _MAX_PAGES = 1 << 0, 1 << 5, 1 << 15, 1 << 22
_FOPEN_DIRECT_IO: Final = 1
_MAX_WRITE: Final = 1 << 20
_FOREVER: Final = 1 << 30  # seconds; nobody else changes the attributes


@contextmanager
def exported(image: Path, log_file: Path, target: Path, outside: int) -> Iterator[None]:
    """Mounts `target` with the files `image` and `markers`, and logs into `log_file` until it is left.

    The server is a process of its own, for the caller must be free to wait for it in any system call; and it lives
    outside the mount namespace that holds the filesystems on its disk. Inside, a killed server that is the last one
    there unmounts them before it closes /dev/fuse (seen on Linux 6.18), and waits for its own answers forever.
    """
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    server = multiprocessing.get_context("fork").Process(
        target=_serve, args=(fd, image, log_file, outside, os.getpid())
    )
    try:
        # The mount's INIT request waits in the queue until the server reads it.
        with linux.mounted(
            "powercut", target, "fuse", f"fd={fd},rootmode=40000,user_id=0,group_id=0"
        ):
            server.start()
            # The server's is the only descriptor: if it dies, requests fail instead of waiting forever.
            os.close(fd)
            fd = -1
            yield
    finally:
        if fd >= 0:
            os.close(fd)
        if server.pid is not None:
            server.join()
    if server.exitcode != 0:
        raise RuntimeError(f"the FUSE server ended with {server.exitcode}")


def _serve(fd: int, image: Path, log_file: Path, outside: int, parent: int) -> None:
    kernel.die_with_parent(parent)
    backing = os.open(image, os.O_RDWR)
    with log_file.open("wb", buffering=_MAX_WRITE) as file:
        linux.leave_private_mounts(outside)
        _Server(fd, backing, file).run()


class _Refused(Exception):  # noqa: N818 - an answer, not a failure
    def __init__(self, number: int) -> None:
        self.number = number


def _unknown(_node: int, _body: memoryview) -> bytes:
    raise _Refused(errno.ENOSYS)


class _Server:
    def __init__(self, fd: int, backing: int, log_file: BinaryIO) -> None:
        self._fd = fd
        self._backing = backing
        self._log = log_file
        self._size = os.fstat(backing).st_size
        self._answers: dict[int, Callable[[int, memoryview], bytes]] = {
            _INIT: self._init,
            _LOOKUP: self._lookup,
            _GETATTR: self._getattr,
            _OPEN: lambda _node, _body: _OPEN_OUT.pack(0, _FOPEN_DIRECT_IO, 0),
            _READ: self._read,
            _WRITE: self._write,
            _FSYNC: self._fsync,
            _FALLOCATE: self._fallocate,
            _RELEASE: lambda _node, _body: b"",
        }

    def run(self) -> None:
        """Answers one request after the other, until the mount is gone."""
        buffer = bytearray(_MAX_WRITE + 4096)
        view = memoryview(buffer)
        while True:
            try:
                length = os.readv(self._fd, [buffer])
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return  # unmounted
                if error.errno in (errno.EINTR, errno.ENOENT):
                    continue  # the request was taken back
                raise
            _, opcode, unique, node, *_ = _IN.unpack_from(buffer)
            if opcode in _NO_REPLY:
                continue
            number, answer = 0, b""
            try:
                answer = self._answers.get(opcode, _unknown)(node, view[_IN.size : length])
            except _Refused as refused:
                number = refused.number
            self._reply(unique, number, answer)

    def _reply(self, unique: int, number: int, answer: bytes) -> None:
        header = _OUT.pack(_OUT.size + len(answer), -number, unique)
        try:
            os.writev(self._fd, [header, answer])
        except OSError as error:
            if error.errno != errno.ENOENT:  # whoever asked has been killed meanwhile
                raise

    def _init(self, _node: int, _body: memoryview) -> bytes:
        flags = _ASYNC_READ | _BIG_WRITES | _ASYNC_DIO | _MAX_PAGES
        pages = _MAX_WRITE // 4096
        return _INIT_OUT.pack(7, 31, 1 << 20, flags, 64, 48, _MAX_WRITE, 1, pages, 0, *[0] * 8)

    def _lookup(self, _node: int, body: memoryview) -> bytes:
        node = _NODES.get(bytes(body[:-1]).decode())
        if node is None:
            raise _Refused(errno.ENOENT)
        return _ENTRY.pack(node, 0, _FOREVER, _FOREVER, 0, 0) + self._attributes(node)

    def _getattr(self, node: int, _body: memoryview) -> bytes:
        return _ATTR_OUT.pack(_FOREVER, 0, 0) + self._attributes(node)

    def _attributes(self, node: int) -> bytes:
        size = self._size if node == _IMAGE_NODE else 0
        mode = 0o040700 if node == _ROOT_NODE else 0o100600
        return _ATTR.pack(node, size, size // 512, *[0] * 6, mode, 1, 0, 0, 0, 4096, 0)

    def _read(self, node: int, body: memoryview) -> bytes:
        if node != _IMAGE_NODE:
            return b""
        _, offset, size = _READ_IN.unpack_from(body)
        return os.pread(self._backing, size, offset)

    def _write(self, node: int, body: memoryview) -> bytes:
        _, offset, size, *_ = _WRITE_IN.unpack_from(body)
        data = bytes(body[_WRITE_IN.size : _WRITE_IN.size + size])
        if node == _IMAGE_NODE:
            os.pwrite(self._backing, data, offset)
            log.append(self._log, log.Write(offset, data))
        else:
            log.append(self._log, log.Marker(data.decode()))
        return _WRITE_OUT.pack(size, 0)

    def _fsync(self, node: int, _body: memoryview) -> bytes:
        if node == _IMAGE_NODE:
            log.append(self._log, log.Flush())
        return b""

    def _fallocate(self, _node: int, body: memoryview) -> bytes:
        # The loop driver asks for holes and for zeroed ranges: zeros, both.
        _, offset, length, *_ = _FALLOCATE_IN.unpack_from(body)
        linux.punch_hole(self._backing, offset, length)
        log.append(self._log, log.Discard(offset, length))
        return b""
