"""Every finding of the data check has a page with a picture of it, and every page is about a finding."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from experiments.findings import scene
from experiments.findings.__main__ import PAGES
from experiments.findings.drawing import PICTURES, draw
from fedfsd.drive.check import check
from fedfsd.drive.check.finding import WHAT, FrameName, Name

NAMES = get_args(Name)
OF_REGION = "no-window"  # found by who cuts the windows


def test_no_finding_is_without_a_page_and_no_page_without_a_finding():
    assert sorted(path.stem for path in PAGES.glob("*.md")) == sorted(["README", *NAMES])
    assert sorted(path.stem for path in PAGES.glob("*.svg")) == sorted(NAMES) == sorted(PICTURES)
    listed = re.findall(r"^\| \[([\w-]+)\]\(([\w-]+)\.md\)", (PAGES / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted((name, name) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_shows_its_picture_and_says_cause_and_fix(name):
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {name}\n\n")
    assert f"]({name}.svg)" in page
    assert page.split("\n")[2].endswith(f". {WHAT[name]}")
    assert f" | {WHAT[name]} |\n" in (PAGES / "README.md").read_text(encoding="utf-8")
    assert "**Cause.** " in page
    assert "**Fix.** " in page
    for target in re.findall(r"\]\(([\w-]+\.md)\)", page):
        assert (PAGES / target).exists(), target


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_what_the_command_draws(name):
    assert (PAGES / f"{name}.svg").read_text(encoding="utf-8") == draw(name)


@pytest.mark.parametrize("name", [name for name in scene.PLANTED if name != OF_REGION])
def test_what_is_drawn_is_found_and_its_severity_is_the_page_s(name):
    found = {one.name: one for one in check([scene.made(scene.planted(name))])}
    page = Path(found[name].page)
    assert page.parts[:2] == ("docs", "data")
    said = (PAGES / page.name).read_text(encoding="utf-8").split("\n")[2].lower()
    assert said.startswith(found[name].severity)


def test_what_camera_drives_get_wrong_is_said_in_the_words_of_their_page():
    page = (PAGES.parent / "camera.md").read_text(encoding="utf-8")
    for name in get_args(FrameName):
        assert re.search(rf"^\| .*`{name}`.* \| {re.escape(WHAT[name])} \|$", page, re.MULTILINE), name


def test_nothing_is_wrong_in_what_is_drawn_beside_it():
    assert check([scene.made(scene.clean())]) == []
