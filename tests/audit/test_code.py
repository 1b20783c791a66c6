"""``--code``: is what trained among the programs that somebody reviewed?"""

from __future__ import annotations

from pathlib import Path

import pytest
from audit.forge import Forge, outcomes, plan_of, receipts, texts, trust

from fedfsd.audit import reviewed
from fedfsd.audit.evidence import load
from fedfsd.audit.text import text
from fedfsd.audit.verdict import Report
from fedfsd.audit.verify import verify
from fedfsd.errors import ConfigError
from fedfsd.ledger import digest
from fedfsd.ledger.entry import Package, Program, ProgramEntry

TRAINED = Program(
    code="a" * 64,
    version="0.2.0",
    packages={
        "torch": Package(version="2.13.0+cpu", sha256="b" * 64),
        "numpy": Package(version="2.4.6", sha256="c" * 64),
    },
)
GATE = f"fedfsd 0.2.0 {digest.code()}"
REVIEWED = [
    "# releases of this year",
    "",
    GATE,
    f"fedfsd 0.2.0 {'a' * 64}",
    f"torch 2.13.0+cpu {'b' * 64}",
    f"torch 2.13.0+cu126 {'d' * 64}",
    f"numpy 2.4.6 {'c' * 64}",
]


def story(*programs: Program) -> Forge:
    """A plan whose rounds were trained by these programs, one each."""
    forge, plan = Forge(), plan_of(rounds=max(1, len(programs)))
    forge.grant()
    forge.approve(plan)
    for round in range(1, max(1, len(programs)) + 1):
        if programs:
            forge.add(ProgramEntry(plan=plan.hash, program=programs[round - 1]))
        forge.round(plan, round)
    return forge


def audited(folder: Path, forge: Forge, lines: list[str] | None) -> Report:
    path = folder / "reviewed.txt"
    path.write_text("\n".join(lines or []))
    return verify(
        load(
            [forge.bundle(folder)],
            receipts=receipts(folder, forge),
            trust=trust(folder, forge),
            code=None if lines is None else path,
        )
    )


def test_what_was_reviewed_holds(tmp_path):
    report = audited(tmp_path, story(TRAINED), REVIEWED)
    assert report.headline == "holds"
    assert "not compared" not in text(report)


@pytest.mark.parametrize(
    "changed",
    [
        {"code": "e" * 64},
        {"packages": TRAINED.packages | {"torch": Package(version="2.13.0+cpu", sha256="e" * 64)}},
        {"packages": {"numpy": Package(version="2.4.6", sha256="b" * 64)}},
    ],
)
def test_another_program_is_contradicted_also_in_a_later_round(tmp_path, changed):
    other = TRAINED.model_copy(update=changed)
    for programs in ([other], [TRAINED, other]):
        report = audited(tmp_path, story(*programs), REVIEWED)
        assert report.headline == "contradicted: code"
        assert "expected a reviewed one" in texts(report, "code")
        assert len(texts(report, "code").splitlines()) == 1


def test_another_gate_is_contradicted(tmp_path):
    lines = [line for line in REVIEWED if line != GATE]
    report = audited(tmp_path, story(TRAINED), lines)
    assert report.headline == "contradicted: code"
    assert "(plan)" in texts(report, "code")


def test_a_package_that_the_list_does_not_name_is_not_decided(tmp_path):
    report = audited(tmp_path, story(TRAINED), [line for line in REVIEWED if not line.startswith("numpy")])
    assert report.headline == "cannot decide: code"
    assert "no numpy" in texts(report, "code")


def test_rounds_without_a_program_on_record_are_not_decided(tmp_path):
    """As earlier releases wrote them; without the list nothing changes for them."""
    report = audited(tmp_path, story(), REVIEWED)
    assert report.headline == "cannot decide: code"
    assert len(texts(report, "code").splitlines()) == 1
    assert audited(tmp_path, story(), None).headline == "holds"


def test_without_a_list_the_verdict_says_so(tmp_path):
    report = audited(tmp_path, story(TRAINED), None)
    assert (report.headline, report.exit_code, outcomes(report)) == ("holds", 0, {})
    assert text(report).splitlines()[-1] == (
        "verdict: holds; the code on record was not compared with reviewed code (--code)"
    )


@pytest.mark.parametrize(
    "line",
    [
        "fedfsd",
        f"fedfsd {'a' * 64}",
        f"fedfsd 0.2.0 {'A' * 64}",
        f"fedfsd 0.2.0 {'a' * 63}",
        f"fedfsd  0.2.0 {'a' * 64}",
        f" fedfsd 0.2.0 {'a' * 64}",
        f"fedfsd 0.2.0 {'a' * 64} ",
        f"fed/fsd 0.2.0 {'a' * 64}",
        b"\xff",
    ],
)
def test_a_list_is_read_strictly(tmp_path, line):
    path = tmp_path / "reviewed.txt"
    path.write_bytes(b"# one\n" + (line if isinstance(line, bytes) else line.encode()))
    with pytest.raises(ConfigError, match=r"reviewed\.txt"):
        reviewed.read(path)


def test_a_list_has_an_end(tmp_path):
    path = tmp_path / "reviewed.txt"
    path.write_bytes(b"#" * (reviewed.MAX_CODE + 1))
    with pytest.raises(ConfigError):
        reviewed.read(path)
