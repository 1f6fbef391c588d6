"""The benchmark samples fairly, looks at what it times, loses no figure, draws only a series; nothing is timed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import repeat
import series
from aims import AIMS, ALL, Aim
from contestants import FILES, FOLDERS, GROUPS, REMOVALS, Way, Write
from figures import Book, Row, beside, read, rows
from ground import Child, Samples, Wrong, environment, in_turns, shown
from machine import disturbed
from page import BEGIN, END, NO_SERIES, section, written
from place import (
    BARE,
    BARE_LINKED,
    BARE_ONE,
    BARE_SYNCFS,
    BARE_WALK,
    FLUSHES,
    OPENED,
    PLAIN,
    UNSYNCED,
    check_file,
    check_names,
    check_tree,
)
from repeat import append
from scale import QUICK, REAL, SMALL, Size, Tree
from series import APART, RUNS, SPAN, Refused, Run, complete, missing

ROOT = Path(__file__).parents[2]
BENCHES = ROOT / "benches"
DOCS = ROOT / "docs"
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


def test_what_was_written_is_read_again(here: Path) -> None:
    book = Book(here / "new" / "speed.csv", {"cores": 2, "packages": ["atomik 1"]})
    found = list(rows(("files", "ext4", "full", "a, “b”"), {"x": [0.125], "y": [1 / 3]}, "x"))
    for number, row in enumerate(found, start=1):
        book.add(row)
        # A run may be cut after any row.
        assert read(here / "new" / "speed.csv")[0] == found[:number]
    assert read(here / "new" / "speed.csv")[1] == {"cores": 2, "packages": ["atomik 1"]}


def test_the_columns_begin_with_the_place_and_the_contestant(here: Path) -> None:
    Book(here / "speed.csv", {})
    assert (
        (here / "speed.csv")
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
def test_files_are_what_was_asked_for(here: Path, way: Way[Write]) -> None:
    replace_file = way.make()
    for size in (0, 10):
        replace_file(str(here / "file"), [b"a" * size])
    check_file(here / "file", 10, ord("a"))
    check_names(here, "file")


def test_a_worker_publishes_what_it_times(here: Path, worker: Child) -> None:
    path, tree = here / "file", Tree(3, 0, 1)
    assert worker.seconds("file", "atomik.file", "none", path, 10, 4, 2, 65) > 0
    check_file(path, 10, 65)
    path.unlink()
    for seed in (66, 67):
        worker.ask("group", "atomik.group", "none", here, 3, SMALL, seed)
        check_tree(here, tree, seed)
    for name in ("atomik.folder", "os.rename"):
        staging = Path(worker.ask("begin", name, "none", here / "folder")[1])
        (staging / name).touch()
        worker.ask("commit")
        check_names(here / "folder", name)
    for name in ("rm -rf", "shutil.rmtree", "atomik, displaced"):
        (here / "removed" / "below").mkdir(parents=True)
        worker.ask("remove", name, here / "removed")
    check_names(here, *(f"file-{number:06}" for number in range(3)), "folder")


def test_memory_is_looked_at_between_two_questions(here: Path, worker: Child) -> None:
    size = 16 << 20
    before = int(worker.ask("memory")[0])
    worker.ask("file", "atomik.file", "none", here / "file", size, size, 1, 65)
    worker.ask("file", "atomik.file", "none", here / "file", 1, 1, 1, 65)
    resident, most = map(int, worker.ask("memory"))
    assert resident < before + size // 2 < before + size <= most
    assert int(worker.ask("memory")[1]) < before + size // 2


def test_who_has_failed_says_why(here: Path, worker: Child) -> None:
    with pytest.raises(Wrong, match="FileNotFoundError"):
        worker.ask("file", "atomik.file", "none", here / "no" / "file", 1, 1, 1, 65)
    with pytest.raises(Wrong, match="StopIteration"):
        worker.ask("file", "nobody", "none", here / "file", 1, 1, 1, 65)


def test_what_is_wrong_is_seen(here: Path) -> None:
    for name in ("a", "b"):
        (here / name).write_bytes(b"a" * SMALL)
    tree = Tree(2, 0, 1)
    check_tree(here, tree, ord("a"))
    with pytest.raises(Wrong, match="there are 2 files of 3"):
        check_tree(here, replace(tree, files=3), ord("a"))
    with pytest.raises(Wrong, match="there are"):
        check_names(here, "a")
    (here / "b").write_bytes(b"b" + b"a" * (SMALL - 1))
    with pytest.raises(Wrong, match="b is not what was published"):
        check_tree(here, tree, ord("a"))


# --- Series ---

QUIET: dict[str, Any] = {
    "commit": "1234567",
    "processor": "a processor",
    "cores": 2,
    "memory": "8 GiB",
    "kernel": "Linux 6.18",
    "images": "ext4 rw",
    "disk": "vda, write_cache write back",
    "filesystems": {"ext4": "ext4 rw,relatime", "tmpfs": "tmpfs rw"},
    "tools": ["mke2fs"],
    "python": "Python 3.11.7",
    "packages": ["atomik 0.1.0"],
    "quick": False,
    "part": False,
    "load": {"start": [0.5, 0.5, 0.5], "end": [2.0, 1.0, 0.5]},
    "stolen": 0.0,
    "work": [0.001, 0.00125],
    "flush": [0.0005, 0.001],
    "disturbed": [],
}
FIRST = datetime(2026, 11, 30, 10, tzinfo=UTC)


def one_run(number: int, *figures: Row, hours: float = 1, **about: Any) -> Run:
    """The run of so many times as many hours after the first."""
    began = FIRST + timedelta(hours=hours * number)
    times = {"began": began.isoformat(), "ended": (began + timedelta(minutes=15)).isoformat()}
    return Run(QUIET | times | about, figures)


def case(where: tuple[str, str, str, str], **times: float) -> list[Row]:
    """Rows of contestants, given by their medians; an underscore stands for a space."""
    samples = {name.replace("_", " "): [time] for name, time in times.items()}
    return list(rows(where, samples, next(iter(samples))))


def five(ratios: list[float]) -> list[Run]:
    """A series in which something took so many times as long as its rival."""
    where = ("files", "ext4", "none", "4 KiB")
    return [
        one_run(number, *case(where, rival=0.5, ours=ratio / 2))
        for number, ratio in enumerate(ratios)
    ]


RATIOS = [1.25, 1.0, 1.5, 1.125, 1.25]


def test_five_quiet_runs_spread_over_hours_are_a_series(here: Path) -> None:
    path, runs = here / "1234567" / "series.csv", five(RATIOS)
    for number, run in enumerate(runs):
        assert missing(runs[:number])[0] == f"{RUNS} runs must count, and {number} of {number} do"
        with pytest.raises(
            Refused, match=r"series\.csv is no series yet; `make bench` goes on with it"
        ):
            complete(path)
        append(path, run)
        assert series.read(path) == runs[: number + 1]
    assert complete(path) == runs
    assert sorted(os.listdir(path.parent)) == ["series.csv", "series.json"]


def test_a_run_whose_appending_was_cut_is_no_run(here: Path) -> None:
    path, runs = here / "series.csv", five(RATIOS)
    append(path, runs[0])
    described = beside(path).read_bytes()
    append(path, runs[1])
    beside(path).write_bytes(described)
    assert series.read(path) == runs[:1]
    append(path, runs[2])
    assert series.read(path) == [runs[0], runs[2]]


def test_runs_of_one_morning_are_no_series() -> None:
    assert timedelta(hours=0.6) > APART
    runs = [one_run(number, hours=0.6) for number in range(RUNS)]
    assert missing(runs) == ["the runs must span 3 h 00 min, and span 2 h 24 min"]
    longer = [
        one_run(number, hours=SPAN.total_seconds() / 3600 / (RUNS - 1)) for number in range(RUNS)
    ]
    assert missing(longer) == []


def test_runs_that_follow_each_other_at_once_count_as_one() -> None:
    runs = [one_run(number, hours=0.25) for number in range(4)]
    assert missing(runs) == [
        "5 runs must count, and 2 of 4 do",
        *(
            f"the run of {run.about['began']} does not count: it began less than 30 min after the one before it"
            for run in (runs[1], runs[3])
        ),
    ]


@pytest.mark.parametrize(
    ("about", "why"),
    [
        ({"disturbed": ["load at its start: 9.00, at most 1.00"]}, "load at its start: 9.00, at most 1.00"),
        ({"quick": True}, "it is a try for development"),
        ({"part": True}, "it is a try for development"),
        ({"commit": "7654321", "kernel": "Linux 6.1"}, "another commit, kernel than in the last run"),
    ],
)  # fmt: skip
def test_a_run_that_differs_is_kept_and_does_not_count(about: dict[str, Any], why: str) -> None:
    runs = [one_run(number, **(about if number == 2 else {})) for number in range(RUNS)]
    assert missing(runs) == [
        "5 runs must count, and 4 of 5 do",
        f"the run of {runs[2].about['began']} does not count: {why}",
    ]
    assert missing([*runs, one_run(5)]) == []


@pytest.mark.parametrize(
    ("about", "why"),
    [
        ({}, []),
        ({"load": {"start": [1.1, 0, 0], "end": [0, 0, 0]}}, ["load at its start: 1.10, at most 1.00"]),
        ({"load": {"start": [0, 9, 9], "end": [3.1, 0, 0]}}, ["load at its end: 3.10, at most 3.00"]),
        ({"stolen": 0.03}, ["share of time that the hypervisor gave to other machines: 0.03, at most 0.02"]),
        ({"work": [2, 3]}, ["the longest control of the processor, in shortest: 1.50, at most 1.30"]),
        ({"flush": [1, 4]}, ["the longest control flush, in shortest: 4.00, at most 3.00"]),
        ({"commit": "1234567+"}, ["what is measured differs from its last commit"]),
    ],
)  # fmt: skip
def test_a_busy_machine_is_seen(about: dict[str, Any], why: list[str]) -> None:
    assert disturbed(QUIET | about) == why


def test_an_aim_is_met_if_all_runs_have_met_it() -> None:
    aim = Aim("a", "b", ("files", "none", "4 KiB"), "ours", ("rival",), {"ext4": 1.5})
    assert aim.wanted() == "ext4 ≤ 1.5"
    assert aim.cell("ext4", five(RATIOS)) == "1.00 to 1.50 met"
    assert aim.cell("ext4", five([*RATIOS[:4], 1.51])) == "1.00 to 1.51 missed"
    assert aim.cell("ext4", five([1.25] * RUNS)) == "1.25 met"
    assert replace(aim, limits={}).cell("ext4", five(RATIOS)) == "1.00 to 1.50"
    assert aim.cell("xfs", five(RATIOS)) == ""
    assert replace(aim, others=("nobody",)).cell("ext4", five(RATIOS)) == ""
    faster = replace(aim, ours="rival", others=("ours",), faster=True, filesystems=("ext4",))
    assert faster.wanted() == "≥ 1.5"
    assert faster.cell("ext4", five(RATIOS)) == "1.0 to 1.5 missed"
    assert faster.cell("ext4", five([1.5, 2, 3, 4, 5])) == "1.5 to 5.0 met"


def test_an_aim_compares_with_the_fastest_rival_of_the_same_run() -> None:
    aim = Aim("a", "b", ("files", "none", "4 KiB"), "ours", ("x", "y"))
    where = ("files", "ext4", "none", "4 KiB")
    runs = [one_run(0, *case(where, ours=4, x=2, y=4)), one_run(1, *case(where, ours=4, x=4, y=1))]
    assert aim.cell("ext4", runs) == "2.00 to 4.00"


def test_every_aim_is_of_something_that_is_measured() -> None:
    sizes = {str(size) for size in (*REAL.sizes, REAL.large)} | {f"{REAL.large} in pieces"}
    kinds = ("new", "replaced")
    removed = {str(tree) if tree.folders else f"{tree} flat" for tree in REAL.removals}
    cloned = {f"{what}, copied and removed" for what in (*REAL.clones, f"one file, {REAL.cloned}")}
    known = {
        "files": (sizes, {way.name for way in FILES}),
        "groups": ({f"{REAL.group} {kind}" for kind in kinds}, {way.name for way in GROUPS}),
        "folders": ({f"{tree} {kind}" for tree in REAL.folders for kind in kinds}, {way.name for way in FOLDERS}),
        "removals": (removed, {way.name for way in REMOVALS}),
        "growth": ({"atomik.folder, each file"}, {str(tree) for tree in REAL.growth}),
        "snapshots": ({"opened and closed"}, {"atomik.snapshot"}),
        "clones": (cloned, {"update"}),
        "commits": ({f"over {tree}" for tree in REAL.displaced}, {"inline", "background"}),
    }  # fmt: skip
    rivals = {BARE, BARE_LINKED, BARE_ONE, BARE_SYNCFS, BARE_WALK, OPENED, PLAIN, UNSYNCED, "cp -a"}
    for aim in AIMS:
        name, _, what = aim.where
        cases, contestants = known[name]
        assert set(aim.limits) <= set(aim.filesystems) <= set(ALL), aim
        assert what in cases, aim
        assert aim.ours in contestants, aim
        assert set(aim.others) <= contestants | rivals | set(FLUSHES.values()), aim


def test_the_page_is_written_from_a_series() -> None:
    where, flush = ("files", "ext4", "full", "4 KiB"), FLUSHES["fdatasync"]

    def figures(time: float) -> Iterator[Row]:
        return rows(where, {UNSYNCED: [1e-5], flush: [5e-4], "atomik.file": [time]}, flush)

    times = (6e-4, 7e-4, 8e-4, 7e-4, 6e-4)
    runs = [one_run(number, *figures(time)) for number, time in enumerate(times)]
    before = f"# Speed\n\n{BEGIN}\n{NO_SERIES}\n{END}\n\nMore.\n"
    after = written(before, runs)
    assert written(after, runs) == after
    assert "| 4 KiB overwritten, `fdatasync` | 500.00 µs |  |  |\n" in after
    assert (
        "| `file` 4 KiB, `full` | `open`, `write`, `os.replace`, nothing synced |  | 60.00 to 80.00 |  |  |  |\n"
        in after
    )
    assert (
        "5 runs from 2026-11-30T10:00:00+00:00 to 2026-11-30T14:15:00+00:00, commit 1234567"
        in after
    )
    assert "- ext4: `ext4 rw,relatime`\n" in after
    assert after.startswith("# Speed\n\n")
    assert after.endswith(f"{END}\n\nMore.\n")
    assert NO_SERIES not in after
    assert written(after, []) == before


def test_less_than_a_series_is_neither_drawn_nor_quoted(here: Path) -> None:
    path, page, folder = here / "series.csv", here / "speed.md", here / "pictures"
    page.write_text(f"{BEGIN}\n{NO_SERIES}\n{END}\n", "utf-8")
    importable = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}

    def run(program: str, to: Path) -> subprocess.CompletedProcess[str]:
        command: list[str | Path] = [sys.executable, BENCHES / program, path, to]
        return subprocess.run(command, capture_output=True, text=True, env=importable)

    runs = five(RATIOS)
    for number, one in enumerate(runs):
        if number in (0, RUNS - 1):
            for refused in (run("page.py", page), run("picture.py", folder)):
                assert refused.returncode == 1
                assert f"5 runs must count, and {number} of {number} do" in refused.stderr
        append(path, one)
    assert not folder.exists()
    assert NO_SERIES in page.read_text("utf-8")
    assert run("page.py", page).returncode == 0
    assert "\n".join(section(runs)) in page.read_text("utf-8")


def test_the_page_shows_the_series_that_is_beside_it() -> None:
    path = DOCS / "speed" / "series.csv"
    runs = complete(path) if path.exists() else []
    page = (DOCS / "speed.md").read_text("utf-8")
    assert written(page, runs) == page
    # Without a series there is no picture, here or in the README.
    pictures = sorted((DOCS / "speed").glob("*.svg"))
    assert bool(pictures) == bool(runs)
    assert runs or "speed/" not in (ROOT / "README.md").read_text("utf-8")


# Takes the place of compare.py: each run begins an hour after the one before it, in the past.
FAKE_COMPARE = """
import json, sys
from datetime import datetime, timedelta
from pathlib import Path
from figures import Book, rows

book, facts = Path(sys.argv[sys.argv.index("--csv") + 1]), json.loads(Path(sys.argv[1]).read_text())
began = datetime.fromisoformat(facts["next"])
about = facts["about"] | {"began": str(began), "ended": str(began + timedelta(minutes=15))}
for row in rows(("files", "ext4", "none", "4 KiB"), {"rival": [1.0], "ours": [1.5]}, "rival"):
    Book(book, about).add(row)
Path(sys.argv[1]).write_text(json.dumps(facts | {"next": str(began + timedelta(hours=1))}))
"""


@pytest.fixture
def bench(here: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Calls what `make bench BENCH_RUNS=1` calls; the facts are those of the run, where they differ."""
    compare, facts = here / "compare.py", here / "facts.json"
    compare.write_text(FAKE_COMPARE)
    following = {"next": str(FIRST - timedelta(days=1))}
    (here / "docs").mkdir()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setattr(repeat, "COMPARE", compare)
    monkeypatch.setattr("machine.commit", lambda: QUIET["commit"])
    to = [str(here / "runs"), str(here / "docs")]
    monkeypatch.setattr("sys.argv", ["repeat.py", *to, "--runs=1", "--pause=0", "--", str(facts)])

    def call(**about: Any) -> int:
        known = json.loads(facts.read_text()) if facts.exists() else following
        facts.write_text(json.dumps(known | {"about": QUIET | about}))
        return repeat.main()

    return call


def test_a_series_goes_on_where_it_was_left(here: Path, bench: Callable[..., int]) -> None:
    busy = ["load at its start: 9.00, at most 1.00"]
    assert [bench(), bench(), bench(disturbed=busy), bench(), bench()] == [1] * 5
    assert os.listdir(here / "docs") == []
    assert bench() == 0
    assert sorted(os.listdir(here / "docs")) == ["series.csv", "series.json"]
    runs = series.read(here / "docs" / "series.csv")
    assert [run.about["disturbed"] for run in runs] == [[], [], busy, [], [], []]
    assert len(complete(here / "docs" / "series.csv")) == RUNS
    # Nothing is missing, so nothing is run.
    assert bench() == 0
    assert series.read(here / "docs" / "series.csv") == runs


def test_a_run_of_another_commit_is_left_out(
    here: Path, bench: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench(commit="7654321") == 1
    assert series.read(here / "runs" / QUIET["commit"] / "series.csv") == []
    monkeypatch.setattr("machine.commit", lambda: QUIET["commit"] + "+")
    (here / "facts.json").unlink()
    assert bench() == 1
    assert os.listdir(here / "runs") == [QUIET["commit"]]
