"""What a shipped ClientApp could be: importing it does something. Named by a bundle, loaded by nobody."""

import os
from pathlib import Path

if "FEDFSD_SHIPPED_CODE" in os.environ:
    Path(os.environ["FEDFSD_SHIPPED_CODE"]).touch()
