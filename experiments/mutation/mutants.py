"""Small faults of a source file, one at a time: another comparison, sign, number, condition, or no statement.

What is only words is left alone: strings, docstrings, what a refusal says, annotations but for the bounds in
them (``Field(gt=0)``), and decorators.

>>> for one in mutants("x.py", "def half(n):\\n    return n / 2 if n > 0 else 0\\n"):
...     print(one.line, one.place, one.change)
2 half > -> <=
2 half > -> >=
2 half 0 -> 1
2 half / -> *
2 half 2 -> 3
2 half 0 -> 1
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.GtE, ast.LtE),
    ast.LtE: (ast.Gt, ast.Lt),
    ast.Gt: (ast.LtE, ast.GtE),
    ast.GtE: (ast.Lt, ast.Gt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Add,
}
FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any", "floor": "ceil", "ceil": "floor"}
SIGNS = {
    "Lt": "<", "LtE": "<=", "Gt": ">", "GtE": ">=", "Eq": "==", "NotEq": "!=", "Is": "is", "IsNot": "is not",
    "In": "in", "NotIn": "not in", "Add": "+", "Sub": "-", "Mult": "*", "Div": "/", "FloorDiv": "//",
    "Mod": "%", "Pow": "**", "MatMult": "@", "And": "and", "Or": "or",
}  # fmt: skip
GONE = "statement -> nothing"


@dataclass(frozen=True)
class Mutant:
    """One fault. What names it for good is everything but ``line``."""

    path: str
    place: str
    """The function, with its class; empty at the top of the file."""
    source: str
    """The line it is in."""
    change: str
    nth: int
    """Of the same change in the same line, from 1."""
    line: int
    number: int
    """Of all in the file, from 0."""

    @property
    def name(self) -> tuple[str, str, str, str, int]:
        """What stays while lines move."""
        return self.path, self.place, self.source, self.change, self.nth


@dataclass(frozen=True)
class _Edit:
    place: str
    line: int
    change: str
    parent: ast.AST
    field: str
    index: int | None
    new: ast.AST

    def do(self) -> None:
        if self.index is None:
            setattr(self.parent, self.field, self.new)
        else:
            getattr(self.parent, self.field)[self.index] = self.new


def mutants(path: str, source: str) -> list[Mutant]:
    """Every mutant of a file, in its order."""
    lines, seen, found = source.splitlines(), Counter[tuple[str, str, str]](), []
    for number, edit in enumerate(_edits(ast.parse(source))):
        text = lines[edit.line - 1].strip()
        seen[edit.place, text, edit.change] += 1
        nth = seen[edit.place, text, edit.change]
        found.append(Mutant(path, edit.place, text, edit.change, nth, edit.line, number))
    return found


def mutated(source: str, number: int | None) -> ast.Module:
    """The file with fault ``number`` in it, or as it is."""
    tree = ast.parse(source)
    if number is not None:
        list(_edits(tree))[number].do()
    return ast.fix_missing_locations(tree)


def _edits(tree: ast.Module) -> Iterator[_Edit]:
    for parent, field, index, node, place in _walk(tree, ""):
        line = getattr(node, "lineno", 0) or getattr(parent, "lineno", 0)
        for change, new in _changed(node):
            yield _Edit(place, line, change, parent, field, index, ast.copy_location(new, node))


def _walk(node: ast.AST, place: str) -> Iterator[tuple[ast.AST, str, int | None, ast.AST, str]]:
    for field, value in ast.iter_fields(node):
        if field == "decorator_list" or (
            isinstance(node, ast.Raise | ast.FormattedValue) and field != "value"
        ):
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(child, ast.AST) or _is_words(child):
                continue
            if field in ("annotation", "returns"):
                yield from _bounds(child, place)
                continue
            yield node, field, index, child, place
            inside = isinstance(child, ast.FunctionDef | ast.ClassDef)
            yield from _walk(child, f"{place}.{child.name}".lstrip(".") if inside else place)


def _bounds(annotation: ast.AST, place: str) -> Iterator[tuple[ast.AST, str, int | None, ast.AST, str]]:
    """Only what is called in an annotation says something that a program checks."""
    for one in ast.walk(annotation):
        if isinstance(one, ast.Call):
            yield from _walk(one, place)


def _is_words(node: ast.AST) -> bool:
    docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    imports = isinstance(node, ast.Import | ast.ImportFrom)
    return docstring or imports or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")


def _changed(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What may stand in a node's place, each with what it is."""
    match node:
        case ast.Compare():
            for index, operator in enumerate(node.ops):
                for other in COMPARISONS[type(operator)]:
                    new = copy.deepcopy(node)
                    new.ops[index] = other()
                    yield _said(operator, other()), new
        case ast.BoolOp():
            other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield _said(node.op, other), ast.BoolOp(other, copy.deepcopy(node.values))
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield f"{ast.unparse(node)} -> {ast.unparse(node.operand)}", copy.deepcopy(node.operand)
        case ast.BinOp() if type(node.op) in ARITHMETIC:
            new = copy.deepcopy(node)
            new.op = ARITHMETIC[type(node.op)]()
            yield _said(node.op, new.op), new
        case ast.AugAssign() if type(node.op) in ARITHMETIC:
            new = copy.deepcopy(node)
            new.op = ARITHMETIC[type(node.op)]()
            yield f"{SIGNS[type(node.op).__name__]}= -> {SIGNS[type(new.op).__name__]}=", new
            yield GONE, ast.Pass()
        case ast.Constant(value=bool()):
            yield f"{node.value} -> {not node.value}", ast.Constant(not node.value)
        case ast.Constant(value=int() | float()):
            other = node.value + 1 if isinstance(node.value, int) else 2 * node.value or 1.0
            yield f"{node.value} -> {other}", ast.Constant(other)
        case ast.Name(id=name) if name in FUNCTIONS:
            yield f"{name} -> {FUNCTIONS[name]}", ast.Name(FUNCTIONS[name], node.ctx)
        case ast.Attribute(attr=name) if name in FUNCTIONS:
            yield f"{name} -> {FUNCTIONS[name]}", ast.Attribute(node.value, FUNCTIONS[name], node.ctx)
        case ast.Expr() | ast.Raise():
            yield GONE, ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield GONE, ast.Pass()
        case ast.Continue():
            yield "continue -> break", ast.Break()
        case ast.Break():
            yield "break -> continue", ast.Continue()
        case ast.If() | ast.IfExp() | ast.While() if not isinstance(
            node.test, ast.Compare | ast.BoolOp | ast.UnaryOp
        ):
            new = copy.deepcopy(node)
            new.test = ast.UnaryOp(ast.Not(), new.test)
            yield f"{ast.unparse(node.test)} -> not", new


def _said(before: ast.AST, after: ast.AST) -> str:
    return f"{SIGNS[type(before).__name__]} -> {SIGNS[type(after).__name__]}"
