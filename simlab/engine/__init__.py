"""The fast world: one compiled event loop over record arrays."""

from simlab.engine.agent_spec import AgentSpec
from simlab.engine.engine import Engine, PoolSignals
from simlab.engine.limit_spec import CapSpec, ContextSpec, LimitSpec
from simlab.engine.offline_spec import BatchSpec, TroughSpec
from simlab.engine.spec import (
    QUALITY_POINTS,
    AnswerCacheSpec,
    ApiSpec,
    ChoiceSpec,
    ClassSpec,
    GatewaySpec,
    PolicySpec,
    PoolSpec,
    PromptCacheSpec,
    RuleSpec,
    StepCoefficients,
    TokenPrice,
    WorldSpec,
)

__all__ = [
    "QUALITY_POINTS",
    "AgentSpec",
    "AnswerCacheSpec",
    "ApiSpec",
    "BatchSpec",
    "CapSpec",
    "ChoiceSpec",
    "ClassSpec",
    "ContextSpec",
    "Engine",
    "GatewaySpec",
    "LimitSpec",
    "PolicySpec",
    "PoolSignals",
    "PoolSpec",
    "PromptCacheSpec",
    "RuleSpec",
    "StepCoefficients",
    "TokenPrice",
    "TroughSpec",
    "WorldSpec",
]
