"""A snapshot holds one version still: through publishes, for other threads, processes and users, and no longer.

Versions are words that `guard_kinds.KINDS["folder"]` writes into every file: reading one proves that it is complete.
"""

import asyncio
import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import atomik
import pytest
from support import kernel
from support.crowd import Crowd, Job, Say, Wait, crowd
from support.filesystems import Filesystem
from support.guard_kinds import KINDS
from support.processes import NOBODY, ROOT, User, run_as, run_program, start_program
from support.strace import Call, calls_between_marks
from support.trees import identities, tree

pytestmark = pytest.mark.thread_unsafe(reason="forks")

FOLDER: Final = KINDS["folder"]
read: Final = FOLDER.read

# Not bindfs, which replaces no folder.
REPLACING: Final = ("ext4", "xfs", "btrfs", "tmpfs", "overlay")
everywhere = pytest.mark.parametrize("fs", REPLACING, indirect=True)
on_tmpfs = pytest.mark.parametrize("fs", ["tmpfs"], indirect=True)

READ_ONE: Final = (
    "import pathlib, sys; print((pathlib.Path(sys.argv[1]) / 'inner/two').read_text())"
)


def publish(destination: Path, version: str, **options: Any) -> None:
    FOLDER.publish(destination, version, overwrite=True, durability="none", **options)


def with_old(fs: Filesystem) -> Path:
    destination = fs.here / "destination"
    publish(destination, "old")
    return destination


def only(*names: str) -> list[str]:
    return sorted(names)


def listed(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


# How publishes displace a version.
DISPLACING: Final[dict[str, dict[str, Any]]] = {
    "replace": {},
    "update": {"update": True},
    "backup": {"backup": "backup"},
    "background": {"cleanup": "background"},
}


@everywhere
@pytest.mark.parametrize("how", DISPLACING)
def test_a_version_stays_complete_and_unchanged_through_any_number_of_publishes(
    fs: Filesystem, how: str
) -> None:
    destination = with_old(fs)
    with atomik.snapshot(destination) as path:
        before = tree(path), identities(path), path.stat().st_ino
        for number in range(12):
            displace = partial(publish, destination, f"new {number}", **DISPLACING[how])
            if how == "background":
                run_as(ROOT, displace)  # its threads end with it, wherever they are
            else:
                displace()
            assert (tree(path), identities(path), path.stat().st_ino) == before
            assert read(destination) == f"new {number}"
        assert read(path) == "old"
    if how == "background":
        publish(destination, "last")
    assert listed(fs.here) == only("destination", *DISPLACING[how].get("backup", "").split())


@everywhere
def test_a_version_stays_when_the_destination_is_moved_or_removed(fs: Filesystem) -> None:
    destination = with_old(fs)
    with atomik.snapshot(destination) as path:
        destination.rename(fs.here / "elsewhere")
        publish(destination, "new")
        assert read(path) == "old"
        shutil.rmtree(destination)
        assert read(path) == "old"
    # It was not displaced by a publish: it is its owner's.
    assert read(fs.here / "elsewhere") == "old"
    assert listed(fs.here) == only("elsewhere")


@everywhere
def test_the_path_is_good_in_other_threads(fs: Filesystem) -> None:
    destination = with_old(fs)
    with ThreadPoolExecutor(4) as threads, atomik.snapshot(destination) as path:
        publish(destination, "new")
        assert set(threads.map(read, [path] * 16)) == {"old"}
    assert listed(fs.here) == only("destination")


@everywhere
def test_the_path_is_good_in_a_subprocess_that_gets_it_as_an_argument(fs: Filesystem) -> None:
    destination = with_old(fs)
    with atomik.snapshot(destination) as path:
        # `/proc/self` would be the subprocess's own.
        assert path.parent == Path("/proc") / str(os.getpid()) / "fd"
        publish(destination, "new")
        done = run_program("-c", READ_ONE, path)
        assert (done.returncode, done.stdout.strip()) == (0, "old"), done.stderr
        shown = subprocess.run(["cat", path / "one"], capture_output=True, check=True, text=True)
        assert shown.stdout == "old"


@on_tmpfs
def test_a_subprocess_that_outlives_the_snapshot_pins_nothing(fs: Filesystem) -> None:
    destination = with_old(fs)
    with atomik.snapshot(destination) as path:
        program = start_program("-c", "import sys; sys.stdin.read()", path)
        publish(destination, "new")
    with program:
        assert listed(fs.here) == only("destination")
        program.communicate()


@contextmanager
def reader(destination: Path, user: User = ROOT) -> Generator[Crowd, None, None]:
    """A process that has opened a snapshot, reads it again when the gate opens, and closes it."""

    def job(_number: int, say: Say, wait: Wait) -> None:
        os.setgroups(list(user.groups))
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
        kernel.become_dumpable()
        with atomik.snapshot(destination) as path:
            say(read(path))
            wait()
            say(read(path))
        say("closed")

    with crowd(job, processes=1, threads=1) as one:
        while not one.said() and one.listen():
            pass
        assert one.said() == ["old"]
        yield one


@everywhere
def test_a_reader_needs_no_write_permission_and_the_next_writer_removes_what_it_pinned(
    fs: Filesystem,
) -> None:
    destination = with_old(fs)
    with reader(destination, NOBODY) as one:
        publish(destination, "new")
        publish(destination, "newer")
        assert one.finish() == ["old", "old", "closed"]
    # It may not remove anything here.
    assert len(fs.leftovers()) > 0
    publish(destination, "newest")
    assert listed(fs.here) == only("destination")


@everywhere
def test_sweep_removes_what_a_reader_without_permission_has_left(fs: Filesystem) -> None:
    destination = with_old(fs)
    with reader(destination, NOBODY) as one:
        publish(destination, "new")
        assert not any(orphan.removed for orphan in atomik.sweep(fs.here))
        assert one.finish() == ["old", "old", "closed"]
    (orphan,) = atomik.sweep(fs.here)
    assert (orphan.removed, orphan.files) == (True, 2)
    assert listed(fs.here) == only("destination")


@everywhere
@pytest.mark.parametrize("remover", ["next writer", "sweep"])
def test_a_killed_reader_pins_nothing(fs: Filesystem, remover: str) -> None:
    destination = with_old(fs)
    with reader(destination) as one:
        publish(destination, "new")
        assert fs.leftovers() != []
        (pid,) = one.pids
        one.kill(pid)
        assert one.finish() == ["old"]
    if remover == "sweep":
        assert [orphan.removed for orphan in atomik.sweep(fs.here)] == [True]
    else:
        publish(destination, "newer")
    assert listed(fs.here) == only("destination")


@everywhere
def test_a_writer_and_sweep_leave_a_pinned_version(fs: Filesystem) -> None:
    destination = with_old(fs)
    with reader(destination) as one:
        for number in range(5):
            publish(destination, f"new {number}")
            atomik.sweep(fs.here)
        assert one.finish() == ["old", "old", "closed"]
    assert listed(fs.here) == only("destination")


@everywhere
@pytest.mark.parametrize("first", [0, 1])
def test_the_last_reader_removes_the_displaced_version(fs: Filesystem, first: int) -> None:
    destination = with_old(fs)
    readers = [atomik.snapshot(destination), atomik.snapshot(destination)]
    paths = [reader.__enter__() for reader in readers]
    publish(destination, "new")
    readers[first].close()
    assert not paths[first].exists()
    assert read(paths[1 - first]) == "old"
    assert fs.leftovers() != []
    readers[1 - first].close()
    assert listed(fs.here) == only("destination")


@everywhere
def test_a_present_version_is_not_removed_by_its_last_reader(fs: Filesystem) -> None:
    destination = with_old(fs)
    with atomik.snapshot(destination):
        pass
    assert read(destination) == "old"


@everywhere
@pytest.mark.parametrize("first", [0, 1])
def test_two_snapshots_of_two_versions_each_hold_their_own(fs: Filesystem, first: int) -> None:
    destination = with_old(fs)
    readers = [atomik.snapshot(destination), atomik.snapshot(destination)]
    old = readers[0].__enter__()
    publish(destination, "middle")
    middle = readers[1].__enter__()
    publish(destination, "new")
    assert [read(old), read(middle), read(destination)] == ["old", "middle", "new"]
    readers[first].close()
    assert read([middle, old][first]) == ["middle", "old"][first]
    readers[1 - first].close()
    assert listed(fs.here) == only("destination")


@everywhere
def test_a_symlink_is_followed_once(fs: Filesystem) -> None:
    destination = with_old(fs)
    link = fs.here / "link"
    link.symlink_to("destination")
    guard = atomik.snapshot(link)
    with guard as path:
        assert guard.destination == link
        publish(link, "new", follow_symlinks=True)
        publish(fs.here / "other", "other")
        link.unlink()
        link.symlink_to("other")
        assert [read(path), read(destination), read(link)] == ["old", "new", "other"]
    assert listed(fs.here) == only("destination", "link", "other")


@on_tmpfs
def test_a_link_that_is_turned_to_another_folder_displaces_nothing(fs: Filesystem) -> None:
    releases = [fs.here / "1", fs.here / "2"]
    for release in releases:
        publish(release, release.name)
    (fs.here / "current").symlink_to("1")
    (fs.here / "next").symlink_to("2")
    with atomik.snapshot(fs.here / "current") as path:
        atomik.rename(fs.here / "next", fs.here / "current", overwrite=True)
        assert read(path) == "1"
    assert [read(release) for release in releases] == ["1", "2"]


@everywhere
def test_a_folder_of_a_read_only_mount_can_be_read(fs: Filesystem) -> None:
    destination = with_old(fs)
    view = fs.folder("view")
    fs.bind(fs.here, view, read_only=True)
    with atomik.snapshot(view / "destination") as path:
        publish(destination, "new")
        assert read(path) == "old"
    publish(destination, "newer")
    assert listed(fs.here) == only("destination", "view")


@on_tmpfs
@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
def test_any_kind_of_path_will_do(fs: Filesystem, kind: Callable[[Path], Any]) -> None:
    destination = with_old(fs)
    guard = atomik.snapshot(kind(destination))
    with guard as path:
        assert guard.destination == destination
        assert guard.path == path
        assert read(path) == "old"


@on_tmpfs
def test_a_relative_path_and_its_parent_may_move_in_the_body(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fs.folder("here")
    publish(folder / "destination", "old")
    monkeypatch.chdir(folder)
    with atomik.snapshot("destination") as path:
        folder.rename(fs.here / "there")
        publish(fs.here / "there" / "destination", "new")
        monkeypatch.chdir("/")
        assert read(path) == "old"
    assert listed(fs.here / "there") == only("destination")


def refused(path: Path | bytes | str) -> OSError:
    guard = atomik.snapshot(path)
    with pytest.raises(OSError) as raised:
        guard.__enter__()
    assert guard.path is None
    return raised.value


@on_tmpfs
def test_what_is_no_folder_is_refused(fs: Filesystem) -> None:
    file = fs.here / "file"
    file.write_text("content")
    (fs.here / "link").symlink_to("nowhere")
    os.mkfifo(fs.here / "fifo")
    expected = {
        "file": (NotADirectoryError, errno.ENOTDIR),
        "fifo": (NotADirectoryError, errno.ENOTDIR),
        "missing": (FileNotFoundError, errno.ENOENT),
        "link": (FileNotFoundError, errno.ENOENT),
        "file/below": (NotADirectoryError, errno.ENOTDIR),
    }
    for name, (kind, number) in expected.items():
        error = refused(fs.here / name)
        assert isinstance(error, kind)
        assert (error.errno, error.filename) == (number, os.fspath(fs.here / name))


@on_tmpfs
def test_the_error_for_a_file_says_what_to_do(fs: Filesystem) -> None:
    (fs.here / "file").touch()
    assert "open" in str(refused(fs.here / "file"))


@on_tmpfs
def test_what_may_not_be_read_is_refused(fs: Filesystem) -> None:
    private = fs.folder("private", mode=0o700)
    error = run_as(NOBODY, lambda: refused(private))
    assert isinstance(error, PermissionError)
    assert (error.errno, error.filename) == (errno.EACCES, os.fspath(private))


@on_tmpfs
def test_a_folder_that_a_stranger_has_locked_is_busy(fs: Filesystem) -> None:
    """It is looked at again for some seconds: a version that is being removed is held like this."""
    destination = with_old(fs)
    fd = os.open(destination, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        error = refused(destination)
    finally:
        os.close(fd)
    assert isinstance(error, atomik.DestinationBusyError)
    assert error.errno == errno.EBUSY
    with atomik.snapshot(destination) as path:
        assert read(path) == "old"


def test_a_wrong_argument_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="null"):
        atomik.snapshot("destination\0")
    with pytest.raises(TypeError):
        atomik.snapshot(3)  # type: ignore[arg-type]


@on_tmpfs
def test_a_snapshot_is_entered_once(fs: Filesystem) -> None:
    destination = with_old(fs)
    guard = atomik.snapshot(destination)
    with guard as path:
        with pytest.raises(RuntimeError, match="once"):
            guard.__enter__()
        assert read(path) == "old"
    with pytest.raises(RuntimeError, match="once"):
        guard.__enter__()


@on_tmpfs
def test_a_closed_snapshot_has_no_path_and_may_be_closed_again(fs: Filesystem) -> None:
    destination = with_old(fs)
    guard = atomik.snapshot(destination)
    assert guard.path is None
    guard.close()  # nothing is open yet
    with guard as path:
        publish(destination, "new")
        guard.close()
        assert guard.path is None
        assert not path.exists()
        assert listed(fs.here) == only("destination")
        guard.close()
    assert guard.destination == destination


@on_tmpfs
def test_a_snapshot_that_nobody_holds_any_more_pins_nothing(fs: Filesystem) -> None:
    destination = with_old(fs)
    guard = atomik.snapshot(destination)
    guard.__enter__()
    publish(destination, "new")
    assert fs.leftovers() != []
    with pytest.warns(ResourceWarning, match="not ended"):
        del guard
    assert listed(fs.here) == only("destination")


@everywhere
@pytest.mark.parametrize("exception", [LookupError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_exception_in_the_body_propagates_and_unpins(
    fs: Filesystem, exception: type[BaseException]
) -> None:
    destination = with_old(fs)
    raised = exception("in the body")
    path = destination
    with pytest.raises(exception) as caught:
        with atomik.snapshot(destination) as path:
            publish(destination, "new")
            raise raised
    assert caught.value is raised
    assert not path.exists()
    assert listed(fs.here) == only("destination")


@everywhere
def test_async_with_does_the_same(fs: Filesystem) -> None:
    destination = with_old(fs)

    async def body() -> None:
        async with atomik.snapshot(destination) as path, atomik.snapshot(destination) as second:
            await asyncio.to_thread(publish, destination, "new")
            assert [read(path), read(second)] == ["old", "old"]
        assert not path.exists()
        with pytest.raises(FileNotFoundError):
            async with atomik.snapshot(fs.here / "missing"):
                pass

    asyncio.run(asyncio.wait_for(body(), 60))
    assert listed(fs.here) == only("destination")


@everywhere
@pytest.mark.parametrize("ending", ["close", "leave", "end"])
def test_the_end_of_a_forked_child_does_not_unpin_its_parents_version(
    fs: Filesystem, ending: str
) -> None:
    destination = with_old(fs)
    guard = atomik.snapshot(destination)
    with guard as path:
        publish(destination, "new")

        def child() -> str:
            # It leads to the parent's descriptor.
            version = read(path)
            if ending == "close":
                guard.close()
            elif ending == "leave":
                guard.__exit__(None, None, None)
            return version

        assert run_as(ROOT, child) == "old"
        publish(destination, "newer")
        atomik.sweep(fs.here)
        assert read(path) == "old"
    assert listed(fs.here) == only("destination")


@on_tmpfs
def test_a_version_is_free_when_parent_and_forked_child_have_ended(fs: Filesystem) -> None:
    """A fork shares the lock: see flock(2). What the parent leaves for that, the next writer removes."""
    destination = with_old(fs)
    guard = atomik.snapshot(destination)
    guard.__enter__()

    def job(_number: int, say: Say, wait: Wait) -> None:
        say("forked")
        wait()

    with crowd(job, processes=1, threads=1) as child:
        while not child.said() and child.listen():
            pass
        publish(destination, "new")
        guard.close()
        assert fs.leftovers() != []
        child.finish()
    publish(destination, "newer")
    assert listed(fs.here) == only("destination")


WRITERS: Final = 4
ROUNDS: Final = 25


def publishing(destination: Path) -> Job:
    def job(writer: int, say: Say, wait: Wait) -> None:
        wait()
        for number in range(ROUNDS):
            publish(destination, f"{writer} {number}")
            say("published")

    return job


@everywhere
def test_opening_amid_publishes_never_finds_a_missing_or_a_mixed_version(fs: Filesystem) -> None:
    destination = with_old(fs)
    versions: set[str] = set()
    done = threading.Event()

    def keep_opening() -> int:
        count = 0
        while not done.is_set():
            with atomik.snapshot(destination) as path:
                version = read(path)
                versions.add(version)
                assert read(path) == version
            count += 1
        return count

    with crowd(publishing(destination), processes=WRITERS, threads=1) as writers:
        with ThreadPoolExecutor(2) as readers:
            results = [readers.submit(keep_opening) for _ in range(2)]
            try:
                assert Counter(writers.finish()) == {"published": WRITERS * ROUNDS}
            finally:
                done.set()
            opened = sum(result.result() for result in results)
    assert opened > 0
    assert len(versions) > 1
    publish(destination, "last")
    assert listed(fs.here) == only("destination")


def numbered(fs: Filesystem, program: str) -> list[str]:
    """Runs a program that can open snapshots, and returns what it prints."""
    with_old(fs)
    done = run_program("-c", OPENING + program, fs.here / "destination")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


OPENING: Final = """
import os, resource, sys
from concurrent.futures import ThreadPoolExecutor
import atomik

def limit(number):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(number, hard), hard))
    return min(number, hard)

def opened(_=None):
    with atomik.snapshot(sys.argv[1]) as version:
        os.stat(version / "one")
        return str(version)

def before_one_repeats():
    paths = [opened()]
    while (path := opened()) != paths[0]:
        paths.append(path)
    assert len(set(paths)) == len(paths)
    return paths
"""


@everywhere
def test_a_path_that_was_kept_does_not_lead_into_a_later_snapshot(fs: Filesystem) -> None:
    first, second = fs.here / "first", fs.here / "second"
    for folder in (first, second):
        publish(folder, folder.name)
    with atomik.snapshot(first) as version:
        kept = version / "one"
    with atomik.snapshot(second) as version, atomik.snapshot(first) as other:
        assert len({version, other, kept.parent}) == 3
        assert not kept.exists()
        # Nor does a file that is opened meanwhile get the number.
        with (second / "one").open(), pytest.raises(FileNotFoundError):
            kept.read_text()


@on_tmpfs
def test_threads_never_get_the_same_path(fs: Filesystem) -> None:
    program = (
        "limit(1024)\nwith ThreadPoolExecutor(8) as pool: print(*pool.map(opened, range(500)))"
    )
    paths = numbered(fs, program)
    assert len(set(paths)) == 500


@on_tmpfs
def test_a_forked_child_opens_snapshots_and_takes_no_path_from_its_parent(fs: Filesystem) -> None:
    program = """
print(opened(), flush=True)
if os.fork() == 0:
    print(opened(), flush=True)
    os._exit(0)
os.wait()
print(opened())
"""
    assert len(set(numbered(fs, program))) == 3


@on_tmpfs
@pytest.mark.parametrize("limit", [16, 64, 1024, 4096])
def test_paths_repeat_when_the_numbers_of_the_upper_half_have_been_used(
    fs: Filesystem, limit: int
) -> None:
    [count] = numbered(fs, f"limit({limit})\nprint(len(before_one_repeats()))")
    assert int(count) == limit - min(limit, 1024) // 2


@on_tmpfs
def test_the_table_of_descriptors_does_not_grow_without_end(fs: Filesystem) -> None:
    program = """
if limit(1 << 20) < 16_384:
    print("few")
else:
    print(len(before_one_repeats()))
    with open("/proc/self/status") as status:
        print(*[line.split()[1] for line in status if line.startswith("FDSize")])
"""
    answers = numbered(fs, program)
    if answers == ["few"]:
        pytest.skip("this process may not have as many descriptors")
    assert answers == ["15872", "16384"]


@on_tmpfs
def test_a_limit_that_is_lowered_is_respected(fs: Filesystem) -> None:
    paths = numbered(fs, "print(opened())\nlimit(32)\nprint(*[opened() for _ in range(16)])")
    assert len(set(paths)) == 17


@on_tmpfs
def test_the_last_descriptor_is_enough(fs: Filesystem) -> None:
    program = """
opened()  # imports what it needs
limit(64)
fillers = []
try:
    while True:
        fillers.append(os.dup(0))
except OSError:
    os.close(fillers.pop())
guard = atomik.snapshot(sys.argv[1])
with guard as version:
    print(os.access(version / "one", os.R_OK))
"""
    assert numbered(fs, program) == ["True"]


def by_tar(version: str, target: Path) -> None:
    archive = target.with_suffix(".tar")
    subprocess.run(["tar", "-cf", archive, "-C", version, "."], check=True)
    target.mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", target], check=True)


def by_tarfile(version: str, target: Path) -> None:
    archive = target.with_suffix(".tar")
    with tarfile.open(archive, "w") as tar:
        tar.add(version, "site")
    with tarfile.open(archive) as tar:
        tar.extractall(target.parent, filter="data")
    (target.parent / "site").rename(target)


def by_make_archive(version: str, target: Path) -> None:
    archive = shutil.make_archive(str(target), "zip", version)
    shutil.unpack_archive(archive, target)


def by_program(*words: str) -> Callable[[str, Path], None]:
    def copy(version: str, target: Path) -> None:
        if shutil.which(words[0]) is None:
            pytest.skip(f"{words[0]} is not installed")
        subprocess.run([*words, version, target], check=True)

    return copy


def by_copytree(version: str, target: Path) -> None:
    shutil.copytree(version, target)


COPYING: Final[dict[str, Callable[[str, Path], None]]] = {
    "cp": by_program("cp", "-a"),
    "rsync": by_program("rsync", "-a"),
    "tar": by_tar,
    "tarfile": by_tarfile,
    "shutil.copytree": by_copytree,
    "shutil.make_archive": by_make_archive,
}


@on_tmpfs
@pytest.mark.parametrize("copy", COPYING.values(), ids=COPYING)
def test_tools_that_copy_a_snapshot_enter_it_by_its_dot(
    fs: Filesystem, here: Path, copy: Callable[[str, Path], None]
) -> None:
    destination = with_old(fs)
    with atomik.snapshot(destination) as version:
        publish(destination, "new")
        copy(f"{version}/.", here / "copy")
    assert not (here / "copy").is_symlink()
    assert read(here / "copy") == "old"


@on_tmpfs
def test_tools_that_look_into_a_snapshot_enter_it_by_its_dot(fs: Filesystem) -> None:
    destination = with_old(fs)
    publish(destination, "x" * 100_000)

    def said(*words: str) -> list[str]:
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        return done.stdout.split()

    with atomik.snapshot(destination) as version:
        dot = f"{version}/."
        assert set(said("find", dot, "-type", "f")) == {f"{dot}/inner/two", f"{dot}/one"}
        size, path = said("du", "--summarize", "--bytes", dot)
        assert int(size) >= 200_000
        assert path == dot
        assert sorted(os.listdir(dot)) == ["inner", "one"]
        assert not os.path.islink(dot)


@on_tmpfs
def test_a_lazy_reader_fails_after_the_snapshot_instead_of_reading_another_version(
    fs: Filesystem,
) -> None:
    dataset = pytest.importorskip("pyarrow.dataset")
    destination = fs.here / "destination"
    publish_table(destination, 1, "csv")
    with atomik.snapshot(destination) as path:
        lazy = dataset.dataset(path, format="csv")
    publish_table(destination, 2, "csv")
    with atomik.snapshot(destination), pytest.raises(FileNotFoundError):
        lazy.to_table()


SLOW_WRITER: Final = """
import os, sys
from pathlib import Path
import atomik
from support.guard_kinds import KINDS

print(os.getpid(), flush=True)
KINDS["folder"].publish(Path("destination"), "slow", overwrite=True, durability="none")
"""


@everywhere
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_slot_in_which_a_reader_pins_a_version_is_nobodys_who_has_made_it_before(
    fs: Filesystem,
) -> None:
    """Stops a writer when it has made its slot, and not yet locked it; another writer uses it meanwhile."""
    destination = with_old(fs)
    # The signal comes with the return from the first mkdirat(2): the slot's. mkdir(2) is left alone, with which
    # a build that counts its coverage makes a folder before the program's first line.
    inject = "inject=mkdirat:signal=SIGSTOP:when=1"
    strace = ["strace", "-qq", "-o", os.devnull, "-e", "trace=mkdirat", "-e", inject]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    program = subprocess.Popen(
        [*strace, sys.executable, "-B", "-c", SLOW_WRITER],
        cwd=fs.here,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with program, atomik.snapshot(destination) as path:
        try:
            assert program.stdout is not None
            slow = int(program.stdout.readline())
            while not fs.leftovers():
                assert program.poll() is None
                time.sleep(0.01)
            publish(destination, "fast")
            assert [read(path), read(destination)] == ["old", "fast"]
            with suppress(ProcessLookupError):
                # Again and again: strace may not have sent its signal yet.
                while program.poll() is None:
                    os.kill(slow, signal.SIGCONT)
                    time.sleep(0.01)
        except BaseException:
            # A stopped program ends by nothing else, and its tracer waits for it.
            os.killpg(program.pid, signal.SIGKILL)
            raise
        _, err = program.communicate(timeout=60)
        assert program.returncode == 0, err
        assert [read(path), read(destination)] == ["old", "slow"]
    publish(destination, "last")
    assert listed(fs.here) == only("destination")


BUDGET: Final = {"opening": 6, "closing": 3, "closing a displaced version": 36}
"""System calls. The last is for an empty version, the only one in a slot, and for the last reader."""

PROGRAM: Final = """
import atomik
from support.strace import mark

def publish():
    with atomik.folder("site", overwrite=True, durability="none"):
        pass

publish()
with atomik.snapshot("site"):  # what is asked of the kernel once in a process
    publish()
guard = atomik.snapshot("site")
mark()
guard.__enter__()
mark()
guard.close()
mark()
guard = atomik.snapshot("site")
guard.__enter__()
publish()
mark()
guard.close()
mark()
"""


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Call]]:
    calls = calls_between_marks(PROGRAM, tmp_path_factory.mktemp("traced"))
    opening, closing, _, displaced = calls
    return dict(zip(BUDGET, (opening, closing, displaced), strict=True))


@pytest.mark.parametrize("operation", BUDGET)
def test_opening_and_closing_keep_their_budgets(
    traced: dict[str, list[Call]], operation: str
) -> None:
    calls = traced[operation]
    assert 0 < len(calls) <= BUDGET[operation], "\n".join(call.text for call in calls)


def test_a_reader_never_waits_for_a_lock_and_writes_nothing(traced: dict[str, list[Call]]) -> None:
    locks = [call.text for calls in traced.values() for call in calls if call.name == "flock"]
    # Two pins are let go; one is taken, then the slot and the version in it.
    assert len(locks) == 5
    assert all("LOCK_NB" in lock or "LOCK_UN" in lock for lock in locks)
    names = {call.name for name in ("opening", "closing") for call in traced[name]}
    assert names <= {"openat", "flock", "statx", "fcntl", "readlink", "close"}


NFS: Final = """
import os
import atomik

os.mkdir("site")
try:
    atomik.snapshot("site").__enter__()
except atomik.UnsupportedFilesystemError as error:
    print(error.filename)
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("number", ["EBADF", "ENOLCK"])
def test_where_folders_cannot_be_locked_it_is_refused(here: Path, number: str) -> None:
    strace = ["strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=flock"]
    done = subprocess.run(
        [*strace, "-e", f"inject=flock:error={number}", sys.executable, "-c", NFS],
        cwd=here,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "site"


def write_table(staging: Path, version: int) -> None:
    lines = [f"{row},{version}" for row in range(100)]
    (staging / "table.csv").write_text("\n".join(["row,version", *lines, ""]))


def publish_table(destination: Path, version: int, suffix: str) -> None:
    with atomik.folder(destination, overwrite=True, durability="none") as staging:
        (staging / "inner").mkdir()
        write_table(staging, version)
        if suffix == "parquet":
            csv = pytest.importorskip("pyarrow.csv")
            parquet = pytest.importorskip("pyarrow.parquet")
            table = csv.read_csv(staging / "table.csv")
            for name in ("table.parquet", "inner/part.parquet"):
                parquet.write_table(table, staging / name)
            (staging / "table.csv").unlink()


def by_pandas(path: Path, suffix: str) -> set[int]:
    pandas = pytest.importorskip("pandas")
    reading = {"csv": pandas.read_csv, "parquet": pandas.read_parquet}[suffix]
    frame = reading(path / f"table.{suffix}")
    assert len(frame) == 100
    return set(frame["version"])


def by_pyarrow(path: Path, suffix: str) -> set[int]:
    dataset = pytest.importorskip("pyarrow.dataset")
    # The whole folder: every file in it, at any depth.
    table = dataset.dataset(path, format=suffix).to_table()
    assert table.num_rows == (100 if suffix == "csv" else 200)
    return set(table["version"].to_pylist())


def by_duckdb(path: Path, suffix: str) -> set[int]:
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as connection:
        rows = connection.execute(f"select version from '{path}/*.{suffix}'").fetchall()
    assert len(rows) == 100
    return {version for (version,) in rows}


@on_tmpfs
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("reading", [by_pandas, by_pyarrow, by_duckdb])
def test_data_tools_read_from_the_path(
    fs: Filesystem, reading: Callable[[Path, str], set[int]], suffix: str
) -> None:
    destination = fs.here / "destination"
    publish_table(destination, 1, suffix)
    with atomik.snapshot(destination) as path:
        publish_table(destination, 2, suffix)
        assert reading(path, suffix) == {1}
        assert reading(destination, suffix) == {2}
    assert listed(fs.here) == only("destination")
