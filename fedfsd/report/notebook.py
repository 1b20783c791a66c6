"""A run in a notebook: progress that stays in place, tables and pictures that show themselves.

Nothing here imports IPython where it is not running already. Tables are lists of plain dicts, so that
``pandas.DataFrame(run.rounds)`` or polars take them as they are.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Protocol, SupportsIndex, overload

from fedfsd.report.page import WrittenRun, title
from fedfsd.report.words import amount, gain, gained, titled


class Rows(list[dict[str, Any]]):
    """Rows by column name; a notebook shows them as a table, also a slice of them."""

    @overload
    def __getitem__(self, at: SupportsIndex) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, at: slice) -> Rows: ...
    def __getitem__(self, at: SupportsIndex | slice) -> dict[str, Any] | Rows:
        return Rows(super().__getitem__(at)) if isinstance(at, slice) else super().__getitem__(at)

    def _repr_html_(self) -> str:
        names = list(dict.fromkeys(name for row in self for name in row))
        head = "".join(f"<th>{escape(name)}</th>" for name in names)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(_cell(row.get(name)))}</td>" for name in names) + "</tr>"
            for row in self
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


class Picture(str):
    """The text of an SVG; a notebook shows the picture."""

    __slots__ = ()

    def _repr_svg_(self) -> str:
        return str(self)


def rounds_of(lines: Sequence[Mapping[str, Any]]) -> Rows:
    """A row a round and region, from the lines of rounds.jsonl."""
    return Rows(
        {"round": line["round"], "region": name, **found}
        for line in lines
        for name, found in line["regions"].items()
    )


def regions_of(run: WrittenRun) -> Rows:
    """A row a region with all its figures that are plain values."""
    plain = (str, int, float, type(None))
    return Rows(
        {"region": name, **{key: value for key, value in one.items() if isinstance(value, plain)}}
        for name, one in run.regions.items()
    )


def summary(run: WrittenRun) -> str:
    """The run in a few lines of HTML: what it is, a row a region, where the report is."""
    headline = run.headline
    rows = Rows(
        {
            "region": name,
            titled(headline): amount(one.get(headline.key), headline.unit, bare=True),
            run.task.baseline: amount(one.get(run.baseline_key), headline.unit, bare=True),
            "better by": gained(headline, gain(headline, one.get(headline.key), one.get(run.baseline_key))),
            "epsilon": one.get("epsilon"),
            "delta": one.get("delta"),
            "vehicles": one.get("vehicles"),
        }
        for name, one in run.regions.items()
    )
    heading = f"<p><strong>{escape(run.heading)}</strong></p>" if run.heading else ""
    report = escape(str(run.folder.path / "report.html"))
    return f"{heading}<p>{escape(title(run))}</p>{rows._repr_html_()}<p>report: <code>{report}</code></p>"


class Telling(Protocol):
    """What a progress says of itself; see ``fedfsd.simulation.trail.Progress``."""

    @property
    def headline(self) -> Mapping[str, float]:
        """By region; empty where the round is not evaluated."""

    def told(self, headline: Mapping[str, float]) -> str:
        """One line for people."""


class Shown:
    """One line of a notebook's output that is written anew each round. Elsewhere: nothing."""

    def __init__(self) -> None:
        self._display: Any = None
        self._headline: Mapping[str, float] = {}
        if running():
            display: Any = importlib.import_module("IPython.display").display
            self._display = display(_Line("preparing data, model and noise"), display_id=True)

    def __call__(self, progress: Telling) -> None:
        self._headline = progress.headline or self._headline
        if self._display is not None:
            self._display.update(_Line(progress.told(self._headline)))


def running() -> bool:
    """Whether this process is a notebook's kernel."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


class _Line(str):
    """Text that a notebook shows as it is, not as a Python string."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
