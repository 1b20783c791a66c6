"""How a region gets its certificate: it sends a signing request and its ledger's keys, never a private key.

People compare one fingerprint, of the request together with the ledger's keys.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import grpc
from pydantic import Field, ValidationError

from fedfsd import canonical, formats
from fedfsd.border import border_pb2 as pb
from fedfsd.border import identity, rpc, wire
from fedfsd.border.channel import open_channel
from fedfsd.border.invitation import Invitation
from fedfsd.config.load import Frozen
from fedfsd.errors import NotReadyError, RefusedError
from fedfsd.ledger.disk import write_whole

SECONDS = 10.0
MAX_FILE = 16_384
Key = Annotated[str, Field(min_length=1, max_length=400)]


class Request(Frozen):
    """What a region asks: a certificate for this key, to speak for the ledger with these keys."""

    request: Annotated[str, Field(pattern="^([0-9a-f]{2}){1,4096}$")]
    """PKCS #10 in DER, hex."""
    node: Key
    officer: Key

    @property
    def fingerprint(self) -> str:
        """Of all of it, as the region's operators tell it to the coordinator's."""
        return identity.fingerprint(canonical.encode([self.request, self.node, self.officer]))

    def write(self, path: Path) -> None:
        """Keep it."""
        write_whole(path, canonical.encode(self.model_dump()))


def read(path: Path) -> Request:
    """The request in ``path``. NotReadyError: there is none. FormatError: a newer release wrote it."""
    try:
        content = path.read_bytes()[:MAX_FILE]
        formats.demand_known("signing request", formats.peek(content), place=path.name)
        return Request.model_validate_json(content)
    except (OSError, ValidationError):
        raise NotReadyError(
            path.name, got="no file or another content", expected="a signing request"
        ) from None


def ask(invitation: Invitation, request: Request, *, root: Path, proxy: str = "") -> bytes:
    """The certificate in PEM, or nothing until the coordinator's operators have confirmed the request.

    Raises:
        NotReadyError: the coordinator cannot be reached, or is busy.
        RefusedError: it does not accept this token: unknown, expired, or used for another request.
    """
    message = pb.SigningRequest(
        token=bytes.fromhex(invitation.token),
        request=bytes.fromhex(request.request),
        node=request.node.encode(),
        officer=request.officer.encode(),
    )
    uri = invitation.expected_uri
    with open_channel(
        invitation.join, root=root, key=None, certificate=None, expected_uri=uri, proxy=proxy
    ) as channel:
        try:
            reply = rpc.stub(channel, rpc.ENROLMENT).Join(message, timeout=SECONDS)
        except grpc.RpcError as error:
            raise _explained(error.code(), invitation) from None
    wire.strict(reply)
    return bytes(reply.certificate)


def _explained(code: grpc.StatusCode, invitation: Invitation) -> NotReadyError | RefusedError:
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return RefusedError(
            "invitation",
            got="a token that the coordinator does not accept",
            expected="a token that has not expired and was not used for another request",
            hint=f"ask the coordinator's operators: fedfsd coordinator invite {invitation.region}",
        )
    return NotReadyError(
        invitation.join,
        got=f"no answer ({code.name.lower()})",
        expected=f"the coordinator of {invitation.federation}",
        hint="run the same command again; fedfsd coordinator up must be running there and this port be open",
    )
