"""What `make docs` does to docstrings: a doctest without a heading becomes the section `Examples`."""

import re
from typing import Any

from griffe import Extension, Object

_FIRST = re.compile(r"^>>> ", re.MULTILINE)


class Doctests(Extension):
    """Give doctests the heading by which the reference shows them as code."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite one docstring, as it was loaded."""
        first = obj.docstring and _FIRST.search(obj.docstring.value)
        if obj.docstring and first:
            text, examples = obj.docstring.value[: first.start()], obj.docstring.value[first.start() :]
            indented = "\n".join(f"    {line}".rstrip() for line in examples.splitlines())
            obj.docstring.value = f"{text}\nExamples:\n{indented}"
