"""Benchmarks of one server as a least-squares problem: what is simulated against what was measured, run by run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from simlab.calibrate.benchmark import Benchmark, Limits
from simlab.calibrate.run import Floats, Run
from simlab.calibrate.run_prior import Prior
from simlab.profiles import StepTime
from simlab.profiles.step_time import TERMS

SPREAD: Mapping[str, float] = {
    "ttft_s_mean": 0.08,
    "ttft_s_p50": 0.10,
    "ttft_s_p99": 0.30,
    "itl_s_mean": 0.04,
    "tpot_s_mean": 0.04,
    "e2e_s_mean": 0.05,
    "output_tokens_per_s": 0.05,
}
"""What a simulated benchmark is trusted to, by metric: standard deviation of log(simulated / measured)."""
SPEED_SD = 0.05
"""Of the logarithm by which all steps of a run take longer than those of another of the same server."""
NUDGE = 0.15
"""Change of a prior's number, in its standard deviations, from which a derivative is taken: batches form by the
millisecond, so that over less than this a simulated average jumps rather than moves."""
FRESH = 4
"""Steps of the search for which derivatives are carried on (Broyden 1965) before they are taken anew."""
LEAST_RUNS = 8
"""Of fewer runs none is called disturbed: they may well differ by what they measure."""
SLOWER = 0.10
"""A run whose steps take so much longer (logarithm) than those of the fast runs was disturbed, where that explains most
of its errors: something else slowed the server down. Nothing makes a server faster than it is."""
FAST = 0.25
"""The quantile of the runs' speeds that stands for the fast ones."""
MOST = 0.5
"""With a larger share of slow runs, slow is what the server is; and less of a run's errors explained is no reason."""
DISTURBED_SD = 0.5
"""`SPEED_SD` of a disturbed run: its speed tells nothing, the shape of its numbers does."""
SEEDS = (0, 1, 2)
"""Draws of what is not known of a run, to see how much it matters."""
_SPEED = tuple(term for term in TERMS if term != "overhead_s")
_LEAST = 1e-12


class RunProblem:
    """Residuals of a set of runs under a prior, whitened: uncorrelated, of variance 1.

    Within a run, errors are correlated: a run on a slow day is slow in everything. Its covariance is what each metric
    is trusted to, what the draws of unknown lengths and times matter, and a speed of its own.

    Args:
        runs: benchmarks.
        limits: of each.
        prior: of the step-time.
    """

    def __init__(self, runs: Sequence[Run], limits: Sequence[Limits], prior: Prior) -> None:
        self.runs = tuple(runs)
        self.prior = prior
        self.metrics = tuple(
            tuple(metric for metric in SPREAD if run.measured.get(metric, 0.0) > 0) for run in self.runs
        )
        self.limits = list(limits)
        self.benchmarks = [Benchmark(run, limit) for run, limit in zip(self.runs, self.limits, strict=True)]
        ends = np.cumsum([0, *(len(metrics) for metrics in self.metrics)])
        self.rows = tuple(slice(int(low), int(high)) for low, high in pairwise(ends))
        self._logs = [
            np.log([run.measured[metric] for metric in metrics])
            for run, metrics in zip(self.runs, self.metrics, strict=True)
        ]
        self.disturbed = np.zeros(len(self.runs), np.bool_)
        self._shifts = [np.zeros(len(metrics)) for metrics in self.metrics]
        self._drawn = [np.zeros(len(metrics)) for metrics in self.metrics]
        self._white = [np.diag(1.0 / self._trusted(i)) for i in range(len(self.runs))]
        self._told: list[int] | None = None
        self._last: tuple[Floats, Floats, Floats] | None = None
        self._carried = 0

    @property
    def size(self) -> int:
        """Residuals of the data, those of the prior not counted."""
        return self.rows[-1].stop

    def limit(self, i: int, limits: Limits) -> None:
        """Simulates a run with other limits from now on."""
        if limits != self.limits[i]:
            self.limits[i] = limits
            self.benchmarks[i] = Benchmark(self.runs[i], limits)
            self._last = None

    def miss(self, i: int, step_time: StepTime, benchmark: Benchmark | None = None) -> Floats:
        """log(simulated / measured) of each metric of a run."""
        found = (benchmark or self.benchmarks[i]).metrics(step_time)
        return np.log([max(found.get(metric, 0.0), _LEAST) for metric in self.metrics[i]]) - self._logs[i]

    def misses(self, step_time: StepTime) -> tuple[dict[str, float], ...]:
        """The same of all runs, by metric."""
        return tuple(
            dict(zip(metrics, self.miss(i, step_time).tolist(), strict=True)) for i, metrics in enumerate(self.metrics)
        )

    def weigh(self, values: Floats) -> None:
        """Takes the covariance of each run's errors at a step-time of the prior."""
        step_time = self.prior.step_time(values)
        slow, fast = (step_time.scaled(dict.fromkeys(_SPEED, math.exp(log))) for log in (SPEED_SD, -SPEED_SD))
        for i, run in enumerate(self.runs):
            shift = (self.miss(i, slow) - self.miss(i, fast)) / (2.0 * SPEED_SD)
            self._shifts[i] = shift
            if run.requests is None:
                draws = [self.miss(i, step_time, Benchmark(run, self.limits[i], seed=seed)) for seed in SEEDS]
                self._drawn[i] = np.var(draws, axis=0, ddof=1)
            sd = DISTURBED_SD if self.disturbed[i] else SPEED_SD
            covariance = np.diag(self._trusted(i) ** 2 + self._drawn[i]) + sd**2 * np.outer(shift, shift)
            variances, directions = np.linalg.eigh(covariance)
            self._white[i] = directions.T / np.sqrt(variances)[:, None]
        self._last = None

    def find_disturbed(self, step_time: StepTime) -> None:
        """Marks the runs that something slowed down: by the factor on all steps that explains their errors best."""
        if len(self.runs) < LEAST_RUNS:
            return
        slower, explained = np.zeros(len(self.runs)), np.zeros(len(self.runs))
        for i, shift in enumerate(self._shifts):
            spread = np.sqrt(self._trusted(i) ** 2 + self._drawn[i])
            error, moved = -self.miss(i, step_time) / spread, shift / spread
            length = float(moved @ moved)
            if length > 0 and error.any():
                slower[i] = float(moved @ error) / length
                explained[i] = slower[i] ** 2 * length / float(error @ error)
        disturbed = (slower > np.quantile(slower, FAST) + SLOWER) & (explained > MOST)
        if disturbed.mean() <= MOST:
            self.disturbed = disturbed

    def whiten(self, i: int, miss: Floats) -> Floats:
        """Errors of a run as residuals of variance 1 that tell nothing of each other."""
        return np.asarray(self._white[i] @ miss, np.float64)

    def data(self, step_time: StepTime) -> Floats:
        """Whitened residuals of the runs, [size]."""
        return np.concatenate([self.whiten(i, self.miss(i, step_time)) for i in range(len(self.runs))])

    def residuals(self, values: Floats) -> Floats:
        """Whitened residuals of the runs, then those of the prior, [size + prior's]."""
        return np.concatenate([self.data(self.prior.step_time(values)), values])

    def jacobian(self, values: Floats) -> Floats:
        """Derivatives of `residuals`, taken anew; numbers that no run tells anything of are passed over later."""
        columns = np.zeros((self.size, len(values)))
        for j in range(len(values)) if self._told is None else self._told:
            up, down = values.copy(), values.copy()
            up[j] += NUDGE
            down[j] -= NUDGE
            here = self.data(self.prior.step_time(up)) - self.data(self.prior.step_time(down))
            columns[:, j] = here / (2.0 * NUDGE)
        if self._told is None:
            self._told = np.flatnonzero(np.linalg.norm(columns, axis=0) > 0.05).tolist()
        return np.vstack([columns, np.eye(len(values))])

    def carried_jacobian(self, values: Floats) -> Floats:
        """Derivatives of `residuals`, mostly carried on from those at the last values asked for."""
        here = self.residuals(values)
        if self._last is None or self._carried >= FRESH:
            matrix = self.jacobian(values)
            self._carried = 0
        else:
            before, there, matrix = self._last
            step = values - before
            if step.any():
                matrix = matrix + np.outer(here - there - matrix @ step, step) / (step @ step)
                matrix[-len(values) :] = np.eye(len(values))
                self._carried += 1
        self._last = (values.copy(), here, matrix)
        return matrix

    def _trusted(self, i: int) -> Floats:
        return np.array([SPREAD[metric] for metric in self.metrics[i]])
