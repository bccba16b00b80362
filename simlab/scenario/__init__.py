"""What an architect writes: scenario models, YAML loading with line numbers, units, JSON Schema."""

from simlab.scenario.agents import Agent
from simlab.scenario.alerts import Alerts
from simlab.scenario.answers import AnswerModel
from simlab.scenario.apis import Api, ApiPrice
from simlab.scenario.bundled import bundled, bundled_dir, locate
from simlab.scenario.caches import Caches, PromptCache
from simlab.scenario.dist import Dist, Empirical, Exponential, Fixed, Geometric, Lognormal
from simlab.scenario.gateway import Gateway
from simlab.scenario.latency import Latency
from simlab.scenario.loader import json_schema, load, scenario_from_dict, variants_of
from simlab.scenario.offline import BATCH, Batch, Trough
from simlab.scenario.operations import Operation
from simlab.scenario.pools import GpuPrice, Pool
from simlab.scenario.reliability import Breaker, Client, Hedge, Retry
from simlab.scenario.routing import Route
from simlab.scenario.scenario import Scenario
from simlab.scenario.slo import Budget, Slo
from simlab.scenario.tasks import Queries, Task
from simlab.scenario.workload import (
    Arrivals,
    Closed,
    Documents,
    Gamma,
    Lengths,
    Poisson,
    Prefix,
    RateProfile,
    Sessions,
    Summary,
    Tenants,
    Trace,
    TraceFormat,
    Weibull,
    WorkloadClass,
)

__all__ = [
    "BATCH",
    "Agent",
    "Alerts",
    "AnswerModel",
    "Api",
    "ApiPrice",
    "Arrivals",
    "Batch",
    "Breaker",
    "Budget",
    "Caches",
    "Client",
    "Closed",
    "Dist",
    "Documents",
    "Empirical",
    "Exponential",
    "Fixed",
    "Gamma",
    "Gateway",
    "Geometric",
    "GpuPrice",
    "Hedge",
    "Latency",
    "Lengths",
    "Lognormal",
    "Operation",
    "Poisson",
    "Pool",
    "Prefix",
    "PromptCache",
    "Queries",
    "RateProfile",
    "Retry",
    "Route",
    "Scenario",
    "Sessions",
    "Slo",
    "Summary",
    "Task",
    "Tenants",
    "Trace",
    "TraceFormat",
    "Trough",
    "Weibull",
    "WorkloadClass",
    "bundled",
    "bundled_dir",
    "json_schema",
    "load",
    "locate",
    "scenario_from_dict",
    "variants_of",
]
