"""The wire's own rules: what border.proto cannot say is refused before anybody looks at it."""

from contextlib import closing
from pathlib import Path

import pytest
from google.protobuf import descriptor
from google.protobuf.message import Message
from ledger import ledger_kit as kit

from fedfsd import formats
from fedfsd.border import border_pb2 as pb
from fedfsd.border import wire
from fedfsd.gate import outcome
from fedfsd.ledger.entry import MAX_INTEGER
from fedfsd.ledger.witness import show

HASH = b"h" * 32
HEAD = pb.Head(checkpoint=b"note", consistency=[HASH], close=b"")
RELEASE = pb.Release(plan=HASH, round=1, sha256=HASH, size=4, entry=b"{}", seq=3, inclusion=[HASH], head=HEAD)
RECEIPT = pb.Receipt(
    plan=HASH, round=1, entry=HASH, sha256=HASH, size=4, signature=b"s" * 64, cosigned=b"note"
)
# One of each, as honest sides send them.
HONEST = (
    pb.Greeting(versions=[1]),
    pb.Welcome(version=1, epoch=0, size=7),
    pb.Ready(version=1),
    pb.Done(),
    pb.Task(),
    pb.Task(plan=pb.PlanOffer(plan=HASH, size=900)),
    pb.Task(round=pb.Round(plan=HASH, round=1, arrays_sha256=HASH, size=4)),
    pb.PlanRequest(plan=HASH),
    pb.PlanDocument(document=b"{}"),
    pb.PlanAnswer(plan=HASH, approved=True),
    pb.PlanAnswer(plan=HASH, approved=False, code=pb.CODE_PLAN),
    pb.ArraysRequest(arrays_sha256=HASH, offset=0),
    pb.Chunk(sha256=HASH, offset=0, content=b"c"),
    pb.Refusal(plan=HASH, round=1, code=pb.CODE_REFUSED),
    RELEASE,
    pb.Progress(offset=0),
    pb.Progress(receipt=RECEIPT),
    pb.Cosignature(cosigned=b"note"),
    pb.SigningRequest(token=bytes(32), request=b"r", node=b"n", officer=b"o"),
    pb.Enrolled(),
    pb.Enrolled(certificate=b"c"),
    pb.Declaration(roster=1000, identity=pb.IDENTITY_PHYSICAL),
    pb.Renewal(request=b"r"),
    pb.Now(seconds=1_800_000_000),
)
NAMES = [f"{number}-{type(message).__name__}" for number, message in enumerate(HONEST)]


def fields(kind: descriptor.FieldDescriptor) -> list[descriptor.FieldDescriptor]:
    return [
        field
        for message in pb.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
        if field.type == kind
    ]


@pytest.mark.parametrize("message", HONEST, ids=NAMES)
def test_what_honest_sides_send_is_taken(message: Message):
    wire.strict(type(message).FromString(message.SerializeToString()))


def test_every_message_of_the_wire_is_among_them():
    top = {type(message).__name__ for message in HONEST}
    within = {"PlanOffer", "Round", "Head", "Statement", "Receipt"}
    assert top | within == set(pb.DESCRIPTOR.message_types_by_name)


def test_every_field_of_bytes_has_a_length_and_every_list_a_bound():
    places = {
        f"{field.containing_type.name}.{field.name}"
        for field in fields(descriptor.FieldDescriptor.TYPE_BYTES)
    }
    assert places == set(wire.LENGTHS)
    lists = {
        f"{message.name}.{field.name}"
        for message in pb.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
        if field.is_repeated
    }
    assert lists == set(wire.COUNTS)


def test_the_wire_has_no_text_no_time_and_no_map():
    kinds = {
        field.type for message in pb.DESCRIPTOR.message_types_by_name.values() for field in message.fields
    }
    field = descriptor.FieldDescriptor
    assert kinds == {
        field.TYPE_BYTES,
        field.TYPE_UINT32,
        field.TYPE_UINT64,
        field.TYPE_BOOL,
        field.TYPE_ENUM,
        field.TYPE_MESSAGE,
    }
    assert not any(message.nested_types for message in pb.DESCRIPTOR.message_types_by_name.values())


@pytest.mark.parametrize("message", HONEST, ids=NAMES)
@pytest.mark.parametrize("unknown", [b"\x9a\x06\x04path", b"\x98\x06\x01", b"\xfd\x7f\0\0\0\0"])
def test_an_unknown_field_is_refused(message: Message, unknown: bytes):
    told = type(message).FromString(message.SerializeToString() + unknown)
    with pytest.raises(wire.WireError) as error:
        wire.strict(told)
    assert "unknown field" in str(error.value)
    assert "path" not in str(error.value)


def test_an_unknown_field_is_refused_however_deep():
    statement = pb.Statement(seq=1, content=b"{}", proof=[HASH]).SerializeToString() + b"\x98\x06\x01"
    head = HEAD.SerializeToString() + b"\x1a" + bytes([len(statement)]) + statement
    release = pb.Release.FromString(RELEASE.SerializeToString() + b"\x42" + bytes([len(head)]) + head)
    with pytest.raises(wire.WireError, match="Statement"):
        wire.strict(release)


@pytest.mark.parametrize("place", sorted(wire.LENGTHS))
def test_bytes_outside_their_bounds_are_refused(place: str):
    name, _, field = place.partition(".")
    least, most = wire.LENGTHS[place]
    outside = [most + 1] + ([least - 1] if least else [])
    for length in outside:
        with pytest.raises(wire.WireError, match=place):
            wire.strict(_with(name, field, bytes(length)))
    for length in (least, most):
        wire.strict(_with(name, field, bytes(length)))


@pytest.mark.parametrize("place", sorted(wire.COUNTS))
def test_a_longer_list_is_refused(place: str):
    name, _, field = place.partition(".")
    one = _honest(name)
    element = getattr(one, field)[0]
    for count, taken in ((wire.COUNTS[place], True), (wire.COUNTS[place] + 1, False)):
        many = type(one)()
        many.CopyFrom(one)
        many.ClearField(field)
        getattr(many, field).extend([element] * count)
        if taken:
            wire.strict(many)
        else:
            with pytest.raises(wire.WireError, match=place):
                wire.strict(many)


@pytest.mark.parametrize(
    "message",
    [
        pb.Welcome(version=1, size=MAX_INTEGER + 1),
        pb.Release(plan=HASH, round=1, sha256=HASH, size=4, entry=b"{}", seq=3),  # without its head
        pb.Progress(),
        pb.Refusal(plan=HASH, round=1),
        pb.PlanAnswer(plan=HASH, approved=True, code=pb.CODE_BUDGET),
        pb.PlanAnswer(plan=HASH, approved=False),
        pb.Refusal.FromString(pb.Refusal(plan=HASH, round=1).SerializeToString() + b"\x18\x63"),
        pb.Refusal.FromString(
            pb.Refusal(plan=HASH, round=1).SerializeToString() + b"\x18" + b"\xff" * 9 + b"\x01"
        ),
    ],
    ids=["integer", "no head", "no progress", "no code", "yes but", "no why", "code 99", "code -1"],
)
def test_a_message_that_says_nothing_or_two_things_is_refused(message: Message):
    with pytest.raises(wire.WireError):
        wire.strict(message)


def test_codes_are_words_both_ways():
    assert {wire.word(code) for code in range(1, 5)} == {"region_unavailable", "refused", "budget", "plan"}
    assert {wire.word(code) for code in range(5, len(pb.Code.values()))} == set(outcome.FINDINGS)
    for code in range(1, len(pb.Code.values())):
        assert wire.code(wire.word(code)) == code
        assert wire.code(wire.word(code), 3) == (code if code < 5 else pb.CODE_REFUSED)
    assert wire.code("anything else") == pb.CODE_REGION_UNAVAILABLE
    for code in (0, len(pb.Code.values()), -1):
        with pytest.raises(wire.WireError):
            wire.word(code)


def test_a_head_crosses_and_is_the_same(tmp_path: Path):
    with closing(kit.create(tmp_path)) as ledger:
        shown = show(ledger.state, ledger.checkpoint(), epoch=0, size=0)
    assert shown.statements
    crossed = pb.Head.FromString(wire.head(shown).SerializeToString())
    wire.strict(crossed)
    assert wire.shown(crossed) == shown


def test_a_checkpoint_that_is_no_text_is_refused():
    with pytest.raises(wire.WireError, match="checkpoint"):
        wire.shown(pb.Head(checkpoint=b"\xff\xfe"))


def _honest(name: str) -> Message:
    """An honest message of one kind with at least one element in each list."""
    within = {
        "PlanOffer": HONEST[5].plan,
        "Round": HONEST[6].round,
        "Head": pb.Head(
            checkpoint=b"note",
            consistency=[HASH],
            statements=[pb.Statement(seq=0, content=b"{}", proof=[HASH])],
        ),
        "Statement": pb.Statement(seq=0, content=b"{}", proof=[HASH]),
        "Receipt": RECEIPT,
    }
    return within.get(name) or next(one for one in HONEST if type(one).__name__ == name)


def _with(name: str, field: str, value: bytes) -> Message:
    one = _honest(name)
    message = type(one)()
    message.CopyFrom(one)
    if message.DESCRIPTOR.fields_by_name[field].is_repeated:
        getattr(message, field)[:] = [value]
    else:
        setattr(message, field, value)
    return message


def test_some_version_carries_every_plan_that_this_release_writes():
    """A plan of a newer format than the newest version carries would be offered to nobody."""
    assert set(wire.PLANS) == set(wire.VERSIONS)
    assert wire.PLANS[wire.VERSION] == formats.NEWEST["plan"]
