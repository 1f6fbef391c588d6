"""Real filesystems for the tests, mounted where nobody else can see them.

All mounts are made in a mount namespace of the test process's own, beneath one tmpfs: whatever
ends the process, even SIGKILL, also ends the mounts and frees their loop devices. What an
orderly end has to remove besides is one empty folder.
"""

import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

from atomik._async import threads

from support import fuse_servers, kernel
from support.mounting import Missing, MountFailed, image_file, mount, need, remove, run

__all__ = ("NAMES", "Filesystem", "Missing", "Mounted", "Mounts", "leftovers", "ours")

NAMES: Final = ("ext4", "xfs", "btrfs", "tmpfs", "overlay", "bindfs")


@dataclass(frozen=True)
class _Image:
    """How a filesystem is made and mounted: DEVICE, in its words, is a second device."""

    type: str
    size: int
    make: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    second: int = 0
    make_second: tuple[str, ...] = ()


_IMAGES: Final = {
    "ext4": _Image("ext4", 96 << 20, ("-F",)),
    "xfs": _Image("xfs", 320 << 20),
    "btrfs": _Image("btrfs", 2 << 30),
    "ext2": _Image("ext2", 64 << 20, ("-F",)),
    "ext3": _Image("ext3", 64 << 20, ("-F",)),
    "ext4 without a journal": _Image("ext4", 64 << 20, ("-F", "-O", "^has_journal")),
    "ext4 with fast commits": _Image("ext4", 96 << 20, ("-F", "-O", "fast_commit")),
    "ext4 without barriers": _Image("ext4", 96 << 20, ("-F",), ("nobarrier",)),
    "ext4 with its journal elsewhere": _Image(
        "ext4",
        64 << 20,
        ("-F", "-b", "4096", "-J", "device=DEVICE"),
        second=32 << 20,
        make_second=("mke2fs", "-q", "-F", "-b", "4096", "-O", "journal_dev"),
    ),
    "xfs with its log elsewhere": _Image(
        "xfs", 320 << 20, ("-l", "logdev=DEVICE"), ("logdev=DEVICE",), second=80 << 20
    ),
}
"""Those that are not in `NAMES` must be asked for by name, as those of `fuse_servers.SERVERS`."""

_LOWER_POOL: Final = 400


@dataclass(frozen=True)
class Mounted:
    """A filesystem that stays mounted for the whole session."""

    name: str
    root: Path
    flags: int
    unnamed: bool
    behind: Path | None = None
    lower: Iterator[Path] = field(default_factory=lambda: iter(()))


@dataclass(frozen=True)
class Filesystem:
    """One test's own empty folder on a filesystem, `here`, and what that filesystem can do.

    `flags` are the renameat2(2) flags that it supports; `unnamed` says whether it has O_TMPFILE.
    """

    here: Path
    _mounted: Mounted
    _undo: ExitStack
    _lower: list[Path] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self._mounted.name

    @property
    def flags(self) -> int:
        return self._mounted.flags

    @property
    def unnamed(self) -> bool:
        return self._mounted.unnamed

    def folder(self, name: str, mode: int = 0o755, owner: int = 0, group: int = 0) -> Path:
        """Makes a folder with exactly this mode and these owners in the test's folder."""
        path = self.here / name
        path.mkdir()
        os.chown(path, owner, group)
        path.chmod(mode)
        return path

    def take_lower(self) -> Path:
        """Returns a folder that holds `folder/` and `file` of the overlay's lower layer."""
        parent = next(self._mounted.lower)
        self._undo.callback(remove, parent)
        self._lower.append(parent)
        return parent

    def backing(self, path: Path) -> Path:
        """Returns where the file really is: behind bindfs, elsewhere at its own path."""
        if self._mounted.behind is None:
            return path
        return self._mounted.behind / path.relative_to(self._mounted.root)

    def make_immutable(self, path: Path) -> None:
        """Does `chattr +i` until the test ends."""
        path = self.backing(path)
        kernel.set_immutable(path, immutable=True)
        self._undo.callback(_make_mutable, path)

    def set_attribute(self, path: Path, attribute: str) -> None:
        """Makes a folder "immutable" or "append-only" (`chattr +i`, `+a`) until the test ends."""
        path = self.backing(path)
        flag = {"immutable": "i", "append-only": "a"}[attribute]
        run("chattr", f"+{flag}", path)
        self._undo.callback(run, "chattr", f"-{flag}", path)

    def bind(self, source: Path, target: Path, *, read_only: bool = False) -> None:
        """Bind-mounts `source` on `target` until the test ends."""
        mount(self._undo, target, "--bind", source)
        if read_only:
            run("mount", "-o", "remount,bind,ro", target)

    def mount_tmpfs(self, target: Path) -> None:
        """Mounts an empty tmpfs on `target` until the test ends."""
        mount(self._undo, target, "-t", "tmpfs", "-o", "mode=755,size=16m", "tmpfs")

    def leftovers(self) -> list[str]:
        """Lists what the library has left anywhere in the test's folders."""
        return [name for folder in (self.here, *self._lower) for name in leftovers(folder)]


class Mounts:
    """The filesystems of one test process, each mounted when first asked for."""

    def __init__(self) -> None:
        self._undo = ExitStack()
        self._known: dict[str, Mounted | Missing | MountFailed] = {}
        self._root: Path | None = None
        self._served: dict[str, Path] = {}
        self._numbers = count()
        self._owner = os.getpid()

    def test_folder(self, name: str, undo: ExitStack) -> Filesystem:
        """Returns a new empty folder on a filesystem; `undo` removes it."""
        mounted = self.mounted(name)
        path = mounted.root / str(next(self._numbers))
        path.mkdir(mode=0o755)
        undo.callback(remove, path)
        return Filesystem(path, mounted, undo)

    def two_mounts(self, name: str, undo: ExitStack) -> tuple[Filesystem, Filesystem]:
        """Returns one new empty folder as two mounts of a FUSE filesystem show it."""
        one, other = self.mounted(name), self.mounted(name + fuse_servers.AGAIN)
        first = self.test_folder(name, undo)
        return first, Filesystem(other.root / first.here.relative_to(one.root), other, undo)

    def mounted(self, name: str) -> Mounted:
        """Returns a filesystem, mounted now if it was not yet, or raises `Missing` or `MountFailed`.

        What has failed once is not tried again: it may have taken minutes.
        """
        if name not in self._known:
            try:
                self._known[name] = self._mount(name)
            except (Missing, MountFailed) as error:
                self._known[name] = error
        known = self._known[name]
        if isinstance(known, Mounted):
            return known
        raise type(known)(*known.args)

    def close(self) -> None:
        """Unmounts and removes everything; in a forked child of the owner, nothing."""
        if os.getpid() == self._owner:
            self._undo.close()

    def _mount(self, name: str) -> Mounted:
        served = name.removesuffix(fuse_servers.AGAIN) in fuse_servers.SERVERS
        # Options of mount programs are words.
        root = self._place() / (name.replace(" ", "-") if served else name)
        # A test that times out here takes back what it has mounted; the next one begins again.
        with ExitStack() as undo:
            root.mkdir()
            undo.callback(root.rmdir)
            try:
                if served:
                    mounted = self._mount_fuse(name, root, undo)
                elif name == "overlay":
                    mounted = self._mount_overlay(root, undo)
                elif name == "tmpfs":
                    mounted = _mount_tmpfs(root, undo)
                else:
                    mounted = _mount_image(root, undo)
            except subprocess.CalledProcessError as error:
                raise Missing(f"{name}: {error.cmd[0]} says: {error.stderr.strip()}") from error
            self._undo.push(undo.pop_all())
            return mounted

    def _place(self) -> Path:
        if self._root is not None:
            return self._root
        if os.geteuid() != 0:
            raise Missing("mounting filesystems needs root")
        try:
            kernel.enter_private_mount_namespace()
            run("mount", "--make-rprivate", "/")
            # `unshare(2)` moves this thread only: threads that wait for a guard stay where no mount of the tests is.
            threads.cache_clear()
        except (OSError, subprocess.CalledProcessError) as error:
            raise Missing(f"no mount namespace of one's own: {error}") from error
        with ExitStack() as undo:
            root = Path(tempfile.mkdtemp(prefix="atomik-filesystems-"))
            undo.callback(root.rmdir)
            # Images live in memory: they are sparse, and syncing them costs no disk.
            _mount_tmpfs(root, undo)
            self._undo.push(undo.pop_all())
        self._root = root
        return root

    def _mount_overlay(self, root: Path, undo: ExitStack) -> Mounted:
        layers = self.mounted("ext4").root / "overlay"
        lower, upper, work = layers / "lower", layers / "upper", layers / "work"
        undo.callback(remove, layers)
        for layer in (lower, upper, work):
            layer.mkdir(parents=True)
        for number in range(_LOWER_POOL):
            _fill_lower(lower / "pool" / str(number))
        # Without redirect_dir, as Docker and Podman have it: lower folders do not move.
        options = f"redirect_dir=off,lowerdir={lower},upperdir={upper},workdir={work}"
        mount(undo, root, "-t", "overlay", "-o", options, "overlay")
        pool = (root / "pool" / str(number) for number in range(_LOWER_POOL))
        return _describe("overlay", root, lower=pool)

    def _mount_fuse(self, name: str, root: Path, undo: ExitStack) -> Mounted:
        if name.endswith(fuse_servers.AGAIN):
            name = name.removesuffix(fuse_servers.AGAIN)
            # It is mounted first, and so unmounted last.
            self.mounted(name)
            behind = self._served[name]
        else:
            behind = self.mounted("ext4").root / root.name
            behind.mkdir()
            undo.callback(remove, behind)
            fuse_servers.prepare(name, behind)
            self._served[name] = behind
        fuse_servers.serve(name, behind, root, undo)
        return _describe(
            name, root, behind=behind if fuse_servers.SERVERS[name].transparent else None
        )


def _mount_tmpfs(root: Path, undo: ExitStack) -> Mounted:
    mount(undo, root, "-t", "tmpfs", "-o", "mode=755", "tmpfs")
    return _describe("tmpfs", root)


def _mount_image(root: Path, undo: ExitStack) -> Mounted:
    image = _IMAGES[root.name]
    need(f"mkfs.{image.type}")
    file = image_file(root.with_suffix(".img"), image.size, undo)
    options, make = ["loop", *image.options], [*image.make]
    with ExitStack() as attached:
        if image.second:
            second = image_file(root.with_suffix(".second"), image.second, undo)
            device = run("losetup", "--find", "--show", second).strip()
            # One that is in use is freed with the last mount that uses it.
            attached.callback(run, "losetup", "--detach", device)
            if image.make_second:
                run(*image.make_second, device)
            make = [word.replace("DEVICE", device) for word in make]
            options = [word.replace("DEVICE", device) for word in options]
            second.unlink()
        run(f"mkfs.{image.type}", "-q", *make, file)
        # `-o loop` frees the loop device as soon as the last mount is gone, however it goes.
        mount(undo, root, "-t", image.type, "-o", ",".join(options), file)
    file.unlink()
    return _describe(root.name, root)


def ours(name: str) -> bool:
    """Says whether a name is one of the library's own."""
    return name.startswith(".atomik")


def leftovers(folder: Path) -> list[str]:
    """Lists what the library has left in a folder, at any depth, following nothing."""
    found: list[str] = []
    pending = [os.fspath(folder)]
    while pending:
        # Unreadable folders and paths that are too long for the kernel are another test's subject.
        with suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                if ours(entry.name):
                    found.append(os.path.relpath(entry.path, folder))
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
    return sorted(found)


def _describe(
    name: str, root: Path, *, behind: Path | None = None, lower: Iterator[Path] | None = None
) -> Mounted:
    flags = 0
    for flag in (kernel.NOREPLACE, kernel.EXCHANGE, kernel.WHITEOUT):
        if _has_flag(root, flag):
            flags |= flag
    return Mounted(name, root, flags, _has_unnamed(root), behind, lower or iter(()))


def _has_flag(root: Path, flag: int) -> bool:
    folder = root / "probe"
    folder.mkdir()
    src, dst = folder / "src", folder / "dst"
    src.touch()
    if flag == kernel.EXCHANGE:
        dst.touch()
    try:
        kernel.renameat2(src, dst, flag)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    else:
        return True
    finally:
        remove(folder)


def _has_unnamed(root: Path) -> bool:
    try:
        os.close(os.open(root, os.O_TMPFILE | os.O_WRONLY))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return False
    return True


def _fill_lower(parent: Path) -> None:
    (parent / "folder" / "inner").mkdir(parents=True)
    (parent / "folder" / "old").write_text("old")
    (parent / "folder" / "inner" / "old").write_text("old")
    (parent / "file").write_text("old")


def _make_mutable(path: Path) -> None:
    # The test may have succeeded in removing what it should not have been able to remove.
    with suppress(FileNotFoundError):
        kernel.set_immutable(path, immutable=False)
