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
    """The base of atomik's own errors; itself, with ENOTEMPTY, if a tool has left something beside `atomik.path`.

    Attributes:
        committed: True if the new version had been published before the error.

    Example:
        >>> try:
        ...     atomik.write_text("result.txt", "42", overwrite=True)
        ... except atomik.AtomikError as error:
        ...     print(error.errno, error.filename, error.committed)
    """

    committed: bool = False


class FileAlreadyExistsError(AtomikError, FileExistsError):
    """The destination exists and `overwrite` is false.

    Example:
        >>> atomik.write_text("result.txt", "42")
        >>> try:
        ...     atomik.write_text("result.txt", "43")
        ... except FileExistsError as error:
        ...     print(error.filename)
        result.txt
    """


class InvalidCrossDeviceError(AtomikError):
    """Staging and destination are on different mounts, or the destination is in an overlay's lower layer.

    Example:
        >>> try:
        ...     atomik.write_text("result.txt", "42", tmp_dir="/proc")
        ... except atomik.InvalidCrossDeviceError:
        ...     print("stage beside the destination")
        stage beside the destination
    """


class UnsupportedFilesystemError(AtomikError):
    """The filesystem, kernel or sandbox lacks the system call that is needed.

    Example:
        >>> try:
        ...     with atomik.folder("site", overwrite=True) as site:
        ...         _ = (site / "index.html").write_text("hello")
        ... except atomik.UnsupportedFilesystemError:
        ...     print("publish an archive of it instead")
    """


class DestinationBusyError(AtomikError):
    """The destination is a mount point, a device, a FIFO or a socket, or leads to one: it is not replaced.

    Also raised where the destination keeps changing, and where another program's lock on it stays.

    Example:
        >>> import os
        >>> os.mkfifo("pipe")
        >>> try:
        ...     atomik.write_text("pipe", "42", overwrite=True)
        ... except atomik.DestinationBusyError as error:
        ...     print(error.filename)
        pipe
    """


class ConflictError(AtomikError):
    """What the body started from, or the folder of its destination, is no longer there.

    Somebody else has published or written since the body began, and theirs stands. The body started from the version
    before (`update`, "a", "r+"), or it has written nothing, and the destination has content that was not there; or the
    folder was replaced or removed.

    Example:
        >>> atomik.write_text("list.txt", "one")
        >>> try:
        ...     with atomik.file("list.txt", "a") as f:
        ...         atomik.write_text("list.txt", "two", overwrite=True)
        ... except atomik.ConflictError as error:
        ...     print(error.filename, error.committed)
        list.txt False
    """


class DurabilityError(AtomikError):
    """A sync failed.

    `committed` says on which side of the publish: false, and the destination is untouched; true, and the new
    version is visible, but a power cut may bring the old one back.

    Example:
        >>> try:
        ...     atomik.write_text("result.txt", "42")
        ... except atomik.DurabilityError as error:
        ...     print("visible" if error.committed else "rolled back")
    """


class CleanupWarning(RuntimeWarning):
    """Something could not be removed after a commit or rollback, and is named; each later writer tries again.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("error", atomik.CleanupWarning)
        ...     atomik.write_text("result.txt", "42")
    """
