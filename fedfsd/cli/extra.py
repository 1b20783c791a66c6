"""Commands that need more than the base install say which extra brings it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fedfsd.errors import NotReadyError, install


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Around imports: a module that is not ours and not there is a missing extra (NotReadyError)."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "fedfsd").partition(".")[0] == "fedfsd":
            raise
        raise NotReadyError(
            "this installation",
            got=f"no module {error.name}",
            expected=f"the extra {name}",
            hint=install(name),
        ) from None
