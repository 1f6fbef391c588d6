"""The three guards in one shape: a version is a word, and reading one proves that it is complete."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import atomik
import pytest

AnyGuard: TypeAlias = "atomik.File[Any] | atomik.Folder | atomik.Entry"


@dataclass(frozen=True)
class Kind:
    """One kind of guard: how to open it, to write a version in its body, and to read one.

    What `write` has written may still be in a buffer; writing again replaces it.
    """

    name: str
    open: Callable[..., AnyGuard]
    write: Callable[[Any, str], None]
    read: Callable[[Path], str]

    def publish(self, destination: Path, version: str, **options: Any) -> None:
        with self.open(destination, **options) as staging:
            self.write(staging, version)


def _write_file(staging: Any, version: str) -> None:
    staging.seek(0)
    staging.write(version)
    staging.truncate()
    # truncate() has flushed: this last character is in the buffer when the body goes on.
    staging.write("\n")


def _read_file(destination: Path) -> str:
    text = destination.read_text()
    assert text.endswith("\n")
    return text[:-1]


def _write_folder(staging: Path, version: str) -> None:
    (staging / "inner").mkdir(exist_ok=True)
    for name in ("one", "inner/two"):
        (staging / name).write_text(version)


def _read_folder(destination: Path) -> str:
    names = {os.fspath(path.relative_to(destination)) for path in destination.rglob("*")}
    assert names == {"one", "inner", "inner/two"}
    one, two = (destination / "one").read_text(), (destination / "inner" / "two").read_text()
    assert one == two
    return one


def _write_path(staging: Path, version: str) -> None:
    staging.write_text(version)


KINDS: Final = {
    "file": Kind("file", atomik.file, _write_file, _read_file),
    "folder": Kind("folder", atomik.folder, _write_folder, _read_folder),
    "path": Kind("path", atomik.path, _write_path, Path.read_text),
}

each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: str(kind.name))
