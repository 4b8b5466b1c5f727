"""`ahmsa predict`: classes of a pair of frames, or of the moments of a video."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ahmsa_model.cli.options import (
    PATH,
    check_input,
    checkpoint_option,
    device_option,
    find_device,
    input_options,
    json_option,
    print_json,
    print_probabilities,
)

if TYPE_CHECKING:
    from ahmsa_model.checkpoint import AHMSANet


@click.command("predict")
@checkpoint_option
@input_options
@click.option("--every", type=float, help="Long videos: look for moments, a window every so many seconds.")
@click.option("--window", type=float, default=0.5, show_default=True, help="Length of a window, seconds.")
@click.option("--picture", type=PATH, help="Draw faces, flow, input and probabilities here.")
@click.option(
    "--annotated", type=PATH, help="With --video: write it with moment, map and answer (.mp4, .webm)."
)
@device_option
@json_option
def predict_command(
    checkpoint: str, picture: Path | None, annotated: Path | None, device: str, as_json: bool, **options: Any
) -> None:
    """Classify a micro-expression from its onset and apex frames, or from a video.

    A video's first frame is the onset and its apex is spotted, unless --onset and --apex say where they are.
    In a long video --every finds candidate moments by how far skin moves: an aid, not a detector.

    \b
    Examples:
      ahmsa predict --checkpoint my-ahmsa --onset onset.png --apex apex.png --picture out.png
      ahmsa predict --checkpoint my-ahmsa --video clip.mp4 --annotated out.mp4
      ahmsa predict --checkpoint my-ahmsa --video FRAMES/ --fps 200 --onset 12 --apex 0.2s --json
      ahmsa predict --checkpoint my-ahmsa --video talk.mp4 --every 0.25 --annotated out.webm
    """
    check_input(options)
    if annotated is not None and options["video"] is None:
        raise click.UsageError("--annotated goes with --video")
    from ahmsa_model.checkpoint import AHMSANet

    network = AHMSANet.from_pretrained(checkpoint, find_device(device))
    if options["video"] is not None:
        _video(network, options, picture, annotated, as_json)
    else:
        _pair(network, options, picture, as_json)


def _pair(network: AHMSANet, options: dict[str, Any], picture: Path | None, as_json: bool) -> None:
    from ahmsa_model.predict import predict_pair

    onset, apex = Path(options["onset"]), Path(options["apex"])
    how = {name: options[name] for name in ("cropped", "default_pipeline", "settings")}
    result = predict_pair(network, onset, apex, **how)
    facts = result.to_dict()
    if picture is not None:
        from ahmsa_model.pictures.prediction import save_picture

        facts["picture"] = str(save_picture(result, picture))
    if as_json:
        print_json(facts)
        return
    print_probabilities(facts["probabilities"])
    _say(facts["warnings"], facts.get("picture"), None)


def _video(
    network: AHMSANet,
    options: dict[str, Any],
    picture: Path | None,
    annotated: Path | None,
    as_json: bool,
) -> None:
    from ahmsa_model.video import Looking, predict_video

    looking = Looking(
        **{name: options[name] for name in ("onset", "apex", "fps", "spotter", "every", "window")}
    )
    how = {name: options[name] for name in ("cropped", "default_pipeline", "settings")}
    result = predict_video(network, options["video"], looking, **how)
    facts = result.to_dict()
    if picture is not None:
        from ahmsa_model.pictures.prediction import save_picture

        if result.moments:
            facts["picture"] = str(save_picture(result.strongest.prediction, picture))
    if annotated is not None:
        from ahmsa_model.pictures.annotated import save_annotated

        facts["annotated"] = str(save_annotated(result, annotated))
    if as_json:
        print_json(facts)
        return
    rate = f", {facts['fps']:.4g} frames per second" if facts["fps"] else ""
    click.echo(f"{facts['video']}: {facts['frames']} frames{rate}")
    if options["every"]:
        click.echo(
            f"{len(result.moments)} candidate moment(s) that move more than {facts['threshold_px']:.2f} px; "
            "a spotting aid, not a detector"
        )
    for moment in facts["moments"]:
        click.echo(
            f"onset {moment['onset']}, apex {moment['apex']} ({moment['apex_source']}), "
            f"moves {moment['movement_px']:.2f} px"
        )
        print_probabilities(moment["probabilities"])
    _say(facts["warnings"], facts.get("picture"), facts.get("annotated"))


def _say(warnings: list[str], picture: str | None, annotated: str | None) -> None:
    if picture:
        click.echo(f"picture: {picture}")
    if annotated:
        click.echo(f"annotated video: {annotated}")
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
