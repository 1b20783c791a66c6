"""``python -m fedfsd.runner --train FOLDER``: see ``process``."""

from fedfsd.runner.process import at_once

at_once()
