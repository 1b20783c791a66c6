"""The border on loopback: who is let in, who is refused, and that a refusal tells nothing but its code."""

from __future__ import annotations

import datetime
import socket
import ssl
import time

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pki_kit import SECONDS, Callers, Federation, hello, outcome

from fedfsd.border import authority, channel, identity, rpc
from fedfsd.border import border_pb2 as pb
from fedfsd.border.identity import Identity, IdentityError
from fedfsd.border.metadata import MetadataError
from fedfsd.errors import NotReadyError

Code = grpc.StatusCode


@pytest.fixture(scope="module")
def roads(tmp_path_factory) -> Federation:
    """A federation whose border nobody changes."""
    return Federation(tmp_path_factory.mktemp("roads"))


@pytest.fixture
def callers() -> Callers:
    return Callers()


@pytest.fixture
def hub(roads, callers):
    """The address of its border."""
    with roads.border(callers) as address:
        yield address


def test_a_region_is_known_by_its_certificate(roads, hub, callers):
    with roads.dial(hub) as opened:
        assert hello(opened).version == 1
        stub = rpc.stub(opened)
        assert [one.offset for one in stub.Fetch(pb.ArraysRequest(), timeout=SECONDS)] == [1, 2]
        reply = health_pb2_grpc.HealthStub(opened).Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        assert reply.status == reply.SERVING
    assert callers.seen == ["EU", "EU"]


# At the handshake: nobody else gets as far as a call. What TLS refused, gRPC writes to stderr.


def self_signed(kit: Federation) -> None:
    alone = authority.Authority.new("roads")
    key = authority.new_key()
    kit.keep("stranger", key, alone.issue(identity.region("roads", "EU"), key.public_key()))


def expired(kit: Federation) -> None:
    kit.give("stranger", identity.region("roads", "EU"), days=-1)


def coordinators(kit: Federation) -> None:
    kit.give("stranger", identity.coordinator("roads"))


@pytest.mark.parametrize(
    ("give", "why"),
    [
        (self_signed, "certificate signature failure"),
        (expired, "certificate has expired"),
        (coordinators, "CERTIFICATE_VERIFY_FAILED"),
    ],
)
def test_a_certificate_that_is_no_good_is_refused_at_the_handshake(roads, hub, callers, capfd, give, why):
    give(roads)
    with roads.dial(hub, "stranger") as opened:
        assert outcome(lambda: hello(opened))[0] == Code.UNAVAILABLE
    assert not callers.seen
    assert why in capfd.readouterr().err


def test_without_a_certificate_nobody_is_let_in(roads, hub, callers, capfd):
    with roads.dial(hub, None) as opened:
        assert outcome(lambda: hello(opened))[0] == Code.UNAVAILABLE
    with grpc.insecure_channel(hub) as opened:
        assert outcome(lambda: hello(opened))[0] == Code.UNAVAILABLE
    assert not callers.seen
    assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in capfd.readouterr().err


def test_another_federation_is_refused_on_both_sides(roads, hub, callers, tmp_path):
    other = Federation(tmp_path / "other", name="roads")  # the same name, another root
    with roads.dial(hub, "EU", of=other) as opened:
        assert outcome(lambda: hello(opened))[0] == Code.UNAVAILABLE
    with other.dial(hub) as opened:
        assert outcome(lambda: hello(opened))[0] == Code.UNAVAILABLE
    assert not callers.seen


# After the handshake: a good certificate that may not do this.


def certificate(party: str, *uses: x509.ObjectIdentifier, dns: tuple[str, ...] = ()):
    """What the authority would never issue, signed by it nevertheless."""

    def give(kit: Federation) -> None:
        key, now = authority.new_key(), datetime.datetime.now(datetime.UTC)
        names = [x509.UniformResourceIdentifier(party), *map(x509.DNSName, dns)]
        draft = (
            x509.CertificateBuilder()
            .issuer_name(kit.authority.certificate.subject)
            .subject_name(x509.Name([]))
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=True)
        )
        kit.keep("odd", key, draft.sign(kit.authority.key, SHA256()))

    return give


CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


@pytest.mark.parametrize(
    ("give", "code"),
    [
        (certificate("fedfsd://roads/coordinator", CLIENT), Code.UNAUTHENTICATED),
        (certificate("fedfsd://roads/region/EU", CLIENT, SERVER), Code.UNAUTHENTICATED),
        (certificate("fedfsd://other/region/EU", CLIENT), Code.PERMISSION_DENIED),
        (certificate("https://roads/region/EU", CLIENT), Code.UNAUTHENTICATED),
        (certificate("fedfsd://roads/region/EU/region/US", CLIENT), Code.UNAUTHENTICATED),
        (certificate("fedfsd://roads/region/", CLIENT), Code.UNAUTHENTICATED),
    ],
)
def test_a_certificate_for_something_else_is_refused_without_a_word(roads, hub, callers, caplog, give, code):
    give(roads)
    with roads.dial(hub, "odd") as opened:
        assert outcome(lambda: hello(opened)) == (code, "")
        health = health_pb2_grpc.HealthStub(opened)
        assert outcome(lambda: health.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)) == (code, "")
    assert not callers.seen
    assert [one.name for one in caplog.records] == ["fedfsd.border"] * 2
    assert all(one.getMessage().startswith("refused: ") for one in caplog.records)


def test_a_region_cannot_say_that_it_is_another(roads, hub, callers):
    """Who calls is read from the certificate alone; nothing that is said changes it."""
    with roads.dial(hub) as opened:
        claim = (("x-region", "US"),)
        stub = rpc.stub(opened)
        assert outcome(lambda: stub.Hello(pb.Greeting(), timeout=SECONDS, metadata=claim))[0] != Code.OK
        hello(opened)
    assert callers.seen == ["EU"]


@pytest.mark.parametrize("key", ["x-note", "authorization", "note-bin", "traceparent"])
def test_metadata_of_the_callers_own_is_refused(roads, hub, callers, caplog, key):
    value = b"\x00secret" if key.endswith("-bin") else "secret"
    with roads.dial(hub) as opened:
        call = rpc.stub(opened).Hello
        found = outcome(lambda: call(pb.Greeting(versions=[1]), timeout=SECONDS, metadata=((key, value),)))
    assert found == (Code.INVALID_ARGUMENT, "")
    assert not callers.seen
    assert "metadata" in caplog.text
    assert "secret" not in caplog.text


def test_a_user_agent_is_no_place_for_words(roads, hub, callers):
    credentials = grpc.ssl_channel_credentials(
        roads.root.read_bytes(), *((roads.folder / f"EU.{kind}").read_bytes() for kind in ("key", "crt"))
    )
    options = [
        ("grpc.ssl_target_name_override", identity.host_name("fedfsd://roads/coordinator")),
        ("grpc.primary_user_agent", "secret"),
    ]
    with grpc.secure_channel(hub, credentials, options=options) as opened:
        assert outcome(lambda: hello(opened)) == (Code.INVALID_ARGUMENT, "")
    assert not callers.seen


def test_an_oversized_message_is_refused_on_either_side(roads, hub, callers):
    big = pb.Greeting(versions=[2**32 - 1] * 900_000)
    with roads.dial(hub) as opened:
        call = rpc.stub(opened).Hello
        assert outcome(lambda: call(big, timeout=SECONDS))[0] == Code.RESOURCE_EXHAUSTED
    credentials = grpc.ssl_channel_credentials(
        roads.root.read_bytes(), *((roads.folder / f"EU.{kind}").read_bytes() for kind in ("key", "crt"))
    )
    options = [
        ("grpc.ssl_target_name_override", identity.host_name("fedfsd://roads/coordinator")),
        ("grpc.max_send_message_length", -1),
    ]
    with grpc.secure_channel(hub, credentials, options=options) as opened:
        call = rpc.stub(opened).Hello
        assert outcome(lambda: call(big, timeout=SECONDS))[0] == Code.RESOURCE_EXHAUSTED
        # A bomb of zeros is refused while it is small: nothing here unpacks.
        bomb = pb.Greeting(versions=[0] * 10_000_000)
        packed = grpc.Compression.Gzip
        assert outcome(lambda: call(bomb, timeout=SECONDS, compression=packed))[0] != Code.OK
    assert not callers.seen


def test_an_exception_in_a_servicer_stays_there(roads, hub, caplog):
    with roads.dial(hub) as opened:
        found = outcome(lambda: rpc.stub(opened).Beat(pb.Ready(version=1), timeout=SECONDS))
    assert found == (Code.INTERNAL, "")
    assert "ValueError" in caplog.text
    assert "secret" not in caplog.text


def test_an_older_tls_is_refused(roads, hub, callers, caplog):
    context = ssl.create_default_context(cafile=str(roads.root))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(roads.folder / "EU.crt", roads.folder / "EU.key")
    host, port = hub.split(":")
    # A bare HTTP/2 request for Hello: preface, settings, headers without Huffman, an empty message.
    fields = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", "/fedfsd.border.v1.Border/Hello"),
        (":authority", "hub"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", "grpc-python/1 grpc-c/1 (linux; chttp2)"),
    ]
    block = b"".join(b"\x00" + bytes([len(k)]) + k.encode() + bytes([len(v)]) + v.encode() for k, v in fields)

    def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
        return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body

    request = frame(4, 0, 0, b"") + frame(1, 4, 1, block) + frame(0, 1, 1, bytes(5))
    with (
        socket.create_connection((host, int(port)), timeout=SECONDS) as raw,
        context.wrap_socket(raw) as line,
    ):
        assert line.version() == "TLSv1.2"
        line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + request)
        deadline = time.monotonic() + SECONDS
        while "older than TLS 1.3" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "older than TLS 1.3" in caplog.text
    assert not callers.seen


# Revocation and expiry between two calls of one connection.


def test_revocation_holds_from_the_next_call_on(tmp_path, callers, caplog):
    roads = Federation(tmp_path / "roads")
    serial = identity.read((roads.folder / "EU.crt").read_bytes()).serial_number
    with roads.border(callers) as hub, roads.dial(hub) as opened:
        hello(opened)
        (roads.folder / "revoked").write_text(f"{serial:x} EU\n")
        assert outcome(lambda: hello(opened)) == (Code.PERMISSION_DENIED, "")
        (roads.folder / "revoked").write_text("1f US\n\n")
        hello(opened)
        (roads.folder / "revoked").write_text("no list\n")
        assert outcome(lambda: hello(opened)) == (Code.PERMISSION_DENIED, "")
        (roads.folder / "revoked").unlink()
        assert outcome(lambda: hello(opened)) == (Code.PERMISSION_DENIED, "")
    assert callers.seen == ["EU", "EU"]
    assert "revoked" in caplog.text


def test_a_certificate_that_expires_meanwhile_is_refused(tmp_path, callers, monkeypatch):
    roads = Federation(tmp_path / "roads")
    with roads.border(callers) as hub, roads.dial(hub) as opened:
        hello(opened)

        def late(certificate: x509.Certificate) -> None:
            now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=authority.DAYS + 1)
            demand_valid(certificate, now=now)

        demand_valid = identity.demand_valid
        monkeypatch.setattr(identity, "demand_valid", late)
        assert outcome(lambda: hello(opened)) == (Code.UNAUTHENTICATED, "")
    assert callers.seen == ["EU"]


def test_a_renewed_certificate_is_served_to_the_next_connection(tmp_path, callers):
    roads = Federation(tmp_path / "roads")

    def served(address: str) -> int:
        host, port = address.split(":")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        with socket.create_connection((host, int(port))) as raw, context.wrap_socket(raw) as line:
            return x509.load_der_x509_certificate(line.getpeercert(True)).serial_number

    with roads.border(callers) as hub:
        first = served(hub)
        new = roads.give("hub", identity.coordinator("roads"))
        assert served(hub) == new.serial_number != first


# The other side: a region believes nobody but the coordinator.


class Chatty(Callers):
    def Hello(self, request, context):
        context.set_trailing_metadata((("note", "words"),))
        return pb.Welcome(version=1)

    def Fetch(self, request, context):
        context.send_initial_metadata((("note", "words"),))
        yield pb.Chunk(offset=1)

    def Beat(self, request, context):
        context.set_trailing_metadata((("grpc-status-details-bin", b"words"),))
        return pb.Done()


@pytest.mark.parametrize(
    "give",
    [
        lambda roads: roads.give("odd", identity.region("roads", "US")),
        certificate(
            "fedfsd://roads/coordinator", CLIENT, dns=(identity.host_name("fedfsd://roads/coordinator"),)
        ),
        certificate("fedfsd://roads/coordinator", SERVER, dns=("localhost", "127.0.0.1")),
        lambda roads: roads.give("odd", identity.coordinator("other")),
        lambda roads: roads.give("odd", identity.coordinator("roads"), days=-1),
    ],
)
def test_nobody_else_passes_for_the_coordinator(roads, callers, give):
    give(roads)
    server = grpc.server(channel.ThreadPoolExecutor(2))
    rpc.add(server, callers)
    pair = tuple((roads.folder / f"odd.{kind}").read_bytes() for kind in ("key", "crt"))
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    try:
        with roads.dial(f"127.0.0.1:{port}") as opened:
            assert outcome(lambda: hello(opened))[0] == Code.UNAVAILABLE
    finally:
        server.stop(0).wait()
    assert not callers.seen


def test_a_region_hands_on_no_reply_with_metadata_of_the_coordinators_own(roads, caplog):
    with roads.border(Chatty()) as hub, roads.dial(hub) as opened:
        stub = rpc.stub(opened)
        for call in (
            lambda: hello(opened),
            lambda: stub.Beat(pb.Ready(), timeout=SECONDS),
            lambda: list(stub.Fetch(pb.ArraysRequest(), timeout=SECONDS)),
        ):
            with pytest.raises(MetadataError):
                call()
    assert "words" not in caplog.text


def test_a_region_certificate_opens_no_border(roads, callers):
    with pytest.raises(grpc.RpcError), roads.border(callers, served="EU") as hub, roads.dial(hub) as opened:
        hello(opened)


def test_a_port_is_served_once(roads, callers, hub):
    with pytest.raises(NotReadyError, match="not available"):
        channel.serve(
            lambda server: None,
            host="127.0.0.1",
            port=int(hub.split(":")[1]),
            root=roads.root,
            key=roads.folder / "hub.key",
            certificate=roads.folder / "hub.crt",
            max_workers=1,
        )


def test_an_identity_is_one_uri_and_one_use(roads):
    assert identity.identify(identity.read((roads.folder / "EU.crt").read_bytes())) == Identity("roads", "EU")
    with pytest.raises(IdentityError):
        identity.identify(roads.authority.certificate)
