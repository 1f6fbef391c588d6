from io import BufferedRandom, BufferedWriter, FileIO, TextIOWrapper
from os import PathLike
from pathlib import Path
from types import GenericAlias
from typing import IO, Any, Generic, Literal, TypeAlias, TypeVar, final, overload

from typing_extensions import Buffer

from atomik.flags import Mode, RenameFlags

__all__ = [
    "Entry",
    "File",
    "Folder",
    "exchange",
    "file",
    "folder",
    "path",
    "rename",
    "renameat2",
    "write_bytes",
    "write_text",
]

_IO = TypeVar("_IO", bound=IO[Any], covariant=True)

_Path: TypeAlias = str | bytes | PathLike[str] | PathLike[bytes]
_Durability: TypeAlias = Literal["full", "ordered", "none"]
_Text: TypeAlias = Literal[
    "w",
    "wt",
    "tw",
    "x",
    "xt",
    "tx",
    "w+",
    "+w",
    "wt+",
    "w+t",
    "+wt",
    "tw+",
    "t+w",
    "+tw",
    "x+",
    "+x",
    "xt+",
    "x+t",
    "+xt",
    "tx+",
    "t+x",
    "+tx",
]
_Binary: TypeAlias = Literal["wb", "bw", "xb", "bx"]
_BinaryRandom: TypeAlias = Literal[
    "w+b", "wb+", "+wb", "bw+", "b+w", "+bw", "x+b", "xb+", "+xb", "bx+", "b+x", "+bx"
]

@final
class File(Generic[_IO]):
    """A new version of a file: what `atomik.file` returns.

    A context manager, also for `async with` (then entering and committing run in a thread), whose
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

    A context manager, also for `async with` (then entering and committing run in a thread), whose
    body gets the `pathlib.Path` of the staging folder. The body's normal end commits, an exception
    rolls back.

    Attributes:
        destination: The path that was asked for.
        staging: Where the new version is built; None while the guard is not open.
        committed: True once the new version has been published.

    Example:
        >>> guard = atomik.folder("site")
        >>> with guard as dir:
        ...     _ = (dir / "index.html").write_text("hello")
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

@overload
def file(
    path: _Path,
    mode: _Text | Literal[Mode.TEXT] = "w",
    overwrite: bool = False,
    tmp_dir: _Path | None = None,
    *,
    durability: _Durability = "full",
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    buffering: int = -1,
    permissions: int | None = None,
    preserve: bool = True,
    follow_symlinks: bool = False,
    dir_fd: int | None = None,
) -> File[TextIOWrapper]:
    """Opens a new version of a file, which appears at `path` in one step when the body ends well.

    Args:
        path: The destination: `str`, `bytes` or `os.PathLike`.
        mode: As for `open`: "w", "x", "w+", "x+", with "b" for bytes (default "w").
        overwrite: Replace what is there (default False: an existing destination is refused at once).
        tmp_dir: Folder to stage in, on the destination's mount (default: the destination's folder).
        durability: "full" (survives a power cut), "ordered" (old or new after one) or "none" (no sync).
        encoding, errors, newline, buffering: As for `open`; buffering in bytes.
        permissions: Exact permission bits (default: the old version's, else the umask's).
        preserve: Keep the old version's mode, owner, group, ACL and user xattrs (default True).
        follow_symlinks: Publish where a symlink leads instead of replacing the link (default False).
        dir_fd: Open folder that a relative `path` starts from.

    Returns:
        A guard whose `with` and `async with` body gets a standard `io` object.

    Raises:
        FileAlreadyExistsError: The destination exists and `overwrite` is false.
        DestinationBusyError: It is a mount point, a device, a FIFO or a socket.
        IsADirectoryError: It is a folder.
        InvalidCrossDeviceError: `tmp_dir` is on another mount.
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
    path: _Path,
    mode: _Binary | _BinaryRandom | Literal[Mode.BYTES],
    overwrite: bool = False,
    tmp_dir: _Path | None = None,
    *,
    durability: _Durability = "full",
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
    path: _Path,
    mode: _Binary | Literal[Mode.BYTES],
    overwrite: bool = False,
    tmp_dir: _Path | None = None,
    *,
    durability: _Durability = "full",
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
    path: _Path,
    mode: _BinaryRandom,
    overwrite: bool = False,
    tmp_dir: _Path | None = None,
    *,
    durability: _Durability = "full",
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
    path: _Path,
    mode: _Binary | _BinaryRandom | Literal[Mode.BYTES],
    overwrite: bool = False,
    tmp_dir: _Path | None = None,
    *,
    durability: _Durability = "full",
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
    path: _Path,
    mode: str,
    overwrite: bool = False,
    tmp_dir: _Path | None = None,
    *,
    durability: _Durability = "full",
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
    path: _Path,
    overwrite: bool = False,
    tmp_dir: _Path | None = None,
    *,
    durability: _Durability = "full",
    permissions: int | None = None,
    preserve: bool = True,
    follow_symlinks: bool = False,
    dir_fd: int | None = None,
) -> Folder:
    """Makes a new version of a whole folder, which appears at `path` in one step when the body ends well.

    Args:
        path: The destination: `str`, `bytes` or `os.PathLike`.
        overwrite: Replace the folder that is there (default False: it is refused at once).
        tmp_dir: Folder to stage in, on the destination's mount (default: the destination's folder).
        durability: "full" (survives a power cut), "ordered" (old or new after one) or "none" (no sync).
        permissions: Exact permission bits of the folder (default: the old one's, else the umask's).
        preserve: Keep the old folder's mode, owner, group, ACL and user xattrs (default True).
        follow_symlinks: Publish where a symlink leads instead of replacing the link (default False).
        dir_fd: Open folder that a relative `path` starts from.

    Returns:
        A guard whose `with` and `async with` body gets the `pathlib.Path` of the empty staging folder.

    Raises:
        FileAlreadyExistsError: The destination exists and `overwrite` is false.
        NotADirectoryError: It is a file.
        DestinationBusyError: It is a mount point, a device, a FIFO or a socket.
        InvalidCrossDeviceError: It belongs to an overlay's lower layer, or `tmp_dir` is on another mount.
        UnsupportedFilesystemError: The filesystem lacks RENAME_NOREPLACE or RENAME_EXCHANGE.
        DurabilityError: A sync failed; `committed` says on which side of the publish.
        OSError: Any other refusal of the system; before the body if it can be known there.

    Warns:
        CleanupWarning: The displaced version could not be removed; the commit stands.

    Durability: every file and folder synced, then published, then the parent folder synced.
    Source: renameat2(2) RENAME_NOREPLACE and RENAME_EXCHANGE, flock(2), fsync(2).

    Example:
        >>> with atomik.folder("site", overwrite=True) as dir:
        ...     _ = (dir / "index.html").write_text("hello")
    """

def path(
    path: _Path,
    *,
    overwrite: bool = False,
    durability: _Durability = "full",
    permissions: int | None = None,
    preserve: bool = True,
    follow_symlinks: bool = False,
    tmp_dir: _Path | None = None,
    dir_fd: int | None = None,
) -> Entry:
    """Gives a path at which a tool writes a file or makes a folder; it appears at `path` in one step.

    The last component is the destination's own name, for tools that look at the suffix. Whatever
    else they leave beside it is removed.

    Args:
        path: The destination: `str`, `bytes` or `os.PathLike`; with a slash at its end, a folder.
        overwrite, durability, permissions, preserve, follow_symlinks, tmp_dir, dir_fd: As for `folder`.

    Returns:
        A guard whose `with` and `async with` body gets a `pathlib.Path` that does not exist yet.

    Raises:
        FileNotFoundError: Nothing was at the path when the body ended; the message names what was.
        OSError: As for `file` and `folder`, according to what the tool made.

    Durability: as for `file` and `folder`.
    Source: renameat2(2), flock(2), fsync(2).

    Example:
        >>> with atomik.path("table.csv") as p:
        ...     _ = p.write_text("a,b")  # or any tool that takes a file name
    """

def write_bytes(
    path: _Path,
    data: Buffer,
    *,
    overwrite: bool = False,
    durability: _Durability = "full",
    permissions: int | None = None,
    preserve: bool = True,
    follow_symlinks: bool = False,
    tmp_dir: _Path | None = None,
    dir_fd: int | None = None,
) -> None:
    r"""Writes a whole file in one call: the fastest way.

    Args:
        path: The destination.
        data: Any object with the buffer protocol: bytes, bytearray, memoryview, mmap, numpy arrays.
        overwrite, durability, permissions, preserve, follow_symlinks, tmp_dir, dir_fd: As for `file`.

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
    path: _Path,
    text: str,
    *,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    overwrite: bool = False,
    durability: _Durability = "full",
    permissions: int | None = None,
    preserve: bool = True,
    follow_symlinks: bool = False,
    tmp_dir: _Path | None = None,
    dir_fd: int | None = None,
) -> None:
    r"""Writes a whole text file in one call.

    Args:
        path: The destination.
        text: What to write.
        encoding, errors, newline: As for `open`.
        overwrite, durability, permissions, preserve, follow_symlinks, tmp_dir, dir_fd: As for `file`.

    Raises:
        UnicodeEncodeError: The encoding has no bytes for a character; nothing was touched.
        OSError: As for `file`.

    Durability: as for `file`.
    Source: open(2) O_TMPFILE, write(2), linkat(2), rename(2), fsync(2).

    Example:
        >>> atomik.write_text("greeting.txt", "hello\n", encoding="utf-8")
    """

def rename(
    src: _Path,
    dst: _Path,
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
    a: _Path, b: _Path, *, a_dir_fd: int | None = None, b_dir_fd: int | None = None
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
    olddirfd: int, oldpath: _Path, newdirfd: int, newpath: _Path, flags: RenameFlags | int
) -> None:
    """Calls `renameat2(2)` and nothing else.

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
