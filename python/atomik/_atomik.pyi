from io import BufferedRandom, BufferedWriter, FileIO, TextIOWrapper
from pathlib import Path
from types import GenericAlias
from typing import IO, Any, Generic, Literal, TypeVar, final, overload

from typing_extensions import Buffer

from atomik.flags import Mode, RenameFlags
from atomik.literals import (
    AnyPath,
    BinaryMode,
    BinaryUpdatingMode,
    BinaryWritingMode,
    Cleanup,
    Durability,
    OpenMode,
    Siblings,
    TextMode,
)

__all__ = [
    "Entry",
    "File",
    "Folder",
    "Group",
    "Orphan",
    "Probe",
    "Snapshot",
    "__version__",
    "_orphan",
    "_probe",
    "exchange",
    "file",
    "folder",
    "group",
    "path",
    "probe",
    "rename",
    "renameat2",
    "snapshot",
    "sweep",
    "write_bytes",
    "write_text",
]

__version__: str

_IO = TypeVar("_IO", bound=IO[Any], covariant=True)

@final
class File(Generic[_IO]):
    """A new version of a file: what `atomik.file` returns.

    A context manager, also for `async with` in asyncio and trio (then entering and committing run in a thread), whose
    body gets a standard `io` object. The body's normal end commits, an exception rolls back.

    Attributes:
        destination: The path that was asked for.
        staging: Where the new version is built; None while not entered, and for an unnamed file.
        committed: True once the new version has been published.

    Example:
        >>> guard = atomik.file("log.txt")
        >>> with guard as f:
        ...     _ = f.write("done")
        >>> guard.committed
        True
    """

    def __enter__(self) -> _IO: ...
    def __exit__(self, *exc: object) -> Literal[False]: ...
    async def __aenter__(self) -> _IO: ...
    async def __aexit__(self, *exc: object) -> Literal[False]: ...
    def commit(self) -> None:
        """Closes the body's file and publishes the new version now; the end of the body then does nothing.

        Raises:
            RuntimeError: The guard is not open, or belongs to a parent process.
            OSError: The commit failed; nothing was published unless the error's `committed` is true.
        """
    def rollback(self) -> None:
        """Discards the new version now; the end of the body then does nothing.

        Raises:
            RuntimeError: The guard is not open, or belongs to a parent process.
        """
    @property
    def destination(self) -> Path: ...
    @property
    def staging(self) -> Path | None: ...
    @property
    def committed(self) -> bool: ...
    def __class_getitem__(cls, item: object) -> GenericAlias: ...

@final
class Folder:
    """A new version of a folder: what `atomik.folder` returns.

    A context manager, also for `async with` in asyncio and trio (then entering and committing run in a thread), whose
    body gets the `pathlib.Path` of the staging folder. The body's normal end commits, an exception
    rolls back.

    Attributes:
        destination: The path that was asked for.
        staging: Where the new version is built; None while the guard is not open.
        committed: True once the new version has been published.

    Example:
        >>> guard = atomik.folder("site")
        >>> with guard as site:
        ...     _ = (site / "index.html").write_text("hello")
        >>> guard.committed
        True
    """

    def __enter__(self) -> Path: ...
    def __exit__(self, *exc: object) -> Literal[False]: ...
    async def __aenter__(self) -> Path: ...
    async def __aexit__(self, *exc: object) -> Literal[False]: ...
    def commit(self) -> None:
        """Publishes the new version now; the end of the body then does nothing.

        Raises:
            RuntimeError: The guard is not open, or belongs to a parent process.
            OSError: The commit failed; nothing was published unless the error's `committed` is true.
        """
    def rollback(self) -> None:
        """Discards the new version now; the end of the body then does nothing.

        Raises:
            RuntimeError: The guard is not open, or belongs to a parent process.
        """
    @property
    def destination(self) -> Path: ...
    @property
    def staging(self) -> Path | None: ...
    @property
    def committed(self) -> bool: ...

@final
class Entry:
    """A path for a tool to write to: what `atomik.path` returns.

    A context manager like `Folder`; what its body gets does not exist yet.

    Attributes:
        destination: The path that was asked for.
        staging: Where the tool writes; None while the guard is not open.
        committed: True once the new version has been published.

    Example:
        >>> guard = atomik.path("table.csv")
        >>> with guard as path:
        ...     _ = path.write_text("a,b")
        >>> guard.committed
        True
    """

    def __enter__(self) -> Path: ...
    def __exit__(self, *exc: object) -> Literal[False]: ...
    async def __aenter__(self) -> Path: ...
    async def __aexit__(self, *exc: object) -> Literal[False]: ...
    def commit(self) -> None:
        """Publishes the new version now; the end of the body then does nothing.

        Raises:
            RuntimeError: The guard is not open, or belongs to a parent process.
            OSError: The commit failed; nothing was published unless the error's `committed` is true.
        """
    def rollback(self) -> None:
        """Discards the new version now; the end of the body then does nothing.

        Raises:
            RuntimeError: The guard is not open, or belongs to a parent process.
        """
    @property
    def destination(self) -> Path: ...
    @property
    def staging(self) -> Path | None: ...
    @property
    def committed(self) -> bool: ...

@final
class Group:
    """Many new versions, published together: what `atomik.group` returns.

    A context manager, also for `async with`. Its methods take what the functions of the same names take, but
    durability, and what does not go with a group: `update`, `backup`, `cleanup`, `tmp_dir` and the modes
    "a" and "r+". What their bodies have written waits, invisible, for the end of the group's body.

    Attributes:
        committed: True once the members have been published; after an error that says so too, all of them, or
            those that its message names.

    Example:
        >>> with atomik.group() as g:
        ...     g.write_text("left", "1")
        ...     with g.file("right") as f:
        ...         _ = f.write("2")
    """

    def __enter__(self) -> Group: ...
    def __exit__(self, *exc: object) -> Literal[False]: ...
    async def __aenter__(self) -> Group: ...
    async def __aexit__(self, *exc: object) -> Literal[False]: ...
    @overload
    def file(
        self,
        path: AnyPath,
        mode: TextMode | Literal[Mode.TEXT] = "w",
        overwrite: bool = False,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        buffering: int = -1,
        permissions: int | None = None,
        preserve: bool = True,
        follow_symlinks: bool = False,
        dir_fd: int | None = None,
    ) -> File[TextIOWrapper]:
        """As `atomik.file`, in modes "w" and "x"; the body's end adds the file to the group.

        Raises:
            ValueError: Another mode; nothing was touched.
            RuntimeError: The group is not open.
            OSError: When the body is entered or ends, as for `atomik.file`.
        """

    @overload
    def file(
        self,
        path: AnyPath,
        mode: BinaryMode | Literal[Mode.BYTES],
        overwrite: bool = False,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        buffering: Literal[0],
        permissions: int | None = None,
        preserve: bool = True,
        follow_symlinks: bool = False,
        dir_fd: int | None = None,
    ) -> File[FileIO]: ...
    @overload
    def file(
        self,
        path: AnyPath,
        mode: BinaryWritingMode | Literal[Mode.BYTES],
        overwrite: bool = False,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        buffering: Literal[-1, 1] = -1,
        permissions: int | None = None,
        preserve: bool = True,
        follow_symlinks: bool = False,
        dir_fd: int | None = None,
    ) -> File[BufferedWriter]: ...
    @overload
    def file(
        self,
        path: AnyPath,
        mode: BinaryUpdatingMode,
        overwrite: bool = False,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        buffering: Literal[-1, 1] = -1,
        permissions: int | None = None,
        preserve: bool = True,
        follow_symlinks: bool = False,
        dir_fd: int | None = None,
    ) -> File[BufferedRandom]: ...
    @overload
    def file(
        self,
        path: AnyPath,
        mode: BinaryMode | Literal[Mode.BYTES],
        overwrite: bool = False,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        buffering: int = -1,
        permissions: int | None = None,
        preserve: bool = True,
        follow_symlinks: bool = False,
        dir_fd: int | None = None,
    ) -> File[IO[bytes]]: ...
    @overload
    def file(
        self,
        path: AnyPath,
        mode: OpenMode | Mode,
        overwrite: bool = False,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        buffering: int = -1,
        permissions: int | None = None,
        preserve: bool = True,
        follow_symlinks: bool = False,
        dir_fd: int | None = None,
    ) -> File[IO[Any]]: ...
    def folder(
        self,
        path: AnyPath,
        overwrite: bool = False,
        *,
        permissions: int | None = None,
        preserve: bool = True,
        follow_symlinks: bool = False,
        dir_fd: int | None = None,
    ) -> Folder:
        """As `atomik.folder`; the body's end adds the folder to the group.

        Raises:
            RuntimeError: The group is not open.
            OSError: When the body is entered or ends, as for `atomik.folder`.
        """
    def path(
        self,
        path: AnyPath,
        *,
        overwrite: bool = False,
        permissions: int | None = None,
        preserve: bool = True,
        follow_symlinks: bool = False,
        dir_fd: int | None = None,
        siblings: Siblings = "refuse",
    ) -> Entry:
        """As `atomik.path`; the body's end adds what the tool has made to the group, and its siblings if they are to be published.

        Raises:
            RuntimeError: The group is not open.
            OSError: When the body is entered or ends, as for `atomik.path`.
        """
    def write_bytes(
        self,
        path: AnyPath,
        data: Buffer,
        *,
        overwrite: bool = False,
        permissions: int | None = None,
        preserve: bool = True,
        follow_symlinks: bool = False,
        dir_fd: int | None = None,
    ) -> None:
        """As `atomik.write_bytes`; the file is added to the group.

        Raises:
            RuntimeError: The group is not open.
            OSError: As for `atomik.write_bytes`; the other members stay in the group.
        """
    def write_text(
        self,
        path: AnyPath,
        text: str,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        overwrite: bool = False,
        permissions: int | None = None,
        preserve: bool = True,
        follow_symlinks: bool = False,
        dir_fd: int | None = None,
    ) -> None:
        """As `atomik.write_text`; the file is added to the group.

        Raises:
            UnicodeEncodeError: The encoding has no bytes for a character; nothing was touched.
            RuntimeError: The group is not open.
            OSError: As for `atomik.write_text`; the other members stay in the group.
        """
    def commit(self) -> None:
        """Publishes all members now; the end of the body then does nothing.

        Raises:
            RuntimeError: The group is not open, a member is, or it belongs to a parent process.
            OSError: The commit failed; the error's `filename` is the member that did, and its `committed` tells
                whether others stay published.
        """
    def rollback(self) -> None:
        """Discards all members now; the end of the body then does nothing.

        Raises:
            RuntimeError: The group is not open, or belongs to a parent process.
        """
    @property
    def committed(self) -> bool: ...

@final
class Snapshot:
    """One version of a folder, pinned while it is open: what `atomik.snapshot` returns.

    A context manager, also for `async with`, whose body gets the `pathlib.Path` of the version.

    Attributes:
        destination: The path that was asked for.
        path: Where the version is read; None while the snapshot is not open.

    Example:
        >>> with atomik.folder("site") as site:
        ...     _ = (site / "index.html").write_text("hello")
        >>> with atomik.snapshot("site") as site:
        ...     (site / "index.html").read_text()
        'hello'
    """

    def __enter__(self) -> Path: ...
    def __exit__(self, *exc: object) -> Literal[False]: ...
    async def __aenter__(self) -> Path: ...
    async def __aexit__(self, *exc: object) -> Literal[False]: ...
    def close(self) -> None:
        """Lets go of the version now; the end of the body then does nothing.

        Removes the version if it was displaced meanwhile, nobody else reads it, and this user may.
        """
    @property
    def destination(self) -> Path: ...
    @property
    def path(self) -> Path | None: ...

@final
class Orphan:
    """What a killed process has left, as `atomik.sweep` found it.

    Attributes:
        path: Where it is, or was: a `pathlib.Path`.
        bytes: What it takes on the disk, in bytes.
        files: How many files are in it; folders are not counted.
        age: Seconds since something was last made or removed directly in it.
        removed: Whether it has been removed: not by a dry run, and not if something in it resists.

    Example:
        >>> sum(orphan.bytes for orphan in atomik.sweep(".") if orphan.removed)
        0
    """

    @property
    def path(self) -> Path: ...
    @property
    def bytes(self) -> int: ...
    @property
    def files(self) -> int: ...
    @property
    def age(self) -> float: ...
    @property
    def removed(self) -> bool: ...
    def __eq__(self, other: object, /) -> bool: ...

@final
class Probe:
    """What the filesystem of a folder can do: what `atomik.probe` returns. `str()` of it is a table.

    Attributes:
        filesystem: The type, as the mount table names it: "ext4", "fuse.bindfs".
        mount_id: The mount's number (statx(2)), 0 before Linux 5.8.
        unnamed_files: O_TMPFILE, with names by linkat(2).
        noreplace: RENAME_NOREPLACE.
        exchange: RENAME_EXCHANGE.
        reflink: Copies that share their blocks (FICLONE).
        directory_locks: flock(2) on folders: for snapshots, updates, and to know orphans.
        lock_reach: Who sees such a lock: "everybody"; "this machine and mount", so that writers elsewhere are
            unknown here, and their orphans too; "nobody" where folders cannot be locked.
        hard_links: Hard links (link(2)), by which a new file is published where there is no RENAME_NOREPLACE.
        modes_kept: A new folder shows the mode that was asked for; if not, the filesystem makes modes up.
        owners_kept: A new file shows the user that made it; if not, the filesystem makes owners up.
        xattrs: Extended attributes of users.
        syncfs: A syncfs(2) that syncs and reports errors.
        single_flush: A durable commit waits for one flush of the disk instead of two, since the filesystem's
            journal makes that enough; ATOMIK_SINGLE_FLUSH=0 in the environment switches it off. On ext4
            only once something has been synced since it was mounted.
        durability: The strongest that can be promised: "full"; "none" in memory; "unknown" where a
            server, a user-space program or the layer below an overlay would have to keep the promise.

    Example:
        >>> if atomik.probe(".").exchange:
        ...     with atomik.folder("site", overwrite=True) as site:
        ...         _ = (site / "index.html").write_text("hello")
    """

    @property
    def filesystem(self) -> str: ...
    @property
    def mount_id(self) -> int: ...
    @property
    def unnamed_files(self) -> bool: ...
    @property
    def noreplace(self) -> bool: ...
    @property
    def exchange(self) -> bool: ...
    @property
    def reflink(self) -> bool: ...
    @property
    def directory_locks(self) -> bool: ...
    @property
    def lock_reach(self) -> Literal["everybody", "this machine and mount", "nobody"]: ...
    @property
    def hard_links(self) -> bool: ...
    @property
    def modes_kept(self) -> bool: ...
    @property
    def owners_kept(self) -> bool: ...
    @property
    def xattrs(self) -> bool: ...
    @property
    def syncfs(self) -> bool: ...
    @property
    def single_flush(self) -> bool: ...
    @property
    def durability(self) -> Literal["full", "none", "unknown"]: ...
    def __eq__(self, other: object, /) -> bool: ...

@overload
def file(
    path: AnyPath,
    mode: TextMode | Literal[Mode.TEXT] = "w",
    overwrite: bool = False,
    tmp_dir: AnyPath | None = None,
    *,
    durability: Durability = "full",
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    buffering: int = -1,
    permissions: int | None = None,
    preserve: bool = True,
    follow_symlinks: bool = False,
    backup: AnyPath | None = None,
    dir_fd: int | None = None,
) -> File[TextIOWrapper]:
    """Opens a new version of a file, which appears at `path` in one step when the body ends well.

    Args:
        path: The destination: `str`, `bytes` or `os.PathLike`.
        mode: As for `open`, with "b" for bytes (default "w"): "w" and "x" start from an empty file, "a"
            and "r+" from a copy of the present version, which they replace.
        overwrite: Replace what is there (default False: an existing destination is refused at once).
        tmp_dir: Folder to stage in, on the destination's mount (default: the destination's folder).
        durability: "full" (survives a power cut), "ordered" (old or new after one) or "none" (no sync).
        encoding, errors, newline, buffering: As for `open`; buffering in bytes.
        permissions: Exact permission bits (default: the old version's, else the umask's).
        preserve: Keep the old version's mode, owner, group, ACL and user xattrs (default True).
        follow_symlinks: Publish where a symlink leads instead of replacing the link (default False).
        backup: Name beside the destination for the displaced version; replaces the backup before it.
        dir_fd: Open folder that a relative `path` starts from.

    Returns:
        A guard whose `with` and `async with` body gets a standard `io` object.

    Raises:
        FileAlreadyExistsError: The destination exists and `overwrite` is false.
        DestinationBusyError: It is a mount point, a device, a FIFO or a socket, or a symlink that leads to one.
        IsADirectoryError: It is a folder.
        FileNotFoundError: Mode "r+", and there is nothing.
        ConflictError: Its folder was replaced or removed since the body began; or mode "a" or "r+", and somebody else
            has published since; or the body has
            written nothing, and the destination has got content meanwhile, from a tool that was given `f.name`.
        InvalidCrossDeviceError: `tmp_dir` is on another mount.
        UnsupportedFilesystemError: `backup`, and the filesystem lacks RENAME_EXCHANGE.
        DurabilityError: A sync failed; `committed` says on which side of the publish.
        ValueError: A wrong mode, durability or permissions, or a NUL in a path; nothing was touched.
        OSError: Any other refusal of the system; before the body if it can be known there.

    Durability: content synced, then published, then the folder synced.
    Source: open(2) O_TMPFILE, linkat(2), rename(2), fsync(2).

    Example:
        >>> with atomik.file("result.json", overwrite=True) as f:
        ...     _ = f.write("{}")
    """

@overload
def file(
    path: AnyPath,
    mode: BinaryMode | Literal[Mode.BYTES],
    overwrite: bool = False,
    tmp_dir: AnyPath | None = None,
    *,
    durability: Durability = "full",
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    buffering: Literal[0],
    permissions: int | None = None,
    preserve: bool = True,
    follow_symlinks: bool = False,
    backup: AnyPath | None = None,
    dir_fd: int | None = None,
) -> File[FileIO]: ...
@overload
def file(
    path: AnyPath,
    mode: BinaryWritingMode | Literal[Mode.BYTES],
    overwrite: bool = False,
    tmp_dir: AnyPath | None = None,
    *,
    durability: Durability = "full",
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    buffering: Literal[-1, 1] = -1,
    permissions: int | None = None,
    preserve: bool = True,
    follow_symlinks: bool = False,
    backup: AnyPath | None = None,
    dir_fd: int | None = None,
) -> File[BufferedWriter]: ...
@overload
def file(
    path: AnyPath,
    mode: BinaryUpdatingMode,
    overwrite: bool = False,
    tmp_dir: AnyPath | None = None,
    *,
    durability: Durability = "full",
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    buffering: Literal[-1, 1] = -1,
    permissions: int | None = None,
    preserve: bool = True,
    follow_symlinks: bool = False,
    backup: AnyPath | None = None,
    dir_fd: int | None = None,
) -> File[BufferedRandom]: ...
@overload
def file(
    path: AnyPath,
    mode: BinaryMode | Literal[Mode.BYTES],
    overwrite: bool = False,
    tmp_dir: AnyPath | None = None,
    *,
    durability: Durability = "full",
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    buffering: int = -1,
    permissions: int | None = None,
    preserve: bool = True,
    follow_symlinks: bool = False,
    backup: AnyPath | None = None,
    dir_fd: int | None = None,
) -> File[IO[bytes]]: ...
@overload
def file(
    path: AnyPath,
    mode: OpenMode | Mode,
    overwrite: bool = False,
    tmp_dir: AnyPath | None = None,
    *,
    durability: Durability = "full",
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    buffering: int = -1,
    permissions: int | None = None,
    preserve: bool = True,
    follow_symlinks: bool = False,
    backup: AnyPath | None = None,
    dir_fd: int | None = None,
) -> File[IO[Any]]: ...
def folder(
    path: AnyPath,
    overwrite: bool = False,
    tmp_dir: AnyPath | None = None,
    *,
    update: bool = False,
    durability: Durability = "full",
    permissions: int | None = None,
    preserve: bool = True,
    follow_symlinks: bool = False,
    backup: AnyPath | None = None,
    cleanup: Cleanup = "inline",
    dir_fd: int | None = None,
) -> Folder:
    """Makes a new version of a whole folder, which appears at `path` in one step when the body ends well.

    Args:
        path: The destination: `str`, `bytes` or `os.PathLike`.
        overwrite: Replace the folder that is there (default False: it is refused at once).
        tmp_dir: Folder to stage in, on the destination's mount (default: the destination's folder).
        update: Start from a complete copy of the present version, if there is one, and replace it.
        durability: "full" (survives a power cut), "ordered" (old or new after one) or "none" (no sync).
        permissions: Exact permission bits of the folder (default: the old one's, else the umask's).
        preserve: Keep the old folder's mode, owner, group, ACL and user xattrs (default True).
        follow_symlinks: Publish where a symlink leads instead of replacing the link (default False).
        backup: Name beside the destination for the displaced version; replaces the backup before it.
        cleanup: "inline" removes the displaced version before the commit returns, "background" in a thread.
        dir_fd: Open folder that a relative `path` starts from.

    Returns:
        A guard whose `with` and `async with` body gets the `pathlib.Path` of the staging folder, empty
        unless `update` is true.

    Raises:
        FileAlreadyExistsError: The destination exists and `overwrite` is false.
        NotADirectoryError: It is a file.
        DestinationBusyError: It is a mount point, a device, a FIFO or a socket, or a symlink that leads to one.
        InvalidCrossDeviceError: It belongs to an overlay's lower layer, or `tmp_dir` is on another mount.
        ConflictError: Its folder was replaced or removed since the body began; or `update`, and somebody else has
            published since: theirs stands.
        UnsupportedFilesystemError: The filesystem lacks RENAME_NOREPLACE or RENAME_EXCHANGE.
        DurabilityError: A sync failed; `committed` says on which side of the publish.
        OSError: Any other refusal of the system; before the body if it can be known there.

    Warns:
        CleanupWarning: The displaced version could not be removed; the commit stands.

    Durability: every file and folder synced, then published, then the parent folder synced.
    Source: renameat2(2) RENAME_NOREPLACE and RENAME_EXCHANGE, flock(2), fsync(2).

    Example:
        >>> with atomik.folder("site", overwrite=True) as site:
        ...     _ = (site / "index.html").write_text("hello")
    """

def group(*, durability: Durability = "full") -> Group:
    """Publishes many files and folders together, for the price of one sync a filesystem.

    All that is written in the body becomes visible at its end, one destination after the other, or, after an
    exception, not at all. It is not one instant: a reader, or a power cut, during the publishes may find some
    destinations new and some old, each complete. If one cannot be published, those before it are taken back.

    Args:
        durability: "full" (when the body has ended, all survive a power cut), "ordered" (after one each is old or new)
            or "none" (no sync).

    Returns:
        A guard whose body gets itself, with the methods `file`, `folder`, `path`, `write_bytes`, `write_text`.

    Raises:
        ValueError: A wrong durability; nothing was touched.
        OSError: As for `file` and `folder`; `filename` is the member that failed. `committed` is true if
            members stay published, which the message names.
        UnsupportedFilesystemError: A destination exists, and the filesystem lacks RENAME_EXCHANGE.
        ConflictError: The folder of a destination was replaced or removed meanwhile; nothing was published.
        DurabilityError: A sync failed; `committed` says on which side of the publishes.

    Warns:
        CleanupWarning: A displaced version could not be removed; the commit stands.

    Durability: each filesystem synced once, then all published, then each folder synced once.
    Source: linkat(2), renameat2(2) RENAME_NOREPLACE and RENAME_EXCHANGE, syncfs(2), fsync(2).

    Example:
        >>> with atomik.group() as g:
        ...     for number in range(100):
        ...         g.write_text(f"{number}.txt", "hello")
    """

def path(
    path: AnyPath,
    *,
    overwrite: bool = False,
    update: bool = False,
    durability: Durability = "full",
    permissions: int | None = None,
    preserve: bool = True,
    follow_symlinks: bool = False,
    backup: AnyPath | None = None,
    cleanup: Cleanup = "inline",
    tmp_dir: AnyPath | None = None,
    dir_fd: int | None = None,
    siblings: Siblings = "refuse",
) -> Entry:
    """Gives a path at which a tool writes a file or makes a folder; it appears at `path` in one step.

    The last component is the destination's own name, for tools that look at the suffix. What else they leave beside it
    is not lost unasked: see `siblings`.

    Args:
        path: The destination: `str`, `bytes` or `os.PathLike`; with a slash at its end, a folder.
        siblings: What becomes of what the tool leaves beside the path (SQLite's "-wal", the parts of a shapefile): "refuse"
            (default) publishes nothing and names it in the error, "publish" publishes all of it beside the
            destination, in one group with it, and "discard" removes it.
        overwrite, update, durability, permissions, preserve, follow_symlinks, backup, cleanup, tmp_dir,
            dir_fd: As for `folder`.

    Returns:
        A guard whose `with` and `async with` body gets a `pathlib.Path` that does not exist yet, unless
        `update` has put a copy of the present version there.

    Raises:
        AtomikError: The tool has left something beside the path; `errno` is ENOTEMPTY, and nothing was published.
        FileNotFoundError: Nothing was at the path when the body ended; the message names what was.
        ValueError: "publish" with `update`, `backup` or `tmp_dir`, which a group does not take.
        OSError: As for `file` and `folder`, according to what the tool made.

    Durability: as for `file` and `folder`.
    Source: renameat2(2), flock(2), fsync(2).

    Example:
        >>> with atomik.path("table.csv") as p:
        ...     _ = p.write_text("a,b")  # or any tool that takes a file name
    """

def write_bytes(
    path: AnyPath,
    data: Buffer,
    *,
    overwrite: bool = False,
    durability: Durability = "full",
    permissions: int | None = None,
    preserve: bool = True,
    follow_symlinks: bool = False,
    backup: AnyPath | None = None,
    tmp_dir: AnyPath | None = None,
    dir_fd: int | None = None,
) -> None:
    r"""Writes a whole file in one call: the fastest way.

    Args:
        path: The destination.
        data: Any object with the buffer protocol: bytes, bytearray, memoryview, mmap, numpy arrays.
        overwrite, durability, permissions, preserve, follow_symlinks, backup, tmp_dir, dir_fd: As for `file`.

    Raises:
        BufferError: `data` is not contiguous.
        TypeError: `data` is no buffer.
        OSError: As for `file`; a full disk leaves the old version.

    Durability: as for `file`.
    Source: open(2) O_TMPFILE, write(2), linkat(2), rename(2), fsync(2).

    Example:
        >>> atomik.write_bytes("data.bin", b"\x00\x01")
    """

def write_text(
    path: AnyPath,
    text: str,
    *,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    overwrite: bool = False,
    durability: Durability = "full",
    permissions: int | None = None,
    preserve: bool = True,
    follow_symlinks: bool = False,
    backup: AnyPath | None = None,
    tmp_dir: AnyPath | None = None,
    dir_fd: int | None = None,
) -> None:
    r"""Writes a whole text file in one call.

    Args:
        path: The destination.
        text: What to write.
        encoding, errors, newline: As for `open`.
        overwrite, durability, permissions, preserve, follow_symlinks, backup, tmp_dir, dir_fd: As for `file`.

    Raises:
        UnicodeEncodeError: The encoding has no bytes for a character; nothing was touched.
        OSError: As for `file`.

    Durability: as for `file`.
    Source: open(2) O_TMPFILE, write(2), linkat(2), rename(2), fsync(2).

    Example:
        >>> atomik.write_text("greeting.txt", "hello\n", encoding="utf-8")
    """

def rename(
    src: AnyPath,
    dst: AnyPath,
    *,
    overwrite: bool = False,
    whiteout: bool = False,
    src_dir_fd: int | None = None,
    dst_dir_fd: int | None = None,
) -> None:
    """Renames a file or folder in one step; refuses to replace what is there unless asked.

    Args:
        src: What to rename; a symlink itself is renamed.
        dst: The new name, on the same mount.
        overwrite: Replace `dst` as `rename(2)` does: a file, or an empty folder by a folder.
        whiteout: Leave a whiteout in the old place (`RENAME_WHITEOUT`; for union filesystems).
        src_dir_fd: Open folder that a relative `src` starts from.
        dst_dir_fd: Open folder that a relative `dst` starts from.

    Raises:
        FileAlreadyExistsError: `dst` exists and `overwrite` is false.
        InvalidCrossDeviceError: They are on two mounts, or in a lower layer of an overlay.
        DestinationBusyError: One of them is a mount point.
        UnsupportedFilesystemError: The filesystem cannot rename a folder without replacing.
        OSError: Whatever else `rename(2)` answers, with `filename` and `filename2`.

    Durability: none by itself; a power cut may bring the old names back.
    Source: renameat2(2), RENAME_NOREPLACE; `link` and `unlink` where a filesystem lacks it.

    Example:
        >>> atomik.rename("draft.txt", "final.txt")
    """

def exchange(
    a: AnyPath, b: AnyPath, *, a_dir_fd: int | None = None, b_dir_fd: int | None = None
) -> None:
    """Exchanges two paths of any types in one step; `swap` is an alias.

    Args:
        a: One path; a symlink itself is exchanged.
        b: The other, on the same mount.
        a_dir_fd: Open folder that a relative `a` starts from.
        b_dir_fd: Open folder that a relative `b` starts from.

    Raises:
        FileNotFoundError: One of them does not exist.
        InvalidCrossDeviceError: They are on two mounts, or in a lower layer of an overlay.
        DestinationBusyError: One of them is a mount point.
        UnsupportedFilesystemError: The filesystem lacks RENAME_EXCHANGE.

    Durability: none by itself; a power cut may bring the old state back.
    Source: renameat2(2), RENAME_EXCHANGE.

    Example:
        >>> atomik.exchange("live", "next")
    """

def renameat2(
    olddirfd: int, oldpath: AnyPath, newdirfd: int, newpath: AnyPath, flags: RenameFlags | int
) -> None:
    """Calls `renameat2(2)`, with duplicates of the folders' descriptors, and nothing else.

    Args:
        olddirfd: Open folder that a relative `oldpath` starts from, or `atomik.AT_FDCWD`.
        oldpath: The old path.
        newdirfd: Open folder that a relative `newpath` starts from, or `atomik.AT_FDCWD`.
        newpath: The new path.
        flags: `atomik.RenameFlags`, or any number for the kernel to judge.

    Raises:
        OSError: The kernel's answer, as `os.rename` raises it, with `filename` and `filename2`.

    Durability: none by itself.
    Source: renameat2(2).

    Example:
        >>> atomik.renameat2(atomik.AT_FDCWD, "a", atomik.AT_FDCWD, "b", atomik.RenameFlags.EXCHANGE)
    """

def snapshot(path: AnyPath) -> Snapshot:
    """Holds one version of a folder still while it is read, however many are published meanwhile.

    Writers never wait for readers. A version that a writer has displaced meanwhile is removed by its
    last reader that may, or by the next writer. A reader that is killed holds nothing.

    Args:
        path: The folder: `str`, `bytes` or `os.PathLike`; a symlink is followed.

    Returns:
        A guard whose `with` and `async with` body gets a `pathlib.Path` below `/proc`. It is good for this
        process, its threads, and other processes of this user, as long as the snapshot is open. It is a symlink:
        tools that copy symlinks as such enter it as `f"{path}/."`.

    Raises:
        FileNotFoundError: There is no such folder.
        NotADirectoryError: It is a file: an open file stays as it is.
        DestinationBusyError: Another program holds an exclusive lock on the folder.
        UnsupportedFilesystemError: The filesystem cannot lock folders.

    Durability: nothing is written.
    Source: flock(2) LOCK_SH on the folder itself, proc_pid_fd(5).

    Example:
        >>> with atomik.folder("site", overwrite=True) as site:
        ...     _ = (site / "index.html").write_text("hello")
        >>> with atomik.snapshot("site") as site:
        ...     len(list(site.iterdir()))
        1
    """

def sweep(
    directory: AnyPath,
    *,
    recursive: bool = False,
    dry_run: bool = False,
    older_than: float | None = None,
) -> list[Orphan]:
    """Removes what killed processes have left in a folder.

    The next writer to a destination does so by itself for that destination; this is for folders to
    which nobody writes any more. What is alive, pinned by a snapshot or another user's is not touched.

    Args:
        directory: The folder in which destinations are, or a `tmp_dir`.
        recursive: Sweep the folders below as well; symlinks are not followed, mounts not crossed.
        dry_run: Report what would be removed, and remove nothing.
        older_than: Age in seconds from which slots of another lock domain (made by another machine or through
            another mount, see the page on slots), and slots where folders cannot be locked, are removed
            (default None: they are left). It must be longer than the longest body.

    Returns:
        A list of `Orphan`, one for each that was found.

    Raises:
        ValueError: `older_than` is negative or not a number of seconds.
        OSError: The folder cannot be opened or read.

    Durability: none; after a power cut an orphan may be back.
    Source: flock(2), unlinkat(2).

    Example:
        >>> for orphan in atomik.sweep(".", dry_run=True):
        ...     print(orphan.path, orphan.bytes)
    """

def probe(directory: AnyPath) -> Probe:
    """Tries what the filesystem of a folder can do, in a scratch slot there; nothing is left.

    Args:
        directory: A folder in which something can be made.

    Returns:
        A `Probe`; `print` shows it as a table.

    Raises:
        OSError: The folder cannot be opened, or nothing can be made in it.

    Durability: nothing is to be kept.
    Source: open(2) O_TMPFILE, renameat2(2), ioctl_ficlone(2), flock(2), link(2), fsetxattr(2), statfs(2).

    Example:
        >>> atomik.probe(".").durability in ("full", "none", "unknown")
        True
    """

def _orphan(path: Path, bytes: int, files: int, age: tuple[int, int], removed: bool) -> Orphan:  # noqa: A002
    """Makes an `Orphan` again that was pickled."""

def _probe(
    filesystem: str, mount_id: int, can: list[bool], lock_reach: str, durability: str
) -> Probe:
    """Makes a `Probe` again that was pickled."""
