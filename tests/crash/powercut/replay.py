"""Mounts crash states, one after the other, on one loop device in memory, and puts back what that has changed."""

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from powercut import linux, states
from powercut.configurations import Configuration
from powercut.device import Place, Recording
from powercut.log import Discard, Event, Write
from powercut.states import State

_CHUNK: Final = 64 << 10

Check = Callable[[Path, Sequence[str]], list[str]]


class Unmountable(Exception):  # noqa: N818 - it says what a state is
    """The filesystem cannot be mounted in this state: its recovery has failed, or the engine is wrong."""


class Replayer:
    """A disk on which the states of one recording are tried, in the order of the log."""

    def __init__(self, place: Place, configuration: Configuration, recording: Recording) -> None:
        self._place = place
        self._configuration = configuration
        self._events = recording.events
        self._applied = 0  # so many events are in `_flushed`
        size = recording.base.stat().st_size
        # What is on the disk for certain. The image differs from it only while a state is tried.
        self._flushed = mmap.mmap(-1, size)  # takes only the memory that is written to
        self._known: set[int] = set()  # its chunks that may hold more than zeros
        self._path = place.root / "state"
        self._image = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.truncate(self._image, size)
        base = os.open(recording.base, os.O_RDONLY)
        try:
            for number in linux.data_chunks(base, _CHUNK):
                self._settle(Write(number * _CHUNK, os.pread(base, _CHUNK, number * _CHUNK)))
        finally:
            os.close(base)
        self._loop = linux.Loop(self._path, direct=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._loop.fd)
        os.close(self._image)
        self._flushed.close()
        self._path.unlink()

    def judge(self, state: State, check: Check) -> list[str]:
        """Says what the check finds in a state, after the filesystem's own recovery."""
        self._advance(state)
        torn = dict(state.torn)
        for index in state.kept:
            event = self._events[index]
            if index in torn and isinstance(event, Write):
                for piece in states.pieces(event, torn[index]):
                    self._apply(piece)
            else:
                self._apply(event)
        try:
            with self._mounted():
                return check(self._place.work, state.epoch.returned)
        finally:
            self._restore()

    @contextmanager
    def _mounted(self) -> Iterator[None]:
        # Without this, pages of the state before are read: losses that never happened.
        self._loop.drop_cache()
        configuration = self._configuration
        mount = linux.mounted(
            self._loop.path, self._place.mountpoint, configuration.kind, configuration.options
        )
        try:
            mount.__enter__()
        except OSError as error:
            raise Unmountable(str(error)) from error
        try:
            yield
        finally:
            mount.__exit__(None, None, None)
            if configuration.kind == "btrfs":
                self._loop.forget_btrfs()

    def _advance(self, state: State) -> None:
        """Brings the certain part of the disk up to the flush at which the state's epoch begins."""
        first = min(state.epoch.writes, default=state.epoch.end)
        assert first >= self._applied, "states are tried in the order of the log"
        for event in self._events[self._applied : first]:
            if isinstance(event, Write):
                self._settle(event)
            elif isinstance(event, Discard):
                self._settle(Write(event.offset, bytes(event.length)))
        self._applied = first

    def _settle(self, write: Write) -> None:
        end = write.offset + len(write.data)
        self._flushed[write.offset : end] = write.data
        self._known.update(range(write.offset // _CHUNK, -(-end // _CHUNK)))
        os.pwrite(self._image, write.data, write.offset)

    def _apply(self, event: Event) -> None:
        if isinstance(event, Write):
            os.pwrite(self._image, event.data, event.offset)
        elif isinstance(event, Discard):
            linux.punch_hole(self._image, event.offset, event.length)

    def _restore(self) -> None:
        """Writes back the chunks that the state, the recovery or the check has changed."""
        for number in self._known.union(linux.data_chunks(self._image, _CHUNK)):
            start = number * _CHUNK
            before = self._flushed[start : start + _CHUNK]
            if os.pread(self._image, _CHUNK, start) == before:
                continue
            if number in self._known:
                os.pwrite(self._image, before, start)
            else:
                linux.punch_hole(self._image, start, _CHUNK)
