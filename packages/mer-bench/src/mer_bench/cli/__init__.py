"""The command line of mer-bench: one module per command under `mer_bench.cli`, loaded on use."""

from __future__ import annotations

import click

from mer_bench import __version__
from mer_bench.errors import MerBenchError, UsageError
from mer_flow.cli.group import LazyGroup, run_command_line
from mer_flow.work.errors import MerFlowError
from mer_flow.work.errors import UsageError as FlowUsageError

#: Command name -> one-line help, shown without importing the command.
COMMANDS: dict[str, str] = {
    "models": "List the registered models, with input, parameters and source.",
    "protocols": "List the protocols, or the folds that one cuts from a store.",
    "run": "Train models under a protocol and score them; resumes by itself.",
    "fit": "Train one network on all samples and keep it; no score.",
    "predict": "Predict a store's samples with a kept network.",
    "export-model": "Write a kept network as ONNX or as an exported torch program.",
    "status": "Say how far runs have come: folds done, missing, damaged.",
    "ensemble": "Average the probabilities of finished runs; a run of its own.",
    "choose": "Choose among runs or models without looking at the held-out subject.",
    "export-predictions": "Write a run's predictions as CSV, a row per sample.",
    "score": "Score predictions that any program made, by the rules of a run.",
    "report": "Tabulate complete runs beside published scores.",
    "compare": "Test whether two runs differ, subject by subject.",
    "check": "Audit finished runs; or check a model, or environment and store.",
}


@click.group(
    cls=LazyGroup,
    package="mer_bench.cli",
    table={name: (name.replace("-", "_"), text) for name, text in COMMANDS.items()},
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="mer-bench")
def cli() -> None:
    """Honest benchmarks for micro-expression recognition: any model, the same folds, the same scores.

    Start with `mer-bench models`, then `mer-bench run ststnet --protocol cde --store FILE`.

    Exit codes: 0 done, 1 something is incomplete or failed (listed), 2 usage.
    """


def main() -> None:
    """Run the command line; an error of ours becomes one clear message and an exit code."""
    run_command_line(
        cli,
        "interrupted; finished folds are kept, the same command continues",
        errors=(MerBenchError, MerFlowError),
        usage_errors=(UsageError, FlowUsageError),
    )
