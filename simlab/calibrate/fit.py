"""Fitting: runs of any number of set-ups in, a profile of each out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from simlab.calibrate.fit_setup import fit_setup
from simlab.calibrate.fitted import Fits, Fitted, Unfitted, listed
from simlab.calibrate.parallel import in_parallel
from simlab.calibrate.run import Run
from simlab.errors import InputError, Problem
from simlab.profiles import Profile, profiles


def fit(
    runs: Sequence[Run],
    *,
    one: bool = False,
    measured: Iterable[Profile] | None = None,
    workers: int | None = None,
    progress: Callable[[float, float], None] | None = None,
) -> Fits:
    """A profile for each set-up of the runs.

    Args:
        runs: from `simlab.calibrate.read.read_runs`.
        one: all must be of one set-up.
        measured: profiles that tell what to expect before a run is looked at; None: those that come with simlab. One of
            the set-up itself is never among them.
        workers: processes to use; None: one for each core. It never changes a result.
        progress: called with set-ups done and in all.

    Raises:
        InputError: no runs, several set-ups where one was asked for, or no set-up has enough runs.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.server.setup, []).append(run)
    if not groups:
        raise InputError([Problem("", "", "no runs: give files of benchmark results")])
    if one and len(groups) > 1:
        message = (
            f"read runs of {len(groups)} set-ups ({listed(list(groups))}), which make one profile each: give a folder "
            "(-o DIR), or only the runs of one"
        )
        raise InputError([Problem("-o", "", message)])
    known = tuple(profile for profile in (profiles().values() if measured is None else measured))
    said = (lambda done: progress(done, len(groups))) if progress is not None else None
    # The largest first, so that no process is left with it at the end.
    order = sorted(groups.values(), key=len, reverse=True)
    found = in_parallel(partial(fit_setup, measured=known), order, workers=workers, finished=said)
    by_setup = {one.profile.name if isinstance(one, Fitted) else one.setup: one for one in found}
    results = [by_setup[setup] for setup in groups]
    fitted = tuple(one for one in results if isinstance(one, Fitted))
    unfitted = tuple(one for one in results if isinstance(one, Unfitted))
    if not fitted:
        raise InputError([Problem(one.setup, "", one.reason) for one in unfitted])
    return Fits(fitted, unfitted)
