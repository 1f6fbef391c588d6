"""System calls that are answered with an error and never made: old kernels, gVisor, containers' profiles.

A seccomp filter (seccomp(2)) of classic BPF, put together with ctypes. It cannot be taken off again:
install it in a forked child (`support.processes.run_as`), after all imports.

    deny([Rule("renameat2", errno.ENOSYS), Rule("openat", errno.EPERM, 2, os.O_TMPFILE)])
"""

import ctypes
import platform
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from support.kernel import LIBC, checked

# What a filter is made of, from <linux/bpf_common.h>, <linux/seccomp.h>, <linux/prctl.h>.
_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_AND: Final = 0x54  # BPF_ALU | BPF_AND | BPF_K
_JUMP_IF_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_PR_SET_SECCOMP: Final = 22
_PR_SET_NO_NEW_PRIVS: Final = 38
_MODE_FILTER: Final = 2

# Offsets in `struct seccomp_data`; of an argument only the lower half is looked at, where flags are.
_NUMBER: Final = 0
_ARCHITECTURE: Final = 4
_ARGUMENTS: Final = 16
_ARGUMENT_SIZE: Final = 8

WHOLE: Final = 0xFFFFFFFF
"""The mask that compares a whole argument (its lower 32 bits)."""

# AUDIT_ARCH_* of <linux/audit.h>: the numbers below are those of one architecture.
_ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# From arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
_NUMBERS: Final = {
    "x86_64": {
        "copy_file_range": 326,
        "faccessat": 269,
        "faccessat2": 439,
        "fchmod": 91,
        "fchmodat": 268,
        "fchmodat2": 452,
        "fchown": 93,
        "fdatasync": 75,
        "fgetxattr": 193,
        "flistxattr": 196,
        "flock": 73,
        "fsetxattr": 190,
        "fstatfs": 138,
        "fsync": 74,
        "getdents64": 217,
        "getrandom": 318,
        "ioctl": 16,
        "lgetxattr": 192,
        "linkat": 265,
        "llistxattr": 195,
        "mkdirat": 258,
        "newfstatat": 262,
        "openat": 257,
        "openat2": 437,
        "readlinkat": 267,
        "renameat": 264,
        "renameat2": 316,
        "statx": 332,
        "sync_file_range": 277,
        "syncfs": 306,
        "unlinkat": 263,
        "write": 1,
    },
    "aarch64": {
        "copy_file_range": 285,
        "faccessat": 48,
        "faccessat2": 439,
        "fchmod": 52,
        "fchmodat": 53,
        "fchmodat2": 452,
        "fchown": 55,
        "fdatasync": 83,
        "fgetxattr": 10,
        "flistxattr": 13,
        "flock": 32,
        "fsetxattr": 7,
        "fstatfs": 44,
        "fsync": 82,
        "getdents64": 61,
        "getrandom": 278,
        "ioctl": 29,
        "lgetxattr": 9,
        "linkat": 37,
        "llistxattr": 12,
        "mkdirat": 34,
        "newfstatat": 79,
        "openat": 56,
        "openat2": 437,
        "readlinkat": 78,
        "renameat": 38,
        "renameat2": 276,
        "statx": 291,
        "sync_file_range": 84,
        "syncfs": 267,
        "unlinkat": 35,
        "write": 64,
    },
}

SUPPORTED: Final = platform.machine() in _NUMBERS
"""Are this machine's system calls known here? Skip the test if not."""


@dataclass(frozen=True)
class Rule:
    """Answers calls of `syscall` with `errno`.

    With an `argument` (0 to 5) only those with `argument & mask == value`; the default of `value`
    is `mask`: all its bits are set.
    """

    syscall: str | int
    errno: int
    argument: int | None = None
    mask: int = WHOLE
    value: int | None = None


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def deny(rules: Iterable[Rule]) -> None:
    """Installs a filter for the calling thread and all that it starts; the first rule that fits answers."""
    code = _compile(rules)
    program = _Program(len(code) // struct.calcsize("HBBI"), code)
    # Without privileges a filter needs the promise that no set-user-id program will run under it.
    for arguments in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0),
    ):
        checked(LIBC.prctl(*arguments), "prctl")


def _compile(rules: Iterable[Rule]) -> bytes:
    machine = platform.machine()
    code = [
        *(_step(_LOAD, _ARCHITECTURE), _step(_JUMP_IF_EQUAL, _ARCHITECTURES[machine], 1, 0)),
        _step(_RETURN, _ALLOW),
    ]
    for rule in rules:
        code += _rule(rule, _NUMBERS[machine])
    return b"".join([*code, _step(_RETURN, _ALLOW)])


def _rule(rule: Rule, numbers: dict[str, int]) -> list[bytes]:
    number = rule.syscall if isinstance(rule.syscall, int) else numbers[rule.syscall]
    answer = [_step(_RETURN, _ERRNO | rule.errno)]
    if rule.argument is not None:
        value = rule.mask if rule.value is None else rule.value
        answer = [
            _step(_LOAD, _ARGUMENTS + _ARGUMENT_SIZE * rule.argument),
            _step(_AND, rule.mask & WHOLE),
            _step(_JUMP_IF_EQUAL, value & WHOLE, 0, len(answer)),
            *answer,
        ]
    return [_step(_LOAD, _NUMBER), _step(_JUMP_IF_EQUAL, number, 0, len(answer)), *answer]


def _step(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """Is one `struct sock_filter`; jumps count the instructions that they skip."""
    return struct.pack("HBBI", code, if_true, if_false, operand)
