"""From what a scenario says of its gateway to the numbers the engine follows; one module a family of policies."""

from simlab.policies.extras import Extras
from simlab.policies.groups import task_groups
from simlab.policies.offline import batch_endpoint
from simlab.policies.plan import Plan, plan
from simlab.policies.prompt_cache import prompt_cache
from simlab.policies.quality import model_numbers
from simlab.policies.reliability import with_fallbacks
from simlab.policies.routing import incomparable
from simlab.policies.versions import VersionChange, changes, prompt_versions

__all__ = [
    "Extras",
    "Plan",
    "VersionChange",
    "batch_endpoint",
    "changes",
    "incomparable",
    "model_numbers",
    "plan",
    "prompt_cache",
    "prompt_versions",
    "task_groups",
    "with_fallbacks",
]
