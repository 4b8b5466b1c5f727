"""`ahmsa variants` and `ahmsa info`: what a network is made of."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from ahmsa_model.cli.options import json_option, print_json

if TYPE_CHECKING:
    from ahmsa_model.network import Hierarchy


@click.command("variants")
@json_option
def variants_command(as_json: bool) -> None:
    """List the named variants with their parameter counts."""
    from ahmsa_model.config import VARIANTS, variant_config

    counts = {name: variant_config(name).parameters for name in VARIANTS}
    if as_json:
        print_json(
            [{"variant": name, "parameters": counts[name], "options": VARIANTS[name]} for name in VARIANTS]
        )
        return
    for name, options in VARIANTS.items():
        given = ", ".join(f"{key}={value}" for key, value in options.items()) or "the paper's options"
        click.echo(f"{name:<18} {counts[name]:>12,}  {given}")


@click.command("info")
@click.option("--variant", help="A named variant; `paper` unless a checkpoint is given.")
@click.option("--checkpoint", help="A checkpoint: its folder, or a hub id as name/my-ahmsa.")
@json_option
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
        print_json(facts)
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
