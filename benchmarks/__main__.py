"""`./bench`: run the benchmarks one after another, each in its own process."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from pathlib import Path

BENCHMARKS = {
    "cli": "processor time of `assay COMMAND --help` and of a list",
    "gateway": "CPU and latency of the inference route, against a bare ASGI echo",
    "hosted": "processor time of a request to a provider and of a streamed event",
    "growth": "database time of every page and list over the rows of years",
    "requests": "ms of pages of the request log under filters, over 10,000,000 requests",
    "portal": "processor time of each main page; latency and errors while people browse",
    "serve": "first token, embeddings and added latency, against the engine or model alone",
    "streams": "memory and delay of 1,000 waiting and 200 active streams",
    "load": "the ledger against the engines' counts, with hang-ups and killed workers",
    "stack": "tokens/s through everything, against generate in process",
    "idle": "memory and processor time of an installation that does nothing",
    "governance": "tokens/s with key, policy, quotas, ledger and audit, against without",
    "engine": "tokens/s of the engine alone, against generate at the same batch",
    "engines": "tokens/s of llama.cpp and vLLM, here and through everything, by a server",
    "rerank": "MRR@10 of a real cross-encoder on Python's FAQ, against BM25",
    "knowledge": "recall@5 and nDCG@10 of a knowledge base on Python's FAQ, against BM25",
    "tools": "calls of 144 tools that a model was not trained on, against its base",
    "drawing": "prompt match of a diffusion pipeline, against images of other prompts",
    "ideas.transfer": "accuracy of a pretrained encoder, against one from random weights",
    "ideas.adapters": "tokens/s of 16 adapters on one base, against the base alone",
    "ideas.cost": "time, memory and bytes of an adapter, against tuning all weights",
    "ideas.preferences": "pairs whose preferred answer is likelier after DPO, against the base",
    "ideas.learning": "accuracy after a round of feedback, against the version before",
    "recording": "µs that counting a request for `/metrics` takes, at most 20",
    "snapshot": "a change in force, and processor time, with 10,000 deployments and 200,000 keys",
    "fleet": "placement, a lost rack and load of 200 simulated nodes with 10,000 deployments",
    "rowsecurity": "ms that row-level security adds to a request",
    "policy": "a decision with 1,000 rules, against Cedar",
    "audit_search": "ms of filtered pages over 1,000,000 events, against the newest page",
    "audit": "events/s and seal lag, against a plain INSERT",
    "audit_streaming": "events/s to a SIEM over HTTPS, against posting the same bytes",
}


def main() -> int:
    """Run the selected benchmarks; return the number of failures."""
    parser = argparse.ArgumentParser(prog="./bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--people", type=int, help="number of people in the portal benchmark (20)")
    options = parser.parse_args()
    options.names = [name for argument in options.names for name in _benchmarks(argument)]
    unknown = sorted(set(options.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]!r}; choose from {', '.join(BENCHMARKS)}")
    root = Path(__file__).resolve().parents[1]
    # Keep the converter's progress bar out of the table.
    environment = {**os.environ, "TQDM_DISABLE": "1"}
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    python = f"Python {platform.python_version()} of {Path(sys.executable).resolve().parent}"
    print(f"{python}; {os.cpu_count()} cores; load {load}", flush=True)  # noqa: T201
    failed = 0
    for name in options.names or BENCHMARKS:
        print(f"\n{name}: {BENCHMARKS[name]}", flush=True)  # noqa: T201
        command = [sys.executable, "-m", f"benchmarks.{name}"]
        if options.quick:
            command.append("--quick")
        if options.people and name == "portal":
            command.append(f"--people={options.people}")
        failed += subprocess.run(command, cwd=root, env=environment, check=False).returncode != 0
    return failed


def _benchmarks(name: str) -> list[str]:
    """Return the benchmark of this name, or all of a group, such as `ideas`."""
    return [each for each in BENCHMARKS if each.startswith(f"{name}.")] or [name]


if __name__ == "__main__":
    sys.exit(main())
