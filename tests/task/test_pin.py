"""A model of another package runs only when it is the reviewed one, and not a line of it otherwise."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fedfsd import canonical
from fedfsd.errors import RefusedError
from fedfsd.gate.policy import ModelPin
from fedfsd.task.forecasting.model import registry
from fedfsd.task.forecasting.window import WindowSpec

SOURCE = """
from pathlib import Path
from pydantic import BaseModel
from torch import nn

Path(__file__).with_name("ran").touch()

class Options(BaseModel):
    slope: float = 1.0

class Planted(nn.Module):
    def __init__(self, options, spec):
        super().__init__()
        self.line = nn.Linear(2, spec.future * 2)

ENTRY = (Options, Planted)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An installed package whose model writes a file as soon as it is imported."""
    package = tmp_path / "planted"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n"
    )
    (package / "model.py").write_text(SOURCE)
    info = tmp_path / "planted_models-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: planted-models\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fedfsd.models]\nplanted = planted.model:ENTRY\n")
    (info / "RECORD").write_text("planted/__init__.py,,\nplanted/model.py,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield package
    for name in ("planted", "planted.model"):
        sys.modules.pop(name, None)


def reviewed(place: Path, **changes: str) -> ModelPin:
    sha256 = canonical.sha256((place / "model.py").read_bytes())
    found = {"name": "planted", "distribution": "planted-models", "version": "1.0", "sha256": sha256}
    return ModelPin(**{**found, **changes})


def build(pin: ModelPin):
    return registry.build("planted", {}, WindowSpec(), seed=1, reviewed=pin)


def test_the_reviewed_file_is_run_and_no_other(place):
    (place / "__pycache__").mkdir()  # compiled files, which no hash was made of, are not looked at
    pin = reviewed(place)
    assert type(build(pin)).__name__ == "Planted"
    assert (place / "ran").exists()
    assert "planted" not in sys.modules  # the package's own __init__ was not run


@pytest.mark.parametrize(
    "changes",
    [
        {"distribution": "other-models"},
        {"version": "1.0.1"},
        {"sha256": "0" * 64},
    ],
)
def test_another_than_the_reviewed_one_is_refused_before_it_runs(place, changes):
    with pytest.raises(RefusedError):
        build(reviewed(place, **changes))
    assert not (place / "ran").exists()


def test_a_file_changed_after_the_review_is_refused_before_it_runs(place):
    pin = reviewed(place)
    (place / "model.py").write_text(SOURCE + "\n")
    with pytest.raises(RefusedError):
        build(pin)
    assert not (place / "ran").exists()


def test_a_model_that_the_distribution_does_not_list_is_refused(place):
    (place.parent / "planted_models-1.0.dist-info" / "RECORD").write_text("planted/__init__.py,,\n")
    with pytest.raises(RefusedError):
        build(reviewed(place))
    assert not (place / "ran").exists()
