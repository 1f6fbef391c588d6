"""Limits of a process and of a quota: what they refuse is refused whole.

A limit is met as a full disk is, at another place: RLIMIT_FSIZE inside a file, RLIMIT_NOFILE at any
call that opens something, a quota at any block, and the largest write(2) in the middle of a write.
"""

import errno
import mmap
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import atomik
import pytest
from support.filesystems import Filesystem

from disks.ground import make_image, mounted_image, or_skip, run
from disks.ways import NEW, PRESENT, WAYS, Trial, Way, each_way, write_all

on_tmpfs: Final = pytest.mark.parametrize("fs", ["tmpfs"], indirect=True)

# What write(2) writes at most in one call, says its man page: larger ones are short.
_LARGEST_WRITE: Final = 0x7FFFF000

# The first subvolume of a btrfs has the number 256. The limit is named by it, seen from outside: inside,
# a quota that is used up does not even let itself be raised.
_QGROUP: Final = "0/256"


@contextmanager
def limited(what: int, soft: int) -> Iterator[None]:
    """Lowers a limit of this process, and of those that it starts, for the time of a block."""
    before, hard = resource.getrlimit(what)
    resource.setrlimit(what, (soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(what, (before, hard))


@pytest.mark.parametrize("fs", ["ext4", "xfs", "btrfs", "tmpfs"], indirect=True)
def test_a_file_size_limit_refuses_what_it_would_cut(fs: Filesystem) -> None:
    # Python ignores SIGXFSZ, so that write(2) answers EFBIG; a tool is killed by it.
    for way in WAYS:
        for limit in (0, 1, 4095, 4096, way.largest // 2, way.largest - 1):
            for present in PRESENT:
                folder = fs.folder(f"{way.name} {limit} {present}")
                trial = Trial(way, folder / "destination", present)
                trial.prepare()
                with limited(resource.RLIMIT_FSIZE, limit):
                    report = trial.attempt()
                assert report.error is not None, repr(trial)
                assert report.error.errno in (errno.EFBIG, None), repr(report)
                assert report.warned == ""
                trial.judge(report)
        trial = Trial(way, fs.here / f"{way.name} destination", None)
        with limited(resource.RLIMIT_FSIZE, way.largest):
            report = trial.attempt()
        assert report.error is None, repr(report)


@pytest.mark.leaves_orphans
@on_tmpfs
@each_way
def test_a_process_without_descriptors_publishes_nothing_or_says_what_stays(
    fs: Filesystem, way: Way
) -> None:
    """Even what it cannot remove, for want of one, it names; the next writer removes it."""
    for present in PRESENT:
        # The first attempt of a process imports what later ones have: it is not what is counted.
        first = Trial(way, fs.folder(f"first {present}") / "destination", present)
        first.prepare()
        first.write()
        refused = 0
        while True:
            trial = Trial(way, fs.here / f"{refused} {present}" / "destination", present)
            trial.prepare()
            with _descriptors(refused):
                report = trial.attempt()
            trial.judge(report)
            if report.error is None and report.warned == "":
                break
            if report.error is not None:
                expected = report.error.errno == errno.EMFILE or not report.is_of_the_library
                assert expected, repr(report)
            trial.write_again()
            refused += 1
            assert refused < 40, "there were never enough descriptors"
        assert refused > 0


@contextmanager
def _descriptors(available: int) -> Iterator[None]:
    """Leaves this process no more than some descriptors that it can open."""
    with ExitStack() as undo:
        # All numbers below the highest one are taken first: descriptors fill gaps.
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        while (fd := os.open("/", os.O_PATH)) < highest:
            undo.callback(os.close, fd)
        os.close(fd)
        undo.enter_context(limited(resource.RLIMIT_NOFILE, fd + available))
        yield


@on_tmpfs
@each_way
def test_a_quota_that_is_used_up_leaves_the_old_version(fs: Filesystem, way: Way) -> None:
    with _quota(fs) as quota:
        for present in PRESENT:
            trial = Trial(way, quota.folder / str(present) / "destination", present)
            trial.prepare()
            refused = 0
            # Metadata is reserved by the node, at its worst: much more than is then used.
            for room in (0, *(1 << bits for bits in range(15, 24))):
                quota.leave(room)
                report = trial.write()
                if report.error is None:
                    break
                assert report.error.errno in (errno.EDQUOT, None), repr(report)
                assert not report.committed
                refused += 1
            assert refused > 0
            assert trial.version() == NEW
            quota.lift()


@dataclass(frozen=True)
class Quota:
    """A folder of a btrfs that may hold so much and no more."""

    root: Path

    @property
    def folder(self) -> Path:
        return self.root / "limited"

    def leave(self, room: int) -> None:
        """Leaves room for so many bytes more than there are."""
        # Accounts are made up with a transaction: what was freed before it still counts.
        run("btrfs", "filesystem", "sync", self.root)
        shown = run("btrfs", "qgroup", "show", "--raw", self.root)
        (used,) = (line.split()[1] for line in shown.splitlines() if line.startswith(_QGROUP))
        run("btrfs", "qgroup", "limit", str(int(used) + room), _QGROUP, self.root)

    def lift(self) -> None:
        run("btrfs", "qgroup", "limit", "none", _QGROUP, self.root)


@contextmanager
def _quota(fs: Filesystem) -> Iterator[Quota]:
    """A btrfs, as the one whose quotas need neither a module nor a mount option."""
    image = fs.here / "quota.img"
    with ExitStack() as undo:
        with or_skip():
            undo.callback(image.unlink, missing_ok=True)
            make_image(image, "btrfs", 256 << 20)
            root = undo.enter_context(mounted_image(image, fs.here / "quota", "btrfs"))
            run("btrfs", "quota", "enable", root)
            run("btrfs", "subvolume", "create", root / "limited")
        yield Quota(root)


@pytest.fixture
def vast(fs: Filesystem) -> Iterator[Path]:
    """A folder that takes gigabytes of zeros, and hardly a byte of memory or disk for them."""
    image = fs.here / "vast.img"
    with ExitStack() as undo:
        with or_skip():
            undo.callback(image.unlink, missing_ok=True)
            make_image(image, "btrfs", 4 << 30)
            options = ("compress-force=zstd:1",)
            root = undo.enter_context(mounted_image(image, fs.here / "vast", "btrfs", *options))
        yield root


def _write_bytes(destination: Path, data: memoryview) -> None:
    atomik.write_bytes(destination, data, durability="none")


def _write_at_once(destination: Path, data: memoryview) -> None:
    with atomik.file(destination, "wb", durability="none") as file:
        file.write(data)


def _write_unbuffered(destination: Path, data: memoryview) -> None:
    with atomik.file(destination, "wb", buffering=0, durability="none") as file:
        write_all(file.write, data)


@on_tmpfs
@pytest.mark.parametrize(
    "write",
    [
        _write_bytes,
        pytest.param(_write_at_once, marks=pytest.mark.slow),
        pytest.param(_write_unbuffered, marks=pytest.mark.slow),
    ],
    ids=["write_bytes", "at once", "unbuffered"],
)
def test_a_write_that_is_larger_than_the_kernel_takes_is_complete(
    vast: Path, write: Callable[[Path, memoryview], None]
) -> None:
    end = b"the end"
    destination = vast / "destination"
    with mmap.mmap(-1, _LARGEST_WRITE + 1 + len(end), mmap.MAP_PRIVATE) as zeros:
        zeros[-len(end) :] = end
        # Reading it, all of its pages but the last are the one page of zeros.
        with memoryview(zeros) as data:
            write(destination, data)
        with destination.open("rb") as file:
            assert os.fstat(file.fileno()).st_size == len(zeros)
            file.seek(-len(end), os.SEEK_END)
            assert file.read() == end
