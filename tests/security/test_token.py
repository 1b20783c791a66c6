"""An invitation's token in many hands: one request is kept, whoever comes first, and people compare it."""

from __future__ import annotations

import datetime
import threading

import grpc
import pytest

from fedfsd.border import authority, enrolment
from fedfsd.border import border_pb2 as pb
from fedfsd.coordinator import invite, new_coordinator
from fedfsd.coordinator.enrolment_service import Enrolment
from fedfsd.coordinator.folder import Coordinator
from fedfsd.errors import RefusedError
from fedfsd.ledger.key import SigningKey

TODAY = datetime.datetime.now(datetime.UTC).date()
OFFICER = SigningKey.generate("fedfsd/EU/officer")


@pytest.fixture
def hub(tmp_path) -> Coordinator:
    return new_coordinator.make(new_coordinator.settings("roads", port=0, join_port=0), tmp_path / "hub")


class Context:
    """A call whose end is kept in ``code``."""

    code: grpc.StatusCode | None = None

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        assert details == ""
        self.code = code
        raise Exception


def request_with(token: str) -> pb.SigningRequest:
    """A good request with a key and a ledger of its own."""
    return pb.SigningRequest(
        token=bytes.fromhex(token),
        request=authority.request(authority.new_key()),
        node=str(SigningKey.generate(f"fedfsd/EU/{'a' * 32}").verification).encode(),
        officer=str(OFFICER.verification).encode(),
    )


def join(service: Enrolment, request: pb.SigningRequest) -> str:
    context = Context()
    try:
        assert service.Join(request, context).certificate == b""
    except Exception:
        if context.code is None:
            raise
        return context.code.name
    return "OK"


def kept(hub: Coordinator) -> enrolment.Request:
    return invite.waiting(hub, "EU")


def test_of_many_at_once_one_is_kept(hub):
    service, token = Enrolment(hub), invite.invite(hub, "EU", today=TODAY).token
    requests, found = [request_with(token) for _ in range(8)], {}
    together = threading.Barrier(8)

    def one(number: int) -> None:
        together.wait()
        found[number] = join(service, requests[number])

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found.values()) == ["OK", *["PERMISSION_DENIED"] * 7]
    (first,) = [number for number, code in found.items() if code == "OK"]
    assert kept(hub).request == requests[first].request.hex()


def test_a_thief_who_is_first_is_seen_and_shut_out(hub):
    """The region's people read other fingerprints; a new invitation ends the old token."""
    service, stolen = Enrolment(hub), invite.invite(hub, "EU", today=TODAY).token
    theirs, mine = request_with(stolen), request_with(stolen)
    assert (join(service, theirs), join(service, mine)) == ("OK", "PERMISSION_DENIED")
    said = enrolment.Request(
        request=mine.request.hex(), node=mine.node.decode(), officer=mine.officer.decode()
    )
    with pytest.raises(RefusedError, match="another fingerprint"):
        invite.confirm(hub, "EU", said=said.fingerprint)
    mine.token = bytes.fromhex(invite.invite(hub, "EU", today=TODAY).token)
    assert (join(service, theirs), join(service, mine)) == ("UNAUTHENTICATED", "OK")
    invite.confirm(hub, "EU", said=said.fingerprint)
    assert hub.regions() == ("EU",)
