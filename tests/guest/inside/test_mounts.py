"""Before Linux 6.8 a mount may get the number of a former one: what is known holds until the mount table changes."""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from shares import IN_THE_GUEST

MOUNTS: Final = 1000

PROGRAM: Final = """
import ctypes, json, os, sys, threading
import atomik



def count():
    os.dup2(os.open("/proc/self/io", os.O_RDONLY), 900)


def reads():
    # "syscr": how many calls have read something, this one not yet counted.
    lines = os.pread(900, 4096, 0).decode().splitlines()
    return int(next(line for line in lines if line.startswith("syscr")).split()[1])


def commit(name="known"):
    before = reads()
    atomik.write_bytes(name, b"content", overwrite=True)
    return reads() - before - 1


def change():
    assert ctypes.CDLL(None).mount(b"none", sys.argv[1].encode(), b"tmpfs", 0, None) == 0


def elsewhere():
    # A thread in a namespace of its own: what it sees are other mounts of the same filesystems.
    assert ctypes.CDLL(None).unshare(0x20000) == 0
    change()
    found["in another namespace"] = commit()
    atomik.write_bytes(sys.argv[1] + "/name", b"")


count()
found = {}
# ext4's journal tells of fast commits once something has been synced.
commit(), commit()
found["known"] = commit()
change()
found["after a mount"] = commit()
found["known again"] = commit()
if (child := os.fork()) == 0:
    count()
    os._exit(min(commit(), 100))
found["in a child"] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
found["beside a child"] = commit()
os.closerange(3, 800)
other = os.dup2(os.open("/dev/null", os.O_RDONLY), 200)
found["after closerange"] = commit()
assert os.readlink("/proc/self/fd/200") == "/dev/null"
found["after that"] = commit()
thread = threading.Thread(target=elsewhere)
thread.start()
thread.join()
commit(), commit()
found["at the end"] = commit()
print(json.dumps(found))
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A new ext4, among very many mounts."""
    if not IN_THE_GUEST.exists():
        pytest.skip("needs another kernel: make test-guest boots one")
    libc = ctypes.CDLL(None)
    many = [tmp_path / f"many/{number}" for number in range(MOUNTS)]
    for folder in many:
        folder.mkdir(parents=True)
        assert libc.mount(b"none", os.fsencode(folder), b"tmpfs", 0, b"size=4k") == 0
    image, root = tmp_path / "image", tmp_path / "ext4"
    root.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, root], check=True)
    yield root
    subprocess.run(["umount", root], check=True)
    for folder in many:
        assert libc.umount2(os.fsencode(folder), 0) == 0


def test_a_durable_commit_reads_no_file_until_a_mount_has_come_or_gone(
    disk: Path, tmp_path: Path
) -> None:
    (here := tmp_path / "here").mkdir()
    program = [sys.executable, "-c", PROGRAM, str(here)]
    ran = subprocess.run(program, cwd=disk, check=True, capture_output=True, text=True)
    reads = json.loads(ran.stdout)
    looks = {name for name, count in reads.items() if count > 0}
    # Since Linux 6.8 a mount has a number that no later mount gets: only another namespace has other mounts.
    number = tuple(int(part) for part in os.uname().release.split(".")[:2])
    before = {"after a mount", "in a child", "after closerange"} if number < (6, 8) else set[str]()
    assert looks == before | {"in another namespace"}, reads
    subprocess.run(["umount", here], check=True)
