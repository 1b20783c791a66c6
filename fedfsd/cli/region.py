"""``fedfsd region``: a region's own side of the budget. Needs the base install only."""

from __future__ import annotations

from fedfsd.cli import doctor, up
from fedfsd.cli.region_adapt import adapt
from fedfsd.cli.region_approve import approve, approve_transfer, settle
from fedfsd.cli.region_control import pause, refuse, resume, stop
from fedfsd.cli.region_grant import grant
from fedfsd.cli.region_init import init
from fedfsd.cli.region_plan import plan, plans
from fedfsd.cli.region_record import bundle, coins, incident
from fedfsd.cli.region_recover import close, recover, rotate
from fedfsd.cli.region_sign import add, sign
from fedfsd.cli.region_status import status

COMMANDS = (
    ("init", init, "EU -o eu --mirror /mnt/second --officer-vkey officer.vkey"),
    ("grant", grant, "--epsilon 10 --delta 1e-4 --data-set fleet-2026 --for plan.json"),
    ("plans", plans, "--region eu"),
    ("plan", plan, "3f2a91c0 --region eu"),
    ("approve", approve, "3f2a91c0 --region eu"),
    ("refuse", refuse, "3f2a91c0 --region eu"),
    (
        "approve-transfer",
        approve_transfer,
        "--authority 'Data office' --number 2026/1 --model mlp\n"
        "    --from 2026-01-01 --until 2026-12-31 --max-releases 100 --max-bytes 10000000",
    ),
    ("sign", sign, "grant-3f2a91c0.json --officer-key officer.key"),
    ("add", add, "grant-3f2a91c0.signed.json"),
    ("doctor", doctor.region, "--region eu"),
    ("up", up.region, "--region eu"),
    ("status", status, "--region eu"),
    ("pause", pause, "--region eu"),
    ("resume", resume, "--region eu"),
    ("stop", stop, "--region eu"),
    ("settle", settle, "3f2a91c0"),
    ("adapt", adapt, "3f2a91c0 --region eu"),
    ("bundle", bundle, "-o eu.zip"),
    ("coins", coins, "3f2a91c0 -o coins.json"),
    ("incident", incident, "software 'the clock was an hour off on 3 May'"),
    ("recover", recover, "--region eu"),
    ("rotate", rotate, "--region eu"),
    ("close", close, "'merged into region EU-2' --region eu"),
)
