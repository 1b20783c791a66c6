"""The in-process grid: workers that die, stall or raise cost their own task and nothing else."""

from __future__ import annotations

import os
import signal
import time

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from fedfsd.federation.grid import ProcessGrid

APP = "worker_app:app"


@pytest.fixture
def grid():
    with ProcessGrid(APP, {node: {"label": f"n{node}"} for node in (2, 3, 4)}, workers=2) as grid:
        yield grid


def ask(grid, what: str, node: int) -> Message:
    return Message(RecordDict({"ask": ConfigRecord({"what": what})}), node, "train")


def answers(replies) -> dict[int, dict]:
    return {
        reply.metadata.src_node_id: dict(reply.content.config_records["answer"])
        for reply in replies
        if reply.has_content()
    }


def test_every_node_answers_with_its_own_configuration_on_one_thread(grid):
    found = answers(
        grid.send_and_receive([ask(grid, "who", node) for node in grid.get_node_ids()], timeout=60)
    )
    assert {node: answer["label"] for node, answer in found.items()} == {2: "n2", 3: "n3", 4: "n4"}
    assert {answer["threads"] for answer in found.values()} == {1}


def test_a_killed_worker_loses_its_task_alone_and_is_replaced(grid):
    replies = grid.send_and_receive(
        [ask(grid, "die", 2), ask(grid, "who", 3), ask(grid, "who", 4)], timeout=60
    )
    assert set(answers(replies)) == {3, 4}
    assert [reply.metadata.src_node_id for reply in replies if reply.has_error()] == [2]
    assert set(
        answers(grid.send_and_receive([ask(grid, "who", node) for node in (2, 3, 4)], timeout=60))
    ) == {
        2,
        3,
        4,
    }


@pytest.mark.slow
def test_a_stalled_worker_is_given_up_at_the_deadline_and_replaced(grid):
    grid.send_and_receive([ask(grid, "who", node) for node in (2, 3, 4)], timeout=60)  # everything is warm
    started = time.monotonic()
    found = answers(
        grid.send_and_receive([ask(grid, "stall", 2), ask(grid, "who", 3), ask(grid, "who", 4)], timeout=2)
    )
    assert set(found) == {3, 4}
    assert time.monotonic() - started < 20
    assert set(answers(grid.send_and_receive([ask(grid, "who", 2)], timeout=60))) == {2}


def test_an_idle_worker_that_was_killed_is_replaced_when_it_is_needed(grid):
    found = answers(grid.send_and_receive([ask(grid, "who", node) for node in (2, 3, 4)], timeout=60))
    for pid in {answer["pid"] for answer in found.values()}:
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.2)
    replies = grid.send_and_receive([ask(grid, "who", node) for node in (2, 3, 4)], timeout=60)
    replies += grid.send_and_receive([ask(grid, "who", node) for node in (2, 3, 4)], timeout=60)
    assert set(answers(replies)) == {2, 3, 4}


def test_closing_ends_every_worker():
    with ProcessGrid(APP, {2: {"label": "x"}, 3: {"label": "y"}}, workers=2) as grid:
        found = answers(grid.send_and_receive([ask(grid, "who", node) for node in (2, 3)], timeout=60))
    for answer in found.values():
        with pytest.raises(ProcessLookupError):
            os.kill(answer["pid"], 0)
