"""What a run shows of itself in a notebook, and the committed notebook."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from test_report import write_run

from experiments.notebook import NOTEBOOK, execute
from fedfsd.report.notebook import Rows, Shown, running
from fedfsd.report.page import write_report
from fedfsd.simulation.run import Run


def test_a_run_shows_its_regions_and_pictures(tmp_path: Path) -> None:
    write_report(write_run(tmp_path / "run"))
    run = Run(tmp_path / "run")
    text = run._repr_html_()
    assert "7.1% better than constant velocity" in text
    assert "<td>SG</td><td>3.71</td><td>3.84</td><td>3.4%</td><td>7.991</td>" in text
    assert [row["region"] for row in run.regions] == ["CN", "EU", "SG", "US"]
    assert run.regions[2]["fde_m"] == 3.71
    last = run.rounds[-4:]
    assert isinstance(last, Rows)
    assert [(row["round"], row["region"]) for row in last] == [
        (40, name) for name in ("CN", "EU", "SG", "US")
    ]
    assert set(run.figures) == {"learning", "privacy", "examples"}
    assert ElementTree.fromstring(run.figures["learning"]._repr_svg_()).tag.endswith("svg")


def test_text_of_data_stays_text() -> None:
    assert "<b>" not in Rows([{"<b>": "<b>", "x": None}])._repr_html_()


def test_outside_a_notebook_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert not running()
    Shown()
    assert capsys.readouterr() == ("", "")


def test_an_incomplete_run_says_so(tmp_path: Path) -> None:
    text = Run(write_run(tmp_path / "run", complete=False))._repr_html_()
    assert "incomplete run" in text


def test_the_committed_notebook_was_executed_somewhere_else() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert all(cell["outputs"] for cell in cells)
    assert not any(place in text for place in ("/home/", "/tmp/", "/root/", str(Path.cwd())))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_committed_notebook_runs(tmp_path: Path) -> None:
    pytest.importorskip("nbclient")
    shorter = {"num_rounds=30": "num_rounds=2", "steps=300": "steps=20"}
    found = execute(tmp_path, instead=shorter)
    committed = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    for mine, theirs in zip(found.cells, committed["cells"], strict=True):
        shown = [sorted(output.get("data", {})) for output in mine.get("outputs", [])]
        assert shown == [sorted(output.get("data", {})) for output in theirs.get("outputs", [])]
    progress = found.cells[1].outputs[0]
    assert progress["data"]["text/plain"].startswith("round 2/2 | FDE CN")
