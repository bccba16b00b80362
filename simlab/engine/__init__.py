"""The fast world: one compiled event loop over record arrays."""

from simlab.engine.engine import Engine, PoolSignals
from simlab.engine.spec import ApiSpec, ClassSpec, GatewaySpec, PoolSpec, StepCoefficients, WorldSpec

__all__ = [
    "ApiSpec",
    "ClassSpec",
    "Engine",
    "GatewaySpec",
    "PoolSignals",
    "PoolSpec",
    "StepCoefficients",
    "WorldSpec",
]
