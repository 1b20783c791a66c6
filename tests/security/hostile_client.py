"""What a shipped ClientApp could be: whoever imports it reads on. Named by a bundle, loaded by nobody."""

import os
from pathlib import Path

Path(os.environ["FEDFSD_SHIPPED_CODE"]).touch()
