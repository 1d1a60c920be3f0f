"""Exercises in a tutorial's notebook: how answers are marked, how they are taken out, and the rules.

An exercise is a cell whose answer stands between nbgrader's markers, inside a function or as a value,

    def total(values):
        \"\"\"Sum of `values`.\"\"\"
        ### BEGIN SOLUTION
        return sum(values)
        ### END SOLUTION

and after it a cell that consists of its check, `sheet.check(1, total)`. nbgrader itself is not needed: its
`ClearSolutions` knows one stub only, which would stop a copy at the first value that is asked for.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from nbformat import NotebookNode

from rec_utils.errors import UserError

MIN_EXERCISES = 5

_SOLUTION = re.compile(r"^( *)### BEGIN SOLUTION\n(.*?)^\1### END SOLUTION$", re.MULTILINE | re.DOTALL)
_MARKER = re.compile(r"(BEGIN|END) SOLUTION")
_CHECK = re.compile(r"sheet\.check\((\d+), (\w+)\)")


def without_answers(source: str) -> str:
    """A cell's source with each marked answer replaced by what a student starts from.

    In a function that is a line that raises `NotImplementedError`, elsewhere `NAME = ...`.

    Raises:
        UserError: a marker has no partner, or a value's answer does not end in the assignment of one name.
    """
    if len(_MARKER.findall(source)) != 2 * len(_SOLUTION.findall(source)):
        raise UserError("it needs a line ### END SOLUTION for each ### BEGIN SOLUTION, equally indented")
    return _SOLUTION.sub(_stub, source)


def _stub(answer: re.Match) -> str:
    indent, code = answer.groups()
    if indent:
        return f"{indent}raise NotImplementedError  # your code here"
    match (ast.parse(code).body or [None])[-1]:
        case ast.Assign(targets=[ast.Name(id=name)]):
            return f"{name} = ...  # your answer here"
    raise UserError("an answer that is no part of a function must end in NAME = value")


def violations(notebook: NotebookNode) -> Iterator[str]:
    """One sentence for each rule of tutorials that a notebook breaks."""
    if "minutes" not in notebook.cells[0].source:
        yield "its title must say how many minutes of class it takes"
    code = {n: cell for n, cell in enumerate(notebook.cells, 1) if cell.cell_type == "code"}
    checks = {n: match for n, cell in code.items() if (match := _CHECK.fullmatch(cell.source.strip()))}
    numbers = [int(match[1]) for match in checks.values()]
    if numbers != list(range(1, len(numbers) + 1)) or len(numbers) < MIN_EXERCISES:
        yield f"it needs {MIN_EXERCISES} exercises or more, numbered 1, 2, ..., and checks {numbers}"
    if not any("sheet.score()" in cell.source for cell in code.values()):
        yield "it does not show the score: sheet.score()"
    for n, cell in code.items():
        try:
            ast.parse(cell.source)
            has_answer = without_answers(cell.source) != cell.source
        except (SyntaxError, UserError) as error:
            yield f"cell {n}: {error}"
            return
        if "sheet.check(" in cell.source and n not in checks:
            yield f"cell {n} must consist of its check alone, such as sheet.check(1, answer)"
        if has_answer and n + 1 not in checks:
            yield f"cell {n} holds an answer that the next cell does not check"
    for n, match in checks.items():
        yield from _exercise(code, n, *match.groups())


def _exercise(code: dict[int, NotebookNode], n: int, number: str, name: str) -> Iterator[str]:
    """What is wrong with an exercise whose check is cell `n`."""
    source = code[n - 1].source if n - 1 in code else ""
    defined = _defined(source)
    if name not in defined or without_answers(source) == source:
        yield f"cell {n} checks {name}, but the cell before it holds no answer of that name"
    # a copy without answers must run to its end
    for other, cell in code.items():
        if other not in (n - 1, n) and (used := sorted(defined & _used(cell.source))):
            yield f"cell {other} needs {used[0]}, the answer to exercise {number}"
    output = "".join(output.get("text", "") for output in code[n].outputs)
    if not re.fullmatch(rf"Exercise {number} \(.*\): right\n", output):
        yield f"exercise {number} is not answered rightly: {output.strip()!r}"


def _defined(source: str) -> set[str]:
    """Names that the statements of a cell define, imports left out."""
    names = set()
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Assign):
            names |= {node.id for node in ast.walk(statement) if _is_name(node, ast.Store)}
    return names


def _used(source: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(source)) if _is_name(node, ast.Load)}


def _is_name(node: ast.AST, context: type) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, context)
