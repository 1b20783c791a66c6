"""Imported for its effect: the stage is a module of the checkout, not of the installed package."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))
