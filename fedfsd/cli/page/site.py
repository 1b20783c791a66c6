"""The site that ``fedfsd serve`` shows: which pages a path has, and what guards them.

A browser is not trusted more than a terminal that only reads. Nothing but GET and HEAD is answered; a request
under another host's name is refused, so that no page from elsewhere can read this one by rebinding its name;
no page has a script, loads anything from elsewhere or may be framed. No path in an address names a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedfsd.canvas import COLOURS
from fedfsd.cli.answer import rounded_up, size
from fedfsd.errors import FedfsdError, NotReadyError
from fedfsd.language import ENGLISH, say, speaking, spoken
from fedfsd.plain_text import plain

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
REFRESH_SECONDS = 10


@dataclass(frozen=True)
class Page:
    """What one address shows: a template with its values, or a whole page as it is."""

    template: str = ""
    values: Mapping[str, Any] | None = None
    whole: str | None = None
    live: bool = False
    """Whether it changes while somebody looks: the browser then asks again from time to time."""


@dataclass(frozen=True)
class Address:
    """A path of the site and what makes its page; ``make`` gets what the path's braces match."""

    path: str
    make: Callable[..., Page]


def site(addresses: list[Address], *, hosts: tuple[str, ...], language: str = ENGLISH) -> Starlette:
    """The application that answers in ``language`` under the names ``hosts`` (loopback's are added)."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("fedfsd.cli.page", "."), PackageLoader("fedfsd.audit", ".")]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"size": size, "upwards": rounded_up, "plain": plain}
    environment.globals |= {
        "palette": COLOURS,
        "refresh_seconds": REFRESH_SECONDS,
        "_": say,
        "language": spoken,
    }
    names = frozenset(one.lower() for one in (*LOOPBACK, *hosts))
    return Starlette(
        routes=[Route(one.path, _answer(one, environment, language), methods=["GET"]) for one in addresses],
        middleware=[Middleware(Guard, hosts=names)],
        exception_handlers={HTTPException: _not_here},
    )


class Guard:
    """Refuses other methods and other hosts' names, and sets the headers of every answer."""

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str]) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; anything that is none (a web socket) is left unanswered."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                known = {name.lower() for name, _ in message["headers"]}
                more = [(name.lower().encode(), text.encode()) for name, text in HEADERS.items()]
                message["headers"] = [*message["headers"], *(one for one in more if one[0] not in known)]
            await send(message)

        answer: ASGIApp = self.app
        if scope["method"] not in ("GET", "HEAD"):
            answer = PlainTextResponse(
                "pages can only be read\n", status_code=405, headers={"Allow": "GET, HEAD"}
            )
        elif _name(scope) not in self.hosts:
            answer = PlainTextResponse("another host's name\n", status_code=421)
        await answer(scope, receive, send_with_headers)


def _name(scope: Scope) -> str:
    """The host that a request names, without its port; empty where it names none or several."""
    found: list[str] = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    if len(found) != 1:
        return ""
    name, colon, port = found[0].rpartition(":")
    return (name if colon and port.isdecimal() else found[0]).lower()


def _answer(address: Address, environment: Environment, language: str) -> Callable[[Request], Response]:
    def endpoint(request: Request) -> Response:
        with speaking(language):
            try:
                return _rendered(address.make(**request.path_params), request, environment)
            except FedfsdError as error:
                failed = error
            except OSError as error:
                failed = NotReadyError(
                    str(error.filename or "the file system"), got=error.strerror, expected="a file to be read"
                )
            found = {"title": say("This cannot be shown"), "errors": [*map(_told, _all(failed))]}
            return _rendered(Page("error.html", found), request, environment, status=503)

    return endpoint  # not async: Starlette runs it in a thread


def _all(error: FedfsdError) -> list[FedfsdError]:
    """The error, and what else is wrong with the same file."""
    return [error, *getattr(error, "others", ())]


def _told(error: FedfsdError) -> dict[str, str]:
    """Label and text of an error, in the language in force as far as the catalogue has it."""
    found = error.document()
    labels = {
        "place": say("where"),
        "got": say("found"),
        "expected": say("expected"),
        "hint": say("what to do"),
    }
    return {label: say(found[key]) for key, label in labels.items() if found[key]} | {
        say("code"): found["code"]
    }


def _rendered(page: Page, request: Request, environment: Environment, *, status: int = 200) -> Response:
    if page.whole is not None:
        return HTMLResponse(page.whole)
    still = "still" in request.query_params
    text = environment.get_template(page.template).render(
        **(page.values or {}), live=page.live, still=still, path=request.url.path
    )
    return HTMLResponse(text, status_code=status)


def _not_here(_: Request, error: Exception) -> Response:
    code = error.status_code if isinstance(error, HTTPException) else 404
    return PlainTextResponse("there is no such page\n", status_code=code)


def read(path: Path) -> str:
    """A page that lies in a folder as it is; an empty one where there is none."""
    return path.read_text(encoding="utf-8") if path.is_file() else ""
