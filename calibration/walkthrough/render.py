"""Puts what the commands of docs/calibration-walkthrough.md print into that page, from the session kept here.

``python calibration/walkthrough/render.py`` runs them on the session's files, which needs no vLLM: a session that is
complete prints its results again and starts nothing. To measure anew, delete the folder `session`, run the page's first
commands here, compress the results (``gzip session/results/*.json``), delete the server's logs, and run this.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PAGE = ROOT / "docs" / "calibration-walkthrough.md"

KEPT = (
    "i128-o64-c8",
    "i1024-o64-c8",
    "i896-o32-c4-p768x5",
    "i128-o64-u0.3",
    "i128-o64-u0.85",
    "i256-o64-c8-l0.5-1.5",
)
"""Points that the profile is checked on, a third of all; the rest is fitted."""

FLAGS = (
    "--load-format dummy --dtype float32 --max-model-len 4096 --max-num-seqs 64 --max-num-batched-tokens 2048 "
    "--enable-logging-iteration-details"
)
BENCH = "simlab calibrate bench --model tiny-llama --plan plan.json --out session --gpu xeon-2-cores"
_SHOWN = 3
"""Benchmarks of the dry run that the page shows."""


def commands() -> dict[str, str]:
    """The page's commands by the name of their block."""
    names = sorted(path.name.split(".json")[0] for path in (HERE / "session" / "results").glob("*.json.gz"))
    fitted = ",".join(name for name in names if name not in KEPT)
    return {
        "dry-run": f"{BENCH} --dry-run -- {FLAGS}",
        "bench": f"{BENCH} -- {FLAGS}",
        "fit": f"simlab calibrate fit session/results/{{{fitted}}}.json.gz --model tiny-llama -o tiny-llama.json",
        "validate": f"simlab calibrate validate tiny-llama.json session/results/{{{','.join(KEPT)}}}.json.gz "
        "--model tiny-llama",
    }


def printed(command: str, folder: Path) -> str:
    """What a command prints in a folder that holds the session."""
    words = [word for part in shlex.split(command) for word in _braces(part)]
    done = subprocess.run(
        [sys.executable, "-m", "simlab.cli.main", *words[1:], *([] if "bench" in words else ["--quiet"])],
        cwd=folder, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"{command}\n{done.stdout}{done.stderr}")
    return done.stdout


def blocks(*names: str) -> dict[str, str]:
    """The page's blocks by name: the command and what it prints."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        shutil.copytree(HERE / "session", folder / "session")
        shutil.copy(HERE / "plan.json", folder)
        return {name: f"$ {commands()[name]}\n{_cut(name, printed(commands()[name], folder))}" for name in names}


def _cut(name: str, text: str) -> str:
    """The dry run without most of its benchmarks."""
    if name != "dry-run":
        return text.rstrip("\n")
    parts = text.rstrip("\n").split("\n\n")
    left = len(parts) - 2 - _SHOWN
    return "\n\n".join([*parts[: 2 + _SHOWN], f"… and {left} more"])


def _braces(word: str) -> list[str]:
    """What a shell makes of ``a{b,c}d``."""
    found = re.fullmatch(r"(.*)\{(.*)\}(.*)", word)
    return [word] if found is None else [f"{found[1]}{inner}{found[3]}" for inner in found[2].split(",")]


def placed(page: str, name: str, text: str) -> str:
    """The page with a block's text between its fences."""
    pattern = rf"(<!-- printed: {name} -->\n```\n).*?(\n```\n)"
    if len(re.findall(pattern, page, re.DOTALL)) != 1:
        raise SystemExit(f"{PAGE.name} has no block {name}")
    return re.sub(pattern, lambda found: f"{found[1]}{text}{found[2]}", page, flags=re.DOTALL)


def main() -> None:
    """Renews the page."""
    page = PAGE.read_text(encoding="utf-8")
    for name, text in blocks("dry-run", "bench", "fit", "validate").items():
        page = placed(page, name, text)
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
