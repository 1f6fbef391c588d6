"""A disk that is full at every offset: nothing but what is complete is ever published.

The disk is filled to the last block (or inode), then given back one by one, and after each a new
version is tried, until there is room for it: so the disk has been full before every block of it.
"""

import errno
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from support.filesystems import Filesystem

from disks.ground import SMALL, Disk, Supply, small_disk
from disks.ways import NEW, PRESENT, WITH_BODY, Report, Trial, Way, each, each_way

pytestmark = pytest.mark.parametrize("fs", ["tmpfs"], indirect=True)

each_disk = pytest.mark.parametrize("disk", SMALL, indirect=True)

# More than any version takes: without an end a writer that never succeeds would run out of ballast.
_STEPS = 120


@pytest.fixture
def disk(fs: Filesystem, request: pytest.FixtureRequest) -> Iterator[Disk]:
    with small_disk(fs, request.param) as disk:
        yield disk


def refusals(trial: Trial, supply: Supply) -> list[Report]:
    """Tries, giving back a little each time, until there is room; returns all tries but the last."""
    refused: list[Report] = []
    supply.exhaust()
    while (report := trial.write()).error is not None:
        # A tool's error has no number: its own message says why it ended.
        assert report.error.errno in (errno.ENOSPC, None), repr(report)
        assert not report.committed
        refused.append(report)
        assert len(refused) < _STEPS, "there was never enough room"
        supply.give_back()
    return refused


@each_disk
@each_way
def test_a_disk_that_is_full_at_any_offset_leaves_the_old_version(disk: Disk, way: Way) -> None:
    trials = [Trial(way, disk.folder / str(what) / "destination", what) for what in PRESENT]
    for trial in trials:
        trial.prepare()
    for trial in trials:
        assert refusals(trial, disk.supply)
        assert trial.version() == NEW


@pytest.mark.parametrize("disk", ["ext4, blocks"], indirect=True)
@each(WITH_BODY)
def test_a_publish_that_finds_no_room_for_a_name_leaves_the_old_version(
    disk: Disk, way: Way
) -> None:
    """The content has its blocks; the one that a longer list of names takes is not there."""
    for present in PRESENT:
        trial = Trial(way, disk.folder / str(present) / "destination", present)
        trial.prepare()
        # Without a sync the only step after the body that takes a block is the publish.
        report = trial.write(partial(_use_up, disk, trial.destination.parent), durability="none")
        if way.name == "tool_file" and present is not None:
            # It is renamed from one name that is there to another.
            assert report.error is None
        else:
            assert report.is_of_the_library
            assert report.error is not None
            assert report.error.errno == errno.ENOSPC
            assert not report.committed
        disk.supply.relent()
        trial.write_again()


def _use_up(disk: Disk, folder: Path) -> None:
    """Fills a disk, and then what ext4 has given to a folder, to the last name."""
    disk.supply.exhaust()
    for length in (200, 20, 1):
        with pytest.raises(OSError) as full:
            for number in count():
                # Links take no inodes, of which there are few.
                (folder / f"{number:0{length}}").hardlink_to(disk.folder.parent / "ballast")
        assert full.value.errno == errno.ENOSPC
