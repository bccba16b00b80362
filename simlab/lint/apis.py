"""Pre-flight checks of one API endpoint: its price, its limits against the load, its latency against objectives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from simlab.errors import InputError
from simlab.lint.finding import Finding

if TYPE_CHECKING:
    from simlab.lint.offered import ClassLoad, Offered
    from simlab.scenario import Api, Scenario


def check_api(scenario: Scenario, name: str, load: Offered) -> Iterator[Finding]:
    """Yields what is wrong or doubtful about one API endpoint."""
    api, path = scenario.apis[name], f"apis.{name}"
    yield from _price(api, path)
    served = load.on(name)
    yield from _limits(api, path, [(cls, share) for cls, share in served if not cls.closed])
    for cls, share in served:
        yield from _slo(scenario, api, path, cls, share)


def _price(api: Api, path: str) -> Iterator[Finding]:
    from simlab.prices import api_price

    if api.price is None:
        try:
            api_price(api.provider, api.model, None)
        except InputError as error:
            yield Finding("warning", f"{path}.model", f"{error}; its tokens are unpriced: give price")


def _limits(api: Api, path: str, served: list[tuple[ClassLoad, float]]) -> Iterator[Finding]:
    peak = sum(cls.peak_rps * share for cls, share in served)
    tokens = sum(cls.peak_rps * share * (cls.prompt_tokens + cls.output_tokens) for cls, share in served)
    busy = sum(cls.peak_rps * share * _mean_s(api, cls) for cls, share in served)
    for field, limit, asked, unit in (
        ("rpm", api.rpm, peak * 60, "requests a minute"),
        ("tpm", api.tpm, tokens * 60, "tokens a minute"),
        ("concurrency", api.concurrency, busy, "requests at once"),
    ):
        if limit is not None and asked > limit:
            yield Finding(
                "warning",
                f"{path}.{field}",
                f"the peak asks for {asked:.3g} {unit}, the limit is {limit:g}: route less here or raise the limit",
            )


def _mean_s(api: Api, cls: ClassLoad) -> float:
    first = api.ttft.distribution().mean() + api.ttft_per_prompt_token * cls.prompt_tokens
    return first + (cls.output_tokens - 1) * api.itl.distribution().mean()


def _slo(scenario: Scenario, api: Api, path: str, cls: ClassLoad, share: float) -> Iterator[Finding]:
    slo = scenario.slo_of(cls.name)
    if slo is None or share <= 1 - slo.target:
        return
    # At most (1 - target) of the class may be late; if all of those come from here, this quantile must be in time.
    needed = 1 - (1 - slo.target) / share
    where = f"workload.{cls.name}.slo" if scenario.workload[cls.name].slo is not None else "slo"
    first = api.ttft.distribution().quantile(needed) + api.ttft_per_prompt_token * cls.prompt_tokens
    for metric, limit, least in (("ttft", slo.ttft, first), ("itl", slo.itl, api.itl.distribution().quantile(needed))):
        if limit is not None and limit < least:
            yield Finding(
                "warning",
                f"{where}.{metric}",
                f"{limit:.3g} s for {slo.target:.3g} of the requests cannot be met on {path}: its {needed:.3g} "
                f"quantile is {least:.3g} s without any queue; relax it or send less there",
            )
