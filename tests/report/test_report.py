"""The page and its pictures, from run folders written here."""

from __future__ import annotations

import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fedfsd import canvas
from fedfsd.config.experiment import Experiment
from fedfsd.errors import NotReadyError
from fedfsd.mechanism.statement import sentence
from fedfsd.plan.plan import ArraySchema, ModelPlan, OptimizerPlan, Plan, RegionPlan, TaskPlan
from fedfsd.report import figure, page
from fedfsd.report.page import read_run, title, upwards, write_report
from fedfsd.report.run_folder import Folder, create
from fedfsd.task.forecasting.task import Forecasting
from fedfsd.task.task import Metric

FORECASTING = Forecasting({})
# vehicles, constant velocity FDE, public start FDE, final FDE
REGIONS = {
    "CN": (1337, 5.39, 5.31, 4.93),
    "EU": (233, 6.67, 6.60, 6.41),
    "SG": (147, 3.84, 3.80, 3.71),
    "US": (1414, 3.51, 3.46, 3.33),
}


def experiment(**changes: Any) -> Experiment:
    """The experiment of the written runs; ``changes`` are whole tables or values."""
    return Experiment(name=changes.pop("name", "four-regions"), **changes)


def plan_of(chosen: Experiment, *, sigma: float = 2.8, epsilon: float = 7.9912) -> Plan:
    """A plan with given numbers, calibrated by nobody."""
    quiet = chosen.mode == "none"
    return Plan(
        name=chosen.name,
        mode=chosen.mode,
        num_rounds=40,
        regions={
            name: RegionPlan(
                roster=vehicles,
                identity="recording" if name == "EU" else "physical",
                sample_rate=0.5,
                noise_multiplier=0.0 if quiet else sigma,
                max_grad_norm=None if quiet else 0.3,
                local_steps=1,
                windows_per_vehicle=8,
                weight=round(vehicles / 3131, 4),
                target_delta=1e-4,
                target_epsilon=None if quiet else 8.0,
                epsilon=None if quiet else epsilon,
            )
            for name, (vehicles, *_) in REGIONS.items()
        },
        model=ModelPlan(
            name="mlp",
            options={},
            arrays=(
                ArraySchema(name="out.weight", shape=(30, 16)),
                ArraySchema(name="noise_witness", shape=(4096,)),
            ),
            witness_size=4096,
            initial_sha256="0" * 64,
        ),
        task=TaskPlan(
            name="forecasting",
            options={"history_seconds": 2.0, "future_seconds": 3.0, "period_seconds": 0.5},
        ),
        optimizer=OptimizerPlan(learning_rate=1.0, momentum=0.0, schedule="constant"),
        seed=chosen.seed,
        strategy=chosen.server.strategy,
        strategy_options={},
        quorum=0.5,
        late_updates="drop",
        average_last=0.0,
    )


def write_run(
    path: Path,
    *,
    complete: bool = True,
    licence: str = "CC BY 4.0",
    shift_m: float = 0.0,
    sigma: float = 2.8,
    epsilon: float = 7.9912,
    **changes: Any,
) -> Path:
    """A run folder as ``simulate`` leaves it; ``shift_m`` is added to every final FDE."""
    chosen = experiment(**changes)
    plan = plan_of(chosen, sigma=sigma, epsilon=epsilon)
    folder = create(path, chosen, plan)
    rng = np.random.default_rng(1)
    for number in range(plan.num_rounds + 1 if complete else 13):
        regions: dict[str, Any] = {}
        for name, (_, _, start, final) in REGIONS.items():
            late = math.exp(-number / 9)
            fde = final + shift_m + (start - final - shift_m) * late
            fde += 0.03 * rng.standard_normal() if 0 < number < plan.num_rounds else 0
            regions[name] = {"fde_m": fde} if number % 2 == 0 or number == plan.num_rounds else {}
            if number:
                failed = (name == "SG" and number in (7, 8)) or (name == "EU" and number == 21)
                code = ("timeout" if number == 7 else "bad_reply") if failed else "released"
                regions[name] |= {"outcome": code, "sha256": "ab" * 32, "bytes": 18000}
        folder.append_round({"round": number, "seconds": 0.4 * bool(number), "regions": regions})
    if complete:
        np.savez_compressed(path / "examples.npz", **drawn_examples())
        folder.write("metrics.json", _metrics(path, plan, licence=licence, shift_m=shift_m))
    return path


def drawn_examples() -> dict[str, np.ndarray]:
    """Six windows a region: bends and braking in the agent frame."""
    rng = np.random.default_rng(3)
    found = {}
    for name in REGIONS:
        speed, bend, brake = rng.uniform(4, 14, 6), rng.normal(0, 0.25, 6), rng.normal(-0.6, 1.0, 6)
        past, ahead = np.arange(-4, 1) * 0.5, np.arange(1, 7) * 0.5

        def drive(t: np.ndarray, speed=speed, bend=bend, brake=brake) -> np.ndarray:
            angle, way = bend[:, None] * t, np.maximum(speed[:, None] * t + brake[:, None] * t**2 / 2, -60)
            return np.stack([way * np.cos(angle / 2), way * np.sin(angle / 2)], -1)

        future = drive(ahead)
        simple = np.stack([speed[:, None] * ahead, 0 * speed[:, None] * ahead], -1)
        found |= {
            f"{name}_history": drive(past),
            f"{name}_future": future,
            f"{name}_constant_velocity": simple,
            f"{name}_paths": (0.35 * simple + 0.65 * future)[:, None],
        }
    return found


def _metrics(path: Path, plan: Plan, *, licence: str, shift_m: float) -> dict[str, Any]:
    def figures(simple: float, start: float, final: float) -> dict[str, Any]:
        return {
            "fde_m": final + shift_m,
            "fde_m_95": [final + shift_m - 0.21, final + shift_m + 0.24],
            "ade_m": final * 0.42,
            "min_ade_k_m": final * 0.42,
            "min_fde_k_m": final + shift_m,
            "miss_rate": 0.55,
            "constant_velocity_fde_m": simple,
            "start_fde_m": start,
            "test_windows": 1703,
            "test_vehicles": 412,
        }

    def privacy(name: str) -> dict[str, Any]:
        mine = plan.region(name)
        spent = (
            [(n, mine.epsilon * (n / plan.num_rounds) ** 0.55) for n in range(4, 41, 4)]
            if mine.epsilon
            else []
        )
        return {
            "epsilon": mine.epsilon,
            "epsilon_by_round": spent,
            "epsilon_check": {"pld": 7.9912, "prv": 7.9883, "rdp": 8.741} if mine.epsilon else None,
            "delta": mine.target_delta if mine.epsilon else None,
            "vehicles": mine.roster,
            "roster_counted": True,
            "identity": mine.identity,
            "licence": licence,
            "noise_multiplier": mine.noise_multiplier,
            "sample_rate": mine.sample_rate,
            "max_grad_norm": mine.max_grad_norm,
            "weight": mine.weight,
            "rounds_released": {"SG": 38, "EU": 39}.get(name, 40),
        }

    return {
        "run": str(path),
        "name": plan.name,
        "mode": plan.mode,
        "complete": True,
        "seconds": 96.4,
        "num_rounds": plan.num_rounds,
        "plan": plan.hash,
        "parameters": 480,
        "witness_size": 4096,
        "versions": {"fedfsd": "0.1.0", "torch": "2.13.0", "python": "3.11.2"},
        "data": {"path": "drives", "origin": {name: ["recorded"] for name in REGIONS}},
        "regions": {name: figures(*three) | privacy(name) for name, (_, *three) in REGIONS.items()},
        "pooled": figures(4.76, 4.69, 4.42),
    }


class _Page(HTMLParser):
    """Tags that are open at the end, ids, addresses that a browser would fetch, and the visible words."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in ("meta", "br", "link", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "action") and not (value or "").startswith("#"):
                self.fetched.append(value or "")
            assert not name.startswith("on")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words += data


def _words(path: Path) -> str:
    return " ".join(_Page(path.read_text(encoding="utf-8")).words.split())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete private run with its report."""
    path = write_run(tmp_path_factory.mktemp("runs") / "private")
    write_report(path)
    return path


def test_the_page_says_what_its_folder_still_has_and_what_a_small_witness_block_misses(tmp_path) -> None:
    path = write_run(tmp_path / "begun", complete=False)
    plan = plan_of(experiment())
    (first, witness) = plan.model.arrays
    few = plan.model.model_copy(
        update={"witness_size": 300, "arrays": (first, witness.model_copy(update={"shape": (300,)}))}
    )
    Folder(path).write_text("plan.json", plan.model_copy(update={"model": few}).document())
    words = _words(write_report(path))
    assert "regions/ has its run keys" in words
    assert "fedfsd clean removes both" in words
    assert "The noise witness block has 300 entries: noise of 71% of its planned scale passes" in words
    assert "The time a round takes." in words
    assert "run keys" in (path / "README.md").read_text()


def test_the_page_counts_vehicles_in_several_regions_and_composes_their_losses(tmp_path, undrawn) -> None:
    path = write_run(tmp_path / "run")
    found = Folder(path).read("metrics.json")
    crossing = {"vehicles": 12, "regions": ["CN", "EU"], "epsilon": 11.317, "delta": 1e-4}
    Folder(path).write("metrics.json", found | {"crossing": crossing})
    words = _words(write_report(path))
    assert "12 vehicle keys are in several regions" in words
    assert "to epsilon 11.32 at delta 1 in 10,000 in CN and EU." in words
    Folder(path).write("metrics.json", found | {"crossing": None})
    assert "No vehicle key is in several of these regions." in _words(write_report(path))
    # A run of an earlier release did not compare.
    Folder(path).write("metrics.json", found)
    assert "One recorded in several is charged by each of them." in _words(write_report(path))


def test_the_page_says_what_was_trained_and_what_it_cost(run: Path) -> None:
    words = _words(run / "report.html")
    assert "Four regions, one forecasting model: 7.1% better than constant velocity" in words
    assert "at ε = 8.00 per vehicle" in words
    assert "CN, EU, SG and US trained it on 3,131 vehicles." in words
    for fact in (
        "4.93 m",
        "5.39 m",
        "5.31",
        "1,337",
        "0.0001",
        "Zero-out",
        "FDE, m",
        "missed: the share whose best path ends more than 2 m off",
        "future_seconds = 3.0",
        "Recording: a key",
        "CC BY 4.0",
    ):
        assert fact in words
    assert "took too long; sent a reply that is not a valid update" in words
    assert sentence(7.9912, 1e-4) in words
    assert "alone rules out little" in words
    assert read_run(run).plan.hash in words
    assert "1 min 36 s" in words


def test_the_page_holds_everything_and_runs_nothing(run: Path) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    page = _Page(text)
    assert page.open == []
    assert page.fetched == []
    assert not page.tags & {"script", "link", "img", "iframe", "object", "base", "form"}
    assert len(page.ids) == len(set(page.ids))
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(page.ids)
    assert "@import" not in text
    assert "default-src 'none'" in text
    assert not re.search("anonym|complian", text, re.IGNORECASE)


def test_pictures_follow_the_pages_colours(run: Path) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    inline = text[text.index("<svg") : text.rindex("</svg>")]
    assert "var(--series-0)" in inline
    assert not re.findall("#[0-9a-f]{6}", inline)


def test_writing_again_gives_the_same_bytes(run: Path) -> None:
    names = ["report.html", *(f"figures/{name}.svg" for name in ("learning", "privacy", "examples"))]
    before = [(run / name).read_bytes() for name in names]
    write_report(run)
    assert [(run / name).read_bytes() for name in names] == before
    assert not list(run.rglob("*.part"))


def test_each_region_has_one_colour_in_every_picture(run: Path) -> None:
    chosen = canvas.colours(list(REGIONS))
    assert len(set(chosen.values())) == len(REGIONS)
    for name in ("learning", "examples"):
        drawn = (run / "figures" / f"{name}.svg").read_text(encoding="utf-8")
        assert all(colour in drawn for colour in chosen.values())
    assert canvas.colours(["US"])["US"] == chosen["US"]


@pytest.mark.parametrize(
    ("mode", "heading"), [("rehearsal", "rehearsal, no guarantee"), ("none", "not private")]
)
def test_a_run_that_protects_nobody_says_so_everywhere(tmp_path: Path, mode: str, heading: str) -> None:
    write_report(write_run(tmp_path / "run", mode=mode))
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    body = text[text.index("<body>") :]
    assert body.index(heading) < body.index("<h1>")
    assert heading in text[text.index("<title>") : text.index("</title>")]
    assert heading in text[text.index("@page") : text.index("@media print")]
    assert "per vehicle" not in text[text.index("<h1>") : text.index("</h1>")]
    for picture in (tmp_path / "run" / "figures").iterdir():
        assert heading in picture.read_text(encoding="utf-8")


def test_a_run_without_privacy_draws_and_states_no_epsilon(tmp_path: Path) -> None:
    words = _words(write_report(write_run(tmp_path / "run", mode="none")))
    assert not (tmp_path / "run" / "figures" / "privacy.svg").exists()
    assert "It has no epsilon" in words
    assert "What is protected" not in words
    assert "attacker" not in words


def test_an_incomplete_run_says_so_on_top(tmp_path: Path) -> None:
    words = _words(write_report(write_run(tmp_path / "run", complete=False)))
    assert words.index("incomplete run") < words.index("Four regions")
    assert "12 of 40 rounds are on record" in words


def test_a_run_before_its_first_round(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", complete=False)
    (run / "rounds.jsonl").unlink()
    assert "0 of 40 rounds are on record" in _words(write_report(run))


@pytest.mark.usefixtures("undrawn")
def test_a_model_worse_than_constant_velocity_is_called_worse(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", shift_m=1.0)
    assert "worse than constant velocity" in title(read_run(run))
    words = _words(write_report(run))
    assert "worse than constant velocity" in words
    assert "better than" not in words


def test_a_model_worse_than_its_start_is_not_headlined_as_a_success(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", shift_m=0.15)  # nearer than constant velocity, farther than the start
    found = read_run(run)
    assert page.worse_than_start(found) == ["SG", "US"]
    assert "worse than its own start" not in title(read_run(write_run(tmp_path / "good")))
    text = write_report(run).read_text(encoding="utf-8")
    assert "Training did not help in SG and US" in text
    worse = read_run(write_run(tmp_path / "worse", shift_m=0.6))
    assert "% worse than its own start, " in title(worse)


def test_text_from_data_and_configuration_is_escaped(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>\"'><img src=x onerror=y>"
    run = write_run(tmp_path / "run", licence=hostile, data={"path": hostile}, pretraining={"path": hostile})
    text = write_report(run).read_text(encoding="utf-8")
    page = _Page(text)
    assert not page.tags & {"script", "img"}
    assert hostile in page.words


def test_missing_figures_are_dashes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    metrics = Folder(run).read("metrics.json")
    for one in (metrics["regions"]["SG"], metrics["pooled"]):
        one |= {key: None for key in one if key.endswith(("_m", "_rate"))} | {"fde_m_95": [None, None]}
    Folder(run).write("metrics.json", metrics)
    words = _words(write_report(run))
    assert "None" not in words
    assert "nan" not in words


def test_one_region_alone_and_very_many(tmp_path: Path) -> None:
    rounds = [{"round": n, "regions": {f"R{i}": {"fde_m": 5.0 - n} for i in range(100)}} for n in range(3)]
    for size, panels in ((1, 1), (100, canvas.SHOWN)):
        regions = {f"R{i}": {"constant_velocity_fde_m": 5.1} for i in range(size)}
        assert figure.learning(rounds, regions, FORECASTING).count("constant velocity") == panels


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("unit", ["m", "%"])
def test_the_words_at_the_start_do_not_meet_the_axis(size: int, unit: str) -> None:
    from matplotlib.figure import Figure

    rounds = [
        {"round": n, "regions": {f"R{i}": {"fde_m": (3.0 + n) / 25} for i in range(size)}} for n in range(21)
    ]
    regions = {f"R{i}": {"constant_velocity_fde_m": 5.1} for i in range(size)}
    task: Any = SimpleNamespace(metrics=[Metric("fde_m", "FDE", unit)], baseline="constant velocity")
    drawn: list[Figure] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figure, "as_svg", lambda made: drawn.append(made) or "")
        figure.learning(rounds, regions, task)
        drawn[0].draw_without_rendering()
    for axes in drawn[0].axes:
        start = next(text for text in axes.texts if text.get_text().startswith("start"))
        assert start.get_window_extent().x0 > axes.get_window_extent().x0


def test_rounds_are_whole_on_every_axis() -> None:
    regions = {"EU": {"epsilon_by_round": [[1, 2.0], [2, 3.0], [3, 3.5]]}}
    assert ">3<" in figure.privacy(regions, {"EU": None})


@pytest.mark.usefixtures("undrawn")
def test_a_small_epsilon_is_not_called_weak(tmp_path: Path) -> None:
    words = _words(write_report(write_run(tmp_path / "run", epsilon=1.0)))
    assert "at most 2.72 times" in words
    assert "rules out little" not in words


def test_regions_that_spend_alike_share_a_line() -> None:
    regions = {name: {"epsilon_by_round": [[1, 2.0], [2, 3.0]]} for name in ("CN", "EU")}
    regions["US"] = {"epsilon_by_round": [[1, 1.0], [2, 1.5]]}
    drawn = figure.privacy(regions, {"CN": 3.0, "EU": 3.0, "US": None})
    assert "CN, EU" in drawn
    assert drawn.count("target 3") == 1
    assert canvas.COLOURS[0] not in drawn
    assert canvas.colours(["US"])["US"] in drawn


@pytest.mark.parametrize(
    ("epsilon", "shown"), [(7.9912, "8.00"), (8.0, "8.00"), (8.001, "8.01"), (None, "–")]
)
def test_epsilon_is_never_shown_smaller_than_it_is(epsilon: float | None, shown: str) -> None:
    assert upwards(epsilon) == shown


def test_without_matplotlib_the_fix_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run")
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # what an import finds where it is not installed
    with pytest.raises(NotReadyError, match=r'pip install "\.\[pictures\]"'):
        write_report(run)
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("name", ["plan.json", "experiment.json", "metrics.json", "examples.npz"])
def test_a_broken_file_is_one_error(tmp_path: Path, name: str) -> None:
    run = write_run(tmp_path / "run")
    (run / name).write_bytes(b"\x00{")
    with pytest.raises(NotReadyError, match=name):
        write_report(run)


def test_examples_go_to_their_region_even_where_one_name_begins_another(tmp_path: Path) -> None:
    np.savez(tmp_path / "examples.npz", EU_a=np.zeros(1), EU_north_a=np.ones(1), EU_north_b=np.ones(2))
    regions = {"EU": None, "EU_north": None, "US": None}
    run: Any = SimpleNamespace(folder=Folder(tmp_path), plan=SimpleNamespace(regions=regions))
    assert {name: set(parts) for name, parts in page._examples(run).items()} == {
        "EU": {"a"},
        "EU_north": {"a", "b"},
    }
