"""The pictures of docs/speed/: ratios, one bar for each contestant.

A bar ends at the lowest ratio of all runs, and its pale part at the highest.
The same figures make the same bytes. The pictures have no background: they are read on light pages and on dark ones.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from ground import shown
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from place import FLUSHES
from series import Run, between

INK: Final = "#7d8590"
"""A grey that is read on white and on black."""
OTHERS: Final = "#9aa4af"
OURS: Final = "#2f81f7"
BARE: Final = "#b0853a"
WIDTH: Final = 10.0
BAR: Final = 0.21
GAP: Final = 0.36
LINE: Final = 0.15
"""Inches: of each bar, between panels, and of a line of the note."""
FAR: Final = 8.0
"""Ratios beyond are cut off: the number beside the bar says how far they go."""


@dataclass(frozen=True)
class Picture:
    """One file: rows of panels, one for each case, with a column for each filesystem."""

    name: str
    title: str
    section: str
    durability: str


PICTURES: Final = (
    Picture("file-none", "Replacing a file, nothing synced", "files", "none"),
    Picture("file-full", "Replacing a file, content and folder synced", "files", "full"),
    Picture("group", "Publishing many files, all synced", "groups", "full"),
    Picture("folder", "Publishing a folder, all synced", "folders", "full"),
    Picture("removal", "Removing a folder", "removals", "none"),
)
STYLE: Final[Mapping[str, Any]] = {
    "svg.hashsalt": "atomik",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 8,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.bottom": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "ytick.left": False,
}


@dataclass(frozen=True)
class Bar:
    """The figures of one contestant in one case on one filesystem, from all runs."""

    case: str
    filesystem: str
    contestant: str
    reference: str
    ratios: tuple[float, ...]
    times: tuple[float, ...]
    """One median of each run."""


def bars(picture: Picture, runs: Sequence[Run]) -> list[Bar]:
    """Gathers what a picture shows, in the order of the last run; the disk's own calls stand in a table."""
    found: dict[tuple[str, str, str, str], tuple[list[float], list[float]]] = {}
    for run in reversed(runs):
        for row in run.rows:
            shows = (row.section, row.durability) == (picture.section, picture.durability)
            if shows and row.contestant not in FLUSHES.values():
                place = (row.case, row.filesystem, row.contestant, row.reference)
                ratios, times = found.setdefault(place, ([], []))
                ratios.append(row.ratio)
                times.append(row.median)
    return [Bar(*place, tuple(ratios), tuple(times)) for place, (ratios, times) in found.items()]


def unique(words: Sequence[str]) -> list[str]:
    """Drops what has been there before."""
    return list(dict.fromkeys(words))


def colour(contestant: str) -> str:
    """Returns a colour for this library, one for the bare calls and one for all others."""
    if contestant.startswith("atomik"):
        return OURS
    return BARE if contestant.startswith("bare") else OTHERS


def short(time: float) -> str:
    """Returns a time in three digits, which a narrow panel has room for."""
    number, unit = shown(time).split()
    return f"{float(number):.3g} {unit}"


def panel(axes: Axes, found: Mapping[str, Bar], contestants: Sequence[str]) -> None:
    """Draws the bars of one case on one filesystem; the reference says its time, too."""
    for place, contestant in enumerate(contestants):
        if bar := found.get(contestant):
            lowest, highest = (min(end, FAR) for end in (min(bar.ratios), max(bar.ratios)))
            axes.barh(place, highest, height=0.7, color=colour(contestant), alpha=0.4, linewidth=0)
            axes.barh(place, lowest, height=0.7, color=colour(contestant), linewidth=0)
            said = between(bar.ratios, "{:.2f}".format) + (" →" if max(bar.ratios) > FAR else "")
            if contestant == bar.reference:
                said = f"1 = {between(bar.times, short)}"
            beside = (max(highest, 1), place)
            axes.annotate(said, beside, (3, 0), textcoords="offset points", va="center", fontsize=7)
    axes.axvline(1, color=INK, linewidth=0.8, linestyle=(0, (2, 2)))
    furthest = max((min(max(bar.ratios), FAR) for bar in found.values()), default=1)
    axes.set_xlim(0, max(1.2, furthest) * 1.85)
    axes.set_ylim(len(contestants) - 0.4, -0.6)
    axes.set_xticks([])


def draw(picture: Picture, rows: Sequence[Bar], runs: Sequence[Run]) -> Figure:
    """Draws one picture; all heights are in inches."""
    cases = unique([row.case for row in rows])
    filesystems = unique([row.filesystem for row in rows])
    members = {case: unique([row.contestant for row in rows if row.case == case]) for case in cases}
    heights = [BAR * len(members[case]) for case in cases]
    note = textwrap.wrap(described(runs), 180)
    top, bottom = 0.66, 0.2 + LINE * len(note)
    height = top + sum(heights) + GAP * (len(cases) - 1) + bottom
    figure = Figure(figsize=(WIDTH, height))
    grid = figure.add_gridspec(
        len(cases),
        len(filesystems),
        height_ratios=heights,
        left=0.165,
        right=0.995,
        top=1 - top / height,
        bottom=bottom / height,
        wspace=0.04,
        hspace=GAP / (sum(heights) / len(heights)),
    )
    for down, case in enumerate(cases):
        for across, filesystem in enumerate(filesystems):
            axes = figure.add_subplot(grid[down, across])
            where = (case, filesystem)
            found = {row.contestant: row for row in rows if (row.case, row.filesystem) == where}
            panel(axes, found, members[case])
            axes.set_title(filesystem, fontsize=8, loc="left", pad=3)
            axes.set_yticks(range(len(members[case])), members[case] if across == 0 else [])
            for label in axes.get_yticklabels():
                label.set_color(OURS if label.get_text().startswith("atomik") else INK)
            if across == 0:
                axes.annotate(
                    case, (0, 1), (-4, 3), xycoords="axes fraction", textcoords="offset points",
                    ha="right", weight="bold",
                )  # fmt: skip
    references = " or ".join(unique([row.reference for row in rows]))
    line = 1 - 0.2 / height
    figure.text(0.01, line, picture.title, fontsize=11, weight="bold", va="center")
    told = f"medians, lowest to highest of {len(runs)} runs, as a multiple of: {references}; less is faster"
    figure.text(0.995, line, told, ha="right", va="center")
    for number, text in enumerate(reversed(note)):
        figure.text(0.01, (0.08 + LINE * number) / height, text, fontsize=6.5)
    return figure


def described(runs: Sequence[Run]) -> str:
    """Returns in one line what the figures belong to."""
    machine = runs[-1].about
    return "; ".join(
        (
            f"{runs[0].about['began']} to {machine['ended']}, commit {machine['commit']}",
            f"{machine['processor']}, {machine['cores']} cores, {machine['memory']}",
            machine["kernel"],
            f"images on {machine['images'].split()[0]}: {', '.join(machine['tools'])}",
            machine["python"],
            ", ".join(machine["packages"]),
        )
    )


def draw_all(runs: Sequence[Run], folder: Path) -> Iterator[Path]:
    """Draws all pictures into a folder, and yields their paths."""
    mpl.rcParams.update(STYLE)
    for picture in PICTURES:
        path = folder / f"{picture.name}.svg"
        figure = draw(picture, bars(picture, runs), runs)
        figure.savefig(path, transparent=True, metadata={"Date": None})
        yield path
