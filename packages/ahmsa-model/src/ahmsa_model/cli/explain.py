"""`ahmsa explain`: why the network says so."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ahmsa_model.cli.options import (
    PATH,
    check_input,
    device_option,
    find_device,
    input_options,
    json_option,
    print_json,
)

if TYPE_CHECKING:
    from ahmsa_model.checkpoint import AHMSANet
    from ahmsa_model.explain.average import Averages
    from ahmsa_model.explain.sample import Explanation


@click.command("explain")
@click.option("--checkpoint", help="A checkpoint: its folder, or a hub id as name/my-ahmsa.")
@input_options
@click.option("--store", type=PATH, help="Instead of frames: a store. Without --sample, per class over it.")
@click.option("--sample", help="One sample of the store, as casme2/sub01/EP02_01f.")
@click.option("--run", type=PATH, help="Per class over a run's held-out samples, its folds trained again.")
@click.option("--seed", type=int, help="Which seed of the run.  [default: its first]")
@click.option("--limit", type=click.IntRange(1), help="The first so many folds of the run only.")
@click.option("--class", "target", help="Explain this class.  [default: the most probable]")
@click.option("--out", type=PATH, required=True, help="Folder for explanation.png and explanation.npz.")
@device_option
@json_option
def explain_command(out: Path, as_json: bool, **options: Any) -> None:
    """Show which part of a face speaks for a class: integrated gradients, occlusion, attention.

    Of one sample (two frames, a video, or a sample of a store), or averaged per class. A run keeps no
    weights: for --run each fold is trained again from its seed, and its logits are compared with the record.

    \b
    Examples:
      ahmsa explain --checkpoint my-ahmsa --onset onset.png --apex apex.png --out why
      ahmsa explain --checkpoint my-ahmsa --store flows.h5 --sample samm/006/006_1_2 --out why
      ahmsa explain --run runs/ahmsa-cde-0123456789ab --limit 10 --out why-run
    """
    found: Explanation | Averages
    if options["run"] is not None:
        if options["checkpoint"] or options["sample"] or options["target"]:
            raise click.UsageError("--run brings its own networks and samples; leave --checkpoint, --sample "
                                   "and --class out")  # fmt: skip
        found = _run(options, quiet=as_json)
    else:
        if options["checkpoint"] is None:
            raise click.UsageError("give --checkpoint, or --run")
        if options["store"] is None:
            check_input(options)
        elif any(options[name] for name in ("onset", "apex", "video")):
            raise click.UsageError("give frames, --video or --store, not several")
        from ahmsa_model.checkpoint import AHMSANet

        network = AHMSANet.from_pretrained(options["checkpoint"], find_device(options["device"]))
        found = _network(network, options)
    from ahmsa_model.pictures.explained import save_explained

    files = save_explained(found, out)
    facts = {**found.to_dict(), "files": [str(path) for path in files]}
    if as_json:
        print_json(facts)
        return
    for part in facts.get("classes") or [facts]:
        head = f"{part['class']}: {part['samples']} samples, {part['right']} right" if "class" in part else ""
        click.echo(head or f"what speaks for {facts['explained']} in {facts['sample']}")
        for name, share in part["gradients_share"].items():
            drop = part["occlusion_drop"][name]
            click.echo(
                f"  {name:<10} {share:6.1%} of the gradients, score falls by {drop:+.3f} if it is still"
            )
    if facts.get("largest_logit_difference") is not None and options["run"] is not None:
        click.echo(
            f"folds trained again give the recorded logits within {facts['largest_logit_difference']:.2g}"
        )
    click.echo(
        f"likeness to random weights (1 alike, 0 unrelated): {facts['likeness_to_random_weights']:+.3f}"
    )
    click.echo(f"picture: {files[0]}, maps: {files[1]}")
    for warning in facts.get("warnings", ()):
        click.echo(f"warning: {warning}", err=True)


def _network(network: AHMSANet, options: dict[str, Any]) -> Explanation | Averages:
    from dataclasses import replace

    from ahmsa_model.explain.average import average_store
    from ahmsa_model.explain.sample import explain_map, seen_in, seen_in_store
    from ahmsa_model.predict import flow_errors, predict_pair
    from ahmsa_model.video import Looking, predict_video

    target = options["target"]
    if options["store"] is not None:
        if options["sample"] is None:
            if target is not None:
                raise click.UsageError("--class goes with one sample; without --sample every class is shown")
            return average_store(network, options["store"])
        with flow_errors():
            from mer_flow.store.reader import FlowStore

            with FlowStore(options["store"]) as store:
                seen = seen_in_store(network, store, options["sample"])
        return explain_map(network, seen, target)
    how = {name: options[name] for name in ("cropped", "default_pipeline", "settings")}
    if options["video"] is not None:
        where = {name: options[name] for name in ("onset", "apex", "fps", "spotter")}
        result = predict_video(network, options["video"], Looking(**where), **how)
        prediction, warnings = result.strongest.prediction, result.warnings
    else:
        prediction = predict_pair(network, Path(options["onset"]), Path(options["apex"]), **how)
        warnings = prediction.warnings
    return replace(explain_map(network, seen_in(prediction), target), warnings=warnings)


def _run(options: dict[str, Any], quiet: bool) -> Averages:
    from ahmsa_model.explain.average import average_run

    def tell(done: int, total: int) -> None:
        if not quiet:
            click.echo(f"explained fold {done} of {total}", file=sys.stderr)

    return average_run(options["run"], options["store"], options["seed"], options["limit"], tell)
