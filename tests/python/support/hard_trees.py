"""Trees that are hard to copy, each built by one function."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from support import xattrs
from support.processes import NOBODY

# 2001-09-09, before the epoch, and far enough ahead that reading does not set it (mount(8): relatime).
_PAST: Final = 1_000_000_000_123_456_789
_BEFORE: Final = -86_400_000_000_001
_FUTURE: Final = 4_000_000_000_987_654_321


def _sizes(root: Path) -> None:
    # Around what is copied without looking for holes, and around a block.
    for size in (0, 1, 4095, 4096, 65535, 65536, 65537, 3 << 20):
        (root / str(size)).write_bytes(os.urandom(size))


def _modes(root: Path) -> None:
    for mode in (0o400, 0o444, 0o600, 0o666, 0o755, 0o777):
        (root / f"file {mode:o}").write_text("x")
        (root / f"file {mode:o}").chmod(mode)
    for mode in (0o500, 0o555, 0o700, 0o755, 0o777, 0o1777):
        (root / f"folder {mode:o}").mkdir()
        (root / f"folder {mode:o}" / "inner").write_text(f"{mode}")
        (root / f"folder {mode:o}").chmod(mode)


def _set_id_bits(root: Path) -> None:
    for mode in (0o4755, 0o2755, 0o6711, 0o4600):
        (root / f"file {mode:o}").write_text("x")
        (root / f"file {mode:o}").chmod(mode)
    (root / "folder" / "in").mkdir(parents=True)
    (root / "folder").chmod(0o2755)
    # What is made in a set-group-id folder gets the bit as well: the copy must not.
    (root / "folder" / "in").chmod(0o755)


def _read_only(root: Path) -> None:
    inner = root / "outer" / "inner"
    inner.mkdir(parents=True)
    (inner / "file").write_text("x")
    (inner / "file").chmod(0o444)
    inner.chmod(0o555)
    (root / "outer").chmod(0o555)


def _owners(root: Path) -> None:
    (root / "file").touch()
    (root / "folder").mkdir()
    (root / "link").symlink_to("nowhere")
    os.mkfifo(root / "fifo")
    for name in ("file", "folder", "link", "fifo"):
        os.chown(root / name, 1234, 5678, follow_symlinks=False)
    (root / "folder" / "inner").write_text("x")
    os.chown(root / "folder" / "inner", NOBODY.uid, 0)
    (root / "unreadable").write_text("x")
    (root / "unreadable").chmod(0)
    # Changing the owner clears this bit, so that it has to come last in a copy.
    (root / "set-user-id").write_text("x")
    os.chown(root / "set-user-id", 1234, 5678)
    (root / "set-user-id").chmod(0o4755)


def _times(root: Path) -> None:
    (root / "folder" / "inner").mkdir(parents=True)
    (root / "folder" / "file").write_text("x")
    (root / "folder" / "inner" / "file").write_text("x")
    os.mkfifo(root / "folder" / "fifo")
    (root / "folder" / "link").symlink_to("file")
    for number, name in enumerate(
        ("folder/inner/file", "folder/inner", "folder/file", "folder/fifo", "folder/link", "folder")
    ):
        modified = (_PAST, _BEFORE, _FUTURE)[number % 3] + number
        os.utime(root / name, ns=(_FUTURE + number, modified), follow_symlinks=False)


def _symlinks(root: Path) -> None:
    (root / "folder").mkdir()
    targets = ["folder", "nowhere", "/etc/passwd", "..", "x" * 1000, "\udcff\n"]
    for number, target in enumerate(targets):
        (root / f"link {number}").symlink_to(target)


def _hard_links(root: Path) -> None:
    (root / "a" / "b").mkdir(parents=True)
    (root / "z").mkdir()
    for number in range(100):
        (root / "a" / f"first {number}").write_text(f"{number}")
        (root / "a" / "b" / f"second {number}").hardlink_to(root / "a" / f"first {number}")
        (root / "z" / f"third {number}").hardlink_to(root / "a" / f"first {number}")
    (root / "one").write_text("one")
    (root / "same folder").hardlink_to(root / "one")
    # This one has a name outside of the tree, too, which the copy must not have.
    (root / "also outside").write_text("outside")
    (root.parent / "outside").hardlink_to(root / "also outside")


def _extended_attributes(root: Path) -> None:
    (root / "folder").mkdir()
    for name in ("file", "folder", "folder/read-only"):
        if name != "folder":
            (root / name).touch()
        xattrs.set_attribute(root / name, "user.atomik", os.urandom(500))
        xattrs.set_attribute(root / name, "user.empty", b"")
    (root / "folder" / "read-only").chmod(0o444)


def _acls(root: Path) -> None:
    (root / "folder" / "inner").mkdir(parents=True)
    (root / "folder" / "without").touch()
    (root / "folder" / "with").touch()
    # Set last: what is below has none of it, and its copy must not inherit it.
    xattrs.set_attribute(root / "folder", xattrs.DEFAULT, xattrs.allowing(1234))
    xattrs.set_attribute(root / "folder", xattrs.ACCESS, xattrs.allowing(1235, 0o5))
    xattrs.set_attribute(root / "folder" / "with", xattrs.ACCESS, xattrs.allowing(1236))


def _fifos(root: Path) -> None:
    os.mkfifo(root / "fifo", 0o600)
    os.mkfifo(root / "open to all")
    (root / "open to all").chmod(0o666)


def _empty_folders(root: Path) -> None:
    (root / "one" / "two").mkdir(parents=True)
    (root / "three").mkdir()


def _names_of_any_bytes(root: Path) -> None:
    for byte in range(1, 256):
        if byte != ord("/"):
            name = os.path.join(os.fsencode(root), bytes([byte]) + b"x")
            with open(name, "wb") as file:
                file.write(name)
    (root / ("n" * 255)).mkdir()
    (root / ("n" * 255) / ("m" * 255)).write_text("long")


def _deep(root: Path) -> None:
    # More levels than a clone keeps open, with files made before and after the way down, and
    # folders on both sides of it.
    folder = root
    for level in range(50):
        (folder / "a").mkdir()
        (folder / "a" / "leaf").write_text(f"{level}")
        (folder / "file").write_text(f"{level}")
        (folder / "m").mkdir()
        (folder / "z").mkdir()
        (folder / "z" / "leaf").write_text(f"{level}")
        os.link(folder / "file", folder / "z" / "linked")
        folder = folder / "m"


def _wide(root: Path) -> None:
    for number in range(3000):
        (root / f"{number}").write_text(f"{number}" * (number % 50))


def _many_folders(root: Path) -> None:
    for number in range(400):
        (root / f"{number}").mkdir()
        for name in "ab":
            (root / f"{number}" / name).write_text(f"{number}{name}")


Build = Callable[[Path], None]

TREES: Final[Mapping[str, Build]] = {
    "sizes": _sizes,
    "modes": _modes,
    "set-id bits": _set_id_bits,
    "read-only": _read_only,
    "times": _times,
    "symlinks": _symlinks,
    "hard links": _hard_links,
    "extended attributes": _extended_attributes,
    "ACLs": _acls,
    "FIFOs": _fifos,
    "empty folders": _empty_folders,
    "names of any bytes": _names_of_any_bytes,
    "deep": _deep,
    "wide": _wide,
    "many folders": _many_folders,
}
FOR_ROOT: Final[Mapping[str, Build]] = {"owners": _owners}
