"""Small behaviours that hold in many threads at once: run them with `--parallel-threads` too."""

import os
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NoReturn, TypeAlias, TypeVar

import atomik
import pytest
from support.filesystems import leftovers

T = TypeVar("T")

THREADS: Final = 16

pytestmark = pytest.mark.timeout(60)


@contextmanager
def own_folder(here: Path) -> Generator[Path, None, None]:
    """Makes a folder for one run of a test, of however many in parallel; nothing is left in it."""
    with tempfile.TemporaryDirectory(dir=here) as name:
        folder = Path(name)
        yield folder
        assert leftovers(folder) == []


def at_once(call: Callable[[int], T]) -> list[T]:
    """Returns what a call returns in each of several threads that start together."""
    together = threading.Barrier(THREADS)

    def run(number: int) -> T:
        together.wait()
        return call(number)

    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(run, range(THREADS)))


def outcome(call: Callable[[], object]) -> str:
    try:
        call()
    except Exception as error:
        return type(error).__name__
    return "success"


Make: TypeAlias = "Callable[[Path], atomik.File[Any] | atomik.Folder | atomik.Entry]"
MAKING: Final[list[Make]] = [
    lambda folder: atomik.file(folder / "file", durability="none"),
    lambda folder: atomik.file(folder / "bytes", "wb", durability="none"),
    lambda folder: atomik.folder(folder / "folder", durability="none"),
    lambda folder: atomik.path(folder / "path", durability="none"),
]


def raise_key_error() -> NoReturn:
    raise KeyError


def fill(staging: Any) -> None:
    """Writes something to whatever a body got."""
    if not isinstance(staging, Path):
        staging.write(b"new" if "b" in staging.mode else "new")
    elif staging.is_dir():
        (staging / "index.html").write_text("new")
    else:
        staging.write_text("new")


def test_a_file_is_published_and_replaced(here: Path) -> None:
    with own_folder(here) as folder:
        for version in ("old", "new"):
            with atomik.file(folder / "file", overwrite=True, durability="none") as staging:
                staging.write(version)
            assert (folder / "file").read_text() == version
        assert os.listdir(folder) == ["file"]


def test_a_folder_is_published_and_replaced(here: Path) -> None:
    with own_folder(here) as folder:
        for version in ("old", "new"):
            with atomik.folder(folder / "site", overwrite=True, durability="none") as staging:
                (staging / version).touch()
            assert os.listdir(folder / "site") == [version]
        assert os.listdir(folder) == ["site"]


def test_an_existing_destination_is_refused(here: Path) -> None:
    with own_folder(here) as folder:
        (folder / "file").write_text("old")
        with pytest.raises(atomik.FileAlreadyExistsError) as caught:
            atomik.write_text(folder / "file", "new", durability="none")
        assert caught.value.filename == os.fspath(folder / "file")
        assert (folder / "file").read_text() == "old"


def test_an_exception_discards(here: Path) -> None:
    with own_folder(here) as folder:
        for make in MAKING:
            guard = make(folder)
            with suppress(KeyError), guard as staging:
                fill(staging)
                raise_key_error()
            assert not guard.committed
        assert os.listdir(folder) == []


def test_two_paths_are_exchanged(here: Path) -> None:
    with own_folder(here) as folder:
        (folder / "a").write_text("a")
        (folder / "b").mkdir()
        atomik.exchange(folder / "a", folder / "b")
        assert (folder / "b").read_text() == "a"
        atomik.rename(folder / "b", folder / "c")
        assert sorted(os.listdir(folder)) == ["a", "c"]


def test_one_destination_takes_all_of_many_replacing_threads(here: Path) -> None:
    with own_folder(here) as folder:

        def publish(number: int) -> None:
            with atomik.folder(folder / "site", overwrite=True, durability="none") as staging:
                (staging / "first").write_text(str(number))
                (staging / "second").write_text(str(number))

        at_once(publish)
        site = folder / "site"
        assert (site / "first").read_text() == (site / "second").read_text()
        assert os.listdir(folder) == ["site"]


def test_one_destination_takes_one_of_many_creating_threads(here: Path) -> None:
    with own_folder(here) as folder:

        def publish(number: int) -> str:
            return outcome(
                lambda: atomik.write_text(folder / "file", str(number), durability="none")
            )

        assert Counter(at_once(publish)) == {"success": 1, "FileAlreadyExistsError": THREADS - 1}
        assert os.listdir(folder) == ["file"]


@pytest.mark.parametrize("number", range(4), ids=["text", "bytes", "folder", "path"])
def test_one_thread_enters_a_shared_guard(here: Path, number: int) -> None:
    with own_folder(here) as folder:
        guard = MAKING[number](folder)
        outcomes = at_once(lambda _: outcome(guard.__enter__))
        assert Counter(outcomes) == {"success": 1, "RuntimeError": THREADS - 1}
        guard.rollback()
        assert os.listdir(folder) == []


@pytest.mark.parametrize("number", range(4), ids=["text", "bytes", "folder", "path"])
def test_one_thread_commits_a_shared_guard(here: Path, number: int) -> None:
    with own_folder(here) as folder:
        guard = MAKING[number](folder)
        fill(guard.__enter__())
        outcomes = at_once(lambda _: outcome(guard.commit))
        assert Counter(outcomes) == {"success": 1, "RuntimeError": THREADS - 1}
        assert guard.committed
        assert os.listdir(folder) == [guard.destination.name]


@pytest.mark.parametrize("number", range(4), ids=["text", "bytes", "folder", "path"])
def test_one_thread_ends_a_shared_guard_in_one_way(here: Path, number: int) -> None:
    """Commits and rollbacks race: one of them happens, and only that one."""
    with own_folder(here) as folder:
        guard = MAKING[number](folder)
        fill(guard.__enter__())

        def end(thread: int) -> str:
            if thread % 2:
                return outcome(guard.commit).replace("success", "committed")
            return outcome(guard.rollback).replace("success", "rolled back")

        outcomes = Counter(at_once(end))
        assert outcomes.pop("RuntimeError") == THREADS - 1
        assert outcomes == {"committed" if guard.committed else "rolled back": 1}
        assert os.listdir(folder) == [guard.destination.name] * guard.committed


def test_a_guard_is_looked_at_while_others_end_it(here: Path) -> None:
    with own_folder(here) as folder:
        for make in MAKING:
            guard = make(folder)
            fill(guard.__enter__())
            ended = threading.Event()

            def look(thread: int, guard: Any = guard, ended: threading.Event = ended) -> None:
                if thread == 0:
                    try:
                        guard.commit()
                    finally:
                        ended.set()
                while not ended.is_set():
                    assert isinstance(guard.staging, Path | None)
                    assert guard.committed in (False, True)

            at_once(look)
            assert guard.committed
            assert guard.staging is None


@pytest.mark.thread_unsafe(reason="changes how often the interpreter switches threads")
def test_threads_that_switch_all_the_time_do_not_block_each_other(here: Path) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with own_folder(here) as folder:

            def work(number: int) -> None:
                for make in MAKING:
                    with make(folder / str(number % 4)) as staging:
                        fill(staging)

            def attempt(number: int) -> str:
                return outcome(lambda: work(number))

            for number in range(4):
                (folder / str(number)).mkdir()
            with ThreadPoolExecutor(THREADS) as threads:
                outcomes = Counter(threads.map(attempt, range(4 * THREADS)))
            assert outcomes["success"] >= 1
            assert set(outcomes) <= {"success", "FileAlreadyExistsError"}
            for number in range(4):
                assert len(os.listdir(folder / str(number))) == len(MAKING)
    finally:
        sys.setswitchinterval(interval)


def test_a_thread_that_waits_for_the_kernel_lets_the_others_run(here: Path) -> None:
    """The syncs of many threads and Python code in others end together, whatever holds the GIL."""
    with own_folder(here) as folder:

        def work(number: int) -> None:
            if number % 2:
                sum(range(100_000))
            else:
                atomik.write_bytes(folder / str(number), b"new")

        at_once(work)
        assert len(os.listdir(folder)) == THREADS // 2
