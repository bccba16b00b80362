"""Makes the bundled summaries from the public data sets they stand for.

Run from the repository root: ``python tests/workload/bundle_summaries.py FOLDER``, FOLDER holding the data sets.
"""

from __future__ import annotations

import sys
from pathlib import Path

from simlab.workload import WorkloadSummary, summarize
from simlab.workload.summary import Attribution

OUT = Path(__file__).resolve().parents[2] / "simlab" / "workload" / "data"

DASHBOARD = ("https://github.com/openshift-psap/performance-dashboard", "Apache-2.0", "commit 71007029")
VIDUR = ("https://github.com/microsoft/vidur", "MIT", "commit 7d475133")

LENGTHS = {
    "sharegpt": ("sharegpt_vicuna.csv.gz", "ShareGPT conversation turns, before the usual length filter", DASHBOARD),
    "openorca": ("mlperf_openorca_llama2_70b.csv.gz", "OpenOrca sample of MLPerf Llama-2-70B", DASHBOARD),
    "cnn-dailymail": ("mlperf_cnn_dailymail_llama31_8b.csv.gz", "CNN/DailyMail of MLPerf Llama-3.1-8B", DASHBOARD),
    "long-context-405b": ("mlperf_llama31_405b_longctx.csv.gz", "MLPerf Llama-3.1-405B long context", DASHBOARD),
    "mlperf-mixtral": ("mlperf_mixtral.csv.gz", "MLPerf Mixtral-8x7B mix of chat, code and maths", DASHBOARD),
    "mlperf-deepseek-r1": ("mlperf_deepseek_r1.csv.gz", "MLPerf DeepSeek-R1 reasoning", DASHBOARD),
    "arxiv-summarization": ("arxiv_summarization_llama2_tok.csv.gz", "arXiv summarisation, Llama-2 tokens", VIDUR),
}

TRACES = {
    "azure-2023-conv": ("trace_azure_llm_2023/azure_llm_2023_conv.csv.gz", "commit b469a113"),
    "mooncake-conversation": ("trace_mooncake_fast25/conversation_trace.jsonl.gz", "commit 3b5a5941"),
    "servegen-m-large": ("trace_servegen/m_large_client_windows.csv.gz", "commit f891d118"),
    "servegen-m-small": ("trace_servegen/m_small_client_windows.csv.gz", "commit f891d118"),
    "servegen-deepseek-r1": ("trace_servegen/deepseek_r1_client_windows.csv.gz", "commit f891d118"),
}


def made(name: str, folder: Path) -> WorkloadSummary:
    """The summary of one bundled name, from the data."""
    if name in TRACES:
        file, version = TRACES[name]
        summary = summarize(folder / file, name=name)
        source = summary.source.model_copy(update={"cite": f"{summary.source.cite}; {version}"})
        start = "2023-11-16T18:15:46" if name == "azure-2023-conv" else summary.start
        return summary.model_copy(update={"source": source, "start": start})
    file, title, (url, licence, version) = LENGTHS[name]
    source = Attribution(title=title, url=url, licence=licence, cite=version)
    return summarize(folder / "length_distributions" / file, name=name).model_copy(update={"source": source})


if __name__ == "__main__":
    for each in (*TRACES, *LENGTHS):
        text = made(each, Path(sys.argv[1])).to_json()
        (OUT / f"{each}.json").write_text(text, "utf-8")
        print(f"{each}: {len(text)} bytes")
