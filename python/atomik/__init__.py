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
from atomik._atomik import (
    __version__ as __version__,
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
    from atomik.literals import (
        AnyPath,
        BinaryMode,
        Cleanup,
        Durability,
        OpenMode,
        Siblings,
        TextMode,
    )

swap = exchange

__all__ = [
    "AT_FDCWD",
    "AnyPath",
    "AtomikError",
    "BinaryMode",
    "Cleanup",
    "CleanupWarning",
    "ConflictError",
    "DestinationBusyError",
    "Durability",
    "DurabilityError",
    "Entry",
    "File",
    "FileAlreadyExistsError",
    "Folder",
    "Group",
    "InvalidCrossDeviceError",
    "Mode",
    "OpenMode",
    "Orphan",
    "Probe",
    "RenameFlags",
    "Siblings",
    "Snapshot",
    "TextMode",
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
    """Imports constants and types when one is used: enum and typing take longer than all the rest."""
    if name in ("AT_FDCWD", "Mode", "RenameFlags", "flags"):
        module = "atomik.flags"
    elif name == "literals" or name in _LITERALS:
        module = "atomik.literals"
    else:
        raise AttributeError(f"module 'atomik' has no attribute {name!r}")
    __import__(module)
    late = sys.modules[module]
    globals().update({public: getattr(late, public) for public in late.__all__})
    return globals()[name]


_LITERALS = ("AnyPath", "BinaryMode", "Cleanup", "Durability", "OpenMode", "Siblings", "TextMode")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "flags", "literals"} - {"TYPE_CHECKING"})
