"""The folder that a play happens in: what is laid out there, what has changed, and how it is removed."""

import os
import socket
import stat
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support import slot_names

OLD: Final = b"old"

TOP: Final = "home"
"""The plays' relative paths start two folders below the stage's top, so that `..` leads somewhere."""


@dataclass(frozen=True)
class Thing:
    """What has a name: everything about it that nobody may change unasked.

    `content` is a file's bytes or a symlink's target.
    """

    kind: int
    mode: int
    inode: int
    content: bytes | None = None


Snapshot = Mapping[bytes, Thing]


def snapshot(top: Path) -> dict[bytes, Thing]:
    """Describes everything below `top`, all of which is this user's, by its path."""
    found: dict[bytes, Thing] = {}
    _describe(os.fsencode(top), found)
    del found[os.fsencode(top)]
    return found


def _describe(path: bytes, found: dict[bytes, Thing]) -> None:
    status = os.lstat(path)
    kind, mode = stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode)
    content = None
    if kind == stat.S_IFLNK:
        content = os.readlink(path)
    elif kind == stat.S_IFREG:
        with _opened_up(path, mode), open(path, "rb") as file:
            content = file.read()
    found[path] = Thing(kind, mode, status.st_ino, content)
    if kind == stat.S_IFDIR:
        with _opened_up(path, mode):
            for name in os.listdir(path):
                _describe(path + b"/" + name, found)


@contextmanager
def _opened_up(path: bytes, mode: int) -> Generator[None, None, None]:
    """Lets the owner look at what its mode forbids even to them."""
    if mode & 0o700 == 0o700 or os.geteuid() == 0:
        yield
        return
    os.chmod(path, mode | 0o700)
    try:
        yield
    finally:
        os.chmod(path, mode)


def lay_out(top: Path, there: str, around: str, litter: tuple[str, ...]) -> None:
    """Makes the stage and makes it the current folder."""
    work = top / TOP / "work"
    (work / "sub").mkdir(parents=True)
    os.chdir(work)
    Path("bystander").write_bytes(OLD)
    Path("link").symlink_to("sub")
    Path("sub", "inner").write_bytes(OLD)
    Path("other").mkdir()
    for place, kind in zip(_places(len(litter)), litter, strict=True):
        place.parent.mkdir(exist_ok=True, mode=0o700)
        THERE[kind](place)
    THERE[there](Path("dest"))
    AROUND[around](work)


def _places(count: int) -> list[Path]:
    """Names the porch and slots in the room; of two places the second is the room itself."""
    porch, room = slot_names.porch(Path("dest")), slot_names.room(Path("dest"))
    if count == 2:
        return [porch, room]
    return [porch, *(room / f"{number:016x}" for number in range(1, count))][:count]


def chain(depth: int) -> list[Path]:
    """Names folders, each in the one before."""
    return [Path(*["deep"] * level) for level in range(1, depth + 1)]


def ends(depth: int) -> list[Path]:
    """Names the folders at the bottom: two, so that what walks there has to come back for the other."""
    return [Path(*["deep"] * depth, end) for end in ("left", "right")]


def grow(folder: Path, depth: int) -> None:
    """Makes a tree of that depth in a folder; none at all if it is 0."""
    # Not `parents=True`, which would make `folder` again after another thread's rollback.
    for below in (*chain(depth), *ends(depth)) if depth else ():
        (folder / below).mkdir(exist_ok=True)


def raze(folder: Path) -> None:
    """Removes a tree of this user's, whatever the modes in it."""
    folder.chmod(0o700)
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                raze(Path(entry.path))
            else:
                os.unlink(entry.path)
    folder.rmdir()


def _file(path: Path) -> None:
    path.write_bytes(OLD)


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "inside").write_bytes(OLD)
    (path / "deeper").mkdir()


def _deep_folder(path: Path) -> None:
    path.mkdir()
    grow(path, 40)


def _hard_link(path: Path) -> None:
    path.hardlink_to("bystander")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(path))


def _with_mode(make: Callable[[Path], None], mode: int) -> Callable[[Path], None]:
    def make_with_mode(path: Path) -> None:
        make(path)
        path.chmod(mode)

    return make_with_mode


def _link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def _link_in_links(path: Path) -> None:
    # One more than open(2) follows; once for all that are asked for.
    for number in range(41 - len(list(Path().glob("chain*")))):
        Path(f"chain{number}").symlink_to(f"chain{number + 1}")
    path.symlink_to("chain0")


def _remove_the_current_folder(work: Path) -> None:
    raze(work)


def _rename_the_current_folder(work: Path) -> None:
    work.rename(work.with_name("renamed"))


def _nothing(_: Path) -> None:
    pass


THERE: Final[Mapping[str, Callable[[Path], None]]] = {
    "missing": _nothing,
    "file": _file,
    "hard link": _hard_link,
    "empty folder": Path.mkdir,
    "folder": _folder,
    "deep folder": _deep_folder,
    "link to a file": _link_to("bystander"),
    "link to a folder": _link_to("sub"),
    "link to nothing": _link_to("sub/nothing"),
    "link to itself": _link_to("dest"),
    "link above": _link_to(".."),
    "link to a number": _link_to("/proc/self/fd/0"),
    "too many links": _link_in_links,
    "FIFO": os.mkfifo,
    "socket": _socket,
    "file that nobody may read": _with_mode(_file, 0),
    "file with set-id bits": _with_mode(_file, 0o6755),
    "folder that nobody may search": _with_mode(_folder, 0),
    "folder that nobody may write to": _with_mode(_folder, 0o555),
    "sticky folder": _with_mode(_folder, 0o1777),
}
AROUND: Final[Mapping[str, Callable[[Path], None]]] = {
    "nothing": _nothing,
    "a folder that nobody may write to": lambda work: work.chmod(0o555),
    "a folder that nobody may read": lambda work: work.chmod(0o333),
    "a folder that nobody may search": lambda work: work.chmod(0o666),
    "a sticky folder with a group": lambda work: work.chmod(0o3777),
    "a folder that has been removed": _remove_the_current_folder,
    "a folder that has been renamed": _rename_the_current_folder,
}
