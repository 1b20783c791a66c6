"""Write every catalogue anew from the code: ``python -m fedfsd.language``. Translations are kept.

Sentences are literals given to the functions of ``SAID``, in templates to ``_``, and the first line of
every check's docstring, which is the claim that the check tests; of a table given to ``_columns``, the
second cell of each line, which is a heading. Literals that errors are raised with are said on pages.
"""

from __future__ import annotations

import ast
import io
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from fedfsd.language import DOMAIN, HERE

ROOT = HERE.parent
SAID: Mapping[str, tuple[int, ...]] = {
    "say": (0,),
    "mark": (0,),
    # Labels of facts.
    "recomputed": (0,),
    "declared": (0,),
    "by_program": (0,),
    "by_region": (0,),
}
"""Functions by name, and which of their arguments are said: literals there are sentences."""
_KEYWORDS: dict[str, Any] = {"_": None, "ngettext": (1, 2)}
_METHODS = [("**.py", f"{__name__}:sentences"), ("**.html", "jinja2"), ("**.md", "jinja2")]
_OPTIONS = {"**.html": {"silent": "false"}, "**.md": {"silent": "false"}}
_PYTHON_ERRORS = [("**.py", f"{__name__}:errors")]
_FOLDERS = (
    *((name, _METHODS) for name in ("audit", "mechanism", "gate", "node", "report", "task", "cli")),
    # What the page of a run may refuse to show.
    *((name, _PYTHON_ERRORS) for name in ("cli/page", "plan", "report")),
)


def template() -> Catalog:
    """Every sentence that can be said, without translations."""
    found = Catalog(project=DOMAIN, fuzzy=False)
    for folder, methods in _FOLDERS:
        rows = extract_from_dir(ROOT / folder, methods, _OPTIONS, _KEYWORDS)
        for name, _, message, comments, context in rows:
            place = f"fedfsd/{folder}/{name}"
            # Lines are left out: they would change with every edit.
            found.add(message, None, [(place, 0)], auto_comments=comments, context=context)
    return found


def sentences(
    file: IO[bytes], *_: object, options: object
) -> Iterator[tuple[int, str | None, Any, list[str]]]:
    """Babel's interface for extraction: (line, function, sentence or its two numbers, comments)."""
    del options  # there are none
    for node in ast.walk(ast.parse(file.read())):
        match node:
            case ast.FunctionDef(name=name, lineno=line, returns=ast.Subscript()) if name.startswith(
                "check_"
            ):
                yield line, None, (ast.get_docstring(node) or "").partition("\n")[0], []
            case ast.Call(func=ast.Name(id="_columns"), args=[ast.Constant(value=str(table))], lineno=line):
                for row in table.strip().splitlines():
                    yield line, None, row.split("|")[1].strip(), []
            case ast.Call(func=ast.Name(id="say_count"), args=[one, many, *_], lineno=line):
                yield line, "ngettext", (_literal(one), _literal(many)), []
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), lineno=line):
                for place in SAID.get(name, ()):
                    if len(node.args) > place and (text := _literal(node.args[place])):
                        yield line, None, text, []


def errors(file: IO[bytes], *_: object, options: object) -> Iterator[tuple[int, None, str, list[str]]]:
    """The same for what errors are raised with, as far as it is literal."""
    del options
    for node in ast.walk(ast.parse(file.read())):
        match node:
            case ast.Call(func=ast.Name(id=name), keywords=given, lineno=line) if name.endswith("Error"):
                for one in given:
                    if text := _literal(one.value):
                        yield line, None, text, []


def _literal(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def read(path: Path) -> Catalog:
    """A catalogue as it is kept."""
    with path.open("rb") as file:
        return read_po(file)


def compiled(catalogue: Catalog) -> bytes:
    """The catalogue as gettext reads it."""
    made = io.BytesIO()
    write_mo(made, catalogue)
    return made.getvalue()


def main(path: Path) -> int:
    """Bring one catalogue up to date with the code; how many sentences it lacks."""
    catalogue = read(path)
    written = catalogue.creation_date
    catalogue.update(template(), no_fuzzy_matching=True)
    catalogue.obsolete.clear()
    catalogue.creation_date = written  # else the file would differ each time
    with path.open("wb") as file:
        write_po(file, catalogue, width=110, sort_output=True, include_lineno=False, omit_header=False)
    path.with_suffix(".mo").write_bytes(compiled(read(path)))
    return sum(not one.string or one.string == ("",) for one in catalogue if one.id)


if __name__ == "__main__":
    missing = {str(one): main(one) for one in sorted(HERE.glob(f"*/LC_MESSAGES/{DOMAIN}.po"))}
    for name, count in missing.items():
        print(f"{name}: {count} sentences without a translation")
    sys.exit(any(missing.values()))
