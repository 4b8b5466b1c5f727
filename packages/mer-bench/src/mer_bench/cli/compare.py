"""`mer-bench compare`: two runs, tested subject by subject."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mer_flow.cli.options import json_option


@click.command("compare", short_help="Test whether two runs differ, subject by subject.")
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option(
    "--selection", help="last, tail, inner or oracle (which leaks).  [default: the headline of both runs]"
)
@click.option(
    "--draws", type=click.IntRange(100, 1_000_000), default=10000, show_default=True, help="Resamples."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Decides the resamples.")
@json_option
def compare_command(a: Path, b: Path, selection: str | None, draws: int, seed: int, as_json: bool) -> None:
    """Compare run A with run B on the samples that both tested.

    UF1 and UAR: paired bootstrap over subjects (95 % interval of the difference) and a permutation test that
    exchanges the two runs subject by subject. McNemar's test over samples comes last, as it takes one
    person's clips for independent. Runs with other folds or labels are refused. Seeds of both runs are
    compared; a run of a single seed stands against each of the other's.
    """
    from mer_bench.report.tables import database_title
    from mer_bench.report.terminal import align
    from mer_bench.runs.directory import RunDirectory
    from mer_bench.scores.compare import compare_runs
    from mer_bench.scores.selection import LEAKING

    def p_text(p: float) -> str:
        return f"{p:.4f}" if p >= 0.0001 else "<0.0001"

    runs = RunDirectory(a), RunDirectory(b)
    found = compare_runs(*runs, selection=selection, draws=draws, seed=seed)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=1))
        return
    leaks = " (LEAKS: the test subject chooses)" if found.selection in LEAKING else ""
    for letter, title, run in (("A", found.a, runs[0]), ("B", found.b, runs[1])):
        click.echo(f"{letter} {title}: {run.path}")
        if run.manifest.derived:
            members = ", ".join(member.title for member in run.manifest.derived.members)
            click.echo(f"  {run.manifest.derived.how} of {members}")
    ours, theirs = (", ".join(map(str, seeds)) for seeds in (found.seeds, found.against))
    seeds = ours if ours == theirs else f"{ours} against {theirs}"
    click.echo(f"selection {found.selection}{leaks}, seeds {seeds}\n")
    rows = [["", "", "A", "B", "A - B", "95 %", "p"]]
    for pool, tests in found.tests.items():
        for metric, test in tests.items():
            one, other = (f"{value:.4f}" for value in found.values[pool][metric])
            interval = f"{test.low:+.3f} to {test.high:+.3f}"
            row = [database_title(pool), metric.upper(), one, other, f"{test.difference:+.4f}", interval]
            rows.append([*row, p_text(test.p_value)])
    click.echo("\n".join(align(rows, left=2)))
    click.echo("")
    for run_seed, (only_a, only_b, p) in found.mcnemar.items():
        click.echo(f"McNemar, seed {run_seed}: only A right {only_a}, only B right {only_b}, p {p_text(p)}")
