"""The plan as a document: one text for one plan, nothing else accepted, the same hash everywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan.sample import REGION, document, planned
from pydantic import ValidationError

from fedfsd import canonical
from fedfsd.errors import PlanError
from fedfsd.plan import plan as plans


def text(**changes) -> str:
    return canonical.encode(document(**changes)).decode()


def test_a_plan_comes_back_from_its_document():
    plan = planned()
    again = plans.read(plan.document())
    assert again == plan
    assert again.hash == plan.hash == canonical.sha256(plan.document().encode())


def test_every_number_is_in_the_hash():
    """What two sides must agree on cannot differ without the hash differing."""
    seen = {planned().hash}
    base = json.loads(planned().document())

    def leaves(node, path=()):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in items:
            if isinstance(value, dict | list):
                yield from leaves(value, (*path, key))
            else:
                yield (*path, key), value

    changed = 0
    for path, value in leaves(base):
        copy = json.loads(json.dumps(base))
        table = copy
        for key in path[:-1]:
            table = table[key]
        if isinstance(value, str):
            table[path[-1]] = value + "x"
        elif value is None:
            table[path[-1]] = 0.25
        else:
            table[path[-1]] = value / 2 if isinstance(value, float) else value + 1
        try:
            plan = plans.read(canonical.encode(copy).decode())
        except PlanError:
            continue  # a literal, or a number that no longer fits the others
        seen.add(plan.hash)
        changed += 1
    assert changed > 20
    assert len(seen) == changed + 1


def test_the_hash_does_not_depend_on_the_process():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from plan.sample import planned; print(planned(epsilon=1.0).hash)"
    )
    tests = str(Path(__file__).parents[1])
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code, tests],
            env={**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": locale},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed, locale in (("0", "C"), ("12345", "C.UTF-8"))
    }
    assert hashes == {planned(epsilon=1.0).hash}


def test_the_event_covers_the_whole_plan():
    (event,) = planned(local_steps=7, num_rounds=11).events(REGION)
    assert (event.sample_rate, event.noise_multiplier, event.steps) == (0.5, 2.0, 77)


def test_the_divisor_and_the_noise_come_from_public_constants():
    mine = planned(roster=40, sample_rate=0.25).region(REGION)
    assert mine.divisor == 10
    assert mine.noise.std(1) == pytest.approx(0.6)


def test_a_plan_cannot_be_changed_and_a_changed_copy_has_its_own_hash():
    plan = planned()
    with pytest.raises(ValidationError):
        plan.num_rounds = 4
    with pytest.raises(ValidationError):
        plan.region(REGION).noise_multiplier = 0.1
    before = plan.hash
    assert plan.model_copy(update={"num_rounds": 4}).hash != before


def test_a_region_that_is_not_planned_is_an_error():
    with pytest.raises(PlanError):
        planned().region("EU")


HOSTILE = {
    "empty": lambda: "",
    "null": lambda: "null",
    "a list": lambda: "[]",
    "a number": lambda: "1e999",
    "deep": lambda: "[" * 200_000 + "]" * 200_000,
    "deep options": lambda: text().replace('"options":{}', '"options":{"a":' + "[" * 5000 + "]" * 5000 + "}"),
    "not finished": lambda: text()[:-1],
    "a space": lambda: text() + " ",
    "a line end": lambda: text() + "\n",
    "a byte order mark": lambda: "\ufeff" + text(),
    "other order": lambda: json.dumps(document()),
    "duplicate key": lambda: text().replace('"num_rounds":3', '"num_rounds":3,"num_rounds":3'),
    "duplicate mode": lambda: text().replace('"mode":"private"', '"mode":"none","mode":"private"'),
    "unknown key": lambda: text(evil=1),
    "unknown key in a region": lambda: text(regions__CN__evil=1),
    "missing key": lambda: text().replace('"num_rounds":3,', ""),
    "wrong mode": lambda: text(mode="public"),
    "capital mode": lambda: text(mode="Private"),
    "another unit": lambda: text(unit="window"),
    "another adjacency": lambda: text(adjacency="add-remove"),
    "a newer format": lambda: text(format=2),
    "format true": lambda: text(format=True),
    "NaN": lambda: text().replace('"noise_multiplier":2', '"noise_multiplier":NaN'),
    "infinity": lambda: text().replace('"noise_multiplier":2', '"noise_multiplier":1e999'),
    "NaN in options": lambda: text().replace('"options":{}', '"options":{"a":NaN}'),
    "huge integer": lambda: text().replace('"num_rounds":3', '"num_rounds":1' + "0" * 5000),
    "large integer": lambda: text().replace('"num_rounds":3', '"num_rounds":100000000000000000001'),
    "integer above 2^53": lambda: text().replace('"roster":30', '"roster":9007199254740993'),
    "rounds as text": lambda: text(num_rounds="3"),
    "rounds true": lambda: text(num_rounds=True),
    "rounds 3.5": lambda: text(num_rounds=3.5),
    "sigma as text": lambda: text(noise_multiplier="2"),
    "sigma true": lambda: text(noise_multiplier=True),
    "escaped": lambda: text().replace("private", "pr\\u0069vate"),
    "negative zero": lambda: text().replace('"momentum":0.5', '"momentum":-0.0'),
    "lone surrogate": lambda: text().replace('"name":"sample"', '"name":"\\ud800"'),
    "raw surrogate": lambda: "\ud800",
    "region name with a path": lambda: text(regions={"../CN": document()["regions"]["CN"]}),
    "region name with a newline": lambda: text(regions={"CN\n": document()["regions"]["CN"]}),
    "array name with a path": lambda: text().replace("body.bias", "../bias"),
    "two arrays of one name": lambda: text().replace("body.bias", "body.weight"),
    "witness not last": lambda: text(
        model__arrays=sorted(document()["model"]["arrays"], key=lambda one: one["name"], reverse=True)
    ),
    "another witness size": lambda: text(model__witness_size=7),
    "hidden witness": lambda: text(model__witness_size=0),
    "negative shape": lambda: text().replace('"shape":[4]', '"shape":[-4]'),
    "shape of text": lambda: text().replace('"shape":[4]', '"shape":["4"]'),
    "float64": lambda: text().replace('"float32"', '"float64"'),
    "upper-case hash": lambda: text(model__initial_sha256="A" * 64),
    "escape codes": lambda: text().replace('"name":"sample"', '"name":"sample","\\u001b[31mx":1'),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_documents_are_one_error(what):
    with pytest.raises(PlanError) as caught:
        plans.read(HOSTILE[what]())
    said = str(caught.value)
    assert len(said) < 400
    assert said.isprintable()


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_a_plan_or_one_error(content):
    with pytest.raises(PlanError):
        plans.read(content)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.characters(min_codepoint=1, max_codepoint=0x2FF))
def test_any_edit_of_one_character_is_noticed(position, character):
    """Either no plan any more, or another one with another hash."""
    plan = planned(epsilon=1.0)
    original = plan.document()
    position %= len(original)
    edited = original[:position] + character + original[position + 1 :]
    if edited == original:
        return
    try:
        again = plans.read(edited)
    except PlanError:
        return
    assert again.document() == edited
    assert again.hash != plan.hash
