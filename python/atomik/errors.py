"""The errors of atomik: all are `OSError`s with `errno`, `filename` and, for two paths, `filename2`."""

__all__ = [
    "AtomikError",
    "CleanupWarning",
    "ConflictError",
    "DestinationBusyError",
    "DurabilityError",
    "FileAlreadyExistsError",
    "InvalidCrossDeviceError",
    "UnsupportedFilesystemError",
]


class AtomikError(OSError):
    """The base of atomik's own errors.

    Attributes:
        committed: True if the new version had been published before the error.
    """

    committed: bool = False


class FileAlreadyExistsError(AtomikError, FileExistsError):
    """The destination exists and `overwrite` is false."""


class InvalidCrossDeviceError(AtomikError):
    """Staging and destination are on different mounts, or the destination is in an overlay's lower layer."""


class UnsupportedFilesystemError(AtomikError):
    """The filesystem, kernel or sandbox lacks the system call that is needed."""


class DestinationBusyError(AtomikError):
    """The destination is a mount point, a device, a FIFO or a socket, or keeps changing: it is not replaced."""


class ConflictError(AtomikError):
    """Somebody else has published since the body began, from which `update`, "a" or "r+" started; theirs stands."""


class DurabilityError(AtomikError):
    """A sync failed.

    `committed` says on which side of the publish: false, and the destination is untouched; true, and the new
    version is visible, but a power cut may bring the old one back.
    """


class CleanupWarning(ResourceWarning):
    """Something could not be removed after a commit or rollback; the next writer tries again."""
