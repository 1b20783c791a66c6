"""The messages between a region's gate and its runner: a closed list, each with its own fields.

The gate asks; the runner answers, in a round after calls of its own that the gate answers in turn:

    gate      commit   settle   facts    round  .       reserved  .       released  .     settled  .
    runner    committed settled facts_are .     reserve  .        release  .        settle  .       done

``refused`` answers what the gate does not allow, ``failed`` is how a runner ends what it cannot do. Both
carry one word; there is no field that could hold a text or a value of the data.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from fedfsd import formats
from fedfsd.config.experiment import RegionName
from fedfsd.config.load import Frozen
from fedfsd.gate.frame import Buffer, FrameError, Frames
from fedfsd.gate.outcome import Word
from fedfsd.gate.policy import ModelPin
from fedfsd.ledger.entry import Program
from fedfsd.plan.plan import Sha256

VERSION = formats.NEWEST["runner socket"]
MAX_DOCUMENT = 2**20  # bytes of a plan
MAX_KEYS = 512

RoundNumber = Annotated[int, Field(ge=1, lt=2**53)]


class Hello(Frozen):
    """A runner is there, and these are the plans whose run key it has."""

    op: Literal["hello"] = "hello"
    version: int
    region: RegionName
    keys: Annotated[tuple[Sha256, ...], Field(strict=False, max_length=MAX_KEYS)]
    program: Program | None = None
    """What will train; the greeting without it is refused."""


class Welcome(Frozen):
    """The plans among them that are over: their keys are to be destroyed."""

    op: Literal["welcome"] = "welcome"
    over: Annotated[tuple[Sha256, ...], Field(strict=False, max_length=MAX_KEYS)]


class Unwelcome(Frozen):
    """The gate speaks this version and not the runner's. A runner of any release can read it."""

    op: Literal["unwelcome"] = "unwelcome"
    version: int


class Commit(Frozen):
    """Make the run key of a plan."""

    op: Literal["commit"] = "commit"
    plan: Sha256


class Committed(Frozen):
    """The commitment to it."""

    op: Literal["committed"] = "committed"
    plan: Sha256
    commitment: Sha256


class SettleCall(Frozen):
    """The plan is over. From the gate: destroy its key. From the runner, after the last round: book that."""

    op: Literal["settle"] = "settle"
    plan: Sha256


class Settled(Frozen):
    """It is done."""

    op: Literal["settled"] = "settled"
    plan: Sha256


class AskFacts(Frozen):
    """What can you do? With an address to try and a folder to look into, both of which should fail."""

    op: Literal["facts"] = "facts"
    host: Annotated[str, Field(max_length=253)]
    port: Annotated[int, Field(ge=0, le=65535)]
    folder: Annotated[str, Field(max_length=4096)]


class RunnerFacts(Frozen):
    """The runner's answer: nothing of it is computed from the data but that they can be read."""

    op: Literal["facts_are"] = "facts_are"
    data: bool
    device: Annotated[str, Field(pattern=r"^[a-z]{1,16}(:[0-9]{1,3})?$")] | None
    tcp: bool
    gate_folder: bool


class RoundTask(Frozen):
    """One round; the body is the plan's document (so many bytes), then the arrays in canonical bytes."""

    op: Literal["round"] = "round"
    plan: Sha256
    round: RoundNumber
    document: Annotated[int, Field(ge=1, le=MAX_DOCUMENT)]
    pin: ModelPin | None
    """What the model must be."""
    task_pin: ModelPin | None = None
    """What a task of another package must be; since version 2."""

    @model_serializer(mode="wrap")
    def _as_first_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if (key, value) != ("task_pin", None)}


class ReserveCall(Frozen):
    """Book the round on these arrays, for the program of that hash; since version 3."""

    op: Literal["reserve"] = "reserve"
    plan: Sha256
    round: RoundNumber
    arrays: Sha256
    program: Sha256


class Reserved(Frozen):
    """It is booked."""

    op: Literal["reserved"] = "reserved"
    plan: Sha256
    round: RoundNumber


class ReleaseCall(Frozen):
    """The body is the update in canonical bytes."""

    op: Literal["release"] = "release"
    plan: Sha256
    round: RoundNumber
    canaries: Annotated[str, Field(pattern=r"^([.x]{4})?$")] = ""
    """What canaries show, one letter a check (``mechanism.canary.FINDINGS``), where the plan has some."""

    @model_serializer(mode="wrap")
    def _as_first_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if (key, value) != ("canaries", "")}


class Let(Frozen):
    """It is booked and may leave."""

    op: Literal["released"] = "released"
    entry: Annotated[int, Field(ge=1, lt=2**53)]
    entry_hash: Sha256
    sha256: Sha256


class NotAllowed(Frozen):
    """The gate does not allow it."""

    op: Literal["refused"] = "refused"
    code: Word


class Done(Frozen):
    """The round is over, and this entry let its update go."""

    op: Literal["done"] = "done"
    plan: Sha256
    round: RoundNumber
    entry_hash: Sha256
    sha256: Sha256


class Failed(Frozen):
    """What was asked for last cannot be done."""

    op: Literal["failed"] = "failed"
    plan: Sha256 | None
    code: Word


M = TypeVar("M", bound=Frozen)


def send(frames: Frames, message: Frozen, *body: Buffer) -> None:
    """Send one message. PeerGoneError where nobody takes it."""
    frames.send(message.model_dump(mode="json"), *body)


def receive(
    frames: Frames, *kinds: type[M], seconds: float, max_body: int = 0, body_of: type[Frozen] | None = None
) -> tuple[M, bytes]:
    """The next message, which must be one of ``kinds``, and its body, which only ``body_of`` may have.

    Raises:
        FormatError: a hello of another version, whatever else it holds.
        FrameError: another message, or one with other fields.
        PeerGoneError: none in time.
    """
    header, body = frames.receive(max_body=max_body, seconds=seconds)
    named: dict[Any, type[M]] = {kind.model_fields["op"].default: kind for kind in kinds}
    kind = named.get(header["op"]) if isinstance(header.get("op"), str) else None
    if kind is None or (body and kind is not body_of):
        raise FrameError("frame", got="an unexpected message type", expected=" or ".join(sorted(named)))
    theirs = header.get("version") if kind is Hello else VERSION
    if type(theirs) is int and theirs not in formats.READ["runner socket"]:
        raise formats.disagreement("runner socket", theirs, peer="the runner", here="the gate")
    try:
        return kind.model_validate(header), body
    except ValidationError:
        raise FrameError(
            "frame", got="a message with unexpected fields", expected=header["op"] + " as agreed"
        ) from None
