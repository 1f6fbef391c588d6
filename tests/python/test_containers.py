"""What a container sees of a folder that is replaced on the host: the page on platforms says what to mount.

The container is a mount namespace of its own, in which a program lists what it sees.
"""

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import atomik
import pytest
from support.filesystems import Filesystem

pytestmark = pytest.mark.parametrize("fs", ["ext4", "xfs", "btrfs", "tmpfs"], indirect=True)

LIST = """
import os, sys
print("ready", flush=True)
for where in sys.stdin:
    where = where.rstrip()
    print(sorted(os.listdir(where)) if os.path.isdir(where) else open(where).read(), flush=True)
"""


class Inside:
    """A program that tells what it sees: the names in a folder, or the content of a file."""

    def __init__(self, program: "subprocess.Popen[str]") -> None:
        self._program = program
        assert self._line() == "ready"

    def sees(self, where: Path | str) -> str:
        assert self._program.stdin is not None
        print(where, file=self._program.stdin, flush=True)
        return self._line()

    def _line(self) -> str:
        assert self._program.stdout is not None
        return self._program.stdout.readline().rstrip()


@contextmanager
def started(*command: str | Path, cwd: Path | None = None) -> Generator[Inside]:
    with subprocess.Popen(
        command, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        try:
            yield Inside(program)
        finally:
            program.kill()


@contextmanager
def container(source: Path, target: Path) -> Generator[Inside]:
    """A program in a mount namespace where `source` is mounted at `target`, as `-v source:target` does."""
    mount = 'mount --bind "$1" "$2" && exec "$3" -c "$4"'
    command = ("unshare", "--mount", "sh", "-c", mount, "sh", source, target, sys.executable, LIST)
    with started(*command) as inside:
        yield inside


def replace(site: Path, name: str, backup: str | None = None) -> None:
    with atomik.folder(site, overwrite=True, durability="none", backup=backup) as staging:
        (staging / name).write_text(name)


def test_a_mounted_folder_that_is_replaced_on_the_host_is_empty_in_the_container(
    fs: Filesystem,
) -> None:
    """A limit: a bind mount holds the version, not the name, and the displaced version is removed."""
    site, target = fs.here / "site", fs.folder("target")
    replace(site, "first")
    with container(site, target) as inside:
        assert inside.sees(target) == "['first']"
        replace(site, "second")
        assert os.listdir(site) == ["second"]
        assert inside.sees(target) == "[]"


def test_a_container_that_mounts_the_parent_sees_each_new_version(fs: Filesystem) -> None:
    parent, target = fs.folder("parent"), fs.folder("target")
    replace(parent / "site", "first")
    with container(parent, target) as inside:
        for name in ("second", "third"):
            replace(parent / "site", name)
            assert inside.sees(target / "site") == f"['{name}']"


def test_a_backup_keeps_the_containers_version_until_the_next_publish(fs: Filesystem) -> None:
    site, target = fs.here / "site", fs.folder("target")
    replace(site, "first")
    with container(site, target) as inside:
        replace(site, "second", backup="site.old")
        assert inside.sees(target) == "['first']"
        replace(site, "third", backup="site.old")
        assert inside.sees(target) == "[]"


def test_a_mounted_file_that_is_replaced_on_the_host_stays_old_in_the_container(
    fs: Filesystem,
) -> None:
    file, target = fs.here / "file", fs.here / "target"
    file.write_text("first")
    target.touch()
    with container(file, target) as inside:
        atomik.write_text(file, "second", overwrite=True, durability="none")
        assert file.read_text() == "second"
        assert inside.sees(target) == "first"


def test_a_program_whose_working_directory_was_replaced_finds_it_empty(fs: Filesystem) -> None:
    site = fs.here / "site"
    replace(site, "first")
    with started(sys.executable, "-c", LIST, cwd=site) as inside:
        assert inside.sees(".") == "['first']"
        replace(site, "second")
        assert inside.sees(".") == "[]"
        assert inside.sees(site) == "['second']"
