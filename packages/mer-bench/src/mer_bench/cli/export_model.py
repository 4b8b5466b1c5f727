"""`mer-bench export-model`: a kept network for other programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mer_bench.cli.options import kept_model_option
from mer_flow.cli.options import json_option

if TYPE_CHECKING:
    from mer_bench.models.spec import Registered


@click.command("export-model", short_help="Write a kept network as ONNX or as an exported torch program.")
@click.option("--checkpoint", type=click.Path(path_type=Path), required=True, help="Its folder.")
@kept_model_option
@click.option("--out", type=click.Path(path_type=Path), required=True, help="File to write: .onnx or .pt2.")
@click.option("--store", type=click.Path(path_type=Path), help="Compare on its samples instead of on noise.")
@click.option("--overwrite", is_flag=True, help="Replace a present file.")
@json_option
def export_model_command(
    checkpoint: Path, model: Registered | None, out: Path, store: Path | None, overwrite: bool, as_json: bool
) -> None:
    """Export the network of a checkpoint, and compare the file's logits with the network's.

    The input `maps` is a batch of any size in the view and normalisation that the metadata `mer_checkpoint`
    name; the output is `logits`. A file that answers otherwise than the network is not kept.

    \b
    Examples:
      mer-bench export-model --checkpoint my-ststnet --out ststnet.onnx
      mer-bench export-model --checkpoint my-ststnet --out ststnet.pt2 --store maps.h5
    """
    from mer_bench.weights.checkpoint import read_checkpoint
    from mer_bench.weights.export import BATCHES, export_model
    from mer_bench.weights.predict import read_inputs

    kept = read_checkpoint(checkpoint, registered=model)
    maps = read_inputs(kept, store, sum(BATCHES)) if store else None
    found = export_model(kept, out, maps, overwrite)
    if as_json:
        click.echo(json.dumps({**asdict(found), "path": str(found.path)}, indent=1))
        return
    what = f"samples of {store}" if store else "maps of noise"
    click.echo(
        f"{found.form}: {found.path}\nlargest difference from the network {found.difference:.2g}, on logits "
        f"of up to {found.size:.2g}, over {found.compared} {what}"
    )
