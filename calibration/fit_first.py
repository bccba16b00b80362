"""Fits the profiles that come with simlab and writes them with an accuracy page.

Usage: ``python calibration/fit_first.py [DATA]`` with DATA the folder of measured data (default ``../shared/data``);
about two minutes on one core. Writes ``simlab/profiles/data/profiles/*.json`` and ``calibration/README.md``.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import silicon
import step_data
from page import EstimateCheck, write_page

from simlab.profiles import Profile, estimate

ROOT = Path(__file__).resolve().parent.parent
PROFILES = ROOT / "simlab" / "profiles" / "data" / "profiles"
# Set-ups people ask for first, of which no measurement is at hand; every other one is estimated when asked for.
ESTIMATES = [("llama-3.1-8b", "h100-sxm", 1, "bf16"), ("llama-3.1-8b", "h100-sxm", 1, "fp8")]
# A fit that misses this much in time per token, each run predicted from the others, is no measurement to rely on.
LIMIT_TPOT, LIMIT_TTFT = 0.15, 0.40


def check_estimates(fits: list[silicon.Fit], measured: list[Profile]) -> list[EstimateCheck]:
    """Each fitted set-up estimated from the profiles of other models and of other GPUs alone."""
    checks = []
    for one in fits:
        setup = one.setup
        others = [profile for profile in measured if not (profile.model == setup.model and profile.gpu == setup.gpu)]
        guess = estimate(setup.model, setup.gpu, setup.tp, setup.precision, measured=others)
        ttft, tpot = silicon.misses(guess.step_time, setup.rows)
        checks.append(EstimateCheck(setup.name, len(setup.rows), ttft, tpot))
    return checks


def main() -> None:
    """Fits everything and writes profiles and page."""
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "shared" / "data"
    steps = step_data.load_steps(data)
    step_fits = [step_data.fit(steps, config) for config in step_data.CONFIGS]
    fits, rejected = [], []
    for setup in silicon.read_setups(data):
        one = silicon.fit(setup)
        print(one.profile.summary(), file=sys.stderr)
        error = one.profile.error
        good = error["tpot_left_out_median_ape"] <= LIMIT_TPOT and error["ttft_left_out_median_ape"] <= LIMIT_TTFT
        (fits if good else rejected).append(one)
    measured = [one.profile for one in (*step_fits, *fits)]
    checks = check_estimates(fits, measured)
    ape_ttft = np.abs(np.expm1(np.concatenate([check.ttft for check in checks])))
    ape_tpot = np.abs(np.expm1(np.concatenate([check.tpot for check in checks])))
    error = {
        "tpot_other_hardware_median_ape": round(float(np.median(ape_tpot)), 4),
        "ttft_other_hardware_median_ape": round(float(np.median(ape_ttft)), 4),
    }
    newest = max(profile.date for profile in measured)
    estimates = [replace(estimate(*setup, measured=measured), error=error, date=newest) for setup in ESTIMATES]
    for old in PROFILES.glob("*.json"):
        old.unlink()
    for profile in (*measured, *estimates):
        profile.save(PROFILES / f"{profile.name}.json")
    write_page(ROOT / "calibration" / "README.md", step_fits, fits, rejected, checks, estimates)


if __name__ == "__main__":
    main()
