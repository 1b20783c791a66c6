"""The committed JSON Schemas are those of the code."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest

from fedfsd.cli.config import schema_of


@pytest.mark.parametrize("kind", ["experiment", "policy"])
def test_the_committed_schema_is_current(kind):
    committed = (files("fedfsd.config") / f"{kind}.schema.json").read_text(encoding="utf-8")
    assert json.loads(committed) == schema_of(kind), (
        f"write it again: fedfsd config schema {kind} > fedfsd/config/{kind}.schema.json"
    )
