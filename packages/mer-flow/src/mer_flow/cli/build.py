"""`mer-flow build`: a database's sheet and frames become flow in a store."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mer_flow.cli.options import (
    database_options,
    given,
    json_option,
    quiet_option,
    where_options,
    workers_option,
)

if TYPE_CHECKING:
    from mer_flow.databases.source import Source

#: Options that stand for a pipeline parameter.
FLAGS = {
    "apex": "apex.source",
    "apex_at_onset": "apex.at_onset",
    "flow_backend": "flow.backend",
    "device": "flow.device",
}


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
@workers_option
@where_options
@click.option(
    "--limit",
    type=click.IntRange(1),
    help="Only the first N samples of the sheet; a later build adds the rest.",
)
@click.option(
    "--keep-faces",
    "faces",
    is_flag=True,
    default=None,
    help="Keep the aligned onset and apex faces (private data).",
)
@click.option(
    "--keep-clips",
    "clips",
    type=click.IntRange(0),
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
    metavar="K",
    help="Frames it runs over, spread evenly from onset to offset.  [default: 16]",
)
@click.option(
    "--sequence-size",
    type=click.IntRange(4),
    metavar="PX",
    help="Side of its maps: 0.7 MB a sample at 16 frames of 112 px before compression.  [default: 112]",
)
@click.option(
    "--flow-backend",
    type=click.Choice(["opencv", "torch"]),
    help="What computes the flow: OpenCV, or PyTorch, 3.3 to 4.7 times as fast.  [default: opencv]",
)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Where PyTorch computes it.  [default: auto]"
)
@click.option(
    "--dtype",
    type=click.Choice(["float16", "float32"]),
    help="Type of the stored flow.  [default: float16]",
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
@click.option(
    "--repair",
    is_flag=True,
    help="Verify the store first, and build again what of this database is damaged, and nothing else.",
)
@json_option
@quiet_option
@given("pipeline", "config", "settings", *FLAGS)
@given("keep", "faces", "clips", "dtype", "sequence", "sequence_frames", "sequence_size")
@given("how", "workers", "limit", "retry_failed", "repair")
def build_command(
    source: Source,
    store: Path,
    pipeline: dict[str, Any],
    keep: dict[str, Any],
    how: dict[str, Any],
    where: dict[str, Any],
    as_json: bool,
    quiet: bool,
) -> None:
    """Turn a database's sheet and frames into onset-to-apex TV-L1 flow in a store.

    Several databases go into one store, one call each; what is not said is done as in the store's first
    build. An interrupted build continues where it stopped; a
    finished one does nothing. A sample that fails is recorded with its reason and the rest goes on.

    \b
    Examples:
      mer-flow build --db samm --root SAMM --store flows.h5
      mer-flow build --db casme2 --root CASME2 --store flows.h5 --set align.size=400
      mer-flow build --db smic --root SMIC --store fast.h5 --flow-backend torch --device cuda
      mer-flow build --db samm --root /shared/SAMM --executor dask --scheduler tcp://node7:8786
      mer-flow info flows.h5

    Exit codes: 0 done, 1 built with failures (listed), 2 usage.
    """
    from mer_flow.config import asked_for, load_where
    from mer_flow.extraction.build import BuildOptions, build_store, inherit
    from mer_flow.work.progress import Progress

    flags = {key: pipeline[name] for name, key in FLAGS.items() if name in pipeline}
    asked = asked_for(pipeline.get("config"), pipeline.get("settings", ()), flags)
    config, kept, taken = inherit(store, asked, keep)
    if taken:
        listed = ", ".join(f"{key}={value}" for key, value in taken.items())
        click.echo(f"As {store} was begun: {listed}.", err=True)
    options = BuildOptions(**how, where=load_where(pipeline.get("config"), where))
    with Progress(f"build {source.database}", quiet=quiet) as progress:
        summary = build_store(source, store, config, kept, options, progress)
    report = summary.to_dict() | {"inherited": taken}
    click.echo(json.dumps(report, indent=2) if as_json else summary.text())
    sys.exit(1 if summary.failed else 0)
