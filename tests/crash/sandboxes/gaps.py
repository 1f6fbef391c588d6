"""What can be missing, what is then left of a system, and what an operation must come to there."""

import errno
import os
from dataclasses import dataclass, replace
from typing import Final

import atomik.errors
from seccomp import Rule
from support import kernel
from support.filesystems import Filesystem

from sandboxes.operations import Operation, Outcome

# Which argument holds the flags.
_RENAMEAT2_FLAGS: Final = 4
_LINKAT_FLAGS: Final = 4
_OPENAT_FLAGS: Final = 2

_AT_EMPTY_PATH: Final = 0x1000

_OF_A_TOOL: Final = ("path to a file", "path to a folder")


@dataclass(frozen=True)
class System:
    """What a kernel, a sandbox and a filesystem leave together.

    `forbidden`: some calls answer EPERM, which may mean a gap or a refusal; `noreplace_forbidden`: the
    one with RENAME_NOREPLACE is among them.
    """

    noreplace: bool
    exchange: bool
    unnamed: bool
    link: bool = True
    forbidden: bool = False
    noreplace_forbidden: bool = False

    @classmethod
    def of(cls, fs: Filesystem) -> "System":
        """Is what a filesystem gives when nothing is denied."""
        return cls(
            noreplace=bool(fs.flags & kernel.NOREPLACE),
            exchange=bool(fs.flags & kernel.EXCHANGE),
            unnamed=fs.unnamed,
        )


@dataclass(frozen=True)
class Gap:
    """Some calls that are denied together."""

    noreplace: bool = False
    exchange: bool = False
    unnamed: bool = False
    link_by_descriptor: bool = False
    link: bool = False

    def rules(self, number: int) -> list[Rule]:
        """Returns what answers these calls with an errno."""
        rules: list[Rule] = []
        if self.noreplace:
            rules.append(Rule("renameat2", number, _RENAMEAT2_FLAGS, kernel.NOREPLACE))
        if self.exchange:
            rules.append(Rule("renameat2", number, _RENAMEAT2_FLAGS, kernel.EXCHANGE))
        if self.unnamed:
            rules.append(Rule("openat", number, _OPENAT_FLAGS, os.O_TMPFILE))
        if self.link_by_descriptor:
            rules.append(Rule("linkat", number, _LINKAT_FLAGS, _AT_EMPTY_PATH))
        if self.link:
            rules.append(Rule("linkat", number))
        return rules

    def leaves(self, system: System, number: int) -> System:
        """Returns what is left of a system."""
        return replace(
            system,
            noreplace=system.noreplace and not self.noreplace,
            exchange=system.exchange and not self.exchange,
            # What cannot be linked is not staged without a name.
            unnamed=system.unnamed and not self.unnamed and not self.link,
            # A link by descriptor has an equal: through /proc/self/fd.
            link=system.link and not self.link,
            forbidden=number == errno.EPERM,
            noreplace_forbidden=number == errno.EPERM and self.noreplace,
        )


GAPS: Final = {
    "NOREPLACE": Gap(noreplace=True),
    "EXCHANGE": Gap(exchange=True),
    "rename flags": Gap(noreplace=True, exchange=True),
    "O_TMPFILE": Gap(unnamed=True),
    "AT_EMPTY_PATH": Gap(link_by_descriptor=True),
    "linkat": Gap(link=True),
    "rename flags, AT_EMPTY_PATH": Gap(noreplace=True, exchange=True, link_by_descriptor=True),
    "rename flags, O_TMPFILE": Gap(noreplace=True, exchange=True, unnamed=True),
    "O_TMPFILE, linkat": Gap(unnamed=True, link=True),
    "everything": Gap(noreplace=True, exchange=True, unnamed=True, link=True),
}

ERRNOS: Final = (errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP)


def broken_promises(operation: Operation, system: System, outcome: Outcome) -> list[str]:
    """Lists what an outcome on this system has broken: it must be an equal fallback or a clean refusal."""
    found = _broken_refusal(operation, system, outcome) if outcome.error else []
    refused = refused_early(operation, system) or refused_late(operation, system)
    if refused and outcome.error is None:
        found.append("it promises less than it should")
    if not refused and outcome.error is not None:
        found.append(f"it is refused: {outcome.error!r}")
    if outcome.error is None and outcome.state != operation.after:
        found.append(f"it leaves {outcome.state}")
    if (
        operation.call == "file"
        and outcome.body_ran
        and bool(outcome.beside_body) is system.unnamed
    ):
        found.append(f"beside the body is {outcome.beside_body}")
    return found


def _broken_refusal(operation: Operation, system: System, outcome: Outcome) -> list[str]:
    error = outcome.error
    found: list[str] = []
    early = refused_early(operation, system)
    if early and outcome.body_ran:
        found.append("it is refused after the body")
    right: set[type[OSError]] = {atomik.errors.UnsupportedFilesystemError}
    if not early and system.forbidden:
        right.add(PermissionError)
    if not early and operation.met and not operation.overwrite:
        right.add(atomik.errors.FileAlreadyExistsError)
    if type(error) not in right:
        found.append(f"it raises {error!r}")
    return found + broken_rollback(operation, outcome)


def broken_rollback(operation: Operation, outcome: Outcome) -> list[str]:
    """Lists what is not as before, after an error that says that nothing was published."""
    found: list[str] = []
    if getattr(outcome.error, "committed", False):
        found.append("it claims to have published")
    if outcome.state != (operation.met_state if outcome.body_ran else operation.before):
        found.append(f"after {outcome.error!r} it leaves {outcome.state}")
    if outcome.touched:
        found.append("it has touched what was there")
    return found


def refused_early(operation: Operation, system: System) -> bool:
    """Must it be refused before the body? Whatever can be known by then is."""
    moved = operation.overwrite or system.noreplace or system.link
    if operation.call == "folder" and not operation.exists:
        return not (operation.overwrite or system.noreplace)
    if operation.call in ("file", *_OF_A_TOOL) and not operation.exists and not moved:
        return True
    return (
        operation.call in ("folder", "path to a folder")
        and operation.exists
        and not system.exchange
    )


def refused_late(operation: Operation, system: System) -> bool:
    """Must it fail at the publish, where alone it can be known?

    `atomik.path` learns only then what was made; `rename` and `exchange` are the bare call.
    """
    if operation.met and not operation.overwrite:
        return True
    moved = operation.overwrite or system.noreplace or system.link
    match operation.call:
        case "file" | "write_bytes" | "write_text" | "path to a file":
            return not moved
        case "folder" | "path to a folder":
            # Plain rename(2) replaces no folder that has entries, but takes the place of none.
            replaces = operation.met or operation.exists
            return not (system.exchange if replaces else operation.overwrite or system.noreplace)
        case "rename of a file":
            # EPERM to the bare call may be the answer to the rename itself: no fallback after it.
            return not moved or (system.noreplace_forbidden and not operation.overwrite)
        case "rename of a folder":
            return not (operation.overwrite or system.noreplace)
        case "exchange of a file" | "exchange of a folder":
            return not system.exchange
        case _:
            raise AssertionError(f"what does {operation.call} need?")
