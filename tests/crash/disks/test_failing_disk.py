"""A disk whose writes fail when they are written back: what no `write` has told, fsync must.

The disk is a sparse file on a tmpfs that is full: a block that has been there before can be written again,
a new one is an I/O error. Each trial starts from a new disk with a little more room, so that the failure
comes at one step of the commit after another: at the content, at the journal before the publish, at the
journal after it. Then there is room, the disk is repaired as an administrator would, and mounted again.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import atomik
import pytest
from support.filesystems import Filesystem

from disks.ground import Blocks, Kind, make_image, mounted, mounted_image, or_skip, run, sync
from disks.ways import NEW, OLD, WAYS, Report, Trial, Way, each

pytestmark = [
    pytest.mark.leaves_orphans,
    pytest.mark.parametrize("fs", ["tmpfs"], indirect=True),
]

# In blocks: in small steps where content and journal of ext4 and xfs are, and as far as btrfs goes.
_ROOMS: Final = (0, 4, 8, 12, 16, 20, 24, 32, 40, 48, 64, 128, 256, 1024)

# e2fsck(8): 0 no errors, 1 corrected, 2 corrected and a reboot is advised.
_REPAIRED: Final = (0, 1, 2)


@dataclass(frozen=True)
class Model:
    """A filesystem and what it is told to do about errors."""

    kind: Kind
    size: int
    making: tuple[str, ...] = ()
    mounting: tuple[str, ...] = ()
    is_readable_after_an_error: bool = True


# Blocks of 4 KiB: the loop device counts what was written of a request of more as all of it.
_EXT4: Final = ("-b", "4096")
MODELS: Final = {
    "ext4": Model("ext4", 16 << 20, _EXT4),
    "ext4, errors=continue": Model("ext4", 16 << 20, _EXT4, ("errors=continue",)),
    "ext4, data_err=abort": Model("ext4", 16 << 20, _EXT4, ("data_err=abort",)),
    "xfs": Model("xfs", 300 << 20),
    # After a transaction that failed it answers EIO to everything.
    "btrfs": Model("btrfs", 128 << 20, is_readable_after_an_error=False),
}


@dataclass(frozen=True)
class FailingDisk:
    """An image on a tmpfs of its own, and the room that is left there."""

    model: Model
    image: Path
    root: Path
    room: Blocks

    @contextmanager
    def mounted(self) -> Iterator[None]:
        with mounted_image(self.image, self.root, self.model.kind, *self.model.mounting):
            # The loop device counts a request that its file took a part of as written. No request
            # is larger than a block now, which is written or is not.
            _limit_requests(self.root)
            yield

    def repair(self) -> None:
        """Makes room, and does what must be done before it can be mounted again."""
        self.room.relent()
        if self.model.kind == "ext4":
            # A journal that failed half way does not mount.
            run("e2fsck", "-fy", self.image, accept=_REPAIRED)


def _limit_requests(root: Path) -> None:
    source = run("findmnt", "-n", "-o", "SOURCE", root).strip()
    (Path("/sys/block") / Path(source).name / "queue" / "max_sectors_kb").write_text("4")


@contextmanager
def failing_disk(fs: Filesystem, model: Model) -> Iterator[FailingDisk]:
    with ExitStack() as undo:
        with or_skip():
            backing = undo.enter_context(
                mounted(fs.here / "backing", "-t", "tmpfs", "-o", "size=96m", "tmpfs")
            )
            image = backing / "image"
            make_image(image, model.kind, model.size, *model.making)
            disk = FailingDisk(model, image, fs.here / "disk", Blocks(backing / "ballast"))
            with disk.mounted():
                pass
        yield disk


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@each(way for way in WAYS if way.name in ("write_bytes", "folder"))
def test_a_write_that_fails_behind_our_back_publishes_nothing(
    fs: Filesystem, model: Model, way: Way
) -> None:
    refused = 0
    for room in _ROOMS:
        with failing_disk(fs, model) as disk:
            report = _try_with_room_for(room, disk, way)
        if report.error is None:
            break
        refused += not report.committed
    else:
        pytest.fail("there was never enough room")
    assert refused > 0


def _try_with_room_for(blocks: int, disk: FailingDisk, way: Way) -> Report:
    trial = Trial(way, disk.root / "parent" / "destination", OLD)
    with disk.mounted():
        trial.prepare(durability="full")
        # Everything that has been delayed so far finds its blocks now.
        sync(disk.root)
        disk.room.exhaust()
        disk.room.give_back(blocks)
        report = trial.attempt()
        if disk.model.is_readable_after_an_error or report.error is None:
            trial.judge(report)
    if report.error is not None:
        assert isinstance(report.error, atomik.errors.DurabilityError), repr(report)
    disk.repair()
    with disk.mounted():
        if report.error is None:
            assert trial.version() == NEW
        elif report.committed:
            assert trial.version() in (OLD, NEW)
        else:
            assert trial.version() == OLD
        trial.write_again()
    return report
