"""The library's calls in one shape, so that one test can make a promise for all of them."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import atomik

if TYPE_CHECKING:
    from io import BufferedWriter

NEW: Final = b"new"

AnyPath: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
Body: TypeAlias = Callable[[], object]
Publish: TypeAlias = Callable[..., None]


def nothing() -> None:
    """Is the body of a call that has nothing more to do."""


@dataclass
class Attempt:
    """How one call ended."""

    error: OSError | None = None
    body_ran: bool = False


def attempt(publish: Publish, destination: AnyPath, **options: Any) -> Attempt:
    """Makes a call and reports how it ended and whether its body had begun."""
    result = Attempt()

    def body() -> None:
        result.body_ran = True

    try:
        publish(destination, body, **options)
    except OSError as error:
        result.error = error
    return result


def file(destination: AnyPath, body: Body = nothing, **options: Any) -> None:
    guard = cast("atomik.File[BufferedWriter]", atomik.file(destination, "wb", **options))
    with guard as staging:
        body()
        staging.write(NEW)


def write_bytes(destination: AnyPath, _body: Body = nothing, **options: Any) -> None:
    atomik.write_bytes(destination, NEW, **options)


def write_text(destination: AnyPath, _body: Body = nothing, **options: Any) -> None:
    atomik.write_text(destination, NEW.decode(), **options)


def folder(destination: AnyPath, body: Body = nothing, **options: Any) -> None:
    with atomik.folder(destination, **options) as staging:
        body()
        fill(staging)


def path_to_file(destination: AnyPath, body: Body = nothing, **options: Any) -> None:
    with atomik.path(destination, **options) as staging:
        body()
        staging.write_bytes(NEW)


def path_to_folder(destination: AnyPath, body: Body = nothing, **options: Any) -> None:
    with atomik.path(destination, **options) as staging:
        body()
        staging.mkdir()
        fill(staging)


def fill(folder: Path) -> None:
    """Writes the new version of a folder."""
    (folder / "inner").mkdir()
    (folder / "new").write_bytes(NEW)
    (folder / "inner" / "new").write_bytes(NEW)


MAKING_FILES: Final[Mapping[str, Publish]] = {
    "file": file,
    "write_bytes": write_bytes,
    "write_text": write_text,
    "path to a file": path_to_file,
}
MAKING_FOLDERS: Final[Mapping[str, Publish]] = {
    "folder": folder,
    "path to a folder": path_to_folder,
}
ALL: Final[Mapping[str, Publish]] = {**MAKING_FILES, **MAKING_FOLDERS}


def file_in_group(destination: AnyPath, body: Body, group: atomik.Group, **options: Any) -> None:
    with cast("atomik.File[BufferedWriter]", group.file(destination, "wb", **options)) as staging:
        body()
        staging.write(NEW)


def write_bytes_in_group(
    destination: AnyPath, _body: Body, group: atomik.Group, **options: Any
) -> None:
    group.write_bytes(destination, NEW, **options)


def write_text_in_group(
    destination: AnyPath, _body: Body, group: atomik.Group, **options: Any
) -> None:
    group.write_text(destination, NEW.decode(), **options)


def folder_in_group(destination: AnyPath, body: Body, group: atomik.Group, **options: Any) -> None:
    with group.folder(destination, **options) as staging:
        body()
        fill(staging)


def path_to_file_in_group(
    destination: AnyPath, body: Body, group: atomik.Group, **options: Any
) -> None:
    with group.path(destination, **options) as staging:
        body()
        staging.write_bytes(NEW)


def path_to_folder_in_group(
    destination: AnyPath, body: Body, group: atomik.Group, **options: Any
) -> None:
    with group.path(destination, **options) as staging:
        body()
        staging.mkdir()
        fill(staging)


IN_GROUP: Final[Mapping[str, Publish]] = {
    "file": file_in_group,
    "write_bytes": write_bytes_in_group,
    "write_text": write_text_in_group,
    "path to a file": path_to_file_in_group,
    "folder": folder_in_group,
    "path to a folder": path_to_folder_in_group,
}
"""The same as members of a group."""


def add_all(group: atomik.Group, here: Path) -> None:
    """Adds five members of all kinds, in two folders."""
    group.write_text(here / "one/file", "new", overwrite=True)
    with group.folder(here / "two/folder", overwrite=True) as staging:
        (staging / "new").write_text("new")
    group.write_bytes(here / "one/bytes", b"new")
    with group.file(here / "two/text") as file:
        file.write("new")
    with group.path(here / "one/tool.csv") as path:
        path.write_text("new")
