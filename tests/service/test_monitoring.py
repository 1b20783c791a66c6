"""The alert rules and the dashboard ask for metrics that exist, with labels that they have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from fedfsd.service import gauge

FOLDER = Path(__file__).parents[2] / "clients" / "deploy" / "monitoring"
COUNTERS = {"bytes": {"direction", "region"}, "rounds": {"outcome", "region"}, "refusals": {"code", "region"}}
LABELS = {"epsilon_left": {"data_set"}, "epsilon_spent": {"data_set"}, "seen_seconds": {"region"}}


def alerts() -> Iterator[tuple[str, str]]:
    for group in yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
            yield rule["expr"], rule["annotations"]["summary"]


def panels() -> Iterator[tuple[str, str]]:
    board = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
    assert len({one["id"] for one in board["panels"]}) == len(board["panels"])
    for one in board["panels"]:
        for target in one["targets"]:
            yield target["expr"], target["legendFormat"]


@pytest.mark.parametrize(("expression", "text"), [*alerts(), *panels()])
def test_every_expression_asks_for_what_is_served(expression, text):
    asked = re.findall(r"fedfsd_(\w+)", expression)
    assert asked
    bare = [name.removesuffix("_total") for name in asked]
    assert set(bare) <= gauge.NAMES
    assert {name.endswith("_total") for name in asked} == {name in COUNTERS for name in bare}
    has = {"instance"}.union(*(COUNTERS.get(name, LABELS.get(name, set())) for name in bare))
    assert set(re.findall(r"\{\{ ?(?:\$labels\.)?([a-z_]+) ?\}\}", text)) <= has
    for grouped in re.findall(r"by \(([^)]*)\)", expression):
        assert set(grouped.replace(" ", "").split(",")) <= has


def test_what_is_served_is_shown():
    asked = {
        name for text, _ in (*alerts(), *panels()) for name in re.findall(r"fedfsd_(\w+?)(?:_total)?\b", text)
    }
    assert gauge.NAMES - asked <= {"outstanding", "plans"}  # the coordinator's, in its own status
