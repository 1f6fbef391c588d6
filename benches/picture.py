"""Draws the pictures of docs/speed/ from a series of runs.

    python benches/picture.py SERIES.csv FOLDER

Refuses a series that is too short (series.py says what it takes).
"""

import argparse
import sys
from pathlib import Path

import series


def main() -> int:
    """Draws all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("series", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    try:
        runs = series.complete(options.series)
    except series.Refused as refused:
        print(refused, file=sys.stderr)
        return 1
    from drawing import draw_all  # noqa: PLC0415 - matplotlib is there in the benchmark's environment only

    options.folder.mkdir(parents=True, exist_ok=True)
    for path in draw_all(runs, options.folder):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
