"""Which states a power cut can leave: all that was flushed, and some of what was not.

Between two flushes nothing says what of the cache reaches the disk. A crash between them leaves none of the writes
since the first one, any prefix (its last write whole or torn at 4 KiB), all but one, or any subset (some of them torn).
All of these are judged by the labels that stand before the second flush: whatever such a state holds, the cut can have
come that late.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, TypeVar

from powercut.log import Discard, Event, Flush, Marker, Write

TORN_AT: Final = 4096
_SUBSETS: Final = 6  # random ones between two flushes
_FEW: Final = 2
_HALF: Final = 0.5

_T = TypeVar("_T")


@dataclass(frozen=True)
class Epoch:
    """What happened between two flushes, as indices into the log."""

    end: int
    """The index of the flush, or the length of the log."""
    writes: tuple[int, ...]
    """The writes and discards since the flush before."""
    returned: tuple[str, ...]
    """The labels before `end`."""
    tearable: frozenset[int] = frozenset()
    """Those of the writes that are longer than a disk writes at once."""


@dataclass(frozen=True)
class State:
    epoch: Epoch
    name: str
    kept: tuple[int, ...]
    """Those of the epoch's writes that reached the disk, in the order of the log."""
    torn: tuple[tuple[int, int], ...] = ()
    """Which of them did so in part, with the seed that says which part."""

    def __str__(self) -> str:
        returned = ",".join(self.epoch.returned) or "nothing"
        writes = f"{self.name} of {len(self.epoch.writes)} writes"
        return f"before event {self.epoch.end}, {writes}, returned {returned}"


def epochs(events: Sequence[Event], begin: str, *, heed_flushes: bool = True) -> list[Epoch]:
    """Divides the log at its flushes. The first epoch is the one in which the marker `begin` stands.

    A log that is read without heed of its flushes is one epoch: what a disk does that lies about them.
    """
    found: list[Epoch] = []
    writes: list[int] = []
    returned: list[str] = []
    begun = False
    for index, event in enumerate(events):
        match event:
            case Write() | Discard():
                writes.append(index)
            case Marker(label) if label == begin:
                begun = True
                if not heed_flushes:
                    writes.clear()  # what came before belongs to the mount, and is given
            case Marker(label):
                returned.append(label)
            case Flush() if begun and heed_flushes:
                found.append(_epoch(events, index, writes, returned))
                writes.clear()
            case Flush() if heed_flushes:
                writes.clear()
            case Flush():
                pass
    assert begun, "the recording has no beginning"
    found.append(_epoch(events, len(events), writes, returned))
    return found


def _epoch(
    events: Sequence[Event], end: int, writes: Sequence[int], returned: Sequence[str]
) -> Epoch:
    tearable = frozenset(index for index in writes if _is_tearable(events[index]))
    return Epoch(end, tuple(writes), tuple(returned), tearable)


def _is_tearable(event: Event) -> bool:
    return isinstance(event, Write) and (
        event.offset // TORN_AT != (event.offset + len(event.data) - 1) // TORN_AT
    )


def possible(found: Sequence[Epoch], seed: int) -> Iterator[State]:
    """Yields the states of all epochs, in the order of the log; the same ones for the same seed."""
    for epoch in found:
        yield from _of(epoch, random.Random(f"{seed} {epoch.end}"), last=epoch is found[-1])


def sampled(states: Sequence[_T], count: int, seed: int) -> list[_T]:
    """Takes `count` states (all when it is 0): one, by chance, from each of as many equal stretches."""
    if count == 0 or count >= len(states):
        return list(states)
    choose = random.Random(seed)
    bounds = [number * len(states) // count for number in range(count + 1)]
    return [states[choose.randrange(start, end)] for start, end in pairwise(bounds)]


def _of(epoch: Epoch, choose: random.Random, *, last: bool) -> Iterator[State]:
    writes = epoch.writes
    yield State(epoch, "none", ())
    # All of them is "none" of the next epoch, which is judged by at least as many labels.
    for length in range(1, len(writes) + last):
        yield State(epoch, f"first {length}", writes[:length])
    for lost in range(len(writes) - 1):  # without the last one is a prefix
        yield State(epoch, f"without {lost}", writes[:lost] + writes[lost + 1 :])
    for length, write in enumerate(writes, 1):
        if write in epoch.tearable:
            torn = ((write, choose.getrandbits(32)),)
            yield State(epoch, f"first {length}, torn", writes[:length], torn)
    # Of a few short writes there are no other subsets.
    for number in range(_SUBSETS if epoch.tearable or len(writes) > _FEW else 0):
        kept = tuple(write for write in writes if choose.random() < _HALF)
        yield State(
            epoch,
            f"random {number}",
            kept,
            tuple(
                (write, choose.getrandbits(32))
                for write in kept
                if write in epoch.tearable and choose.random() < _HALF
            ),
        )


def pieces(write: Write, seed: int) -> Iterator[Write]:
    """Yields what reached the disk of a torn write: some of its blocks, each of them whole."""
    choose = random.Random(seed)
    start = 0
    while start < len(write.data):
        end = min(len(write.data), start + TORN_AT - (write.offset + start) % TORN_AT)
        if choose.random() < 0.5:
            yield Write(write.offset + start, write.data[start:end])
        start = end
