"""The ground goes while the body runs: the disk, the right to write, the parent, the destination.

The user's code does it as the last thing in the body, when all is written. The library is told by the
commit's own calls and by nothing else; what it then reports must be what is found afterwards.
"""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import atomik
import pytest
from support.filesystems import Filesystem, leftovers

from disks.ground import (
    Kind,
    make_image,
    mounted,
    mounted_image,
    or_skip,
    run,
    shut_down,
    sync,
)
from disks.ways import NEW, OLD, PRESENT, WITH_BODY, Trial, Way, each

_SIZES: Final[dict[Kind, int]] = {"ext4": 16 << 20, "xfs": 300 << 20}
everywhere: Final = pytest.mark.parametrize(
    "fs", ["ext4", "xfs", "btrfs", "tmpfs", "overlay"], indirect=True
)
on_tmpfs: Final = pytest.mark.parametrize("fs", ["tmpfs"], indirect=True)

each_with_body = each(WITH_BODY)
each_staged_by_name = each(way for way in WITH_BODY if way.is_staged_by_name)


@on_tmpfs
@pytest.mark.leaves_orphans
@pytest.mark.parametrize("kind", _SIZES)
@each_with_body
def test_a_disk_that_goes_in_the_body_has_the_old_version_when_it_is_back(
    fs: Filesystem, kind: Kind, way: Way
) -> None:
    with _image(fs, kind) as image:
        root = fs.here / "disk"
        for present in PRESENT:
            trial = Trial(way, root / str(present) / "destination", present)
            with mounted_image(image, root, kind):
                trial.prepare(durability="full")
                sync(root)
                report = trial.attempt(partial(shut_down, root))
            assert report.is_of_the_library
            assert report.error is not None
            assert report.error.errno == errno.EIO
            assert not report.committed
            with mounted_image(image, root, kind):
                assert trial.version() == present
                trial.write_again()


@contextmanager
def _image(fs: Filesystem, kind: Kind) -> Iterator[Path]:
    """A disk that this kernel can mount: from here on, not to mount it is a failure."""
    image = fs.here / "disk.img"
    try:
        with or_skip():
            make_image(image, kind, _SIZES[kind])
            with mounted_image(image, fs.here / "disk", kind):
                pass
        yield image
    finally:
        image.unlink(missing_ok=True)


@contextmanager
def _bind_mount(fs: Filesystem) -> Iterator[Path]:
    with ExitStack() as undo:
        with or_skip():
            above = undo.enter_context(mounted(fs.here / "above", "--bind", fs.folder("below")))
        yield above


@pytest.mark.leaves_orphans
@pytest.mark.parametrize("fs", ["ext4", "tmpfs"], indirect=True)
@each_staged_by_name
def test_a_mount_that_becomes_read_only_in_the_body_keeps_the_old_version(
    fs: Filesystem, way: Way
) -> None:
    with _bind_mount(fs) as above:
        for present in PRESENT:
            trial = Trial(way, above / str(present) / "destination", present)
            trial.prepare()
            report = trial.attempt(lambda: run("mount", "-o", "remount,bind,ro", above))
            assert report.is_of_the_library
            assert report.error is not None
            assert report.error.errno == errno.EROFS
            assert not report.committed
            trial.judge(report)
            run("mount", "-o", "remount,bind,rw", above)
            trial.write_again()


@on_tmpfs
def test_the_kernel_lets_no_mount_become_read_only_under_an_open_file(fs: Filesystem) -> None:
    """It is why the test above has no file in it."""
    with _bind_mount(fs) as above:
        with atomik.file(above / "destination"):
            with pytest.raises(subprocess.CalledProcessError) as refused:
                run("mount", "-o", "remount,bind,ro", above)
        assert "busy" in refused.value.stderr


@everywhere
def test_a_parent_that_is_removed_in_the_body_does_not_come_back(fs: Filesystem) -> None:
    for way in WITH_BODY:
        for present in PRESENT:
            trial = Trial(way, fs.here / f"{way.name} {present}" / "destination", present)
            trial.prepare()
            report = trial.attempt(partial(shutil.rmtree, trial.destination.parent))
            assert isinstance(report.error, atomik.ConflictError), repr(report)
            assert report.is_of_the_library
            assert not report.committed
            assert report.warned == ""
            assert not trial.destination.parent.exists()


@everywhere
def test_a_parent_that_is_moved_in_the_body_takes_the_destination_with_it(fs: Filesystem) -> None:
    for way in WITH_BODY:
        for present in PRESENT:
            trial = Trial(way, fs.here / f"{way.name} {present}" / "destination", present)
            trial.prepare()
            moved = trial.destination.parent.with_suffix(".moved")
            report = trial.attempt(partial(_move_parent, trial, moved))
            assert report.error is None, repr(report)
            assert report.warned == ""
            assert way.read(moved / "destination") == NEW
            assert trial.version() == present
            assert leftovers(moved) == []


def _move_parent(trial: Trial, moved: Path) -> None:
    """Moves the parent away and puts an equal one in its place."""
    trial.destination.parent.rename(moved)
    trial.prepare()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


@everywhere
def test_a_destination_that_is_removed_in_the_body_is_published_all_the_same(
    fs: Filesystem,
) -> None:
    for way in WITH_BODY:
        trial = Trial(way, fs.here / way.name / "destination", OLD)
        trial.prepare()
        report = trial.write(partial(_remove, trial.destination))
        assert report.error is None, repr(report)


@everywhere
def test_a_destination_that_appears_in_the_body_stands(fs: Filesystem) -> None:
    for way in WITH_BODY:
        trial = Trial(way, fs.here / way.name / "destination", None)
        trial.prepare()
        other = Trial(way, trial.destination, OLD)
        report = trial.attempt(other.prepare)
        assert isinstance(report.error, atomik.errors.FileAlreadyExistsError), repr(report)
        # It is the other's version that must be complete now.
        assert report.warned == ""
        other.judge(report)


@everywhere
def test_a_destination_of_another_type_that_appears_in_the_body_stands(fs: Filesystem) -> None:
    for way in WITH_BODY:
        for present in PRESENT:
            trial = Trial(way, fs.here / f"{way.name} {present}" / "destination", present)
            trial.prepare()
            report = trial.attempt(partial(_put_another_type, trial), overwrite=True)
            expected = NotADirectoryError if way.is_folder else IsADirectoryError
            assert isinstance(report.error, expected), repr(report)
            assert not report.committed
            assert report.warned == ""
            if way.is_folder:
                assert trial.destination.read_text() == "other"
            else:
                assert os.listdir(trial.destination) == ["other"]
            assert leftovers(trial.destination.parent) == []


def _put_another_type(trial: Trial) -> None:
    if trial.present is not None:
        _remove(trial.destination)
    if trial.way.is_folder:
        trial.destination.write_text("other")
    else:
        trial.destination.mkdir()
        (trial.destination / "other").touch()
