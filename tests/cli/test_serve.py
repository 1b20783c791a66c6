"""``fedfsd serve``: pages of a run, a region and evidence; what guards them; how they look in a browser."""

from __future__ import annotations

import asyncio
import datetime
import html
import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partialmethod
from pathlib import Path
from typing import Any

import browser_kit
import httpx
import operator_kit
import pytest
from audit.audit_kit import Region, plan_of, receipts, trust
from report.test_report import write_run

from fedfsd import language
from fedfsd.cli import serve
from fedfsd.cli.page.listen import opened
from fedfsd.cli.page.site import HEADERS, REFRESH_SECONDS, site
from fedfsd.errors import NotReadyError, UsageError
from fedfsd.ledger import note
from fedfsd.ledger.ledger import Ledger
from fedfsd.node import approve
from fedfsd.node.node import open_node
from fedfsd.report.page import read_run, write_report
from fedfsd.report.run_folder import Folder

CHINESE = re.compile("[\u4e00-\u9fff]")
SQUEEZED = "one => one.textContent.length > 12 && one.clientWidth < 60 && one.offsetParent"
"""A cell of a table in which text stands letter by letter."""
AGO = 10
"""Days since the region's first round."""
VICIOUS = "<script>alert(1)</script>{{7*7}}"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A complete run with its report, and the evidence of one region."""
    path = write_run(tmp_path_factory.mktemp("runs") / "private")
    write_report(path)
    (path / "bundles").mkdir()
    region = Region(tmp_path_factory.mktemp("evidence"))
    region.grant()
    region.run(plan_of())
    region.bundle().rename(path / "bundles" / "EU.zip")
    trust(path, region)
    receipts(path, region)
    return path


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> Path:
    """A run that goes on, whose last round SG missed."""
    path = write_run(tmp_path_factory.mktemp("runs") / "begun", complete=False)
    folder = Folder(path)
    folder.keep_rounds(7)
    line = folder.rounds()[-1]
    line["round"], line["regions"]["SG"] = 8, {"outcome": "timeout"}
    line["late"] = [{"region": "US", "round": 6, "outcome": "late_used"}]
    folder.append_round(line)
    return path


@pytest.fixture(scope="module")
def region(tmp_path_factory) -> Path:
    """A region with a grant, a plan half done and one that waits."""
    folder = operator_kit.region(tmp_path_factory.mktemp("region"))
    node, first = open_node(folder), operator_kit.plan()
    begun = datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(days=AGO)
    with closing(Ledger(node.ledger, mirror=node.mirror, today=lambda: begun)) as ledger:
        ledger.approve_plan(first, recipient=operator_kit.HUB, purpose="research", key_commitment="5" * 64)
        booked = ledger.reserve(first.hash, 1, "a" * 64)
        ledger.release(operator_kit.RELEASE, booked)
    operator_kit.run_rounds(folder, first, 2)
    waiting = operator_kit.plan(seed=2)
    offered = folder / approve.OFFERED
    offered.mkdir(exist_ok=True)
    (offered / f"{waiting.hash}.json").write_text(waiting.document(), encoding="utf-8")
    return folder


class Pages:
    """The pages of a path, asked without a socket."""

    def __init__(self, path: Path, *, language: str = "en", **options: Any) -> None:
        addresses, _ = serve.pages(path, **options)
        self.app = site(addresses, hosts=(), language=language)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                return await http.request(method, path, **options)

        return asyncio.run(ask())

    get = partialmethod(request, "GET")
    head = partialmethod(request, "HEAD")
    post = partialmethod(request, "POST")


client = Pages


def words(answer) -> str:
    assert answer.status_code == 200, answer.text
    text = re.sub(r"<style>.*?</style>", "", answer.text, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).replace("\u00a0", " ").split())


# What the pages say.


@pytest.mark.slow
def test_a_run_that_goes_on(begun):
    said = words(client(begun).get("/"))
    assert "Round 8 of 40, about " in said
    assert re.search(r"8 [\d.]+ s SG took too long; US's update of round 6 came late and counted less", said)
    key = read_run(begun).headline.key
    curve = [line["regions"]["CN"].get(key) for line in Folder(begun).rounds()]
    now = [one for one in curve if one is not None][-1]
    assert f"CN {now:.2f} m" in said
    assert "The whole report" not in said
    made = client(begun).get("/").text
    assert f'http-equiv="refresh" content="{REFRESH_SECONDS}"' in made
    assert 'http-equiv="refresh"' not in client(begun).get("/?still").text
    assert "<svg" in made


def test_epsilon_so_far_is_that_of_the_rounds_so_far(begun):
    from fedfsd.mechanism.accountant import epsilon_pld
    from fedfsd.report.page import upwards

    plan = read_run(begun).plan
    cost = epsilon_pld(plan.events("EU", 8), plan.region("EU").target_delta)
    assert f"{upwards(cost)} {upwards(plan.region('EU').epsilon)}" in words(client(begun).get("/"))


@pytest.mark.slow
def test_a_run_that_ended_leads_to_its_report_and_evidence(run):
    pages = client(run)
    assert "The run is complete" in words(pages.get("/"))
    assert pages.get("/report").text == (run / "report.html").read_text(encoding="utf-8")
    audit = pages.get("/audit").text
    assert "verification:" in audit
    assert "lies beside the evidence" in audit
    assert 'href="/audit/entry/0/2"' in audit
    entry = pages.get("/audit/entry/0/2").text
    assert "&#34;type&#34;: &#34;plan&#34;" in entry
    assert pages.get("/audit/entry/0/99").status_code == 503


def test_evidence_alone_with_every_finding(run):
    pages = client(run / "bundles", trust=run / "trust.keys", receipts=run / "receipts.json")
    said = words(pages.get("/"))
    assert "lies beside the evidence" not in said
    for part in ("What may be said", "Spent against the grant", "Every finding", "not checked"):
        assert part in said
    assert "epsilon: PLD" in said


def test_evidence_that_changes_is_judged_again(run, tmp_path):
    path = tmp_path / "EU.zip"
    path.write_bytes((run / "bundles" / "EU.zip").read_bytes())
    pages = client(path)
    assert "no --trust" in words(pages.get("/"))
    path.write_bytes(path.read_bytes()[:-1])
    assert "contradicts itself" in words(pages.get("/"))


def test_a_region_with_a_gauge_of_its_grant(region):
    from fedfsd.node.status import status

    pages = client(region)
    said = words(pages.get("/"))
    (grant,) = status(open_node(region), today=datetime.datetime.now(datetime.UTC).date())["grants"]
    for name in ("spent", "held", "left"):
        share = 100 * grant[name] / grant["rho_max"]
        assert f"{name} {share:.1f} % {grant[name]:,} nano-nats" in said
    today = datetime.datetime.now(datetime.UTC).date()
    last = today + datetime.timedelta(days=grant["left"] * AGO // grant["spent"])
    assert f"At this pace until {last}." in said
    assert "Plans that wait for a decision" in said
    waiting = operator_kit.plan(seed=2)
    assert f'href="/plan/{waiting.hash}"' in pages.get("/").text
    plan = words(pages.get(f"/plan/{waiting.hash}"))
    for part in ("waits for approval", "asked by", "charged", "fedfsd region approve"):
        assert part in plan


def test_nothing_but_a_folder_that_has_pages(tmp_path, capsys):
    from fedfsd.cli import main

    with pytest.raises(NotReadyError, match="nothing that has pages"):
        serve.pages(tmp_path)
    with pytest.raises(SystemExit) as end:
        main.run(["serve", str(tmp_path)])
    assert end.value.code == 4
    assert "expected a run folder" in capsys.readouterr().err


def test_a_damaged_folder_is_an_error_page(begun, tmp_path):
    broken = tmp_path / "run"
    broken.mkdir()
    (broken / "plan.json").write_text("{}")
    answer = client(broken).get("/")
    assert answer.status_code == 503
    assert "This cannot be shown" in answer.text
    assert "Traceback" not in answer.text


# What guards them.


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_sent(region, method):
    answer = client(region).request(method, "/")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("localhost", 200),
        ("LOCALHOST:8765", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:8765", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("evil.example:8765", 421),
        ("", 421),
    ],
)
def test_only_under_its_own_name(begun, host, code):
    assert client(begun).get("/", headers={"host": host}).status_code == code


@pytest.mark.parametrize(
    "path",
    ["/../plan.json", "/%2e%2e/plan.json", "/plan.json", "/report/..%2fplan.json", "/audit/entry/0/-1"],
)
def test_no_address_names_a_file(run, path):
    answer = client(run).get(path)
    assert answer.status_code == 404
    assert answer.text == "there is no such page\n"


@pytest.mark.slow
def test_every_answer_is_guarded(run, region):
    for pages, path in ((client(run), "/"), (client(region), "/"), (client(run), "/nothing")):
        for answer in (pages.get(path), pages.head(path), pages.post(path)):
            assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    for answer in (client(run).get("/"), client(run).get("/audit"), client(region).get("/")):
        assert "<script" not in answer.text
        assert not re.findall(r'(?:src|href)="(?!/|#|data:,)[^"]*"', answer.text)


def test_foreign_text_stays_text(tmp_path):
    eu = Region(tmp_path)
    eu.grant(data_set=VICIOUS)
    eu.approve(plan_of(), purpose=VICIOUS)
    pages = client(eu.bundle())
    for path in ("/", "/entry/0/1", "/entry/0/2"):
        text = pages.get(path).text
        assert "<script" not in text
        assert "{{7*7}}" in text or "7*7" not in text


@pytest.mark.slow
def test_the_light_install_serves_evidence(run):
    """Without torch, flwr and what draws."""
    code = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in {'torch', 'flwr', 'opacus', 'matplotlib', 'grpc'}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from pathlib import Path\n"
        "from fedfsd.cli import serve\n"
        "addresses, what = serve.pages(Path(sys.argv[1]))\n"
        "print(what, addresses[0].make().whole[:15])\n"
    )
    command = [sys.executable, "-c", code, str(run / "bundles")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "evidence <!doctype html>\n", done.stderr


@pytest.mark.slow
def test_the_command_says_where_and_ends(run):
    command = [sys.executable, "-m", "fedfsd.cli", "serve", str(run / "bundles"), "--port", "0", "--json"]
    started = subprocess.Popen(
        [sys.executable, "-c", "from fedfsd.cli.main import run; run()", *command[3:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stderr is not None
    line = started.stderr.readline()
    found = re.fullmatch(r"evidence: (http://127\.0\.0\.1:\d+/) \(Ctrl-C ends\)\n", line)
    assert found, line + started.stderr.read()
    assert httpx.get(found[1], timeout=60).status_code == 200
    started.send_signal(2)
    out, _ = started.communicate(timeout=60)
    assert started.returncode == 0
    assert json.loads(out)


def test_a_port_that_is_taken():
    with (
        opened("127.0.0.1", 0) as taken,
        pytest.raises(NotReadyError, match="--port 0"),
        opened("127.0.0.1", taken.getsockname()[1]),
    ):
        pass


# As people see them.


@contextmanager
def listening(path: Path) -> Iterator[str]:
    """The pages behind a socket of this machine."""
    import uvicorn

    addresses, _ = serve.pages(path)
    with opened("127.0.0.1", 0) as socket:
        server = uvicorn.Server(uvicorn.Config(site(addresses, hosts=()), log_level="error", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{socket.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[browser_kit.Browser]:
    with browser_kit.driver() as address:
        made = browser_kit.Browser(address)
        yield made
        made.close()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["run", "begun", "region"])
def test_pages_load_and_fit_and_are_reached_by_keyboard(request, browser, what):
    with listening(request.getfixturevalue(what)) as url:
        pages = {"run": ("/", "/report", "/audit", "/audit/entry/0/1"), "begun": ("/",), "region": ("/",)}
        for path in pages[what]:
            for width in (390, 1280):
                browser.open(url + path, width=width)
                assert browser.complaints() == [], path
                assert browser.ask("document.documentElement.scrollWidth") <= width, path
                assert browser.ask(f"[...document.querySelectorAll('td')].filter({SQUEEZED}).length") == 0, (
                    path
                )
            papers = set()
            for scheme in ("light", "dark"):
                browser.prefer(scheme)
                ink, paper = browser.ask(
                    "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
                )
                assert contrast(ink, paper) >= 7, (path, scheme)
                papers.add(paper)
            assert len(papers) == 2, path
        browser.open(url + "/", width=1280)
        links = browser.ask("[...document.querySelectorAll('main a')].map(one => one.href)")
        reached = set()
        for _ in range(browser.ask("document.querySelectorAll('a, [tabindex], summary').length") + 1):
            browser.press("tab")
            reached.add(browser.ask("document.activeElement.href || ''"))
        assert set(links) <= reached
        if links:
            browser.open(url + "/", width=1280)
            while browser.ask("document.activeElement.href || ''") != links[0]:
                browser.press("tab")
            browser.press("enter")
            deadline = time.monotonic() + 60
            while browser.ask("location.href") != links[0]:
                assert time.monotonic() < deadline


def contrast(*colours: str) -> float:
    """WCAG 2's ratio of two colours."""

    def light(colour: str) -> float:
        parts = [int(one) / 255 for one in re.findall(r"\d+", colour)[:3]]
        red, green, blue = (
            one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted(map(light, colours))
    return (high + 0.05) / (low + 0.05)


def test_a_note_is_no_bundle(tmp_path):
    """A folder of checkpoints alone has no pages."""
    eu = Region(tmp_path)
    (tmp_path / "EU.note").write_text(str(note.Note.parse(eu.ledger.checkpoint())))
    with pytest.raises(NotReadyError):
        serve.pages(tmp_path)


# In another language.


def test_every_page_speaks_chinese_and_keeps_its_figures(begun, region, run, monkeypatch):
    """Whatever is looked up for a page is in the catalogue, or is no sentence of ours."""
    unknown = set()
    with language.speaking("zh"):
        kept = set(language._SPOKEN.get()[1]._catalog)
    say = language.gettext.GNUTranslations.gettext

    def looked_up(self: Any, text: str) -> str:
        if text not in kept and re.search("[a-z]{3}", text) and not CHINESE.search(text):
            unknown.add(text)
        return say(self, text)

    monkeypatch.setattr(language.gettext.GNUTranslations, "gettext", looked_up)
    waiting = operator_kit.plan(seed=2).hash
    pages = {begun: ("/",), run: ("/", "/audit", "/audit/entry/0/1"), region: ("/", f"/plan/{waiting}")}
    for path, addresses in pages.items():
        for address in addresses:
            chinese, english = Pages(path, language="zh").get(address), Pages(path).get(address)
            assert CHINESE.search(words(chinese))
            assert '<html lang="zh">' in chinese.text
            assert not CHINESE.search(english.text)
            figures = [Counter(re.findall(r"\d+\.\d\d+", words(one))) for one in (chinese, english)]
            assert figures[0] == figures[1]
            links = [re.findall(r'href="([^"]*)"', one.text) for one in (chinese, english)]
            assert sorted(links[0]) == sorted(links[1])
    assert not unknown


def test_a_page_of_errors_speaks_it_too(tmp_path):
    (tmp_path / "plan.json").write_text("{}", encoding="utf-8")
    (tmp_path / "experiment.json").mkdir()
    answer = Pages(tmp_path, language="zh").get("/")
    assert answer.status_code == 503
    assert "无法显示" in answer.text
    assert "应为" in answer.text


# What belongs to the evidence.


def test_the_auditors_files_are_used_as_by_the_report(run, tmp_path):
    declared = tmp_path / "eu.toml"
    declared.write_text('region = "EU"\n', encoding="utf-8")
    updates = tmp_path / "updates"
    updates.mkdir()
    bundles = run / "bundles"
    plain = words(client(bundles).get("/"))
    given = client(bundles, releases=updates, declared=(declared,), vehicles_cross=True)
    text = words(given.get("/"))
    assert "releases" in text
    assert text != plain
    declared.write_text('region = "EU"\nregion = 1\n', encoding="utf-8")
    assert given.get("/").status_code == 503  # asked again, not from memory


def test_a_regions_folder_is_no_evidence(region):
    with pytest.raises(UsageError, match="--declaration"):
        serve.pages(region, declared=(region / "x.toml",))
