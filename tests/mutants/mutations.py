"""Plausible bugs in one module: mutmut's operators, two of our own, and what is no bug."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import libcst as cst
from mutmut.mutation.mutators import mutation_operators, operator_string

# Text is no behaviour: string literals are left alone, and so is whatever is inside a message.
# How the names of calls that carry one end.
SPEAKING = ("warn", "warning", "info", "debug", "echo", "Error", "Warning", "Dropped")
TYPING = ("cast", "TypeVar", "len", "isinstance")
# Arguments that guard or describe and never change a result of right input.
QUIET = ("strict", "encoding", "stacklevel", "description", "help")


@dataclass(frozen=True)
class Mutation:
    """One changed place: the lines it touches, and the whole module with the change."""

    where: str
    """Qualified name of the function or class around it; empty at the module's level."""
    before: str
    after: str
    line: int
    """First changed line of the original, from 1."""
    code: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What stays the same when lines move."""
        return self.where, self.before, self.after


def drop_statement(node: cst.Expr) -> Iterator[cst.CSTNode]:
    """A call for its effect that is forgotten, as in `network.eval()`."""
    if isinstance(node.value, cst.Call):
        yield cst.Pass()


def drop_guard(node: cst.If) -> Iterator[cst.CSTNode]:
    """A branch that is never taken."""
    yield node.with_changes(test=cst.Name("False"))


OPERATORS = [
    *((kind, operator) for kind, operator in mutation_operators if operator is not operator_string),
    (cst.Expr, drop_statement),
    (cst.If, drop_guard),
]


def mutations(source: str, count: int | None = None, seed: int = 0) -> list[Mutation]:
    """List a module's mutations in the order of the source.

    Args:
        source: The module's text.
        count: How many, drawn with `seed`; None for all.
        seed: Of the draw.

    Returns:
        At most `count` mutations that parse and differ from the source.

    >>> [m.after for m in mutations("def half(x):\\n    return x / 2\\n")]
    ['return x * 2', 'return x / 3']
    """
    module = cst.parse_module(source)
    walk = _Walk()
    module.visit(walk)
    drawn = list(range(len(walk.found)))
    random.Random(seed).shuffle(drawn)  # so that a larger sample holds the smaller ones
    made = (_made(source, module, *walk.found[i]) for i in sorted(drawn[:count]))
    return [mutation for mutation in made if mutation is not None]


def _made(source: str, module: cst.Module, where: str, old: cst.CSTNode, new: cst.CSTNode) -> Mutation | None:
    if _drops_text(old, new):
        return None
    code = module.deep_replace(old, new).code
    try:
        compile(code, "mutant", "exec")
    except SyntaxError:  # e.g. a `break` where none may stand
        return None
    before, after = source.splitlines(), code.splitlines()
    first = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), None)
    if first is None:
        return None
    while before[first:] and after[first:] and before[-1] == after[-1]:
        del before[-1], after[-1]
    return Mutation(where, _joined(before[first:]), _joined(after[first:]), first + 1, code)


def _drops_text(old: cst.CSTNode, new: cst.CSTNode) -> bool:
    """Whether a call loses a message among its arguments."""
    if not isinstance(old, cst.Call) or not isinstance(new, cst.Call):
        return False
    kept = {id(argument) for argument in new.args}
    lost = [argument.value for argument in old.args if id(argument) not in kept]
    return any(
        isinstance(value, cst.FormattedString | cst.ConcatenatedString)
        or (isinstance(value, cst.SimpleString) and " " in value.value)
        for value in lost
    )


def _joined(lines: Iterable[str]) -> str:
    return " ".join(line.strip() for line in lines)


class _Walk(cst.CSTVisitor):
    """Collects (where, node, changed node)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, cst.CSTNode, cst.CSTNode]] = []
        self._names: list[str] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if _is_no_behaviour(node):
            return False
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self._names.append(node.name.value)
        for kind, operator in OPERATORS:
            if isinstance(node, kind):
                self.found += [(".".join(self._names), node, changed) for changed in operator(node)]
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if isinstance(original_node, cst.FunctionDef | cst.ClassDef):
            self._names.pop()


def _is_no_behaviour(node: cst.CSTNode) -> bool:
    match node:
        case cst.Annotation() | cst.Decorator() | cst.Raise() | cst.FormattedString() | cst.Import():
            return True
        case cst.Call(func=cst.Name(value=name) | cst.Attribute(attr=cst.Name(value=name))):
            return name.endswith(SPEAKING) or name in TYPING
        case cst.Expr(value=cst.Call() as call):
            return _is_no_behaviour(call)
        case cst.Arg(keyword=cst.Name(value=name)):
            return name in QUIET
        case cst.If(test=cst.Name(value="TYPE_CHECKING")):
            return True
        case cst.Assign(targets=[cst.AssignTarget(target=cst.Name(value="__all__"))]):
            return True
    return False
