"""The ServerApp's grid over one that loses what it was told."""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, Metadata, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.serde import metadata_to_proto
from flwr.serverapp import Grid

from fedfsd.flower import flat, private
from fedfsd.flower.engine import Engine
from fedfsd.flower.fleet import FleetNode, StaleReplyError
from fedfsd.flower.link_grid import LinkGrid


class Forgetful(Grid):
    """Answers with what ``answer`` makes of a message, loses replies as told, and counts."""

    def __init__(self, answer) -> None:  # type: ignore[no-untyped-def]
        self.answer, self.lose, self.drop = answer, 0, 0
        self.pushed: list[Message] = []
        self.waiting: dict[str, Message] = {}
        self._retry_invoker = SimpleNamespace(
            on_backoff=lambda state: None, should_giveup=lambda error: True, wait_gen_factory=None
        )

    def set_run(self, run) -> None:  # type: ignore[no-untyped-def]
        """Nothing."""

    @property
    def run(self):  # type: ignore[no-untyped-def]
        """None."""

    def create_message(self, *_: object) -> Message:
        """Never called."""
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        """One node."""
        return [7]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """An id each, by content as in Flower."""
        ids = []
        for message in messages:
            self.pushed.append(message)
            ids.append(message.object_id)
            self.waiting[ids[-1]] = message
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies, or that they are lost, or nothing at all."""
        found = []
        for name in message_ids:
            message = self.waiting.pop(name, None)
            if message is None:
                continue
            if self.drop:
                self.drop -= 1
            elif self.lose:
                self.lose -= 1
                found.append(self._reply(name, message, Error(ErrorCode.MESSAGE_UNAVAILABLE, "lost")))
            else:
                found.append(self._reply(name, message, self.answer(message)))
        return found

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None):  # type: ignore[no-untyped-def]
        """Never called."""
        raise NotImplementedError

    def _reply(self, name: str, message: Message, content: RecordDict | Error) -> Message:
        reply = Message(content, reply_to=message)
        reply.metadata.__dict__["_reply_to_message_id"] = name
        return reply


def answer(message: Message) -> RecordDict:
    """What a fleet node sends back for a flat question."""
    records = flat.unwrap(flat.records_of(message.content))
    return flat.wrap(
        {
            "arrays": {"w": records["arrays"]["w"] + 1},
            "metrics": MetricRecord({}),
            "release": ConfigRecord({"entry": "e", "sha256": "f"}),
        }
    )


@pytest.fixture
def question() -> Message:
    """A round's message."""
    private.become(1)
    arrays = ArrayRecord({"w": Array(np.float32([1, 2]))})
    return Message(
        RecordDict({"arrays": arrays, "config": ConfigRecord({"plan": "p", "round": 1})}), 7, "train"
    )


def test_a_question_and_its_answer(question: Message) -> None:
    (reply,) = LinkGrid(inner := Forgetful(answer)).send_and_receive([question])
    assert list(inner.pushed[0].content) == [flat.FLAT]
    assert list(reply.content) == ["arrays", "metrics", "release"]
    np.testing.assert_array_equal(reply.content["arrays"]["w"].numpy(), np.float32([2, 3]))
    assert dict(reply.content["release"]) == {"entry": "e", "sha256": "f"}


def test_several_questions_share_what_they_share(question: Message) -> None:
    other = Message(question.content, 8, "train")
    LinkGrid(inner := Forgetful(answer)).push_messages([question, other])
    assert inner.pushed[0].content is inner.pushed[1].content


def test_a_lost_reply_is_asked_again_under_the_same_id(question: Message) -> None:
    (inner := Forgetful(answer)).lose = 2
    (reply,) = LinkGrid(inner).send_and_receive([question])
    assert reply.has_content()
    assert len(inner.pushed) == 3
    assert len({message.object_id for message in inner.pushed}) == 1


def test_a_reply_lost_without_a_word_is_asked_after_an_outage(question: Message) -> None:
    (inner := Forgetful(answer)).drop = 1
    grid = LinkGrid(inner)
    (name,) = grid.push_messages([question])
    assert list(grid.pull_messages([name])) == []
    inner._retry_invoker.on_backoff(None)
    assert list(grid.pull_messages([name])) == []
    assert next(iter(grid.pull_messages([name]))).has_content()
    assert len(inner.pushed) == 2


def test_what_is_too_old_is_lost(question: Message) -> None:
    (inner := Forgetful(answer)).lose = 1
    question.metadata.__dict__["_created_at"] = time.time() - 2 * question.metadata.ttl
    (reply,) = LinkGrid(inner).send_and_receive([question])
    assert reply.has_error()
    assert len(inner.pushed) == 1


def test_what_is_no_longer_asked_for_is_not_asked_again(question: Message) -> None:
    grid = LinkGrid(inner := Forgetful(answer))
    grid.push_messages([question])
    inner._retry_invoker.on_backoff(None)
    assert list(grid.pull_messages([])) == []
    assert len(inner.pushed) == 1


@pytest.mark.parametrize(
    "damaged",
    [
        RecordDict({flat.FLAT: ConfigRecord({flat.FLAT: b"nonsense"})}),
        RecordDict({flat.FLAT: ConfigRecord({flat.FLAT: "text"})}),
        RecordDict({flat.FLAT: ConfigRecord({"else": b""})}),
        RecordDict({flat.FLAT: MetricRecord({flat.FLAT: 1})}),
    ],
)
def test_a_damaged_reply_is_left_to_the_judge(question: Message, damaged: RecordDict) -> None:
    (reply,) = LinkGrid(Forgetful(lambda message: damaged)).send_and_receive([question])
    assert list(reply.content) == [flat.FLAT]


def test_a_broken_handshake_is_tried_again(question: Message) -> None:
    outage = private.Outage(inner := Forgetful(answer))
    assert not inner._retry_invoker.should_giveup(httpx.ConnectError("[SSL] unexpected eof"))
    request = httpx.Request("POST", "https://127.0.0.1")
    error = httpx.HTTPStatusError("", request=request, response=httpx.Response(400))
    assert inner._retry_invoker.should_giveup(error)
    assert not outage.is_over()


def test_an_answer_that_comes_too_late_is_not_sent(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (engine := Engine(tmp_path / "flower", 9)).prepare()
    node = FleetNode(engine.address, root_certificates=engine.root_certificates, key=tmp_path / "key")
    metadata = Metadata(1, "m", 1, 7, "", "1", 1.7e9, 60.0, "train")

    envelope = b"\x00" + metadata_to_proto(metadata).SerializeToString()
    with pytest.raises(StaleReplyError, match="expired"):
        node.fail(envelope, 1000, "region_unavailable")
    node.close()
