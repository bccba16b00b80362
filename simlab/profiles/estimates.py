"""Estimates where nothing was measured: the roofline at efficiencies learned from the measured profiles."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from simlab.errors import InputError, Problem
from simlab.profiles.gpus import Gpu, gpus
from simlab.profiles.gpus import gpu as find_gpu
from simlab.profiles.models import WEIGHT_BYTES, Model, models
from simlab.profiles.models import model as find_model
from simlab.profiles.record import Profile, Uncertainty
from simlab.profiles.roofline import Efficiency, roofline

# The prior counts as much as one measured profile of the very same kind.
PRIOR = Efficiency()
PRIOR_WEIGHT = 1.0
# Scheduling and sampling take about as long on the host as launching this many layers (0.7 ms of 3 ms at 64 layers).
FIXED_LAYERS = 16
# The prior's host times are of a model this deep.
PRIOR_LAYERS = 64
_OF_A_LAYER = frozenset({"host_s", "eager_s"})
# An estimate is never surer than this, however well the measured profiles agree among themselves.
FLOOR_SD = 0.20
# Relative standard deviation of each efficiency before anything was measured.
PRIOR_SD = 0.40
# Which efficiency moves which term of the step-time.
_TERM_OF = {
    "host_s": "base_s",
    "bandwidth": "linear",
    "kv_bandwidth": "per_kv_token_s",
    "attention_flops": "attn_s",
    "per_seq_s": "per_seq_s",
    "overhead_s": "overhead_s",
}


def learned(
    model: Model, gpu: Gpu, precision: str, measured: Iterable[Profile]
) -> tuple[Efficiency, dict[str, float], list[str]]:
    """Efficiencies for a set-up from the measured profiles, by likeness.

    Each measured profile counts by how alike it is: halved for another GPU generation, for another precision, and for
    dense against mixture of experts; fourfold for the very same model. The set-ups of one model on one GPU count as one
    together. Logarithms are averaged with a prior; host times go by the layer, since a layer is what is launched.

    Returns:
        The efficiencies, the relative standard deviation of each, and the names of the profiles used.
    """
    cards, architectures = gpus(), models()
    known = [one for one in measured if one.efficiency is not None and one.gpu in cards and one.model in architectures]
    crowd = Counter((one.model, one.gpu) for one in known)
    samples = [(PRIOR_WEIGHT, _by_layer(PRIOR, PRIOR_LAYERS))]
    for profile in known:
        other = architectures[profile.model]
        like = 1.0 / crowd[profile.model, profile.gpu]
        like *= 1.0 if cards[profile.gpu].architecture == gpu.architecture else 0.5
        like *= 1.0 if profile.precision == precision else 0.5
        like *= 1.0 if bool(other.experts) == bool(model.experts) else 0.5
        like *= 4.0 if profile.model == model.name else 1.0
        samples.append((like, _by_layer(profile.efficiency or PRIOR, other.layers)))
    total = sum(weight for weight, _ in samples)
    means: dict[str, float] = {}
    spreads: dict[str, float] = {}
    for name in PRIOR.as_dict():
        mean = sum(weight * logs[name] for weight, logs in samples) / total
        scatter = sum(weight * (logs[name] - mean) ** 2 for weight, logs in samples) + PRIOR_WEIGHT * PRIOR_SD**2
        means[name] = math.exp(mean) * (model.layers + FIXED_LAYERS if name in _OF_A_LAYER else 1.0)
        spreads[name] = max(FLOOR_SD, math.sqrt(scatter / total))
    return Efficiency(**means), spreads, [one.name for one in known]


def _by_layer(efficiency: Efficiency, layers: int) -> dict[str, float]:
    """Logarithms of efficiencies, host times divided by the layers and the fixed part."""
    launched = layers + FIXED_LAYERS
    return {
        name: math.log(value / launched if name in _OF_A_LAYER else value)
        for name, value in efficiency.as_dict().items()
    }


def estimate(
    model: str, gpu: str, tp: int = 1, precision: str | None = None, *, measured: Iterable[Profile] | None = None
) -> Profile:
    """A profile from the model's architecture and the GPU's data sheet.

    Args:
        model: name of the model table.
        gpu: name of the GPU table.
        tp: GPUs of one replica.
        precision: of the weights; None is the published one.
        measured: profiles to learn efficiencies from; None is every measured profile that comes with simlab.

    Raises:
        InputError: unknown model, GPU or precision.
    """
    from simlab.profiles.library import profiles

    architecture, card = find_model(model), find_gpu(gpu)
    weights = architecture.precision(precision)
    if weights not in WEIGHT_BYTES or tp < 1:
        allowed = ", ".join(WEIGHT_BYTES)
        raise InputError([Problem("", "", f"need a precision of {allowed} and tp >= 1; got {weights!r} and {tp}")])
    known = [entry for entry in profiles().values() if entry.kind == "measured"] if measured is None else measured
    efficiency, spread, names = learned(architecture, card, weights, known)
    terms = tuple(_TERM_OF.values())
    variance = tuple(spread[source] ** 2 for source in _TERM_OF)
    diagonal = tuple(tuple(variance[i] if i == j else 0.0 for j in range(len(terms))) for i in range(len(terms)))
    return Profile(
        name=f"{architecture.name}.{card.name}.tp{tp}.{weights}",
        model=architecture.name,
        gpu=card.name,
        tp=tp,
        precision=weights,
        kind="estimated",
        step_time=roofline(architecture, card, tp, weights, efficiency),
        uncertainty=Uncertainty(terms, diagonal),
        fitted_on=tuple(f"efficiencies of {name}" for name in names),
        efficiency=efficiency,
        engine="vLLM (estimate)",
        notes="Not measured: roofline over architecture and data sheet; terms may be off by a third.",
    )
