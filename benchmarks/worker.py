"""One measurement in a process of its own: `python -m benchmarks.worker MODULE CASE SIZE` prints a report as JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from importlib import import_module

if __name__ == "__main__":
    module, case, size = sys.argv[1:]
    print(json.dumps(asdict(import_module(f"benchmarks.{module}").run(case, int(size)))))
