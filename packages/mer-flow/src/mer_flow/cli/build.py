"""`mer-flow build`: a database's sheet and frames become flow in a store."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from mer_flow.cli.options import database_options


@click.command("build", short_help="Turn a database's sheet and frames into flow in a store.")
@database_options
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    default=Path("flows.h5"),
    show_default=True,
    help="HDF5 file to make or extend.",
)
@click.option(
    "--apex",
    help="Where apexes come from: sheet (spotted where it has none), midpoint, difference or flow-peak.",
)
@click.option(
    "--apex-at-onset",
    type=click.Choice(["keep", "spot", "drop"]),
    help="Where the sheet puts the apex on the onset, so nothing moves: keep, spot an apex, or drop.  "
    "[default: keep]",
)
@click.option("--workers", type=click.IntRange(1), help="Worker processes.  [default: one per core]")
@click.option(
    "--limit",
    type=click.IntRange(1),
    help="Only the first N samples of the sheet; a later build adds the rest.",
)
@click.option("--keep-faces", is_flag=True, help="Keep the aligned onset and apex faces (private data).")
@click.option(
    "--keep-clips",
    type=click.IntRange(0),
    default=0,
    metavar="K",
    help="Keep K aligned frames per sample, for video models.",
)
@click.option(
    "--keep-flow-sequence",
    "sequence",
    type=click.Choice(["consecutive", "onset"]),
    help="Keep flow along the clip: from each frame to the next, or from the onset to each.",
)
@click.option(
    "--sequence-frames",
    type=click.IntRange(2),
    default=16,
    show_default=True,
    metavar="K",
    help="Frames it runs over, spread evenly from onset to offset.",
)
@click.option(
    "--sequence-size",
    type=click.IntRange(4),
    default=112,
    show_default=True,
    metavar="PX",
    help="Side of its maps: 0.7 MB a sample at 16 frames of 112 px before compression.",
)
@click.option(
    "--flow-backend",
    type=click.Choice(["opencv", "torch"]),
    help="What computes the flow: OpenCV, or PyTorch, about five times as fast.  [default: opencv]",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    help="Where PyTorch computes it.  [default: auto]",
)
@click.option(
    "--dtype",
    type=click.Choice(["float16", "float32"]),
    default="float16",
    show_default=True,
    help="Type of the stored flow.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="TOML file of pipeline parameters.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Override one parameter, as in flow.tau=0.2; repeatable.",
)
@click.option("--retry-failed", is_flag=True, help="Try samples again that failed in an earlier build.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.option("--quiet", is_flag=True, help="No progress.")
def build_command(
    database: str,
    root: Path | None,
    store: Path,
    sheet: Path | None,
    release: str,
    apex: str | None,
    apex_at_onset: str | None,
    workers: int | None,
    limit: int | None,
    keep_faces: bool,
    keep_clips: int,
    sequence: str | None,
    sequence_frames: int,
    sequence_size: int,
    flow_backend: str | None,
    device: str | None,
    dtype: str,
    config: Path | None,
    settings: tuple[str, ...],
    retry_failed: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Turn a database's sheet and frames into onset-to-apex TV-L1 flow in a store.

    Several databases go into one store, one call each. An interrupted build continues where it stopped; a
    finished one does nothing. A sample that fails is recorded with its reason and the rest goes on.

    \b
    Examples:
      mer-flow build --db samm --root SAMM --store flows.h5
      mer-flow build --db casme2 --root CASME2 --store flows.h5 --set align.size=400
      mer-flow build --db smic --root SMIC --store fast.h5 --flow-backend torch --device cuda
      mer-flow info flows.h5

    Exit codes: 0 done, 1 built with failures (listed), 2 usage.
    """
    from mer_flow.databases.layout import resolve_root
    from mer_flow.extraction.build import build_store
    from mer_flow.extraction.sample import Keep, Outcome
    from mer_flow.work.progress import Progress
    from mer_flow.work.settings import load_config

    flags = {
        "apex.source": apex,
        "apex.at_onset": apex_at_onset,
        "flow.backend": flow_backend,
        "flow.device": device,
    }
    overrides = (*settings, *(f"{key}={value}" for key, value in flags.items() if value))
    pipeline = load_config(config, overrides)
    progress: Progress | None = None

    def start(todo: int, already: int) -> None:
        nonlocal progress
        if already and not quiet:
            click.echo(f"{database}: {already} samples are in the store already, {todo} to do", err=True)
        progress = Progress(f"build {database}", todo, quiet=quiet)

    def advance(outcome: Outcome) -> None:
        assert progress is not None
        progress.advance(outcome.sample_id)

    summary = build_store(
        database,
        resolve_root(database, root),
        store,
        sheet=sheet,
        release=release,
        config=pipeline,
        keep=Keep(
            faces=keep_faces,
            clips=keep_clips,
            dtype=dtype,  # type: ignore[arg-type]
            sequence=sequence or "",
            sequence_frames=sequence_frames,
            sequence_size=sequence_size,
        ),
        workers=workers,
        limit=limit,
        retry_failed=retry_failed,
        on_start=start,
        on_sample=advance,
    )
    if progress is not None:
        progress.close()
    click.echo(json.dumps(summary.to_dict(), indent=2) if as_json else summary.text())
    sys.exit(1 if summary.failed else 0)
