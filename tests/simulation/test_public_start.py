"""The public start: computed once for the same inputs, never taken for others or from a file that changed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import drives

from fedfsd.config.experiment import Experiment
from fedfsd.engine import backbone
from fedfsd.errors import DataError
from fedfsd.simulation import public_start
from fedfsd.simulation.prepare import task_of

TABLES = (replace(drives({"CN": 9}), origin="synthetic"),)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty cache in which even what took no time is kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(public_start, "WORTH_SECONDS", 0.0)
    return tmp_path / "fedfsd" / "starts"


@pytest.fixture
def trained(folder, monkeypatch):
    """Start a model; its weights, and whether it was trained for that."""
    calls = []
    real = public_start.pretrain

    def counted(*words, **named):
        calls.append(words)
        real(*words, **named)

    monkeypatch.setattr(public_start, "pretrain", counted)

    def start(*, tables=TABLES, steps=3, seed=1, width=8, learns=True):
        asked = Experiment.model_validate(
            {
                "name": "x",
                "seed": seed,
                "model": {"name": "mlp", "options": {"width": width}},
                "pretraining": {"steps": steps, "batch_size": 8},
            }
        )
        task = task_of(asked)
        model = task.model("mlp", asked.model.options, seed=seed)
        if not learns:
            backbone.freeze(model, [name for name, _ in model.named_parameters()][:1])
        before = len(calls)
        public_start.start(model, task, tables, asked)
        return backbone.packed(model, ()), len(calls) > before

    return start


def test_the_same_inputs_are_trained_once(trained, folder):
    first, worked = trained()
    again, worked_again = trained()
    assert (worked, worked_again) == (True, False)
    assert first == again
    (kept,) = folder.iterdir()
    assert kept.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "other",
    [
        {"steps": 4},
        {"seed": 2},
        {"width": 9},
        {"learns": False},
        {"tables": (replace(drives({"CN": 9}, seed=2), origin="synthetic"),)},
    ],
    ids=str,
)
def test_other_inputs_are_trained_anew(trained, other):
    trained()
    assert trained(**other)[1]


def test_another_program_trains_anew(trained, monkeypatch):
    trained()
    monkeypatch.setattr(public_start.digest, "code", lambda: "0" * 64)
    assert trained()[1]
    monkeypatch.setattr(public_start, "_other_code", lambda: {"plugin": "0" * 64})
    assert trained()[1]


def test_code_that_no_installer_put_there_counts(tmp_path, monkeypatch):
    (tmp_path / "plugin_in_work.py").write_text("x = 1\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    import plugin_in_work  # noqa: F401

    before = public_start._other_code()
    (tmp_path / "plugin_in_work.py").write_text("x = 2\n", encoding="utf-8")
    after = public_start._other_code()
    assert {name for name in after if after[name] != before[name]} == {"plugin_in_work"}
    assert not [name for name in after if name.startswith(("fedfsd", "torch", "json"))]


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "spoil",
    [_flipped, lambda path: path.write_bytes(path.read_bytes()[:-4]), lambda path: path.chmod(0o666)],
    ids=["flipped", "cut", "writable by others"],
)
def test_a_file_that_cannot_be_trusted_is_made_anew(trained, folder, spoil):
    first, _ = trained()
    (kept,) = folder.iterdir()
    spoil(kept)
    again, worked = trained()
    assert worked
    assert first == again
    assert not trained()[1]


def test_recorded_tables_are_refused_although_their_rows_were_seen(trained):
    trained()
    with pytest.raises(DataError, match="recorded"):
        trained(tables=(replace(TABLES[0], origin="recorded"),))


def test_room_is_bounded_and_the_longest_unused_goes_first(trained, folder, monkeypatch):
    trained()
    (one,) = folder.iterdir()
    trained(seed=2)
    (two,) = set(folder.iterdir()) - {one}
    for number, path in enumerate((two, one)):
        os.utime(path, (number, number))
    trained(seed=2)  # used now
    monkeypatch.setattr(public_start, "MOST_BYTES", 2 * one.stat().st_size)
    trained(seed=3)
    left = set(folder.iterdir())
    assert len(left) == 2
    assert two in left
    assert one not in left


def test_without_a_folder_to_write_in_nothing_is_lost(trained, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert trained()[1]
    assert trained()[1]


def test_what_takes_no_time_is_not_kept(trained, folder, monkeypatch):
    monkeypatch.setattr(public_start, "WORTH_SECONDS", 600.0)
    trained()
    assert not folder.exists()


def test_the_start_of_a_plan_computes_with_one_thread(trained):
    from fedfsd.simulation.prepare import start_of

    asked = Experiment.model_validate({"name": "x", "model": {"name": "mlp"}})
    torch.set_num_threads(2)
    start_of(asked, task_of(asked), (), {})
    assert torch.get_num_threads() == 1
