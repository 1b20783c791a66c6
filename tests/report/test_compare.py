"""Runs beside one another, and the bill for all of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lights import Lights, write_lights
from test_report import REGIONS, write_run

from fedfsd.errors import NotReadyError, UsageError
from fedfsd.gate.policy import OWN_TASKS
from fedfsd.mechanism.accountant import epsilon_pld
from fedfsd.mechanism.event import Event
from fedfsd.report.compare import compare

GOLDEN = Path(__file__).parents[1] / "evolution" / "release_0_1_0" / "simulation"


@pytest.fixture
def sweep(tmp_path: Path) -> list[Path]:
    """Two settings, two seeds each, as a sweep would leave them."""
    return [
        write_run(
            tmp_path / f"{target}-{seed}",
            name=f"run-{seed}",
            seed=seed,
            sigma=sigma,
            epsilon=target,
            shift_m=shift + 0.1 * seed,
            privacy={"target_epsilon": target},
        )
        for target, sigma, shift in ((8.0, 2.8, 0.0), (2.0, 9.0, 0.2))
        for seed in (1, 2)
    ]


def test_runs_that_differ_only_in_seed_are_one_setting(sweep: list[Path]) -> None:
    found = compare(sweep, None)
    assert [one["changed"] for one in found["settings"]] == [
        {"privacy.target_epsilon": 8.0},
        {"privacy.target_epsilon": 2.0},
    ]
    first = found["settings"][0]
    assert first["seeds"] == [1, 2]
    assert first["regions"]["CN"]["fde_m"] == pytest.approx(REGIONS["CN"][3] + 0.15)
    assert first["regions"]["CN"]["fde_m_sd"] == pytest.approx(0.1 / 2**0.5)  # sample deviation of x, x + 0.1
    assert first["pooled"]["fde_m_sd"] == pytest.approx(0.1 / 2**0.5)
    assert len(found["runs"]) == 4


def test_a_single_run_has_no_deviation(sweep: list[Path]) -> None:
    assert compare(sweep[:1], None)["settings"][0]["pooled"]["fde_m_sd"] is None


def test_the_bill_composes_all_runs(sweep: list[Path]) -> None:
    bill = compare(sweep, None)["cost"]
    together = epsilon_pld([Event(0.5, 2.8, 80), Event(0.5, 9.0, 80)], 1e-4)
    assert bill["regions"]["CN"]["epsilon_search"] == pytest.approx(together)
    assert bill["joint"] == pytest.approx(together)
    assert bill["regions"]["CN"]["epsilon_adaptive"] > together
    assert together > compare(sweep[:2], None)["cost"]["joint"]


def test_the_same_folder_twice_is_one_run(sweep: list[Path]) -> None:
    again = sweep[0].parent / "." / sweep[0].name
    assert compare([sweep[0], again], None)["cost"] == compare(sweep[:1], None)["cost"]


def test_an_incomplete_run_is_billed_but_not_averaged(sweep: list[Path], tmp_path: Path) -> None:
    broken = write_run(
        tmp_path / "broken", complete=False, seed=3, epsilon=8.0, privacy={"target_epsilon": 8.0}
    )
    found = compare([*sweep[:2], broken], None)
    (setting,) = found["settings"]
    assert (setting["runs"], setting["incomplete"]) == (2, 1)
    assert found["cost"]["regions"]["EU"]["runs"] == 3
    assert found["cost"]["joint"] == pytest.approx(epsilon_pld([Event(0.5, 2.8, 120)], 1e-4))


@pytest.mark.parametrize("mode", ["none", "rehearsal"])
def test_one_run_without_protection_costs_everything(sweep: list[Path], tmp_path: Path, mode: str) -> None:
    bare = write_run(tmp_path / "bare", mode=mode)
    bill = compare([*sweep[:2], bare], None)["cost"]
    assert bill["joint"] is None
    assert bill["regions"]["CN"]["epsilon_search"] is None
    assert bill["regions"]["CN"]["epsilon_adaptive"] is None
    assert bill["regions"]["CN"]["unprotected_runs"] == 1
    assert bill["regions"]["CN"]["epsilon_private_runs"] == compare(sweep[:2], None)["cost"]["joint"]


def test_writes_table_and_picture(sweep: list[Path], tmp_path: Path) -> None:
    bare = write_run(tmp_path / "bare", mode="none", name="bare")
    output = tmp_path / "compared"
    found = compare([*sweep, bare], output)
    assert json.loads((output / "compare.json").read_text()) == found
    page = (output / "compare.md").read_text()
    assert "5.08 m ± 0.07" in page  # CN at epsilon 8: 4.93 m + 0.15 m
    assert "infinite, not private" in page
    assert "Infinite: not private." in page
    assert not {"anonymous", "compliant"} & set(page.lower().split())
    assert (output / "compare.svg").read_text().count("constant velocity") == len(REGIONS)


def test_text_from_experiments_stays_in_its_cell(sweep: list[Path], tmp_path: Path) -> None:
    hostile = write_run(tmp_path / "hostile", data={"path": "a | b\n| <b>c</b> [d](e) &#60;"})
    output = tmp_path / "compared"
    compare([sweep[0], hostile], output)
    table = [line for line in (output / "compare.md").read_text().splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table[:4]}) == 1
    assert "<b>" not in "".join(table)
    assert "](e)" not in "".join(table)


def test_runs_on_different_data_are_refused(sweep: list[Path]) -> None:
    path = sweep[1] / "metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8"))
    metrics["regions"]["EU"]["constant_velocity_fde_m"] += 0.5
    path.write_text(json.dumps(metrics), encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        compare(sweep, None)
    assert "in EU, constant velocity reaches 6.67 m in" in str(caught.value)
    assert "7.17 m in" in str(caught.value)
    assert compare([sweep[1]], None)["settings"]


def test_no_run_and_no_folder() -> None:
    with pytest.raises(UsageError):
        compare([], None)
    with pytest.raises(NotReadyError, match="run folder"):
        compare([Path("nowhere")], None)


@pytest.fixture
def lights(monkeypatch: pytest.MonkeyPatch) -> None:
    """The made-up task is registered."""
    monkeypatch.setitem(OWN_TASKS, Lights.name, "lights:Lights")


@pytest.mark.usefixtures("lights")
def test_another_task_is_compared_by_its_own_headline(tmp_path: Path) -> None:
    runs = [write_lights(tmp_path / f"{seed}", seed=seed, worse=0.02 * seed) for seed in (1, 2)]
    found = compare(runs, tmp_path / "compared")
    assert found["task"]["headline"] == {
        "key": "accuracy",
        "name": "accuracy",
        "unit": "%",
        "lower_is_better": False,
    }
    one = found["settings"][0]["regions"]["CN"]
    assert one["accuracy"] == pytest.approx(1 - REGIONS["CN"][3] / 10 - 0.03)
    assert one["accuracy_sd"] == pytest.approx(0.02 / 2**0.5)
    assert one["the_most_frequent_state_accuracy"] == pytest.approx(1 - REGIONS["CN"][1] / 10)
    page = (tmp_path / "compared" / "compare.md").read_text()
    assert "47.7% ± 1.4%" in page
    assert "FDE" not in page
    assert "the most frequent state" in (tmp_path / "compared" / "compare.svg").read_text()


@pytest.mark.usefixtures("lights")
def test_runs_of_two_tasks_are_refused(tmp_path: Path) -> None:
    runs = [write_lights(tmp_path / "lights"), write_run(tmp_path / "paths")]
    with pytest.raises(UsageError, match=r"forecasting \(FDE\), traffic_lights \(accuracy\)"):
        compare(runs, None)


def test_a_run_of_the_first_release_is_compared_as_ever() -> None:
    found = compare([GOLDEN / "rehearsal", GOLDEN / "one_round"], None)
    written = json.loads((GOLDEN / "rehearsal" / "metrics.json").read_text())
    first = found["settings"][0]
    assert first["pooled"].keys() == {"fde_m", "fde_m_sd", "constant_velocity_fde_m", "start_fde_m"}
    assert first["pooled"]["fde_m"] == written["pooled"]["fde_m"]
    assert found["runs"][0]["regions"]["CN"].keys() == {
        "fde_m",
        "constant_velocity_fde_m",
        "start_fde_m",
        "epsilon",
        "delta",
    }
