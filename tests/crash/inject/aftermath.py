"""The next writer to a destination: it publishes, and removes whatever was left there.

Of a group there is one for each destination, in the group's order.
"""

import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import atomik
import atomik.errors
from support import kernel

from inject.bench import Bench, Outcome
from inject.worlds import BACKUP, ELSEWHERE, State, look

_NEXT: Final = b"next"
_MARK: Final = ".atomik-backup"

Writer = Callable[..., None]

# Which overload is meant, the options say: no type checker knows.
_open: Final[Callable[..., atomik.File[Any]]] = atomik.file


def _write_bytes(destination: Path, **options: Any) -> None:
    atomik.write_bytes(destination, _NEXT, **options)


def _file(destination: Path, **options: Any) -> None:
    with _open(destination, "wb", **options) as staging:
        staging.write(_NEXT)


def _path_to_file(destination: Path, **options: Any) -> None:
    with atomik.path(destination, **options) as staging:
        staging.write_bytes(_NEXT)


def _folder(destination: Path, **options: Any) -> None:
    with atomik.folder(destination, **options) as staging:
        (staging / "next").write_bytes(_NEXT)


def _path_to_folder(destination: Path, **options: Any) -> None:
    with atomik.path(destination, **options) as staging:
        staging.mkdir()
        (staging / "next").write_bytes(_NEXT)


_FILES: Final[tuple[Writer, ...]] = (_write_bytes, _file, _path_to_file)
_FOLDERS: Final[tuple[Writer, ...]] = (_folder, _path_to_folder)


def unmended(bench: Bench, outcome: Outcome) -> Iterator[str]:
    """Lets each possible next writer work on a copy of what is there; says what each has left."""
    destinations = bench.operation.destinations
    choices = [_FOLDERS if bench.makes_a_folder[name] else _FILES for name in destinations]
    # By turns, so that each kind comes once.
    for turn in range(max(map(len, choices))):
        writers = {
            name: kinds[turn % len(kinds)]
            for name, kinds in zip(destinations, choices, strict=True)
        }
        # A writer of something new asks the kernel for less than one that replaces, and sees less.
        for overwrite in (True, False):
            if overwrite or not all((outcome.here / name).exists() for name in destinations):
                here = outcome.here.with_name("copy")
                _copy(outcome.here, here)
                try:
                    with bench.operation.neighbour(here):
                        yield from _left_by(writers, bench, outcome, here, overwrite=overwrite)
                finally:
                    shutil.rmtree(here)


def _copy(here: Path, to: Path) -> None:
    """Copies a world with what its marks say: versions, which they know by their inodes."""
    shutil.copytree(here, to, symlinks=True)
    # Not a pattern for the marks themselves: these lead nowhere, and `glob` leaves out what does not exist.
    for slot in (*to.glob(".atomik-*"), *to.glob(".atomik-u*/*")):
        mark = slot / _MARK
        if mark.is_symlink():
            staged, replaced, names = os.readlink(mark).split(":", 2)
            mark.unlink()
            mark.symlink_to(
                f"{_same(int(staged), here, to)}:{_same(int(replaced), here, to)}:{names}"
            )


def _same(inode: int, here: Path, to: Path) -> int:
    """Returns the inode in a copy of what has one in a world; of what is gone, one that nothing has."""
    if inode == 0:
        return 0
    for place in (*here.iterdir(), *here.glob(".atomik-*/*"), *here.glob(".atomik-u*/*/*")):
        if place.lstat().st_ino == inode:
            return (to / place.relative_to(here)).lstat().st_ino
    return 2**64 - 1


def _left_by(
    writers: Mapping[str, Writer], bench: Bench, outcome: Outcome, here: Path, *, overwrite: bool
) -> Iterator[str]:
    kinds = " and ".join(writer.__name__.strip("_") for writer in writers.values())
    name = f"the next writer, {kinds}, {'replacing' if overwrite else 'new'}"
    published: list[str] = []
    for destination, writer in writers.items():
        # Without syncs: the writer that has least to do.
        options: dict[str, Any] = {"durability": "none"}
        options["overwrite"] = overwrite or (here / destination).exists()
        if (here / ELSEWHERE).exists():
            options["tmp_dir"] = here / ELSEWHERE
        try:
            writer(here / destination, **options)
            published.append(destination)
        except (OSError, Warning) as error:
            # Where folders cannot be exchanged, the next writer may be refused; it cleans up even so.
            refused = type(error) is atomik.errors.UnsupportedFilesystemError
            if not refused or bench.fs.flags & kernel.EXCHANGE:
                yield f"{name}, fails: {error!r}"
    if (left := look(here, slots=True)) != bench.living:
        yield f"{name}, leaves {sorted(left)}"
    kept = bench.old if outcome.state() == bench.old else bench.new
    if _backup(look(here)) != _backup(kept):
        yield f"{name}, does not finish the backup: {look(here)}"
    if any(_content(look(here), destination) != [_NEXT] for destination in published):
        yield f"{name}, does not publish: {look(here)}"


def _backup(state: State) -> State:
    return {name: entry for name, entry in state.items() if name.split("/")[0] == BACKUP}


def _content(state: State, destination: str) -> list[bytes]:
    return [
        content
        for name, (mode, content, _) in state.items()
        if Path(name).is_relative_to(destination) and stat.S_ISREG(mode)
    ]
