"""Imported for its effect: studies are modules of the checkout, not of the installed package."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))
