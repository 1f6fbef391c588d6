"""The benchmark samples fairly, looks at what it times, and loses no figure. Nothing is timed here."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from aims import table
from contestants import FILES, FOLDERS, GROUPS, Way, Write
from figures import Book, read, rows
from ground import Child, Samples, Wrong, environment, in_turns, shown
from scale import QUICK, REAL, SMALL, Size, Tree
from sections import check_file, check_names, check_tree

ROOT = Path(__file__).parents[2]
BENCHES = ROOT / "benches"
HERE = [way for way in FILES if way.home == "here"]


@pytest.fixture
def worker() -> Iterator[Child]:
    with Child([sys.executable, BENCHES / "worker.py"], environment()) as child:
        yield child


def test_each_round_begins_with_another() -> None:
    order: list[str] = []

    def way(name: str) -> Callable[[], Samples]:
        def sample() -> Samples:
            order.append(name)
            return {name: [float(len(order))]}

        return sample

    samples = in_turns({name: way(name) for name in "abc"}, rounds=3)
    assert "".join(order) == "abc" + "bca" + "cab" + "abc"
    assert samples == {"a": [6, 8, 10], "b": [4, 9, 11], "c": [5, 7, 12]}


def test_without_a_warm_up_the_first_round_counts() -> None:
    assert in_turns({"a": lambda: {"a": [1.0]}}, rounds=2, warm_up=False) == {"a": [1, 1]}


def test_ratios_are_those_of_the_medians() -> None:
    samples = {"bare": [1.0, 2.0, 9.0], "atomik": [3.0, 4.0, 5.0]}
    bare, atomik = rows(("files", "ext4", "none", "4 KiB"), samples, "bare")
    assert (bare.median, bare.lowest, bare.ratio, bare.rounds) == (2, 1, 1, 3)
    assert (atomik.median, atomik.lowest, atomik.ratio, atomik.reference) == (4, 3, 2, "bare")
    assert atomik.samples == "3 4 5"


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    book = Book(tmp_path / "new" / "speed.csv", {"cores": 2, "packages": ["atomik 1"]})
    found = list(rows(("files", "ext4", "full", "a, “b”"), {"x": [0.125], "y": [1 / 3]}, "x"))
    for number, row in enumerate(found, start=1):
        book.add(row)
        # A run may be cut after any row.
        assert read(tmp_path / "new" / "speed.csv")[0] == found[:number]
    assert read(tmp_path / "new" / "speed.csv")[1] == {"cores": 2, "packages": ["atomik 1"]}


def test_the_columns_begin_with_where_and_who(tmp_path: Path) -> None:
    Book(tmp_path / "speed.csv", {})
    assert (
        (tmp_path / "speed.csv")
        .read_text()
        .startswith(
            "section,filesystem,durability,case,contestant,rounds,median,lowest,ratio,reference,"
        )
    )


def test_times_are_said_in_their_unit() -> None:
    assert [shown(time) for time in (1.5, 0.0025, 3e-6)] == ["1.50 s ", "2.50 ms", "3.00 µs"]
    sizes = (0, SMALL, 1 << 20, 256 << 20)
    assert [str(Size(size, 1, 1, 1)) for size in sizes] == ["0 B", "4 KiB", "1 MiB", "256 MiB"]


def test_no_contestant_is_named_twice() -> None:
    for ways in (FILES, GROUPS, FOLDERS):
        names = [(way.name, way.durability) for way in ways]
        assert len(names) == len(set(names))


def test_a_try_does_the_same_as_the_whole() -> None:
    for name in ("folders", "removals", "growth"):
        trees: tuple[Tree, ...] = getattr(QUICK, name)
        assert 0 < max(tree.files for tree in trees) < min(REAL.group.files, REAL.patience)
    assert len(QUICK.sizes) == len(REAL.sizes)


@pytest.mark.parametrize("way", HERE, ids=lambda way: f"{way.name}, {way.durability}")
def test_files_are_what_was_asked_for(tmp_path: Path, way: Way[Write]) -> None:
    replace_file = way.make()
    for size in (0, 10):
        replace_file(str(tmp_path / "file"), [b"a" * size])
    check_file(tmp_path / "file", 10, ord("a"))
    check_names(tmp_path, "file")


def test_a_worker_publishes_what_it_times(tmp_path: Path, worker: Child) -> None:
    path, tree = tmp_path / "file", Tree(3, 0, 1)
    assert worker.seconds("file", "atomik.file", "none", path, 10, 4, 2, 65) > 0
    check_file(path, 10, 65)
    path.unlink()
    for seed in (66, 67):
        worker.ask("group", "atomik.group", "none", tmp_path, 3, SMALL, seed)
        check_tree(tmp_path, tree, seed)
    for name in ("atomik.folder", "os.rename"):
        staging = Path(worker.ask("begin", name, "none", tmp_path / "folder")[1])
        (staging / name).touch()
        worker.ask("commit")
        check_names(tmp_path / "folder", name)
    for name in ("rm -rf", "shutil.rmtree", "atomik, displaced"):
        (tmp_path / "removed" / "below").mkdir(parents=True)
        worker.ask("remove", name, tmp_path / "removed")
    check_names(tmp_path, *(f"file-{number:06}" for number in range(3)), "folder")


def test_memory_is_looked_at_between_two_questions(tmp_path: Path, worker: Child) -> None:
    size = 16 << 20
    before = int(worker.ask("memory")[0])
    worker.ask("file", "atomik.file", "none", tmp_path / "file", size, size, 1, 65)
    worker.ask("file", "atomik.file", "none", tmp_path / "file", 1, 1, 1, 65)
    resident, most = map(int, worker.ask("memory"))
    assert resident < before + size // 2 < before + size <= most
    assert int(worker.ask("memory")[1]) < before + size // 2


def test_who_has_failed_says_why(tmp_path: Path, worker: Child) -> None:
    with pytest.raises(Wrong, match="FileNotFoundError"):
        worker.ask("file", "atomik.file", "none", tmp_path / "no" / "file", 1, 1, 1, 65)
    with pytest.raises(Wrong, match="StopIteration"):
        worker.ask("file", "nobody", "none", tmp_path / "file", 1, 1, 1, 65)


def test_what_is_wrong_is_seen(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"a" * SMALL)
    tree = Tree(2, 0, 1)
    check_tree(tmp_path, tree, ord("a"))
    with pytest.raises(Wrong, match="there are 2 files of 3"):
        check_tree(tmp_path, replace(tree, files=3), ord("a"))
    with pytest.raises(Wrong, match="there are"):
        check_names(tmp_path, "a")
    (tmp_path / "b").write_bytes(b"b" + b"a" * (SMALL - 1))
    with pytest.raises(Wrong, match="b is not what was published"):
        check_tree(tmp_path, tree, ord("a"))


def test_the_page_shows_the_figures_that_are_beside_it() -> None:
    page = (ROOT / "docs" / "speed.md").read_text("utf-8")
    figures, machine = read(ROOT / "docs" / "speed" / "speed.csv")
    assert not machine["quick"]
    assert "\n".join(table(figures)) in page
