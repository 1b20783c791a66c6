"""Start ``flower-superlink`` for an engine: python -m fedfsd.flower.superlink FOLDER PORT.

Stock except for two things: its Control API requires the engine's secret, and it hands out again what it
had handed out without confirmation before it died.
"""

from __future__ import annotations

import hmac
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from flwr.supercore.auth.typing import AccountInfo
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin

from fedfsd.flower.engine import Engine


class SecretPlugin(NoOpControlAuthnPlugin):
    """One account, and one secret that it must show."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def validate_tokens_in_metadata(
        self, metadata: Sequence[tuple[str, str | bytes]]
    ) -> tuple[bool, AccountInfo | None]:
        """Whether a call carries the secret, and whose it is then."""
        shown = [value.encode() if isinstance(value, str) else value for _, value in metadata]
        if len(shown) != 1 or not hmac.compare_digest(shown[0], self._secret):
            return False, None
        return super().validate_tokens_in_metadata(metadata)


def main(folder: Path, port: int) -> None:
    """Serve until a signal ends the process."""
    engine = Engine(folder, port)
    engine.reopen()
    # The command imports the name that it calls, so it is replaced where it is called.
    command: Any = import_module("flwr.superlink.cli.flower_superlink")
    secret = engine.control_secret.read_text()
    command.load_control_authn_plugin = lambda: SecretPlugin(secret)
    sys.argv = ["flower-superlink", *engine.superlink_arguments()]
    command.flower_superlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
