"""Flower's errors as ours, with none of their text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from flwr.supercore.error import ApiErrorCode, FlowerError

from fedfsd.errors import FedfsdError, NotReadyError, RefusedError


class StaleReplyError(FedfsdError):
    """The run has ended or the message is too old: this answer is no longer wanted."""

    code, exit_code = "gone", 4


def gone(got: str) -> StaleReplyError:
    """Nobody waits for it."""
    return StaleReplyError(
        "SuperLink", got=got, expected="an instruction of a run that goes on", hint="drop it"
    )


def unknown_key() -> RefusedError:
    """The SuperLink takes nothing from this node."""
    return RefusedError(
        "SuperLink", got="a node key it does not know", expected="a registered one", hint="Engine.register"
    )


@contextmanager
def translated() -> Iterator[None]:
    """Flower's errors as ours, with none of their text."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        known = FlowerError.from_json(error.response.text)
        status = error.response.status_code
        if known is not None and known.code == ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED:
            raise gone("a run that has ended") from None
        if status == httpx.codes.UNAUTHORIZED or (
            known is not None and known.code == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED
        ):
            raise unknown_key() from None
        raise NotReadyError("SuperLink", got=f"HTTP {status}", expected="an answer") from None
    except (httpx.TransportError, ValueError) as error:
        raise NotReadyError(
            "SuperLink", got=type(error).__name__, expected="an answer", hint="start it: coordinator up"
        ) from None
