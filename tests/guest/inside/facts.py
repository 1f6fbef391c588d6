"""Prints what the kernel does with shared folders, measured by bare calls: no library takes part.

Run it in the guest: `make guest-facts`.
"""

import ctypes
import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from shares import SOMEBODYS, TRAITS, Share, Shares
from support import kernel

_STATX: Final = 332
_AT_EMPTY_PATH: Final = 0x1000
_STATX_MNT_ID: Final = 0x1000
_STATX_MNT_ID_UNIQUE: Final = 0x4000


def answer(call: Callable[..., object], *arguments: object, **more: object) -> str:
    """Tells how a call ended, in a word."""
    try:
        call(*arguments, **more)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    return "yes"


def statx_mask(path: Path, mask: int) -> int:
    buffer = ctypes.create_string_buffer(256)
    fd = os.open(path, os.O_PATH)
    try:
        kernel.checked(kernel.LIBC.syscall(_STATX, fd, b"", _AT_EMPTY_PATH, mask, buffer))
    finally:
        os.close(fd)
    return int.from_bytes(buffer.raw[:4], "little")


def statfs_type(path: Path) -> str:
    return hex(kernel.filesystem_type(path))


def unnamed(folder: Path) -> str:
    try:
        fd = os.open(folder, os.O_TMPFILE | os.O_WRONLY)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    try:
        # With a descriptor of a folder: else Python calls link(2), which does not follow.
        place = os.open(folder, os.O_PATH)
        return answer(os.link, f"/proc/self/fd/{fd}", "linked", dst_dir_fd=place)
    finally:
        os.close(fd)


def hard_link(folder: Path) -> str:
    (folder / "one").touch()
    return answer(os.link, folder / "one", folder / "two")


def rename_answers(folder: Path, flag: int, *, folders: bool, there: bool) -> str:
    new = folder / f"rename-{flag}-{folders}-{there}"
    new.mkdir()

    def make(path: Path) -> None:
        if folders:
            path.mkdir()
        else:
            path.touch()

    make(new / "src")
    if there:
        make(new / "dst")
    return answer(kernel.renameat2, new / "src", new / "dst", flag)


def lock(holder: Path, other: Path, name: str, flag: int = os.O_RDWR) -> str:
    """Tells whether a lock on `name` is given, and what the other path to the folder says then."""
    first, second = (os.open(path / name, flag) for path in (holder, other))
    try:
        given = answer(fcntl.flock, first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if given != "yes":
            return f"refused: {given}"
        seen = answer(fcntl.flock, second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return {"yes": "given, not seen", "EAGAIN": "given and seen"}.get(seen, seen)
    finally:
        os.close(first)
        os.close(second)


def folder_lock(holder: Path, other: Path) -> str:
    (holder / "locked").mkdir(exist_ok=True)
    return lock(holder, other, "locked", os.O_RDONLY)


def file_lock(holder: Path, other: Path, flag: int = os.O_RDWR) -> str:
    (holder / "lockedfile").touch()
    return lock(holder, other, "lockedfile", flag)


def modes(folder: Path) -> str:
    found: list[str] = []
    for mode in (0o700, 0o1700, 0o755):
        path = folder / f"mode{mode:o}"
        os.mkdir(path, mode)
        found.append(f"{mode:o}→{path.stat().st_mode & 0o7777:o}")
    path = folder / "filemode"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    found.append(f"file 600→{path.stat().st_mode & 0o7777:o}")
    return " ".join(found)


def chmods(folder: Path) -> str:
    path = folder / "chmodded"
    path.mkdir()
    found: list[str] = []
    for mode in (0o700, 0o1700, 0o750, 0o500):
        said = answer(partial(path.chmod, mode))
        found.append(f"{mode:o}:{said}→{path.stat().st_mode & 0o7777:o}")
    with suppress(OSError):
        path.chmod(0o755)
    file = folder / "chmoddedfile"
    with file.open("w") as opened:
        for mode in (0o600, 0o640, 0o444):
            said = answer(partial(os.fchmod, opened.fileno(), mode))
            found.append(f"file {mode:o}:{said}→{file.stat().st_mode & 0o7777:o}")
    return " ".join(found)


def owners(folder: Path) -> str:
    path = folder / "owned"
    path.mkdir()
    made = path.stat()
    said = answer(os.chown, path, 1234, 1234)
    now = path.stat()
    return (
        f"made by root: {made.st_uid}:{made.st_gid}; chown 1234: {said}→{now.st_uid}:{now.st_gid}"
    )


def numbers(share: Share) -> str:
    (share.a / "numbered").touch()
    first, second = (os.stat(path / "numbered") for path in (share.a, share.b))
    kept = first.st_ino == second.st_ino
    (share.a / "numbered").rename(share.a / "numbered2")
    renamed = os.stat(share.a / "numbered2").st_ino == first.st_ino
    return (
        f"st_dev {'differ' if first.st_dev != second.st_dev else 'same'} "
        f"({first.st_dev:#x} {second.st_dev:#x}), "
        f"st_ino {'same' if kept else 'differ'}, {'kept' if renamed else 'CHANGED'} by rename"
    )


def removal_of_open(remover: Path, opener: Path) -> str:
    """Removes a file that is open, then its folder; tells what is seen, and for how long."""
    folder = remover / f"open-{opener == remover}"
    folder.mkdir()
    (folder / "file").write_text("x")
    fd = os.open(opener / folder.name / "file", os.O_RDONLY)
    said = [f"unlink {answer(os.unlink, folder / 'file')}"]
    said.append(f"then lists {[name[:5] for name in os.listdir(folder)]}")
    said.append(f"unlink of that {[answer(os.unlink, folder / n) for n in os.listdir(folder)]}")
    said.append(f"rmdir {answer(os.rmdir, folder)}")
    said.append(f"rename of the folder {answer(os.rename, folder, f'{folder}2')}")
    if os.path.exists(f"{folder}2"):
        folder = Path(f"{folder}2")
    said.append(f"read {answer(os.read, fd, 1)}")
    os.close(fd)
    began = time.monotonic()
    while time.monotonic() < began + 20:
        ended = answer(os.rmdir, folder)
        if ended in ("yes", "ENOENT"):
            said.append(f"after close rmdir {ended} within {time.monotonic() - began:.2f} s")
            break
        time.sleep(0.05)
    else:
        said.append(f"after close rmdir still {ended} after 20 s")  # type: ignore[possibly-undefined]
    return ", ".join(said)


def folder_fd_removed(share: Share) -> str:
    """A folder held open and locked here, removed by the other client: what each call says then."""
    (share.a / "gone").mkdir()
    fd = os.open(share.a / "gone", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    (share.a / "gone" / "inner").mkdir()
    inner = os.open("inner", os.O_RDONLY, dir_fd=fd)
    said = [f"other's rmdir {answer(subprocess.run, ['rm', '-rf', share.b / 'gone'], check=True)}"]
    said.append(f"mkdirat {answer(os.mkdir, 'new', dir_fd=fd)}")
    said.append(f"openat(CREAT) {answer(os.open, 'f', os.O_CREAT | os.O_WRONLY, dir_fd=inner)}")
    said.append(f"fstat {answer(os.fstat, fd)}")
    said.append(f"listdir {answer(os.listdir, fd)}")
    said.append(f"fsync {answer(os.fsync, fd)}")
    said.append(f"rename out {answer(os.rename, 'inner', share.a / 'out', src_dir_fd=fd)}")
    said.append(f"stat by name {answer(os.stat, share.a / 'gone')}")
    said.append(f"mkdir by name {answer(os.mkdir, share.a / 'gone')}")
    return ", ".join(said)


def negative_cache(share: Share) -> str:
    """How long one client goes on not to see, or to see, what the other has made or removed."""
    said: list[str] = []
    name = "cached"
    answer(os.stat, share.a / name)
    (share.b / name).mkdir()
    began = time.monotonic()
    while answer(os.stat, share.a / name) == "ENOENT" and time.monotonic() < began + 3:
        time.sleep(0.02)
    said.append(f"made by the other, seen after {time.monotonic() - began:.2f} s")
    answer(os.stat, share.a / name)
    (share.b / name).rmdir()
    began = time.monotonic()
    while answer(os.stat, share.a / name) == "yes" and time.monotonic() < began + 3:
        time.sleep(0.02)
    said.append(f"removed by the other, gone after {time.monotonic() - began:.2f} s")
    (share.b / "exists").mkdir()
    said.append(f"mkdir of what only the other knows {answer(os.mkdir, share.a / 'exists')}")
    return ", ".join(said)


def crowd(share: Share, seconds: float = 6) -> str:
    """Two clients make, rename, replace, read and remove the same names: how calls end."""
    place_a, place_b = share.a / "crowd", share.b / "crowd"
    place_a.mkdir()
    ended: dict[str, Counter[str]] = {}
    stop = time.monotonic() + seconds

    def call(name: str, function: Callable[..., object], *arguments: object) -> None:
        said = answer(function, *arguments)
        ended.setdefault(name, Counter())[said] += 1

    def write(place: Path, mine: str) -> None:
        number = 0
        while time.monotonic() < stop:
            number += 1
            name = f"d{number % 3}"
            call("mkdir", os.mkdir, place / name, 0o700)
            call("create", (place / name / "f").write_bytes, b"x")
            call("opendir", os.close, os.open(place / name, os.O_RDONLY))
            new = place / f"{mine}.new"
            call("write own", new.write_bytes, b"x" * 5000)
            call("rename over", os.rename, new, place / "file")
            call("unlink", os.unlink, place / name / "f")
            call("rename dir", os.rename, place / name, place / f"r{number % 2}")
            call("rmdir", os.rmdir, place / f"r{number % 2}")

    def read(place: Path) -> None:
        while time.monotonic() < stop:
            call("read while replaced", (place / "file").read_bytes)
            call("stat while replaced", os.stat, place / "file")

    (place_a / "file").write_bytes(b"x")
    threads = [
        *(
            threading.Thread(target=write, args=(place, mine))
            for place, mine in ((place_a, "a"), (place_b, "b"))
        ),
        *(threading.Thread(target=read, args=(place,)) for place in (place_a, place_b)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return "; ".join(
        f"{name}: " + " ".join(f"{said} {number}" for said, number in counts.most_common())
        for name, counts in ended.items()
    )


def xattr(folder: Path) -> str:
    (folder / "attributed").touch()
    return answer(os.setxattr, folder / "attributed", "user.x", b"1")


def syncs(folder: Path) -> str:
    fd = os.open(folder, os.O_RDONLY)
    try:
        return f"fsync of a folder {answer(os.fsync, fd)}, syncfs {answer(_syncfs, fd)}"
    finally:
        os.close(fd)


def _syncfs(fd: int) -> None:
    kernel.checked(kernel.LIBC.syncfs(fd))


def facts(share: Share) -> dict[str, Callable[[], str]]:
    a, b = share.a, share.b
    return {
        "statfs type": lambda: statfs_type(a),
        "O_TMPFILE": lambda: unnamed(a),
        "hard links": lambda: hard_link(a),
        "NOREPLACE": lambda: (
            f"file {rename_answers(a, 1, folders=False, there=False)} there: "
            f"{rename_answers(a, 1, folders=False, there=True)}, folder "
            f"{rename_answers(a, 1, folders=True, there=False)} there: "
            f"{rename_answers(a, 1, folders=True, there=True)}"
        ),
        "EXCHANGE": lambda: (
            f"files {rename_answers(a, 2, folders=False, there=True)}, folders "
            f"{rename_answers(a, 2, folders=True, there=True)}"
        ),
        "flock on folders, same client": lambda: folder_lock(a, a),
        "flock on folders, across clients": lambda: folder_lock(a, b),
        "flock on files, same client": lambda: file_lock(a, a),
        "flock on files, across clients": lambda: file_lock(a, b),
        "flock EX on read-only file fd": lambda: file_lock(a, b, os.O_RDONLY),
        "mkdir modes": lambda: modes(a),
        "chmod": lambda: chmods(a),
        "owners": lambda: owners(a),
        "numbers": lambda: numbers(share),
        "STATX_MNT_ID_UNIQUE": lambda: str(
            bool(statx_mask(a, _STATX_MNT_ID_UNIQUE) & _STATX_MNT_ID_UNIQUE)
        ),
        "user xattrs": lambda: xattr(a),
        "syncs": lambda: syncs(a),
        "removal of what the same client has open": lambda: removal_of_open(a, a),
        "removal of what the other client has open": lambda: removal_of_open(a, b),
        "folder removed by the other client": lambda: folder_fd_removed(share),
        "caches": lambda: negative_cache(share),
        "crowd": lambda: crowd(share),
    }


def main() -> None:
    print(os.uname().release)
    shares = Shares()
    for name in sys.argv[1:] or [*TRAITS, *SOMEBODYS]:
        print(f"\n## {name}", flush=True)
        try:
            share = shares.new_folder(name)
        except Exception:
            traceback.print_exc(file=sys.stdout)
            continue
        for fact, measure in facts(share).items():
            try:
                print(f"{fact}: {measure()}", flush=True)
            except Exception as error:
                print(
                    f"{fact}: {type(error).__name__} {error} {traceback.extract_tb(error.__traceback__)[-1].lineno}",
                    flush=True,
                )


main()
