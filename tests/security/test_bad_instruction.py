"""Whatever objects a SuperLink hands out as an instruction: it is one, or it is bad; the node goes on."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import ConfigRecord, Metadata
from flwr.app.message import make_message
from flwr.common.serde import message_to_proto
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from fedfsd.flower import flat
from fedfsd.flower.engine import Engine
from fedfsd.flower.fleet import BAD, TRAIN, FleetNode

RECORDS = {
    "arrays": {"w": np.ones((3, 4), np.float32)},
    "config": ConfigRecord({"plan": "a plan", "round": 1}),
}
PIECES = (b"[", b"{", b"9" * 15, b"null", b"-1", b'"', b"\0", b"\xff\xff")


class SuperLink:
    """Hands out one message, made of ``objects``, again and again."""

    def __init__(self, wrap: Callable) -> None:
        facts = dict.fromkeys(("reply_to_message_id", "group_id", "message_id"), "")
        numbers = {"run_id": 1, "src_node_id": 1, "dst_node_id": 2, "created_at": 1.0, "ttl": 10.0}
        message = make_message(Metadata(**facts, **numbers, message_type="train"), content=wrap(RECORDS))
        message.metadata.__dict__["_message_id"] = message.object_id
        self.good = {name: each.deflate() for name, each in get_all_nested_objects(message).items()}
        self.objects, self._proto = dict(self.good), message_to_proto(message)

    def PullMessages(self, request: object) -> SimpleNamespace:
        return SimpleNamespace(messages_list=[self._proto])

    def PullObject(self, request) -> SimpleNamespace:
        content = self.objects[request.object_id]
        return SimpleNamespace(object_found=True, object_available=True, object_content=content)

    def ConfirmMessageReceived(self, request: object) -> None:
        pass

    def close(self) -> None:
        pass


def node_of(link: SuperLink, folder: Path) -> FleetNode:
    (engine := Engine(folder / "flower", 1)).prepare()
    node = FleetNode("127.0.0.1:1", root_certificates=engine.root_certificates, key=folder / "key")
    node._client.close()
    node._client = link
    return node


def spoiled(content: bytes, chance: random.Random) -> bytes:
    found = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        where = chance.randrange(len(found))
        digits = [at for at, byte in enumerate(found) if byte in b"0123456789"]
        kind = chance.randrange(4)
        if kind == 0:
            found[where] = chance.randrange(256)
        elif kind == 1:
            found[where:where] = chance.choice(PIECES)
        elif kind == 2 and len(found) > 9:
            del found[where : where + chance.randint(1, 8)]
        elif digits:
            at = chance.choice(digits)
            found[at : at + 1] = chance.choice((b"99999999999", b"-7", b"[]", b"null"))
    return bytes(found)


@pytest.mark.parametrize("wrap", [flat.wrap, flat.plain])
def test_damaged_objects_are_a_bad_instruction_and_no_crash(tmp_path, wrap):
    link, chance, kinds = SuperLink(wrap), random.Random(7), Counter()
    node = node_of(link, tmp_path)
    for _ in range(1500):
        name = chance.choice(list(link.good))
        link.objects = {**link.good, name: spoiled(link.good[name], chance)}
        instruction = node.pull()
        kinds[instruction.kind] += 1
        assert instruction.envelope  # so that it can be answered
    assert set(kinds) == {BAD, TRAIN}
    assert kinds[BAD] > 500
    link.objects = dict(link.good)
    assert node.pull().plan == "a plan"
    node.close()
