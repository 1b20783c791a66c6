"""What a run is refused for before anything is trained, booked or written."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from conftest import drives
from hypothesis import given
from hypothesis import strategies as st
from plan.sample import spending

from fedfsd.config.experiment import Experiment
from fedfsd.drive import overlap, table
from fedfsd.drive.table import Table
from fedfsd.errors import DataError
from fedfsd.mechanism import accountant
from fedfsd.simulation.prepare import prepare
from fedfsd.simulation.preview import preview
from fedfsd.simulation.run import simulate


def experiment(path: Path, **changes) -> Experiment:
    written = {
        "name": "x",
        "data": {"path": str(path)},
        "pretraining": {"path": "none"},
        "privacy": {"noise_multiplier": 2.0, "target_delta": 1e-3, "sample_rate": 0.5},
        "training": {"num_rounds": 2, "device": "cpu"},
    }
    return Experiment.model_validate(written | changes)


def changed(one: Table, column: str, values: list) -> Table:
    rows = one.rows.set_column(one.rows.column_names.index(column), column, pa.array(values))
    return replace(one, rows=rows)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Tables of two regions."""
    made = tmp_path / "tables"
    made.mkdir()
    for number, name in enumerate(("CN", "EU")):
        table.write(drives({name: 12}, seed=number), made / f"{name}.parquet")
    return made


@pytest.mark.parametrize("mode", ["private", "rehearsal", "none"])
def test_a_region_none_of_whose_vehicles_has_a_window_is_refused(folder, tmp_path, mode):
    (one,) = table.read(folder / "EU.parquet")
    table.write(replace(one, rows=one.rows.filter(pc.less(one.rows["t"], 0.6))), folder / "EU.parquet")
    asked = experiment(folder, mode=mode)
    with pytest.raises(DataError, match=r"EU: 0 of [0-9]+ training vehicles have a window") as caught:
        simulate(asked.model_dump(), output=tmp_path / "run", ledgers=tmp_path / "ledgers")
    assert "stretches shorter than 5 s" in str(caught.value.got)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "ledgers").exists()
    with pytest.raises(DataError, match="EU: 0 of"):
        preview(asked)
    assert preview(experiment(folder, mode=mode, data={"path": str(folder), "regions": ["CN"]}))["regions"]


def test_an_empty_table_is_refused_by_name(folder, tmp_path):
    (one,) = table.read(folder / "EU.parquet")
    table.write(replace(one, rows=one.rows.slice(0, 0)), folder / "EU.parquet")
    with pytest.raises(DataError, match=r"EU\.parquet: no row"):
        prepare(experiment(folder))
    table.write(drives({"PUBLIC": 3}, seed=9), tmp_path / "public.parquet")
    public = {"path": str(folder / "EU.parquet"), "steps": 1}
    with pytest.raises(DataError, match=r"EU\.parquet: no row"):
        prepare(experiment(folder / "CN.parquet", pretraining=public))


def test_a_simulation_refuses_what_a_real_region_counts_as_none(folder):
    (one,) = table.read(folder / "EU.parquet")
    sides = [not side if row == 0 else side for row, side in enumerate(one.rows["test"].to_pylist())]
    pa.parquet.write_table(changed(one, "test", sides).rows, folder / "EU.parquet")
    with pytest.raises(DataError, match="1 vehicles on both sides"):
        prepare(experiment(folder))


def test_the_preview_says_how_many_vehicles_have_a_window_and_what_dropped_the_others(folder):
    (one,) = table.read(folder / "EU.parquet")
    stands = one.text("vehicle") == one.text("vehicle")[~one.test][0]
    x = np.where(stands, 1.0, one.number("x"))
    y = np.where(stands, 1.0, one.number("y"))
    table.write(changed(changed(one, "x", list(x)), "y", list(y)), folder / "EU.parquet")
    found = preview(experiment(folder))["regions"]["EU"]
    assert found["with_window"] == found["vehicles"] - 1
    (rule,) = (rule for rule in found["dropped"] if "travel less than 3 m" in rule["what"])
    assert rule["vehicles"] == 1
    assert rule["count"] >= 1


COPIES = {
    "the same file": lambda one: one,
    "one key": lambda one: changed(
        drives_elsewhere(),
        "vehicle",
        [one.text("vehicle")[0] if key == "P/0" else key for key in drives_elsewhere().text("vehicle")],
    ),
    "the same rows under other keys": lambda one: changed(
        changed(
            changed(one, "vehicle", [f"new/{key}" for key in one.text("vehicle")]),
            "region",
            ["P"] * len(one.test),
        ),
        "recording",
        ["else"] * len(one.test),
    ),
    "one row": lambda one: replace(
        drives_elsewhere(),
        rows=pa.concat_tables(
            [
                drives_elsewhere().rows,
                changed(replace(one, rows=one.rows.slice(3, 1)), "vehicle", ["P/0"])
                .rows.drop_columns(["test"])
                .append_column("test", pa.array([bool(drives_elsewhere().test[0])])),
            ]
        ),
    ),
}


def drives_elsewhere() -> Table:
    return drives({"P": 4}, seed=11)


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("origin", ["published", "synthetic"])
def test_private_data_as_a_public_start_are_refused(folder, tmp_path, copy, origin):
    (one,) = table.read(folder / "EU.parquet")
    public = tmp_path / "public.parquet"
    table.write(replace(COPIES[copy](one), origin=origin), public)
    asked = experiment(folder, pretraining={"path": str(public), "steps": 1})
    for ask in (prepare, preview):
        with pytest.raises(DataError, match=r"pretraining\.path: got .* that data\.path has too"):
            ask(asked)
    assert prepare(experiment(folder, pretraining={"path": str(public), "steps": 0})).plan
    # Of a region that takes no part nothing is private here.
    alone = {"path": str(folder), "regions": ["CN"]}
    assert prepare(experiment(folder, data=alone, pretraining={"path": str(public), "steps": 1})).plan


def test_other_vehicles_are_a_public_start(folder, tmp_path):
    table.write(drives_elsewhere(), tmp_path / "public.parquet")
    asked = experiment(folder, pretraining={"path": str(tmp_path / "public.parquet"), "steps": 1})
    assert prepare(asked).plan


CELL = st.sampled_from([0.0, -0.0, 1.0, 2.0, float("nan"), None])


@given(
    mine=st.lists(st.tuples(CELL, st.sampled_from(["a", "b", None])), max_size=6),
    theirs=st.lists(st.tuples(CELL, st.sampled_from(["a", "b", None])), max_size=6),
)
def test_rows_are_shared_exactly_where_they_hold_the_same(mine, theirs):
    def of(rows: list, key: str) -> Table:
        schema = {
            "region": pa.string(),
            "vehicle": pa.string(),
            "test": pa.bool_(),
            "v": pa.float64(),
            "w": pa.string(),
        }
        columns = [
            [key] * len(rows),
            [key] * len(rows),
            [False] * len(rows),
            *([row[i] for row in rows] for i in (0, 1)),
        ]
        made = {
            name: pa.array(values, kind) for (name, kind), values in zip(schema.items(), columns, strict=True)
        }
        return Table(pa.table(made), "x", "physical", "published")

    def plain(row: tuple) -> tuple:
        number = float("nan") if row[0] is None else row[0] + 0.0
        return repr(number), row[1]

    slow = sum(any(plain(row) == plain(other) for other in theirs) for row in mine)
    assert overlap._shared([of(mine, "m")], [of(theirs, "t")]) == (0, slow)


def test_vehicles_in_two_regions_are_counted_and_their_losses_composed(folder):
    (cn,), (eu,) = (table.read(folder / f"{name}.parquet") for name in ("CN", "EU"))
    shared = sorted(set(cn.text("vehicle")[~cn.test]))[:2]
    moved = replace(cn, rows=cn.rows.filter(pc.is_in(cn.rows["vehicle"], value_set=pa.array(shared))))
    moved = changed(moved, "region", ["EU"] * moved.rows.num_rows)
    table.write(replace(eu, rows=pa.concat_tables([eu.rows, moved.rows])), folder / "EU.parquet")
    prepared = prepare(experiment(folder))
    plan, crossing = prepared.plan, prepared.crossing
    assert (crossing.vehicles, crossing.regions) == (2, ("CN", "EU"))
    assert crossing.epsilon == accountant.epsilon_pld([*plan.events("CN"), *plan.events("EU")], 1e-3)
    assert crossing.epsilon > max(mine.epsilon for mine in plan.regions.values())
    said = preview(experiment(folder))
    assert said["crossing"]["vehicles"] == 2
    assert "2 vehicle keys are in several regions" in said["statement"]
    assert "as the regions declare" not in said["statement"]
    assert preview(experiment(folder, mode="none"))["crossing"] is None


def test_many_sets_of_regions_that_share_vehicles_are_taken_as_one():
    from fedfsd.simulation import prepare as module

    names = [f"R{number}" for number in range(10)]
    made = spending(*names, noise=4.0, region={"epsilon": 1.0})
    pairs = dict.fromkeys(pairwise(names), 1)
    worst = module._crossing(made, pairs)
    assert worst.regions == tuple(sorted(names))
    assert worst.vehicles == len(pairs)
    assert module._crossing(made, {}) is None
    few = module._crossing(made, {("R0", "R1"): 3, ("R0", "R1", "R2"): 1})
    assert (few.vehicles, few.regions) == (4, ("R0", "R1", "R2"))
