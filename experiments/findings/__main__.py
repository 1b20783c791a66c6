"""``python -m experiments.findings``: draw the pictures of ``docs/data`` anew."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from experiments.findings.drawing import PICTURES, draw

PAGES = Path(__file__).parents[2] / "docs" / "data"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write an SVG a finding."""
    parser = argparse.ArgumentParser(prog="python -m experiments.findings", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=PAGES, metavar="DIR")
    given = parser.parse_args(arguments)
    given.output.mkdir(parents=True, exist_ok=True)
    for name in PICTURES:
        (given.output / f"{name}.svg").write_text(draw(name), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
