"""Bad input: one error with code, place, got or expected, and a fix; nothing half-written."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import drives

from fedfsd.cli import main
from fedfsd.drive import table

pytest_plugins = ["typing_user"]


@pytest.fixture
def experiment(folder, drives_path) -> Path:
    """A private experiment on a small table."""
    path = folder / "small.toml"
    path.write_text(
        f"""
name = "small"
data.path = "{drives_path}"
pretraining.path = "none"
privacy = {{ target_delta = 1e-3, sample_rate = 0.5, noise_multiplier = 2.0 }}
training = {{ num_rounds = 3, local_steps = 1 }}
""",
        encoding="utf-8",
    )
    return path


def refused(fedfsd, folder, code, exit_code, *words):
    """The one error of a call, told to people and to machines alike, that leaves no file behind."""
    before = sorted(folder.rglob("*"))
    said = fedfsd(*words)
    assert said.code == exit_code, said.err
    assert not said.out
    last = said.err.splitlines()[-1]
    assert last.startswith(f"{code}: ")
    assert "; fix: " in last
    assert "Traceback" not in said.err
    as_json = fedfsd(*words, "--json")
    assert as_json.code == exit_code
    error = as_json.error
    assert error["code"] == code
    assert error["place"]
    assert error["got"] or error["expected"]
    assert error["hint"]
    assert sorted(folder.rglob("*")) == before
    return error


@pytest.mark.parametrize("command", ["simulate", "plan"])
@pytest.mark.parametrize(
    ("override", "place", "code"),
    [
        ("privacy.target_epsilom=4", "privacy.target_epsilom", "config"),
        ("regions.CN.rooster=9", "regions.CN.rooster", "config"),
        ("training.num_rounds=three", "training.num_rounds", "config"),
        ("privacy.target_epsilon=0", "privacy.target_epsilon", "config"),
        ("privacy.target_delta=0.5", "privacy.target_delta", "plan"),
        ("privacy.noise_key=" + "ab" * 32, "privacy.noise_key", "config"),
        ("regions.XX.roster=9", "XX", "config"),
        ("regions.CN.roster=2", "regions.CN.roster", "config"),
        ("model.name=resnet", "model.name", "config"),
        ("model.options.widht=3", "model.options.widht", "config"),
        ("no equals sign", "--set", "config"),
    ],
)
def test_an_experiment_that_cannot_be(fedfsd, folder, experiment, command, override, place, code):
    error = refused(fedfsd, folder, code, 3, command, experiment, "--set", override)
    assert error["place"].endswith(place)
    assert "ab" * 32 not in str(error)


def test_a_file_that_is_not_there_or_no_toml(fedfsd, folder):
    refused(fedfsd, folder, "config", 3, "simulate", "none.toml")
    (folder / "bad.toml").write_text("name = \n", encoding="utf-8")
    assert "line 1" in refused(fedfsd, folder, "config", 3, "simulate", "bad.toml")["got"]
    assert refused(fedfsd, folder, "config", 3, "config", "check", "bad.toml")["place"] == "bad.toml"


def test_a_strategy_that_is_none(fedfsd, folder, experiment):
    refused(fedfsd, folder, "config", 3, "simulate", experiment, "--set", "server.strategy=FedMagic")


@pytest.mark.parametrize("command", ["simulate", "plan"])
def test_tables_that_cannot_be_used(fedfsd, folder, experiment, command):
    def rows_of(regions: dict[str, int]) -> pa.Table:
        return drives(regions).rows

    def refuse(name: str, code: str = "data") -> dict[str, str]:
        return refused(fedfsd, folder, code, 4, command, experiment, "--set", f"data.path={name}")

    pq.write_table(rows_of({"CN": 3}).drop_columns(["vehicle"]), folder / "short.parquet")
    assert refuse("short.parquet")["place"].endswith("column vehicle")
    newer = rows_of({"CN": 3}).replace_schema_metadata({"fedfsd.version": "99"})
    pq.write_table(newer, folder / "newer.parquet")
    assert refuse("newer.parquet", "format")["got"] == "format 99"
    tests_only = rows_of({"CN": 3})
    column = tests_only.column_names.index("test")
    tests_only = tests_only.set_column(column, "test", pa.array([True] * tests_only.num_rows))
    pq.write_table(tests_only, folder / "tested.parquet")
    assert refuse("tested.parquet")["place"] == "region CN"
    (folder / "text.parquet").write_text("no parquet", encoding="utf-8")
    assert refuse("text.parquet")["place"] == "text.parquet"
    assert refuse("missing.parquet")["got"] == "no such file"
    (folder / "empty").mkdir()
    refuse("empty")


def test_recorded_drives_are_not_rehearsed_on(fedfsd, folder, experiment):
    table.write(drives({"CN": 9}, origin="recorded"), folder / "real.parquet")
    words = ["--set", "data.path=real.parquet", "--set", "mode=rehearsal"]
    assert refused(fedfsd, folder, "config", 3, "simulate", experiment, *words)["place"] == "mode"


def test_a_device_that_is_not_there(fedfsd, folder, experiment):
    words = ["--set", "training.device=cuda:99"]
    refused(fedfsd, folder, "not_ready", 4, "simulate", experiment, *words)


def test_a_plan_outside_the_policy_of_a_region(fedfsd, folder, experiment):
    (folder / "strict.toml").write_text("max_steps = 2\n", encoding="utf-8")
    words = [experiment, "--set", "regions.CN.policy=strict.toml"]
    error = refused(fedfsd, folder, "refused", 13, "simulate", *words)
    assert "above the cap 2" in error["got"]
    found = fedfsd("plan", *words, "--json").document["regions"]["CN"]
    assert not found["accepted"]
    assert "above the cap 2" in found["objections"][0]


@pytest.mark.slow
def test_more_local_steps_than_the_run_was_planned_with(fedfsd, folder, experiment):
    assert fedfsd("simulate", experiment, "-o", "run").code == 0
    words = ["simulate", experiment, "-o", "run", "--resume"]
    refused(fedfsd, folder, "not_ready", 4, *words)  # complete
    (folder / "run" / "metrics.json").unlink()
    error = refused(fedfsd, folder, "not_ready", 4, *words, "--set", "training.local_steps=2")
    assert error["got"] == "a run of another experiment"
    assert fedfsd(*words).code == 0


def test_places_that_cannot_be_written(fedfsd, folder, experiment):
    (folder / "file").touch()
    refused(fedfsd, folder, "not_ready", 4, "simulate", experiment, "-o", "file")
    refused(fedfsd, folder, "not_ready", 4, "simulate", experiment, "-o", "file/run")
    refused(fedfsd, folder, "not_ready", 4, "simulate", experiment, "--resume")
    refused(fedfsd, folder, "not_ready", 4, "data", "generate", "-o", "none/x.parquet")
    refused(fedfsd, folder, "not_ready", 4, "data", "show", "embedded", "-o", "x.jpeg")
    refused(fedfsd, folder, "not_ready", 4, "compare", "none")


def test_the_wrong_region_seed_or_number(fedfsd, folder):
    words = ["data", "generate", "-o", "x.parquet"]
    refused(fedfsd, folder, "usage", 2, *words, "--region", "XX")
    refused(fedfsd, folder, "usage", 2, *words, "--vehicles", "0")
    refused(fedfsd, folder, "usage", 2, *words, "--seed", "-1")


class Trick:
    """Unpickled by a careless reader, it makes a folder."""

    def __reduce__(self):
        return os.mkdir, ("caught",)


def importing(format: str, *paths: object) -> list[object]:
    words = ["data", "import", *paths, "--format", format, "--region", "US", "-o", "x.parquet"]
    return [*words, "--licence", "CC0-1.0", "--identity", "recording", "--origin", "published"]


def test_an_unpickling_trick_is_refused_and_does_nothing(fedfsd, folder):
    (folder / "trick.pkl").write_bytes(pickle.dumps({"tracks": Trick(), "x": np.zeros(3)}))
    refused(fedfsd, folder, "data", 4, *importing("scenarionet", "trick.pkl"))
    assert not (folder / "caught").exists()


def test_a_format_or_file_that_is_not_there(fedfsd, folder):
    error = refused(fedfsd, folder, "usage", 2, *importing("argoverse1", "x.csv"))
    assert "argoverse2" in error["expected"]
    refused(fedfsd, folder, "data", 4, *importing("argoverse2", "x.parquet"))
    refused(fedfsd, folder, "data", 4, *importing("argoverse2", folder))
    words = importing("argoverse2", folder)
    words[words.index("US")] = "no name"
    refused(fedfsd, folder, "usage", 2, *words)


def test_text_from_a_file_reaches_the_terminal_without_its_controls(fedfsd, folder):
    (folder / "bad.toml").write_text('name = "x"\n"[red]\\u001b[2J\\u202e" = 1\n', encoding="utf-8")
    said = fedfsd("config", "check", "bad.toml")
    assert said.code == 3
    assert "[red]\\x1b[2J\\u202e" in said.err
    assert "\x1b" not in said.err + said.out


@pytest.fixture
def broken():
    """The command ``fedfsd broken``, which has a bug."""

    def broken() -> None:
        raise ZeroDivisionError("the position of vehicle 7")

    main.app.command()(broken)
    main.tree.cache_clear()
    yield
    main.app.registered_commands.pop()
    main.tree.cache_clear()


@pytest.mark.usefixtures("broken")
def test_a_bug_is_one_line_without_what_it_held(fedfsd, monkeypatch):
    said = fedfsd("broken")
    assert said.code == 1
    assert said.err.startswith("bug: ZeroDivisionError in ")
    assert said.err.count("\n") == 1
    assert "vehicle 7" not in said.err
    monkeypatch.setenv("FEDFSD_DEBUG", "1")
    assert "Traceback" in fedfsd("broken").err


def test_what_is_no_run_or_no_key_is_named(fedfsd, folder):
    (folder / "run").mkdir()
    (folder / "run" / "plan.json").write_text("{}", encoding="utf-8")
    (folder / "loop").symlink_to("loop")
    for command in ("compare", "clean"):
        said = fedfsd(command, "run")
        assert said.code == 3
        assert "run/plan.json: plan: got a value that is not allowed, expected a JSON object" in said.err
        assert fedfsd(command, "loop").code == 4
    for output in ("", ".", "/", "run"):
        assert fedfsd("keys", "new", "fedfsd/EU/officer", "-o", output).code == 2
    said = fedfsd("keys", "show", "run")
    assert said.code == 4
    assert "no file or no Ed25519 key" in said.err
