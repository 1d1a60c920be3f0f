"""Which runs a batch consists of: a grid over notebooks, profiles and parameters, checked before it starts.

A plan is stored as `plan.json` in the batch's folder. Its id is a hash of its runs, so that the same
command finds the results that it has already produced.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from rec_utils import settings
from rec_utils.errors import UserError
from rec_utils.files import write_atomic, writing
from rec_utils.parameters import MAX_VALUES, Parameter, parse_values, read_cells, read_parameters
from rec_utils.records import run_id
from rec_utils.settings import notebook_path


@dataclass(frozen=True)
class Run:
    """One execution of one notebook."""

    notebook: str  #: file name without suffix
    profile: str
    run_id: str  #: names the run's record, see `rec_utils.records.run_id`
    changed: dict[str, Any] = field(hash=False)  #: values that differ from the defaults; these are injected

    @property
    def label(self) -> str:
        """Notebook and run id."""
        return f"{self.notebook} {self.run_id}"

    @property
    def folder(self) -> str:
        """Name of the run's folder in the batch's."""
        return f"{self.notebook}-{self.run_id}"


@dataclass(frozen=True)
class Plan:
    """The runs of one batch over the notebooks in one folder."""

    notebooks: Path
    runs: tuple[Run, ...]

    @property
    def id(self) -> str:
        """Hash of the plan."""
        return _digest([str(self.notebooks), [asdict(run) for run in self.runs]])[:10]

    @property
    def folder(self) -> Path:
        """Where the batch keeps its state and results."""
        return settings.runs_dir() / self.id

    def path(self, run: Run) -> Path:
        """The notebook that `run` executes."""
        return notebook_path(self.notebooks, run.notebook)

    def save(self) -> None:
        """Write `plan.json`; the newest one is the batch that `resume` and `status` mean by default."""
        content = {"notebooks": str(self.notebooks), "runs": [asdict(run) for run in self.runs]}
        path, text = self.folder / "plan.json", json.dumps(content, indent=1)
        if not path.exists() or path.read_bytes() != text.encode():
            write_atomic(path, text)
        # newer than all others even where the clock was set back
        latest = max((other.stat().st_mtime for other in _stored() if other != path), default=0)
        with writing(path):
            os.utime(path, (max(time.time(), latest + 1),) * 2)


def notebook_names(folder: Path) -> list[str]:
    """Names of the notebooks in `folder`, in order, the tutorials last."""
    found = [*folder.glob("[!.]*.ipynb"), *folder.glob("tutorials/[!.]*.ipynb")]
    return sorted(path.stem for path in found if path == notebook_path(folder, path.stem))


def choose_notebooks(folder: Path, names: Sequence[str]) -> list[str]:
    """The given notebooks (with or without `.ipynb`), or all of them; `UserError` with the nearest name."""
    known = notebook_names(folder)
    if not known:
        raise UserError(f"there is no notebook in {folder}")
    chosen = [name.removesuffix(".ipynb") for name in names]
    return [settings.check_choice("notebook", name, known) for name in dict.fromkeys(chosen)] or known


def make_plan(folder: Path, names: Sequence[str], profiles: str, assignments: Sequence[str]) -> Plan:
    """The grid of the given notebooks (none: all), profiles ("smoke,laptop") and NAME=VALUES assignments.

    Raises `UserError` for an unknown notebook, profile or parameter, with the nearest spelling, for a value
    of another type than the parameter's, and for an assignment that is malformed or given twice.
    """
    given: dict[str, str] = {}
    for assignment in [f"PROFILE={profiles}", *assignments]:
        name, equals, values = assignment.partition("=")
        if not equals or not name.strip():
            raise UserError(f"-p {assignment!r} is not of the form NAME=VALUE[,VALUE...]")
        if name.strip() in given:
            hint = "; use --profile" if name.strip() == "PROFILE" else ", as one list NAME=A,B"
            raise UserError(f"give parameter {name.strip()} once{hint}")
        given[name.strip()] = values.strip()
    folder = folder.resolve()
    runs: list[Run] = []
    for notebook in choose_notebooks(folder, names):
        parameters = read_parameters(notebook_path(folder, notebook))
        runs += _grid(notebook, parameters, given)
        if len(runs) > MAX_VALUES:
            raise UserError(f"this grid has more than {MAX_VALUES} runs")
    return Plan(folder, tuple(runs))


def _grid(notebook: str, parameters: dict[str, Parameter], given: dict[str, str]) -> list[Run]:
    for name in given:
        settings.check_choice(f"{notebook}: parameter", name, list(parameters))
    values = {name: parse_values(parameters[name], text) for name, text in given.items()}
    for profile in values["PROFILE"]:
        settings.check_choice("profile", profile, settings.PROFILES)
    if math.prod(map(len, values.values())) > MAX_VALUES:
        raise UserError(f"this grid has more than {MAX_VALUES} runs of {notebook}")
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    runs = []
    for combination in itertools.product(*values.values()):
        chosen = dict(zip(values, combination, strict=True))
        changed = {name: value for name, value in chosen.items() if value != parameters[name].default}
        name = run_id(chosen["PROFILE"], defaults | chosen, defaults)
        runs.append(Run(notebook, chosen["PROFILE"], name, changed))
    return runs


def load_plan(batch: str | None) -> Plan:
    """The plan of the batch with that id, or of the newest batch; `UserError` if there is none."""
    stored = sorted(_stored(), key=lambda path: path.stat().st_mtime)
    if not stored:
        raise UserError("there is no batch yet; start one with: python -m rec_utils.batch run")
    if batch is not None:
        settings.check_choice("batch", batch, [path.parent.name for path in stored])
    path = settings.runs_dir() / batch / "plan.json" if batch else stored[-1]
    try:
        content = json.loads(path.read_text())
        return Plan(Path(content["notebooks"]), tuple(Run(**run) for run in content["runs"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); give the first command again to go on") from None


def _stored() -> list[Path]:
    return list(settings.runs_dir().glob("*/plan.json"))


def check_plan(plan: Plan) -> None:
    """Raise `UserError` if a notebook has changed so that a stored plan no longer names its runs rightly."""
    for run in plan.runs:
        parameters = read_parameters(plan.path(run))
        for name in run.changed:
            settings.check_choice(f"{run.notebook}: parameter", name, list(parameters))
        defaults = {name: parameter.default for name, parameter in parameters.items()}
        if run.run_id != run_id(run.profile, defaults | run.changed, defaults):
            raise UserError(
                f"{run.notebook} has other defaults since batch {plan.id} was planned; run it anew"
            )


def fingerprint(notebook: Path) -> str:
    """Hash of all code that a run of `notebook` executes: its cells, this package, data_prep and the pins.

    A finished run counts only as long as its fingerprint holds.
    """
    return _digest([[cell["source"] for cell in read_cells(notebook)], code_hash()])


@cache
def code_hash() -> str:
    """Hash of this package, data_prep and the pins, wherever the checkout stands; the same for a process."""
    folders = (settings.ROOT / "rec_utils", settings.ROOT / "data_prep")
    files = [path for folder in folders for kind in ("py", "yaml") for path in folder.rglob(f"*.{kind}")]
    files.append(settings.ROOT / "environment.yml")
    names = sorted(path.relative_to(settings.ROOT).as_posix() for path in files if path.exists())
    return _digest([[name, (settings.ROOT / name).read_text(encoding="utf-8")] for name in names])


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
