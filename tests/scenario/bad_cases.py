"""Broken scenarios, each a small change to a good one; `test_bad.py` compares their errors with tests/golden/errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

GOOD = """\
name: good
horizon: 1h
warmup: 5min
workload:
  chat:
    tenants: {count: 20, skew: 1.0}
    arrivals:
      kind: poisson
      rate: 12/s
    lengths:
      prompt: {kind: lognormal, mean: 700, p95: 2100, max: 8k}
      output: 250
    prefix: {system: 400}
  replay:
    arrivals: {kind: trace, file: trace.csv}
pools:
  local:
    model: llama-3.1-70b
    gpu: h100-sxm
    tp: 4
    replicas: 2
apis:
  gpt-4.1:
    provider: openai
    model: gpt-4.1
    ttft: 400ms
    itl: {kind: exponential, mean: 10ms}
gateway:
  routes:
    - classes: [chat]
      to: {local: 90, gpt-4.1: 10}
    - to: {local: 1}
  retry: {max_attempts: 3}
slo: {ttft: 1.5s, itl: 50ms, target: 95%}
operations:
  - {at: 10min, pool: local, action: drain}
variants:
  api:
    - gateway.routes.0.to: {gpt-4.1: 1}
"""


@dataclass(frozen=True)
class Case:
    """A broken scenario: text or bytes of ``bad.yaml``, files beside it, and what is given on the command line."""

    name: str
    text: str | bytes
    files: Mapping[str, str] = field(default_factory=dict)
    variant: str | None = None
    sets: tuple[str, ...] = ()


def changed(name: str, *edits: tuple[str, str]) -> Case:
    text = GOOD
    for old, new in edits:
        assert text.count(old) == 1, (name, old, text.count(old))
        text = text.replace(old, new)
    return Case(name, text)


def with_set(name: str, *sets: str) -> Case:
    return Case(name, GOOD, sets=sets)


def with_caches(name: str, caches: str, *edits: tuple[str, str]) -> Case:
    return changed(name, ("  retry: {max", f"  caches: {caches}\n  retry: {{max"), *edits)


def with_agent(name: str, agent: str, *edits: tuple[str, str]) -> Case:
    return changed(name, ("    prefix: {system: 400}", f"    agent: {agent}"), *edits)


def with_gateway(name: str, text: str) -> Case:
    """The good scenario with something more under ``gateway``."""
    return changed(name, ("  retry: {max_attempts: 3}", f"  {text}"))


def with_trough(name: str, trough: str, to: str, deadline: str = "") -> Case:
    edits = [("to: {local: 90, gpt-4.1: 10}", f"by: trough\n      trough: {trough}\n      {to}")]
    if deadline:
        edits.append(("    prefix: {system: 400}", f"    prefix: {{system: 400}}\n    task: {{deadline: {deadline}}}"))
    return changed(name, *edits)


_BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{here}: &{here} [{', '.join([f'*{before}'] * 10)}]\n" for before, here in zip("abcdef", "bcdefg", strict=True)
)

CASES = [
    # --- text that is no scenario at all
    Case("empty", ""),
    Case("only-comments", "# nothing here yet\n"),
    Case("a-list", "- name: x\n"),
    Case("a-word", "quickstart\n"),
    Case("not-utf8", GOOD.encode().replace(b"name: good", b"name: caf\xe9")),
    Case("utf16", GOOD.encode("utf-16")),
    Case("nul-byte", "name: x\x00y\n"),
    Case("truncated-flow", GOOD[: GOOD.index("max: 8k") + 4]),
    Case("truncated-quote", 'name: "good\nhorizon: 1h\n'),
    Case("tab-indent", "workload:\n\tchat: 1\n"),
    Case("bad-indent", "workload:\n  chat:\n     a: 1\n    b: 2\n"),
    Case("two-documents", "name: a\n---\nname: b\n"),
    Case("undefined-alias", "workload: *nobody\n"),
    Case("bomb", _BOMB),
    Case("recursive", "workload: &w {chat: *w}\n"),
    Case("deep", "workload: " + "[" * 70 + "]" * 70 + "\n"),
    Case("huge", "# " + "x" * 2_000_001 + "\n"),
    Case("python-tag", "name: !!python/object/apply:os.system [ls]\n"),
    Case("own-tag", "workload: !include chat.yaml\n"),
    Case("list-key", "? [a, b]\n: 1\n"),
    Case("merge-needs-mapping", "workload:\n  <<: 3\n"),
    changed("duplicate-key", ("    gpu: h100-sxm\n", "    gpu: h100-sxm\n    gpu: h200-sxm\n")),
    changed("duplicate-class", ("  replay:\n", "  chat:\n")),
    changed(
        "duplicates-and-more",
        ("  replay:\n", "  chat:\n"),
        ("    gpu: h", "    gpu: x\n    gpu: h"),
        ("tp: 4", "tp: 0"),
    ),
    # --- keys
    changed("typo-beside-the-right-key", ("horizon: 1h", "horizon: 1h\nhorizn: 1h")),
    changed("typo-top", ("horizon: 1h", "horizn: 1h")),
    changed("typo-section", ("pools:\n", "pool:\n")),
    changed("typo-field", ("      rate: 12/s", "      rat: 12/s")),
    changed("key-of-another-kind", ("      rate: 12/s", "      rate: 12/s\n      cv: 2")),
    changed("unknown-key", ("    tp: 4", "    tp: 4\n    colour: blue")),
    changed("missing-rate", ("      rate: 12/s\n", "")),
    changed("missing-model", ("    model: llama-3.1-70b\n", "")),
    changed("missing-kind", ("      kind: poisson\n", "")),
    changed("missing-lengths", ("    lengths:\n", "    lengths_of_old:\n")),
    changed("missing-output", ("      output: 250\n", "")),
    changed("bad-name", ("  local:\n", "  'lo|cal':\n")),
    changed("bad-schema", ("name: good", "schema: 2\nname: good")),
    # --- quantities
    changed("rate-negative", ("rate: 12/s", "rate: -12/s")),
    changed("rate-zero", ("rate: 12/s", "rate: 0")),
    changed("rate-nan", ("rate: 12/s", "rate: .nan")),
    changed("rate-inf", ("rate: 12/s", "rate: .inf")),
    changed("rate-inf-text", ("rate: 12/s", "rate: inf")),
    changed("rate-overflow", ("rate: 12/s", "rate: 1e999/s")),
    changed("rate-unit", ("rate: 12/s", "rate: 12ms")),
    changed("rate-bool", ("rate: 12/s", "rate: true")),
    changed("rate-null", ("rate: 12/s", "rate:")),
    changed("rate-list", ("rate: 12/s", "rate: [12]")),
    changed("horizon-unit", ("horizon: 1h", "horizon: 1 fortnight")),
    changed("horizon-zero", ("horizon: 1h", "horizon: 0s")),
    changed("ratio-above-1", ("target: 95%", "target: 95")),
    changed("ratio-negative", ("target: 95%", "target: -5%")),
    changed("tokens-half", ("system: 400", "system: 400.5")),
    changed("tokens-words", ("output: 250", "output: some")),
    changed("tp-zero", ("tp: 4", "tp: 0")),
    changed("tp-text", ("tp: 4", "tp: four")),
    changed("replicas-negative", ("replicas: 2", "replicas: -1")),
    changed("replicas-fraction", ("replicas: 2", "replicas: 2.5")),
    changed("price-unit", ("    tp: 4", "    tp: 4\n    price: {usd_per_gpu_hour: 3 EUR}")),
    changed("price-negative", ("    tp: 4", "    tp: 4\n    price: {usd_per_gpu_hour: -$3}")),
    changed("kv-memory-unit", ("    tp: 4", "    tp: 4\n    kv_cache_memory: 40 gigs")),
    changed("utilization-percent", ("    tp: 4", "    tp: 4\n    gpu_memory_utilization: 90")),
    changed("block-size-zero", ("    tp: 4", "    tp: 4\n    block_size: 0")),
    changed("seed-negative", ("name: good", "seed: -1\nname: good")),
    changed("seed-text", ("name: good", "seed: lucky\nname: good")),
    changed("start-number", ("name: good", "start: 2026\nname: good")),
    changed("start-no-date", ("name: good", "start: next monday\nname: good")),
    changed("start-zone", ("name: good", "start: 2026-01-05T00:00:00+01:00\nname: good")),
    # --- choices
    changed("kind-typo", ("kind: poisson", "kind: poison")),
    changed("dist-kind", ("kind: exponential", "kind: normal")),
    changed("dispatch-typo", ("    tp: 4", "    tp: 4\n    dispatch: least_outstandin")),
    changed("precision-unknown", ("    tp: 4", "    tp: 4\n    precision: fp6")),
    changed("retry-on-unknown", ("max_attempts: 3", "max_attempts: 3, on: [rate_limit, 400]")),
    changed("action-unknown", ("action: drain", "action: explode")),
    changed("repeat-often", ("file: trace.csv", "file: trace.csv, repeat: often")),
    changed("bool-word", ("    tp: 4", "    tp: 4\n    prefix_caching: perhaps")),
    # --- what does not go together
    changed("lognormal-impossible", ("p95: 2100", "p95: 21000")),
    changed("lognormal-p95-below-mean", ("p95: 2100", "p95: 600")),
    changed("lognormal-max-below-mean", ("max: 8k", "max: 8")),
    changed("quantiles-fall", ("output: 250", "output: {kind: empirical, quantiles: {0: 10, p50: 300, p95: 200}}")),
    changed("quantiles-one", ("output: 250", "output: {kind: empirical, quantiles: {p50: 300}}")),
    changed("quantiles-above-1", ("output: 250", "output: {kind: empirical, quantiles: {0.5: 1, 95: 2}}")),
    changed("profile-23-hours", ("rate: 12/s", f"rate: 12/s\n      profile: {{hour_of_day: {[1] * 23}}}")),
    changed("profile-silent", ("rate: 12/s", f"rate: 12/s\n      profile: {{day_of_week: {[0] * 7}}}")),
    changed("profile-both", ("rate: 12/s", f"rate: 12/s\n      profile: {{day_of_week: {[1] * 7}, series: [[0, 1]]}}")),
    changed("profile-empty", ("rate: 12/s", "rate: 12/s\n      profile: {}")),
    changed("series-late", ("rate: 12/s", "rate: 12/s\n      profile: {series: [[5min, 1], [4min, 2]]}")),
    changed("series-triple", ("rate: 12/s", "rate: 12/s\n      profile: {series: [[0, 1, 2]]}")),
    changed(
        "series-period-short", ("rate: 12/s", "rate: 12/s\n      profile: {series: [[0, 1], [1h, 2]], period: 9s}")
    ),
    changed("joint-and-prompt", ("output: 250", "joint: azure-2023-conv")),
    changed("trace-with-lengths", ("file: trace.csv}", "file: trace.csv}\n    lengths: {prompt: 1, output: 1}")),
    changed("trace-with-sessions", ("file: trace.csv}", "file: trace.csv}\n    sessions: {turns: 3, think_time: 5s}")),
    changed("trace-cut-backward", ("file: trace.csv", "file: trace.csv, from: 10min, to: 5min")),
    changed("trace-format-map", ("file: trace.csv", "file: trace.csv, format: {arrivals: t}")),
    changed(
        "closed-with-sessions",
        ("kind: poisson\n      rate: 12/s", "kind: closed\n      users: 3\n      think_time: 1s"),
        ("    prefix: {system: 400}", "    sessions: {turns: 3, think_time: 5s}"),
    ),
    changed("growth-below-minus-1", ("rate: 12/s", "rate: 12/s\n      growth_per_month: -150%")),
    changed("batched-below-seqs", ("    tp: 4", "    tp: 4\n    max_num_batched_tokens: 128")),
    changed("kv-twice", ("    tp: 4", "    tp: 4\n    kv_blocks: 1000\n    kv_cache_memory: 40GiB")),
    changed("reject-without-limit", ("    ttft: 400ms", "    ttft: 400ms\n    when_full: reject")),
    changed("backoff-above-max", ("max_attempts: 3", "max_attempts: 3, backoff: 10s")),
    changed("slo-empty", ("slo: {ttft: 1.5s, itl: 50ms, target: 95%}", "slo: {target: 95%}")),
    changed("slo-e2e-below-ttft", ("itl: 50ms", "e2e: 1s")),
    changed("budget-empty", ("name: good", "budget: {}\nname: good")),
    changed("warmup-too-long", ("warmup: 5min", "warmup: 1h")),
    changed("window-too-long", ("warmup: 5min", "window: 2h")),
    # --- references
    changed("route-to-unknown", ("to: {local: 90,", "to: {locl: 90,")),
    changed("route-class-unknown", ("classes: [chat]", "classes: [chta]")),
    changed(
        "cascade-samples-of-a-pool",
        (
            "    - to: {local: 1}",
            "    - by: cascade\n      cascade: [{to: local, confidence: {kind: agreement}}, {to: gpt-4.1}]",
        ),
    ),
    changed(
        "limit-and-fallback-in-a-circle",
        (
            "gateway:\n",
            "gateway:\n  limits: [{per: provider, rpm: 60, when_over: degrade, degrade_to: local}]\n"
            "  fallback: {local: gpt-4.1}\n",
        ),
    ),
    changed("route-weights-zero", ("to: {local: 1}", "to: {local: 0}")),
    changed("route-weight-negative", ("to: {local: 1}", "to: {local: -1}")),
    changed("route-nowhere", ("to: {local: 1}", "to: {}")),
    changed("route-none-matches", ("    - to: {local: 1}\n", "")),
    changed(
        "no-routes",
        ("  routes:\n    - classes: [chat]\n      to: {local: 90, gpt-4.1: 10}\n    - to: {local: 1}\n", ""),
    ),
    changed("operation-pool-unknown", ("pool: local", "pool: lokal")),
    changed("operation-after-end", ("at: 10min", "at: 10h")),
    changed("operation-api-unknown", ("pool: local, action: drain", "api: gpt-4, action: errors")),
    changed("operation-on-nothing", ("pool: local, action: drain", "action: drain")),
    changed("operation-on-the-wrong-kind", ("pool: local, action: drain", "api: gpt-4.1, action: drain")),
    changed("operation-slower-by-what", ("pool: local, action: drain", "api: gpt-4.1, action: slow_down, for: 30s")),
    changed(
        "operation-of-other-fields",
        ("pool: local, action: drain", "api: gpt-4.1, action: slow_down, factor: 4, replicas: 2, share: 50%"),
    ),
    changed(
        "operation-of-nothing",
        ("pool: local, action: drain", "api: gpt-4.1, action: errors, share: 0%, for: 0s"),
    ),
    changed("same-name", ("  gpt-4.1:\n", "  local:\n")),
    Case("no-backend", "workload: {a: {arrivals: {kind: poisson, rate: 1}, lengths: {prompt: 1, output: 1}}}\n"),
    Case("no-class", "workload: {}\npools: {a: {model: llama-3.1-8b, gpu: l4}}\n"),
    Case("workload-list", "workload: [chat]\npools: {a: {model: llama-3.1-8b, gpu: l4}}\n"),
    # --- caches
    with_caches("cache-zeros", "{exact: {ttl: 0, capacity: 0, ttl_by: {chat: 0s}}}"),
    with_caches("cache-scope", "{exact: {scope: [tenent]}}"),
    with_caches("cache-class-unknown", "{exact: {classes: [chta]}, semantic: {hit_ratio: 30%, ttl_by: {faq: 1h}}}"),
    with_caches("cache-never-hits", "{exact: {classes: [chat]}, semantic: {classes: [chat], match: {hit: 1}}}"),
    with_caches("cache-of-no-results", "{results: {}}"),
    with_caches("semantic-nothing-said", "{semantic: {ttl: 1h}}"),
    with_caches("semantic-said-twice", "{semantic: {hit_ratio: 30%, match: {hit: 60%}}}"),
    with_caches("semantic-false-above-all", "{semantic: {hit_ratio: 3%, false_hit_ratio: 4%}}"),
    with_caches("semantic-threshold-alone", "{semantic: {match: {hit: 60%}, threshold: 0.9, false_hit_ratio: 1%}}"),
    with_caches(
        "semantic-curve",
        "{semantic: {threshold: 0.95, curve: {0.8: {hit: 60%}, 0.9: {hit: 70%, false_hit: 1%}}}}",
    ),
    changed("prompt-cache-zeros", ("ttft: 400ms", "prompt_cache: {min_tokens: 0, block: 0, ttl: 0}\n    ttft: 400ms")),
    changed("prompt-cache-above-prompts", ("ttft: 400ms", "prompt_cache: {min_tokens: 1024}\n    ttft: 400ms")),
    changed(
        "prompt-cache-of-nothing",
        ("ttft: 400ms", "prompt_cache: {}\n    ttft: 400ms"),
        ("    prefix: {system: 400}\n", ""),
    ),
    changed(
        "prompt-cache-twice", ("ttft: 400ms", "prompt_cache: {}\n    cached_input_ratio: 0.5\n    ttft: 400ms")
    ),
    changed("change-of-nothing", ("prefix: {system: 400}", "task: {changes: [{at: 1min}]}")),
    changed(
        "changes-out-of-order",
        ("prefix: {system: 400}", "task: {changes: [{at: 9min, prompt_version: b}, {at: 1min, model_version: c}]}"),
    ),
    changed("change-after-end", ("prefix: {system: 400}", "task: {changes: [{at: 9h, prompt_version: b}]}")),
    changed("no-users", ("tenants: {count: 20,", "tenants: {count: 20, users: 0,")),
    # --- agents and latency
    with_agent("agent-said-twice", "{steps: 4, finish: 20%, tools: {latency: 1s}}"),
    with_agent("agent-without-length", "{tools: {latency: 1s}}"),
    with_agent("agent-without-tools", "{steps: 4}"),
    with_agent("agent-never-finishes", "{finish: 0, tools: {latency: 1s, failure_probability: 1, retries: 9}}"),
    with_agent(
        "runaway-unstopped", "{steps: 4, tools: {latency: 1s}, runaway: {share: 2%, from: 30min, until: 10min}}"
    ),
    with_agent("runaway-nothing-stops", "{steps: 4, tools: {latency: 1s}, runaway: {share: 2%}}"),
    with_agent(
        "runaway-after-end",
        "{steps: 4, tools: {latency: 1s}, runaway: {share: 2%, from: 9h}}",
        ("  retry: {max", "  caps: {tool_steps: 20}\n  retry: {max"),
    ),
    with_agent(
        "agent-with-what-it-brings",
        "{steps: 4, tools: {latency: 1s}}\n    context: {tool_results: 500}\n    client: {patience: 5s}",
    ),
    changed("agent-of-a-trace", ("file: trace.csv}", "file: trace.csv}\n    agent: {steps: 4, tools: {latency: 1s}}")),
    changed("tool-steps-without-agent", ("    prefix: {system: 400}", "    caps: {tool_steps: 5}")),
    changed("tool-steps-of-nobody", ("  retry: {max", "  caps: {tool_steps: 5}\n  retry: {max")),
    changed(
        "latency-broken",
        ("prefix: {system: 400}", "latency: {network: -5ms, rerank: {kind: lognormal, mean: 2s, p95: 1s}, w: 1s}"),
    ),
    # --- the gateway's other policies
    with_gateway("fallback-circle", "fallback: {gpt-4.1: local, local: gpt-4.1}"),
    with_gateway("fallback-to-nothing", "fallback: {gpt-4.1: apology, locl: gpt-4.1}"),
    with_gateway("hedge-after-timeout", "timeout: 2s\n  hedge: {after: 3s}"),
    with_gateway("ttft-timeout-above-timeout", "timeout: 2s\n  ttft_timeout: 5s"),
    with_gateway("breaker-never-opens", "breaker: {cool_down: 10s}"),
    with_gateway("shed-by-nothing", "shed: {keep: -1}"),
    with_gateway("shed-nobody", "shed: {queue: 10}"),
    with_gateway("limit-of-nothing", "limits: [{per: tenant}]"),
    with_gateway("limit-names", "limits: [{classes: [chta], rpm: 5}, {per: key, apis: [gpt], rpm: 5}]"),
    with_gateway("limit-of-calls-by-class", "limits: [{per: provider, classes: [chat], rpm: 5}]"),
    with_gateway("limit-of-tasks-by-api", "limits: [{per: tenant, apis: [gpt-4.1], rpm: 5, keys: 2}]"),
    with_gateway("limit-burst-alone", "limits: [{burst: 5, burst_tokens: 10, concurrency: 3}]"),
    with_gateway("limit-degrade-nowhere", "limits: [{rpm: 5, when_over: degrade}, {rpm: 5, degrade_to: local}]"),
    with_gateway("limit-degrade-itself", "limits: [{per: key, rpm: 5, when_over: degrade, degrade_to: gpt-4.1}]"),
    with_gateway("limit-tenant-unknown", "limits: [{tenants: [25], rpm: 5}]"),
    with_gateway("queue-for-nothing", "queue: {length: 10}"),
    with_gateway("caps-longer-than-nothing", "caps: {when_longer: truncate}"),
    with_gateway("caps-zero", "caps: {input_tokens: 0, usd: 0, retries: -1}"),
    changed("jitter-above-delay", ("max_attempts: 3", "max_attempts: 3, jitter: 150%")),
    changed("retry-budget-zero", ("max_attempts: 3", "max_attempts: 3, budget: {ratio: 0}")),
    changed("cascade-of-one", ("to: {local: 90, gpt-4.1: 10}", "by: cascade\n      cascade: [{to: local}]")),
    changed(
        "cascade-without-confidence",
        ("to: {local: 90, gpt-4.1: 10}", "by: cascade\n      cascade: [{to: local}, {to: gpt-4.1}]"),
    ),
    changed("conversation-of-single-requests", ("prefix: {system: 400}", "caps: {conversation_usd: 1}")),
    changed("history-of-single-requests", ("prefix: {system: 400}", "context: {caps: {history: 4k}}")),
    changed("system-prompt-above-cap", ("system: 400}", "system: 400}\n    context: {caps: {system: 300}}")),
    changed("summary-without-cap", ("system: 400}", "system: 400}\n    context: {history: summarise}")),
    # --- capabilities
    changed("needs-tools", ("prefix: {system: 400}", "needs: {can: [tools]}")),
    changed(
        "needs-region",
        ("prefix: {system: 400}", "needs: {regions: [eu]}"),
        ("    tp: 4", "    tp: 4\n    offers: {regions: [eu]}"),
        ("ttft: 400ms", "ttft: 400ms\n    offers: {regions: [eu, us]}"),
    ),
    changed(
        "needs-context",
        ("prefix: {system: 400}", "needs: {context: 64k}"),
        ("    tp: 4", "    tp: 4\n    max_model_len: 32k"),
        ("ttft: 400ms", "ttft: 400ms\n    offers: {context: 16k}"),
    ),
    changed(
        "needs-what-no-choice-has",
        ("prefix: {system: 400}", "needs: {can: [vision]}"),
        ("to: {local: 90, gpt-4.1: 10}", "by: cheapest\n      to: {local: 1, gpt-4.1: 1}"),
    ),
    changed(
        "needs-beyond-fallback",
        ("prefix: {system: 400}", "needs: {can: [tools]}"),
        ("    tp: 4", "    tp: 4\n    offers: {can: [tools]}"),
        ("to: {local: 90, gpt-4.1: 10}", "to: {local: 1}"),
        ("retry: {max_attempts: 3}", "fallback: {local: gpt-4.1}"),
    ),
    # --- work that may wait
    changed(
        "batch-zeros",
        ("ttft: 400ms", "batch: {discount: 150%, window: 0, collect: -1s, max_queued_tokens: 0}\n    ttft: 400ms"),
    ),
    changed("batch-nothing-collected", ("ttft: 400ms", "batch: {requests_per_batch: 10k}\n    ttft: 400ms")),
    changed(
        "batch-without-deadline",
        ("ttft: 400ms", "batch: {}\n    ttft: 400ms"),
        ("to: {local: 90, gpt-4.1: 10}", "to: {local: 90, 'gpt-4.1:batch': 10}"),
    ),
    changed("batch-not-there", ("to: {local: 90, gpt-4.1: 10}", "to: {local: 90, 'gpt-4.1:batch': 10}")),
    changed(
        "batch-name-taken",
        ("ttft: 400ms", "batch: {}\n    ttft: 400ms"),
        ("  local:\n", "  'gpt-4.1:batch':\n"),
    ),
    changed(
        "batch-hedge",
        ("ttft: 400ms", "batch: {}\n    ttft: 400ms"),
        ("  retry: {max", "  hedge: {after: 2s, to: 'gpt-4.1:batch'}\n  retry: {max"),
    ),
    changed(
        "batch-as-stand-in",
        ("ttft: 400ms", "batch: {}\n    ttft: 400ms"),
        (
            "  retry: {max",
            "  fallback: {local: 'gpt-4.1:batch'}\n"
            "  limits: [{rpm: 9, when_over: degrade, degrade_to: 'gpt-4.1:batch'}]\n  retry: {max",
        ),
    ),
    with_trough("trough-of-an-api", "{}", "to: {gpt-4.1: 1}", deadline="1h"),
    with_trough("trough-without-deadline", "{}", "to: {local: 1, gpt-4.1: 1}"),
    with_trough("trough-never-waits", "{lead: 1h, fill_to: 0.1%}", "to: {local: 1}", deadline="1h"),
    with_trough("trough-nonsense", "{fill_to: 0, kv: 120%, waiting: 0, lead: -1s, every: 0}", "to: {local: 1}"),
    with_trough("trough-too-many", "{}", "to: {local: 1, gpt-4.1: 1, gpt: 1}", deadline="1h"),
    changed("trough-nothing-said", ("to: {local: 90, gpt-4.1: 10}", "by: trough\n      to: {local: 1}")),
    # --- many at once
    changed(
        "many",
        ("horizon: 1h", "horizn: 1h"),
        ("rate: 12/s", "rate: fast"),
        ("tp: 4", "tp: 0"),
        ("to: {local: 1}", "to: {lcal: 1}"),
        ("target: 95%", "target: 950%"),
        ("action: drain", "action: dig"),
    ),
    # --- alerts
    Case("alerts-nothing-above", GOOD + "alerts: {tenant_spend: 1, call_cost: 0.5}\n"),
    Case("alerts-shorter-than-window", GOOD + "alerts: {window: 1h, period: 30min, baseline: 10min}\n"),
    Case("alerts-unknown-rule", GOOD + "alerts: {tenant_spent: 10}\n"),
    # --- extends
    Case("extends-missing", "extends: base.yml\n"),
    Case("extends-number", "extends: 3\n"),
    Case("extends-itself", "extends: bad.yaml\n"),
    Case("extends-circle", "extends: b.yaml\n", {"b.yaml": "extends: c.yaml\n", "c.yaml": "extends: bad.yaml\n"}),
    Case("extends-broken", "extends: b.yaml\n", {"b.yaml": "a: [1\n"}),
    Case("extends-fault-in-base", "extends: b.yaml\nname: x\n", {"b.yaml": GOOD.replace("rate: 12/s", "rate: -1")}),
    # --- variants and --set
    changed("variant-not-list", ("    - gateway.routes.0.to: {gpt-4.1: 1}", "    gateway.routes.0.to: {gpt-4.1: 1}")),
    changed("variant-two-keys", ("{gpt-4.1: 1}\n", "{gpt-4.1: 1}\n      slo.ttft: 3s\n")),
    Case("variant-unknown", GOOD, variant="apis"),
    Case("variant-path", GOOD.replace("gateway.routes.0.to: {", "gateway.routes.7.to: {"), variant="api"),
    Case("variant-value", GOOD.replace("gateway.routes.0.to: {gpt-4.1: 1}", "pools.local.tp: -2"), variant="api"),
    with_set("set-no-value", "pools.local.tp"),
    with_set("set-empty-part", "pools..tp=2"),
    with_set("set-unknown-pool", "pools.lokal.tp=2"),
    with_set("set-unknown-field", "pools.local.tpp=2"),
    with_set("set-bad-value", "pools.local.tp=many"),
    with_set("set-bad-yaml", "pools.local.tp={"),
    with_set("set-into-scalar", "workload.chat.lengths.output.mean=3"),
    with_set("set-list-key", "gateway.routes.first.to={local: 1}"),
    with_set("set-two", "pools.local.tp=0", "slo.target=2"),
]
