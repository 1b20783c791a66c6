"""Two verifiers, one page: whatever evidence they are given, they give the same answer.

The second one (``stranger_*.py``) was written from fedfsd/ledger/FORMAT.md without reading any code.
FEDFSD_STRANGER=2000 is the long setting.
"""

from __future__ import annotations

import base64
import json
import os
import resource
import time
from functools import lru_cache
from pathlib import Path

import pytest
import stranger_cases
import stranger_verifier
from stranger_cases import Case, Evidence

from fedfsd.audit.evidence import load
from fedfsd.audit.verify import verify
from fedfsd.errors import ConfigError
from fedfsd.mechanism import accountant

HERE = Path(__file__).parent
CASES = json.loads((HERE.parents[2] / "fedfsd" / "ledger" / "vectors" / "cases.json").read_text())
GOLDEN = sorted((HERE.parents[1] / "evolution").glob("release_*"))
COUNT = int(os.environ.get("FEDFSD_STRANGER", "48"))
SECONDS, BYTES = 20.0, 2**30  # what one case may take, and what all may add to the process


@pytest.fixture(autouse=True)
def remembered(monkeypatch):
    """Epsilon of the same plan computed once in all cases."""
    for name in ("epsilon_pld", "check"):
        monkeypatch.setattr(accountant, name, _remembered(name))


@lru_cache
def _remembered(name: str):
    compute = lru_cache(maxsize=None)(getattr(accountant, name))
    return lambda events, delta, **how: compute(tuple(events), delta, **how)


def ours(folder: Path, evidence: Evidence) -> str:
    notes = {name: text.encode() for name, text in evidence.notes.items()}
    paths = []
    for name, data in {**evidence.bundles, **notes}.items():
        paths.append(folder / name)
        paths[-1].write_bytes(data)
    files = {}
    for name, given in (("receipts", evidence.receipts), ("trust", evidence.trust)):
        if given is not None:
            files[name] = folder / name
            files[name].write_bytes(given)
    try:
        return str(verify(load(paths, **files)).outcome)
    except ConfigError:
        return "no answer"


def strangers(evidence: Evidence) -> str:
    notes = {name: text.encode() for name, text in evidence.notes.items()}
    try:
        return stranger_verifier.verify(evidence.bundles, notes, evidence.receipts, evidence.trust).verdict
    except stranger_verifier.NoAnswer:
        return "no answer"


@pytest.mark.parametrize("one", CASES, ids=lambda one: one["name"])
def test_the_stranger_gives_the_answers_beside_the_page(one):
    given = Evidence(
        bundles={name: base64.b64decode(text) for name, text in one["bundles"].items()},
        notes=one["notes"],
        receipts=None if one["receipts"] is None else one["receipts"].encode(),
        trust=None if one["trust"] is None else one["trust"].encode(),
    )
    assert strangers(given) == one["answer"]


@pytest.mark.slow
@pytest.mark.parametrize("release", GOLDEN, ids=lambda path: path.name)
@pytest.mark.parametrize(
    ("run", "answer"),
    [
        ("simulation/finished", "holds"),
        ("simulation/rehearsal", "cannot decide"),
        ("federation/finished", "holds"),
    ],
)
def test_both_agree_on_what_earlier_releases_wrote(tmp_path, release, run, answer):
    folder = release / run
    bundles = sorted((folder / "bundles").glob("*.zip")) or sorted(folder.parent.glob("*.zip"))
    keys = [path for path in (folder / "trust.keys", folder.parent / "trust.keys") if path.exists()]
    given = Evidence(
        bundles={path.name: path.read_bytes() for path in bundles},
        notes={path.name: path.read_text() for path in sorted((folder / "checkpoints").glob("*.note"))},
        receipts=(folder / "receipts.json").read_bytes(),
        trust=keys[0].read_bytes(),
    )
    assert given.bundles
    assert given.notes
    assert strangers(given) == ours(tmp_path, given) == answer


@pytest.mark.slow
@pytest.mark.timeout(max(240, 2 * COUNT))
def test_both_agree_on_honest_odd_and_forged_evidence(tmp_path):
    wrong, before = [], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(COUNT):
        case = stranger_cases.case(seed)
        found = compare(tmp_path / str(seed), case)
        if found:
            wrong.append(f"case {seed}, {case.kind}: {found}")
    assert not wrong, "\n".join(wrong)
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < BYTES


def compare(folder: Path, case: Case) -> str:
    """What is wrong with the two answers, or nothing."""
    folder.mkdir()
    begun = time.process_time()
    answers = ours(folder, case.evidence), strangers(case.evidence)
    spent = time.process_time() - begun
    if answers[0] != answers[1]:
        return f"ours {answers[0]}, the stranger's {answers[1]}"
    if case.forged and answers[0] == "holds":
        return "a forgery holds"
    if case.kind == "honest" and answers[0] == "contradicted":
        return "honest evidence is contradicted"
    if case.answer and answers[0] != case.answer:
        return f"both say {answers[0]}, which should be {case.answer}"
    return f"{spent:.0f} seconds" if spent > SECONDS else ""
