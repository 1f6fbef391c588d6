"""What a device was told, in order: the log that the FUSE server writes and the engine reads."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

_HEADER: Final = struct.Struct("=cQQ")  # the kind, the offset, the length


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes that are in the device's cache, and not safe before the next flush."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Discard:
    """A range that reads as zeros from now on; no safer than a write before the next flush."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Flush:
    """All that came before it is safe."""


@dataclass(frozen=True, slots=True)
class Marker:
    """A word of the program that is recorded."""

    label: str


Event = Write | Discard | Flush | Marker


def append(log: BinaryIO, event: Event) -> None:
    match event:
        case Write(offset, data):
            log.write(_HEADER.pack(b"W", offset, len(data)))
            log.write(data)
        case Discard(offset, length):
            log.write(_HEADER.pack(b"D", offset, length))
        case Flush():
            log.write(_HEADER.pack(b"F", 0, 0))
        case Marker(label):
            word = label.encode()
            log.write(_HEADER.pack(b"M", 0, len(word)))
            log.write(word)


def read(path: Path) -> list[Event]:
    events: list[Event] = []
    with path.open("rb") as log:
        while header := log.read(_HEADER.size):
            kind, offset, length = _HEADER.unpack(header)
            if kind == b"W":
                events.append(Write(offset, log.read(length)))
            elif kind == b"D":
                events.append(Discard(offset, length))
            elif kind == b"F":
                events.append(Flush())
            else:
                assert kind == b"M", kind
                events.append(Marker(log.read(length).decode()))
    return events
