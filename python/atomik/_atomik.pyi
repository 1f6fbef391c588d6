from io import BufferedRandom, BufferedWriter, FileIO, TextIOWrapper
from os import PathLike
from pathlib import Path
from types import GenericAlias
from typing import IO, Any, Generic, Literal, TypeAlias, TypeVar, final, overload

from typing_extensions import Buffer

from atomik.flags import Mode, RenameFlags

_IO = TypeVar("_IO", bound=IO[Any], covariant=True)

_Path: TypeAlias = str | bytes | PathLike[str] | PathLike[bytes]
_Durability: TypeAlias = Literal["full", "ordered", "none"]
_Text: TypeAlias = Literal[
    "w", "wt", "tw", "x", "xt", "tx", "w+", "+w", "wt+", "w+t", "+wt", "tw+", "t+w", "+tw",
    "x+", "+x", "xt+", "x+t", "+xt", "tx+", "t+x", "+tx",
]
_Binary: TypeAlias = Literal["wb", "bw", "xb", "bx"]
_BinaryRandom: TypeAlias = Literal["w+b", "wb+", "+wb", "bw+", "b+w", "+bw", "x+b", "xb+", "+xb", "bx+", "b+x", "+bx"]

@final
class File(Generic[_IO]):
    def __enter__(self) -> _IO: ...
    def __exit__(self, *exc: object) -> Literal[False]: ...
    async def __aenter__(self) -> _IO: ...
    async def __aexit__(self, *exc: object) -> Literal[False]: ...
    def commit(self) -> None: ...
    def rollback(self) -> None: ...
    @property
    def destination(self) -> Path: ...
    @property
    def staging(self) -> Path | None: ...
    @property
    def committed(self) -> bool: ...
    def __class_getitem__(cls, item: object, /) -> GenericAlias: ...

@final
class Folder:
    def __enter__(self) -> Path: ...
    def __exit__(self, *exc: object) -> Literal[False]: ...
    async def __aenter__(self) -> Path: ...
    async def __aexit__(self, *exc: object) -> Literal[False]: ...
    def commit(self) -> None: ...
    def rollback(self) -> None: ...
    @property
    def destination(self) -> Path: ...
    @property
    def staging(self) -> Path | None: ...
    @property
    def committed(self) -> bool: ...

@final
class Entry:
    def __enter__(self) -> Path: ...
    def __exit__(self, *exc: object) -> Literal[False]: ...
    async def __aenter__(self) -> Path: ...
    async def __aexit__(self, *exc: object) -> Literal[False]: ...
    def commit(self) -> None: ...
    def rollback(self) -> None: ...
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
) -> File[TextIOWrapper]: ...
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
) -> Folder: ...
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
) -> Entry: ...
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
) -> None: ...
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
) -> None: ...
def rename(
    src: _Path,
    dst: _Path,
    *,
    overwrite: bool = False,
    whiteout: bool = False,
    src_dir_fd: int | None = None,
    dst_dir_fd: int | None = None,
) -> None: ...
def exchange(a: _Path, b: _Path, *, a_dir_fd: int | None = None, b_dir_fd: int | None = None) -> None: ...
def renameat2(olddirfd: int, oldpath: _Path, newdirfd: int, newpath: _Path, flags: RenameFlags | int) -> None: ...
