"""`f.name` is the destination: what a tool writes there by that name is not lost silently."""

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import atomik
import pytest
from support.filesystems import Filesystem


def _overwrites(name: str) -> None:
    Path(name).write_text("a tool's")


def _in_a_shell(name: str) -> None:
    subprocess.run(["sh", "-c", 'printf %s "a tool\'s" > "$0"', name], check=True)


def _renames(name: str) -> None:
    Path(name + ".tmp").write_text("a tool's")
    os.replace(name + ".tmp", name)


def _removes_first(name: str) -> None:
    Path(name).unlink(missing_ok=True)
    Path(name).write_text("a tool's")


TOOLS: Final = {
    "overwrites": _overwrites,
    "in a shell": _in_a_shell,
    "renames": _renames,
    "removes first": _removes_first,
}
each_tool = pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)


def assert_conflict(error: OSError, destination: Path) -> None:
    assert type(error) is atomik.ConflictError
    assert (error.errno, error.filename) == (errno.ESTALE, os.fspath(destination))
    assert not error.committed
    assert "atomik.path" in str(error)
    assert "f.name" in str(error)
    assert destination.read_text() == "a tool's"


@each_tool
@pytest.mark.parametrize("mode", ["w", "wb", "w+"])
@pytest.mark.parametrize("old", [None, "", "old", "a tool@s"])
def test_what_a_tool_has_written_by_name_is_not_emptied(
    fs: Filesystem, tool: Callable[[str], None], mode: atomik.OpenMode, old: str | None
) -> None:
    destination = fs.here / "out.csv"
    if old is not None:
        destination.write_text(old)
        # Longer ago than the kernel's clock for times takes to tick.
        os.utime(destination, (1, 1))
    guard = atomik.file(destination, mode, overwrite=True)
    with pytest.raises(OSError) as caught, guard as f:
        tool(f.name)
    assert_conflict(caught.value, destination)
    assert os.listdir(fs.here) == ["out.csv"]


@each_tool
def test_nor_in_a_group(here: Path, tool: Callable[[str], None]) -> None:
    destination = here / "out.csv"
    with atomik.group() as g:
        with pytest.raises(OSError) as caught, g.file(destination, overwrite=True) as f:
            tool(f.name)
        g.write_text(here / "other", "new")
    assert_conflict(caught.value, destination)
    assert sorted(os.listdir(here)) == ["other", "out.csv"]


def test_nor_where_a_backup_is_kept(here: Path) -> None:
    destination = here / "out.csv"
    destination.write_text("old")
    guard = atomik.file(destination, overwrite=True, backup="out.old")
    with pytest.raises(OSError) as caught, guard as f:
        _renames(f.name)
    assert_conflict(caught.value, destination)
    assert os.listdir(here) == ["out.csv"]


@each_tool
def test_without_overwrite_the_refusal_names_the_way(
    fs: Filesystem, tool: Callable[[str], None]
) -> None:
    destination = fs.here / "out.csv"
    with (
        pytest.raises(atomik.FileAlreadyExistsError, match=r"f\.name.*atomik\.path"),
        atomik.file(destination) as f,
    ):
        tool(f.name)
    assert destination.read_text() == "a tool's"


@pytest.mark.parametrize("mode", ["a", "r+", "rb+"])
def test_what_is_appended_by_name_is_not_lost_to_a_copy_from_before(
    fs: Filesystem, mode: atomik.OpenMode
) -> None:
    destination = fs.here / "log"
    destination.write_text("old\n")
    with pytest.raises(atomik.ConflictError), atomik.file(destination, mode) as f:
        with open(f.name, "a") as tool:
            tool.write("a tool's\n")
        f.write("new\n" if mode != "rb+" else b"new\n")
    assert destination.read_text() == "old\na tool's\n"


def test_an_update_at_a_path_sees_that_a_file_was_written_in_place(here: Path) -> None:
    destination = here / "log"
    destination.write_text("old\n")
    with pytest.raises(atomik.ConflictError), atomik.path(destination, update=True):
        destination.write_text("new\n")
    assert destination.read_text() == "new\n"


# What is no loss


def test_what_the_body_has_written_replaces_as_ever(fs: Filesystem) -> None:
    destination = fs.here / "out.csv"
    with atomik.file(destination, overwrite=True) as f:
        _overwrites(f.name)
        f.write("new")
    assert destination.read_text() == "new"


def test_an_empty_version_replaces_what_stood_there_at_the_start(fs: Filesystem) -> None:
    destination = fs.here / "out.csv"
    destination.write_text("old")
    with atomik.file(destination, overwrite=True):
        pass
    assert destination.read_text() == ""


def test_many_may_publish_an_empty_mark(fs: Filesystem) -> None:
    destination = fs.here / "done"
    with atomik.file(destination, overwrite=True):
        with atomik.file(destination, overwrite=True):
            pass
        destination.touch()
    assert destination.read_text() == ""


def test_write_bytes_empties_what_it_replaces(here: Path) -> None:
    (here / "x").write_text("old")
    atomik.write_bytes(here / "x", b"", overwrite=True)
    assert (here / "x").read_text() == ""
