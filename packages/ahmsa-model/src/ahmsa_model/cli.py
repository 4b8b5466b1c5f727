"""The command line `ahmsa`; torch is imported only by the command that needs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from ahmsa_model import __version__
from ahmsa_model.config import VARIANTS, AHMSAConfig, variant_config
from ahmsa_model.errors import AHMSAError, ConfigError


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
    from ahmsa_model.network import count_parameters

    rows: list[dict[str, Any]] = [
        {"variant": name, "parameters": count_parameters(variant_config(name)), "options": options}
        for name, options in VARIANTS.items()
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        options: dict[str, Any] = row["options"]
        given = ", ".join(f"{key}={value}" for key, value in options.items()) or "the paper's options"
        click.echo(f"{row['variant']:<18} {row['parameters']:>12,}  {given}")


@cli.command("info")
@click.option("--variant", help="A named variant; `paper` unless a checkpoint is given.")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="A checkpoint folder.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info_command(variant: str | None, checkpoint: Path | None, as_json: bool) -> None:
    """Show a network's options, levels and parameter count."""
    if variant and checkpoint:
        raise click.UsageError("give --variant or --checkpoint, not both")
    metadata: dict[str, Any] | None = None
    if checkpoint:
        from ahmsa_model.checkpoint import from_pretrained

        loaded = from_pretrained(checkpoint)
        config, metadata = loaded.network.config, loaded.metadata.to_dict()
    else:
        config = variant_config(variant or "paper")
    facts = _describe(config)
    if metadata is not None:
        facts["metadata"] = metadata
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
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
    if metadata is not None:
        classes = ", ".join(metadata["classes"]) or "not named"
        click.echo(f"classes: {classes} (scheme {metadata['scheme'] or 'not named'})")
        click.echo(f"input: {metadata['view'] or '?'}:{metadata['normalisation'] or '?'}, ", nl=False)
        click.echo(f"pipeline {metadata['pipeline_hash'] or 'not recorded'}")
        click.echo(f"training: {json.dumps(metadata['training'], ensure_ascii=False)}")


@cli.command("predict")
@click.option("--checkpoint", type=click.Path(path_type=Path), required=True, help="A checkpoint folder.")
@click.option("--onset", type=click.Path(path_type=Path), help="Image of the onset frame.")
@click.option("--apex", type=click.Path(path_type=Path), help="Image of the apex frame.")
@click.option(
    "--clip", type=click.Path(path_type=Path), help="Folder of frames instead: onset first, apex spotted."
)
@click.option("--spotter", help="How --clip finds the apex; the checkpoint's pipeline decides unless given.")
@click.option("--cropped", is_flag=True, help="The frames are face crops already.")
@click.option(
    "--default-pipeline", is_flag=True, help="Use mer-flow's defaults if the checkpoint records no pipeline."
)
@click.option(
    "--picture", type=click.Path(path_type=Path), help="Draw faces, flow, input and probabilities here."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def predict_command(
    checkpoint: Path,
    onset: Path | None,
    apex: Path | None,
    clip: Path | None,
    spotter: str | None,
    cropped: bool,
    default_pipeline: bool,
    picture: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Classify a micro-expression from its onset and apex frames, or from a clip."""
    if (clip is None) == (onset is None and apex is None):
        raise click.UsageError("give --onset and --apex, or --clip")
    if clip is None and (onset is None or apex is None):
        raise click.UsageError(
            f"--{'apex' if apex is None else 'onset'} is missing: a pair needs both frames"
        )
    if spotter and clip is None:
        raise click.UsageError("--spotter goes with --clip: the apex of a pair is given")
    from ahmsa_model.checkpoint import from_pretrained
    from ahmsa_model.predict import predict_clip, predict_pair

    loaded = from_pretrained(checkpoint, _device(device))
    if clip is not None:
        result = predict_clip(
            loaded, clip, method=spotter, cropped=cropped, default_pipeline=default_pipeline
        )
    else:
        assert onset is not None and apex is not None
        result = predict_pair(loaded, onset, apex, cropped=cropped, default_pipeline=default_pipeline)
    facts = result.to_dict()
    if picture is not None:
        from ahmsa_model.picture import save_picture

        facts["picture"] = str(save_picture(result, picture))
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    for name, share in sorted(facts["probabilities"].items(), key=lambda item: -item[1]):
        click.echo(f"{name:<16} {share:6.3f}  {'█' * round(share * 40)}")
    if clip is not None:
        click.echo(f"onset {facts['onset']}, apex {facts['apex']} ({facts['apex_source']})")
    if picture is not None:
        click.echo(f"picture: {facts['picture']}")
    for warning in facts["warnings"]:
        click.echo(f"warning: {warning}", err=True)


def _describe(config: AHMSAConfig) -> dict[str, Any]:
    import torch

    from ahmsa_model.network import AHMSANet

    with torch.device("meta"):
        network = AHMSANet(config)
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    return {
        "config": config.to_dict(),
        "levels": [
            {
                "level": level + 1,
                "grid": config.grids[level],
                "width": config.widths[level],
                "heads": config.level_heads[level],
                "head_width": config.head_width,
                "blocks": config.blocks[level],
            }
            for level in range(config.levels)
        ],
        "parameters": sum(sizes.values()),
        "untrained": sum(sizes[name] for name in network.untrained_parameters()),
    }


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (":" in name and not (kind == "cuda" and index.isdigit())):
        raise click.UsageError(f"unknown device '{name}'; use auto, cpu, cuda or cuda:<number>")
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cuda" and int(index or 0) >= there:
        raise click.UsageError(f"device '{name}' is not there (torch sees {there} GPUs); use --device cpu")
    return name


def main() -> None:
    """Runs the command line; an error of this package becomes one clear message and an exit code."""
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
