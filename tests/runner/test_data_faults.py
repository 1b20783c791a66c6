"""Between booking and release nothing that a vehicle's rows hold can stop a round, or be seen in it.

Rows are spoilt in the file itself, as a region would have them. The noise is known (a rehearsal), so the
witness block shows whether the round is the one of sound data, and the rest how far it moved.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import drives
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plan.sample import REGION
from runner.runner_kit import ARRAYS, gate_of, rehearsal
from setting import examples

from fedfsd.drive import table
from fedfsd.gate import arrays as gate_arrays
from fedfsd.plan.plan import WITNESS, Plan
from fedfsd.runner.region import LOG, RegionConfig, open_region, run_round
from fedfsd.task.forecasting.task import Forecasting

ROSTER, CLIP = 8, 0.3
TEXT = ("region", "source", "recording", "vehicle", "type")
# What a cell may hold besides what it should, by column kind; a whole column of text is a column of text.
STRANGE = {
    "text": [None, "", "\x00", "é" * 3000, b"\xff\xfe"],
    "number": [None, float("nan"), float("inf"), -float("inf"), 3e38, 1e300, "n/a", "1e999", 2**63 - 1],
    "test": [None, True, "maybe", "true"],
}


def plan() -> Plan:
    """One step on everybody and all windows: what differs between two updates is not who was drawn."""
    return rehearsal(
        roster=ROSTER,
        sample_rate=1.0,
        windows_per_vehicle=64,
        local_steps=1,
        optimizer__learning_rate=1.0,
        num_rounds=1,
    )


@pytest.fixture(scope="module")
def sound() -> pa.Table:
    rows = drives({REGION: ROSTER + 4, "EU": 2}, seed=2).rows.drop_columns(["test"])
    keys = [f"{REGION}/{number}" for number in range(ROSTER)]
    kept = pc.or_(pc.is_in(rows["vehicle"], value_set=pa.array(keys)), pc.equal(rows["region"], "EU"))
    rows = rows.filter(kept)
    return rows.append_column("test", pa.array([False] * rows.num_rows))


def released(rows: pa.Table, folder: Path) -> dict[str, np.ndarray]:
    """The update of a round on a file with these rows, whoever they are of."""
    made = plan()
    folder.mkdir()
    pq.write_table(rows.replace_schema_metadata({"fedfsd.origin": "synthetic"}), folder / "drives.parquet")
    gate_of(folder / "gate", made).ledger.close()
    config = RegionConfig(REGION, str(folder / "drives.parquet"), str(folder / "gate"), "cpu", simulated=True)
    region = open_region(config)
    content = run_round(region, ARRAYS, made, 1).content
    region.gate.ledger.close()
    return gate_arrays.view(content, made.model.arrays)


@pytest.fixture(scope="module")
def usual(sound, tmp_path_factory) -> dict[str, np.ndarray]:
    return released(sound, tmp_path_factory.mktemp("usual") / "round")


def apart(one, other) -> float:
    return float(np.sqrt(sum(np.sum((one[name] - other[name]).astype(float) ** 2) for name in one)))


def spoil(rows: pa.Table, column: str, row: int, value: object) -> pa.Table:
    """One cell changed; where its column cannot hold the value, the column becomes one of text."""
    cells = rows[column].to_pylist()
    cells[row] = value
    if isinstance(value, bytes):
        raw = pa.array([one if isinstance(one, bytes) else str(one).encode() for one in cells], pa.binary())
        made = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())
    elif isinstance(value, str) and column not in TEXT:
        made = pa.array([one if one is None else str(one) for one in cells], pa.string())
    elif isinstance(value, int | float) and not isinstance(value, bool):
        made = pa.array([None if one is None else float(one) for one in cells], pa.float64())
    else:
        made = pa.array(cells, rows[column].type)
    return rows.set_column(rows.column_names.index(column), column, made)


COLUMNS = st.sampled_from([*TEXT, *table.NUMBER_COLUMNS, "test"])


@settings(max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choose=st.data())
def test_whatever_the_rows_of_one_vehicle_hold_the_round_is_released(sound, usual, tmp_path_factory, choose):
    mine = np.flatnonzero(np.array(sound["vehicle"].to_pylist()) == f"{REGION}/3")
    rows = sound
    for column in choose.draw(st.lists(COLUMNS, min_size=1, max_size=3, unique=True)):
        kind = "text" if column in TEXT else "test" if column == "test" else "number"
        row = int(mine[choose.draw(st.integers(0, len(mine) - 1))])
        rows = spoil(rows, column, row, choose.draw(st.sampled_from(STRANGE[kind])))
    update = released(rows, tmp_path_factory.mktemp("spoilt") / "round")
    np.testing.assert_array_equal(update[WITNESS], usual[WITNESS])
    # A cell of the column vehicle can make one vehicle two, each of which may move the sum by C.
    assert apart(update, usual) <= 2 * CLIP / ROSTER * (1 + 1e-4)


def test_more_keys_than_the_roster_are_released_and_told_to_the_regions_own_people(sound, usual, tmp_path):
    more = drives({REGION: 30}, seed=5).rows.drop_columns(["test"])
    keys = [f"more/{key}" for key in more["vehicle"].to_pylist()]
    more = more.set_column(more.column_names.index("vehicle"), "vehicle", pa.array(keys))
    more = more.append_column("test", pa.array([False] * more.num_rows))
    update = released(pa.concat_tables([sound, more]), tmp_path / "round")
    np.testing.assert_array_equal(update[WITNESS], usual[WITNESS])
    said = (tmp_path / "round" / "gate" / LOG).read_text()
    assert f"38 training vehicle keys, roster {ROSTER}: 30 more than stated" in said


def test_one_vehicle_on_both_sides_of_the_split_counts_as_none(sound, usual, tmp_path):
    mine = pc.equal(sound["vehicle"], f"{REGION}/3")
    first = np.flatnonzero(mine.to_numpy(zero_copy_only=False))[0]
    both = sound.set_column(
        sound.column_names.index("test"), "test", pa.array(np.arange(sound.num_rows) == first)
    )
    update = released(both, tmp_path / "both")
    gone = released(sound.filter(pc.invert(mine)), tmp_path / "gone")
    assert all(np.array_equal(update[name], gone[name]) for name in update)
    assert 0 < apart(update, usual) <= CLIP / ROSTER * (1 + 1e-4)
    assert "1 vehicles on both sides" in (tmp_path / "both" / "gate" / LOG).read_text()


def test_a_vehicle_on_which_the_task_fails_counts_as_none(sound, usual, tmp_path, monkeypatch):
    """A task of another package may fail in any way on a value that it did not expect."""
    mine = pc.equal(sound["vehicle"], f"{REGION}/3")
    gone = released(sound.filter(pc.invert(mine)), tmp_path / "gone")
    whole = Forecasting.examples

    def fails(self, tables, *, test):
        if any(f"{REGION}/3" in one.text("vehicle") for one in tables):
            raise ZeroDivisionError(f"of {REGION}/3")
        return whole(self, tables, test=test)

    monkeypatch.setattr(Forecasting, "examples", fails)
    update = released(sound, tmp_path / "failing")
    # Its key keeps its slot, so only rounding differs.
    assert apart(update, gone) <= 1e-6
    said = (tmp_path / "failing" / "gate" / LOG).read_text()
    assert "1 vehicles that the task fails on" in said
    assert f"{REGION}/3" not in said


@pytest.mark.parametrize("left", ["no row", "no row of this region", "no window"])
def test_a_region_with_nothing_to_train_on_releases_noise_and_its_people_are_told(sound, tmp_path, left):
    rows = {
        "no row": sound.slice(0, 0),
        "no row of this region": sound.filter(pc.equal(sound["region"], "EU")),
        "no window": sound.filter(pc.less(sound["t"], 0.4)),
    }[left]
    update = released(rows, tmp_path / "round")
    assert all(np.abs(array).max() > 0 for array in update.values())
    vehicles = ROSTER if left == "no window" else 0
    said = (tmp_path / "round" / "gate" / LOG).read_text()
    assert (
        f"0 of {vehicles} training vehicles have a window: its budget would be spent on noise alone" in said
    )
