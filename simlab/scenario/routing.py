"""Routes: which backend answers a task, by share, price, latency, a classifier, a learned router or in a cascade."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from simlab.scenario.base import Fault, Model
from simlab.scenario.dist import SecondsDist
from simlab.scenario.offline import Trough
from simlab.scenario.units import Count, Factor, Number, Ratio, Seconds, Usd

By = Literal["weights", "cheapest", "least_latency", "classifier", "learned", "cascade", "overflow", "trough"]


class Classifier(Model):
    """A model that guesses the tier of a task before it is routed, and is sometimes wrong."""

    to: dict[str, str] = Field(description="backend of each tier that can be guessed", min_length=1)
    accuracy: Ratio | None = Field(
        None, description="chance that the guess is right; wrong guesses spread evenly over the other tiers"
    )
    confusion: dict[str, dict[str, Annotated[Factor, Field(ge=0)]]] | None = Field(
        None, description="in place of accuracy: for each true tier the shares of the guesses"
    )
    latency: SecondsDist | None = Field(None, description="what it adds before the first attempt, s; none: nothing")
    usd_per_call: Usd = Field(0.0, ge=0, description="what a guess costs, USD")

    def guesses(self, tier: str) -> dict[str, float]:
        """Shares of the guessed tiers for a true one; a tier that nothing is said of is guessed evenly."""
        labels = list(self.to)
        if self.confusion is not None:
            row = self.confusion.get(tier, dict.fromkeys(labels, 1.0))
            total = sum(row.values())
            return {guess: weight / total for guess, weight in row.items() if weight > 0}
        accuracy = self.accuracy or 0.0
        if tier not in labels:
            return dict.fromkeys(labels, 1.0 / len(labels))
        if len(labels) == 1:
            return {tier: 1.0}
        wrong = (1.0 - accuracy) / (len(labels) - 1)
        return {guess: accuracy if guess == tier else wrong for guess in labels}

    def checks(self) -> Iterator[Fault]:
        """One statement of how good it is, about tiers it can guess."""
        if (self.accuracy is None) == (self.confusion is None):
            yield Fault((), "give either accuracy or confusion")
        for true, guesses in (self.confusion or {}).items():
            for guess in guesses:
                if guess not in self.to:
                    yield Fault(
                        ("confusion", true, guess), f"read {guess!r}, which `to` has no backend for; add it to `to`"
                    )
            if sum(guesses.values()) == 0:
                yield Fault(("confusion", true), "all shares are 0; give at least one above 0")


class Learned(Model):
    """A learned router between a weak and a strong model, known by its cost–quality curve.

    ``curve`` is the share of right answers when a share of the tasks goes to the strong model. The router ranks tasks
    by what the strong model would gain; it gets the highest ranks.
    """

    weak: str = Field(min_length=1, description="backend of the tasks that gain least")
    strong: str = Field(min_length=1, description="backend of the others")
    strong_share: Ratio = Field(description="share of the tasks that is sent to it")
    curve: dict[Ratio, Ratio] = Field(
        description="share of right answers by share sent to the strong model, from 0 to 1", min_length=2
    )
    latency: SecondsDist | None = Field(None, description="what it adds before the first attempt, s; none: nothing")
    usd_per_call: Usd = Field(0.0, ge=0, description="what a decision costs, USD")

    def checks(self) -> Iterator[Fault]:
        """The curve covers all shares, rises, and flattens as a ranking by gain must."""
        points = sorted(self.curve.items())
        if points[0][0] != 0 or points[-1][0] != 1:
            yield Fault(("curve",), "it must have a point at 0 (all weak) and one at 1 (all strong)")
            return
        slopes = [(y1 - y0) / (x1 - x0) for (x0, y0), (x1, y1) in itertools.pairwise(points)]
        top = points[-1][1]
        if any(slope < 0 or slope > top for slope in slopes):
            message = f"it must rise, and nowhere by more than the strong model is right ({top:g}) a task sent to it"
            yield Fault(("curve",), message)


class Roc(Model):
    """A confidence score with a stated ROC curve, cut where a share of wrong answers still passes."""

    kind: Literal["roc"] = Field(description="roc: points of the ROC curve")
    points: dict[Ratio, Ratio] = Field(
        description="share of right answers accepted, by share of wrong answers accepted", min_length=1
    )
    accept_wrong: Ratio = Field(description="threshold: the share of wrong answers that is accepted")

    def accepted(self) -> tuple[float, float]:
        """Chance that a right and that a wrong answer is accepted; straight between the points, (0, 0) and (1, 1)."""
        points = sorted({0.0: 0.0, 1.0: 1.0, **self.points}.items())
        for (x0, y0), (x1, y1) in itertools.pairwise(points):
            if self.accept_wrong <= x1:
                return y0 + (self.accept_wrong - x0) * (y1 - y0) / (x1 - x0), self.accept_wrong
        return 1.0, self.accept_wrong

    def checks(self) -> Iterator[Fault]:
        """A ROC curve rises."""
        shares = [share for _, share in sorted(self.points.items())]
        if shares != sorted(shares):
            yield Fault(("points",), "they must not fall: accepting more wrong answers accepts more right ones")


class Auc(Model):
    """A confidence score known by the area under its ROC curve (two normal laws of equal width)."""

    kind: Literal["auc"] = Field(description="auc: area under the ROC curve")
    auc: Annotated[Ratio, Field(ge=0.5, lt=1)] = Field(description="0.5 is a coin, 1 would be an oracle")
    accept_wrong: Ratio = Field(description="threshold: the share of wrong answers that is accepted")

    def accepted(self) -> tuple[float, float]:
        """Chance that a right and that a wrong answer is accepted (binormal ROC: Φ(√2·Φ⁻¹(auc) + Φ⁻¹(wrong)))."""
        from statistics import NormalDist

        law = NormalDist()
        if self.accept_wrong in (0.0, 1.0):
            return self.accept_wrong, self.accept_wrong
        return law.cdf(2.0**0.5 * law.inv_cdf(self.auc) + law.inv_cdf(self.accept_wrong)), self.accept_wrong


class Agreement(Model):
    """Several samples of the same model must agree: right answers are alike, wrong ones only sometimes."""

    kind: Literal["agreement"] = Field(description="agreement: ask several times and compare")
    samples: Count = Field(3, ge=2, le=20, description="answers asked for, all paid")
    quorum: Count = Field(2, ge=1, description="answers that must agree with the first, itself included")
    alike_right: Ratio = Field(0.9, description="chance that another sample agrees with a right answer")
    alike_wrong: Ratio = Field(0.3, description="chance that another sample agrees with a wrong answer")

    def accepted(self) -> tuple[float, float]:
        """Chance that a right and that a wrong answer finds its quorum among the other samples (binomial)."""
        from math import comb

        others, need = self.samples - 1, self.quorum - 1

        def reached(p: float) -> float:
            return sum(comb(others, k) * p**k * (1.0 - p) ** (others - k) for k in range(need, others + 1))

        return reached(self.alike_right), reached(self.alike_wrong)

    def checks(self) -> Iterator[Fault]:
        """A quorum there can be."""
        if self.quorum > self.samples:
            yield Fault(("quorum",), f"read {self.quorum}, but only {self.samples} answers are asked for; lower it")


class Verifier(Model):
    """Another model or a test judges the answer."""

    kind: Literal["verifier"] = Field(description="verifier: a judge of its own")
    accept_right: Ratio = Field(description="chance that it accepts a right answer")
    accept_wrong: Ratio = Field(description="chance that it accepts a wrong answer")
    latency: SecondsDist | None = Field(None, description="how long it takes, s; none: no time")
    usd_per_call: Usd = Field(0.0, ge=0, description="what it costs, USD")

    def accepted(self) -> tuple[float, float]:
        """Chance that a right and that a wrong answer is accepted."""
        return self.accept_right, self.accept_wrong


Confidence = Annotated[Roc | Auc | Agreement | Verifier, Field(discriminator="kind")]


class Level(Model):
    """One model of a cascade."""

    to: str = Field(min_length=1, description="backend")
    confidence: Confidence | None = Field(
        None, description="what says that its answer is good enough; the last level has none: it is taken as it is"
    )


class Overflow(Model):
    """When a full pool sends what comes next elsewhere, and when it takes it again."""

    queue_per_replica: Annotated[Number, Field(ge=0)] | None = Field(
        None, description="spill when this many requests wait for each serving replica of the first backend"
    )
    ttft: Annotated[Seconds, Field(gt=0)] | None = Field(
        None, description="spill when its recent time to first token (moving mean) is above this, s"
    )
    resume: Ratio = Field(0.5, description="come back when it has fallen to this share of the threshold")

    def checks(self) -> Iterator[Fault]:
        """Something to go by."""
        if self.queue_per_replica is None and self.ttft is None:
            yield Fault((), "nothing says when to spill; give queue_per_replica or ttft")


class Route(Model):
    """Where requests of some classes, tiers or tenants go."""

    name: str | None = Field(
        None, min_length=1, description="what the ledger calls it; none: route 1, route 2 … by its place in the list"
    )
    classes: list[str] = Field([], description="workload classes it is for; empty: any")
    tiers: list[str] = Field([], description="tiers of tasks it is for; empty: any")
    tenants: list[Annotated[Count, Field(ge=0)]] = Field(
        [], description="numbers of the tenants it is for (0 is the largest of a skewed class); empty: any"
    )
    by: By = Field(
        "weights",
        description="weights: by share; cheapest: least expected cost of those that fit; least_latency: least recent "
        "time to first token; classifier, learned, cascade, overflow, trough: as that field says",
    )
    to: dict[str, Annotated[Factor, Field(ge=0)]] = Field(
        {},
        description="backends (pools, apis, their batch endpoints, aliases) and their weights; shares are weight / sum "
        "of weights. In order: overflow fills the first before the next, trough waits for the first",
    )
    classifier: Classifier | None = Field(None, description="for by: classifier")
    learned: Learned | None = Field(None, description="for by: learned")
    cascade: list[Level] | None = Field(None, description="for by: cascade: the models in order, cheapest first")
    overflow: Overflow | None = Field(None, description="for by: overflow")
    trough: Trough | None = Field(None, description="for by: trough: tasks with a deadline wait for room in a pool")
    explore: Ratio = Field(0.02, description="for by: least_latency: share of requests spread evenly, to stay informed")

    @property
    def targets(self) -> list[tuple[tuple[str | int, ...], str]]:
        """Every backend it names, in order, each with where it is written."""
        named: list[tuple[tuple[str | int, ...], str]] = [(("to", name), name) for name in self.to]
        if self.by == "classifier" and self.classifier is not None:
            named += [(("classifier", "to", tier), name) for tier, name in self.classifier.to.items()]
        if self.by == "learned" and self.learned is not None:
            named += [(("learned", "weak"), self.learned.weak), (("learned", "strong"), self.learned.strong)]
        if self.by == "cascade" and self.cascade is not None:
            named += [(("cascade", i, "to"), level.to) for i, level in enumerate(self.cascade)]
        return named

    def matches(self, cls: str, tier: str, tenant: int) -> bool:
        """Whether it takes a task of this class, tier and tenant."""
        return (
            (not self.classes or cls in self.classes)
            and (not self.tiers or tier in self.tiers)
            and (not self.tenants or tenant in self.tenants)
        )

    def first_shares(self, tier: str) -> dict[str, float]:
        """About what share of first attempts each backend gets of tasks of a tier; what depends on the run is even."""
        if self.classifier is not None:
            found: dict[str, float] = {}
            for guess, share in self.classifier.guesses(tier).items():
                backend = self.classifier.to[guess]
                found[backend] = found.get(backend, 0.0) + share
            return found
        if self.learned is not None:
            share = self.learned.strong_share
            return {self.learned.weak: 1.0 - share, self.learned.strong: share}
        if self.cascade is not None:
            return {self.cascade[0].to: 1.0}
        if self.overflow is not None or self.trough is not None:
            return {next(iter(self.to)): 1.0}
        used = {name: weight for name, weight in self.to.items() if weight > 0}
        if self.by != "weights":
            return dict.fromkeys(used, 1.0 / len(used))
        total = sum(used.values())
        return {name: weight / total for name, weight in used.items()}

    def checks(self) -> Iterator[Fault]:
        """Somewhere to go, by what it says and nothing else."""
        own = {"classifier": self.classifier, "learned": self.learned, "cascade": self.cascade}
        for name, value in (*own.items(), ("overflow", self.overflow), ("trough", self.trough)):
            if value is not None and self.by != name:
                yield Fault((name,), f"it is for `by: {name}`, but this route goes by {self.by}; say by: {name}")
            if value is None and self.by == name:
                yield Fault((name,), f"missing: a route by {name} needs it")
        if self.by in own:
            if self.to:
                yield Fault(("to",), f"a route by {self.by} names its backends under {self.by}; leave `to` out")
        elif not self.to:
            yield Fault(("to",), "missing: give the backends and their weights, e.g. to: {gpt: 1}")
        elif sum(self.to.values()) == 0:
            yield Fault(("to",), "all weights are 0; give at least one backend a weight above 0")
        elif self.by == "overflow" and len(self.to) < 2:
            yield Fault(("to",), "only one backend, so nothing to spill to; name a second")
        elif self.by == "trough" and len(self.to) > 2:
            yield Fault(("to",), "name a pool to fill and, if you like, one backend for what is urgent; no more")
        if self.cascade is not None:
            yield from self._check_cascade(self.cascade)

    def _check_cascade(self, levels: list[Level]) -> Iterator[Fault]:
        if len(levels) < 2:
            yield Fault(("cascade",), f"read {len(levels)} model; a cascade needs two or more to escalate to")
            return
        names = [level.to for level in levels]
        for i, level in enumerate(levels):
            if level.to in names[:i]:
                yield Fault(("cascade", i, "to"), f"{level.to!r} comes twice; a level must be another backend")
            if level.confidence is None and i + 1 < len(levels):
                message = "missing: nothing says when this level's answer is good enough, so it would never escalate"
                yield Fault(("cascade", i, "confidence"), message)
        if levels[-1].confidence is not None:
            yield Fault(("cascade", len(levels) - 1, "confidence"), "the last level escalates nowhere; drop it")
