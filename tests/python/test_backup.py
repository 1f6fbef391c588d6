"""`backup=`: the displaced version takes that name, and at every instant both are complete.

The kernel shows a reader at any instant what it leaves behind when the writer is killed there: so
a writer is killed (strace(1) injects SIGKILL) before each of its calls that could change anything.
"""

import errno
import os
import re
import select
import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import atomik
import pytest
from support import publishing, strace, xattrs
from support.crowd import Say, Wait, crowd
from support.destination_kinds import KINDS
from support.filesystems import Filesystem
from support.kernel import set_immutable
from support.processes import NOBODY, run_as
from support.trees import Described, describe, describe_one

if TYPE_CHECKING:
    from io import BufferedRandom

with_exchange = pytest.mark.parametrize(
    "fs", ["ext4", "xfs", "btrfs", "tmpfs", "overlay"], indirect=True
)


def _append(destination: Path, **options: Any) -> None:
    with atomik.file(destination, "a", **options) as file:
        file.write("new")


def _change(destination: Path, **options: Any) -> None:
    guard = cast("atomik.File[BufferedRandom]", atomik.file(destination, "r+b", **options))
    with guard as file:
        file.write(b"new")


def _update(destination: Path, **options: Any) -> None:
    with atomik.folder(destination, update=True, **options) as staging:
        (staging / "new").write_bytes(publishing.NEW)


FILES: Final[Mapping[str, Callable[..., None]]] = {
    **publishing.MAKING_FILES,
    "file, a": _append,
    "file, r+b": _change,
}
FOLDERS: Final[Mapping[str, Callable[..., None]]] = {
    **publishing.MAKING_FOLDERS,
    "folder, update": _update,
}
ALL: Final = {**FILES, **FOLDERS}

each_call = pytest.mark.parametrize("name", ALL)


def _publish(name: str, destination: Path, **options: Any) -> None:
    if ALL[name] in publishing.ALL.values():
        options.setdefault("overwrite", True)
    ALL[name](destination, **{"durability": "none", **options})


def _make(name: str, path: Path, content: str) -> None:
    """Makes what the call replaces: a file or a folder."""
    if name in FILES:
        path.write_text(content)
    else:
        (path / "inner").mkdir(parents=True)
        (path / "inner" / "file").write_text(content)


def _state(path: Path) -> dict[str, Described] | None:
    """Describes all that a path is, or None if there is nothing."""
    if not os.path.lexists(path):
        return None
    return {".": describe_one(path)} | (describe(path) if path.is_dir() else {})


@with_exchange
@each_call
@pytest.mark.parametrize("before", ["no backup", "a backup", "a symlink"])
def test_the_displaced_version_itself_gets_the_name(fs: Filesystem, name: str, before: str) -> None:
    destination, backup = fs.here / "it", fs.here / "it.bak"
    _make(name, destination, "old")
    _make(name, fs.here / "other", "other")
    if before == "a backup":
        _make(name, backup, "older")
    elif before == "a symlink":
        backup.symlink_to("other")
    old, inode, other = _state(destination), destination.stat().st_ino, _state(fs.here / "other")
    _publish(name, destination, backup="it.bak")
    assert _state(backup) == old
    assert backup.stat().st_ino == inode
    assert _state(destination) != old
    assert _state(fs.here / "other") == other
    assert sorted(os.listdir(fs.here)) == ["it", "it.bak", "other"]


@with_exchange
@each_call
def test_each_version_becomes_the_next_backup(fs: Filesystem, name: str) -> None:
    destination, backup = fs.here / "it", fs.here / "it.bak"
    _make(name, destination, "old")
    for durability in ("full", "ordered", "none"):
        old = _state(destination)
        _publish(name, destination, backup="it.bak", durability=durability)
        assert _state(backup) == old
    assert sorted(os.listdir(fs.here)) == ["it", "it.bak"]


@with_exchange
@each_call
def test_backup_and_destination_keep_owner_mode_attributes_and_acl(
    fs: Filesystem, name: str
) -> None:
    destination, backup = fs.here / "it", fs.here / "it.bak"
    _make(name, destination, "old")
    _make(name, backup, "older")
    os.chown(destination, 1234, 5678)
    destination.chmod(0o750)
    xattrs.set_attribute(destination, "user.atomik", b"mine")
    xattrs.set_attribute(destination, xattrs.ACCESS, xattrs.allowing(4321))
    before = _state(destination)
    assert before is not None
    _publish(name, destination, backup="it.bak")
    assert _state(backup) == before
    old, new = before["."], describe_one(destination)
    assert (new.mode, new.owner, new.attributes) == (old.mode, old.owner, old.attributes)


@with_exchange
@each_call
def test_an_ordinary_user_has_backups_too(fs: Filesystem, name: str) -> None:
    home = fs.folder("home", 0o755, NOBODY.uid, NOBODY.gid)

    def publish() -> None:
        _make(name, home / "it", "old")
        (home / "it").chmod(0o555)
        old = _state(home / "it")
        _publish(name, home / "it", backup="it.bak")
        assert _state(home / "it.bak") == old

    run_as(NOBODY, publish)
    assert sorted(os.listdir(home)) == ["it", "it.bak"]
    (home / "it.bak").chmod(0o755)


@each_call
def test_where_nothing_is_displaced_the_backup_stays(fs: Filesystem, name: str) -> None:
    if name == "file, r+b":
        pytest.skip('"r+b" needs a file')
    _make(name, fs.here / "it.bak", "older")
    before = _state(fs.here / "it.bak")
    _publish(name, fs.here / "it", backup="it.bak")
    assert _state(fs.here / "it.bak") == before
    _publish(name, fs.here / "other", backup="other.bak")
    assert sorted(os.listdir(fs.here)) == ["it", "it.bak", "other"]


@with_exchange
@each_call
def test_an_exception_leaves_destination_and_backup(fs: Filesystem, name: str) -> None:
    if name not in publishing.ALL or name.startswith("write"):
        pytest.skip("it has no body here")

    def body() -> None:
        raise LookupError

    for path in ("it", "it.bak"):
        _make(name, fs.here / path, path)
    before = _state(fs.here)
    with pytest.raises(LookupError):
        publishing.ALL[name](fs.here / "it", body, overwrite=True, backup="it.bak")
    assert _without_times(_state(fs.here)) == _without_times(before)


def _without_times(state: dict[str, Described] | None) -> dict[str, tuple[object, ...]]:
    assert state is not None
    return {name: (one.mode, one.owner, one.digest) for name, one in state.items()}


def _spellings(home: Path) -> dict[str, publishing.AnyPath]:
    return {
        "str": "it.bak",
        "bytes": b"it.bak",
        "Path": Path("it.bak"),
        "absolute": home / "it.bak",
        "absolute bytes": os.fsencode(home / "it.bak"),
        "detour": home / "sub" / ".." / "it.bak",
    }


@with_exchange
@pytest.mark.parametrize("name", ["file", "write_bytes", "folder", "path to a folder"])
@pytest.mark.parametrize("spelling", _spellings(Path()))
def test_a_name_or_a_path_into_the_same_folder_is_taken(
    fs: Filesystem, name: str, spelling: str
) -> None:
    fs.folder("sub")
    _make(name, fs.here / "it", "old")
    _publish(name, fs.here / "it", backup=_spellings(fs.here)[spelling])
    assert sorted(os.listdir(fs.here)) == ["it", "it.bak", "sub"]


@pytest.mark.parametrize(
    ("backup", "number"),
    [
        ("it", errno.EINVAL),
        ("sub/it.bak", errno.EINVAL),
        ("../it.bak", errno.EINVAL),
        ("/it.bak", errno.EINVAL),
        ("missing/it.bak", errno.ENOENT),
        ("n" * 256, errno.ENAMETOOLONG),
    ],
    ids=["its own", "below", "above", "root", "missing folder", "too long"],
)
@each_call
def test_another_place_is_refused_before_the_body(
    here: Path, monkeypatch: pytest.MonkeyPatch, name: str, backup: str, number: int
) -> None:
    monkeypatch.chdir(here)
    (here / "sub").mkdir()
    _make(name, here / "it", "old")
    before = _state(here)
    with pytest.raises(OSError) as raised:
        _publish(name, here / "it", backup=backup)
    assert raised.value.errno == number
    assert _without_times(_state(here)) == _without_times(before)


@pytest.mark.parametrize("backup", ["", ".", "..", "it.bak/.", "it.bak/.."])
@each_call
def test_what_is_no_name_is_refused(here: Path, name: str, backup: str) -> None:
    _make(name, here / "it", "old")
    with pytest.raises(OSError):
        _publish(name, here / "it", backup=backup)
    assert os.listdir(here) == ["it"]


@pytest.mark.parametrize(
    "slot",
    [
        *(".atomik-0.it~", ".atomik-0-0123456789abcdef.other~", ".atomik-u0.it~"),
        *(".atomik-lock.it~", ".atomik-0.it", ".atomik"),
    ],
)
@each_call
def test_a_name_that_the_next_writer_would_remove_is_refused(
    here: Path, name: str, slot: str
) -> None:
    _make(name, here / "it", "old")
    with pytest.raises(OSError) as raised:
        _publish(name, here / "it", backup=slot)
    assert raised.value.errno == errno.EINVAL
    assert os.listdir(here) == ["it"]


@pytest.mark.parametrize("target", ["/dev/null", "/proc/self/fd/0"])
@each_call
def test_a_symlink_to_what_is_never_replaced_is_no_backups_name(
    here: Path, name: str, target: str
) -> None:
    _make(name, here / "it", "old")
    (here / "link").symlink_to(target)
    with pytest.raises(atomik.DestinationBusyError):
        _publish(name, here / "it", backup="link")
    assert os.readlink(here / "link") == target


@each_call
def test_a_name_with_nul_is_a_value_error(here: Path, name: str) -> None:
    _make(name, here / "it", "old")
    with pytest.raises(ValueError):
        _publish(name, here / "it", backup="it\0bak")
    assert os.listdir(here) == ["it"]


_FORBIDDEN: Final[Mapping[tuple[str, str], type[OSError]]] = {
    ("empty folder", "file"): IsADirectoryError,
    ("file", "folder"): NotADirectoryError,
    ("FIFO", "file"): atomik.DestinationBusyError,
    ("FIFO", "folder"): atomik.DestinationBusyError,
    ("device", "file"): atomik.DestinationBusyError,
    ("socket", "file"): atomik.DestinationBusyError,
    ("mount point", "folder"): atomik.DestinationBusyError,
    ("bind-mounted file", "file"): atomik.DestinationBusyError,
}


@with_exchange
@pytest.mark.parametrize(("kind", "name"), _FORBIDDEN)
def test_what_never_is_replaced_is_refused_before_the_body(
    fs: Filesystem, kind: str, name: str
) -> None:
    _make(name, fs.here / "it", "old")
    KINDS[kind](fs, fs.here / "it.bak")
    before = _without_times(_state(fs.here))
    attempt = publishing.attempt(ALL[name], fs.here / "it", overwrite=True, backup="it.bak")
    assert isinstance(attempt.error, _FORBIDDEN[kind, name])
    assert attempt.error.filename == "it.bak"
    assert not attempt.body_ran
    assert _without_times(_state(fs.here)) == before


@pytest.mark.parametrize("fs", ["ext4", "xfs", "btrfs"], indirect=True)
def test_an_immutable_backup_is_refused_before_the_body(fs: Filesystem) -> None:
    (fs.here / "it").write_text("old")
    KINDS["immutable file"](fs, fs.here / "it.bak")
    attempt = publishing.attempt(publishing.file, fs.here / "it", overwrite=True, backup="it.bak")
    assert isinstance(attempt.error, PermissionError)
    assert not attempt.body_ran
    set_immutable(fs.here / "it.bak", immutable=False)
    assert (fs.here / "it").read_text() == "old"


@each_call
def test_it_does_not_go_with_tmp_dir(here: Path, name: str) -> None:
    _make(name, here / "it", "old")
    (here / "elsewhere").mkdir()
    with pytest.raises(OSError) as raised:
        _publish(name, here / "it", backup="it.bak", tmp_dir=here / "elsewhere")
    assert raised.value.errno == errno.EINVAL
    assert os.listdir(here / "elsewhere") == []


@pytest.mark.parametrize("fs", ["bindfs"], indirect=True)
@pytest.mark.parametrize("name", publishing.ALL)
def test_without_an_exchange_it_is_refused_before_the_body(fs: Filesystem, name: str) -> None:
    _make(name, fs.here / "it", "old")
    attempt = publishing.attempt(ALL[name], fs.here / "it", overwrite=True, backup="it.bak")
    assert isinstance(attempt.error, atomik.UnsupportedFilesystemError)
    assert not attempt.body_ran
    assert os.listdir(fs.here) == ["it"]


@with_exchange
def test_a_version_that_is_read_becomes_the_backup_and_stays(fs: Filesystem) -> None:
    _make("folder", fs.here / "it", "old")
    old = _state(fs.here / "it")
    with atomik.snapshot(fs.here / "it") as version:
        _publish("folder", fs.here / "it", backup="it.bak")
        assert (version / "inner" / "file").read_text() == "old"
        assert _state(fs.here / "it.bak") == old
    assert _state(fs.here / "it.bak") == old
    assert sorted(os.listdir(fs.here)) == ["it", "it.bak"]


@with_exchange
def test_a_backup_that_is_read_goes_with_its_last_reader(fs: Filesystem) -> None:
    _make("folder", fs.here / "it", "old")
    _make("folder", fs.here / "it.bak", "older")
    old = _state(fs.here / "it")
    with atomik.snapshot(fs.here / "it.bak") as version:
        _publish("folder", fs.here / "it", backup="it.bak")
        assert (version / "inner" / "file").read_text() == "older"
        assert _state(fs.here / "it.bak") == old
    assert sorted(os.listdir(fs.here)) == ["it", "it.bak"]


@with_exchange
def test_among_many_writers_the_backup_is_the_version_before_the_last(fs: Filesystem) -> None:
    destination = fs.here / "it"
    destination.write_text("")

    def job(number: int, say: Say, _: Wait) -> None:
        for turn in range(10):
            try:
                with atomik.file(destination, "a", backup="it.bak", durability="none") as file:
                    file.write(f"{number}-{turn}\n")
            except atomik.ConflictError:
                say("refused")
            else:
                say("published")

    with crowd(job, processes=4, threads=2) as writers:
        said = writers.finish()
    assert set(said) <= {"refused", "published"}
    *before, _last = destination.read_text().splitlines(keepends=True)
    assert len(before) + 1 == said.count("published")
    assert (fs.here / "it.bak").read_text() == "".join(before)
    assert sorted(os.listdir(fs.here)) == ["it", "it.bak"]


# Calls after which something may be different on the disk, or for other processes.
_CHANGING: Final = re.compile(
    "openat|write|linkat|symlinkat|mkdirat|rename|renameat2|unlink|unlinkat|rmdir|flock|fsync|syncfs"
    "|fchmod|fchown|fsetxattr|exit_group"
)


@pytest.mark.leaves_orphans
@pytest.mark.parametrize("fs", ["ext4"], indirect=True)
@pytest.mark.parametrize("previous", [True, False], ids=["over a backup", "the first backup"])
@pytest.mark.parametrize(
    "name", ["write_bytes", "file, a", "path to a file", "folder", "folder, update"]
)
def test_killed_at_any_call_it_leaves_both_complete_and_the_next_writer_finishes(
    fs: Filesystem, name: str, previous: bool
) -> None:
    if reason := strace.why_not():
        pytest.skip(reason)
    home = fs.folder("home")

    def prepare() -> None:
        shutil.rmtree(home)
        home.mkdir()
        _make(name, home / "it", "old")
        if previous:
            _make(name, home / "it.bak", "older")

    prepare()
    old, older = _content(home / "it"), _content(home / "it.bak")
    traced = _run(name, home, fs.here / "trace", [])
    new = _content(home / "it")
    assert _content(home / "it.bak") == old
    assert new not in (old, older)
    states: set[tuple[bool, bool]] = set()
    for call in traced:
        if not _CHANGING.fullmatch(call.name):
            continue
        prepare()
        _run(name, home, fs.here / "trace", strace.Injection(call).options())
        it, backup = _content(home / "it"), _content(home / "it.bak")
        assert it in (old, new), call
        assert backup in (older, old), call
        published = it == new
        assert published or backup == older, call
        # The version before is the backup, or is kept until it is.
        assert not published or backup == old or old in _kept(home), call
        states.add((published, backup == old))
        _publish(name, home / "it")
        assert _content(home / "it.bak") == (old if published else older), call
        assert sorted(os.listdir(home)) == ["it", *["it.bak"] * (published or previous)], call
    # Before the publish, between it and the backup, and after both.
    assert states == {(False, False), (True, False), (True, True)}


def _content(path: Path) -> Any:
    """Returns the content that a path has, file or folder; None if there is nothing."""
    state = _state(path)
    return state and tuple(
        (name, stat.S_IFMT(one.mode), one.digest) for name, one in sorted(state.items())
    )


def _kept(home: Path) -> list[Any]:
    """Returns what the slots hold."""
    return [_content(path) for path in home.glob(".atomik-*/*")]


def _run(name: str, home: Path, trace: Path, options: list[str]) -> list[strace.Call]:
    """Publishes in a process of its own, traced; returns its calls."""
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            # It takes no part in the tests: all that it does is to publish.
            os.close(go)
            select.select([ready], [], [])
            _publish(name, home / "it", backup="it.bak", durability="full")
        finally:
            os._exit(0)
    os.close(ready)
    try:
        with strace.attached(pid, trace, options):
            os.close(go)
    finally:
        os.waitpid(pid, 0)
    return strace.calls(trace)
