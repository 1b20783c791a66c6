"""The page of planted faults is of these faults, and all of them are noticed."""

from __future__ import annotations

from pathlib import Path

from experiments.planted.__main__ import INTRO, LIMITS, RIGHT, Noticed, page
from experiments.planted.alarms import alarms, mechanism
from experiments.planted.faults import BUGS

PAGE = Path(__file__).parents[2] / "docs" / "planted-faults.md"


def test_the_page_has_every_fault_and_each_is_noticed():
    text = PAGE.read_text(encoding="utf-8")
    rows = {
        cells[0]: cells[1:]
        for line in text.splitlines()
        if line.startswith("| ")
        for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
    }
    assert set(BUGS) == set(rows) - {RIGHT, "fault"}
    assert all(any(cells) for name, cells in rows.items() if name in BUGS)
    assert not any(rows[RIGHT])
    assert text.startswith(INTRO)
    assert text.endswith(LIMITS)


def test_a_page_counts_what_is_noticed():
    found = [Noticed(RIGHT, "", "", "", ""), Noticed("a", "", "", "x", ""), Noticed("b", "", "", "", "")]
    assert "1 of 2 are noticed in operation." in page(found)


def test_right_plans_of_every_kind_are_left_alone():
    assert {type(mechanism(number)).kind for number in range(4)} == {"gaussian", "gaussian-by-round"}
    assert [alarms(number, regions=1) for number in range(4)] == [[]] * 4
