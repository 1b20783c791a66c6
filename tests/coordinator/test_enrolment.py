"""From an invitation to a certificate: what each side's people confirm, and everything that is refused."""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from pki_kit import Callers, hello, hub_border, outcome

from fedfsd.border import authority, channel, enrolment, identity, invitation, rpc
from fedfsd.border import border_pb2 as pb
from fedfsd.coordinator import invite, new_coordinator
from fedfsd.coordinator.enrolment_service import BURST, serve_enrolment
from fedfsd.coordinator.folder import Coordinator, open_coordinator
from fedfsd.errors import NotReadyError, RefusedError, UsageError
from fedfsd.ledger.key import SigningKey
from fedfsd.node import join
from fedfsd.node.new_region import make as make_region
from fedfsd.node.node import Node

TODAY = datetime.datetime.now(datetime.UTC).date()
OFFICER = SigningKey.generate("fedfsd/EU/officer")


@pytest.fixture
def hub(tmp_path):
    """A coordinator whose join listener runs on a free port."""
    made = new_coordinator.make(new_coordinator.settings("roads", port=0, join_port=0), tmp_path / "hub")
    server, port = serve_enrolment(made)
    yield open_coordinator(made.folder, overrides=[f"join_port={port}"])
    server.stop(0).wait()


@pytest.fixture
def eu(tmp_path) -> Node:
    """A region whose ledger has not begun yet."""
    node, _ = make_region("EU", tmp_path / "eu", mirror=None, officer=OFFICER.verification)
    return node


def asked(hub: Coordinator, node: Node) -> enrolment.Request:
    """The request that waits at the coordinator after an invitation."""
    request = join.prepare(node, invite.invite(hub, "EU", today=TODAY), officer=OFFICER.verification)
    assert not join.fetch_certificate(node)
    return request


def confirm(hub: Coordinator, request: enrolment.Request) -> invite.Confirmed:
    return invite.confirm(hub, "EU", said=request.fingerprint)


def call(hub: Coordinator, node: Node, callers: Callers) -> tuple[grpc.StatusCode, str]:
    """What a call of the region over the coordinator's border ends with."""
    mine = join.peer(node)
    files = {"root": mine.root, "key": mine.key, "certificate": mine.certificate}
    with (
        hub_border(hub, callers) as address,
        channel.open_channel(address, **files, expected_uri=mine.expected_uri) as opened,
    ):
        return outcome(lambda: hello(opened))


def test_a_region_joins_when_its_fingerprint_is_confirmed(hub, eu):
    request = asked(hub, eu)
    with pytest.raises(NotReadyError, match="no certificate yet"):
        join.peer(eu)
    # Whatever somebody in between changed: the request, or a key of the ledger.
    other = SigningKey.generate(request.node.split("+")[0]).verification
    changed = [
        request.model_copy(update={"request": authority.request(authority.new_key()).hex()}),
        request.model_copy(update={"node": str(other)}),
        request.model_copy(update={"officer": str(SigningKey.generate("fedfsd/EU/officer").verification)}),
        request.model_copy(update={"node": request.officer, "officer": request.node}),
    ]
    for said in (*(one.fingerprint for one in changed), request.fingerprint[:-1], ""):
        with pytest.raises(RefusedError, match="another fingerprint"):
            invite.confirm(hub, "EU", said=said)
    assert not join.fetch_certificate(eu)
    assert hub.regions() == ()
    # However people group the digits.
    assert not invite.confirm(hub, "EU", said=request.fingerprint.replace("-", ":").upper()).changed
    assert join.fetch_certificate(eu)
    assert join.fetch_certificate(eu)  # nothing left to ask
    assert hub.regions() == ("EU",)
    assert hub.officer_key("EU") == OFFICER.verification
    assert str(hub.node_key("EU")).startswith("fedfsd/EU/")
    callers = Callers()
    assert call(hub, eu, callers)[0] == grpc.StatusCode.OK
    assert callers.seen == ["EU"]
    assert join.peer(eu).invitation.coordinator_key == hub.key.verification
    assert join.peer(eu).address == "127.0.0.1:0"
    assert 85 < join.peer(eu).days_left <= authority.DAYS


def test_the_private_key_stays_and_every_file_is_its_owners(hub, eu):
    confirm(hub, asked(hub, eu))
    join.fetch_certificate(eu)
    secret = join.peer(eu).key.read_bytes().splitlines()[1]
    kept = [path for path in hub.folder.rglob("*") if path.is_file()]
    assert not [path for path in kept if secret in path.read_bytes()]
    token = join.peer(eu).invitation.token
    assert not [path for path in kept if token.encode() in path.read_bytes()]
    for path in [*(eu.folder / "tls").rglob("*"), *hub.ca.rglob("*"), *(hub.folder / "tls").rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_certificate_says_what_the_authority_says_whatever_was_wished(hub):
    key = authority.new_key()
    wish = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hub")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(identity.host_name("fedfsd://roads/coordinator"))]),
            critical=False,
        )
        .sign(key, SHA256())
    )
    node = SigningKey.generate(f"fedfsd/EU/{'a' * 32}")
    invite.invite(hub, "EU", today=TODAY)
    request = enrolment.Request(
        request=wish.public_bytes(Encoding.DER).hex(),
        node=str(node.verification),
        officer=str(OFFICER.verification),
    )
    invite.accept(hub, "EU", request)
    made = confirm(hub, request).certificate
    assert identity.identify(made) == identity.region("roads", "EU")
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [type(name) for name in names] == [x509.UniformResourceIdentifier]
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert made.subject.rfc4514_string() == "CN=EU"


# What the join listener refuses; nothing is kept of it, and nothing said about it.


def message(hub: Coordinator, **changes: bytes) -> pb.SigningRequest:
    """A good request with ``changes``."""
    node = SigningKey.generate(f"fedfsd/EU/{'a' * 32}")
    fields = {
        "token": bytes.fromhex(invite.invite(hub, "EU", today=TODAY).token),
        "request": authority.request(authority.new_key()),
        "node": str(node.verification).encode(),
        "officer": str(OFFICER.verification).encode(),
    }
    return pb.SigningRequest(**(fields | changes))


def send(hub: Coordinator, request: pb.SigningRequest) -> tuple[grpc.StatusCode, str]:
    with channel.open_channel(
        f"127.0.0.1:{hub.settings.join_port}",
        root=hub.root,
        key=None,
        certificate=None,
        expected_uri=str(hub.identity),
    ) as opened:
        return outcome(lambda: rpc.stub(opened, rpc.ENROLMENT).Join(request, timeout=5))


def csr(key) -> bytes:
    draft = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return draft.sign(key, SHA256()).public_bytes(Encoding.DER)


def broken() -> bytes:
    content = bytearray(authority.request(authority.new_key()))
    content[-1] ^= 1
    return bytes(content)


US = str(SigningKey.generate("fedfsd/US/" + "b" * 32).verification).encode()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"token": bytes(32)}, "UNAUTHENTICATED"),
        ({"token": b""}, "INVALID_ARGUMENT"),
        ({"request": b"no request"}, "PERMISSION_DENIED"),
        ({"request": broken()}, "PERMISSION_DENIED"),
        ({"request": csr(ec.generate_private_key(ec.SECP384R1()))}, "PERMISSION_DENIED"),
        ({"request": csr(rsa.generate_private_key(65537, 2048))}, "PERMISSION_DENIED"),
        ({"request": bytes(9000)}, "INVALID_ARGUMENT"),
        ({"request": bytes(5000)}, "INVALID_ARGUMENT"),
        ({"node": US}, "PERMISSION_DENIED"),
        ({"officer": US}, "PERMISSION_DENIED"),
        ({"node": str(OFFICER.verification).encode()}, "PERMISSION_DENIED"),
        ({"node": b"\xff\xfe"}, "INVALID_ARGUMENT"),
        ({"node": b"text /data/secret"}, "PERMISSION_DENIED"),
    ],
)
def test_a_request_that_cannot_be_is_refused_with_a_code_alone(hub, caplog, changes, code):
    found, text = send(hub, message(hub, **changes))
    assert (found.name, text) == (code, "")
    assert not (hub.region("EU") / "request.json").exists()
    assert "refused" in caplog.text
    assert "secret" not in caplog.text


def test_unknown_fields_are_refused(hub):
    good = message(hub)
    assert send(hub, pb.SigningRequest.FromString(good.SerializeToString() + b"\xfa\x07\x01x"))[0].name == (
        "INVALID_ARGUMENT"
    )
    assert send(hub, good)[0].name == "OK"


def test_a_token_is_good_for_one_request_until_its_last_day(hub, eu, monkeypatch):
    first = message(hub)
    assert send(hub, first)[0].name == "OK"
    assert send(hub, first)[0].name == "OK"  # asking again is not another request
    for field in ("request", "node"):
        other = pb.SigningRequest.FromString(first.SerializeToString())
        setattr(other, field, getattr(message_parts(), field))
        assert send(hub, other)[0].name == "PERMISSION_DENIED"
    late = invite.invite(hub, "EU", today=TODAY - datetime.timedelta(days=invite.VALID_DAYS + 1))
    with pytest.raises(NotReadyError, match="one that expired"):
        join.prepare(eu, late, officer=OFFICER.verification)
    monkeypatch.setattr(join, "demand_current", lambda _: None)  # a region that does not look
    join.prepare(eu, late, officer=OFFICER.verification)
    with pytest.raises(RefusedError, match="not expired"):
        join.fetch_certificate(eu)
    with pytest.raises(NotReadyError, match="no signing request"):
        invite.waiting(hub, "EU")


def message_parts() -> pb.SigningRequest:
    node = SigningKey.generate(f"fedfsd/EU/{'c' * 32}")
    return pb.SigningRequest(
        request=authority.request(authority.new_key()), node=str(node.verification).encode()
    )


def test_the_listener_takes_few_requests_a_second(hub):
    request = message(hub, token=bytes(32))
    codes = [send(hub, request)[0].name for _ in range(int(BURST) + 5)]
    assert codes[0] == "UNAUTHENTICATED"
    assert "RESOURCE_EXHAUSTED" in codes


# What a region refuses.


def test_a_changed_invitation_is_refused(hub, tmp_path):
    good = invite.invite(hub, "EU", today=TODAY)
    path = tmp_path / "invitation.json"
    path.write_text(good.model_dump_json())
    assert invitation.read(path) == good
    mallory = SigningKey.generate("fedfsd/coordinator/roads")
    for change in (
        {"address": "mallory.example:9443"},
        {"region": "US"},
        {"expires": "2999-01-01"},
        {"coordinator": str(mallory.verification), "witness": str(mallory.cosigner)},
        {"signature": ""},
    ):
        path.write_text(good.model_copy(update=change).model_dump_json())
        with pytest.raises(RefusedError, match="changed"):
            invitation.read(path)
    # With a root of his own he can sign one: hence the fingerprint.
    other = new_coordinator.make(new_coordinator.settings("roads"), tmp_path / "other")
    theirs = invite.invite(other, "EU", today=TODAY)
    path.write_text(theirs.model_dump_json())
    with pytest.raises(RefusedError, match="do not use it"):
        join.demand_fingerprint(invitation.read(path), good.fingerprint)
    for text in ("", "{}", good.model_dump_json() + "x", "[" * 20_000):
        path.write_text(text)
        with pytest.raises(NotReadyError):
            invitation.read(path)


def test_an_invitation_of_another_region_is_refused(hub, eu):
    with pytest.raises(RefusedError, match="one for US"):
        join.prepare(eu, invite.invite(hub, "US", today=TODAY), officer=OFFICER.verification)


@pytest.mark.parametrize("party", [identity.region("roads", "US"), identity.coordinator("roads")])
@pytest.mark.parametrize("own", [True, False])
def test_a_certificate_of_another_is_not_taken(hub, eu, party, own):
    request = asked(hub, eu)
    confirm(hub, request)
    asked_key = authority.requested_key(bytes.fromhex(request.request))
    root = authority.Authority.read(hub.ca)
    if own:  # our key, another's name
        wrong = root.issue(party, asked_key)
    else:  # our name, another authority's signature
        wrong = authority.Authority.new("roads").issue(identity.region("roads", "EU"), asked_key)
    authority.write_certificate(wrong, hub.region("EU") / "region.crt")
    with pytest.raises(RefusedError):
        join.fetch_certificate(eu)
    with pytest.raises(NotReadyError):
        join.peer(eu)


# Renewal and revocation.


def test_a_new_invitation_renews_and_the_old_certificate_serves_meanwhile(hub, eu):
    confirm(hub, asked(hub, eu))
    join.fetch_certificate(eu)
    old = join.peer(eu).certificate.read_bytes()
    again = asked(hub, eu)
    assert join.peer(eu).certificate.read_bytes() == old
    made = confirm(hub, again)
    # The machine goes down between two steps of the exchange.
    join.fetch_certificate(eu)
    shutil.move(eu.folder / "tls", eu.folder / "tls.next")
    assert identity.read(join.peer(eu).certificate.read_bytes()) == made.certificate
    assert call(hub, eu, Callers())[0] == grpc.StatusCode.OK
    assert not [path.name for path in eu.folder.glob("tls.*")]


def test_another_ledger_key_is_told_at_a_renewal(hub, eu, tmp_path):
    confirm(hub, asked(hub, eu))
    other, _ = make_region("EU", tmp_path / "other", mirror=None, officer=OFFICER.verification)
    assert confirm(hub, asked(hub, other)).changed == ("node",)


def test_revoking_refuses_every_certificate_the_region_was_given(hub, eu, tmp_path):
    confirm(hub, asked(hub, eu))
    join.fetch_certificate(eu)
    earlier = tmp_path / "earlier"
    shutil.copytree(eu.folder, earlier)
    confirm(hub, asked(hub, eu))
    join.fetch_certificate(eu)
    assert invite.revoke(hub, "EU") == 2
    assert invite.revoke(hub, "EU") == 2
    assert len(hub.revoked.read_text().splitlines()) == 2
    assert hub.regions() == ()
    for node in (eu, Node(earlier, eu.settings)):
        callers = Callers()
        assert call(hub, node, callers) == (grpc.StatusCode.PERMISSION_DENIED, "")
        assert not callers.seen
    with pytest.raises(NotReadyError, match="never invited"):
        invite.revoke(hub, "US")
    confirm(hub, asked(hub, eu))  # a new invitation lets it in again
    join.fetch_certificate(eu)
    assert call(hub, eu, Callers())[0] == grpc.StatusCode.OK


def test_a_coordinators_certificate_is_renewed_in_time_with_the_same_key(hub):
    assert not new_coordinator.renew(hub)
    key = authority.read_key(hub.tls_key)
    root = authority.Authority.read(hub.ca)
    soon = root.issue(hub.identity, key.public_key(), days=new_coordinator.RENEW_DAYS - 1)
    authority.write_certificate(soon, hub.tls_certificate)
    assert new_coordinator.renew(hub)
    made = identity.read(hub.tls_certificate.read_bytes())
    assert made.public_key() == key.public_key()
    assert identity.days_left(made) > 85


@pytest.mark.parametrize("name", ["", "two words", "../up", "a" * 33])
def test_names_of_federations_and_regions(hub, tmp_path: Path, name):
    with pytest.raises(UsageError):
        new_coordinator.settings(name)
    with pytest.raises(UsageError):
        invite.invite(hub, name, today=TODAY)


def test_a_folder_is_made_whole_or_not_at_all(hub, tmp_path, monkeypatch):
    with pytest.raises(NotReadyError, match="an existing file or folder"):
        new_coordinator.make(new_coordinator.settings("roads"), hub.folder)
    monkeypatch.setattr(new_coordinator, "renew", lambda made: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        new_coordinator.make(new_coordinator.settings("roads"), tmp_path / "new")
    assert not (tmp_path / "new").exists()
