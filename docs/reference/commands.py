"""What `make docs` puts where a page says `::: commands MODULE NAME`: every help, as a terminal shows it."""

import importlib
import re
from collections.abc import Iterator
from typing import Any

import click

_HERE = re.compile(r"^::: commands (\S+) (\S+)$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in one page."""
    return _HERE.sub(lambda found: "\n".join(_of(importlib.import_module(found[1]).cli, found[2])), markdown)


def _of(command: click.Command, name: str, above: click.Context | None = None) -> Iterator[str]:
    context = click.Context(command, above, name, max_content_width=96)
    path = context.command_path
    yield f"{'#' * min(len(path.split()), 3)} {path}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for part in command.list_commands(context):
            found = command.get_command(context, part)
            if found is not None:
                yield from _of(found, part, context)
