"""How long each command takes to answer `--help`, against an empty Python.

A process each, commands in turn, so that a change of the machine's speed meets all of them.

    python benchmarks/start_up.py --out benchmarks/results/2026-11-21-start-up.md
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from machine import describe

MODULES = {"mer-flow": "mer_flow.cli", "mer-bench": "mer_bench.cli", "ahmsa": "ahmsa_model.cli"}


def seconds(*arguments: str) -> float:
    """Times one Python process."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - begin


def main() -> None:
    """Times, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=11, help="each command once per round (default 11)")
    parser.add_argument("--out", type=Path, help="write the table here as well")
    options = parser.parse_args()
    calls = {"an empty Python": ("-c", "pass")}
    calls |= {f"{name} --help": ("-m", module, "--help") for name, module in MODULES.items()}
    times = {name: [0.0] * options.rounds for name in calls}
    for number in range(options.rounds):
        for name, call in calls.items():
            times[name][number] = seconds(*call)
    median = {name: sorted(found)[options.rounds // 2] for name, found in times.items()}
    bare = median["an empty Python"]
    lines = [
        "# Start-up",
        "",
        f"{describe()}; median of {options.rounds} processes.",
        "",
        "| command | ms | of an empty Python |",
        "|---|---|---|",
        *(f"| `{name}` | {1e3 * value:.0f} | {value / bare:.1f} |" for name, value in median.items()),
    ]
    text = "\n".join(lines)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
