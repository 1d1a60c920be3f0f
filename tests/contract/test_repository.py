"""Everything sits where the layout says, nothing that may not be shipped is here, imports go one way."""

import ast
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from data_prep import catalog
from rec_utils.files import sha256
from rec_utils.settings import ROOT

TRACKED = [
    PurePosixPath(line)
    for line in subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    if (ROOT / line).exists()
]
SHIPPED = {
    f"data_prep/bundled/{file.path}"
    for entry in catalog.load().values()
    if entry.ship
    for file in entry.bundled
}

#: What stands at the top, and the kinds of files in each folder.
FOLDERS = {
    "notebooks": {".ipynb", ".py"},
    "data_prep": {".py", ".yaml"},
    "rec_utils": {".py", ".yaml"},
    "figures": {".png", ".svg", ".csv", ".json"},
    "tests": {".py", ".md"},
    ".ci": {""},
    ".github": {".yml"},
}
TOP_FILES = {
    "README.md",
    "environment.yml",
    "pyproject.toml",
    "Makefile",
    "LICENSE",
    "CITATION.cff",
    "CHANGELOG.md",
    ".gitignore",
    ".gitattributes",
}

#: A module imports from its own layer and those before it. The tools (all that is not named here) read
#: results and start processes: they use the first two layers only, and no layer uses them.
LAYERS = (
    {"errors", "files", "settings", "progress"},
    {
        "data",
        "cards",
        "parameters",
        "dialogues",
        "splits",
        "metrics",
        "stats",
        "clustering",
        "list_log",
        "click_world",
        "exposure_files",
        "exact",
    },
    {
        "attention",
        "batches",
        "checkpoints",
        "layers",
        "interactions",
        "samples",
        "kar_books",
        "training",
        "timing",
        "resume",
        "crossfit",
        "holdout",
        "rerank_lists",
        "history_lists",
        "implicit",
        "ranking",
        "sequences",
    },
    {
        "ctr",
        "ctr_model",
        "field_task",
        "clickprompt_books",
        "rerank",
        "rerank_model",
        "rerank_baselines",
        "initial_rankers",
        "sequential",
        "collaborative",
        "baselines",
        "knowledge",
        "decoding",
    },
    {"papers", "classroom", "widgets", "launch"},
)
WITHOUT_TORCH = 2  #: layers, besides the tools

MACHINE = re.compile(r"(?<![\w.~}/])/(?:home|root|Users|work|opt|mnt|srv)/(?!me\b)[\w.-]+")
#: Addresses shaped like those of package registries: an index, a wheel folder, a channel.
REGISTRY = re.compile(
    r"https?://[\w.-]+(?:/[\w.-]+)*/(?:simple|whl|pypi|conda)\b|(?:index-url|find-links)[ =]+https?:"
)
TRACKER = re.compile(r"\bissue #?\d+\b|\.\./shared", re.IGNORECASE)


# Files


def test_the_layout_is_the_one_agreed_on():
    strangers = []
    for path in TRACKED:
        if len(path.parts) == 1:
            known = path.name in TOP_FILES
        else:
            known = (
                path.suffix in FOLDERS.get(path.parts[0], ())
                or path.name == "LICENSE"
                or str(path) in SHIPPED
            )
        if not known:
            strangers.append(str(path))
    assert not strangers


@pytest.mark.parametrize("name", ["README.md", "environment.yml", "LICENSE", "CITATION.cff", "CHANGELOG.md"])
def test_what_a_visitor_looks_for_is_there(name):
    assert PurePosixPath(name) in TRACKED


def test_nothing_is_here_that_may_not_be_shipped():
    closed = {
        file.sha256: f"{entry.name}: {file.path}"
        for entry in catalog.load().values()
        if not entry.ship
        for file in (*entry.raw, *entry.files, *([entry.archive.file] if entry.archive else []))
    }
    assert closed
    assert not {str(path): closed[digest] for path in TRACKED if (digest := sha256(ROOT / path)) in closed}


def test_files_are_small_unless_they_are_catalogued_data():
    large = [str(path) for path in TRACKED if (ROOT / path).stat().st_size > 5_000_000]
    assert set(large) <= SHIPPED


@pytest.mark.parametrize(
    ("pattern", "what"),
    [(MACHINE, "a path of one machine"), (REGISTRY, "a registry host"), (TRACKER, "a tracker or workplace")],
)
def test_no_text_names(pattern, what):
    found = []
    for path in TRACKED:
        if str(path) in SHIPPED or path.suffix in {".png", ".zip", ".safetensors"}:
            continue
        for number, line in enumerate((ROOT / path).read_text("utf-8").splitlines(), 1):
            if match := pattern.search(line):
                found.append(f"{path}:{number} {match.group()}")
    assert not found, f"{what} is named"


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (MACHINE, "see /home/" + "ann/x"),
        (REGISTRY, "https://mirror.example/" + "simple"),
        (TRACKER, "as Issue" + " 12 says"),
    ],
)
def test_the_patterns_find_what_they_are_for(pattern, text):
    assert pattern.search(text)


def test_modules_are_short():
    lengths = {
        str(path): len((ROOT / path).read_text("utf-8").splitlines())
        for path in TRACKED
        if path.suffix == ".py" and path.parts[0] != "notebooks"  # these have rules of their own
    }
    assert not {path: length for path, length in lengths.items() if length > 500}


# Imports


def test_imports_go_one_way():
    wrong = []
    for path in TRACKED:
        if path.suffix == ".py" and path.parts[0] in ("rec_utils", "data_prep"):
            wrong += [
                f"{path} imports rec_utils.{name}" for name in imported(path) if not may_import(path, name)
            ]
    assert not wrong, "a module outside LAYERS counts as a tool; name a new one there"


def imported(path):
    """Names of the modules of rec_utils that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("rec_utils.")}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            package, *rest = node.module.split(".")
            if package == "rec_utils":
                names |= {rest[0]} if rest else {alias.name for alias in node.names}
    return names


def layer(name):
    """Number of a module's layer; None for a tool."""
    return next((number for number, names in enumerate(LAYERS) if name in names), None)


def may_import(path, name):
    theirs = layer(name)
    if path.parts[0] == "data_prep":
        return theirs == 0
    own = layer(PurePosixPath(path.parts[1]).stem)
    if own is None:
        return theirs is None or theirs < WITHOUT_TORCH
    return theirs is not None and theirs <= own


def test_the_rule_of_imports_bites():
    for path, name in [
        ("rec_utils/metrics.py", "training"),
        ("rec_utils/ctr.py", "papers"),
        ("rec_utils/papers/kar.py", "records"),
        ("rec_utils/report.py", "ctr"),
        ("data_prep/build.py", "data"),
    ]:
        assert not may_import(PurePosixPath(path), name)


def test_data_metrics_and_tools_work_without_torch():
    modules = [path.stem for path in Path(ROOT, "rec_utils").glob("*.py")]
    light = [m for m in modules if layer(m) is None or layer(m) < WITHOUT_TORCH]
    code = (
        "import importlib, sys\n"
        f"for module in {light}:\n"
        "    importlib.import_module(f'rec_utils.{module}')\n"
        "    if 'torch' in sys.modules: sys.exit(f'{module} imports torch')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
