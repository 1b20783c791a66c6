"""The coordinator's doctor: fit but for what only running shows, then one broken thing at a time."""

from __future__ import annotations

import datetime
import socket
from contextlib import closing
from pathlib import Path

import pytest

from fedfsd.border import authority
from fedfsd.border.enrolment import Request
from fedfsd.coordinator import doctor, invite, new_coordinator, up
from fedfsd.coordinator.folder import Coordinator, open_coordinator
from fedfsd.errors import NotReadyError
from fedfsd.ledger.key import SigningKey
from fedfsd.service import lock
from fedfsd.service.diagnosis import CheckResult
from fedfsd.service.owner import private
from fedfsd.service.supervise import LOCK, STATE

TODAY = datetime.datetime.now(datetime.UTC).date()


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def hub(tmp_path) -> Coordinator:
    """A coordinator that one region joined."""
    ports = {"port": free_port(), "join_port": free_port(), "flower_port": free_port()}
    with private():
        made = new_coordinator.make(new_coordinator.settings("hub", **ports), tmp_path / "hub")
        confirmed(made, "EU")
    return made


def confirmed(hub: Coordinator, region: str) -> None:
    request = asked(hub, region)
    invite.confirm(hub, region, said=request.fingerprint)


def asked(hub: Coordinator, region: str) -> Request:
    invite.invite(hub, region, today=TODAY)
    request = Request(
        request=authority.request(authority.new_key()).hex(),
        node=str(SigningKey.generate(f"fedfsd/{region}/{'a' * 32}").verification),
        officer=str(SigningKey.generate(f"fedfsd/{region}/officer").verification),
    )
    invite.accept(hub, region, request)
    return request


def found(hub: Coordinator, check: str) -> CheckResult:
    findings = {one.check: one for one in doctor.examine(open_coordinator(hub.folder))}
    assert list(findings) == [one.__name__ for one in doctor.CHECKS]
    return findings[check]


def test_a_fit_coordinator_that_does_not_run(hub):
    outcomes = {one.check: one.outcome for one in doctor.examine(hub)}
    assert outcomes.pop("ports") == "warn"
    assert set(outcomes.values()) == {"ok"}, outcomes


def issue(hub: Coordinator, path: Path, **options: float) -> None:
    root, key = authority.Authority.read(hub.ca), authority.read_key(hub.tls_key)
    authority.write_certificate(root.issue(hub.identity, key.public_key(), **options), path)


BREAKS = [
    ("keys", "fail", lambda hub: (hub.folder / "coordinator.key").unlink(), "keys new"),
    ("keys", "fail", lambda hub: (hub.ca / "root.key").chmod(0o640), "chmod"),
    ("keys", "fail", lambda hub: hub.folder.chmod(0o755), "chmod"),
    ("root", "fail", lambda hub: hub.root.unlink(), "path"),
    ("root", "fail", lambda hub: issue(hub, hub.root, days=-1), "new federation"),
    ("root", "warn", lambda hub: issue(hub, hub.root, days=100), "new federation"),
    ("certificate", "fail", lambda hub: issue(hub, hub.tls_certificate, days=-1), "restart"),
    ("certificate", "warn", lambda hub: issue(hub, hub.tls_certificate, days=9), "restart"),
    ("certificate", "fail", lambda hub: hub.tls_key.chmod(0o644), "chmod"),
    ("revoked", "fail", lambda hub: hub.revoked.write_text("EU\n"), "serial"),
    ("revoked", "fail", lambda hub: hub.revoked.unlink(), "path"),
    ("regions", "warn", lambda hub: asked(hub, "US"), "--confirm FINGERPRINT"),
    ("regions", "warn", lambda hub: asked(hub, "EU"), "--confirm FINGERPRINT"),
    ("regions", "warn", lambda hub: invite.revoke(hub, "EU"), "fedfsd coordinator invite"),
    ("regions", "warn", lambda hub: issue(hub, hub.region("EU") / "region.crt", days=5), "invite REGION"),
]


@pytest.mark.parametrize(("check", "outcome", "breaking", "fix"), BREAKS)
def test_one_broken_thing_is_told_with_its_fix(hub, check, outcome, breaking, fix):
    breaking(hub)
    told = found(hub, check)
    assert told.outcome == outcome, told
    assert fix in str(told.fix)


def test_another_flower_is_told(hub, monkeypatch):
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "1.42.0")
    assert found(hub, "engine").outcome == "fail"
    monkeypatch.undo()
    monkeypatch.setattr(doctor, "SCRIPTS", ("no-such-script",))
    assert "no-such-script" in found(hub, "engine").found


def test_ports_of_others_and_of_its_own(hub):
    with socket.create_server(("127.0.0.1", hub.settings.port)):
        told = found(hub, "ports")
        assert (told.outcome, f"port {hub.settings.port}" in told.found) == ("fail", True)
        with lock.hold(hub.folder / LOCK, what="up"):  # up runs, and half of it answers
            told = found(hub, "ports")
            assert told.found == f"join_port {hub.settings.join_port} not served"
            with socket.create_server(("127.0.0.1", hub.settings.join_port)):
                assert found(hub, "ports").outcome == "ok"


def test_up_refuses_ports_of_others_and_starts_nothing(hub, monkeypatch):
    monkeypatch.setattr(up, "ENDING_SECONDS", 0.0)
    monkeypatch.setattr(up.os, "umask", lambda _: 0)  # of this process
    with (
        socket.create_server(("127.0.0.1", hub.settings.join_port)),
        pytest.raises(NotReadyError, match=f"join_port {hub.settings.join_port}, which are not available"),
    ):
        up.up(hub, say=lambda _: None)
    assert not (hub.folder / STATE).exists()
