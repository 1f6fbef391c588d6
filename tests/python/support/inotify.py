"""What a program hears that watches a folder: inotify(7), without a package."""

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support.kernel import LIBC, checked

OPEN: Final = 0x20
CLOSE_WRITE: Final = 0x08
MOVED_FROM: Final = 0x40
MOVED_TO: Final = 0x80
CREATE: Final = 0x100
ISDIR: Final = 0x4000_0000

COMPLETE: Final = CLOSE_WRITE | MOVED_TO
"""What programs that process new files wait for."""

_EVENT: Final = struct.Struct("iIII")
_BUFFER: Final = 1 << 16


@dataclass(frozen=True)
class Event:
    """One event about an entry of the folder."""

    name: str
    mask: int


@dataclass(frozen=True)
class Watch:
    """A folder that is being watched."""

    _fd: int

    def events(self) -> list[Event]:
        """Returns what has happened since the last call: an event is queued before its system call returns."""
        events: list[Event] = []
        while True:
            try:
                buffer = os.read(self._fd, _BUFFER)
            except BlockingIOError:
                return events
            while buffer:
                _, mask, _, length = _EVENT.unpack_from(buffer)
                end = _EVENT.size + length
                name = buffer[_EVENT.size : end].rstrip(b"\0")
                events.append(Event(os.fsdecode(name), mask))
                buffer = buffer[end:]

    def complete(self) -> set[str]:
        """Returns the names of the files that such a program would process now."""
        return {event.name for event in self.events() if event.mask & COMPLETE}


@contextmanager
def watching(folder: Path) -> Iterator[Watch]:
    """Watches a folder for as long as the body runs."""
    fd = checked(LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    try:
        mask = ctypes.c_uint32(OPEN | COMPLETE | MOVED_FROM | CREATE)
        checked(LIBC.inotify_add_watch(fd, os.fsencode(folder), mask))
        yield Watch(fd)
    finally:
        os.close(fd)
