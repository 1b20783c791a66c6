"""What a message may hold beyond its types: lengths, bounds, nothing unknown; and the values it stands for.

>>> strict(pb.ArraysRequest(arrays_sha256=bytes(31)))
Traceback (most recent call last):
    ...
fedfsd.border.wire.WireError: refused: ArraysRequest.arrays_sha256: got 31 bytes, expected 32 bytes
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from fedfsd import formats
from fedfsd.audit import receipt as receipts
from fedfsd.border import border_pb2 as pb
from fedfsd.errors import RefusedError
from fedfsd.gate import outcome
from fedfsd.gate.outcome import Word
from fedfsd.ledger import witness
from fedfsd.ledger.entry import MAX_INTEGER
from fedfsd.ledger.note import MAX_NOTE

VERSIONS = formats.READ["border"]
"""Two peers speak the newest version that both know; a message of one is never sent in another."""
VERSION = max(VERSIONS)
PLANS: Mapping[int, int] = {1: 1, 2: 2, 3: 4, 4: 4}
"""The newest format of a plan that a peer of each version reads."""
CARES = 3
"""The version from which on Declare, Renew and Clock may be called."""
FINDS = 4
"""The version from which on a refusal may say what was found in an update; before, it says "refused"."""
CHUNK = 2**20
"""Bytes of content in one chunk, at most."""
MAX_MESSAGE = 4 * 2**20
MAX_DOCUMENT = 2**20
"""Bytes of a plan's document, or of a release's entry, at most."""
MAX_STATEMENT = 2**16

_HASH, _SIGNATURE, _NOTE = (32, 32), (64, 64), (1, MAX_NOTE)
# (least, most) bytes of every field that holds bytes, or of each element where it is a list.
LENGTHS: Mapping[str, tuple[int, int]] = {
    "PlanOffer.plan": _HASH,
    "PlanRequest.plan": _HASH,
    "PlanDocument.document": (1, MAX_DOCUMENT),
    "PlanAnswer.plan": _HASH,
    "Round.plan": _HASH,
    "Round.arrays_sha256": _HASH,
    "ArraysRequest.arrays_sha256": _HASH,
    "Chunk.sha256": _HASH,
    "Chunk.content": (1, CHUNK),
    "Refusal.plan": _HASH,
    "Release.plan": _HASH,
    "Release.sha256": _HASH,
    "Release.entry": (1, MAX_DOCUMENT),
    "Release.inclusion": _HASH,
    "Head.checkpoint": _NOTE,
    "Head.consistency": _HASH,
    "Head.close": (0, MAX_STATEMENT),
    "Statement.content": (1, MAX_STATEMENT),
    "Statement.proof": _HASH,
    "Receipt.plan": _HASH,
    "Receipt.entry": _HASH,
    "Receipt.sha256": _HASH,
    "Receipt.signature": _SIGNATURE,
    "Receipt.cosigned": _NOTE,
    "Cosignature.cosigned": _NOTE,
    "SigningRequest.token": (16, 64),
    "SigningRequest.request": (1, 8192),
    "SigningRequest.node": (1, 1024),
    "SigningRequest.officer": (1, 1024),
    "Enrolled.certificate": (0, 16384),
    "Renewal.request": (1, 8192),
}
# Elements of every list, at most. A proof over 2^53 entries has 54 hashes.
COUNTS: Mapping[str, int] = {
    "Greeting.versions": 16,
    "Head.consistency": 64,
    "Head.statements": 1000,
    "Release.inclusion": 64,
    "Statement.proof": 64,
}
# What must hold between the fields of a message.
_RULES: Mapping[str, Callable[[Any], bool]] = {
    "PlanAnswer": lambda answer: answer.approved == (answer.code == pb.CODE_UNSPECIFIED),
    "Declaration": lambda one: one.roster > 0 and one.identity != pb.IDENTITY_UNSPECIFIED,
    "Now": lambda now: now.seconds > 0,
    "Progress": lambda progress: progress.WhichOneof("progress") is not None,
    "Refusal": lambda refusal: refusal.code != pb.CODE_UNSPECIFIED,
}
WORDS: Mapping[int, Word] = {
    pb.Code.Value(f"CODE_{word.upper().replace('-', '_')}"): word for word in outcome.REFUSALS
}


class WireError(RefusedError):
    """A message that border.proto does not allow. It names the field, never a value."""


def strict(message: Message) -> None:
    """Refuse a message with anything that its definition does not have, or that is too long or too short.

    Raises:
        WireError: names message and field.
    """
    name = message.DESCRIPTOR.name
    if len(UnknownFieldSet(message)):
        raise WireError(name, got="an unknown field", expected="the fields of border.proto")
    for field in message.DESCRIPTOR.fields:
        place, value = f"{name}.{field.name}", getattr(message, field.name)
        if field.is_repeated:
            if len(value) > COUNTS[place]:
                raise WireError(place, got=f"{len(value)} elements", expected=f"at most {COUNTS[place]}")
            for element in value:
                _check(place, field, element)
        elif field.type != field.TYPE_MESSAGE:
            if field.containing_oneof is None or message.HasField(field.name):
                _check(place, field, value)
        elif message.HasField(field.name):
            strict(value)
        elif field.containing_oneof is None:
            raise WireError(place, got="nothing", expected="a message")
    if name in _RULES and not _RULES[name](message):
        raise WireError(name, got="fields that contradict each other", expected="one thing or the other")


def common(versions: Iterable[int]) -> int | None:
    """The newest version that a peer knows, too."""
    return max(set(versions) & set(VERSIONS), default=None)


def word(code: int) -> Word:
    """What a code means, as reports and replies spell it; WireError for an unspecified one."""
    if code not in WORDS:
        raise WireError("Code", got="no known code", expected=", ".join(WORDS.values()))
    return WORDS[code]


def code(word: str, version: int = VERSION) -> int:
    """The code of a word to a peer of ``version``; whatever else failed is ``region_unavailable``."""
    if word in outcome.FINDINGS and version < FINDS:
        word = "refused"
    return next((code for code, known in WORDS.items() if known == word), pb.CODE_REGION_UNAVAILABLE)


def head(shown: witness.Shown) -> pb.Head:
    """A head as it crosses."""
    return pb.Head(
        checkpoint=shown.checkpoint.encode(),
        consistency=shown.consistency,
        statements=[
            pb.Statement(seq=one.seq, content=one.content, proof=one.proof) for one in shown.statements
        ],
        close=shown.close or b"",
    )


def shown(head: pb.Head) -> witness.Shown:
    """What a head that crossed shows a witness. A checkpoint that is no text: WireError."""
    return witness.Shown(
        text(head.checkpoint, "Head.checkpoint"),
        tuple(head.consistency),
        tuple(witness.Statement(one.seq, one.content, tuple(one.proof)) for one in head.statements),
        head.close or None,
    )


def receipt(one: receipts.Receipt, *, signature: bytes, cosigned: str) -> pb.Receipt:
    """A receipt as it crosses: without the region, which is the caller."""
    return pb.Receipt(
        plan=bytes.fromhex(one.plan),
        round=one.round,
        entry=bytes.fromhex(one.entry),
        sha256=bytes.fromhex(one.sha256),
        size=one.bytes,
        signature=signature,
        cosigned=cosigned.encode(),
    )


def received(one: pb.Receipt, region: str) -> receipts.Receipt:
    """The receipt that ``region`` got, for ``audit.receipt.is_countersigned``."""
    return receipts.Receipt(
        region=region,
        plan=one.plan.hex(),
        round=one.round,
        entry=one.entry.hex(),
        sha256=one.sha256.hex(),
        bytes=one.size,
    )


def text(content: bytes, place: str) -> str:
    """UTF-8 text of a field called ``place``; WireError where it is none."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise WireError(place, got="bytes that are no text", expected="UTF-8") from None


def _check(place: str, field: FieldDescriptor, value: Any) -> None:
    """One value against its bounds."""
    if field.type == field.TYPE_MESSAGE:
        strict(value)
    elif field.type == field.TYPE_BYTES:
        least, most = LENGTHS[place]
        if not least <= len(value) <= most:
            expected = f"{least} bytes" if least == most else f"{least} to {most} bytes"
            raise WireError(place, got=f"{len(value)} bytes", expected=expected)
    elif field.type == field.TYPE_ENUM:
        if value not in field.enum_type.values_by_number:
            raise WireError(place, got="an unknown code", expected="a code of border.proto")
    elif value > MAX_INTEGER:
        raise WireError(place, got="a larger number", expected=f"at most {MAX_INTEGER}")
