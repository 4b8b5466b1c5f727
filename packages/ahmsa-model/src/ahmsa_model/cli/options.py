"""What the commands share: options, the device, JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")

checkpoint_option = click.option(
    "--checkpoint", required=True, help="A checkpoint: its folder, or a hub id as name/my-ahmsa."
)

#: What names the frames to look at, and how they become flow.
INPUT = ("onset", "apex", "video", "fps", "spotter", "cropped", "default_pipeline", "settings")


def input_options(command: _Command) -> _Command:
    """Add the options of `INPUT`."""
    for option in (
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="SECTION.KEY=VALUE",
            help="Change a parameter of mer-flow's pipeline, as in faces.upsample=2; repeatable.",
        ),
        click.option(
            "--default-pipeline",
            is_flag=True,
            help="Use mer-flow's defaults if the checkpoint records no pipeline.",
        ),
        click.option("--cropped", is_flag=True, help="The frames are face crops already."),
        click.option("--spotter", help="How a video's apex is found; the checkpoint's pipeline decides."),
        click.option(
            "--fps", type=float, help="Frames per second of a folder, or in place of what a video says."
        ),
        click.option("--video", type=PATH, help="Instead: a video file, or a folder of numbered frames."),
        click.option("--apex", help="Image of the apex frame; of a video a moment: 30 (frame) or 0.5s."),
        click.option("--onset", help="Image of the onset frame; of a video a moment: 12 (frame) or 0.2s."),
    ):
        command = option(command)
    return command


def check_input(options: dict[str, Any]) -> None:
    """Refuse options of `INPUT` that do not fit together."""
    pair = [name for name in ("onset", "apex") if options["video"] is None and options[name] is None]
    if len(pair) == 2:
        raise click.UsageError("give --onset and --apex (images), or --video (a file or a folder of frames)")
    if pair:
        raise click.UsageError(f"--{pair[0]} is missing: a pair needs both frames")
    if options["video"] is None:
        for name in ("spotter", "fps", "every"):
            if options.get(name) is not None:
                raise click.UsageError(f"--{name} goes with --video: the apex of a pair is given")


def find_device(name: str) -> str:
    """Return a device of torch; a usage error where it is unknown or absent."""
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return "cuda" if there else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise click.UsageError(f"unknown device '{name}'; use auto, cpu, cuda or cuda:<number>")
    if name != "cpu" and int(name[5:] or 0) >= there:
        raise click.UsageError(f"device '{name}' is not there (torch sees {there} GPUs); use --device cpu")
    return name


def print_json(facts: Any) -> None:
    """Print facts as JSON."""
    click.echo(json.dumps(facts, indent=2, ensure_ascii=False))


def print_probabilities(probabilities: dict[str, float]) -> None:
    """Print a bar per class, the most probable first."""
    for name, share in sorted(probabilities.items(), key=lambda item: -item[1]):
        click.echo(f"{name:<16} {share:6.3f}  {'█' * round(share * 40)}")
