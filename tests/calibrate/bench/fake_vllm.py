"""A stand-in for the `vllm` program: `serve` answers as a server does, `bench serve` writes a result at once.

What goes wrong is asked for by environment variables: FAKE_PIDS (file that gets the pids of the server and of what it
starts), FAKE_STUBBORN (they ignore SIGTERM, and one leaves the process group), FAKE_DIES ("start", or the name of a
benchmark during which the server dies), FAKE_FAILS (name of a benchmark that exits with 1), FAKE_HANGS (name of a
benchmark that does not end), FAKE_ERRORS (name of a benchmark all of whose requests fail; behind "half:" half of them),
FAKE_RAN (file that gets the names of the benchmarks run), FAKE_SLOW (seconds until the server is healthy),
FAKE_VERSION.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BASE_S, PER_SEQ_S, PER_PREFILL_TOKEN_S = 0.010, 0.0005, 1e-5
SLEEPER = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.setpgid(0, 0); time.sleep(600)"
COUNTED = {"prompt_tokens": 0, "generation_tokens": 0}


def metrics(model: str) -> str:
    lines = [
        "# TYPE vllm:cache_config_info gauge",
        'vllm:cache_config_info{block_size="16",cache_dtype="auto",enable_prefix_caching="True",engine="0",'
        'num_gpu_blocks="4096"} 1.0',
    ]
    for name, value in COUNTED.items():
        lines += [f"# TYPE vllm:{name}_total counter"]
        lines += [f'vllm:{name}_total{{engine="{i}",model_name="{model}"}} {value / 2}' for i in range(2)]
        lines += [f"# TYPE vllm:{name}_created gauge", f'vllm:{name}_created{{engine="0"}} {time.time()}']
    return "\n".join(lines) + "\n"


def serve(words: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--served-model-name")
    parser.add_argument("--enable-logging-iteration-details", action="store_true")
    options, _ = parser.parse_known_args(words)
    served = options.served_model_name or options.model
    pids = [os.getpid()]
    if "FAKE_STUBBORN" in os.environ:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pids.append(subprocess.Popen([sys.executable, "-S", "-c", SLEEPER]).pid)
    if "FAKE_PIDS" in os.environ:
        Path(os.environ["FAKE_PIDS"]).write_text(json.dumps(pids))
    print("INFO Loading weights took 1.50 seconds", flush=True)
    if os.environ.get("FAKE_DIES") == "start":
        sys.exit("ValueError: no such model")
    began = time.monotonic()

    class Handler(BaseHTTPRequestHandler):
        def answer(self, text: str, code: int = 200) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text.encode())

        def do_GET(self) -> None:
            if self.path == "/health":
                self.answer("", 200 if time.monotonic() - began > float(os.environ.get("FAKE_SLOW", "0.1")) else 503)
            elif self.path == "/version":
                self.answer(json.dumps({"version": os.environ.get("FAKE_VERSION", "0.32.0")}))
            elif self.path == "/v1/models":
                self.answer(json.dumps({"data": [{"id": served, "max_model_len": 4096}]}))
            elif self.path == "/metrics":
                self.answer(metrics(served))
            else:
                self.answer("", 404)

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if asked["model"] != served:
                self.answer("no such model", 404)
                return
            COUNTED["prompt_tokens"] += asked["prompt_tokens"]
            COUNTED["generation_tokens"] += asked["output_tokens"]
            self.answer("")
            if options.enable_logging_iteration_details:
                print(
                    "INFO 11-21 06:24:25 [loggers.py:199] Engine 000: Iteration(7): 1 context requests, "
                    f"{asked['prompt_tokens']} context tokens, 0 generation requests, 0 generation tokens, iteration "
                    "elapsed time: 79.85 ms, GPU KV cache usage: 0.1%",
                    flush=True,
                )
            if os.environ.get("FAKE_DIES") == asked["name"]:
                print("RuntimeError: CUDA error: an illegal memory access was encountered", flush=True)
                os._exit(3)

        def log_message(self, *what: object) -> None:
            pass

    print("INFO init engine (profile, create kv cache, warmup model) took 2.25 s (compilation: 1.0 s)", flush=True)
    ThreadingHTTPServer((options.host, options.port), Handler).serve_forever()


def bench(words: list[str]) -> None:
    parser = argparse.ArgumentParser()
    for name in ("backend", "base-url", "model", "tokenizer", "temperature", "percentile-metrics", "result-filename"):
        parser.add_argument(f"--{name}")
    for name in ("metric-percentiles", "dataset-name", "result-dir", "random-range-ratio"):
        parser.add_argument(f"--{name}")
    for name in ("random-input-len", "random-output-len", "random-prefix-len", "num-prompts", "seed"):
        parser.add_argument(f"--{name}", type=int, default=0)
    for name in ("num-prefixes", "prefix-len", "suffix-len", "output-len"):
        parser.add_argument(f"--prefix-repetition-{name}", type=int, default=0)
    parser.add_argument("--max-concurrency", type=int)
    parser.add_argument("--request-rate", type=float, default=float("inf"))
    parser.add_argument("--burstiness", type=float, default=1.0)
    for name in ("ignore-eos", "disable-tqdm", "save-result", "save-detailed"):
        parser.add_argument(f"--{name}", action="store_true")
    options = parser.parse_args(words)
    name = Path(options.result_filename or "warm-up").stem
    if "FAKE_RAN" in os.environ:
        with Path(os.environ["FAKE_RAN"]).open("a") as file:
            print(name, file=file)
    prompt = options.random_input_len + options.random_prefix_len
    prompt += options.prefix_repetition_prefix_len + options.prefix_repetition_suffix_len
    output, n = options.random_output_len + options.prefix_repetition_output_len, options.num_prompts
    told = {"name": name, "model": options.model, "prompt_tokens": n * prompt, "output_tokens": n * output}
    urllib.request.urlopen(
        urllib.request.Request(f"{options.base_url}/v1/completions", json.dumps(told).encode(), method="POST")
    ).read()
    if os.environ.get("FAKE_FAILS") == name:
        sys.exit("ValueError: Initial test run failed")
    if os.environ.get("FAKE_HANGS") == name:
        time.sleep(600)
    if not options.save_result:
        return
    running = min(options.max_concurrency or 32, n)
    ttft, itl = BASE_S + prompt * PER_PREFILL_TOKEN_S, BASE_S + running * PER_SEQ_S
    cycle = output * itl + running * prompt * PER_PREFILL_TOKEN_S
    duration = max(n * cycle / running, n / options.request_rate)
    asked = os.environ.get("FAKE_ERRORS", "")
    failed = n if asked == name else n // 2 if asked == f"half:{name}" else 0
    done = n - failed
    result = {
        "date": "20261121-063317",
        "backend": options.backend,
        "model_id": options.model,
        "tokenizer_id": options.tokenizer,
        "num_prompts": n,
        "request_rate": "inf" if options.request_rate == float("inf") else options.request_rate,
        "burstiness": options.burstiness,
        "max_concurrency": options.max_concurrency,
        "duration": duration,
        "completed": done,
        "failed": failed,
        "total_input_tokens": done * prompt,
        "total_output_tokens": done * output,
        "request_throughput": done / duration,
        "output_throughput": done * output / duration,
        "mean_ttft_ms": 1e3 * ttft,
        "median_ttft_ms": 1e3 * ttft,
        "p99_ttft_ms": 1e3 * ttft,
        "mean_tpot_ms": 1e3 * itl,
        "mean_itl_ms": 1e3 * itl,
        "mean_e2el_ms": 1e3 * (ttft + (output - 1) * itl),
        "errors": ["Bad Request"] * failed + [""] * done,
    }
    (Path(options.result_dir) / options.result_filename).write_text(json.dumps(result))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2:])
    else:
        assert sys.argv[1:3] == ["bench", "serve"], sys.argv
        bench(sys.argv[3:])
