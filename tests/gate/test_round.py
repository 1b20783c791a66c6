"""A whole round inside a region: what is booked, trained, released, kept and destroyed."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from books import keep_books, rounds_in
from conftest import drives
from plan.sample import REGION, planned

from fedfsd import canonical
from fedfsd.drive import table
from fedfsd.engine import randomness
from fedfsd.errors import BudgetError, ConfigError, FedfsdError, NotReadyError, RefusedError
from fedfsd.gate import arrays as gate_arrays
from fedfsd.gate.gate import witness_std
from fedfsd.gate.policy import Policy
from fedfsd.plan.plan import WITNESS, Plan
from fedfsd.runner import region as region_module
from fedfsd.runner.region import Region, RegionConfig, open_region, run_round
from fedfsd.task.forecasting.model import registry
from fedfsd.task.forecasting.window import WindowSpec


def initial() -> dict[str, np.ndarray]:
    model = registry.build("mlp", {}, WindowSpec(), seed=1)
    arrays = {name: value.detach().numpy().copy() for name, value in model.named_parameters()}
    return arrays | {WITNESS: np.zeros(4096, np.float32)}


ARRAYS = initial()
SHAPES = {name: array.shape for name, array in ARRAYS.items()}


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> dict[str, Path]:
    """The same drives, once as recorded and once as synthetic."""
    folder = tmp_path_factory.mktemp("tables")
    for origin in ("recorded", "synthetic"):
        table.write(drives({REGION: 30, "EU": 5}, origin=origin), folder / f"{origin}.parquet")
    return {origin: folder / f"{origin}.parquet" for origin in ("recorded", "synthetic")}


@pytest.fixture
def config(tables, tmp_path) -> RegionConfig:
    """A real node on recorded data."""
    policy = tmp_path / "policy.toml"
    policy.write_text('roster = 30\nidentity = "physical"\n')
    return RegionConfig(REGION, str(tables["recorded"]), str(tmp_path / "CN"), "cpu", str(policy))


def opened(config: RegionConfig, *plans: Plan) -> Region:
    """The region of ``config`` with its books, in which ``plans`` are approved."""
    usual = (planned(SHAPES), planned(SHAPES, mode="rehearsal"))
    keep_books(Path(config.folder), REGION, *(plans or usual))
    return open_region(config)


@pytest.fixture
def region(config) -> Region:
    return opened(config)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return planned(SHAPES)


def elsewhere(config: RegionConfig, name: str, **changes) -> Region:
    """The same region in another folder, so with other secrets and another record."""
    return opened(replace(config, folder=f"{config.folder}-{name}", **changes))


def update_of(released, plan: Plan) -> dict[str, np.ndarray]:
    return gate_arrays.view(released.content, plan.model.arrays)


def entries(region: Region) -> list[dict]:
    return rounds_in(Path(region.config.folder))


def key_files(region: Region) -> list[Path]:
    return sorted(region.keys.glob("*")) if region.keys.exists() else []


def test_a_private_plan_runs_from_first_to_last_round(region, plan):
    arrays, witnesses = ARRAYS, []
    for round in (1, 2, 3):
        released = run_round(region, arrays, plan, round)
        update = update_of(released, plan)
        assert released.sha256 == canonical.sha256(released.content)
        assert update[WITNESS].std() / witness_std(plan, REGION, round) == pytest.approx(1, abs=0.06)
        assert any(update[name].any() for name in update if name != WITNESS)
        witnesses.append(update[WITNESS] / update[WITNESS].std())
        assert [stat.S_IMODE(path.stat().st_mode) for path in key_files(region)] == [0o600] * (round < 3)
        arrays = {name: arrays[name] + update[name] for name in arrays}
    assert [entry["type"] for entry in entries(region)] == ["reserve", "release"] * 3
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert abs(witnesses[one] @ witnesses[other]) / 64 < 4.5


def test_the_noise_is_secret(config, plan, monkeypatch):
    """No seed, no setting and nothing in the plan gives it away: the same run elsewhere has other noise."""
    released = []
    for name in ("one", "two"):
        torch.manual_seed(0)
        np.random.seed(0)
        region = elsewhere(config, name, noise_key="11" * 32)
        released.append(update_of(run_round(region, ARRAYS, plan, 1), plan)[WITNESS])
    for secret in (None, "11" * 32):
        known = randomness.known_key(plan.hash, secret)
        monkeypatch.setattr(region_module.randomness, "run_key", lambda *_, key=known, **__: key)
        region = elsewhere(config, f"known{secret}")
        released.append(update_of(run_round(region, ARRAYS, plan, 1), plan)[WITNESS])
    standard = [witness / witness.std() for witness in released]
    for one in range(4):
        for other in range(one):
            assert abs(standard[one] @ standard[other]) / 64 < 4.5


def test_a_private_run_never_asks_for_a_known_key(region, plan, monkeypatch):
    def forbidden(*_):
        raise AssertionError("a known key in a private run")

    monkeypatch.setattr(region_module.randomness, "known_key", forbidden)
    run_round(region, ARRAYS, plan, 1)


def test_the_same_arrays_give_the_same_bytes_at_no_charge(config, region, plan):
    first = run_round(region, ARRAYS, plan, 1)
    assert run_round(region, ARRAYS, plan, 1) == first
    assert run_round(opened(config), ARRAYS, plan, 1) == first
    assert len(entries(region)) == 2


def test_other_arrays_for_a_booked_round_are_refused(region, plan):
    run_round(region, ARRAYS, plan, 1)
    other = ARRAYS | {WITNESS: ARRAYS[WITNESS] + np.float32(1e-30)}
    with pytest.raises(BudgetError):
        run_round(region, other, plan, 1)
    assert len(entries(region)) == 2


class Crash(BaseException):
    """The process ends here."""


def test_after_a_crash_before_the_release_the_same_update_is_trained_again(config, plan, monkeypatch):
    seen = []

    def crash(_, arrays, *__):
        seen.append(arrays)
        raise Crash

    region = opened(config)
    with monkeypatch.context() as patch:
        patch.setattr(type(region.gate), "release", crash)
        with pytest.raises(Crash):
            run_round(region, ARRAYS, plan, 1)
    again = update_of(run_round(opened(config), ARRAYS, plan, 1), plan)
    for name, array in seen[0].items():
        np.testing.assert_array_equal(again[name], array)
    assert len(entries(region)) == 2


def test_after_a_crash_before_the_release_other_arrays_are_refused(config, plan, monkeypatch):
    def crash(*_):
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(region_module, "_train", crash)
        with pytest.raises(Crash):
            run_round(opened(config), ARRAYS, plan, 1)
    with pytest.raises(BudgetError):
        run_round(opened(config), ARRAYS | {WITNESS: ARRAYS[WITNESS] + 1}, plan, 1)


def test_a_crash_between_last_release_and_end_does_not_keep_the_key(config, plan, monkeypatch):
    def crash(*_):
        raise Crash

    region = opened(config)
    with monkeypatch.context() as patch:
        patch.setattr(region_module.randomness, "destroy_run_key", crash)
        with pytest.raises(Crash):
            run_round(region, ARRAYS, plan, 3)
    assert key_files(region)
    run_round(opened(config), ARRAYS, plan, 3)
    assert key_files(region) == []


def test_no_round_after_the_last_makes_a_new_key(region, plan):
    run_round(region, ARRAYS, plan, 3)
    with pytest.raises(BudgetError):
        run_round(region, ARRAYS, plan, 1)
    assert key_files(region) == []


def test_a_lost_key_never_means_a_second_release(region, plan):
    """Whoever deletes the key gets the old bytes, not the same sum under other noise."""
    first = run_round(region, ARRAYS, plan, 1)
    for path in key_files(region):
        path.unlink()
    assert run_round(region, ARRAYS, plan, 1) == first


def test_refusals_come_before_data_and_booking(config, plan):
    """The table does not even exist: what is refused by constants never looks for it."""
    region = elsewhere(config, "empty", data_path="/nowhere/at/all.parquet")
    for hostile in (
        planned(SHAPES, noise_multiplier=0.0, epsilon=1.0),
        planned(SHAPES, mode="none"),
        planned(SHAPES, mode="rehearsal"),
        planned(SHAPES, roster=29),
        planned(SHAPES, roster=31),
        planned(SHAPES, identity="recording"),
    ):
        with pytest.raises(RefusedError):
            run_round(region, ARRAYS, hostile, 1)
    with pytest.raises(RefusedError):
        run_round(region, {}, plan, 1)
    with pytest.raises(RefusedError):
        run_round(region, ARRAYS, plan, 4)
    assert entries(region) == []


@pytest.mark.parametrize("mode", ["rehearsal", "none"])
def test_a_real_node_takes_private_plans_only(config, tmp_path, mode):
    with pytest.raises(RefusedError):
        run_round(opened(config), ARRAYS, planned(SHAPES, mode=mode), 1)
    assert entries(open_region(config)) == []


def test_a_policy_file_cannot_switch_privacy_off_on_a_real_node(config, tmp_path):
    policy = tmp_path / "open.toml"
    policy.write_text('roster = 30\nidentity = "physical"\nmodes = ["private", "none"]\n')
    with pytest.raises(FedfsdError):
        run_round(open_region(replace(config, policy=str(policy))), ARRAYS, planned(SHAPES, mode="none"), 1)


@pytest.mark.parametrize("text", ["", "roster = 30\n", 'identity = "physical"\n'])
def test_a_real_node_needs_its_roster_and_identity_declared(config, tmp_path, text):
    """Otherwise a coordinator finds the number of keys in the table by trying rosters."""
    policy = tmp_path / "silent.toml"
    policy.write_text(text)
    with pytest.raises((ConfigError, NotReadyError)):
        open_region(replace(config, policy=str(policy) if text else ""))


def test_a_rehearsal_is_known_and_only_on_public_tables(config, tables, plan):
    rehearsal = planned(SHAPES, mode="rehearsal")
    one, two = (
        elsewhere(config, name, simulated=True, data_path=str(tables["synthetic"])) for name in ("a", "b")
    )
    released = run_round(one, ARRAYS, rehearsal, 1)
    assert released.content == run_round(two, ARRAYS, rehearsal, 1).content
    assert not any(rehearsal.hash in path.name for path in key_files(one))
    with pytest.raises(RefusedError):
        run_round(elsewhere(config, "c", simulated=True), ARRAYS, rehearsal, 1)


def test_without_privacy_there_is_no_noise(config):
    plain = planned(SHAPES, mode="none", noise_multiplier=0.0, max_grad_norm=None)
    update = update_of(run_round(elsewhere(config, "n", simulated=True), ARRAYS, plain, 1), plain)
    assert not update[WITNESS].any()
    assert any(array.any() for array in update.values())


OTHER_SCHEMAS = {
    "transposed": lambda shapes: {name: shape[::-1] for name, shape in shapes.items()},
    "flat": lambda shapes: {name: (int(np.prod(shape)),) for name, shape in shapes.items()},
    "swapped names": lambda shapes: dict(
        zip([*list(shapes)[1::-1], *list(shapes)[2:]], shapes.values(), strict=True)
    ),
    "another order": lambda shapes: {
        name: shapes[name] for name in [*list(shapes)[1::-1], *list(shapes)[2:]]
    },
    "longer": lambda shapes: {"first": (7,)} | dict(shapes),
    "shorter": lambda shapes: dict(list(shapes.items())[1:]),
}


@pytest.mark.parametrize("what", OTHER_SCHEMAS)
def test_a_plan_for_another_model_is_refused(config, what):
    shapes = OTHER_SCHEMAS[what](SHAPES)
    plan = planned(shapes)
    region = opened(config, plan)
    with pytest.raises(RefusedError):
        run_round(region, {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, plan, 1)


def test_a_real_node_demands_a_noise_witness(region):
    shapes = {name: shape for name, shape in SHAPES.items() if name != WITNESS}
    arrays = {name: array for name, array in ARRAYS.items() if name != WITNESS}
    with pytest.raises(RefusedError):
        run_round(region, arrays, planned(shapes), 1)


def test_the_default_policy_is_for_private_plans():
    assert Policy().modes == ("private",)


def test_releases_of_a_region_without_usable_data_look_like_any_other(config, tmp_path, plan):
    """Size, schema and entry say nothing; the noise is there."""
    rows = drives({REGION: 30}, origin="recorded").rows
    empty = rows.set_column(rows.column_names.index("x"), "x", [np.full(rows.num_rows, np.nan, np.float32)])
    found = table.Table(empty, "CC0-1.0", "physical", "recorded")
    table.write(found, tmp_path / "empty.parquet")
    whole = run_round(opened(config), ARRAYS, plan, 1)
    none = run_round(elsewhere(config, "e", data_path=str(tmp_path / "empty.parquet")), ARRAYS, plan, 1)
    assert len(none.content) == len(whole.content)
    assert none.entry == whole.entry
    update = np.frombuffer(none.content, "<f4") / witness_std(plan, REGION, 1)
    assert abs(update.std() - 1) < 0.05
