"""The tables in the package: what they promise, and that they are what the generator makes."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest

from fedfsd.drive import embedded
from fedfsd.drive.table import in_region
from fedfsd.drive.traffic import generate
from fedfsd.errors import DataError
from fedfsd.task.forecasting.window import WindowSpec, agent_frame, cut

REGIONS = [(name, region) for name, recipe in embedded.RECIPES.items() for region in recipe.regions]


@pytest.fixture(scope="module")
def tables():
    return {name: embedded.load(name) for name in embedded.RECIPES}


def test_sizes(tables):
    kept = [files(embedded) / f"{name}.parquet" for name in embedded.RECIPES]
    assert sum(len(path.read_bytes()) for path in kept) <= 4_000_000
    for name, recipe in embedded.RECIPES.items():
        (table,) = tables[name]
        assert table.regions == tuple(sorted(recipe.regions))
        assert recipe.vehicles >= 500
        for region in recipe.regions:
            (part,) = in_region([table], region)
            assert len(set(part.text("vehicle"))) == recipe.vehicles


def test_nobody_is_in_both(tables):
    keys = [set(tables[name][0].text("vehicle")) for name in ("traffic", "public")]
    assert not keys[0] & keys[1]


def test_an_unknown_table_is_refused():
    with pytest.raises(DataError, match="no such table"):
        embedded.load("nope")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "region"), REGIONS)
def test_the_generator_makes_what_is_committed(tables, name, region):
    """The first vehicles of each region, made again. One mm: another processor may round otherwise."""
    pytest.importorskip("highway_env", reason="the generate extra is not installed")
    (committed,) = in_region(tables[name], region)
    again = generate([region], vehicles=12, seed=embedded.RECIPES[name].seed)
    for column in again.rows.column_names:
        told = committed.rows[column].slice(0, again.rows.num_rows).to_numpy()
        made = again.rows[column].to_numpy()
        if made.dtype.kind == "f":
            assert np.abs(told - made).max() <= 0.0011, column
        else:
            assert (told == made).all(), column


@pytest.mark.parametrize(("name", "region"), REGIONS)
def test_there_is_something_to_learn(tables, name, region):
    """A straight-line fit of training vehicles already beats constant velocity by a tenth."""
    spec = WindowSpec()
    parts = in_region(tables[name], region)
    train, test = (cut(parts, spec, test=side) for side in (False, True))
    assert len(train) > 3000
    assert len(test) > 1000
    history, future = agent_frame(train.points, spec.history)
    seen, truth = agent_frame(test.points, spec.history)
    inputs = _inputs(history)
    weights = np.linalg.solve(inputs.T @ inputs + np.eye(inputs.shape[1]), inputs.T @ future[:, -1])
    constant = seen[:, -1] + spec.future * (seen[:, -1] - seen[:, -2])
    error = np.linalg.norm(constant - truth[:, -1], axis=1).mean()
    fitted = np.linalg.norm(_inputs(seen) @ weights - truth[:, -1], axis=1).mean()
    assert 2.0 < error < 8.0
    assert fitted < 0.9 * error


def _inputs(history: np.ndarray) -> np.ndarray:
    steps = np.diff(history, axis=1)
    return np.column_stack([np.ones(len(steps)), steps.reshape(len(steps), -1)])
