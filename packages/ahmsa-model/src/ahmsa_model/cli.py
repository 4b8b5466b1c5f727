"""The command line `ahmsa`; torch is imported only by the command that needs it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ahmsa_model import __version__
from ahmsa_model.errors import AHMSAError, ConfigError

if TYPE_CHECKING:
    from ahmsa_model.network import Hierarchy

PATH = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ahmsa")
def cli() -> None:
    """AHMSA-Net for micro-expression recognition: look at its variants, classify your own frames.

    Score it with `mer-bench run ahmsa`; train one to keep with `mer-bench fit ahmsa`.

    Exit codes: 0 done, 1 failed (the reason is printed), 2 usage.
    """


@cli.command("variants")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def variants_command(as_json: bool) -> None:
    """List the named variants with their parameter counts."""
    from ahmsa_model.config import VARIANTS, variant_config

    counts = {name: variant_config(name).parameters for name in VARIANTS}
    if as_json:
        _print_json(
            [{"variant": name, "parameters": counts[name], "options": VARIANTS[name]} for name in VARIANTS]
        )
        return
    for name, options in VARIANTS.items():
        given = ", ".join(f"{key}={value}" for key, value in options.items()) or "the paper's options"
        click.echo(f"{name:<18} {counts[name]:>12,}  {given}")


@cli.command("info")
@click.option("--variant", help="A named variant; `paper` unless a checkpoint is given.")
@click.option("--checkpoint", help="A checkpoint: its folder, or a hub id as name/my-ahmsa.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info_command(variant: str | None, checkpoint: str | None, as_json: bool) -> None:
    """Show a network's options, levels and parameter count."""
    if variant and checkpoint:
        raise click.UsageError("give --variant or --checkpoint, not both")
    from ahmsa_model.config import variant_config

    if checkpoint:
        from ahmsa_model.checkpoint import AHMSANet

        network = AHMSANet.from_pretrained(checkpoint)
        facts = {**_describe(network), "metadata": network.metadata.model_dump()}
    else:
        import torch

        from ahmsa_model.network import Hierarchy

        with torch.device("meta"):
            facts = _describe(Hierarchy(variant_config(variant or "paper")))
    if as_json:
        _print_json(facts)
        return
    for name, value in facts["config"].items():
        click.echo(f"{name:<24} {value}")
    click.echo("")
    for level in facts["levels"]:
        click.echo(
            f"level {level['level']}: {level['grid']}×{level['grid']} patches, {level['width']} channels, "
            f"{level['heads']} heads of {level['head_width']}, {level['blocks']} blocks"
        )
    click.echo(
        f"parameters: {facts['parameters']:,}, of them {facts['untrained']:,} "
        "without gradient (see the README)"
    )
    if "metadata" in facts:
        known = {name: value or "?" for name, value in facts["metadata"].items()}
        click.echo(f"classes: {', '.join(known['classes'])} (scheme {known['scheme']})")
        click.echo(f"input: {known['view']}:{known['normalisation']}, pipeline {known['pipeline_hash']}")
        click.echo(f"training: {json.dumps(facts['metadata']['training'], ensure_ascii=False)}")


@cli.command("predict")
@click.option("--checkpoint", required=True, help="A checkpoint: its folder, or a hub id as name/my-ahmsa.")
@click.option("--onset", type=PATH, help="Image of the onset frame.")
@click.option("--apex", type=PATH, help="Image of the apex frame.")
@click.option("--clip", type=PATH, help="Folder of frames instead: onset first, apex spotted.")
@click.option("--spotter", help="How --clip finds the apex; the checkpoint's pipeline decides unless given.")
@click.option("--cropped", is_flag=True, help="The frames are face crops already.")
@click.option(
    "--default-pipeline", is_flag=True, help="Use mer-flow's defaults if the checkpoint records no pipeline."
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Change a parameter of mer-flow's pipeline, as in faces.upsample=2; repeatable.",
)
@click.option("--picture", type=PATH, help="Draw faces, flow, input and probabilities here.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def predict_command(
    checkpoint: str, clip: Path | None, spotter: str | None, picture: Path | None, **options: Any
) -> None:
    """Classify a micro-expression from its onset and apex frames, or from a clip."""
    onset, apex, device, as_json = (options.pop(name) for name in ("onset", "apex", "device", "as_json"))
    if (clip is None) == (onset is None and apex is None):
        raise click.UsageError("give --onset and --apex, or --clip")
    if clip is None and (onset is None or apex is None):
        missing = "apex" if apex is None else "onset"
        raise click.UsageError(f"--{missing} is missing: a pair needs both frames")
    if spotter and clip is None:
        raise click.UsageError("--spotter goes with --clip: the apex of a pair is given")
    from ahmsa_model.checkpoint import AHMSANet
    from ahmsa_model.predict import predict_clip, predict_pair

    network = AHMSANet.from_pretrained(checkpoint, _device(device))
    if clip is not None:
        result = predict_clip(network, clip, method=spotter, **options)
    else:
        result = predict_pair(network, onset, apex, **options)
    facts = result.to_dict()
    if picture is not None:
        from ahmsa_model.picture import save_picture

        facts["picture"] = str(save_picture(result, picture))
    if as_json:
        _print_json(facts)
        return
    for name, share in sorted(facts["probabilities"].items(), key=lambda item: -item[1]):
        click.echo(f"{name:<16} {share:6.3f}  {'█' * round(share * 40)}")
    if clip is not None:
        click.echo(f"onset {facts['onset']}, apex {facts['apex']} ({facts['apex_source']})")
    if picture is not None:
        click.echo(f"picture: {facts['picture']}")
    for warning in facts["warnings"]:
        click.echo(f"warning: {warning}", err=True)


def _print_json(facts: Any) -> None:
    click.echo(json.dumps(facts, indent=2, ensure_ascii=False))


def _describe(network: Hierarchy) -> dict[str, Any]:
    config = network.config
    levels = zip(config.grids, config.widths, config.level_heads, config.blocks, strict=True)
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    return {
        "config": config.model_dump(mode="json"),
        "levels": [
            {"level": n, "grid": g, "width": w, "heads": h, "head_width": config.head_width, "blocks": b}
            for n, (g, w, h, b) in enumerate(levels, start=1)
        ],
        "parameters": sum(sizes.values()),
        "untrained": sum(sizes[name] for name in network.untrained_parameters()),
    }


def _device(name: str) -> str:
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return "cuda" if there else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise click.UsageError(f"unknown device '{name}'; use auto, cpu, cuda or cuda:<number>")
    if name != "cpu" and int(name[5:] or 0) >= there:
        raise click.UsageError(f"device '{name}' is not there (torch sees {there} GPUs); use --device cpu")
    return name


def main() -> None:
    """Run the command line; an error of this package becomes one clear message and an exit code."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2 if isinstance(error, click.UsageError) else 1)
    except click.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except AHMSAError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)


if __name__ == "__main__":
    main()
