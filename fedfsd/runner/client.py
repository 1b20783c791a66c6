"""The ClientApp: a Flower message in, one round of the region, a message out. No client text crosses."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, cast

from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedfsd.errors import FedfsdError, RefusedError
from fedfsd.flower import held
from fedfsd.gate import arrays as gate_arrays
from fedfsd.gate import outcome
from fedfsd.plan import plan as plans
from fedfsd.plan.plan import Plan
from fedfsd.runner.region import Region, RegionConfig, open_region, remark, run_round

_LOG = logging.getLogger("fedfsd.region")


def client_app(
    configure: Callable[[Context], RegionConfig], *, opened: Callable[[RegionConfig], Region] | None = None
) -> ClientApp:
    """The app of a region.

    Args:
        configure: turns the node's context into the operator's configuration.
        opened: the region of a configuration; by default one that is opened once a process.
    """
    app = ClientApp()
    region = opened or _region

    @app.train()
    def train(message: Message, context: Context) -> Message:
        """Run one round; whatever fails leaves as one code."""
        folder = None
        try:
            config = configure(context)
            folder = Path(config.folder)
            return Message(_round(region(config), message.content), reply_to=message)
        except Exception as error:  # the reply is a code, so nothing of the data can leave in a text
            word = outcome.of(error)
            note(folder, error)
            return Message(Error(outcome.REFUSALS[word].flower, word), reply_to=message)

    @app.query("region")
    def query(message: Message, context: Context) -> Message:
        """Which region this node is."""
        return Message(
            RecordDict({"region": ConfigRecord({"name": configure(context).name})}), reply_to=message
        )

    return app


@lru_cache(maxsize=4)
def _plan(document: str) -> Plan:
    """Read once, not in every round."""
    return plans.read(document)


@cache
def _region(config: RegionConfig) -> Region:
    """One region a configuration and process: its data and model stay loaded between messages."""
    return open_region(config)


def _round(region: Region, content: RecordDict) -> RecordDict:
    request, record = content.config_records.get("config"), content.array_records.get("arrays")
    if (
        set(content) != {"arrays", "config"}
        or request is None
        or record is None
        or set(request) != {"plan", "round"}
    ):
        raise RefusedError("message", got="other keys", expected="arrays, plan and round, nothing else")
    plan, round = _plan(str(request["plan"])), cast(int, request["round"])  # the gate asks its type
    released = run_round(region, held.arrays_of(record), plan, round)
    return RecordDict(
        {
            "arrays": held.record(gate_arrays.view(released.content, plan.model.arrays)),
            # Flower's strategies want a weight here; the coordinator fills in the declared one.
            "metrics": MetricRecord({}),
            "release": ConfigRecord({"entry": released.entry_hash, "sha256": released.sha256}),
        }
    )


def note(folder: Path | None, error: Exception) -> None:
    """Why a round failed, for the region's own people alone."""
    text = str(error) if isinstance(error, FedfsdError) else "".join(traceback.format_exception(error))
    if folder is None:
        _LOG.error("%s", type(error).__name__)
        return
    remark(folder, text)


def _simulated(node: Mapping[str, Any]) -> RegionConfig:
    return RegionConfig(**node, simulated=True)


simulated = client_app(lambda context: _simulated(context.node_config))
"""The app that worker processes of a simulation load by name."""


def numbered(nodes: Sequence[Mapping[str, str]]) -> ClientApp:
    """The app for an engine that knows its nodes by number alone; ``nodes``: what RegionConfig takes."""
    return client_app(lambda context: _simulated(nodes[int(context.node_config["partition-id"])]))
