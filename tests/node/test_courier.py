"""The region's gate and a coordinator, honest and otherwise: what is sent, refused, kept, and sent again."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import grpc
import numpy as np
import operator_kit
import pytest
from node import station_kit as kit
from node.coordinator_fake import Coordinator, Direct, served
from plan.sample import noise_alone

from fedfsd.border import border_pb2 as pb
from fedfsd.border import wire
from fedfsd.errors import BudgetError, DataError, NotReadyError, RefusedError
from fedfsd.ledger import note
from fedfsd.ledger.key import SigningKey
from fedfsd.node import inbox, upload
from fedfsd.node.courier import Backoff
from fedfsd.node.upload import ForkError

PLAN = operator_kit.plan()
CANARY = "vehicle-4711-at-lat-52.5"


@pytest.fixture
def eu(granted, tmp_path) -> Path:
    """A region that has approved nothing."""
    return Path(shutil.copytree(granted, tmp_path / "eu"))


@pytest.fixture
def approved(eu) -> Path:
    """A region that has approved PLAN."""
    kit.approve(eu, PLAN)
    return eu


@pytest.fixture
def hub(tmp_path) -> Coordinator:
    (tmp_path / "hub").mkdir()
    return Coordinator(tmp_path / "hub")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(Backoff, "FIRST", 0.01)
    monkeypatch.setattr(Backoff, "MOST", 0.05)
    monkeypatch.setattr("fedfsd.node.courier.LOOK_SECONDS", 0.02)


def test_a_plan_from_offer_to_the_last_receipt(eu, hub):
    with served(hub) as port, kit.working(eu, hub, kit.insecure(port)) as made:
        hub.offer(PLAN)

        until(lambda: (eu / "plans" / f"{PLAN.hash}.json").read_text() == PLAN.document())
        assert not hub.answers
        kit.approve(eu, PLAN)
        hub.wait(lambda: hub.answers)
        for round in (1, 2, 3):
            hub.ask(PLAN, round, arrays(round))
            hub.wait(lambda round=round: (PLAN.hash, round) in hub.received)
        hub.wait(lambda: hub.shown)
        until(lambda: (eu / "heads" / "coordinator.note").read_text() == hub.shown[-1])
        until(lambda: not list((eu / "inbox").iterdir()))
        assert made.tally.document()["rounds"] == {"received": 3}
    assert hub.answers == {PLAN.hash: "approved"}
    assert [json.loads(line)["round"] for line in lines(eu)] == [1, 2, 3]
    assert [one.sha256 for one in kit.entries(eu, "release")] == [json.loads(x)["sha256"] for x in lines(eu)]
    assert len(kit.entries(eu, "witness")) == 1


@pytest.mark.parametrize(
    ("other", "code", "entry"),
    [
        ({"plan": bytes(32)}, "plan", "policy"),
        ({"round": 4}, "refused", "arrays"),
        ({"round": 0}, "refused", "arrays"),
        ({"size": 4 * operator_kit.WITNESS_SIZE + 1}, "refused", "arrays"),
        ({"size": 2**50}, "refused", "arrays"),
    ],
)
def test_refused_before_a_byte_is_fetched(approved, hub, other, code, entry):
    case = (other.get("plan", bytes.fromhex(PLAN.hash)).hex(), other.get("round", 1))
    with kit.working(approved, hub):
        hub.ask(PLAN, 1, arrays(1), other)
        hub.wait(lambda: hub.refusals)
    assert hub.refusals == {case: code}
    assert "Fetch" not in hub.calls
    assert [one.code for one in kit.entries(approved, "refuse")] == [entry]


def test_other_arrays_for_a_booked_round_are_refused_unseen(approved, hub):
    with kit.working(approved, hub) as made:
        hub.ask(PLAN, 1, arrays(1))
        hub.wait(lambda: hub.received)
        hub.calls.clear()
        hub.ask(PLAN, 1, arrays(2))
        hub.wait(lambda: hub.refusals)
        assert made.runner.rounds == [1]
    assert hub.refusals == {(PLAN.hash, 1): "budget"}
    assert "Fetch" not in hub.calls


@pytest.mark.parametrize("value", [1e10, np.nan, -np.inf])
def test_weights_out_of_bounds_never_reach_the_runner(approved, hub, value):
    with kit.working(approved, hub) as made:
        hub.ask(PLAN, 1, np.full(operator_kit.WITNESS_SIZE, value, "<f4").tobytes())
        hub.wait(lambda: hub.refusals)
        assert made.runner.rounds == []
    assert set(hub.refusals.values()) == {"refused"}
    assert [one.code for one in kit.entries(approved, "refuse")] == ["arrays"]


def wrong_hash(chunks, _):
    for chunk in chunks:
        yield pb.Chunk(sha256=chunk.sha256, offset=chunk.offset, content=bytes(len(chunk.content)))


def other_content(chunks, _):
    for chunk in chunks:
        yield pb.Chunk(sha256=bytes(32), offset=chunk.offset, content=chunk.content)


def too_much(chunks, _):
    for chunk in chunks:
        yield chunk
    yield pb.Chunk(sha256=chunk.sha256, offset=chunk.offset + len(chunk.content), content=b"more")


def out_of_order(chunks, _):
    yield from reversed(list(chunks))


def nothing(chunks, _):
    return iter(())


def unknown_field(chunks, _):
    for chunk in chunks:
        yield pb.Chunk.FromString(chunk.SerializeToString() + b"\xfa\x01\x01x")


def huge(chunks, _):
    for chunk in chunks:
        yield pb.Chunk(sha256=chunk.sha256, offset=chunk.offset, content=bytes(2**20 + 1))


@pytest.mark.parametrize(
    "twist", [wrong_hash, other_content, too_much, out_of_order, nothing, unknown_field, huge]
)
def test_bad_streams_of_arrays_are_refused_and_the_region_goes_on(approved, hub, twist):
    hub.twists["Fetch"] = twist
    content = np.ones(operator_kit.WITNESS_SIZE, "<f4").tobytes()
    with kit.working(approved, hub) as made:
        hub.ask(PLAN, 1, content)
        hub.wait(lambda: hub.refusals)
        assert made.runner.rounds == []
        del hub.twists["Fetch"]
        hub.ask(PLAN, 2, content)
        hub.wait(lambda: (PLAN.hash, 2) in hub.received)
    assert hub.refusals == {(PLAN.hash, 1): "refused"}
    assert "round_refused" in kit.log(approved)


def test_a_cut_fetch_goes_on_where_it_was(approved, hub, monkeypatch):
    monkeypatch.setattr(inbox, "LEAST_PROGRESS", 500)
    asked = []

    def cut(chunks, request):
        asked.append(request.offset)
        yield next(chunks)
        raise_status(grpc.StatusCode.UNAVAILABLE if len(asked) % 2 else grpc.StatusCode.DEADLINE_EXCEEDED)

    hub.twists["Fetch"] = cut
    with kit.working(approved, hub):
        hub.ask(PLAN, 1, arrays(1))
        hub.wait(lambda: hub.received)
    assert asked == [0, 1000, 2000, 3000, 4000]


def test_a_cut_send_goes_on_where_it_was(approved, hub, monkeypatch):
    monkeypatch.setattr(upload, "PIECE", 1000)
    offsets = []

    def cut(chunk, part):
        offsets.append(chunk.offset)
        if len(offsets) < 4:
            raise_status(
                grpc.StatusCode.UNAVAILABLE if len(offsets) % 2 else grpc.StatusCode.DEADLINE_EXCEEDED
            )

    hub.twists["chunk"] = cut
    with kit.working(approved, hub) as made:
        hub.ask(PLAN, 1, arrays(1))
        hub.wait(lambda: hub.received)
        until(lambda: not made.waiting())
        assert made.runner.rounds == [1]
    assert offsets == [0, 1000, 2000, 3000, 4000]
    assert len(kit.entries(approved, "reserve")) == len(kit.entries(approved, "release")) == 1


def other_round(progress, _):
    changed = pb.Progress.FromString(progress.SerializeToString())
    changed.receipt.round += 1
    return changed if progress.HasField("receipt") else progress


def bad_signature(progress, _):
    changed = pb.Progress.FromString(progress.SerializeToString())
    changed.receipt.signature = bytes(64)
    return changed if progress.HasField("receipt") else progress


def not_cosigned(progress, _):
    changed = pb.Progress.FromString(progress.SerializeToString())
    parsed = note.Note.parse(progress.receipt.cosigned) if progress.HasField("receipt") else None
    if parsed:
        changed.receipt.cosigned = str(note.Note(parsed.text, parsed.signatures[:1])).encode()
    return changed if parsed else progress


def cosigned_by_another(progress, request):
    changed = pb.Progress.FromString(progress.SerializeToString())
    if progress.HasField("receipt"):
        stranger = SigningKey.generate("fedfsd/coordinator/hub")
        text = request.head.checkpoint.decode()
        changed.receipt.cosigned = note.cosign(text, stranger, seconds=1).encode()
    return changed


@pytest.mark.parametrize("twist", [other_round, bad_signature, not_cosigned, cosigned_by_another])
def test_a_receipt_that_is_none_is_not_kept_and_asked_for_again(approved, hub, twist):
    hub.twists["Offer"] = hub.twists["Send"] = twist
    with kit.working(approved, hub) as made:
        hub.ask(PLAN, 1, arrays(1))
        hub.wait(lambda: hub.received)
        hub.wait(lambda: hub.calls.count("Hello") > 1)
        assert made.waiting() == [(PLAN.hash, 1)]
        assert not lines(approved)
        hub.twists.clear()
        until(lambda: not made.waiting())
        assert made.runner.rounds == [1]
    assert len(lines(approved)) == 1


def test_a_replayed_receipt_of_an_earlier_round_is_not_taken(approved, hub):
    with kit.working(approved, hub) as made:
        hub.ask(PLAN, 1, arrays(1))
        hub.wait(lambda: hub.received)
        old = hub.receipts[PLAN.hash, 1]
        hub.twists["Offer"] = lambda progress, request: pb.Progress(receipt=old)
        hub.ask(PLAN, 2, arrays(2))
        until(lambda: "a receipt for something else" in kit.log(approved))
        assert made.waiting() == [(PLAN.hash, 2)]
    assert len(lines(approved)) == 1


def test_a_gate_that_was_killed_sends_the_same_bytes_without_a_new_charge(approved, hub):
    hub.failures["Offer"] = [grpc.StatusCode.UNAVAILABLE] * 10_000
    with kit.working(approved, hub) as made:
        hub.ask(PLAN, 1, arrays(1))
        hub.wait(lambda: hub.calls.count("Offer") > 2)
        assert made.runner.rounds == [1]
    hub.failures.clear()
    with kit.working(approved, hub) as made:
        hub.wait(lambda: hub.received)
        until(lambda: not made.waiting())
        assert made.runner.rounds == []
    (release,) = kit.entries(approved, "release")
    assert len(kit.entries(approved, "reserve")) == 1
    assert json.loads(lines(approved)[0])["sha256"] == release.sha256


def test_a_receipt_lost_in_a_crash_is_asked_for_when_there_is_nothing_to_do(approved, hub):
    with kit.working(approved, hub):
        hub.ask(PLAN, 1, arrays(1))
        hub.wait(lambda: hub.received)
    (approved / "receipts" / f"{PLAN.hash}.jsonl").write_bytes(b'{"half a line')
    with kit.working(approved, hub) as made:
        until(lambda: not made.waiting())
    assert len(lines(approved)) == 1


def test_an_old_release_that_nobody_wants_does_not_keep_a_newer_one_back(approved, hub):
    other = operator_kit.plan(seed=2)
    kit.approve(approved, other)
    hub.failures["Offer"] = [grpc.StatusCode.UNAVAILABLE] * 10_000
    with kit.working(approved, hub) as made:
        for plan in (PLAN, other):
            made.runner.round(plan, 1, {"noise_witness": np.zeros(operator_kit.WITNESS_SIZE, np.float32)})
    hub.failures["Offer"] = [grpc.StatusCode.FAILED_PRECONDITION]
    with kit.working(approved, hub) as made:
        hub.wait(lambda: (other.hash, 1) in hub.received)
        until(lambda: made.waiting() == [(PLAN.hash, 1)])
    assert "offer_refused" in kit.log(approved)


def test_a_bug_in_the_courier_costs_a_connection(approved, hub, monkeypatch):
    failures = [ZeroDivisionError(CANARY)]

    def buggy(self, task):
        if failures:
            raise failures.pop()

    monkeypatch.setattr("fedfsd.node.courier.Courier._idle", buggy)
    with kit.working(approved, hub):
        hub.wait(lambda: hub.calls.count("Hello") == 2)
        hub.ask(PLAN, 1, arrays(1))
        hub.wait(lambda: hub.received)
    assert '"error": "ZeroDivisionError"' in kit.log(approved)
    assert CANARY not in kit.log(approved)


def test_pause_holds_before_the_next_byte(approved, hub, monkeypatch):
    monkeypatch.setattr(upload, "PIECE", 1000)
    flag = approved / "paused"
    hub.twists["chunk"] = lambda chunk, part: flag.touch() if len(part) == 2000 else None
    with kit.working(approved, hub):
        hub.ask(PLAN, 1, arrays(1))
        until(lambda: "outbox_held" in kit.log(approved))
        (held,) = hub.parts.values()
        time.sleep(0.1)
        assert len(held) == 2000
        flag.unlink()
        hub.wait(lambda: hub.received)


@pytest.fixture
def patient(granted, tmp_path):
    """A region from which nothing leaves before 0.4 s; its plan is approved."""
    eu = Path(shutil.copytree(granted, tmp_path / "eu"))
    policy = eu / "policy.toml"
    lines = [one for one in policy.read_text(encoding="utf-8").splitlines() if "round_seconds" not in one]
    policy.write_text("\n".join(["round_seconds = 0.4", *lines]), encoding="utf-8")
    kit.approve(eu, PLAN)
    return eu


def test_nothing_leaves_before_round_seconds(patient, hub):
    with kit.working(patient, hub):
        begun = time.monotonic()
        hub.ask(PLAN, 1, arrays(1))
        hub.wait(lambda: hub.received)
    assert hub.times["offer"] - begun >= 0.4
    assert "round_seconds_exceeded" not in kit.log(patient)


def test_training_that_takes_longer_than_round_seconds_hide_is_told_in_the_regions_log(patient, hub):
    def slow(made) -> None:
        work = made.runner.round

        def round(*task):
            time.sleep(0.5)
            return work(*task)

        made.runner.round = round

    with kit.working(patient, hub, prepare=slow):
        hub.ask(PLAN, 1, arrays(1))
        hub.wait(lambda: hub.received)
    assert kit.log(patient).count("round_seconds_exceeded") == 1


@pytest.mark.parametrize("error", [RefusedError(CANARY), BudgetError(CANARY), ValueError(CANARY)])
def test_once_a_round_is_booked_neither_code_nor_time_says_how_it_failed(patient, hub, error):
    with kit.working(patient, hub, prepare=lambda made: made.runner.fails_booked.append(error)):
        begun = time.monotonic()
        hub.ask(PLAN, 1, arrays(1))
        hub.wait(lambda: hub.refusals)
        assert time.monotonic() - begun >= 0.4
        hub.ask(PLAN, 1, arrays(1))
        hub.wait(lambda: hub.received)
    assert hub.refusals == {(PLAN.hash, 1): "region_unavailable"}


@pytest.mark.parametrize("version", [3, wire.VERSION])
def test_what_is_found_in_an_update_is_said_in_due_time_and_again_whenever_a_round_is_asked_for(
    patient, hub, version, monkeypatch
):
    """By a coordinator of an earlier release it is heard as a refusal."""
    hub.twists["Hello"] = lambda answer, _: pb.Welcome(version=version, epoch=answer.epoch, size=answer.size)
    monkeypatch.setattr(kit, "noise_alone", lambda *given: noise_alone(*given, scale=0.5))
    with kit.working(patient, hub):
        begun = time.monotonic()
        hub.ask(PLAN, 1, arrays(1))
        hub.wait(lambda: hub.refusals)
        assert time.monotonic() - begun >= 0.4
        hub.ask(PLAN, 2, arrays(2))
        hub.wait(lambda: len(hub.refusals) > 1)
    said = "refused" if version == 3 else "noise-scale"
    assert hub.refusals == {(PLAN.hash, 1): said, (PLAN.hash, 2): said}
    (found,) = kit.entries(patient, "incident")
    assert (found.round, found.finding) == (1, "noise-scale")


@pytest.mark.parametrize(
    "error", [DataError(CANARY, got=CANARY), ValueError(CANARY), NotReadyError("runner")]
)
def test_a_failure_in_the_data_path_is_one_code(approved, hub, error):
    with kit.working(approved, hub, prepare=lambda made: made.runner.fails.append(error)):
        hub.ask(PLAN, 1, arrays(1))
        hub.wait(lambda: hub.refusals)
        hub.ask(PLAN, 1, arrays(1))
        hub.wait(lambda: hub.received)
    assert hub.refusals == {(PLAN.hash, 1): "region_unavailable"}
    assert CANARY not in kit.log(approved)


def test_a_full_disk_is_named_and_passes(approved, hub, monkeypatch):
    monkeypatch.setattr(inbox, "_stream", full_disk)
    with kit.working(approved, hub):
        hub.ask(PLAN, 1, arrays(1))
        hub.wait(lambda: hub.refusals)
        monkeypatch.undo()
        hub.ask(PLAN, 1, arrays(1))
        hub.wait(lambda: hub.received)
    assert hub.refusals == {(PLAN.hash, 1): "region_unavailable"}
    assert '"event": "disk_full"' in kit.log(approved)


def test_a_fork_stops_the_gate(approved, hub):
    hub.failures["Offer"] = [grpc.StatusCode.DATA_LOSS]
    hub.ask(PLAN, 1, arrays(1))
    with pytest.raises(ForkError) as caught, kit.working(approved, hub):
        hub.wait(lambda: "Offer" in hub.calls)
    assert caught.value.exit_code == 4


def test_a_ledger_behind_the_coordinators_memory_stops_the_gate(approved, hub):
    hub.twists["Hello"] = lambda welcome, _: pb.Welcome(version=1, size=10_000)
    with pytest.raises(ForkError, match="10000"), kit.working(approved, hub):
        hub.wait(lambda: "Hello" in hub.calls)


def test_a_coordinator_that_answers_garbage_is_left_alone_with_growing_waits(approved, hub):
    def garbage(method: str, content: bytes) -> bytes:
        return content + b"\xfa\x01\x01x" if method == "Next" and len(hub.calls) < 10 else content

    with kit.working(approved, hub, lambda: Direct(hub, garbage)):
        hub.ask(PLAN, 1, arrays(1))
        hub.wait(lambda: hub.received)
    assert "an unknown field" in kit.log(approved)


def test_waits_double_and_are_bounded(monkeypatch):
    monkeypatch.undo()
    backoff = Backoff()
    waits = [backoff.wait() for _ in range(20)]
    assert 0.1 <= waits[0] <= 0.2
    assert all(15 <= wait <= 30 for wait in waits[10:])
    backoff.reset()
    assert backoff.wait() <= 0.2


def arrays(round: int) -> bytes:
    """What round starts from."""
    return np.full(operator_kit.WITNESS_SIZE, round, "<f4").tobytes()


def lines(folder: Path) -> list[bytes]:
    path = folder / "receipts" / f"{PLAN.hash}.jsonl"
    return path.read_bytes().splitlines() if path.exists() else []


def until(holds, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if holds():
                return
        except OSError:
            pass
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def raise_status(code: grpc.StatusCode) -> None:
    from node.coordinator_fake import Status

    raise Status(code)


def full_disk(*_):
    raise OSError(28, "No space left on device")
