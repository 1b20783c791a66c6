"""``fedfsd coordinator status``: processes, every state of a region, plans with answers, what arrived."""

from __future__ import annotations

import json
import os
import time

import pytest
from operator_kit import plan

from fedfsd.audit.receipt import Receipt
from fedfsd.border import authority, identity
from fedfsd.border.authority import Authority
from fedfsd.border.enrolment import Request
from fedfsd.coordinator import new_coordinator
from fedfsd.coordinator.folder import Coordinator
from fedfsd.coordinator.receipt_book import ReceiptBook
from fedfsd.coordinator.status import status
from fedfsd.ledger.key import SigningKey
from fedfsd.service import lock
from fedfsd.service.supervise import LOCK, STATE

pytest_plugins = ["typing_user"]


@pytest.fixture
def hub(folder) -> Coordinator:
    """A coordinator that nothing runs for."""
    return new_coordinator.make(new_coordinator.settings("roads"), folder / "hub")


def enrol(hub: Coordinator, name: str, *, days: int | None = None) -> None:
    """A certificate as ``invite --confirm`` issues it."""
    folder = hub.region(name)
    folder.mkdir(parents=True)
    issued = Authority.read(hub.ca).issue(
        identity.region(hub.name, name), authority.new_key().public_key(), **({"days": days} if days else {})
    )
    authority.write_certificate(issued, folder / "region.crt")


def ask(hub: Coordinator, name: str) -> None:
    """A signing request that nobody confirmed."""
    vkey = str(SigningKey.generate(f"fedfsd/{name}/officer").verification)
    made = Request(request=authority.request(authority.new_key()).hex(), node=vkey, officer=vkey)
    hub.region(name).mkdir(parents=True, exist_ok=True)
    made.write(hub.region(name) / "request.json")


def runs(hub: Coordinator, **gate: object) -> None:
    """What the processes write while they run; the gate is this process."""
    (hub.folder / "run").mkdir(exist_ok=True)
    rows = [
        {"name": name, "pid": os.getpid(), "ready": True, "restarts": 0, "exit_code": None, "said": None}
        for name in ("superlink", "superexec", "gate")
    ]
    state = {"pid": os.getpid(), "since": "2026-11-22T10:00:00+00:00", "processes": rows}
    (hub.folder / STATE).write_text(json.dumps(state), encoding="utf-8")
    (hub.folder / "status.json").write_text(json.dumps({"pid": os.getpid(), **gate}), encoding="utf-8")


def test_nothing_runs(hub, fedfsd):
    said = fedfsd("coordinator", "status", "-C", "hub", "--json")
    assert said.code == 0
    assert (said.document["ready"], said.document["up"]) == (False, None)
    assert said.document["certificate_days"] > 30
    assert (
        "NOT ready\nprocesses: no fedfsd coordinator up" in fedfsd("coordinator", "status", "-C", "hub").out
    )


def test_every_state_of_a_region(hub, fedfsd):
    enrol(hub, "CN")
    enrol(hub, "EU", days=3)
    enrol(hub, "JP")
    ask(hub, "JP")  # renews
    ask(hub, "SG")
    hub.region("UK").mkdir()
    (hub.region("UK") / "issued").touch()
    hub.region("US").mkdir()
    (hub.region("US") / "invitation.json").touch()
    found = status(hub)
    states = {one["name"]: one["state"] for one in found["regions"]}
    assert states == {
        "CN": "enrolled",
        "EU": "enrolled",
        "JP": "waiting",
        "SG": "waiting",
        "UK": "revoked",
        "US": "invited",
    }
    assert [one.split(":")[0] for one in found["warnings"]] == [
        "the certificate of region EU ends in 2 days",
        "region JP asks for its certificate",
        "region SG asks for its certificate",
    ]


def test_all_runs(hub, fedfsd):
    enrol(hub, "EU")
    task = {"plan": "ab" * 32, "round": 3, "stage": "open"}
    last = {"plan": "ab" * 32, "round": 2, "outcome": "received"}
    region = {"seen": 1_795_000_000, "task": task, "last": last, "refusals": {"refused": 2}}
    with lock.hold(hub.folder / LOCK, what="up"):
        runs(hub, regions={"EU": region}, plans={})
        found = status(hub)
        text = fedfsd("coordinator", "status", "-C", "hub").out
        assert found["ready"]
        (mine,) = found["regions"]
        assert (mine["task"], mine["last"], mine["refusals"]) == (task, last, {"refused": 2})
        assert mine["seen"] == "2026-11-18T11:06:40+00:00"
        assert "abababab round 3 open  abababab round 2 received  refused 2" in text
        gone = {"pid": 2**22 - 1, "regions": {"EU": region}}  # a gate that was killed
        (hub.folder / "status.json").write_text(json.dumps(gone), encoding="utf-8")
        found = status(hub)
        assert not found["ready"]
        assert found["regions"][0]["last"] == last


def test_a_region_that_is_away_or_there_twice_is_told_of(hub):
    one = plan()
    enrol(hub, "EU")
    (hub.offers / f"{one.hash}.json").write_text(one.document(), encoding="utf-8")
    region = {"seen": int(time.time()), "task": None, "last": None, "refusals": {}}

    def warned(**facts):
        runs(hub, regions={"EU": region | facts}, plans={})
        return [line.partition(" at ")[0] for line in status(hub)["warnings"]]

    away = "region EU takes part in a run and was last heard of"
    assert warned(seen=1_795_000_000) == []  # it has not approved yet
    (hub.offers / one.hash).mkdir()
    (hub.offers / one.hash / "EU.json").write_text('{"approved": true}', encoding="utf-8")
    assert warned() == []
    assert warned(seen=1_795_000_000) == [away]
    assert warned(seen=None) == [away]
    assert warned(doubled=1_795_000_000) == ["two nodes used the key of region EU"]
    assert warned(objection="upgrade fedfsd") == ["region EU: upgrade fedfsd"]


def test_a_second_up_is_refused(hub, fedfsd):
    with lock.hold(hub.folder / LOCK, what="fedfsd coordinator up"):
        said = fedfsd("coordinator", "up", "-C", "hub")
    assert said.code == 4
    assert "is already running" in said.err


def test_plans_on_offer_and_what_arrived(hub, fedfsd):
    one = plan()
    (hub.offers / f"{one.hash}.json").write_text(one.document(), encoding="utf-8")
    (hub.offers / "broken.json").write_text("{", encoding="utf-8")
    assert status(hub)["plans"][0]["answers"] == {"EU": None}
    assert "EU pending" in fedfsd("coordinator", "status", "-C", "hub").out
    (hub.offers / one.hash).mkdir()
    for said, shown in (({"approved": True}, "approved"), ({"approved": False, "code": "budget"}, "budget")):
        (hub.offers / one.hash / "EU.json").write_text(json.dumps(said), encoding="utf-8")
        assert status(hub)["plans"][0]["answers"] == {"EU": shown}
    book = ReceiptBook(hub.receipts, hub.key)
    for round in (1, 2):
        receipt = Receipt(
            region="EU", plan=one.hash, round=round, entry="ab" * 32, sha256="cd" * 32, bytes=4096
        )
        book.sign(receipt, "")
    assert status(hub)["received"] == [
        {"plan": one.hash, "regions": {"EU": {"releases": 2, "last_round": 2}}}
    ]


def test_its_processes_need_nothing_of_each_other_to_start(hub, monkeypatch):
    from fedfsd.coordinator import up
    from fedfsd.flower.engine import Engine

    engine = Engine(hub.flower, hub.settings.flower_port)
    found = {process.name: process for process in up.processes(hub, engine)}
    assert list(found) == ["superlink", "superexec", "gate"]
    assert found["superlink"].env["FLWR_TELEMETRY_ENABLED"] == "0"
    assert not up.gate_runs(hub.folder)
    (hub.folder / "status.json").write_text(json.dumps({"pid": os.getpid()}), encoding="utf-8")
    assert up.gate_runs(hub.folder)
    assert list(found["gate"].argv[-2:]) == ["--coordinator", str(hub.folder.absolute())]
