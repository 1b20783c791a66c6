"""A region joins as its people type it: three machines, and what each of them shows on the way.

The last command, ``region up``, is typed by the story of a whole federation, which counts them all.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedfsd.coordinator.enrolment_service import serve_enrolment
from fedfsd.coordinator.folder import open_coordinator
from fedfsd.node import join, separation
from fedfsd.node.node import open_node
from fedfsd.service.owner import private

pytest_plugins = ["cli.typing_user"]
GRANT = "--data-set EU:fleet-2026 --epsilon 10 --delta 1e-4"
DECLARED = "--roster 1000 --identity physical --purpose 'training of a forecasting model'"


@pytest.fixture
def typed(fedfsd):
    """Type a line; what came out."""

    def call(line: str, code: int = 0):
        program, *words = shlex.split(line)
        said = fedfsd(*words)
        assert (program, said.code) == ("fedfsd", code), said.err or said.out
        return said

    return call


@pytest.fixture
def invited(typed, folder) -> Iterator[str]:
    """A coordinator that takes requests and has invited EU; its root's fingerprint, as told by phone."""
    typed("fedfsd coordinator init roads -o hub --port 1 --join-port 1")
    server, port = serve_enrolment(open_coordinator(Path("hub"), overrides=["join_port=0"]))
    path = Path("hub/coordinator.toml")
    path.write_text(path.read_text().replace("join_port = 1 ", f"join_port = {port} "))
    typed("fedfsd coordinator invite EU -C hub -o eu-invitation.json")
    for name in ("officer", "data", "second"):
        (folder / name).mkdir()
    try:
        with private():
            yield join.invitation.read(Path("eu-invitation.json")).fingerprint
    finally:
        server.stop(0).wait()


def checks(typed, code: int) -> dict[str, dict[str, str]]:
    found = json.loads(typed("fedfsd region doctor --region eu --json", code).out)
    return {one["check"]: one for one in found["checks"]}


@pytest.fixture
def unasked(monkeypatch) -> None:
    """A doctor that starts no processes to ask: those checks fail, and take no seconds."""
    silent = subprocess.CompletedProcess([], 1, "", "")
    monkeypatch.setattr(separation, "_run", lambda command, **_: silent)


@pytest.mark.slow
def test_from_nothing_to_a_region_that_can_go_up(typed, invited, folder, unasked):
    # 1. On the officer's machine; the public part goes to the region.
    typed("fedfsd keys new fedfsd/EU/officer -o officer/officer.key")
    shutil.copy("officer/officer.vkey", "officer.vkey")
    # 2. On the region's machine, once.
    said = typed(
        "fedfsd region init EU -o eu --mirror second --officer-vkey officer.vkey --data data"
        f" {DECLARED} {GRANT} --join eu-invitation.json --root-fingerprint {invited}"
    )
    assert "to be filled in" not in said.out
    (draft,) = Path("eu/drafts").iterdir()
    fingerprint = next(line.split()[-1] for line in said.out.splitlines() if line.startswith("fingerprint"))
    # Nothing is wrong: the officer signs, the coordinator's people confirm, the rest comes by itself.
    found = checks(typed, 4)
    assert {name for name, one in found.items() if one["outcome"] == "fail"} <= {
        "ledger",
        "data",
        "windows",
        "accelerator",
        "separation",
    }
    assert found["certificate"]["outcome"] == found["coordinator"]["outcome"] == "waits"
    assert fingerprint in found["certificate"]["found"]
    assert "region up" in found["certificate"]["fix"]
    assert found["budget"]["outcome"] == found["mirror"]["outcome"] == "waits"

    # At the coordinator, after a call.
    typed("fedfsd coordinator invite EU -C hub --confirm " + fingerprint.upper().replace("-", " ").join("''"))

    # 3. The officer reads everything and signs it in one go; 4. it goes back.
    shutil.copy(draft, "officer/draft.json")
    shown = typed("fedfsd region sign officer/draft.json --officer-key officer/officer.key").out
    assert "sign only if" in shown
    assert "epsilon 10 at delta 0.0001 on EU:fleet-2026, permanently" in shown
    added = typed("fedfsd region add officer/draft.signed.json --region eu").out
    assert added.rstrip().endswith("in the ledger as entries 0 and 1")
    (grant,) = json.loads(typed("fedfsd region status --region eu --json").out)["grants"]
    assert (grant["data_set"], grant["epsilon"], grant["delta"]) == ("EU:fleet-2026", 10, 1e-4)

    # 5. fedfsd region up, which fetches the certificate: what the gate does first.
    assert join.fetch_certificate(open_node(Path("eu")))
    found = checks(typed, 4)
    assert found["certificate"]["outcome"] == found["ledger"]["outcome"] == found["policy"]["outcome"] == "ok"
    # Nobody's secret went where it should not be.
    assert "PRIVATE" not in "".join(path.read_text(errors="replace") for path in folder.glob("hub/**/*.json"))
    assert not list(Path("eu").rglob("officer.key"))


def test_the_officer_is_shown_every_paper_and_signs_all_or_none(typed, invited):
    typed("fedfsd keys new fedfsd/EU/officer -o officer/officer.key")
    typed("fedfsd keys new fedfsd/US/officer -o officer/other.key")
    typed(f"fedfsd region init EU -o eu --officer-vkey officer/officer.vkey {GRANT}")
    (draft,) = Path("eu/drafts").iterdir()
    shutil.copy(draft, "officer/draft.json")
    assert "2 papers" not in typed("fedfsd region sign officer/draft.json").out
    typed("fedfsd region sign officer/draft.json --officer-key officer/other.key", 2)
    assert not Path("officer/draft.signed.json").exists()
    # Several drafts in one command; each signed beside its draft, or all in one file.
    genesis, grant = draft.read_text(encoding="utf-8").splitlines()
    Path("officer/a.json").write_text(genesis + "\n")
    Path("officer/b.json").write_text(grant + "\n")
    typed("fedfsd region sign officer/a.json officer/b.json --officer-key officer/officer.key")
    typed("fedfsd region sign officer/a.json officer/b.json --officer-key officer/officer.key -o all.json")
    apart = Path("officer/a.signed.json").read_text() + Path("officer/b.signed.json").read_text()
    assert Path("all.json").read_text() == apart
    # The order is the ledger's: a grant cannot come before there is one.
    typed("fedfsd region add officer/b.signed.json --region eu", 4)
    typed("fedfsd region add officer/a.signed.json --region eu")
    typed("fedfsd region add all.json --region eu")  # the genesis is there already
    assert len(json.loads(typed("fedfsd region status --region eu --json").out)["grants"]) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("--data-set EU:fleet", 2),
        ("--epsilon 10 --delta 1e-4", 2),
        ("--data-set EU:fleet --epsilon 10 --delta 1e-2 --roster 1000", 3),
        ("--data-set EU:fleet --epsilon 0 --delta 1e-4", 3),
        ("--data-set EU:fleet --epsilon nan --delta 1e-4", 3),
        ("--identity car", 2),
        ("--roster 0", 2),
    ],
)
def test_a_beginning_with_a_budget_that_cannot_be_leaves_nothing(typed, folder, words, code):
    typed("fedfsd keys new fedfsd/EU/officer -o officer.key")
    before = sorted(folder.rglob("*"))
    said = typed(f"fedfsd region init EU -o eu --officer-vkey officer.vkey {words}", code)
    assert said.err.count("\n") == 1
    assert sorted(folder.rglob("*")) == before


def test_a_key_never_takes_the_place_of_another(typed, folder):
    typed("fedfsd keys new fedfsd/EU/officer -o officer.key")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    (folder / "officer.key").rename(folder / "away.key")
    typed("fedfsd keys new fedfsd/EU/officer -o officer.key", 2)  # its public part is still there
    assert (folder / "officer.vkey").read_bytes() == before[folder / "officer.vkey"]
    assert not (folder / "officer.key").exists()
    typed("fedfsd keys new fedfsd/EU/officer -o officer.vkey", 2)
