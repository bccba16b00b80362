"""Measuring one point: the client's run, what the server counted and logged meanwhile, and the main results."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable
from pathlib import Path

from simlab.calibrate.bench.client import Client, run
from simlab.calibrate.bench.clock import now
from simlab.calibrate.bench.facts import Facts
from simlab.calibrate.bench.folder import Folder, Outcome, load_json
from simlab.calibrate.bench.outlook import Step
from simlab.calibrate.bench.server import Serving
from simlab.calibrate.bench.steplog import steps, write_steps
from simlab.calibrate.run import Load
from simlab.errors import InputError, Problem

LIMIT_S = 900.0
"""A benchmark may take ten times as long as expected and this much more; then the server counts as stuck."""


def warm_up(folder: Folder, client: Client, load: Load, seed: int, watch: Callable[[float], None]) -> float:
    """Requests of which nothing is kept; returns how long they took, s.

    Raises:
        InputError: they failed.
    """
    return run(client.command(load, seed, None), log=folder.client_log, limit_s=2 * LIMIT_S, watch=watch)


def measure(
    folder: Folder, client: Client, serving: Serving, facts: Facts, step: Step, watch: Callable[[float], None]
) -> float:
    """Measures a point and puts its files in their places; returns how long it took, s.

    Args:
        folder: gets them.
        client: measures.
        serving: is measured.
        facts: of the server, kept beside the result.
        step: the point, with its number of requests and its rate.
        watch: called with the seconds gone by; what it raises stops the benchmark.

    Raises:
        InputError: the benchmark failed, or no request succeeded.
        OutputError: the folder cannot be written.
    """
    point, load = step.point, step.load
    result = folder.unfinished / f"{point.name}.json"
    result.unlink(missing_ok=True)
    command = client.command(load, point.seed, result)
    date, before, from_byte = now(), serving.endpoint.metrics(), _size(serving)
    wall_s = run(command, log=folder.client_log, limit_s=10.0 * step.seconds + LIMIT_S, watch=watch)
    grown = serving.endpoint.metrics().since(before)
    outcome = _outcome(result, step, wall_s, date)
    rows = steps(_printed(serving, from_byte))
    if rows:
        write_steps(rows, folder.server_side / f"{point.name}.iterations.csv.gz")
    side = {
        "name": point.name,
        "tells": point.tells,
        "date": date,
        "command": shlex.join(command),
        "server": facts.told(),
        "load": load_json(load),
        "share": point.share,
        "capacity": step.capacity,
        "client_wall_s": round(wall_s, 2),
        "iterations": len(rows) or None,
        "metrics_delta": grown,
    }
    folder.finish(point.name, outcome, side)
    return wall_s


def _outcome(result: Path, step: Step, wall_s: float, date: str) -> Outcome:
    """The main results of a finished benchmark."""
    load = step.load
    try:
        data = json.loads(result.read_text(encoding="utf-8"))
        completed, failed = int(data["completed"]), int(data.get("failed") or 0)
        outcome = Outcome(
            state="measured",
            requests=load.requests or completed,
            failed=failed,
            rate_rps=load.rate_rps if math.isfinite(load.rate_rps) else None,
            capacity=step.capacity,
            seconds=float(data["duration"]),
            wall_s=round(wall_s, 2),
            throughput_rps=float(data["request_throughput"]),
            output_tokens_per_s=float(data["output_throughput"]),
            ttft_s_mean=float(data["mean_ttft_ms"]) / 1e3,
            tpot_s_mean=float(data["mean_tpot_ms"]) / 1e3,
            date=date,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        message = f"`vllm bench serve` wrote no usable result ({reason}); use a version of vLLM that simlab knows"
        raise InputError([Problem(result.name, "", message)]) from error
    if completed == 0:
        first = next((f"; the first error: {text}" for text in data.get("errors") or [] if text), "")
        message = f"none of the {load.requests} requests succeeded{first}; see the server's log"
        raise InputError([Problem(result.name, "completed", message)])
    return outcome


def _size(serving: Serving) -> int:
    return serving.child.log.stat().st_size if serving.child is not None else 0


def _printed(serving: Serving, from_byte: int) -> str:
    """What our server has printed since; nothing of a server that is none of ours."""
    if serving.child is None:
        return ""
    with serving.child.log.open("rb") as file:
        file.seek(from_byte)
        return file.read().decode("utf-8", "replace")
