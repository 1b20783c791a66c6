"""Evidence that a newer release wrote: nothing is decided or stated, and a contradiction elsewhere wins."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from forge import Forge, check, outcomes, plan_of, receipts, texts, trust

from fedfsd import canonical
from fedfsd.audit.evidence import load
from fedfsd.audit.report import report as audit_report
from fedfsd.audit.report_page import page, title
from fedfsd.audit.report_page import text as markdown
from fedfsd.audit.statement import statement
from fedfsd.audit.statement_text import text as sentences
from fedfsd.audit.transfer import transfers
from fedfsd.audit.verify import verify
from fedfsd.cli.main import run
from fedfsd.ledger import bundle, entry
from fedfsd.ledger.entry import Incident
from fedfsd.ledger.key import SigningKey

NEWER = 9


class Newer(Forge):
    """A region whose program is newer than the auditor's: some of its entries have another format."""

    def __init__(self, region: str = "EU", **options: Any) -> None:
        self.rewritten: dict[int, bytes] = {}
        super().__init__(region, **options)

    @property
    def contents(self) -> list[bytes]:
        return [self.rewritten.get(seq, entry.encode(one)) for seq, one in enumerate(self.entries)]

    def rewrite(self, seq: int, **changes: Any) -> None:
        """Give an entry other fields, in canonical form."""
        self.rewritten[seq] = canonical.encode(json.loads(entry.encode(self.entries[seq])) | changes)

    def newer(self, **changes: Any) -> int:
        """Append an entry of a format that is not known yet."""
        seq = self.add(Incident(plan=None, code="other", text="x"))
        self.rewrite(seq, format=NEWER, **changes)
        return seq


@pytest.fixture
def region() -> Newer:
    made = Newer()
    made.story(plan_of())
    return made


def test_an_entry_of_a_newer_release_cannot_be_decided(tmp_path, region):
    seq = region.newer(anything=["at", "all"])
    report = check(tmp_path, region)
    assert (outcomes(report), report.exit_code) == ({"entries": "cannot decide"}, 11)
    assert f"entry {seq}: format {NEWER}, written by a newer release of fedfsd" in texts(report, "entries")
    held = {one.name for part in report.parts for one in part.answers if one.outcome == "holds"}
    assert held == {
        "archive",
        "coordinator",
        "regions",
    }  # what is about the part that can be read is no answer


def test_what_a_newer_release_wrote_after_is_not_read(tmp_path, region):
    region.newer()
    region.add(region.entries[1])  # a second first grant, if nothing stood before it
    assert outcomes(check(tmp_path, region)) == {"entries": "cannot decide"}


def test_a_plan_of_a_newer_release_cannot_be_decided(tmp_path, region):
    document = json.loads(plan_of(seed=1).document()) | {"format": NEWER}
    seq = region.approve(plan_of(seed=1))
    region.rewrite(seq, document=document, plan=canonical.digest(document))
    report = check(tmp_path, region)
    assert outcomes(report) == {"entries": "cannot decide"}
    assert f"entry {seq}, its plan: format {NEWER}" in texts(report, "entries")


def test_the_first_entry_of_a_newer_release_cannot_be_decided(tmp_path, region):
    region.rewrite(0, format=NEWER)
    report = check(tmp_path, region)
    assert outcomes(report) == {"archive": "cannot decide", "regions": "cannot decide"}
    assert report.exit_code == 11


def test_keys_epochs_and_releases_that_a_newer_release_may_have_changed(tmp_path, region):
    """What follows a newer entry may have turned a key, begun an epoch, or released a round."""
    region.newer()
    second = plan_of(seed=1)
    region.approve(second)
    region.round(second, 1)
    region.epoch = 1
    region.node = SigningKey.from_seed(region.node.name, b"k" * 32)
    report = check(tmp_path, region)
    assert (report.exit_code, set(outcomes(report).values())) == (11, {"cannot decide"})
    assert set(outcomes(report)) == {"entries", "signatures", "identity", "receipts"}


CONTRADICTIONS = {
    "an earlier entry": lambda region: region.edit(1, rho_max=1),
    "a checkpoint before it": lambda region: region.heads.update(
        {(0, 2): region.head(2).replace("\n2\n", "\n3\n")}
    ),
    "a later line that is no entry": lambda region: region.rewritten.update(
        {region.add(Incident(plan=None, code="other", text="x")): b'{"seq":1,"type":"gift"}'}
    ),
    "an unknown field in a known format": lambda region: region.rewrite(3, more=1),
    "a format that is no number": lambda region: region.rewrite(3, format="9"),
    "a format below all": lambda region: region.rewrite(3, format=0),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_contradiction_elsewhere_wins(tmp_path, region, name):
    region.newer()
    CONTRADICTIONS[name](region)
    assert check(tmp_path, region).exit_code == 10


def test_a_contradiction_of_another_region_wins(tmp_path, region):
    region.newer()
    other = Forge("US")
    other.story(plan_of())
    other.edit(1, rho_max=1)
    assert check(tmp_path, region, other).exit_code == 10


@pytest.mark.parametrize("seq", range(1, 8))
def test_whatever_claims_to_be_newer_never_holds(tmp_path, region, seq):
    region.rewrite(seq, format=NEWER)
    assert check(tmp_path, region).exit_code in (10, 11)


def test_the_next_ledger_after_one_that_can_be_read_in_part(tmp_path, region):
    region.newer()
    following = Forge(seed="next", previous=region.ledger)
    following.grant()
    report = check(tmp_path, region, following)
    assert outcomes(report) == {"entries": "cannot decide", "succession": "cannot decide"}


def test_receipts_of_a_newer_release_cannot_be_decided(tmp_path):
    region = Forge()
    region.story(plan_of())
    path, file = region.bundle(tmp_path), receipts(tmp_path, region)
    file.write_bytes(canonical.encode(json.loads(file.read_bytes()) | {"format": NEWER, "more": 1}))
    report = verify(load([path], receipts=file, trust=trust(tmp_path, region)))
    assert (outcomes(report), report.exit_code) == ({"coordinator": "cannot decide"}, 11)
    assert f"receipts.json: format {NEWER}" in texts(report, "coordinator")


def archive_of_a_newer_release(path: Path) -> Path:
    """The beginning of an archive whose manifest, headers and members are another release's."""
    manifest = canonical.encode({"format": NEWER, "kind": "fedfsd-bundle", "parts": []})
    head = bundle._LOCAL.pack(
        b"PK\x03\x04", 45, 0, 8, 0, 0x21, zlib.crc32(manifest), len(manifest), len(manifest), 11, 0
    )
    path.write_bytes(head + b"bundle.json" + manifest + b"and then what nobody knows")
    return path


def test_a_bundle_of_a_newer_release_cannot_be_decided(tmp_path):
    region = Forge()
    plan = region.story(plan_of())
    newer = archive_of_a_newer_release(tmp_path / "newer.zip")
    known = Forge()
    known.grant()
    known.approve(plan)
    report = verify(
        load(
            [known.bundle(tmp_path), newer],
            receipts=receipts(tmp_path, region),
            trust=trust(tmp_path, region),
        )
    )
    # The release of a receipt may be in the bundle that cannot be read.
    assert outcomes(report) == {"archive": "cannot decide", "receipts": "cannot decide"}
    assert f"format {NEWER}, written by a newer release" in texts(report, "archive")


def test_nothing_is_stated_of_what_can_be_read_in_part(tmp_path, region):
    seq = region.newer()
    paths = {"receipts": receipts(tmp_path, region), "trust": trust(tmp_path, region)}
    evidence = load([region.bundle(tmp_path)], **paths)
    found = verify(evidence)
    document, record = audit_report(evidence, found), transfers(evidence, found)
    told = statement(evidence, found)
    why = f"a newer release of fedfsd wrote entry {seq}"
    assert (told["outcome"], told["regions"][0]["guarantee"], told["joint"]["guarantee"]) == (
        "cannot decide",
        False,
        False,
    )
    assert f"No guarantee is stated: {why}." in " ".join(sentences(told).split())
    assert title(document) == "EU: no guarantee"
    for written in (page(document), markdown(document)):
        assert f"format {NEWER}" in written
        assert why in written
    assert {one["known"]["verification"] for one in record["transfers"]} == {"cannot decide"}
    assert {one["known"]["epsilon_cumulative"] for one in record["transfers"]} == {None}
    (part, _) = found.parts
    assert part.facts["grants"] == []


@pytest.mark.parametrize("command", ["verify", "statement", "report", "transfers"])
def test_the_commands_answer_with_11(tmp_path, region, capsys, command):
    region.newer()
    words = ["audit", command, str(region.bundle(tmp_path)), "--trust", str(trust(tmp_path, region))]
    with pytest.raises(SystemExit) as ended:
        run(words)
    assert ended.value.code == 11
    assert "cannot decide" in capsys.readouterr().out
