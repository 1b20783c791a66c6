"""The live part of ``fedfsd region status``, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedfsd.cli.answer import size
from fedfsd.language import say, say_count
from fedfsd.plain_text import plain


def text(found: Mapping[str, Any]) -> str:
    """Running processes, the gate's state, and the region's own figure."""
    gate = found["gate"]
    lines = [say("processes: {processes}", processes=processes(found["up"], "fedfsd region up"))]
    lines += [say("gate: no answer")] if gate is None else _gate(gate)
    if own := found["own"]:
        lines.append(
            say("on its own test vehicles (never leaves the region): {figures}", figures=listed(own))
        )
    return "\n".join(lines)


def processes(state: Mapping[str, Any] | None, command: str) -> str:
    """One line on supervised processes."""
    if state is None:
        return say("no {command} runs here", command=command)
    parts = []
    for one in state["processes"]:
        stands = (
            say("process {pid}", pid=one["pid"])
            if one["pid"]
            else say("down, ended with {code}", code=one["exit_code"])
        )
        if one["pid"] and not one["ready"]:
            stands += say(", not ready yet")
        if one["restarts"]:
            stands += say_count(", restarted once", ", restarted {n} times", one["restarts"])
            stands += say(" (last: {said})", said=one["said"]) if one["said"] else ""
        parts.append(f"{one['name']} {stands}")
    return plain(say("since {since}: {parts}", since=state["since"], parts="; ".join(parts)))


def listed(document: Mapping[str, Any]) -> str:
    """Plain values of a document in one line; inner ones in brackets, empty ones left out."""
    parts = []
    for key, value in document.items():
        if isinstance(value, Mapping):
            value = f"({listed(value)})" if value else None
        elif isinstance(value, float):
            value = f"{value:.4g}"
        elif isinstance(value, str) and len(value) == 64:
            value = value[:8]
        if value not in (None, "", []):
            parts.append(f"{key.replace('_', ' ')} {plain(value)}")
    return ", ".join(parts)


def clock_told(gate: Mapping[str, Any]) -> str | None:
    """A line on clocks that are too far apart."""
    from fedfsd.border import clock

    found = clock.objection(float(gate.get("clock_offset") or 0.0))
    return None if found is None else say("clock: {got}; fix: {hint}", got=found.got, hint=found.hint)


def _gate(gate: Mapping[str, Any]) -> list[str]:
    """The gate's state, the most important facts first."""
    first = {
        "open": say("connected"),
        "waiting": say("NOT connected, retrying: fedfsd region doctor shows why"),
    }
    if gate.get("objection"):
        first["waiting"] = say("NOT connected: {why}", why=plain(gate["objection"]))
    words = [first.get(str(gate.get("connection")), say("not connected"))]
    words.append(say("runner there") if gate.get("runner") else say("NO runner"))
    if gate.get("working"):
        words.append(say("in a round"))
    if gate.get("paused"):
        words.append(say("PAUSED: no update leaves until fedfsd region resume"))
    if gate.get("outbox"):
        words.append(say("{number} in the outbox", number=gate["outbox"]))
    if gate.get("test_only"):
        words.append(say("accepts rehearsal plans"))
    lines = [say("gate: {state}", state=", ".join(words))]
    if (told := clock_told(gate)) is not None:
        lines.append(told)
    if gate.get("last_round"):
        last, total = listed(gate["last_round"]), listed(gate.get("rounds", {}))
        lines.append(say("last round: {last}; total: {total}", last=last, total=total))
    if gate.get("refusals"):
        lines.append(
            say(
                "refused or failed since the start: {refusals}; log/gate.jsonl, or region.log in the runner's"
                " folder, shows why",
                refusals=listed(gate["refusals"]),
            )
        )
    if moved := gate.get("bytes"):
        told = say(
            "sent {sent}, received {received}",
            sent=size(moved.get("out", 0)),
            received=size(moved.get("in", 0)),
        )
        if "certificate_days" in gate:
            told += say("; certificate: {days} days left", days=gate["certificate_days"])
        lines.append(told)
    lines += [
        say("plan {plan} waits for approval: fedfsd region plan {plan}", plan=plain(plan)[:12])
        for plan in gate.get("pending") or ()
    ]
    return lines
