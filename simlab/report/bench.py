"""A session of benchmarks: the commands before it, and the page after it."""

from __future__ import annotations

import shlex

from simlab.calibrate.bench.client import Client
from simlab.calibrate.bench.folder import Folder
from simlab.calibrate.bench.outlook import Step
from simlab.calibrate.bench.session import Answer
from simlab.report.page import Page, Table
from simlab.results import words


def commands_text(foreseen: Answer) -> str:
    """Every command of a session as a shell takes it, with what it is for and how long it takes as comments."""
    session, facts, left = foreseen.session, foreseen.facts, foreseen.outlook.left()
    vllm = tuple(shlex.split(session.vllm))
    url = session.url or session.launch(vllm).endpoint.url
    client = Client(vllm, url, facts.served, session.model, session.flags)
    folder = Folder(session.out, session.asked(), {})
    minutes = sum(step.seconds for step in left) / 60
    lines = [
        f"# plan {session.plan.name}: {len(left)} benchmarks, about {minutes:.0f} minutes and the start of the server; "
        f"expected of {foreseen.outlook.pace().source}",
    ]
    lines += [f"# left out: {name}: {outcome.reason}" for name, outcome in foreseen.outcomes.items()]
    if session.url is None:
        lines += ["", "# the server, ended after the last benchmark", shlex.join(session.launch(vllm).command)]
    for i, step in enumerate(left, 1):
        result = folder.unfinished / f"{step.point.name}.json"
        lines += ["", f"# {i}. {step.point.tells}; {step.seconds / 60:.1f} min", *_later(step)]
        lines.append(shlex.join(client.command(step.load, step.point.seed, result)))
    return "\n".join([*lines, ""])


def _later(step: Step) -> list[str]:
    """What of a command is settled only when it is run."""
    if step.point.share is not None:
        return [
            f"# --request-rate will be {step.point.share:g} of the capacity measured before, and --num-prompts with it"
        ]
    if step.point.load.requests is None:
        return [f"# --num-prompts will be what takes {step.point.seconds:g} s at the pace measured before"]
    return []


def page(answer: Answer) -> Page:
    """What was measured, point by point."""
    facts, session = answer.facts, answer.session
    points = {point.name: point for point in session.plan.points}
    done = {name: answer.outcomes[name] for name in points if name in answer.outcomes}
    measured = {name: one for name, one in done.items() if one.measured}
    minutes = sum(outcome.wall_s for outcome in measured.values()) / 60
    remarks = [
        ("warning", f"{name}: {one.failed} of {one.requests} requests failed: their times are in no result")
        for name, one in measured.items()
        if one.failed
    ]
    remarks += [("warning", f"{name} left out: {one.reason}") for name, one in done.items() if one.reason]
    if facts.gpu is None:
        remarks.append(("warning", "nothing names the GPU: write it in the place of `unknown` below, or give --gpu"))
    remarks += [
        ("warning", f"{name} {getattr(facts.limits, name)} is {source}, not stated: check it, or give the flag")
        for name, source in facts.limits.told_by.items()
        if source == "vLLM's default"
    ]
    rows = tuple(
        (
            name,
            points[name].tells,
            f"{one.requests:,}",
            words.number(one.rate_rps, "1/s") if one.rate_rps is not None else "",
            words.number(one.ttft_s_mean, "s"),
            words.number(one.tpot_s_mean, "s"),
            words.number(one.output_tokens_per_s, "1/s"),
            f"{one.seconds:.0f} s",
        )
        for name, one in measured.items()
    )
    heads = ("point", "tells", "requests", "rate", "TTFT mean", "TPOT mean", "tokens/s", "took")
    last = facts.starts[-1] if facts.starts else None
    machine = ", ".join(facts.gpus) or facts.processor or "an unknown machine"
    started = f"; its last start took {last.ready_s:.0f} s" if last else ""
    return Page(
        session.plan.name,
        f"{len(measured)} benchmarks of {facts.server.setup} in {minutes:.1f} minutes, kept in {session.out}",
        tuple(remarks),
        (Table("Measured", heads, rows, (1,)),) if rows else (),
        (
            "rates are shares of the capacity: the throughput of the fastest point measured at the same lengths",
            "requests generate all their tokens (--ignore-eos); prompts are random tokens",
        ),
        f"vLLM {facts.vllm or 'of unknown version'} on {machine}{started}.",
    )
