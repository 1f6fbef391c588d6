"""A displaced folder of any shape goes, in memory and descriptors that do not grow with it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import atomik
import pytest
from support.filesystems import Filesystem

MIB: Final = 1 << 10
"""In the unit of proc(5), kB."""


def flat(root: Path) -> None:
    """Many files in one folder: more than fit in one buffer."""
    folder = os.open(root, os.O_DIRECTORY)
    for number in range(100_000):
        os.close(os.open(f"file-{number}", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    os.close(folder)


def wide(root: Path) -> None:
    """Many folders beside each other."""
    for number in range(30_000):
        (root / str(number)).mkdir()


def deep(root: Path) -> None:
    """Folders in one another, deeper than any path is long."""
    folder = os.open(root, os.O_DIRECTORY)
    for level in range(10_000):
        if level % 10 == 0:
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
        os.mkdir("d", dir_fd=folder)
        below = os.open("d", os.O_DIRECTORY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)


def bushy(root: Path) -> None:
    """Few folders at the top and many further down, where threads must find their work."""
    for number in range(3_000):
        folder = root / "one" / "way" / "down" / str(number % 3) / str(number // 100) / str(number)
        folder.mkdir(parents=True)
        (folder / "file").touch()


REPLACE: Final = r"""
import re, resource, sys
from pathlib import Path
import atomik
def peak():
    return int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])
path = sys.argv[1]
with atomik.folder(path + "-warm", durability="none"):
    pass
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
before = peak()
with atomik.folder(path, overwrite=True, durability="none") as new:
    (new / "new").touch()
print(peak() - before)
"""


@pytest.mark.parametrize("shape", [flat, wide, deep, bushy])
def test_whatever_its_shape_a_displaced_folder_takes_few_megabytes_to_remove(
    here: Path, shape: Callable[[Path], None]
) -> None:
    path = here / "site"
    path.mkdir()
    shape(path)
    child = [sys.executable, "-c", REPLACE, str(path)]
    grown = int(
        subprocess.run(child, check=True, capture_output=True, text=True, timeout=300).stdout
    )
    assert grown < 16 * MIB
    assert os.listdir(path) == ["new"]
    assert sorted(os.listdir(here)) == ["site", "site-warm"]


def test_what_resists_is_warned_of_and_all_else_goes(fs: Filesystem) -> None:
    path = fs.here / "site"
    for number in range(20):
        (path / "deep" / str(number)).mkdir(parents=True)
        for name in range(50):
            (path / "deep" / str(number) / str(name)).touch()
    stubborn = path / "deep" / "7" / "7"
    if subprocess.run(["chattr", "+i", stubborn], check=False, capture_output=True).returncode:
        pytest.skip("chattr +i needs root and a filesystem that knows it")
    try:
        with pytest.warns(atomik.CleanupWarning), atomik.folder(path, overwrite=True) as new:
            (new / "new").touch()
        assert os.listdir(path) == ["new"]
        (slot,) = [name for name in os.listdir(fs.here) if name.startswith(".atomik-")]
        left = [file for file in (fs.here / slot).rglob("*") if not file.is_dir()]
        assert [file.name for file in left] == ["7"]
        stubborn = left[0]
    finally:
        subprocess.run(["chattr", "-i", stubborn], check=True)
    atomik.sweep(fs.here)
    assert os.listdir(fs.here) == ["site"]
