"""The journal: words and fixed fields, never an exception's text; metrics on loopback."""

from __future__ import annotations

import json
import logging
import urllib.request

import pytest

from fedfsd.errors import NotReadyError
from fedfsd.service import journal as module
from fedfsd.service.gauge import Metrics
from fedfsd.service.journal import journal


def lines(folder, name="gate"):
    text = (folder / "log" / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_an_event_with_its_fields(tmp_path):
    journal("gate", tmp_path).info("released", extra={"plan": "3f2a", "round": 3, "bytes": 19552})
    (line,) = lines(tmp_path)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "info",
        "log": "gate",
        "event": "released",
        "plan": "3f2a",
        "round": 3,
        "bytes": 19552,
    }
    assert (tmp_path / "log" / "gate.jsonl").stat().st_mode & 0o077 == 0


def test_nothing_of_an_exception_but_its_kind_and_no_other_field(tmp_path):
    log = journal("gate", tmp_path)
    try:
        raise OSError("/data/canary.parquet")
    except OSError:
        log.exception("region_unavailable", extra={"path": "/data/canary.parquet", "code": "x" * 1000})
    (line,) = lines(tmp_path)
    assert line["error"] == "OSError"
    assert len(line["code"]) == 300
    assert "canary" not in (tmp_path / "log" / "gate.jsonl").read_text(encoding="utf-8")


def test_two_regions_in_one_process_keep_two_journals(tmp_path):
    first, second = journal("gate", tmp_path / "eu"), journal("gate", tmp_path / "us")
    assert journal("gate", tmp_path / "eu") is first
    first.info("one")
    second.info("two\nlines")
    assert [line["event"] for line in lines(tmp_path / "eu")] == ["one"]
    assert [line["event"] for line in lines(tmp_path / "us")] == ["two\nlines"]


def test_what_the_library_says_is_in_it(tmp_path):
    journal("gate", tmp_path)
    logging.getLogger("fedfsd.border").warning("refused", extra={"code": "expired"})
    assert [(line["event"], line["code"]) for line in lines(tmp_path)] == [("refused", "expired")]


def test_it_rotates_and_a_full_disk_is_survived(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(module, "MAX_BYTES", 2000)
    log = journal("gate", tmp_path)
    for number in range(200):
        log.info("round", extra={"round": number})
    kept = sorted(tmp_path.glob("log/gate.jsonl*"))
    assert len(kept) == 5
    assert all(path.stat().st_size <= 2000 and path.stat().st_mode & 0o077 == 0 for path in kept)
    assert lines(tmp_path)[-1]["round"] == 199
    (handler,) = log.handlers
    handler.close()
    handler.baseFilename = "/dev/full"
    log.info("lost")
    assert capfd.readouterr().err == ""


def test_people_read_text_on_a_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    journal("gate", tmp_path).warning("refused", extra={"code": "budget\x1b[2J"})
    assert capsys.readouterr().err.endswith(" warning refused code=budget\\x1b[2J\n")


def test_metrics_are_served_on_loopback():
    with Metrics(None) as metrics:
        metrics.counter("refusals", "Refusals by code.", "code").labels(code="budget").inc(3)
        assert metrics.counter("refusals", "Refusals by code.", "code") is not None
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics", timeout=10) as reply:
            assert 'fedfsd_refusals_total{code="budget"} 3.0' in reply.read().decode()
        with pytest.raises(NotReadyError):
            Metrics(metrics.port)


@pytest.mark.parametrize("name", ["train_loss", "fde_m", "update_norm", "accuracy"])
def test_a_loss_is_no_metric(name):
    with pytest.raises(ValueError, match="data"):
        Metrics(0).gauge(name, "An error.")
