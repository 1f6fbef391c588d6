"""What is timed: files, groups, folders, removals, memory and growth, each sample checked for what it has left."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from contestants import FILES, FOLDERS, GROUPS, RECIPES, REMOVALS, Durability
from figures import Row, rows
from ground import Child, Samples, in_turns, run, settle
from place import (
    BARE,
    BARE_LINKED,
    BARE_ONE,
    BARE_SYNCFS,
    BARE_WALK,
    FLUSHES,
    JOURNALS,
    PLAIN,
    UNSYNCED,
    Place,
    check_file,
    check_names,
    check_tree,
)
from scale import SMALL, Size, Tree

DURABILITIES: Final[tuple[Durability, ...]] = ("none", "file", "full")
PIECE: Final = 1 << 20
FEW: Final = 3
"""So many rounds need no other to warm up: their samples take seconds."""

# --- Files ---


def files(place: Place) -> Iterator[Row]:
    """Times the replacement of one file, again and again."""
    for size in place.scale.sizes:
        for durability in DURABILITIES:
            yield from file_case(place, size, durability)
    for durability in ("none", "full"):
        yield from file_case(place, place.scale.large, durability)
    yield from file_case(place, place.scale.large, "none", pieces=True)


def file_case(
    place: Place, size: Size, durability: Durability, *, pieces: bool = False
) -> Iterator[Row]:
    """Times one size, whole or in pieces."""
    folder = place.new()
    path, repeats = folder / "file", size.unsynced if durability == "none" else size.synced
    piece = PIECE if pieces else max(1, size.bytes)

    def flush(how: str) -> Samples:
        settle(folder)
        words = ("flush", how, folder / "flushed", size.bytes, repeats, place.seed())
        took = place.bare.seconds(*words)
        (folder / "flushed").unlink()
        return {FLUSHES[how]: [took]}

    def sample(name: str, child: Child, *words: object) -> Samples:
        seed = place.seed()
        settle(folder)
        times = () if words[0] == "plain" else (repeats,)
        took = child.seconds(*words, path, size.bytes, piece, *times, seed) / repeats
        check_names(folder, "file")
        check_file(path, size.bytes, seed)
        return {name: [took]}

    ways = {BARE: partial(sample, BARE, place.bare, "file", durability)}
    if pieces:
        ways[PLAIN] = partial(sample, PLAIN, place.bare, "plain")
    if durability == "full":
        if place.filesystem in JOURNALS:
            ways[BARE_ONE] = partial(sample, BARE_ONE, place.bare, "file", "one")
        recipe = ("file", RECIPES["none"], "none")
        ways[UNSYNCED] = partial(sample, UNSYNCED, place.workers["here"], *recipe)
    for way in FILES:
        if way.durability == durability and way.home in place.workers and way.pieces >= pieces:
            child = place.workers[way.home]
            ways[way.name] = partial(sample, way.name, child, "file", way.name, durability)
    if durability != "none":
        ways |= {name: partial(flush, how) for how, name in FLUSHES.items()}
    samples = in_turns(ways, size.rounds, warm_up=size.rounds > FEW)
    case = f"{size} in pieces" if pieces else size
    yield from place.rows("files", durability, case, samples, BARE)
    run("rm", "-rf", folder)


# --- Groups ---


def groups(place: Place) -> Iterator[Row]:
    """Times the publishing of many small files, together or one by one; the other libraries only replace."""
    for durability in ("none", "full"):
        for replaces in (False, True):
            yield from group_case(place, durability, replaces=replaces)


def group_case(place: Place, durability: Durability, *, replaces: bool) -> Iterator[Row]:
    """Times many new files, or the replacement of as many."""
    group = place.scale.group

    def sample(name: str, child: Child, *words: object) -> Samples:
        folder, seed = place.new(), place.seed()
        if replaces:
            place.fill(folder, group, seed=place.seed())
        settle(folder)
        took = child.seconds(*words, folder, group.files, SMALL, seed)
        check_tree(folder, group, seed)
        run("rm", "-rf", folder)
        return {name: [took]}

    ways = {BARE: partial(sample, BARE, place.bare, "each", durability)}
    if durability == "full":
        ways[BARE_SYNCFS] = partial(sample, BARE_SYNCFS, place.bare, "batch", "named")
        if not replaces:
            ways[BARE_LINKED] = partial(sample, BARE_LINKED, place.bare, "batch", "unnamed")
        ways[FLUSHES["syncfs"]] = partial(flush_tree, place, group)
    for way in GROUPS:
        asked = way.durability == durability and (replaces or way.home == "here")
        if asked and way.home in place.workers:
            child = place.workers[way.home]
            ways[way.name] = partial(sample, way.name, child, "group", way.name, durability)
    case = f"{group} {'replaced' if replaces else 'new'}"
    rounds = group.rounds if durability == "full" else 2 * group.rounds
    samples = in_turns(ways, rounds, warm_up=rounds > FEW)
    floor = BARE_SYNCFS if durability == "full" else BARE
    yield from place.rows("groups", durability, case, samples, floor)


def flush_tree(place: Place, tree: Tree) -> Samples:
    """Times the one call that writes new files to the disk."""
    folder = place.new()
    settle(folder)
    place.fill(folder, tree, place.seed())
    took = place.bare.seconds("syncfs", folder)
    run("rm", "-rf", folder)
    return {FLUSHES["syncfs"]: [took]}


# --- Folders ---

Publisher = Callable[[Tree, Path, int], float]
"""Makes a folder `folder` of a tree below a path, filled with a seed; says how long all but the filling took."""


def by_bare(place: Place, how: str) -> Publisher:
    """Publishes by the bare system calls."""

    def do(tree: Tree, parent: Path, seed: int) -> float:
        staging = parent / "staging"
        place.fill(staging, tree, seed)
        return place.bare.seconds("publish", how, staging, parent / "folder")

    return do


def by_worker(place: Place, child: Child, name: str, durability: str) -> Publisher:
    """Publishes by a library: all that it does before and after the filling counts."""

    def do(tree: Tree, parent: Path, seed: int) -> float:
        begun, staging = child.ask("begin", name, durability, parent / "folder")
        place.fill(staging, tree, seed)
        return int(begun) / 1e9 + child.seconds("commit")

    return do


def publish(place: Place, tree: Tree, do: Publisher, *, replaces: bool = False) -> float:
    """Has a folder published, checks it and removes it."""
    parent, seed = place.new(), place.seed()
    if replaces:
        place.fill(parent / "folder", tree, place.seed())
    settle(parent)
    took = do(tree, parent, seed)
    check_names(parent, "folder")
    check_tree(parent / "folder", tree, seed)
    run("rm", "-rf", parent)
    return took


def publishers(place: Place, durability: str, *, walks: bool = True) -> dict[str, Publisher]:
    """Returns the ways to publish folders; the ways that sync each file may be left out."""
    bare = {BARE: "none"} if durability == "none" else {BARE_SYNCFS: "syncfs", BARE_WALK: "walk"}
    found: dict[str, Publisher] = {}
    for name, how in bare.items():
        found[name] = by_bare(place, how)
    for way in FOLDERS:
        if way.durability == durability and way.home in place.workers:
            found[way.name] = by_worker(place, place.workers[way.home], way.name, durability)
    return {name: do for name, do in found.items() if walks or "fsync" not in name}


def folders(place: Place) -> Iterator[Row]:
    """Times the publishing of folders that have been filled, new ones and replaced ones."""
    for tree in place.scale.folders:
        if tree.files > place.scale.patience:
            # What the publish alone takes, and the removal of the old version, other sections tell.
            yield from folder_case(place, tree, "full", replaces=False)
            continue
        for durability in ("none", "full"):
            for replaces in (False, True):
                yield from folder_case(place, tree, durability, replaces=replaces)


def folder_case(place: Place, tree: Tree, durability: str, *, replaces: bool) -> Iterator[Row]:
    """Times a folder of one size."""

    def sample(name: str, do: Publisher) -> Samples:
        return {name: [publish(place, tree, do, replaces=replaces)]}

    found = publishers(place, durability, walks=tree.files <= place.scale.patience)
    ways = {name: partial(sample, name, do) for name, do in found.items()}
    if durability == "full":
        ways[FLUSHES["syncfs"]] = partial(flush_tree, place, tree)
    samples = in_turns(ways, tree.rounds, warm_up=tree.rounds > FEW)
    case = f"{tree} replaced" if replaces else f"{tree} new"
    yield from place.rows("folders", durability, case, samples, next(iter(found)))


# --- Removals ---


def removals(place: Place) -> Iterator[Row]:
    """Times the removal of folders, which atomik does when it has displaced them."""

    def sample(name: str, child: Child, tree: Tree) -> Samples:
        parent = place.new()
        place.fill(parent / "folder", tree, place.seed())
        settle(parent)
        took = child.seconds("remove", name, parent / "folder")
        check_names(parent)
        parent.rmdir()
        return {name: [took]}

    for tree in place.scale.removals:
        child = place.workers["here"]
        ways = {way.name: partial(sample, way.name, child, tree) for way in REMOVALS}
        case = str(tree) if tree.folders else f"{tree} flat"
        samples = in_turns(ways, tree.rounds, warm_up=tree.rounds > FEW)
        yield from place.rows("removals", "none", case, samples, REMOVALS[0].name)


# --- What grows with the number of files ---


def memory(place: Place) -> Iterator[Row]:
    """Measures how much more is resident at most, in bytes, after the commit of a large folder than before it."""
    tree, name = place.scale.growth[-1], "atomik.folder"
    with place.start() as child:
        do = by_worker(place, child, name, "full")
        publish(place, place.scale.growth[0], do)
        before = int(child.ask("memory")[0])
        publish(place, tree, do)
        grown = float(int(child.ask("memory")[1]) - before)
    where = ("memory", place.filesystem, "full", str(tree))
    yield from rows(where, {name: [grown]}, name, "B")


def growth(place: Place) -> Iterator[Row]:
    """Times a file's share of a commit, and the publish itself, for ever larger folders."""
    trees = place.scale.growth

    def sample(do: Publisher, tree: Tree, share: int) -> Samples:
        return {str(tree): [publish(place, tree, do) / share]}

    for durability, what in (("full", "each file"), ("none", "the publish")):
        do = by_worker(place, place.workers["here"], "atomik.folder", durability)
        ways = {
            str(tree): partial(sample, do, tree, tree.files if durability == "full" else 1)
            for tree in trees
        }
        samples = in_turns(ways, trees[0].rounds, warm_up=False)
        case = f"atomik.folder, {what}"
        yield from place.rows("growth", durability, case, samples, str(trees[0]))
