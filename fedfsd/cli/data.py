"""``fedfsd data``: tables of drives."""

from __future__ import annotations

from fedfsd.cli.data_check import check
from fedfsd.cli.data_generate import generate
from fedfsd.cli.data_import import formats, import_
from fedfsd.cli.data_show import show

COMMANDS = (
    ("generate", generate, "--region CN --vehicles 700 --seed 1 -o cn.parquet"),
    (
        "import",
        import_,
        "scenarios/ --format argoverse2 --region US -o us.parquet\n"
        "    --licence CC-BY-NC-SA-4.0 --identity recording --origin published",
    ),
    ("formats", formats, ""),
    ("check", check, "us.parquet"),
    ("show", show, "us.parquet -o tracks.svg"),
)
