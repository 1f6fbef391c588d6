"""`atomik.group`: many destinations, all or none, for the price of one sync a filesystem."""

import asyncio
import errno
import os
import re
import signal
import stat
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any, Final

import atomik
import pytest
from support import slot_names, strace
from support.filesystems import Filesystem
from support.publishing import add_all
from support.strace import calls_between_marks

with_exchange = pytest.mark.parametrize(
    "fs", ["ext4", "xfs", "btrfs", "tmpfs", "overlay"], indirect=True
)


def listed(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def old(fs: Filesystem) -> None:
    """What the groups here replace: a file in one folder, a folder in another."""
    (fs.here / "one").mkdir()
    (fs.here / "two").mkdir()
    (fs.here / "one/file").write_text("old")
    (fs.here / "two/folder").mkdir()
    (fs.here / "two/folder/old").write_text("old")


def assert_old(here: Path) -> None:
    assert listed(here / "one") == ["file"]
    assert listed(here / "two") == ["folder"]
    assert (here / "one/file").read_text() == "old"
    assert listed(here / "two/folder") == ["old"]


def assert_new(here: Path) -> None:
    assert listed(here / "one") == ["bytes", "file", "tool.csv"]
    assert listed(here / "two") == ["folder", "text"]
    for name in ("one/file", "one/bytes", "one/tool.csv", "two/text", "two/folder/new"):
        assert (here / name).read_text() == "new", name
    assert listed(here / "two/folder") == ["new"]


# ---------------------------------------------------------------- nothing, or all


@with_exchange
def test_an_exception_in_the_body_publishes_nothing_and_leaves_nothing(fs: Filesystem) -> None:
    old(fs)
    with pytest.raises(ZeroDivisionError), atomik.group() as group:
        add_all(group, fs.here)
        assert_old_but_for_slots(fs.here)
        raise ZeroDivisionError
    assert_old(fs.here)
    assert not group.committed


def assert_old_but_for_slots(here: Path) -> None:
    assert {name for name in listed(here / "one") if not name.startswith(".atomik-")} == {"file"}
    assert (here / "one/file").read_text() == "old"


@with_exchange
@pytest.mark.parametrize("durability", ["full", "ordered", "none"])
def test_at_the_end_of_the_body_all_are_published(fs: Filesystem, durability: Any) -> None:
    old(fs)
    with atomik.group(durability=durability) as group:
        add_all(group, fs.here)
    assert_new(fs.here)
    assert group.committed


@with_exchange
@pytest.mark.skipif(strace.why_not() is not None, reason=str(strace.why_not()))
@pytest.mark.parametrize("number", range(1, 6))
def test_a_publish_that_fails_takes_back_those_before_it(fs: Filesystem, number: int) -> None:
    old(fs)
    program = f"""
import sys
from pathlib import Path
import atomik
from support.publishing import add_all
group = atomik.group(durability="none").__enter__()
add_all(group, Path({os.fspath(fs.here)!r}))
try:
    group.commit()
except OSError as error:
    print(error.errno, getattr(error, "committed", False), error.filename)
    print(error)
"""
    # The publishes are the renames between a slot and a destination: those before are within slots.
    armed = publishes(program, fs.here)[number - 1]
    failed = traced(program, fs.here, inject=f"renameat2:error=EIO:when={armed}")
    first, message = failed.splitlines()[:2]
    assert first.startswith(f"{errno.EIO} False {fs.here}/"), failed
    if number > 1:
        assert f"the {number - 1} published before it were taken back" in message
    assert_old(fs.here)


def traced(program: str, folder: Path, inject: str | None = None) -> str:
    output = folder / "trace"
    options = ["-e", f"inject={inject}"] if inject else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ran = subprocess.run(
        [
            *("strace", "-f", "-qq", "-o", os.fspath(output), "-e", "trace=renameat2", *options),
            *(sys.executable, "-B", "-c", program),
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    lines = output.read_text()
    output.unlink()
    assert ran.returncode == 0, ran.stderr + lines
    return ran.stdout if inject else lines


def publishes(program: str, folder: Path) -> list[int]:
    """The numbers, among the renameat2 calls, of those that publish; undoes what the program did."""
    lines = [line for line in traced(program, folder).splitlines() if " renameat2(" in line]
    numbers = [
        number
        for number, line in enumerate(lines, 1)
        if re.search(r'"\d+", \d+, "(file|folder|bytes|text|tool.csv)"', line)
    ]
    assert len(numbers) == 5, lines
    assert_new(folder)
    for name in ("one/bytes", "one/tool.csv", "two/text", "two/folder/new"):
        (folder / name).unlink()
    (folder / "one/file").write_text("old")
    (folder / "two/folder/old").write_text("old")
    return numbers


@with_exchange
def test_what_appears_before_the_end_is_not_replaced_unasked(fs: Filesystem) -> None:
    old(fs)
    with pytest.raises(FileExistsError) as raised, atomik.group() as group:
        add_all(group, fs.here)
        (fs.here / "two/text").write_text("somebody's")
    assert raised.value.filename == os.fspath(fs.here / "two/text")
    (fs.here / "two/text").unlink()
    assert_old(fs.here)


@with_exchange
def test_a_folder_that_is_moved_away_meanwhile_is_still_the_destination(fs: Filesystem) -> None:
    old(fs)
    with atomik.group() as group:
        add_all(group, fs.here)
        (fs.here / "two").rename(fs.here / "moved")
    assert (fs.here / "moved/text").read_text() == "new"


def test_a_folder_that_is_exchanged_for_another_is_noticed_when_many_are_in_use(
    here: Path,
) -> None:
    many = [here / str(number) for number in range(100)]
    for folder in many:
        folder.mkdir()
    with pytest.raises(OSError, match="moved or removed"), atomik.group(durability="none") as group:
        for folder in many:
            group.write_text(folder / "a", "new")
        many[-1].rename(here / "away")
        many[-1].mkdir()
    assert [path for path in here.rglob("*") if path.name not in {f.name for f in many}] == [
        here / "away"
    ]


# ---------------------------------------------------------------- refused


def test_the_same_destination_twice_is_refused_and_the_first_stays(here: Path) -> None:
    with atomik.group() as group:
        group.write_text(here / "a", "first")
        with pytest.raises(OSError, match="in this group already"):
            group.write_text(here / "." / "a", "second")
        group.write_text(here / "b", "third")
    assert [(here / name).read_text() for name in listed(here)] == ["first", "third"]


def add(group: atomik.Group, kind: str, path: str | bytes | Path) -> None:
    """Adds a member; its folders are there already."""
    if kind == "folder":
        with group.folder(path, overwrite=True) as folder:
            (folder / "new").write_text("new")
    elif kind == "path":
        with group.path(path, overwrite=True) as staging:
            staging.mkdir()
            (staging / "new").write_text("new")
    else:
        group.write_text(path, "new", overwrite=True)


def spelled(path: str, how: str) -> str | bytes:
    """Is another way to write a path of a member."""
    match how:
        case "dotted":
            return "./" + (path.replace("/", "/../site/", 1) if "/" in path else path)
        case "symlink":
            return path.replace("site/", "link/", 1)
        case "bytes":
            return os.fsencode(path)
        case "absolute":
            return os.path.abspath(path)
        case _:
            return path


@pytest.mark.parametrize("inner", ["site/v", "site/sub/v", "site/sub/deeper/v"])
@pytest.mark.parametrize("outer", ["site", "site/sub"])
@pytest.mark.parametrize("kinds", [("folder", "text"), ("folder", "folder"), ("path", "path")])
@pytest.mark.parametrize("order", ["outer first", "inner first"])
@pytest.mark.parametrize("how", ["plain", "dotted", "symlink", "bytes", "absolute"])
def test_members_that_contain_each_other_are_refused_when_the_second_comes(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    order: str,
    kinds: tuple[str, str],
    outer: str,
    inner: str,
) -> None:
    monkeypatch.chdir(here)
    (here / "site/sub/deeper").mkdir(parents=True)
    (here / "link").symlink_to("site")
    both = [(kinds[0], outer), (kinds[1], inner)]
    contained = inner.startswith(f"{outer}/")
    if order == "inner first":
        both.reverse()
    (first, first_path), (second, plain) = both
    second_path = spelled(plain, how)
    with atomik.group() as group:
        group.write_text("other", "new")
        add(group, first, first_path)
        if not contained:
            add(group, second, second_path)
            return
        with pytest.raises(OSError, match=r"lies in|holds") as raised:
            add(group, second, second_path)
    assert raised.value.errno == errno.EINVAL
    assert raised.value.filename == second_path
    # The others are published.
    assert (here / "other").read_text() == "new"
    there = here / first_path
    assert (there if first == "text" else there / "new").read_text() == "new"


@pytest.mark.parametrize("kind", ["text", "folder", "path"])
@pytest.mark.parametrize("inner", ["site", "site/version.txt", "site/sub/version.txt"])
def test_what_lies_in_a_member_is_refused_while_the_body_of_that_member_runs(
    here: Path, inner: str, kind: str
) -> None:
    (here / "site/sub").mkdir(parents=True)
    if inner == "site" and kind == "text":
        pytest.skip("a file never replaces a folder")
    with atomik.group() as group:
        with group.folder(here / "site", overwrite=True) as staging:
            (staging / "new").write_text("new")
            with pytest.raises(OSError, match="in this group"):
                add(group, kind, here / inner)
    assert listed(here / "site") == ["new"]


def test_a_member_whose_body_failed_is_no_hindrance(here: Path) -> None:
    (here / "site").mkdir()
    with atomik.group() as group:
        with (
            pytest.raises(ZeroDivisionError),
            group.folder(here / "site", overwrite=True) as staging,
        ):
            (staging / "half").touch()
            raise ZeroDivisionError
        group.write_text(here / "site/version.txt", "new")
    assert listed(here / "site") == ["version.txt"]


def test_names_that_begin_alike_do_not_contain_each_other(here: Path) -> None:
    (here / "site2").mkdir()
    with atomik.group() as group:
        add(group, "folder", here / "site")
        group.write_text(here / "site2/a", "new")
        add(group, "folder", here / "sit")
    assert listed(here) == ["sit", "site", "site2"]


@pytest.mark.parametrize("route", ["relative", "dotted", "dir_fd"])
@pytest.mark.parametrize("member", ["one/file", "two/file", "file"])
def test_an_error_names_the_member_as_the_caller_wrote_it(
    here: Path, monkeypatch: pytest.MonkeyPatch, member: str, route: str
) -> None:
    for name in ("one", "two"):
        (here / name).mkdir()
    monkeypatch.chdir("/" if route == "dir_fd" else here)
    opened = os.open(here, os.O_DIRECTORY)
    options: dict[str, Any] = {"dir_fd": opened} if route == "dir_fd" else {}
    spelled = f"./one/../{member}" if route == "dotted" else member
    with pytest.raises(FileExistsError) as raised, atomik.group() as group:
        for other in ("one/other", "./one//another", "two/other", "other"):
            group.write_text(other, "new", **options)
        group.write_text(spelled, "new", **options)
        (here / member).write_text("somebody's")
    os.close(opened)
    assert raised.value.filename == spelled


@pytest.mark.parametrize("mode", ["a", "r+", "ab", "rb+"])
def test_modes_that_start_from_the_present_version_are_refused(here: Path, mode: Any) -> None:
    (here / "a").write_text("old")
    with atomik.group() as group, pytest.raises(ValueError, match="does not go with a group"):
        group.file(here / "a", mode)


def test_an_existing_destination_is_refused_before_the_body(here: Path) -> None:
    (here / "a").write_text("old")
    with atomik.group() as group:
        with pytest.raises(FileExistsError), group.file(here / "a"):
            pytest.fail("the body ran")
    assert listed(here) == ["a"]


@pytest.mark.parametrize("fs", ["bindfs"], indirect=True)
def test_without_exchange_new_files_are_published_and_replacing_is_refused_early(
    fs: Filesystem,
) -> None:
    (fs.here / "old").write_text("old")
    with atomik.group() as group:
        group.write_text(fs.here / "new", "new")
        with (
            pytest.raises(atomik.UnsupportedFilesystemError),
            group.file(fs.here / "old", overwrite=True),
        ):
            pytest.fail("the body ran")
    assert (fs.here / "new").read_text() == "new"
    assert (fs.here / "old").read_text() == "old"


def test_a_member_that_is_still_open_keeps_all_from_being_published(here: Path) -> None:
    group = atomik.group()
    member = group.file(here / "b")
    with pytest.raises(RuntimeError, match="still open"), group:
        group.write_text(here / "a", "new")
        member.__enter__()
    with pytest.warns(ResourceWarning, match="entered and not ended"):
        del member
    assert listed(here) == []


def test_a_member_whose_body_fails_is_discarded_alone(here: Path) -> None:
    with atomik.group() as group:
        group.write_text(here / "a", "new")
        with pytest.raises(ZeroDivisionError), group.folder(here / "b") as folder:
            (folder / "half").touch()
            raise ZeroDivisionError
        with group.folder(here / "b") as folder:
            (folder / "whole").touch()
    assert listed(here) == ["a", "b"]
    assert listed(here / "b") == ["whole"]


def test_a_group_is_entered_once_and_ended_once(here: Path) -> None:
    group = atomik.group()
    with pytest.raises(RuntimeError, match="not open"):
        group.write_text(here / "a", "new")
    with group:
        group.write_text(here / "a", "new")
        group.commit()
        assert (here / "a").read_text() == "new"
        with pytest.raises(RuntimeError, match="not open"):
            group.commit()
    with pytest.raises(RuntimeError, match="entered once"), group:
        pass


# ---------------------------------------------------------------- what it is like


@with_exchange
def test_members_get_what_a_publish_by_itself_gives(fs: Filesystem) -> None:
    shared = fs.folder("shared", 0o2775, group=1234)
    with atomik.group() as group:
        group.write_text(shared / "file", "new")
        with group.folder(shared / "folder", permissions=0o550) as folder:
            (folder / "in").touch()
        group.write_text(fs.here / "exact", "new", permissions=0o604)
    assert (shared / "file").stat().st_gid == 1234
    assert stat.S_IMODE((fs.here / "exact").stat().st_mode) == 0o604
    assert stat.S_IMODE((shared / "folder").stat().st_mode) & 0o777 == 0o550
    assert (shared / "folder/in").stat().st_gid == 1234


@with_exchange
def test_what_is_replaced_hands_on_its_mode(fs: Filesystem) -> None:
    old(fs)
    (fs.here / "one/file").chmod(0o640)
    (fs.here / "two/folder").chmod(0o500)
    with atomik.group() as group:
        add_all(group, fs.here)
    assert stat.S_IMODE((fs.here / "one/file").stat().st_mode) == 0o640
    assert stat.S_IMODE((fs.here / "two/folder").stat().st_mode) == 0o500


@with_exchange
def test_a_snapshot_holds_a_version_that_a_group_replaces(fs: Filesystem) -> None:
    old(fs)
    with atomik.snapshot(fs.here / "two/folder") as snapshot:
        with atomik.group() as group:
            add_all(group, fs.here)
        assert (snapshot / "old").read_text() == "old"
    # The first destination's next writer, or a sweep, removes what was pinned.
    atomik.sweep(fs.here, recursive=True)
    assert_new(fs.here)


def test_members_come_from_many_threads(here: Path) -> None:
    def add(group: atomik.Group, first: int) -> None:
        for number in range(first, first + 25):
            with group.file(here / str(number)) as file:
                file.write(str(number))

    with atomik.group(durability="none") as group:
        threads = [threading.Thread(target=add, args=(group, first)) for first in (0, 25, 50, 75)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {path.name: path.read_text() for path in here.iterdir()} == {
        str(number): str(number) for number in range(100)
    }


def test_asyncio_waits_for_it_off_the_loop(here: Path) -> None:
    async def save() -> None:
        async with atomik.group() as group:
            async with group.file(here / "a") as file:
                file.write("new")

    asyncio.run(save())
    assert (here / "a").read_text() == "new"


def test_a_forked_child_neither_publishes_nor_removes(here: Path) -> None:
    with atomik.group() as group:
        group.write_text(here / "a", "new")
        child = os.fork()
        if child == 0:
            status = 1
            try:
                group.commit()
            except RuntimeError:
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
    assert (here / "a").read_text() == "new"


@pytest.mark.thread_unsafe(reason="forks")
def test_a_forked_child_does_not_wait_for_a_thread_of_its_parent(here: Path) -> None:
    content = bytes(256 << 20)
    with pytest.raises(ZeroDivisionError), atomik.group(durability="none") as group:
        writing = threading.Thread(target=group.write_bytes, args=(here / "a", content))
        writing.start()
        while writing.is_alive() and repr(group) != "<Group: busy>":
            pass
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(60)
            refused = 0
            try:
                for end in (group.commit, group.rollback, lambda: group.__exit__(None, None, None)):
                    try:
                        end()
                    except RuntimeError:
                        refused += 1
                group.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
                refused += not group.committed
            finally:
                os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
        writing.join()
        raise ZeroDivisionError
    assert listed(here) == []


# ---------------------------------------------------------------- what it costs

COUNTED: Final = """
import os, sys
import atomik
from support.strace import mark

mark()
with atomik.group(durability=sys.argv[1]) as group:
    for number in range(100):
        group.write_bytes(f"{'left' if number % 2 else 'right'}/{number}", b"content")
mark()
"""


@pytest.mark.parametrize("fs", ["ext4", "xfs", "btrfs", "tmpfs"], indirect=True)
def test_each_folder_is_synced_once_and_nothing_else_after_the_publishes(fs: Filesystem) -> None:
    for name in ("left", "right"):
        (fs.here / name).mkdir()
    [calls] = calls_between_marks(COUNTED, fs.here, "full")
    last = max(
        number
        for number, call in enumerate(calls)
        if call.name == "renameat2" and re.search(r'"\d+", \d+', call.text)
    )
    syncs = [call for call in calls[last:] if call.name in {"fsync", "syncfs", "fdatasync"}]
    assert Counter(Path(call.first_path).name for call in syncs) == {"left": 1, "right": 1}
    assert sum(call.name == "syncfs" for call in calls) <= 1


def test_without_durability_nothing_is_synced(fs: Filesystem) -> None:
    for name in ("left", "right"):
        (fs.here / name).mkdir()
    [calls] = calls_between_marks(COUNTED, fs.here, "none")
    assert [call.text for call in calls if "sync" in call.name] == []


MANY: Final = """
import os, resource, sys
import atomik

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
for folder in range(50):
    os.mkdir(str(folder))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with atomik.group(durability="none") as group:
    for number in range(1_000):
        group.write_bytes(f"{number % 50}/{number}", b"")
    before = peak()
    for number in range(1_000, 11_000):
        group.write_bytes(f"{number % 50}/{number}", b"")
print(peak() - before)
"""


def test_descriptors_and_memory_stay_bounded(here: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ran = subprocess.run(
        [sys.executable, "-B", "-c", MANY],
        cwd=here,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    # KiB, for 10,000 members.
    assert int(ran.stdout) < 4096
    assert len(list(here.glob("*/*"))) == 11_000


# ---------------------------------------------------------------- killed


@with_exchange
@pytest.mark.skipif(strace.why_not() is not None, reason=str(strace.why_not()))
@pytest.mark.parametrize("call", ["renameat2", "linkat", "unlinkat", "flock", "mkdirat"])
def test_whoever_is_killed_leaves_each_destination_complete_and_the_next_one_clean(
    fs: Filesystem, call: str
) -> None:
    old(fs)
    program = f"""
from pathlib import Path
import atomik
from support.publishing import add_all
with atomik.group(durability="none") as group:
    add_all(group, Path({os.fspath(fs.here)!r}))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for when in range(1, 200):
        ran = subprocess.run(
            [
                *("strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={call}"),
                *("-e", f"inject={call}:signal=SIGKILL:when={when}"),
                *(sys.executable, "-B", "-c", program),
            ],
            env=environment,
            capture_output=True,
            check=False,
            timeout=60,
        )
        killed = ran.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
        assert killed or ran.returncode == 0, ran.stderr
        for name in ("one/file", "one/bytes", "one/tool.csv", "two/text"):
            path = fs.here / name
            if path.exists():
                assert path.read_text() in {"new", "old"}
        assert listed(fs.here / "two/folder") in (["new"], ["old"])
        # Everything again, by somebody who is not killed.
        for name in ("one/bytes", "one/tool.csv", "two/text"):
            (fs.here / name).unlink(missing_ok=True)
        with atomik.group(durability="none") as group:
            add_all(group, fs.here)
        assert_new(fs.here)
        if not killed:
            return
        for name in ("one/bytes", "one/tool.csv", "two/text"):
            (fs.here / name).unlink()
    pytest.fail("it never came to its end")


@pytest.mark.leaves_orphans
def test_kill_leaves_a_slot_of_the_group_and_one_of_each_member_whose_body_runs(
    fs: Filesystem,
) -> None:
    program = """
import os, signal
import atomik
with atomik.group(durability="none") as group:
    group.write_text("first", "new")
    with group.folder("second", True) as one, group.folder("third", True) as two:
        os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program], cwd=fs.here, check=False)
    names = ("first", "second", "third")
    left = [slot.name.rpartition(".")[2] for slot in fs.here.iterdir()]
    assert sorted(left) == [f"{name}~" for name in names]
    for name in names:
        atomik.write_text(fs.here / name, "new")
    assert listed(fs.here) == sorted(names)


def test_what_a_killed_writer_of_any_member_left_is_removed(fs: Filesystem) -> None:
    # Writers that were about to publish: a file, and a folder.
    slot_names.porch(fs.here / "file").write_text("orphan")
    (slot_names.porch(fs.here / "folder") / "folder").mkdir(parents=True)
    # And two that found the porch taken.
    for name in ("file", "folder"):
        slot_names.room(fs.here / name).mkdir(0o700)
    (slot_names.room(fs.here / "file") / "0123456789abcdef").write_text("orphan")
    (slot_names.room(fs.here / "folder") / "0123456789abcdef" / "folder").mkdir(parents=True)
    with atomik.group() as group:
        group.write_text(fs.here / "first", "new")
        group.write_text(fs.here / "file", "new")
        with group.folder(fs.here / "folder", overwrite=True):
            pass
    assert listed(fs.here) == ["file", "first", "folder"]
