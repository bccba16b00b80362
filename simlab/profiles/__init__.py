"""GPUs, models and step-time profiles: load, choose, estimate."""

from __future__ import annotations

from simlab.profiles.draw import drawn
from simlab.profiles.estimates import estimate
from simlab.profiles.gpus import Gpu, gpu, gpus
from simlab.profiles.library import profile, profiles, select
from simlab.profiles.memory import kv_blocks
from simlab.profiles.models import LatentAttention, Model, model, models
from simlab.profiles.reach import Beyond, Reach, beyond, may_go_beyond, widened
from simlab.profiles.record import Profile, Uncertainty, Validity, load, parse, schema
from simlab.profiles.roofline import Efficiency, roofline
from simlab.profiles.step_time import TERMS, StepTime

__all__ = [
    "TERMS",
    "Beyond",
    "Efficiency",
    "Gpu",
    "LatentAttention",
    "Model",
    "Profile",
    "Reach",
    "StepTime",
    "Uncertainty",
    "Validity",
    "beyond",
    "drawn",
    "estimate",
    "gpu",
    "gpus",
    "kv_blocks",
    "load",
    "may_go_beyond",
    "model",
    "models",
    "parse",
    "profile",
    "profiles",
    "roofline",
    "schema",
    "select",
    "widened",
]
