"""What a tool leaves beside the path that it was given is never thrown away unasked."""

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import atomik
import pytest
from support.filesystems import Filesystem
from support.trees import tree

EXCHANGES: Final = ["ext4", "xfs", "btrfs", "tmpfs", "overlay"]
with_exchange = pytest.mark.parametrize("fs", EXCHANGES, indirect=True)


# Tools, and stand-ins that behave as such tools do.


@contextmanager
def open_sqlite(path: Path) -> "Iterator[sqlite3.Connection]":
    """Writes a database in WAL mode: `with sqlite3.connect(...)` commits, and does not close."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        with database:
            database.execute("CREATE TABLE apples (weight)")
            database.execute("INSERT INTO apples VALUES (42)")
        yield database


def apples(path: Path) -> list[tuple[int]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT weight FROM apples").fetchall()


def shapefile(path: Path, version: str = "new") -> None:
    for suffix in (".dbf", ".prj", ".shx", ".shp"):
        path.with_suffix(suffix).write_text(f"{version} {suffix}")


def onnx(path: Path, version: str = "new") -> None:
    """A model with external data, which it names by a relative path."""
    path.write_text(f"{version}, data in {path.name}.data")
    path.with_name(path.name + ".data").write_text(version)


def gdal(path: Path, version: str = "new") -> None:
    path.write_text(version)
    path.with_name(path.name + ".aux.xml").write_text(version)


def a_folder_beside(path: Path, version: str = "new") -> None:
    """HTML as browsers save it: a page, and a folder of what it shows."""
    path.write_text(version)
    (folder := path.with_name(f"{path.stem}_files")).mkdir()
    (folder / "picture").write_text(version)


def a_link_beside(path: Path, version: str = "new") -> None:
    path.write_text(version)
    path.with_name("latest").symlink_to(path.name)


TOOLS: Final[dict[str, tuple[Callable[..., None], str, list[str]]]] = {
    "shapefile": (shapefile, "map.shp", ["map.dbf", "map.prj", "map.shp", "map.shx"]),
    "ONNX": (onnx, "model.onnx", ["model.onnx", "model.onnx.data"]),
    "GDAL": (gdal, "map.tif", ["map.tif", "map.tif.aux.xml"]),
    "a folder": (a_folder_beside, "page.html", ["page.html", "page_files", "page_files/picture"]),
    "a symlink": (a_link_beside, "1.log", ["1.log", "latest"]),
}
each_tool = pytest.mark.parametrize(("tool", "name", "made"), TOOLS.values(), ids=TOOLS)


def siblings_of(name: str, made: list[str]) -> list[str]:
    return [other for other in made if other != name and "/" not in other]


# Failures


@each_tool
@pytest.mark.parametrize("options", [{}, {"siblings": "refuse"}], ids=["default", "refuse"])
def test_siblings_are_refused_by_name_and_nothing_is_published(
    fs: Filesystem,
    tool: Callable[..., None],
    name: str,
    made: list[str],
    options: dict[str, Any],
) -> None:
    destination = fs.here / name
    with pytest.raises(atomik.AtomikError) as caught, atomik.path(destination, **options) as path:
        tool(path)
    error = caught.value
    assert (error.errno, error.filename, error.committed) == (
        errno.ENOTEMPTY,
        os.fspath(destination),
        False,
    )
    assert type(error) is atomik.AtomikError
    for word in (*siblings_of(name, made), 'siblings="publish"', 'siblings="discard"'):
        assert word in str(error)
    assert os.listdir(fs.here) == []


def test_a_database_that_is_not_closed_is_refused(here: Path) -> None:
    guard = atomik.path(here / "stock.sqlite")
    with (
        guard as path,
        open_sqlite(path),
        pytest.raises(atomik.AtomikError, match=r"stock\.sqlite-shm, stock\.sqlite-wal"),
    ):
        guard.commit()
    assert os.listdir(here) == []


def test_of_many_siblings_some_are_named(here: Path) -> None:
    with (
        pytest.raises(atomik.AtomikError, match=r"x-00, x-01, x-02, x-03, x-04, 15 more\."),
        atomik.path(here / "x") as path,
    ):
        path.touch()
        for number in range(20):
            path.with_name(f"x-{number:02}").touch()
    assert os.listdir(here) == []


@pytest.mark.parametrize("siblings", ["refuse", "publish", "discard"])
def test_siblings_alone_are_nothing_to_publish(here: Path, siblings: Any) -> None:
    with (
        pytest.raises(FileNotFoundError, match=r"found instead: table\.csv\.gz"),
        atomik.path(here / "table.csv", siblings=siblings) as path,
    ):
        path.with_name("table.csv.gz").touch()
    assert os.listdir(here) == []


@with_exchange
@each_tool
def test_one_sibling_that_exists_refuses_all(
    fs: Filesystem, tool: Callable[..., None], name: str, made: list[str]
) -> None:
    there = fs.here / siblings_of(name, made)[0]
    there.write_text("another's")
    with (
        pytest.raises(atomik.FileAlreadyExistsError) as caught,
        atomik.path(fs.here / name, siblings="publish") as path,
    ):
        tool(path)
    assert os.fsdecode(caught.value.filename).endswith(there.name)
    assert not caught.value.committed
    assert os.listdir(fs.here) == [there.name]
    assert there.read_text() == "another's"


@with_exchange
def test_a_sibling_of_another_type_is_not_replaced(fs: Filesystem) -> None:
    (fs.here / "map.dbf").mkdir()
    (fs.here / "map.shp").write_text("old")
    before = tree(fs.here)
    with (
        pytest.raises(IsADirectoryError),
        atomik.path(fs.here / "map.shp", overwrite=True, siblings="publish") as path,
    ):
        shapefile(path)
    assert tree(fs.here) == before


@pytest.mark.parametrize("option", [{"update": True}, {"backup": "x.old"}, {"tmp_dir": "."}])
def test_publishing_siblings_does_not_go_with_what_a_group_does_not_take(
    here: Path, option: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="siblings"):
        atomik.path(here / "x", siblings="publish", **option)
    assert os.listdir(here) == []


def test_another_word_is_a_value_error(here: Path) -> None:
    with pytest.raises(ValueError, match="'refuse', 'publish' or 'discard', not 'keep'"):
        atomik.path(here / "x", siblings="keep")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("fs", ["bindfs"], indirect=True)
def test_replacing_with_siblings_where_nothing_can_be_exchanged_is_refused_before_the_body(
    fs: Filesystem,
) -> None:
    (fs.here / "map.shp").write_text("old")
    with (
        pytest.raises(atomik.UnsupportedFilesystemError),
        atomik.path(fs.here / "map.shp", overwrite=True, siblings="publish"),
    ):
        pytest.fail("the body ran")
    assert (fs.here / "map.shp").read_text() == "old"


def test_a_member_whose_siblings_are_refused_leaves_nothing_in_the_group(here: Path) -> None:
    (here / "map.shx").touch()
    with atomik.group() as g:
        with pytest.raises(atomik.AtomikError), g.path(here / "other.shp") as path:
            shapefile(path)
        # Twice in one group: after the siblings before it have been added.
        g.write_text(here / "map.prj", "mine")
        with pytest.raises(OSError), g.path(here / "map.shp", siblings="publish") as path:
            shapefile(path)
        # What was withdrawn can come again.
        g.write_text(here / "map.dbf", "mine, too")
    assert sorted(os.listdir(here)) == ["map.dbf", "map.prj", "map.shx"]
    assert (here / "map.dbf").read_text() == "mine, too"


# Successes


@each_tool
def test_siblings_are_published_with_the_entry(
    fs: Filesystem, tool: Callable[..., None], name: str, made: list[str]
) -> None:
    if fs.name == "bindfs" and "_files" in "".join(made):
        pytest.skip("no folder is published there without RENAME_NOREPLACE")
    with atomik.path(fs.here / name, siblings="publish") as path:
        tool(path)
    assert sorted(tree(fs.here)) == made


@with_exchange
@each_tool
def test_siblings_replace_those_before_them(
    fs: Filesystem, tool: Callable[..., None], name: str, made: list[str]
) -> None:
    for version in ("old", "new"):
        with atomik.path(fs.here / name, overwrite=True, siblings="publish") as path:
            tool(path, version)
    assert sorted(tree(fs.here)) == made
    assert "new" in (fs.here / name).read_text()


@pytest.mark.parametrize(("tool", "name"), [row[:2] for row in TOOLS.values()], ids=TOOLS.keys())
def test_siblings_are_discarded_when_asked(
    fs: Filesystem, tool: Callable[..., None], name: str
) -> None:
    with atomik.path(fs.here / name, siblings="discard") as path:
        tool(path)
    assert os.listdir(fs.here) == [name]


@with_exchange
def test_a_sibling_keeps_the_mode_of_what_it_replaces_and_permissions_are_the_entrys(
    fs: Filesystem,
) -> None:
    for suffix in (".shp", ".dbf"):
        (fs.here / f"map{suffix}").touch(0o640)
    options: dict[str, Any] = {"overwrite": True, "permissions": 0o604}
    with atomik.path(fs.here / "map.shp", siblings="publish", **options) as path:
        shapefile(path)
    modes = {name: (fs.here / name).stat().st_mode & 0o777 for name in ("map.shp", "map.dbf")}
    assert modes == {"map.shp": 0o604, "map.dbf": 0o640}


def test_a_database_is_published_with_its_log(here: Path) -> None:
    guard = atomik.path(here / "stock.sqlite", siblings="publish")
    with guard as path, open_sqlite(path):
        guard.commit()
    assert apples(here / "stock.sqlite") == [(42,)]


def test_a_database_that_is_closed_leaves_nothing_beside_it(here: Path) -> None:
    with atomik.path(here / "stock.sqlite") as path, open_sqlite(path):
        pass
    assert os.listdir(here) == ["stock.sqlite"]
    assert apples(here / "stock.sqlite") == [(42,)]


def test_a_database_replaces_one_whose_log_was_left_once_that_was_opened_and_closed(
    here: Path,
) -> None:
    """A log that stands beside the destination is taken for the new database's: the page on tools says what to do."""
    destination = here / "stock.sqlite"
    log = destination.with_name("stock.sqlite-wal")
    with open_sqlite(destination):
        left = log.read_bytes()
    log.write_bytes(left)
    with closing(sqlite3.connect(destination)) as old:
        old.execute("SELECT * FROM apples").fetchall()
    assert not log.exists()
    with atomik.path(destination, overwrite=True) as path, closing(sqlite3.connect(path)) as new:
        new.execute("CREATE TABLE apples (weight)")
        new.execute("INSERT INTO apples VALUES (43)")
        new.commit()
    assert apples(destination) == [(43,)]


def test_a_member_of_a_group_brings_its_siblings(here: Path) -> None:
    with atomik.group() as g:
        with g.path(here / "map.shp", siblings="publish") as path:
            shapefile(path)
        with g.path(here / "map.tif", siblings="discard") as path:
            gdal(path)
        assert [name for name in os.listdir(here) if name.startswith("map")] == []
    assert sorted(os.listdir(here)) == ["map.dbf", "map.prj", "map.shp", "map.shx", "map.tif"]


@pytest.mark.parametrize("siblings", ["refuse", "publish", "discard"])
def test_without_siblings_all_words_do_the_same(fs: Filesystem, siblings: Any) -> None:
    with atomik.path(fs.here / "x", siblings=siblings) as path:
        path.write_text("new")
    assert (fs.here / "x").read_text() == "new"
