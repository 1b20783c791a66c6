"""What a command answers: one document for ``--json``, one text for people, and the exit code."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from fedfsd.plain_text import plain

# Read by ``main.run``, before parsing: a usage error under --json is a document too.
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@dataclass(frozen=True)
class Answer:
    """``document`` has plain values; all foreign text in ``text`` went through ``plain``."""

    document: Any
    text: str
    exit_code: int = 0


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows with the same keys under these as a head; the first column to the left, others to the right.

    >>> print(table([{"region": "CN", "m": 5.123}, {"region": "EU", "m": None}]))
    region     m
    CN      5.12
    EU         -
    """
    lines = [[plain(key) for key in rows[0]], *[[_cell(value) for value in row.values()] for row in rows]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def size(number: float) -> str:
    """A number of bytes for people.

    >>> size(19_552), size(3_400_000_000)
    ('20 kB', '3.4 GB')
    """
    for unit in ("B", "kB", "MB"):
        if number < 999.5:
            return f"{number:.{0 if number >= 10 or unit == 'B' else 1}f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"


def lines(facts: dict[str, str]) -> str:
    """Label and text, one a line."""
    width = max(map(len, facts))
    return "\n".join(f"{label.ljust(width)}  {plain(text)}" for label, text in facts.items())


def warned(text: str, warnings: list[str] | tuple[str, ...]) -> str:
    """``text`` with what to mind below it."""
    return "\n".join([text, *(f"warning: {plain(one)}" for one in warnings)])


def rounded_up(epsilon: float) -> str:
    """An epsilon with two decimals, rounded against the region; the small term forgives what floats add.

    >>> rounded_up(8.0), rounded_up(6.361)
    ('8.00', '6.37')
    """
    return f"{math.ceil(100 * epsilon - 1e-6) / 100:.2f}"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) >= 0.01 else f"{value:g}"
    return plain(value)
