"""Writes files and whole folders atomically.

A reader, or the next boot, sees the complete old version or the complete new one, never a mix, never nothing.

>>> import atomik
>>> with atomik.file("result.json") as f:
...     _ = f.write("{}")
"""

import sys

if sys.platform != "linux":
    raise ImportError(
        f"atomik rests on Linux system calls (renameat2, O_TMPFILE): it does not run on {sys.platform}"
    )

from atomik import errors
from atomik._atomik import (
    Entry,
    File,
    Folder,
    Group,
    Orphan,
    Probe,
    Snapshot,
    exchange,
    file,
    folder,
    group,
    path,
    probe,
    rename,
    renameat2,
    snapshot,
    sweep,
    write_bytes,
    write_text,
)
from atomik.errors import (
    AtomikError,
    CleanupWarning,
    ConflictError,
    DestinationBusyError,
    DurabilityError,
    FileAlreadyExistsError,
    InvalidCrossDeviceError,
    UnsupportedFilesystemError,
)

TYPE_CHECKING = False  # typing itself would be imported for it
if TYPE_CHECKING:
    from atomik.flags import AT_FDCWD, Mode, RenameFlags

swap = exchange

__all__ = [
    "AT_FDCWD",
    "AtomikError",
    "CleanupWarning",
    "ConflictError",
    "DestinationBusyError",
    "DurabilityError",
    "Entry",
    "File",
    "FileAlreadyExistsError",
    "Folder",
    "Group",
    "InvalidCrossDeviceError",
    "Mode",
    "Orphan",
    "Probe",
    "RenameFlags",
    "Snapshot",
    "UnsupportedFilesystemError",
    "errors",
    "exchange",
    "file",
    "folder",
    "group",
    "path",
    "probe",
    "rename",
    "renameat2",
    "snapshot",
    "swap",
    "sweep",
    "write_bytes",
    "write_text",
]


def __getattr__(name: str) -> object:
    """Imports `atomik.flags` when a name of it is used: enum takes longer than all the rest."""
    if name not in ("AT_FDCWD", "Mode", "RenameFlags", "flags"):
        raise AttributeError(f"module 'atomik' has no attribute {name!r}")
    from atomik.flags import AT_FDCWD, Mode, RenameFlags  # noqa: PLC0415 - not before it is wanted

    globals().update(AT_FDCWD=AT_FDCWD, Mode=Mode, RenameFlags=RenameFlags)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "flags"} - {"TYPE_CHECKING"})
