"""``python -m fedfsd.runner --train FOLDER``: see ``process``."""

from fedfsd.service import launch

launch.isolate("fedfsd.runner")

from fedfsd.runner.process import at_once  # noqa: E402 - nothing else is loaded before

at_once()
