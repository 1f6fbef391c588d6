"""Draws the pictures of docs/speed/ from the figures of compare.py: ratios, one bar for each contestant.

    python benches/picture.py FIGURES.csv FOLDER

The same figures make the same bytes. The pictures have no background: they are read on light pages and on dark ones.
"""

import argparse
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from figures import Row, read
from ground import shown
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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


def unique(words: Sequence[str]) -> list[str]:
    """Drops what has been there before."""
    return list(dict.fromkeys(words))


def colour(contestant: str) -> str:
    """Tells this library from the others, and what is measured against from both."""
    if contestant.startswith("atomik"):
        return OURS
    return BARE if contestant.startswith("bare") else OTHERS


def panel(axes: Axes, found: Mapping[str, Row], contestants: Sequence[str]) -> None:
    """Draws the bars of one case on one filesystem; the reference says its time, too."""
    for place, contestant in enumerate(contestants):
        if row := found.get(contestant):
            length = min(row.ratio, FAR)
            axes.barh(place, length, height=0.7, color=colour(contestant))
            said = f"{row.ratio:.2f}" + (" →" if row.ratio > FAR else "")
            if contestant == row.reference:
                said = f"1 = {shown(row.median).strip()}"
            beside = (max(length, 1), place)
            axes.annotate(said, beside, (3, 0), textcoords="offset points", va="center", fontsize=7)
    axes.axvline(1, color=INK, linewidth=0.8, linestyle=(0, (2, 2)))
    furthest = max((min(row.ratio, FAR) for row in found.values()), default=1)
    axes.set_xlim(0, max(1.2, furthest) * 1.45)
    axes.set_ylim(len(contestants) - 0.4, -0.6)
    axes.set_xticks([])


def draw(picture: Picture, rows: Sequence[Row], machine: Mapping[str, Any]) -> Figure:
    """Draws one picture; all heights are in inches."""
    cases = unique([row.case for row in rows])
    filesystems = unique([row.filesystem for row in rows])
    members = {case: unique([row.contestant for row in rows if row.case == case]) for case in cases}
    bars = [BAR * len(members[case]) for case in cases]
    note = textwrap.wrap(described(machine), 180)
    top, bottom = 0.66, 0.2 + LINE * len(note)
    height = top + sum(bars) + GAP * (len(cases) - 1) + bottom
    figure = Figure(figsize=(WIDTH, height))
    grid = figure.add_gridspec(
        len(cases),
        len(filesystems),
        height_ratios=bars,
        left=0.165,
        right=0.995,
        top=1 - top / height,
        bottom=bottom / height,
        wspace=0.04,
        hspace=GAP / (sum(bars) / len(bars)),
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
    told = f"median, as a multiple of: {references}; less is faster"
    figure.text(0.995, line, told, ha="right", va="center")
    for number, text in enumerate(reversed(note)):
        figure.text(0.01, (0.08 + LINE * number) / height, text, fontsize=6.5)
    return figure


def described(machine: Mapping[str, Any]) -> str:
    """Says in one line what the figures belong to."""
    packages = ", ".join(machine["packages"])
    tools = ", ".join(machine["tools"])
    parts = [
        machine["date"],
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory']}",
        machine["kernel"],
        f"images on {machine['images']}: {tools}",
        machine["python"],
        packages,
    ]
    return "; ".join([*parts, "A TRY WITH TINY SIZES, NO FIGURES"] if machine["quick"] else parts)


def main() -> int:
    """Draws all pictures that there are figures for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    rows, machine = read(options.figures)
    options.folder.mkdir(parents=True, exist_ok=True)
    mpl.rcParams.update(STYLE)
    for picture in PICTURES:
        shows = (picture.section, picture.durability)
        if mine := [row for row in rows if (row.section, row.durability) == shows]:
            path = options.folder / f"{picture.name}.svg"
            draw(picture, mine, machine).savefig(path, transparent=True, metadata={"Date": None})
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
