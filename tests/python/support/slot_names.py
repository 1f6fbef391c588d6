"""The names that atomik gives its slots and locks beside a destination, computed without it."""

import os
import struct
from pathlib import Path
from typing import Final

from support import kernel

# Filesystems whose locks reach everybody, by their numbers from <linux/magic.h> and the kernel's sources. Everywhere
# else names carry the lock domain.
_SEEN_BY_ALL: Final = frozenset(
    {
        0xEF53,  # ext2, ext3, ext4
        0x58465342,  # xfs
        0x9123683E,  # btrfs
        0xCA451A4E,  # bcachefs
        0xF2F52010,  # f2fs
        0x3153464A,  # jfs
        0x3434,  # nilfs
        0x01021994,  # tmpfs
        0x858458F6,  # ramfs
        0x794C7630,  # overlay
        0x4D44,  # vfat
        0x2011BAB0,  # exfat
        0x2FC12FC1,  # zfs
    }
)

# More bytes of a destination's name are replaced by their hash.
_LONGEST: Final = 98


def porch(destination: Path) -> Path:
    """Returns where the first writer's slot is, or its file on its way."""
    return _beside(destination, "0", domain(destination.parent))


def room(destination: Path, uid: int | None = None) -> Path:
    """Returns the folder with the slots of a user's other writers."""
    user = os.geteuid() if uid is None else uid
    return _beside(destination, f"u{user}", domain(destination.parent))


def lock(destination: Path) -> Path:
    """Returns the publish lock."""
    return _beside(destination, "lock", domain(destination.parent))


def foreign(destination: Path, word: str = "0", number: int = 0x0123456789ABCDEF) -> Path:
    """Returns a name of another lock domain, or of a writer that can lock no folder."""
    return _beside(destination, word, f"{number:016x}")


def domain(folder: Path) -> str | None:
    """Returns what the lock domain of a folder is called; None where locks reach everybody."""
    if kernel.filesystem_type(folder) in _SEEN_BY_ALL:
        return None
    run = _fnv1a(Path("/proc/sys/kernel/random/boot_id").read_bytes())
    device = folder.stat().st_dev
    number = os.major(device) << 32 | os.minor(device)
    return f"{_fnv1a(struct.pack('=QQ', run, number)):016x}"


def _beside(destination: Path, word: str, domain: str | None) -> Path:
    name = os.fsencode(destination.name)
    if len(name) > _LONGEST:
        name = b"%s~%016x" % (_cut(name, _LONGEST - 17), _fnv1a(name))
    word = word if domain is None else f"{word}-{domain}"
    return destination.parent / os.fsdecode(b".atomik-%s.%s~" % (word.encode(), name))


def _cut(name: bytes, length: int) -> bytes:
    """Shortens a name, between characters if it has any."""
    try:
        name.decode()
    except UnicodeDecodeError:
        return name[:length]
    return name[:length].decode(errors="ignore").encode()


def _fnv1a(content: bytes) -> int:
    hashed = 0xCBF29CE484222325
    for byte in content:
        hashed = (hashed ^ byte) * 0x100000001B3 % 2**64
    return hashed
