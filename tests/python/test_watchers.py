"""Programs that watch a folder hear of every published file, by its name, once it is complete."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import atomik
import pytest
from support import fuse_servers, kernel
from support.filesystems import NAMES, Filesystem
from support.inotify import CLOSE_WRITE, CREATE, ISDIR, MOVED_FROM, MOVED_TO, OPEN, Watch, watching
from support.processes import NOBODY, ROOT, User, run_as
from support.publishing import add_all

pytestmark = pytest.mark.thread_unsafe(reason="forks")

NAME: Final = "destination"

Write = Callable[..., None]


def by_write_bytes(path: Path, **options: Any) -> None:
    atomik.write_bytes(path, b"content", **options)


def by_write_text(path: Path, **options: Any) -> None:
    atomik.write_text(path, "content", **options)


def by_file(mode: atomik.OpenMode) -> Write:
    def write(path: Path, **options: Any) -> None:
        file: Any
        with atomik.file(path, mode, **options) as file:
            file.write("content")

    return write


def by_path(path: Path, **options: Any) -> None:
    with atomik.path(path, **options) as staging:
        staging.write_text("content")


def by_group(path: Path, **options: Any) -> None:
    with atomik.group(durability=options.pop("durability")) as group:
        group.write_text(path, "content", **options)


CALLS: Final[Mapping[str, Write]] = {
    "write_bytes": by_write_bytes,
    "write_text": by_write_text,
    "file": by_file("w"),
    "file that appends": by_file("a"),
    "path": by_path,
    "group": by_group,
}

OPTIONS: Final[Mapping[str, dict[str, Any]]] = {
    "plain": {},
    "durable": {"durability": "full"},
    "read-only": {"permissions": 0o444},
    "backup": {"backup": "backup"},
}

everywhere = pytest.mark.parametrize(
    "fs", [*NAMES, *(set(fuse_servers.SERVERS) - set(NAMES))], indirect=True
)
locally = pytest.mark.parametrize("fs", ["ext4", "xfs", "btrfs", "tmpfs", "overlay"], indirect=True)
each_call = pytest.mark.parametrize("call", CALLS)
each_user = pytest.mark.parametrize("user", [ROOT, NOBODY], ids=User.label)


def check(watch: Watch, publish: Callable[[], None]) -> None:
    """Publishes and checks that it was heard of, unless the filesystem cannot do it."""
    watch.events()
    with suppress(atomik.UnsupportedFilesystemError):
        publish()
        assert NAME in watch.complete()


def check_all(call: str, path: Path, **options: Any) -> None:
    """Publishes a new file, replaces it, and checks both."""
    with watching(path.parent) as watch:
        for overwrite in (False, True, True):
            options["overwrite"] = overwrite
            check(watch, partial(CALLS[call], path, **{"durability": "none", **options}))


@everywhere
@each_call
@pytest.mark.parametrize("option", OPTIONS)
def test_a_new_and_a_replaced_file_are_heard_by_their_name(
    fs: Filesystem, call: str, option: str
) -> None:
    if (call, option) == ("group", "backup"):
        pytest.skip("a group refuses it")
    if (option, fs.name) == ("backup", "rclone"):
        pytest.skip(
            "it refuses the trial of an exchange, and now and then to remove what was tried"
        )
    if option == "read-only" and fs.name == "bindfs that refuses chmod":
        pytest.skip("it refuses to set a mode")
    check_all(call, fs.here / NAME, **OPTIONS[option])


@locally
@pytest.mark.parametrize("call", CALLS.keys() - {"group"})
def test_a_file_that_is_staged_elsewhere_is_heard_where_it_is_published(
    fs: Filesystem, call: str
) -> None:
    check_all(call, fs.folder("folder") / NAME, tmp_dir=fs.folder("tmp"))


@everywhere
def test_a_file_that_must_be_new_is_heard(fs: Filesystem) -> None:
    with watching(fs.here) as watch:
        check(watch, lambda: by_file("x")(fs.here / NAME, durability="none"))


@everywhere
def test_every_member_of_a_group_is_heard(fs: Filesystem) -> None:
    one, two = fs.here / "one", fs.here / "two"
    one.mkdir()
    two.mkdir()
    with watching(one) as first, watching(two) as second:
        try:
            with atomik.group(durability="none") as group:
                add_all(group, fs.here)
        except atomik.UnsupportedFilesystemError:
            pytest.skip("this filesystem cannot publish all of it")
        assert {"file", "bytes", "tool.csv"} <= first.complete()
        assert {"folder", "text"} <= second.complete()


@everywhere
def test_a_renamed_file_is_heard(fs: Filesystem) -> None:
    if fs.name in ("rclone", "cryfs"):
        pytest.skip("it has neither RENAME_NOREPLACE nor hard links")
    (fs.here / "old").write_text("content")
    with watching(fs.here) as watch:
        check(watch, lambda: atomik.rename(fs.here / "old", fs.here / NAME))


@locally
@each_user
@each_call
def test_a_file_that_its_owner_may_not_write_is_heard(
    fs: Filesystem, user: User, call: str
) -> None:
    """An ordinary user cannot open it again for writing."""
    folder = fs.folder("folder", 0o777)
    with watching(folder) as watch:
        run_as(
            user, lambda: CALLS[call](folder / "by option", permissions=0o400, durability="none")
        )
        assert "by option" in watch.complete()
        if call not in ("path", "group"):  # with such a umask a user cannot use a folder of its own
            run_as(user, lambda: CALLS[call](folder / "by umask", durability="none"), umask=0o277)
            assert "by umask" in watch.complete()


@locally
@each_user
def test_a_file_that_its_body_has_made_read_only_is_heard(fs: Filesystem, user: User) -> None:
    folder = fs.folder("folder", 0o777)

    def write() -> None:
        with atomik.file(folder / NAME, durability="none") as file:
            os.fchmod(file.fileno(), 0o444)
            file.write("content")

    with watching(folder) as watch:
        run_as(user, write)
        assert NAME in watch.complete()


@pytest.mark.parametrize("fs", ["ext4", "xfs", "btrfs"], indirect=True)
@pytest.mark.parametrize("permissions", [0o644, 0o444])
def test_a_new_file_in_an_append_only_folder_is_heard(fs: Filesystem, permissions: int) -> None:
    folder = fs.folder("folder")
    kernel.set_append_only(folder, append_only=True)
    try:
        with watching(folder) as watch:
            for call, name in ((by_write_bytes, "one"), (by_file("x"), "two")):
                call(folder / name, permissions=permissions, durability="none")
                assert name in watch.complete()
    finally:
        kernel.set_append_only(folder, append_only=False)


@locally
def test_a_file_is_heard_of_a_process_that_has_no_descriptor_left(fs: Filesystem) -> None:
    """The publish needs two, for the folder and for the unnamed file."""

    def write() -> None:
        used = len(os.listdir("/proc/self/fd")) - 1
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        fillers = [os.dup(0) for _ in range(64)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(fillers) + 1, hard))
        assert used > 0
        for filler in fillers[:2]:
            os.close(filler)
        by_write_bytes(fs.here / NAME, durability="none")

    with watching(fs.here) as watch:
        run_as(ROOT, write)
        assert NAME in watch.complete()


@everywhere
@each_call
def test_all_other_names_that_are_heard_of_are_hidden(fs: Filesystem, call: str) -> None:
    """Staging is seen, too: by these names it is told from what is published."""
    with watching(fs.here) as watch:
        for overwrite in (False, True, True):
            with suppress(atomik.UnsupportedFilesystemError):
                CALLS[call](fs.here / NAME, overwrite=overwrite, durability="none")
        names = {event.name for event in watch.events()} - {"", NAME}
    # `#`: unnamed files. FUSE keeps a name for what is unlinked while it is open.
    assert {
        name for name in names if not name.startswith((".atomik-", "#", ".fuse_hidden"))
    } == set()


@locally
def test_a_new_file_is_complete_when_it_is_heard_to_be_created(fs: Filesystem) -> None:
    path = fs.here / NAME
    with watching(fs.here) as watch:
        by_write_bytes(path, durability="none")
        assert masks(watch) == [CREATE, OPEN, CLOSE_WRITE]
        assert path.read_bytes() == b"content"


def masks(watch: Watch) -> list[int]:
    return [event.mask for event in watch.events() if event.name == NAME]


@locally
@pytest.mark.parametrize("call", ["path", "group", "with a backup", "folder"])
def test_what_has_a_name_before_is_heard_as_moved(fs: Filesystem, call: str) -> None:
    def by_folder(path: Path, **options: Any) -> None:
        with atomik.folder(path, **options) as staging:
            (staging / "one").write_text("content")

    calls: dict[str, Write] = {
        **CALLS,
        "folder": by_folder,
        "with a backup": partial(by_write_bytes, backup="backup"),
    }
    directory = ISDIR if call == "folder" else 0
    with watching(fs.here) as watch:
        calls[call](fs.here / NAME, durability="none")
        assert masks(watch) == [MOVED_TO | directory]
        calls[call](fs.here / NAME, overwrite=True, durability="none")
        replaced = set(masks(watch))
    assert MOVED_TO | directory in replaced
    if call in ("group", "with a backup", "folder"):
        assert MOVED_FROM | directory in replaced


KILLED: Final = """
import sys
import atomik
atomik.write_bytes("destination", b"content", durability="full")
"""


def program(folder: Path, inject: str) -> "subprocess.Popen[str]":
    """Starts a program that publishes a new file, under strace with this injection."""
    call, _, _ = inject.partition(":")
    strace = ["strace", "-qq", "-o", os.devnull, "-e", f"trace={call}", "-e", f"inject={inject}"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [*strace, sys.executable, "-B", "-c", KILLED],
        cwd=folder,
        env=environment,
        start_new_session=True,
        text=True,
    )


needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@locally
@needs_strace
def test_a_file_is_heard_of_a_process_that_is_killed_before_it_closes_it(fs: Filesystem) -> None:
    with watching(fs.here) as watch:
        with program(fs.here, "close_range:signal=SIGKILL:when=1") as process:
            assert process.wait(60) != 0
        assert NAME in watch.complete()


def put_fifo(path: Path) -> None:
    os.mkfifo(path)


def put_symlink(path: Path) -> None:
    path.symlink_to("target")


def put_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("fs", ["tmpfs"], indirect=True)
@pytest.mark.parametrize("put", [put_fifo, put_symlink, put_folder, Path.unlink])
@needs_strace
def test_what_takes_the_name_at_once_is_neither_waited_for_nor_followed(
    fs: Filesystem, put: Callable[[Path], None]
) -> None:
    """Stops the writer when it has published: with the return from its second `linkat`. The first asks the sandbox."""
    folder, other = fs.folder("folder"), fs.folder("other")
    (other / "target").write_text("other")
    (folder / "target").symlink_to(other / "target")
    with program(folder, "linkat:signal=SIGSTOP:when=2") as process, watching(other) as watch:
        try:
            end = time.monotonic() + 60
            while not (folder / NAME).exists():
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.01)
            (folder / NAME).rename(folder / "moved")
            if put is not Path.unlink:
                put(folder / NAME)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            while process.poll() is None:
                for child in children:
                    try:
                        os.kill(int(child), signal.SIGCONT)
                    except ProcessLookupError:
                        break
                time.sleep(0.01)
        except BaseException:
            # A stopped program ends by nothing else, and its tracer waits for it.
            os.killpg(process.pid, signal.SIGKILL)
            raise
        assert process.returncode == 0
        assert watch.events() == []
        assert (folder / "moved").read_bytes() == b"content"
