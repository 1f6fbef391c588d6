"""Which errors a system call can end in: all that its man page and the filesystems have."""

from typing import Final

from support.strace import NOT_THE_LIBRARYS, Call

_LOOKING: Final = ("EIO", "ENOMEM", "EACCES")
_CHANGING: Final = ("EIO", "ENOSPC", "EDQUOT", "ENOMEM", "EACCES", "EROFS", "EINTR")
_SYNCING: Final = ("EIO", "ENOSPC", "EDQUOT", "EINTR")
_DESCRIBING: Final = ("EIO", "ENOMEM", "EINTR")

_ERRORS: Final = {
    "openat": ("EIO", "ENOMEM", "EMFILE", "EACCES", "EINTR"),
    "openat2": ("EIO", "ENOMEM", "EMFILE", "EACCES", "EINTR"),
    "statx": _LOOKING,
    "newfstatat": _LOOKING,
    "fstat": ("EIO", "ENOMEM"),
    "readlinkat": _LOOKING,
    "readlink": _LOOKING,
    "getdents64": ("EIO", "ENOMEM", "EINTR"),
    "write": ("EIO", "ENOSPC", "EDQUOT", "EINTR", "ENOMEM"),
    "fsync": _SYNCING,
    "fdatasync": _SYNCING,
    "syncfs": _SYNCING,
    "sync_file_range": (*_SYNCING, "ENOSYS", "EPERM"),
    "flock": ("ENOLCK", "EINTR", "EIO", "ENOMEM"),
    "mkdir": _CHANGING,
    "mkdirat": _CHANGING,
    "linkat": _CHANGING,
    "link": _CHANGING,
    "rename": _CHANGING,
    "renameat": _CHANGING,
    "renameat2": _CHANGING,
    "symlinkat": _CHANGING,
    "copy_file_range": ("EIO", "ENOSPC", "EDQUOT", "ENOMEM", "EINTR"),
    "unlinkat": _CHANGING,
    "unlink": _CHANGING,
    "rmdir": _CHANGING,
    "fchmod": _CHANGING,
    "fchmodat": _CHANGING,
    "fchmodat2": _CHANGING,
    "fchown": _CHANGING,
    "fchownat": _CHANGING,
    # Without EACCES: attributes are kept where that is permitted, says the contract.
    "fsetxattr": ("EIO", "ENOSPC", "EDQUOT", "ENOMEM", "EROFS", "EINTR"),
    "fremovexattr": _CHANGING,
}
"""An `openat` that makes something has those of `_CHANGING` as well."""

_LOOKS: Final = frozenset(
    [
        *("openat", "openat2", "lseek", "faccessat2", "dup3"),
        *("statx", "newfstatat", "fstat", "fstatfs"),
        *("readlinkat", "readlink", "getdents64"),
        *("llistxattr", "flistxattr", "lgetxattr", "fgetxattr"),
    ]
)

NEVER: Final = frozenset(
    [
        # Without memory both languages end the process; locks and signal handlers cannot fail.
        *NOT_THE_LIBRARYS,
        # A descriptor is closed whatever close(2) answers; strace can only answer *instead* of closing it.
        "close",
        # These cannot fail.
        "getpid",
        "gettid",
        "geteuid",
        "getuid",
        "getegid",
        "umask",
    ]
)
"""Calls that never fail; the process is killed at each of them all the same."""


def of(call: Call) -> tuple[str, ...]:
    """Returns the names of the errors that a call can end in."""
    if call.name in NEVER:
        return ()
    errors = _ERRORS.get(call.name, _DESCRIBING)
    if _creates(call):
        errors = tuple(dict.fromkeys((*errors, *_CHANGING)))
    return errors


def only_looks(call: Call) -> bool:
    """Does it leave everything as it is? A call that nobody has thought of yet does not."""
    return call.name in _LOOKS and not _creates(call)


def _creates(call: Call) -> bool:
    return call.name.startswith("openat") and ("O_CREAT" in call.text or "O_TMPFILE" in call.text)
