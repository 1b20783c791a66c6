"""README and docs/ do what they say: commands exist, examples run, samples are what is printed.

PYTHONPATH=tests:. python tests/stories/test_readme.py     writes the samples anew, from the whole quickstart
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest
from stage_kit import typed

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
QUICKSTART = ROOT / "experiments" / "quickstart.toml"
SAMPLE = re.compile(r"(<!-- sample: (\w+) -->\n```\n)(.*?)(```\n)", re.S)
COMMANDS = sorted(
    {
        line.split("#")[0].strip()
        for page in PAGES
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
        for line in block.splitlines()
        if line.startswith("fedfsd")
    }
)
SHORT = ("training.num_rounds=2", "pretraining.steps=20")


def outputs(at: Path, *settings: str) -> dict[str, str]:
    """The sample outputs by name, of one quickstart run in ``at``; exit codes are not looked at."""
    chosen = [word for one in settings for word in ("--set", one)]
    with chdir(at):
        _, plan, _ = typed("plan", QUICKSTART, *chosen)
        _, simulated, _ = typed("simulate", QUICKSTART, *chosen)
    with chdir(at / "runs" / "quickstart"):
        bundles, notes = sorted(Path("bundles").glob("*.zip")), sorted(Path("checkpoints").glob("*.note"))
        evidence = ["--receipts", "receipts.json", "--trust", "trust.keys"]
        _, verified, _ = typed("audit", "verify", *bundles, *notes, *evidence)
        _, statement, _ = typed("audit", "statement", bundles[1], "--trust", "trust.keys")
    return {"plan": plan, "simulate": simulated, "verify": verified, "statement": statement}


def shape(text: str) -> list[str]:
    """Text without what differs from run to run: figures, hashes, widths of columns, breaks of lines."""
    text = re.sub(r"\b[0-9a-f]{8,64}\b", "hash", text)
    text = re.sub(r"-?\d[\d.,]*", "0", text)
    text = re.sub(r"training did not help[^\n]*\n", "", text)
    return text.split()


def samples(page: Path) -> Iterator[tuple[str, str]]:
    for _, name, text, _ in SAMPLE.findall(page.read_text(encoding="utf-8")):
        yield name, text


@pytest.mark.slow
def test_every_sample_is_what_is_printed(tmp_path):
    found = outputs(tmp_path, *SHORT)
    shown = [(page, name, text) for page in PAGES for name, text in samples(page)]
    assert {name for _, name, _ in shown} >= {"plan", "simulate", "verify"}
    for page, name, text in shown:
        printed = " ".join(shape(found[name]))
        place = 0
        for part in re.split(r"^\.\.\.\n", text, flags=re.M):  # what a line of dots left out may be anything
            words = " ".join(shape(part))
            at = printed.find(words, place)
            assert at >= 0, f"{page.name}: {name}: write it again, see the top of this file\n{words}"
            place = at + len(words)


@pytest.mark.slow
def test_the_python_example_runs(tmp_path, capsys, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "researcher.md").read_text("utf-8"), re.S)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    monkeypatch.chdir(tmp_path)
    assert code.count("overrides=[") == 1
    exec(code.replace("overrides=[", f"overrides=[{SHORT[1]!r}, "), {})
    fde, epsilon, report = capsys.readouterr().out.split()
    assert 1 < float(fde) < 8
    assert 1.9 < float(epsilon) <= 2
    assert (tmp_path / report).read_text().startswith("<!")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_names_files_and_options_that_exist(command):
    words = command.split()
    groups = ("data", "config", "audit", "region", "coordinator", "keys")
    group = words[1:3] if words[1] in groups else words[1:2]
    code, out, err = typed(*group, "--help")
    assert code == 0, err
    for word in words:
        if word.startswith("--"):
            assert word in out
        if word.startswith("experiments/") and word.endswith(".toml"):
            assert (ROOT / word).exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_is_longer_than_a_person_reads(page):
    assert len(page.read_text(encoding="utf-8").split()) < 2_500


def test_the_file_tree_is_the_tree():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (tree,) = re.findall(r"## Where things are\n\n```\n(.*?)```", text, re.S)
    told = {line.split()[0] for line in tree.splitlines() if not line.startswith(" ")}
    inside = {line.split()[0] for line in tree.splitlines() if line.startswith("  ")}
    for name in told:
        assert (ROOT / name).exists(), name
    packages = {f"{path.parent.name}/" for path in (ROOT / "fedfsd").glob("*/__init__.py")}
    assert packages == inside


@pytest.mark.parametrize(
    "file", sorted((ROOT / "clients" / "deploy").glob("*.toml")), ids=lambda file: file.stem
)
def test_every_deployed_policy_takes_the_quickstart(file):
    from fedfsd.config.experiment import Experiment
    from fedfsd.config.load import load
    from fedfsd.gate.policy import Policy, objections
    from fedfsd.simulation.prepare import prepare

    quick = load(Experiment, ROOT / "experiments" / "quickstart.toml", overrides=["pretraining.path=none"])
    assert objections(load(Policy, file), prepare(quick).plan, file.stem.upper()) == []


def test_flwr_run_is_typed_as_flower_and_the_app_want_it():
    """The run itself takes Ray and a machine that is not busy; what it rests on is looked at here."""
    from flwr.common.constant import FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION as VARIABLE

    page = (ROOT / "docs" / "researcher.md").read_text(encoding="utf-8")
    assert f"{VARIABLE}=1 flwr run . local --federation-config num-supernodes=4" in page
    app = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["flwr"]["app"]
    assert (ROOT / app["config"]["experiment"]).is_file()
    assert app["config"]["experiment"] in app["fab-include"]
    assert app["config"]["folder"] in page
    for place in app["components"].values():
        module, name = place.split(":")
        assert f"{name} = " in (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")


def test_the_flower_apps_are_thin():
    for app in ("server/app.py", "clients/app.py"):
        assert len((ROOT / app).read_text().splitlines()) <= 30


def write() -> None:
    """Put what is printed now into every sample; what a line of dots left out stays left out."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        found = outputs(Path(folder))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        page.write_text(SAMPLE.sub(lambda one: one[1] + cut(one[3], found[one[2]]) + one[4], text), "utf-8")


def cut(sample: str, printed: str) -> str:
    """``printed`` with as many lines as each part of ``sample`` has, found by their first words."""
    parts = re.split(r"^\.\.\.\n", sample, flags=re.M)
    if len(parts) == 1:
        return printed
    lines, kept = printed.splitlines(keepends=True), []
    for part in parts:
        wanted = part.splitlines()
        first = next(n for n, line in enumerate(lines) if shape(line)[:6] == shape(wanted[0])[:6])
        kept.append("".join(lines[first : first + len(wanted)]))
    return "...\n".join(kept)


if __name__ == "__main__":
    write()
