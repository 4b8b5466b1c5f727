"""`mer-bench predict`: what a kept network says of a store's samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mer_bench.cli.options import kept_model_option, settings_options, store_option
from mer_flow.cli.options import json_option

if TYPE_CHECKING:
    from mer_bench.models.spec import Registered
    from mer_bench.weights.predict import Predicted


@click.command("predict", short_help="Predict a store's samples with a kept network.")
@click.option("--checkpoint", type=click.Path(path_type=Path), required=True, help="Its folder.")
@kept_model_option
@store_option
@settings_options("db", "device")
@click.option("--out", type=click.Path(path_type=Path), help="CSV file to write, or JSON by its ending.")
@click.option(
    "--other-pipeline", is_flag=True, help="Take maps that were made otherwise than those of the training."
)
@json_option
def predict_command(
    checkpoint: Path,
    model: Registered | None,
    store: Path | None,
    flags: dict[str, Any],
    out: Path | None,
    other_pipeline: bool,
    as_json: bool,
) -> None:
    """Predict every sample of a store with the network of a checkpoint, as `mer-bench fit` wrote it.

    A row per sample: sample, subject, database, trained_on, label, predicted, p_CLASS. Where labels are
    there, subjects that the network has not seen are scored; those it was trained on are told apart, for what
    is said of them is no score.

    \b
    Examples:
      mer-bench predict --checkpoint my-ststnet --store new.h5
      mer-bench predict --checkpoint my-ststnet --store new.h5 --db samm --out predictions.csv
    """
    from mer_bench.runs.data import find_store
    from mer_bench.training.device import resolve_device
    from mer_bench.weights.checkpoint import read_checkpoint
    from mer_bench.weights.predict import predict
    from mer_flow.work.cells import csv_text
    from mer_flow.work.files import write_whole

    path = find_store(store)
    kept = read_checkpoint(checkpoint, resolve_device(flags.get("device", "auto")), model)
    found = predict(kept, path, flags.get("db", ()), other_pipeline)
    told: dict[str, Any] = {"checkpoint": str(checkpoint), "model": kept.record.model, "store": str(path)}
    told |= {"scores": found.scores(), "notes": found.notes}
    whole = {**told, "predictions": found.table().to_dict("records")}
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        as_csv = out.suffix.lower() != ".json"
        text = csv_text(found.table()) if as_csv else json.dumps(whole, indent=1)
        write_whole(out, text.encode())
    if as_json:
        click.echo(json.dumps(whole, indent=1))
    else:
        click.echo(_text(found, out))


def _text(found: Predicted, out: Path | None) -> str:
    from mer_bench.report.terminal import align

    rows = [["sample", "label", "predicted", *found.classes]]
    for row in found.table().to_dict("records"):
        shares = [f"{row[f'p_{name}']:.3f}" for name in found.classes]
        rows.append([row["sample"], row["label"] or "-", row["predicted"], *shares])
    lines = [f"wrote {out}: {len(rows) - 1} rows"] if out else [*align(rows, left=3), ""]
    for name, score in found.scores().items():
        figures = ", ".join(f"{key} {score[key]:.3f}" for key in ("uf1", "uar", "accuracy"))
        why = " (no score: the network was trained on these subjects)" if name == "trained on" else ""
        lines.append(f"{name}: {score['samples']} samples of {score['subjects']} subjects, {figures}{why}")
    return "\n".join([*lines, *(f"note: {note}" for note in found.notes)])
