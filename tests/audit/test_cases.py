"""The pieces of evidence beside FORMAT.md have the answers that stand there."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from fedfsd.audit.evidence import load
from fedfsd.audit.verify import verify
from fedfsd.errors import ConfigError

PATH = Path(__file__).parents[2] / "fedfsd" / "ledger" / "vectors" / "cases.json"
CASES = json.loads(PATH.read_text())


def test_the_file_is_what_the_command_makes():
    import make_cases

    assert make_cases.cases() == CASES


def test_every_answer_occurs():
    assert {one["answer"] for one in CASES} == {"holds", "contradicted", "cannot decide", "no answer"}
    names = [one["name"] for one in CASES]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_each_has_its_answer(tmp_path, case):
    assert answer(tmp_path, case) == case["answer"]


def answer(folder: Path, case: dict[str, Any]) -> str:
    paths = []
    for name, text in case["bundles"].items():
        paths.append(folder / name)
        paths[-1].write_bytes(base64.b64decode(text))
    for name, text in case["notes"].items():
        paths.append(folder / name)
        paths[-1].write_bytes(text.encode())
    files = {}
    for name in ("receipts", "trust"):
        if case[name] is not None:
            files[name] = folder / name
            files[name].write_bytes(case[name].encode())
    try:
        return str(verify(load(paths, **files)).outcome)
    except ConfigError:
        return "no answer"
