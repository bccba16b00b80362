"""One draw of a profile's step time from what is known of its error: the luck of calibration in a Monte-Carlo run."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from simlab.profiles.record import Profile
    from simlab.profiles.step_time import StepTime


def drawn(profile: Profile, seed: int) -> StepTime:
    """The step time as it might be, given the profile's uncertainty.

    A pure function of the replication's seed, the profile's name and each term's: two pools, or two variants, that use
    one profile see the same draw of it in the same replication; profiles of different set-ups are drawn independently.

    Args:
        profile: the fit and its covariance.
        seed: of the replication, `simlab.simulation.replication_seed`.
    """
    # Numba takes its time to import, which those who only read profiles need not wait for.
    from simlab.draws.counter import key, normal_quantile, uniform

    normals = []
    for term in profile.uncertainty.terms:
        # A kernel hands a word back as a Python integer, which the next one would take for a signed one.
        name = np.uint64(seed)
        for part in ("calibration", profile.name, term):
            name = np.uint64(key(name, _word(part)))
        normals.append(float(normal_quantile(float(uniform(name)))))
    return profile.sampled(normals)


def _word(text: str) -> np.uint64:
    """A 64-bit word that stands for a text."""
    return np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))
