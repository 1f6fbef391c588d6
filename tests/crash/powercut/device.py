"""Records what one workload does to a disk: images in memory, the FUSE disk, and the filesystem on it."""

import os
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from powercut import bystander, fuse, linux, log
from powercut.configurations import Configuration
from powercut.interface import Returned, Workload

BEGIN: Final = "powercut: begin"  # the marker before which nothing is judged
_WORK: Final = "work"  # the folder that is the workload's root
_BYSTANDER: Final = "bystander"
_CHUNK: Final = 16 << 10
_ZEROS: Final = bytes(_CHUNK)


@dataclass(frozen=True)
class Place:
    """The folder, a tmpfs in a private mount namespace, in which everything is."""

    root: Path
    outside: int
    """A descriptor of the mount namespace that was left."""

    @classmethod
    def enter(cls, root: Path) -> Self:
        """Leaves the system's mounts for good, and has `root` for itself; all goes with the process."""
        outside = linux.enter_private_mounts()
        linux.mount("powercut", root, "tmpfs", "mode=700")
        place = cls(root, outside)
        for folder in (place.disk, place.mountpoint):
            folder.mkdir()
        return place

    @property
    def disk(self) -> Path:
        return self.root / "disk"

    @property
    def mountpoint(self) -> Path:
        return self.root / "mnt"

    @property
    def work(self) -> Path:
        return self.mountpoint / _WORK


@dataclass(frozen=True)
class Recording:
    """A disk as it was before, and all that it was told since."""

    base: Path
    events: list[log.Event]


def record(
    place: Place, configuration: Configuration, workload: Workload, *, busy: bool
) -> Recording:
    image, base = place.root / "image", place.root / "base"
    _copy_sparse(_template(place, configuration), image)
    with linux.Loop(image, direct=False) as loop, _mounted(loop, place, configuration):
        place.work.mkdir()
        (place.mountpoint / _BYSTANDER).touch()
        workload.prepare(place.work)
    _copy_sparse(image, base)

    log_file = place.root / "log"
    with (
        fuse.exported(image, log_file, place.disk, place.outside),
        linux.Loop(place.disk / fuse.IMAGE, direct=True) as loop,
        _mounted(loop, place, configuration),
        _marking(place.disk / fuse.MARKERS) as mark,
    ):
        neighbour = place.mountpoint / _BYSTANDER

        def returned(label: str) -> None:
            mark(label)
            let_commit()

        with bystander.busy(neighbour) if busy else nullcontext(_not_at_all) as let_commit:
            mark(BEGIN)
            workload.run(place.work, returned)
        # Somebody's fsync comes sooner or later, and takes along what the workload has left uncommitted; the unmount,
        # which writes everything, is recorded as well.
        bystander.append(neighbour)
    return Recording(base, log.read(log_file))


def _not_at_all() -> None:
    """Waits for nobody."""


@contextmanager
def _mounted(loop: linux.Loop, place: Place, configuration: Configuration) -> Iterator[None]:
    with linux.mounted(loop.path, place.mountpoint, configuration.kind, configuration.options):
        yield
    if configuration.kind == "btrfs":
        loop.forget_btrfs()


@contextmanager
def _marking(markers: Path) -> Iterator[Returned]:
    fd = os.open(markers, os.O_WRONLY)

    def mark(label: str) -> None:
        os.write(fd, label.encode())

    try:
        yield mark
    finally:
        os.close(fd)


def _template(place: Place, configuration: Configuration) -> Path:
    """Makes an empty filesystem, once for each way to make one: mkfs takes longer than to copy what it wrote."""
    how = zlib.crc32(repr((configuration.mkfs, configuration.size)).encode())
    made = place.root / f"{how:08x}.template"
    if not made.exists():
        raw = place.root / "raw"
        with raw.open("wb") as file:
            file.truncate(configuration.size)
        subprocess.run(
            [*configuration.mkfs, raw], check=True, capture_output=True, text=True, timeout=60
        )
        _copy_sparse(raw, made)
        raw.unlink()
    return made


def _copy_sparse(source: Path, target: Path) -> None:
    """Copies without the zeros: what is not there need not be compared after each state."""
    with source.open("rb") as src, target.open("wb") as dst:
        dst.truncate(os.fstat(src.fileno()).st_size)
        for number in linux.data_chunks(src.fileno(), _CHUNK):
            chunk = os.pread(src.fileno(), _CHUNK, number * _CHUNK)
            if chunk != _ZEROS[: len(chunk)]:
                os.pwrite(dst.fileno(), chunk, number * _CHUNK)
