"""The syntax trees of the project's own code, with names as they were imported."""

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from rec_utils.settings import ROOT

FOLDERS = ("rec_utils", "data_prep", "tests/bench", "notebooks/src")


@cache
def sources() -> dict[str, str]:
    """Path -> text of every Python file of `FOLDERS`."""
    listed = subprocess.check_output(["git", "ls-files", "--", *FOLDERS], cwd=ROOT, text=True).splitlines()
    paths = [path for path in listed if path.endswith(".py") and (ROOT / path).exists()]
    return {path: Path(ROOT, path).read_text("utf-8") for path in paths}


def names(source: str) -> Iterator[tuple[str, ast.expr, ast.Call | None]]:
    """(full name, node, the call of it if it is called) of every name that begins with an import or builtin.

    `np.random.rand(3)` after `import numpy as np` is ("numpy.random.rand", node, call).
    """
    tree = ast.parse(source)
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                imported[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom):
            imported |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            first, *rest = ast.unparse(node).split(".")
            yield ".".join([imported.get(first, first), *rest]), node, called.get(id(node))


def keyword(call: ast.Call | None, name: str) -> object:
    """The value of a call's keyword where it is a literal; `...` where it is anything else or not given."""
    for each in call.keywords if call else ():
        if each.arg == name:
            return each.value.value if isinstance(each.value, ast.Constant) else ...
    return ...
