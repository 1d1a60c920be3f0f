"""A notebook's parameters: their names, types and defaults, and values for them given as text.

Parameters stand in the one cell tagged `parameters`, a typed literal with a comment on each line:

    EPOCHS: int = 20  # passes over the training samples
    BACKBONES: list[str] = ["DIN"]  # names in rec_utils.ctr.MODELS

Types are int, float, bool, str, `list[...]` of these, and `... | None`. The cell is read as Python, since
papermill's own inspection, a pattern per line, silently drops what it cannot match (`int | None`, a value
that contains "=" or "#").
"""

from __future__ import annotations

import ast
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rec_utils.errors import UserError

#: Longest range and largest grid; beyond it a slip of the finger is more likely than an intention.
MAX_VALUES = 10_000

_SCALARS = {"int": int, "float": float, "bool": bool, "str": str}
_RANGE = re.compile(r"([+-]?\d+)\.\.([+-]?\d+)")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a notebook."""

    name: str
    type: str  #: the annotation as written
    default: Any
    help: str  #: the comment on its line


def read_cells(notebook: Path) -> list[dict[str, Any]]:
    """Cells of a notebook as they stand in its JSON, each with its source as one text.

    Raises `UserError` if the file is missing or not a whole notebook. (The nbformat library would do the
    same, but needs a second for its import.)
    """
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        return [cell | {"source": "".join(cell["source"])} for cell in cells]
    except FileNotFoundError:
        raise UserError(f"there is no notebook {notebook}") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{notebook} is not a whole notebook") from None


def read_parameters(notebook: Path) -> dict[str, Parameter]:
    """Parameters of a notebook by name, in their order.

    Raises `UserError` for a notebook without exactly one `parameters` cell, or naming the line of that cell
    that is not a typed literal of its type.
    """
    cells = [
        cell
        for cell in read_cells(notebook)
        if cell["cell_type"] == "code" and "parameters" in cell["metadata"].get("tags", [])
    ]
    if len(cells) != 1:
        raise UserError(f"{notebook.name} needs one code cell tagged 'parameters', but has {len(cells)}")
    return parse_cell(cells[0]["source"], notebook.name)


def parse_cell(source: str, where: str) -> dict[str, Parameter]:
    """Parameters in the source of a `parameters` cell; `where` names the notebook in errors."""
    lines = source.splitlines()
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise UserError(f"{where}: the parameters cell is not Python: line {error.lineno}") from None
    parameters = {}
    for statement in statements:
        at = f"{where}: parameters cell, line {statement.lineno} ({lines[statement.lineno - 1].strip()!r})"
        if not (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and statement.value
        ):
            raise UserError(f"{at}: write a typed literal such as NAME: int = 3  # comment")
        name, annotation = statement.target.id, ast.unparse(statement.annotation)
        if not _is_known(statement.annotation):
            raise UserError(
                f"{at}: type {annotation} is not int, float, bool, str, a list of these or ... | None"
            )
        try:
            default = ast.literal_eval(statement.value)
        except (ValueError, TypeError):
            raise UserError(f"{at}: the value must be a literal, not computed") from None
        if not _conforms(statement.annotation, default):
            raise UserError(f"{at}: the value is not of type {annotation}")
        if name in parameters:
            raise UserError(f"{at}: {name} stands twice")
        rest = lines[statement.end_lineno - 1].encode()[statement.end_col_offset :].decode()
        parameters[name] = Parameter(name, annotation, default, rest.strip().lstrip("#").strip())
    return parameters


def parse_values(parameter: Parameter, text: str) -> list[Any]:
    """The values that `text` gives for a parameter: `DIN,DCNv2`, `0..4`, `1e-3,1e-4`, `true`, `[1,5],[10]`.

    Values are separated by commas; a comma inside quotes or brackets belongs to the value. `a..b` is the
    range of the integers a to b, both included. Raises `UserError` naming parameter and value.
    """
    kind = ast.parse(parameter.type, mode="eval").body
    values: list[Any] = []
    for part in _split(text, parameter.name):
        bounds = _RANGE.fullmatch(part)
        if bounds and _accepts_int(kind):
            low, high = map(int, bounds.groups())
            if high < low:
                raise UserError(f"parameter {parameter.name}: the range {part} is empty; write {high}..{low}")
            if high - low >= MAX_VALUES:
                raise UserError(f"parameter {parameter.name}: the range {part} has over {MAX_VALUES} values")
            values += range(low, high + 1)
            continue
        try:
            values.append(_convert(kind, part))
        except ValueError:
            raise UserError(f"parameter {parameter.name}: {part!r} is not of type {parameter.type}") from None
    return list({repr(value): value for value in values}.values())


def _is_known(kind: ast.expr) -> bool:
    match kind:
        case ast.Name(id=name):
            return name in _SCALARS
        case ast.Subscript(value=ast.Name(id="list"), slice=element):
            return _is_known(element)
        case ast.BinOp(left=left, op=ast.BitOr(), right=ast.Constant(value=None)):
            return _is_known(left)
    return False


def _conforms(kind: ast.expr, value: Any) -> bool:
    match kind:
        case ast.Name(id=name):
            return type(value) is _SCALARS[name]
        case ast.Subscript(slice=element):
            return isinstance(value, list) and all(_conforms(element, item) for item in value)
        case ast.BinOp(left=left):
            return value is None or _conforms(left, value)
    raise AssertionError(ast.dump(kind))


def _accepts_int(kind: ast.expr) -> bool:
    return ast.unparse(kind) in ("int", "int | None")


def _convert(kind: ast.expr, text: str) -> Any:
    """`text` as a value of type `kind`; ValueError if it is none."""
    match kind:
        case ast.Name(id="int"):
            return int(text)
        case ast.Name(id="float"):
            number = float(text)
            if not math.isfinite(number):
                raise ValueError(text)
            return number
        case ast.Name(id="bool"):
            if text.lower() not in ("true", "false"):
                raise ValueError(text)
            return text.lower() == "true"
        case ast.Name(id="str"):
            quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
            return text[1:-1] if quoted else text
        case ast.Subscript(slice=element):
            if not (text.startswith("[") and text.endswith("]")):
                raise ValueError(text)
            inner = text[1:-1].strip()
            return [_convert(element, part) for part in _split(inner, "list")] if inner else []
        case ast.BinOp(left=left):
            return None if text.lower() == "none" else _convert(left, text)
    raise AssertionError(ast.dump(kind))


def _split(text: str, name: str) -> list[str]:
    """Parts of `text` between the commas that stand outside quotes and brackets."""
    parts, start, quote, depth, before = [], 0, "", 0, ","
    for i, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"" and before in ",[":  # elsewhere, as inside a word, it is an apostrophe
            quote = char
        elif char in "[]":
            depth += 1 if char == "[" else -1
        elif char == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
        if not char.isspace():
            before = char
    if quote or depth:
        raise UserError(f"parameter {name}: {text!r} has {'an open quote' if quote else 'unpaired brackets'}")
    parts.append(text[start:].strip())
    if not all(parts):
        raise UserError(f"parameter {name}: {text!r} has an empty value; write '' for an empty text")
    return parts
