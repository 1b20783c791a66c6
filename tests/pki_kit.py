"""A federation's certificates in a folder, and a border on loopback that tells who called."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from cryptography import x509

from fedfsd.border import authority, channel, identity, rpc
from fedfsd.border import border_pb2 as pb
from fedfsd.border.authority import Authority
from fedfsd.border.identity import Identity
from fedfsd.coordinator.folder import Coordinator

SECONDS = 5.0


class Callers:
    """Writes down which regions were let in."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.behind: float | None = None
        """Seconds by which its clock is behind; None: it does not say."""

    def Hello(self, request: pb.Greeting, context: grpc.ServicerContext) -> pb.Welcome:
        self.seen.append(channel.caller(context))
        return pb.Welcome(version=1)

    def Fetch(self, request: pb.ArraysRequest, context: grpc.ServicerContext) -> Iterator[pb.Chunk]:
        self.seen.append(channel.caller(context))
        yield pb.Chunk(offset=1)
        yield pb.Chunk(offset=2)

    def Clock(self, request: pb.Ready, context: grpc.ServicerContext) -> pb.Now:
        if self.behind is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "")
        return pb.Now(seconds=int(time.time() - self.behind))

    def Beat(self, request: pb.Ready, context: grpc.ServicerContext) -> pb.Done:
        raise ValueError("/data/secret")


@dataclass
class Federation:
    """An authority and the certificates that it gave; each party's files are NAME.key and NAME.crt."""

    folder: Path
    name: str = "roads"
    authority: Authority = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.authority = Authority.new(self.name)
        self.authority.write(self.folder)
        (self.folder / "revoked").write_text("")
        self.give("hub", identity.coordinator(self.name))
        self.give("EU", identity.region(self.name, "EU"))

    @property
    def root(self) -> Path:
        return self.folder / "root.crt"

    def give(self, name: str, party: Identity, **options: float) -> x509.Certificate:
        """A certificate for ``party`` in NAME.crt, with a key of its own."""
        key = authority.new_key()
        made = self.authority.issue(party, key.public_key(), **options)
        self.keep(name, key, made)
        return made

    def keep(self, name: str, key: authority.ec.EllipticCurvePrivateKey, made: x509.Certificate) -> None:
        (self.folder / f"{name}.key").unlink(missing_ok=True)
        authority.write_key(key, self.folder / f"{name}.key")
        authority.write_certificate(made, self.folder / f"{name}.crt")

    @contextmanager
    def border(self, servicer: object, *, served: str = "hub", of: Federation | None = None) -> Iterator[str]:
        """The address of a border that trusts this federation, served with the certificate of ``served``."""
        files = (of or self).folder
        server, port = channel.serve(
            lambda server: rpc.add(server, servicer),
            host="127.0.0.1",
            port=0,
            root=self.root,
            key=files / f"{served}.key",
            certificate=files / f"{served}.crt",
            revoked=self.folder / "revoked",
            max_workers=4,
        )
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(0).wait()

    @contextmanager
    def dial(
        self, address: str, name: str | None = "EU", *, of: Federation | None = None
    ) -> Iterator[grpc.Channel]:
        """A channel of the party ``name``, which takes for the coordinator who this federation says it is."""
        files = (of or self).folder
        with channel.open_channel(
            address,
            root=self.root,
            key=None if name is None else files / f"{name}.key",
            certificate=None if name is None else files / f"{name}.crt",
            expected_uri=str(identity.coordinator(self.name)),
        ) as opened:
            yield opened


@contextmanager
def hub_border(hub: Coordinator, servicer: object) -> Iterator[str]:
    """The address of ``servicer`` behind the coordinator's own certificate."""
    server, port = channel.serve(
        lambda server: rpc.add(server, servicer),
        host="127.0.0.1",
        port=0,
        root=hub.root,
        key=hub.tls_key,
        certificate=hub.tls_certificate,
        revoked=hub.revoked,
        max_workers=4,
    )
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def hello(opened: grpc.Channel) -> pb.Welcome:
    """The shortest call."""
    return rpc.stub(opened).Hello(pb.Greeting(versions=[1]), timeout=SECONDS)


def outcome(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """Code and text with which a call fails; OK where it does not."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""
