"""What an architect writes: scenario models, YAML loading with line numbers, units, JSON Schema."""

from simlab.scenario.apis import Api, ApiPrice
from simlab.scenario.bundled import bundled, bundled_dir, locate
from simlab.scenario.dist import Dist, Empirical, Exponential, Fixed, Geometric, Lognormal
from simlab.scenario.gateway import Gateway, Retry, Route
from simlab.scenario.loader import json_schema, load, scenario_from_dict, variants_of
from simlab.scenario.operations import Operation
from simlab.scenario.pools import GpuPrice, Pool
from simlab.scenario.scenario import Scenario
from simlab.scenario.slo import Budget, Slo
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
    "Api",
    "ApiPrice",
    "Arrivals",
    "Budget",
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
    "Lengths",
    "Lognormal",
    "Operation",
    "Poisson",
    "Pool",
    "Prefix",
    "RateProfile",
    "Retry",
    "Route",
    "Scenario",
    "Sessions",
    "Slo",
    "Summary",
    "Tenants",
    "Trace",
    "TraceFormat",
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
