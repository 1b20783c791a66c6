"""``window.cut`` against the plain one that takes run after run: equal to the bit, whatever the rows hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from setting import examples
from slow_window import cut as slow

from fedfsd.drive import table
from fedfsd.drive.table import Table
from fedfsd.task.forecasting import window
from fedfsd.task.forecasting.window import Windows, WindowSpec

ODD = (np.nan, np.inf, -np.inf, 1e30, -0.0)
SPECS = (
    WindowSpec(),
    WindowSpec(history_seconds=0.2, future_seconds=0.3, period_seconds=0.1, min_travel_m=0.5),
    WindowSpec(history_seconds=1.0, future_seconds=1.0, period_seconds=0.7, max_gap_seconds=2.0),
    WindowSpec(history_seconds=0.01, future_seconds=0.4, period_seconds=0.3, max_step_m=4.0),
)


def drawn(draw: np.random.Generator) -> Table:
    """Rows of a few vehicles and recordings in any order: gaps, repeated times, jumps, odd cells."""
    columns: dict[str, list] = {name: [] for name in ("vehicle", "recording", "t", "x", "y", "test")}
    names = [f"v{number}" for number in draw.permutation(12)]
    for vehicle in names[: draw.integers(0, 9)]:
        for recording in draw.permutation(3)[: draw.integers(1, 4)]:
            rows = int(draw.integers(1, 60))
            steps = draw.choice([0.1, 0.5, 0.7, 0.75, 0.25], p=[0.6, 0.2, 0.1, 0.05, 0.05]) * np.ones(rows)
            steps[draw.random(rows) < 0.05] = draw.choice([0.0, 0.74, 0.76, 3.0])
            t = np.cumsum(steps * draw.choice([1.0, 1.0, draw.uniform(0.9, 1.1)])) + draw.choice(
                [0, 7.3, 1e4]
            )
            x = draw.uniform(-20, 20) * t + draw.choice([0, draw.normal()])
            y = np.sin(t) * draw.choice([0, 3, 40])
            for values in (t, x, y):
                hit = draw.random(rows) < draw.choice([0, 0, 0, 0.03])
                values[hit] = draw.choice(ODD)
            columns["vehicle"] += [vehicle] * rows
            columns["recording"] += [f"r{recording}"] * rows
            columns["test"] += [int(vehicle[1:]) % 3 == 0] * rows
            for name, values in (("t", t), ("x", x), ("y", y)):
                columns[name] += values.tolist()
    count = len(columns["t"])
    order = np.arange(count) if draw.random() < 0.5 else draw.permutation(count)
    found = {name: np.array(values)[order] for name, values in columns.items()}
    found = {
        name: values.astype(str) if name in ("vehicle", "recording") else values
        for name, values in found.items()
    }
    found["test"] = found["test"].astype(bool)
    for name in table.TEXT_COLUMNS:
        found.setdefault(name, np.full(count, "k"))
    for name in table.NUMBER_COLUMNS:
        found.setdefault(name, np.zeros(count))
    return table.of_rows(found, licence="CC0-1.0", identity="physical", origin="synthetic")


def same(found: Windows, expected: Windows) -> None:
    assert found.vehicles == expected.vehicles
    assert found.points.tobytes() == expected.points.tobytes()
    assert found.points.shape == expected.points.shape
    assert found.owner.tolist() == expected.owner.tolist()
    assert list(found.dropped) == list(expected.dropped), "what was met first comes first"
    for what, count in expected.dropped.items():
        assert found.dropped[what].tolist() == count.tolist(), what


@settings(deadline=None, max_examples=examples(80))
@given(
    st.integers(0, 2**32), st.sampled_from(SPECS), st.booleans(), st.integers(1, 3), st.sampled_from([1, 64])
)
def test_every_bit_is_that_of_run_after_run(seed, spec, test, tables, part):
    draw = np.random.default_rng(seed)
    given = [drawn(draw) for _ in range(tables)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window, "_PART", part)  # rows at a time: nothing may depend on it
        found = window.cut(given, spec, test=test)
    same(found, slow(given, spec, test=test))
    same(window.cut(given, spec, test=test), found)
