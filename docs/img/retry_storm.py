"""Draws docs/img/retry-storm.png from scenarios/examples/retry-storm.yaml: `python docs/img/retry_storm.py`.

Each variant is run once beside an observer in the slow world, which counts every five seconds what the API has answered
in time and what has been sent to it: calls that are still in its queue at the end are load, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import simpy
from matplotlib import pyplot as plt
from numpy.typing import NDArray

from simlab import assemble, load
from simlab.control import Incident, suffer
from simlab.engine import Engine
from simlab.scenario import Scenario
from simlab.simulation import replication_seed

ROOT = Path(__file__).resolve().parents[2]
SHOWN = {
    "none": "no retries",
    "aggressive": "aggressive: 4 attempts, 0.1 s apart, no jitter",
    "jitter": "exponential backoff with full jitter, no budget",
    "budget-too-big": "the same with a budget of 10%: above the spare 5%",
    "careful": "the same with a budget of 2%",
    "breaker": "aggressive, with a circuit breaker",
}
STEP_S = 5.0
CAPACITY = 50.0


def observed(scenario: Scenario) -> NDArray[np.float64]:
    """Calls a second to the API, and answers a second in time: [2, steps]."""
    spec, _ = assemble.world(scenario, assemble.backends(scenario), replication_seed(scenario.seed, 0))
    engine, env = Engine(spec), simpy.Environment()
    push = scenario.operations[0]
    env.process(suffer(env, engine, [Incident(push.at, push.until or np.inf, 0, push.factor or 1.0)], {0: 0.0}))
    counted: list[tuple[int, int]] = []

    def watch() -> Iterator[Any]:
        while True:
            world = engine.world
            under_way = int(world.backends["in_flight"][0] + world.backends["queued"][0])
            # A breaker's refusals are attempts, too, but never reach the API.
            sent = int((world.cells["attempts"] - world.cells["rejected"]).sum()) + under_way
            counted.append((sent, int(world.tasks[1]["succeeded"].sum())))
            yield env.timeout(STEP_S)

    env.process(watch())
    while env.peek() <= scenario.horizon:
        engine.advance(until=env.peek())
        env.step()
    return np.diff(np.array(counted, float), axis=0).T / STEP_S


def main() -> None:
    """Runs the variants and writes the figure."""
    path = ROOT / "scenarios" / "examples" / "retry-storm.yaml"
    figure, axes = plt.subplots(3, 2, figsize=(9, 6.6), sharex=True, sharey=True, layout="constrained")
    for axis, (variant, title) in zip(axes.flat, SHOWN.items(), strict=True):
        scenario = load(path, variant=variant)
        sent, answered = observed(scenario)
        edges = np.arange(len(sent) + 1) * STEP_S / 60.0
        push = scenario.operations[0]
        axis.axvspan(push.at / 60.0, (push.until or push.at) / 60.0, color="#f0c000", alpha=0.5, linewidth=0)
        axis.axhline(CAPACITY, color="#777777", linewidth=0.8, linestyle=":")
        axis.stairs(sent, edges, baseline=None, color="#d55e00", linewidth=1.2, label="calls to the API")
        axis.stairs(answered, edges, color="#0072b2", fill=True, alpha=0.75, label="answers in time")
        axis.set_title(title, fontsize=9, loc="left")
        axis.set_ylim(0, 215)
        axis.set_xlim(0, edges[-1])
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].annotate("30 s six times\nas slow", (5.5, 120), (7, 120), fontsize=8, va="center")
    axes[0, 0].annotate("capacity 50/s", (29.5, 62), fontsize=8, ha="right", color="#555555")
    axes[0, 1].legend(fontsize=8, frameon=False, loc="center right")
    for axis in axes[-1]:
        axis.set_xlabel("minutes")
    for axis in axes[:, 0]:
        axis.set_ylabel("per second")
    figure.savefig(Path(__file__).with_name("retry-storm.png"), dpi=110)


if __name__ == "__main__":
    main()
