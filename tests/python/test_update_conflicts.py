"""Nobody's update is lost: who starts from a version that is no longer there gets `ConflictError`.

Every way to start from the present version meets every way in which somebody else can replace or
remove it meanwhile. Theirs stands, and nothing of the loser's is left.
"""

import errno
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import atomik
import pytest
from support.crowd import Say, Wait, crowd
from support.filesystems import Filesystem
from support.trees import Tree, tree

with_exchange = pytest.mark.parametrize(
    "fs", ["ext4", "xfs", "btrfs", "tmpfs", "overlay"], indirect=True
)


@dataclass(frozen=True)
class Editor:
    """One way to start from the present version and to add a word to it."""

    open: Callable[[Path], AbstractContextManager[Any]]
    add: Callable[[Any, str], None]


def _add_to_file(staging: Any, word: str) -> None:
    staging.seek(0, os.SEEK_END)
    staging.write(word)


def _add_to_folder(staging: Path, word: str) -> None:
    staging.mkdir(exist_ok=True)
    (staging / word).touch()


def _add_at_path(staging: Path, word: str) -> None:
    with staging.open("a") as file:
        file.write(word)


def _options(
    opening: Callable[..., Any], *arguments: Any, **options: Any
) -> Callable[[Path], AbstractContextManager[Any]]:
    def opened(path: Path) -> Any:
        return opening(path, *arguments, durability="none", **options)

    return opened


FILES: Final[Mapping[str, Editor]] = {
    **{mode: Editor(_options(atomik.file, mode), _add_to_file) for mode in ("a", "a+", "r+")},
    "path": Editor(_options(atomik.path, update=True), _add_at_path),
}
FOLDERS: Final[Mapping[str, Editor]] = {
    "folder": Editor(_options(atomik.folder, update=True), _add_to_folder),
    "folder with backup": Editor(
        _options(atomik.folder, update=True, backup="backup"), _add_to_folder
    ),
    "path": Editor(_options(atomik.path, update=True), _add_to_folder),
}


def _edit(editor: Editor) -> Callable[[Path], None]:
    def edit(destination: Path) -> None:
        with editor.open(destination) as staging:
            editor.add(staging, "theirs")

    return edit


def _write(path: Path) -> None:
    atomik.write_bytes(path, b"theirs", overwrite=True, durability="none")


def _open_w(path: Path) -> None:
    with atomik.file(path, "w", overwrite=True, durability="none") as file:
        file.write("theirs")


def _path_to_file(path: Path) -> None:
    with atomik.path(path, overwrite=True, durability="none") as staging:
        staging.write_text("theirs")


def _plain_replace(path: Path) -> None:
    path.with_name("plain").write_text("theirs")
    path.with_name("plain").replace(path)


def _remove_file(path: Path) -> None:
    path.unlink()


def _remove_file_and_make_another(path: Path) -> None:
    path.unlink()
    path.write_text("theirs")


def _symlink(path: Path) -> None:
    path.with_name("plain").symlink_to("theirs")
    path.with_name("plain").replace(path)


OTHERS_OF_FILES: Final[Mapping[str, Callable[[Path], None]]] = {
    **{f"edit with {name}": _edit(editor) for name, editor in FILES.items()},
    "write_bytes": _write,
    "file": _open_w,
    "path": _path_to_file,
    "os.replace": _plain_replace,
    "remove": _remove_file,
    "remove and make": _remove_file_and_make_another,
    "symlink": _symlink,
}


def _replace_folder(path: Path) -> None:
    with atomik.folder(path, overwrite=True, durability="none") as staging:
        (staging / "theirs").touch()


def _path_to_folder(path: Path) -> None:
    with atomik.path(path, overwrite=True, durability="none") as staging:
        staging.mkdir()
        (staging / "theirs").touch()


def _exchange(path: Path) -> None:
    other = path.with_name("other")
    other.mkdir()
    atomik.exchange(path, other)
    shutil.rmtree(other)


def _remove_folder_and_make_another(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


OTHERS_OF_FOLDERS: Final[Mapping[str, Callable[[Path], None]]] = {
    **{
        f"edit with {name}": _edit(editor)
        for name, editor in FOLDERS.items()
        if "backup" not in name
    },
    "replace": _replace_folder,
    "path": _path_to_folder,
    "exchange": _exchange,
    "remove": shutil.rmtree,
    "remove and make": _remove_folder_and_make_another,
}


def _seen(folder: Path) -> Tree:
    """Returns what a folder shows, without what is staged in it now.

    FUSE servers give a file that is removed while it is open a hidden name until it is closed.
    """
    hidden = (".atomik-", ".fuse_hidden")
    return {name: entry for name, entry in tree(folder).items() if not name.startswith(hidden)}


def _is_refused(editor: Editor, other: Callable[[Path], None], destination: Path) -> None:
    guard: Any = editor.open(destination)
    theirs: Tree = {}
    with pytest.raises(atomik.ConflictError) as raised:
        with guard as staging:
            editor.add(staging, "mine")
            other(destination)
            theirs = _seen(destination.parent)
    assert raised.value.errno == errno.ESTALE
    assert raised.value.filename == os.fspath(destination)
    assert not guard.committed
    assert _seen(destination.parent) == theirs
    assert [name for name in theirs if name.split("/")[0] != destination.name] == []


@pytest.mark.parametrize("other", OTHERS_OF_FILES.values(), ids=OTHERS_OF_FILES)
@pytest.mark.parametrize("editor", FILES.values(), ids=FILES)
def test_an_edit_of_a_file_that_somebody_has_replaced_is_refused(
    fs: Filesystem, editor: Editor, other: Callable[[Path], None]
) -> None:
    destination = fs.here / "file"
    destination.write_text("old")
    _is_refused(editor, other, destination)


@with_exchange
@pytest.mark.parametrize("other", OTHERS_OF_FOLDERS.values(), ids=OTHERS_OF_FOLDERS)
@pytest.mark.parametrize("editor", FOLDERS.values(), ids=FOLDERS)
def test_an_update_of_a_folder_that_somebody_has_replaced_is_refused(
    fs: Filesystem, editor: Editor, other: Callable[[Path], None]
) -> None:
    destination = fs.folder("site")
    (destination / "old").touch()
    _is_refused(editor, other, destination)


@pytest.mark.parametrize("name", ["a", "a+", "path"])
def test_a_file_that_appears_where_there_was_nothing_is_a_conflict(
    fs: Filesystem, name: str
) -> None:
    _is_refused(FILES[name], _write, fs.here / "file")


@pytest.mark.parametrize("editor", FOLDERS.values(), ids=FOLDERS)
def test_a_folder_that_appears_where_there_was_nothing_is_a_conflict(
    fs: Filesystem, editor: Editor
) -> None:
    def appear(path: Path) -> None:
        path.mkdir()
        (path / "theirs").touch()

    if fs.name == "bindfs":
        pytest.skip("without RENAME_NOREPLACE an empty folder cannot be told from nothing")
    _is_refused(editor, appear, fs.here / "site")


@with_exchange
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("editors", [FILES, FOLDERS], ids=["files", "folders"])
def test_of_two_edits_of_one_version_the_first_to_commit_stands(
    fs: Filesystem, editors: Mapping[str, Editor], first: int
) -> None:
    # Of each kind with each: they enter in one order, and end in the same or the other one.
    for one in editors.values():
        for other in editors.values():
            destination = fs.here / "destination"
            if editors is FOLDERS:
                destination.mkdir()
            else:
                destination.write_text("old")
            guards: list[Any] = [one.open(destination), other.open(destination)]
            for number, (guard, editor) in enumerate(zip(guards, (one, other), strict=True)):
                editor.add(guard.__enter__(), f"word {number}")
            guards[first].commit()
            stands = tree(destination) if destination.is_dir() else destination.read_bytes()
            with pytest.raises(atomik.ConflictError):
                guards[1 - first].commit()
            assert stands == (
                tree(destination) if destination.is_dir() else destination.read_bytes()
            )
            assert f"word {first}" in str(stands)
            shutil.rmtree(destination) if destination.is_dir() else destination.unlink()
            # The backup of an empty folder is one, too.
            shutil.rmtree(fs.here / "backup", ignore_errors=True)
    assert os.listdir(fs.here) == []


@with_exchange
def test_a_conflict_is_told_even_if_the_first_version_is_back_by_name(fs: Filesystem) -> None:
    destination = fs.folder("site")

    def away_and_another_of_the_same_content(path: Path) -> None:
        path.rename(path.with_name("away"))
        path.mkdir()
        shutil.rmtree(path.with_name("away"))

    _is_refused(FOLDERS["folder"], away_and_another_of_the_same_content, destination)


@with_exchange
def test_a_version_that_went_and_came_back_is_the_same_version(fs: Filesystem) -> None:
    destination = fs.folder("site")
    with atomik.folder(destination, update=True, durability="none") as staging:
        (staging / "mine").touch()
        destination.rename(fs.here / "away")
        (fs.here / "away").rename(destination)
    assert os.listdir(destination) == ["mine"]


def test_a_plain_replacement_asks_for_no_version(fs: Filesystem) -> None:
    destination = fs.here / "file"
    destination.write_text("old")
    with atomik.file(destination, overwrite=True, durability="none") as staging:
        staging.write("mine")
        _write(destination)
    assert destination.read_text() == "mine"


def _count_in_file(destination: Path, word: str) -> None:
    with atomik.file(destination, "a", durability="none") as file:
        file.write(word + "\n")


def _count_in_folder(destination: Path, word: str) -> None:
    with atomik.folder(destination, update=True, durability="none") as staging:
        (staging / word).touch()


@with_exchange
@pytest.mark.parametrize("edit", [_count_in_file, _count_in_folder], ids=["file", "folder"])
def test_every_update_of_many_writers_is_there_in_the_end_or_was_refused(
    fs: Filesystem, edit: Callable[[Path, str], None]
) -> None:
    destination = fs.here / "destination"

    def job(number: int, say: Say, _: Wait) -> None:
        for turn in range(12):
            word = f"{number}-{turn}"
            try:
                edit(destination, word)
            except atomik.ConflictError:
                say("refused")
            else:
                say(word)

    with crowd(job, processes=4, threads=2) as writers:
        said = writers.finish()
    assert len(said) == 4 * 2 * 12
    published = sorted(word for word in said if word != "refused")
    folder = destination.is_dir()
    there = os.listdir(destination) if folder else destination.read_text().split()
    assert sorted(there) == published
    assert published
