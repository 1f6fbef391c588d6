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
