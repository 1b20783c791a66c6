"""Beside rounds: the gate declares, renews its certificate before the end, and notices a wrong clock."""

from __future__ import annotations

import datetime
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from coordinator.scene import until
from node import station_kit as kit
from node.coordinator_fake import Coordinator

from fedfsd.border import authority, identity
from fedfsd.border import border_pb2 as pb
from fedfsd.border.authority import Authority
from fedfsd.coordinator import declaration, invite, new_coordinator
from fedfsd.coordinator import folder as hubs
from fedfsd.errors import NotReadyError, RefusedError
from fedfsd.node import join, upkeep
from fedfsd.node.courier import Backoff
from fedfsd.node.node import Node, open_node

PEM = authority.Encoding.PEM


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> Path:
    """A coordinator's folder hub and a region's folder eu that has not joined."""
    path = tmp_path_factory.mktemp("begun")
    new_coordinator.make(new_coordinator.settings("hub"), path / "hub")
    kit.folder(path)
    return path


@pytest.fixture
def hub(begun, tmp_path) -> hubs.Coordinator:
    for name in ("hub", "eu"):
        shutil.copytree(begun / name, tmp_path / name)
    return hubs.open_coordinator(tmp_path / "hub")


@pytest.fixture
def eu(hub, tmp_path, monkeypatch) -> Node:
    """The region, joined, with a certificate that ends in 10 days."""
    node, days = open_node(tmp_path / "eu"), authority.DAYS
    request = join.prepare(
        node, invite.invite(hub, "EU", today=datetime.datetime.now(datetime.UTC).date()), officer=None
    )
    invite.accept(hub, "EU", request)
    ends(monkeypatch, 10)
    made = invite.confirm(hub, "EU", said=request.fingerprint).certificate
    ends(monkeypatch, days)
    (node.folder / "tls.next").rename(node.folder / "tls")
    authority.write_certificate(made, node.folder / "tls" / "region.crt")
    return node


def ends(monkeypatch, days: float) -> None:
    """Certificates end that many days after they are issued."""
    issue = Authority.issue
    while hasattr(issue, "original"):
        issue = issue.original

    def issued(self: Authority, party: Any, key: Any) -> Any:
        return issue(self, party, key, days=days)

    issued.original = issue
    monkeypatch.setattr(Authority, "issue", issued)


@pytest.fixture
def border(hub, tmp_path, monkeypatch) -> Coordinator:
    """The coordinator as the region's gate calls it; it renews like the real one."""
    monkeypatch.setattr(Backoff, "FIRST", 0.01)
    (tmp_path / "memory").mkdir()
    played = Coordinator(tmp_path / "memory", key=hub.key)
    played.twists["Renew"] = lambda answer, request: pb.Enrolled(
        certificate=invite.renew(hub, "EU", request.request).public_bytes(PEM)
    )
    return played


def days(node: Node) -> int:
    return join.peer(node).days_left


def logged(node: Node) -> list[dict[str, Any]]:
    return [json.loads(line) for line in kit.log(node.folder).splitlines()]


def test_a_certificate_is_renewed_before_its_end_for_the_same_key(hub, eu, border):
    key, old = join.peer(eu).key.read_bytes(), identity.read(join.peer(eu).certificate.read_bytes())
    assert days(eu) in (9, 10)
    with kit.working(eu.folder, border):
        until(lambda: days(eu) > 80)
        # A connection of its own for the new one; with it nothing is left to renew.
        border.wait(lambda: border.calls.count("Hello") == 2 and border.calls[-1] == "Next")
    assert border.calls.count("Renew") == 1
    join.peer(eu).demand_pair()
    assert join.peer(eu).key.read_bytes() == key
    new = identity.read(join.peer(eu).certificate.read_bytes())
    assert new.public_key() == old.public_key()
    assert identity.identify(new) == identity.region("hub", "EU")
    assert (hub.region("EU") / "region.crt").read_bytes() == new.public_bytes(PEM)
    issued = (hub.region("EU") / "issued").read_text().split()
    assert issued == [f"{one.serial_number:x}" for one in (old, new)]  # so that revoking knows of both
    assert invite.revoke(hub, "EU") == 2
    assert [one["days"] for one in logged(eu) if one["event"] == "certificate_renewed"] == [89]
    assert join.peer(eu).certificate.stat().st_mode & 0o077 == 0
    (entry,) = kit.entries(eu.folder, "incident")
    assert (entry.code, entry.plan) == ("key", None)
    assert entry.text == (
        f"border certificate renewed for the same key: serial {new.serial_number:x} until"
        f" {new.not_valid_after_utc:%Y-%m-%d}, in place of {old.serial_number:x}"
    )


def test_a_renewal_that_cannot_be_recorded_is_not_in_force(eu, border):
    def full(*_: Any) -> None:
        raise NotReadyError("mirror", got="no room", expected="a disk with room")

    before = {path: path.read_bytes() for path in (eu.folder / "tls").iterdir()}
    with kit.working(eu.folder, border, prepare=lambda made: setattr(made.ledger, "incident", full)):
        border.wait(lambda: border.calls.count("Next") > 2)  # and the region works on
    assert border.calls.count("Renew") == 1
    assert {path: path.read_bytes() for path in (eu.folder / "tls").iterdir()} == before


def test_what_is_not_due_or_was_answered_already_is_not_issued_again(hub, eu):
    request = authority.request(authority.read_key(join.peer(eu).key))
    first = invite.renew(hub, "EU", request)
    assert invite.renew(hub, "EU", request) == first  # the answer got lost
    assert len((hub.region("EU") / "issued").read_text().split()) == 2


def _other_key(hub: hubs.Coordinator, eu: Node) -> bytes:
    return authority.request(authority.new_key())


def _revoked(hub: hubs.Coordinator, eu: Node) -> bytes:
    invite.revoke(hub, "EU")
    return authority.request(authority.read_key(join.peer(eu).key))


def _replaced(hub: hubs.Coordinator, eu: Node) -> bytes:
    """The key of a certificate that is valid still, after the region got another pair."""
    old = authority.request(authority.read_key(join.peer(eu).key))
    request = join.prepare(
        eu, invite.invite(hub, "EU", today=datetime.datetime.now(datetime.UTC).date()), officer=None
    )
    invite.accept(hub, "EU", request)
    invite.confirm(hub, "EU", said=request.fingerprint)
    return old


def _nonsense(hub: hubs.Coordinator, eu: Node) -> bytes:
    return b"no request"


@pytest.mark.parametrize("asked", [_other_key, _revoked, _replaced, _nonsense])
def test_the_authority_signs_for_no_other_key_and_nobody_it_sent_away(hub, eu, asked):
    request = asked(hub, eu)
    before = {path: path.read_bytes() for path in hub.folder.rglob("*") if path.is_file()}
    with pytest.raises(RefusedError):
        invite.renew(hub, "EU", request)
    assert {path: path.read_bytes() for path in hub.folder.rglob("*") if path.is_file()} == before


def test_a_region_that_never_joined_renews_nothing(hub, eu):
    request = authority.request(authority.read_key(join.peer(eu).key))
    with pytest.raises(RefusedError):
        invite.renew(hub, "EU", request[:-1])
    hub.region("CN").mkdir()
    with pytest.raises(RefusedError):
        invite.renew(hub, "CN", request)


def _certificate(hub: hubs.Coordinator, request: bytes, **changes: Any) -> bytes:
    key = changes.get("key", authority.requested_key(request))
    root = changes.get("root", Authority.read(hub.ca))
    made = root.issue(changes.get("party", identity.region("hub", "EU")), key)
    return made.public_bytes(PEM)


BAD: dict[str, Callable[[hubs.Coordinator, bytes], bytes]] = {
    "another key": lambda hub, request: _certificate(hub, request, key=authority.new_key().public_key()),
    "another region": lambda hub, request: _certificate(hub, request, party=identity.region("hub", "US")),
    "another authority": lambda hub, request: _certificate(hub, request, root=Authority.new("hub")),
    "no certificate": lambda hub, request: b"-----BEGIN CERTIFICATE-----",
    "nothing": lambda hub, request: b"",
}


@pytest.mark.parametrize("bad", sorted(BAD))
def test_a_region_takes_no_other_certificate(hub, eu, border, bad):
    before = {path: path.read_bytes() for path in (eu.folder / "tls").iterdir()}
    border.twists["Renew"] = lambda answer, request: pb.Enrolled(certificate=BAD[bad](hub, request.request))
    with kit.working(eu.folder, border):
        border.wait(lambda: border.calls.count("Next") > 2)  # and the region works on
    assert {path: path.read_bytes() for path in (eu.folder / "tls").iterdir()} == before
    assert [one["event"] for one in logged(eu) if one["event"] == "offer_failed"] == ["offer_failed"]


def test_one_that_ends_no_later_is_not_taken(hub, eu, border, monkeypatch):
    ends(monkeypatch, 5)
    with kit.working(eu.folder, border):
        border.wait(lambda: border.calls.count("Next") > 2)
    assert days(eu) in (9, 10)
    assert border.calls.count("Hello") == 1


def test_a_coordinator_of_an_older_release_is_asked_for_nothing_of_this(eu, border):
    border.twists["Hello"] = lambda answer, request: pb.Welcome(version=2, size=answer.size)
    with kit.working(eu.folder, border):
        border.wait(lambda: border.calls.count("Next") > 2)
    assert not {"Declare", "Clock", "Renew"} & set(border.calls)


def test_a_clock_two_hours_off_is_told_once(eu, border):
    border.twists["Clock"] = lambda answer, request: pb.Now(seconds=int(time.time()) - 7200)
    with kit.working(eu.folder, border) as made:
        border.wait(lambda: border.calls.count("Next") > 2)
        assert made.tally.document()["clock_offset"] == pytest.approx(7200, abs=2)
    (told,) = [one for one in logged(eu) if one["event"] == "clock_off"]
    assert "got 2 h 0 min ahead of the coordinator's" in told["line"]


def test_the_policys_roster_and_identity_are_declared(eu, border):
    with kit.working(eu.folder, border):
        border.wait(lambda: border.declared)
    assert border.declared == pb.Declaration(roster=1000, identity=pb.IDENTITY_PHYSICAL)


def test_what_is_declared_is_kept(hub):
    assert declaration.read(hub, "EU") is None
    hub.region("EU").mkdir()
    first = declaration.Declaration(roster=7, identity="recording")
    assert [declaration.keep(hub, "EU", first) for _ in range(2)] == [True, False]
    assert declaration.read(hub, "EU") == first
    (hub.region("EU") / declaration.FILE).write_text("{")
    assert declaration.read(hub, "EU") is None


def test_every_hour_again(eu, border, monkeypatch):
    monkeypatch.setattr(upkeep, "AGAIN_SECONDS", 0.0)
    border.twists["Renew"] = lambda answer, request: pb.Enrolled()
    with kit.working(eu.folder, border):
        border.wait(lambda: border.calls.count("Renew") > 2)
    assert border.calls.count("Declare") == border.calls.count("Hello") == 1
