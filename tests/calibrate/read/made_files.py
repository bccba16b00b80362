"""Files as the tools write them, small ones, for the tests of the readers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from simlab.calibrate import ServerHints
from simlab.calibrate.read import read_measurements
from simlab.errors import InputError

GPU = ServerHints(gpu="h100")


def bench_serve(
    n: int = 6,
    *,
    detailed: bool = True,
    concurrency: int | None = 2,
    rate: float | str = "inf",
    failed: int = 0,
    seed: int = 0,
    **changed: Any,
) -> dict[str, Any]:
    """A result of ``vllm bench serve``: ``n`` requests that completed and some, the last, that failed."""
    rng = np.random.default_rng(seed)
    inputs, outputs = rng.integers(90, 110, n), rng.integers(4, 9, n)
    ttft = rng.uniform(0.05, 0.15, n)
    itls = [rng.uniform(0.01, 0.02, k - 1) for k in outputs]
    e2e = ttft + np.array([gap.sum() for gap in itls])
    free, start = [0.0] * (concurrency or n), np.zeros(n)
    for i in range(n):
        slot = int(np.argmin(free))
        start[i] = free[slot]
        free[slot] += e2e[i]
    duration = float((start + e2e).max())
    tpot = (e2e - ttft) / (outputs - 1)
    data: dict[str, Any] = {
        "date": "20261121-070335",
        "endpoint_type": "vllm",
        "model_id": "meta-llama/Llama-3.1-8B-Instruct",
        "num_prompts": n + failed,
        "request_rate": rate,
        "burstiness": 1.0,
        "max_concurrency": concurrency,
        "duration": duration,
        "completed": n,
        "failed": failed,
        "total_input_tokens": int(inputs.sum()),
        "total_output_tokens": int(outputs.sum()),
        "request_throughput": n / duration,
        "output_throughput": float(outputs.sum()) / duration,
    }
    if detailed:
        data |= {
            "input_lens": [*map(int, inputs), *[100] * failed],
            "output_lens": [*map(int, outputs), *[0] * failed],
            "ttfts": [*map(float, ttft), *[0.0] * failed],
            "itls": [*[list(map(float, gap)) for gap in itls], *[[]] * failed],
            "latencies": [*map(float, e2e), *[0.0] * failed],
            "start_times": [*map(float, start + 4000.0), *[4000.0] * failed],
            "errors": [""] * n + ["Traceback\nClientError: refused"] * failed,
        }
    for name, values in {"ttft": ttft, "tpot": tpot, "itl": np.concatenate(itls), "e2el": e2e}.items():
        data[f"mean_{name}_ms"] = float(np.mean(values)) * 1e3
        data[f"median_{name}_ms"] = float(np.median(values)) * 1e3
        data[f"std_{name}_ms"] = float(np.std(values)) * 1e3
        data[f"p99_{name}_ms"] = float(np.percentile(values, 99)) * 1e3
    return {**data, **changed}


def without(data: dict[str, Any], *names: str) -> dict[str, Any]:
    """The same without some fields."""
    return {name: value for name, value in data.items() if name not in names}


def write(path: Path, data: Any) -> Path:
    """Writes JSON, or text as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


def complaints(*paths: Path, hints: ServerHints = GPU, within: Path | None = None) -> list[str]:
    """What reading says is wrong, a line each, with paths from ``within`` (by default the first one's folder)."""
    folder = within or (paths[0] if paths[0].is_dir() else paths[0].parent)
    try:
        read_measurements(paths, server=hints)
    except InputError as error:
        return [str(problem).replace(f"{folder}/", "") for problem in error.problems]
    return []
