"""What the victim owns outside of the shared folder, and how it is seen to be untouched."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from support.filesystems import Filesystem
from support.processes import User
from support.trees import Identity, Tree, identities, tree

from security.people import VICTIM


@dataclass(frozen=True)
class Home:
    """A folder of the victim's beside the shared one, as it was at the start.

    It is searchable by all, as homes often are, so that an attacker's links into it lead somewhere.
    """

    path: Path
    _tree: Tree
    _identities: dict[str, Identity]

    @property
    def file(self) -> Path:
        return self.path / "file"

    @property
    def folder(self) -> Path:
        return self.path / "folder"

    def assert_untouched(self) -> None:
        assert tree(self.path) == self._tree
        assert identities(self.path) == self._identities


def home(fs: Filesystem, user: User = VICTIM) -> Home:
    """Makes the home of a user: one file, one folder with something in it."""
    path = fs.folder("home", 0o755, user.uid, user.gid)
    (path / "folder" / "inner").mkdir(parents=True)
    for file in (path / "file", path / "folder" / "file", path / "folder" / "inner" / "file"):
        file.write_text("the victim's")
    for made in path.rglob("*"):
        os.chown(made, user.uid, user.gid)
    return Home(path, tree(path), identities(path))


def shared(fs: Filesystem, mode: int) -> Path:
    """Makes a folder of root's that others may write to, as /tmp is."""
    return fs.folder("shared", mode)


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)
