"""The model card of a checkpoint: what the weights are, what to expect of them, whose data they saw."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mer_bench.models.spec import ModelSpec

if TYPE_CHECKING:
    from mer_bench.weights.checkpoint import Record


def model_card(spec: ModelSpec, record: Record) -> str:
    """Write the card of a network that `mer-bench fit` trained.

    Args:
        spec: Its model.
        record: What its config says.

    Returns:
        Markdown with a YAML head, as the Hugging Face Hub shows it.
    """
    from jinja2 import Environment, StrictUndefined

    training: dict[str, Any] = record.metadata.training
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    template = environment.from_string(Path(__file__).with_name("card.md.jinja").read_text(encoding="utf-8"))
    config, recipe = record.config, training["recipe"]
    fields = ("epochs", "batch_size", "optimizer", "lr", "weight_decay", "schedule", "loss")
    return template.render(
        spec=spec,
        metadata=record.metadata,
        training=training,
        score=training.get("score"),
        shape=f"{config['in_channels']} x {config['map_size']} x {config['map_size']}",
        recipe=", ".join(f"{name} {recipe[name]}" for name in fields),
    )
