"""`mer-flow demo`: the synthetic database in all four layouts, built into one store."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mer_flow.cli.options import (
    DATABASE_NAMES,
    FOLDER,
    json_option,
    packed,
    quiet_option,
    workers_option,
)

if TYPE_CHECKING:
    from mer_flow.synthetic.demo import DemoSummary


@dataclass(frozen=True)
class Size:
    """How large the trees are."""

    subjects: int
    clips: int
    seed: int


@click.command("demo")
@click.option(
    "--out",
    type=FOLDER,
    default=Path("demo"),
    show_default=True,
    help="Folder for trees, store and pictures.",
)
@click.option(
    "--db",
    "databases",
    multiple=True,
    shell_complete=DATABASE_NAMES,
    help="Database layout; may be given again.  [default: all]",
)
@click.option(
    "--subjects", type=click.IntRange(1), default=6, show_default=True, help="Subjects per database."
)
@click.option("--clips", type=click.IntRange(1), default=6, show_default=True, help="Clips per subject.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of every choice.")
@workers_option
@click.option("--trees-only", is_flag=True, help="Stop after the trees: sheets, frames, truth.")
@json_option
@quiet_option
@packed(Size, "size")
def demo_command(
    out: Path,
    databases: tuple[str, ...],
    size: Size,
    workers: int | None,
    trees_only: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Make the synthetic database in all four layouts and build it into one store.

    Two real faces in many guises, known facial movements, weak and uneven as people's are, head motion and
    noise, in the folders and sheets of CASME II, SAMM, SMIC and CAS(ME)^3, quirks included. The true movement
    is kept, so the flow's error is measured.
    Trees and samples that are there already are kept; the same command continues an interrupted one.

    \b
    Examples:
      mer-flow demo
      mer-flow doctor --db samm --root demo/samm
      mer-flow info demo/flows.h5

    Exit codes: 0 done, 1 built with failures (listed), 2 usage.
    """
    from mer_flow.synthetic.demo import build_demo, make_trees
    from mer_flow.work.executor import usable_cores

    workers = workers or usable_cores()
    summary = make_trees(
        out,
        tuple(dict.fromkeys(databases)),
        subjects=size.subjects,
        clips_per_subject=size.clips,
        seed=size.seed,
        workers=workers,
        quiet=quiet,
    )
    if not trees_only:
        build_demo(summary, workers=workers, quiet=quiet)
    click.echo(json.dumps(summary.to_dict(), indent=2) if as_json else "\n".join(_lines(summary)))
    if summary.failed:
        sys.exit(1)


def _lines(summary: DemoSummary) -> list[str]:
    from mer_flow.synthetic.demo import STORE
    from mer_flow.work.progress import duration

    lines = []
    for name, root in summary.roots.items():
        seconds = summary.tree_seconds[name]
        lines.append(f"{name}: {root}, {f'made in {duration(seconds)}' if seconds else 'there already'}")
    if summary.endpoint is None:
        first, root = next(iter(summary.roots.items()))
        return [*lines, f"next: mer-flow build --db {first} --root {root} --store {summary.out / STORE}"]
    lines += [
        "",
        f"{summary.out / STORE}: {summary.samples} samples, {summary.subjects} subjects, "
        f"{len(summary.roots)} database(s)",
    ]
    for build in summary.builds:
        counts = dict(summary.classes[build.database])
        scheme, dropped = counts.pop("scheme"), counts.pop("dropped")
        classes = ", ".join(f"{name} {count}" for name, count in counts.items())
        lines.append(f"  {build.database}, {scheme}: {classes}; {dropped} without a class")
        lines += [f"    fallback {name}: {count}" for name, count in sorted(build.fallbacks.items())]
        lines += [f"    failed: {name} [{stage}] {reason}" for name, stage, reason in build.failed]
    lines += ["", "end-point error of the flow over the face, px of the aligned face, against the truth"]
    lines += [f"  {line}" for line in summary.endpoint.to_markdown().splitlines()]
    if summary.endpoint.skipped:
        lines.append(f"  {len(summary.endpoint.skipped)} not compared:")
        lines += [f"    {name}: {reason}" for name, reason in summary.endpoint.skipped.items()]
    for method, found in summary.apex.items():
        lines.append(
            f"apex spotted by {method}: {len(found.errors)} samples, mean absolute error "
            f"{found.mean_absolute:.2f} frames, {found.within(1):.0%} within one frame"
        )
    lines += ["", *(f"picture: {path}" for path in summary.pictures)]
    lines.append(f"done in {duration(summary.seconds)}; next: mer-flow info {summary.out / STORE}")
    return lines
