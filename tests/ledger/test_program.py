"""What trains is on record: hashed from the installed files, booked with a plan, exchanged on purpose."""

from __future__ import annotations

import hashlib
import json
from importlib import metadata
from pathlib import Path

import books
import pytest
from ledger.ledger_kit import ARRAYS, NODE, OFFICER, approve, grant, mirror, plan_of, ready, reopen, run_round

from fedfsd import canonical
from fedfsd.errors import BudgetError, NotReadyError, RefusedError
from fedfsd.ledger import digest, entry
from fedfsd.ledger import program as programs
from fedfsd.ledger.entry import Package, Program
from fedfsd.ledger.error import EvidenceError

PLAN = plan_of()


def program(number: int = 1) -> Program:
    return Program(
        code=f"{number:064x}",
        version="0.2.0",
        packages={"torch": Package(version="2.13.0", sha256=f"{number + 1:064x}")},
    )


def kinds(folder: Path) -> list[str]:
    return [json.loads(line)["type"] for line in mirror(folder).read_text().splitlines()]


@pytest.fixture
def ledger(tmp_path):
    return ready(tmp_path, PLAN)


def test_the_first_booking_puts_it_on_record_and_the_next_ones_do_not(ledger, tmp_path):
    for round in (1, 2):
        ledger.reserve(PLAN.hash, round, ARRAYS[round], program=program())
    assert kinds(tmp_path)[-4:] == ["plan", "program", "reserve", "reserve"]
    written = entry.parse(ledger.content(3))
    assert (written.format, written.plan, written.program) == (3, PLAN.hash, program())
    assert reopen(tmp_path).state.runs[PLAN.hash].program == program()


@pytest.mark.parametrize("other", [program(2), None])
def test_another_program_books_nothing_until_it_is_accepted(ledger, tmp_path, other):
    ledger.accept_program(PLAN.hash, program())
    ledger.reserve(PLAN.hash, 1, ARRAYS[1], program=program())
    for round in (1, 2):  # one that is booked and not released is not trained by it either
        with pytest.raises(RefusedError, match="fedfsd region approve") as caught:
            ledger.reserve(PLAN.hash, round, ARRAYS[round], program=other)
        assert caught.value.place == f"program of plan {PLAN.hash[:8]}"
    assert kinds(tmp_path)[-4:] == ["program", "reserve", "refuse", "refuse"]
    ledger.accept_program(PLAN.hash, program(2))
    ledger.accept_program(PLAN.hash, program(2))
    ledger.reserve(PLAN.hash, 2, ARRAYS[2], program=program(2))
    assert kinds(tmp_path)[-2:] == ["program", "reserve"]


def test_what_was_released_is_sent_again_whatever_trains_now(ledger):
    first = run_round(ledger, PLAN, 1)
    ledger.accept_program(PLAN.hash, program())
    assert ledger.released(ledger.reserve(PLAN.hash, 1, ARRAYS[1], program=program(2))).content == first


def test_a_plan_of_an_earlier_release_goes_on_and_from_then_on_is_bound(ledger, tmp_path):
    """Its ledger names no program: the one that books next is put on record."""
    run_round(ledger, PLAN, 1)
    assert "program" not in kinds(tmp_path)
    ledger.reserve(PLAN.hash, 2, ARRAYS[2], program=program())
    with pytest.raises(RefusedError):
        ledger.reserve(PLAN.hash, 3, ARRAYS[3], program=program(2))


def test_a_simulation_records_each_program_and_asks_nobody(tmp_path):
    books.begin(tmp_path / "node", mirror(tmp_path), node=NODE, officer=OFFICER, simulated=True).close()
    ledger = reopen(tmp_path)
    grant(ledger)
    approve(ledger, PLAN)
    for round in (1, 2, 3):
        ledger.reserve(PLAN.hash, round, ARRAYS[round], program=program(round // 2))
    assert kinds(tmp_path)[-5:] == ["program", "reserve", "program", "reserve", "reserve"]


def test_a_program_belongs_to_an_open_plan_and_changes(ledger):
    with pytest.raises(BudgetError):
        ledger.accept_program("0" * 64, program())
    ledger.accept_program(PLAN.hash, program())
    again = entry.ProgramEntry(seq=ledger.state.size, plan=PLAN.hash, program=program())
    with pytest.raises(EvidenceError, match="same program"):
        ledger.state.apply(again, entry.encode(again))
    ledger.settle(PLAN.hash)
    with pytest.raises(BudgetError):
        ledger.accept_program(PLAN.hash, program(2))


# The hashes themselves.


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """An installed package with code, a library beside it, and files that are the machine's own."""
    site = tmp_path / "site"
    files = {
        "fake/__init__.py": "one = 1",
        "fake/_C.so": "machine code",
        "fake.libs/libfake.so.3.1": "more",
        "fake/data.txt": "not code",
        "fake-1.0.dist-info/direct_url.json": "{}",
        "fake-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: fake\nVersion: 1.0\n",
    }
    for name, text in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    listed = "".join(f"{name},,\n" for name in [*files, "../../bin/fake.py", "fake/__pycache__/x.pyc"])
    (site / "fake-1.0.dist-info" / "RECORD").write_text(listed)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(programs, "COMPUTES", ("fake",))
    return site / "fake"


def asked(cache: Path) -> Package:
    """The package as a process finds it that starts now."""
    programs._program.cache_clear()
    try:
        return programs.installed(cache).packages["fake"]
    finally:
        programs._program.cache_clear()


def test_the_hash_is_over_the_code_of_a_package(package, tmp_path):
    names = ("fake/__init__.py", "fake/_C.so", "fake.libs/libfake.so.3.1")
    files = {name: hashlib.sha256((package.parent / name).read_bytes()).hexdigest() for name in names}
    expected = hashlib.sha256(json.dumps(files, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    assert asked(tmp_path / "cache") == Package(version="1.0", sha256=expected)
    (package / "data.txt").write_text("changed")
    assert asked(tmp_path / "cache").sha256 == expected


def test_a_change_is_noticed_whatever_the_cache_says(package, tmp_path):
    cache = tmp_path / "cache"
    first = asked(cache)
    assert asked(cache) == first
    kept = json.loads((cache / programs.CACHE).read_text())
    (package / "_C.so").write_text("MACHINE code")  # of the same length, a moment later
    changed = asked(cache)
    assert changed.sha256 != first.sha256
    # The cache is believed where nothing changed, and only where nobody else could write it.
    kept["fake"] = {**json.loads((cache / programs.CACHE).read_text())["fake"], "sha256": "0" * 64}
    (cache / programs.CACHE).write_text(json.dumps(kept))
    assert asked(cache).sha256 == "0" * 64
    (cache / programs.CACHE).chmod(0o666)
    assert asked(cache) == changed
    for broken in ("[]", "{", '{"fake": 3}', '{"fake": {"stamp": 1}}'):
        (cache / programs.CACHE).write_text(broken)
        (cache / programs.CACHE).chmod(0o600)
        assert asked(cache) == changed


def test_without_a_place_for_the_cache_it_is_hashed_each_time(package, tmp_path):
    (tmp_path / "file").touch()
    assert asked(tmp_path / "file") == asked(tmp_path / "cache")


def test_what_cannot_be_hashed_is_named(package, tmp_path, monkeypatch):
    (package.parent / "fake-1.0.dist-info" / "RECORD").unlink()
    with pytest.raises(NotReadyError, match="RECORD"):
        asked(tmp_path)
    monkeypatch.setattr(programs, "COMPUTES", ("none-such",))
    with pytest.raises(NotReadyError, match="none-such"):
        asked(tmp_path)


def test_the_program_is_this_code_and_what_it_computes_with():
    found = programs.installed()
    assert found.code == digest.code()
    assert {name: one.version for name, one in found.packages.items()} == {
        name: metadata.version(name) for name in ("cryptography", "numpy", "opacus", "torch")
    }
    assert found.hash == canonical.digest(found.model_dump())
