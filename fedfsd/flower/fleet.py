"""One node of Flower's fleet, which the coordinator's gate runs for a region.

Flower hands an instruction out once and forgets a node after a minute of silence. This node may be killed
at any moment: it resumes its old id by a heartbeat, an instruction counts as taken only when the next
one is asked for or it is answered (``reopen`` brings others back), and an answer sent twice is one answer.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, Error, Metadata, MetricRecord
from flwr.common.constant import HEARTBEAT_MAX_INTERVAL
from flwr.common.serde_utils import metadata_from_proto, metadata_to_proto
from flwr.proto import fleet_pb2, heartbeat_pb2, message_pb2, node_pb2
from flwr.supercore.primitives.asymmetric import (
    bytes_to_private_key,
    private_key_to_bytes,
    public_key_to_bytes,
)
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fedfsd.errors import FedfsdError, NotReadyError, RefusedError
from fedfsd.flower import flat, parcel
from fedfsd.flower.answer import StaleReplyError, gone, translated, unknown_key
from fedfsd.flower.state import Mailbox

# What a node announces between two heartbeats, in seconds: Flower calls it lost after twice that. The longest
# it takes: a region that is away is ours to judge, and a restart must not lose what is outstanding.
PATIENCE_SECONDS = float(HEARTBEAT_MAX_INTERVAL)
# A message shows up before the last of its objects has; Flower gives its sender three minutes.
_ARRIVAL_SECONDS = 200.0
_FIRST_WAIT, _LONGEST_WAIT = 0.005, 0.25

# The first byte of an envelope: how the question came, and so how the answer goes.
_PLAIN, _FLAT = b"\x00", b"\x01"

TRAIN, QUERY, BAD = "train", "query.region", "bad"


@dataclass(frozen=True)
class Instruction:
    """What the ServerApp asks of a region; anything of another form is of kind "bad"."""

    envelope: bytes
    """All that an answer needs, also after a restart. The same message has the same envelope."""
    kind: str
    """``train``, ``query.region`` or ``bad``."""
    plan: str | None = None
    """The plan's document."""
    round: int | None = None
    arrays: dict[str, np.ndarray] | None = None
    expires: float = 0.0
    """Unix time [s] after which no answer is taken."""


class FleetNode:
    """A registered node of the SuperLink at ``address`` (host:port); its ``key`` is made when missing.

    Every method raises NotReadyError while the SuperLink does not answer (ask again later) and RefusedError
    when it does not know the key. Calls may come from several threads.
    """

    def __init__(
        self, address: str, *, root_certificates: Path, key: Path, database: Path | None = None
    ) -> None:
        """``database``: the SuperLink's own, where it can be read; then ``pull`` asks when it is worth it."""
        private = bytes_to_private_key(_key(key))
        self.public_key = public_key_to_bytes(private.public_key())
        """PEM, for ``Engine.register``."""
        self._client = FleetHttpClient.from_server_address(
            address,
            False,
            root_certificates.read_bytes(),
            interceptors=[NodeAuthHttpInterceptor(private, private.public_key())],
        )
        self._node = node_pb2.Node()
        self._mailbox = Mailbox(database)
        self._lock = threading.Lock()
        self._arriving: Metadata | None = None
        self._taken: Metadata | None = None
        self._confirmed = ""
        # Of an answer whose upload broke off: its session, and the objects that are still to come.
        self._unfinished: dict[str, tuple[str, set[str]]] = {}

    def activate(self, known: int | None) -> int:
        """Come online and return the node's id; a ``known`` one is taken up at once."""
        if known is not None:
            self._node = node_pb2.Node(node_id=known)
            try:
                self.beat()
                return known
            except RefusedError:  # another SuperLink than the one that gave this id
                self._node = node_pb2.Node()
        with translated():
            response = self._client.ActivateNode(
                fleet_pb2.ActivateNodeRequest(public_key=self.public_key, heartbeat_interval=PATIENCE_SECONDS)
            )
        self._node = node_pb2.Node(node_id=response.node_id)
        return response.node_id

    def beat(self) -> None:
        """Stay online for another hour."""
        with translated():
            response = self._client.SendNodeHeartbeat(
                heartbeat_pb2.SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=PATIENCE_SECONDS)
            )
        if not response.success:
            raise unknown_key()

    def pull(self) -> Instruction | None:
        """The next instruction, or none. Asking for it confirms the one before.

        Holds the arrays and one chunk of 5 MB besides.
        """
        with self._lock:
            if self._taken is not None:
                self._confirm(self._taken)
                self._taken = None
            if self._arriving is None:
                if not self._mailbox.has_instruction(self._node.node_id):
                    return None
                with translated():
                    response = self._client.PullMessages(fleet_pb2.PullMessagesRequest(node=self._node))
                if not response.messages_list:
                    return None
                self._arriving = metadata_from_proto(response.messages_list[0].metadata)
            try:
                instruction = self._read(self._arriving)
            except StaleReplyError:
                self._arriving = None
                return None
            self._taken, self._arriving = self._arriving, None
            return instruction

    def reply(self, envelope: bytes, arrays: Mapping[str, np.ndarray], entry_hash: str, sha256: str) -> None:
        """Answer a training instruction with a release. Idempotent.

        Holds one copy of ``arrays`` besides them. Raises StaleReplyError when it is no longer wanted.
        """
        self._answer(
            envelope,
            {
                "arrays": arrays,
                "metrics": MetricRecord({}),
                "release": ConfigRecord({"entry": entry_hash, "sha256": sha256}),
            },
        )

    def identify(self, envelope: bytes, region: str) -> None:
        """Answer a query for the region's name. Raises StaleReplyError as above."""
        self._answer(envelope, {"region": ConfigRecord({"name": region})})

    def fail(self, envelope: bytes, code: int, word: str) -> None:
        """Answer that there will be no release. Raises StaleReplyError as above."""
        self._answer(envelope, Error(code, word))

    def close(self) -> None:
        """Close the connections; the node stays online until its patience ends."""
        self._client.close()
        with self._lock:
            self._mailbox.close()

    def _read(self, metadata: Metadata) -> Instruction:
        """Fetch an instruction's objects as they arrive."""
        facts = metadata_to_proto(metadata).SerializeToString(deterministic=True)
        is_flat = False
        expires = metadata.created_at + metadata.ttl
        try:
            records: flat.Records = parcel.unpack(metadata.message_id, self._getter(metadata.run_id))
            if (inner := flat.unwrap(records)) is not None:
                is_flat, records = True, inner
        except FedfsdError:
            raise
        except (
            Exception
        ):  # whatever damaged objects make protobuf, JSON and numpy raise: answered, not retried
            return Instruction(_PLAIN + facts, BAD, expires=expires)
        facts = (_FLAT if is_flat else _PLAIN) + facts
        config, arrays = records.get("config"), records.get("arrays")
        if metadata.message_type == QUERY and not records:
            return Instruction(facts, QUERY, expires=expires)
        if (
            metadata.message_type == TRAIN
            and set(records) == {"arrays", "config"}
            and isinstance(arrays, dict)
            and isinstance(config, ConfigRecord)
            and set(config) == {"plan", "round"}
            and isinstance(plan := config["plan"], str)
            and isinstance(round := config["round"], int)
        ):
            return Instruction(facts, TRAIN, plan, round, arrays, expires)
        return Instruction(facts, BAD, expires=expires)

    def _getter(self, run_id: int) -> Callable[[str], bytes]:
        deadline = time.monotonic() + _ARRIVAL_SECONDS

        def get(name: str) -> bytes:
            wait = _FIRST_WAIT
            request = message_pb2.PullObjectRequest(node=self._node, run_id=run_id, object_id=name)
            while True:
                with translated():
                    response = self._client.PullObject(request)
                if response.object_available:
                    return response.object_content
                if not response.object_found or time.monotonic() > deadline:
                    raise gone("an instruction that was withdrawn")
                time.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)

        return get

    def _answer(self, envelope: bytes, content: flat.Records | Error) -> None:
        asked = _opened(envelope)
        if asked.created_at + asked.ttl <= time.time():
            raise gone("an instruction that has expired")
        # Nothing of the moment is in an answer: the same one has the same id, and Flower stores it once.
        answer = Metadata(
            run_id=asked.run_id,
            message_id="",
            src_node_id=asked.dst_node_id,
            dst_node_id=asked.src_node_id,
            reply_to_message_id=asked.message_id,
            group_id=asked.group_id,
            created_at=asked.created_at,
            ttl=asked.ttl,
            message_type=asked.message_type,
            src_task_id=asked.dst_task_id,
            dst_task_id=asked.src_task_id,
        )
        wrap = flat.wrap if envelope.startswith(_FLAT) else flat.plain
        packed = parcel.pack(answer, content if isinstance(content, Error) else wrap(content))
        with translated():
            response = self._client.PushMessages(
                fleet_pb2.PushMessagesRequest(
                    node=self._node,
                    messages_list=[packed.proto],
                    message_object_trees=[packed.tree],
                    clientapp_runtime_list=[0.0],
                )
            )
        reply = packed.tree.object_id
        session, wanted = response.session_id, set(response.objects_to_push)
        if not wanted:  # sent already; or broken off, and then the first session still takes the rest
            session, wanted = self._unfinished.get(reply, ("", set()))
        self._unfinished[reply] = session, wanted
        for name, data in packed.contents(set(wanted)):
            request = message_pb2.PushObjectRequest(
                node=self._node,
                run_id=asked.run_id,
                object_id=name,
                object_content=data,
                session_id=session,
            )
            with translated():
                stored = self._client.PushObject(request).stored
            if not stored:
                del self._unfinished[reply]
                raise NotReadyError("SuperLink", got="an upload cut short", expected="one that goes through")
            wanted.discard(name)
        del self._unfinished[reply]
        self._confirm(asked)

    def _confirm(self, metadata: Metadata) -> None:
        """Let Flower forget the instruction's objects; that it has forgotten them already is as good."""
        if metadata.message_id == self._confirmed:
            return
        request = message_pb2.ConfirmMessageReceivedRequest(
            node=self._node, run_id=metadata.run_id, message_object_id=metadata.message_id
        )
        with suppress(StaleReplyError), translated():
            self._client.ConfirmMessageReceived(request)
        self._confirmed = metadata.message_id


def _key(path: Path) -> bytes:
    """The node's private key (PEM), made where there is none.

    EC P-256, which the SuperLink takes as well as the P-384 of its own nodes: every call is signed, and
    P-384 costs a millisecond.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        content = private_key_to_bytes(ec.generate_private_key(ec.SECP256R1()))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    return content


def _opened(envelope: bytes) -> Metadata:
    return metadata_from_proto(message_pb2.Metadata.FromString(envelope[1:]))
