"""The live part of ``fedfsd region status``, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedfsd.cli.answer import size
from fedfsd.plain_text import plain


def text(found: Mapping[str, Any]) -> str:
    """Running processes, the gate's state, and the region's own figure."""
    gate = found["gate"]
    lines = [f"processes: {processes(found['up'], 'fedfsd region up')}"]
    lines += ["gate: no answer"] if gate is None else _gate(gate)
    if own := found["own"]:
        lines.append(f"on its own test vehicles (never leaves the region): {listed(own)}")
    return "\n".join(lines)


def processes(state: Mapping[str, Any] | None, command: str) -> str:
    """One line on supervised processes."""
    if state is None:
        return f"no {command} runs here"
    parts = []
    for one in state["processes"]:
        stands = f"process {one['pid']}" if one["pid"] else f"down, ended with {one['exit_code']}"
        if one["pid"] and not one["ready"]:
            stands += ", not ready yet"
        if one["restarts"]:
            times = one["restarts"]
            stands += f", restarted {'once' if times == 1 else f'{times} times'}"
            stands += f" (last: {one['said']})" if one["said"] else ""
        parts.append(f"{one['name']} {stands}")
    return plain(f"since {state['since']}: " + "; ".join(parts))


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
    return None if found is None else f"clock: {found.got}; fix: {found.hint}"


def _gate(gate: Mapping[str, Any]) -> list[str]:
    """The gate's state, the most important facts first."""
    first = {"open": "connected", "waiting": "NOT connected, retrying: fedfsd region doctor shows why"}
    if gate.get("objection"):
        first["waiting"] = f"NOT connected: {plain(gate['objection'])}"
    words = [first.get(str(gate.get("connection")), "not connected")]
    words.append("runner there" if gate.get("runner") else "NO runner")
    if gate.get("working"):
        words.append("in a round")
    if gate.get("paused"):
        words.append("PAUSED: no update leaves until fedfsd region resume")
    if gate.get("outbox"):
        words.append(f"{gate['outbox']} in the outbox")
    if gate.get("test_only"):
        words.append("accepts rehearsal plans")
    lines = [f"gate: {', '.join(words)}"]
    if (told := clock_told(gate)) is not None:
        lines.append(told)
    if gate.get("last_round"):
        lines.append(f"last round: {listed(gate['last_round'])}; total: {listed(gate.get('rounds', {}))}")
    if gate.get("refusals"):
        why = "log/gate.jsonl, or region.log in the runner's folder, shows why"
        lines.append(f"refused or failed since the start: {listed(gate['refusals'])}; {why}")
    if moved := gate.get("bytes"):
        days = f"; certificate: {gate['certificate_days']} days left" if "certificate_days" in gate else ""
        lines.append(f"sent {size(moved.get('out', 0))}, received {size(moved.get('in', 0))}{days}")
    lines += [
        f"plan {plain(plan)[:12]} waits for approval: fedfsd region plan {plain(plan)[:12]}"
        for plan in gate.get("pending") or ()
    ]
    return lines
