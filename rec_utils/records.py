"""Run records: what one run of a notebook used and found, as one JSON file.

    run = records.start("01_kar", PROFILE, parameters, defaults, card)
    run.metric("AUC base", 0.752)
    run.finish()        # writes <output_dir>/records/01_kar/laptop.json

Keys are sorted, floats have six significant digits and a table's row is one line, so that two records
differ visibly only where the runs did. No host name, user name or absolute path is written.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rec_utils import machine
from rec_utils.claims import Verdict
from rec_utils.errors import UserError
from rec_utils.files import write_atomic
from rec_utils.parameters import read_parameters
from rec_utils.settings import NOTEBOOKS, PROFILES, ROOT, check_choice, notebook_path, output_dir
from rec_utils.stats import Interval

if TYPE_CHECKING:
    from rec_utils.cards import Card
    from rec_utils.data import Dataset

SCHEMA = 1

#: Records that are part of the repository.
COMMITTED = ROOT / "figures" / "records"


@dataclass(frozen=True)
class Record:
    """A finished run as it stands in its file."""

    notebook: str
    run_id: str  #: see `run_id`
    profile: str
    card: str | None
    parameters: dict[str, Any]
    metrics: dict[str, float | Interval]
    tables: dict[str, pd.DataFrame]
    verdicts: list[Verdict]
    data: dict[str, dict[str, str]]  #: data set -> file -> sha256
    versions: dict[str, str]
    hardware: dict[str, Any]
    git: dict[str, Any] | None  #: {"commit", "dirty"}; None outside a git checkout
    seconds: float  #: wall time from `start` to `finish`
    peak_memory_gb: float | None  #: upper bound over the kernel and its workers; None where unknown
    finished: str  #: UTC, ISO 8601
    cell_seconds: list[float] | None = None  #: wall time of each code cell, from the batch runner


@dataclass
class Run:
    """A run under way: collect what it finds, then `finish`."""

    notebook: str
    profile: str
    run_id: str
    parameters: dict[str, Any]
    card: str | None
    _started: float = field(default_factory=time.perf_counter)
    _metrics: dict[str, float | Interval] = field(default_factory=dict)
    _tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    _verdicts: list[Verdict] = field(default_factory=list)
    _data: dict[str, dict[str, str]] = field(default_factory=dict)

    def metric(self, name: str, value: float | Interval) -> None:
        """Keep a number or an interval under a name."""
        self._metrics[name] = value

    def table(self, name: str, table: pd.DataFrame) -> None:
        """Keep a small table; a named index becomes a column."""
        self._tables[name] = table if isinstance(table.index, pd.RangeIndex) else table.reset_index()

    def verdicts(self, verdicts: Iterable[Verdict]) -> None:
        """Keep the verdicts on the card's claims."""
        self._verdicts = list(verdicts)

    def data(self, *datasets: Dataset) -> None:
        """Keep the hashes of the data sets used."""
        for dataset in datasets:
            self._data[dataset.name] = dict(dataset.hashes)

    def finish(self) -> Path:
        """Write the record and return its path.

        Raises:
            UserError: the file cannot be written, for example on a full disk; an earlier record of the same
                run then stays as it was.
        """
        record = Record(
            notebook=self.notebook,
            run_id=self.run_id,
            profile=self.profile,
            card=self.card,
            parameters=self.parameters,
            metrics=self._metrics,
            tables=self._tables,
            verdicts=self._verdicts,
            data=self._data,
            versions=machine.versions(),
            hardware=machine.hardware(),
            git=machine.git(),
            seconds=time.perf_counter() - self._started,
            peak_memory_gb=machine.peak_memory_gb(),
            finished=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        path = output_dir() / "records" / self.notebook / f"{self.run_id}.json"
        save(record, path)
        return path


def start(
    notebook: str,
    profile: str,
    parameters: Mapping[str, Any],
    defaults: Mapping[str, Any],
    card: Card | None = None,
) -> Run:
    """Begin a run; the clock starts here.

    Args:
        notebook: name without suffix, such as "01_kar".
        profile: one of `settings.PROFILES`.
        parameters: the values of the notebook's parameters cell as they are now.
        defaults: the same names with the values that the notebook was committed with.
        card: the paper's card, if the notebook has one.
    """
    check_choice("profile", profile, PROFILES)
    if not re.fullmatch(r"[\w-]+", notebook):
        raise UserError(f"notebook {notebook!r} must be a plain name such as '01_kar'")
    return Run(
        notebook=notebook,
        profile=profile,
        run_id=run_id(profile, parameters, defaults),
        parameters={name: _private(value) for name, value in parameters.items()},
        card=card.id if card else None,
    )


def start_notebook(notebook: str, namespace: Mapping[str, Any], card: Card | None = None) -> Run:
    """Begin a run from inside a notebook: `run = records.start_notebook("01_kar", globals(), card)`.

    Names and defaults of the parameters come from the notebook's parameters cell, the values from
    `namespace`.
    """
    declared = read_parameters(notebook_path(NOTEBOOKS, notebook))
    if missing := [name for name in declared if name not in namespace]:
        raise UserError(f"parameter {missing[0]} of {notebook} has no value; run its parameters cell first")
    defaults = {name: parameter.default for name, parameter in declared.items()}
    return start(notebook, namespace["PROFILE"], {name: namespace[name] for name in declared}, defaults, card)


def run_id(profile: str, parameters: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """Name of a run: the profile, and each parameter that is not at its default.

    "laptop", "laptop-BACKBONE=DCNv2-SEED=1". Safe as a file name: where a value had to be shortened or
    changed, a hash of all values keeps different runs apart.
    """
    changed = {
        name: value
        for name, value in sorted(parameters.items())
        if name != "PROFILE" and (name not in defaults or defaults[name] != value)
    }
    exact = "-".join([profile, *(f"{name}={value}" for name, value in changed.items())])
    shown = "-".join([profile, *(f"{name}={_private(value)}" for name, value in changed.items())])
    safe = re.sub(r"[^\w.+,=-]", "_", shown, flags=re.ASCII)
    if safe == exact and len(safe) <= 120:
        return safe
    return f"{safe[:100]}-{hashlib.sha256(exact.encode()).hexdigest()[:8]}"


def load(
    notebook: str | None = None, profile: str | None = None, folders: Iterable[Path] | None = None
) -> list[Record]:
    """Records, sorted by notebook, profile and run.

    Args:
        notebook: only those of this notebook.
        profile: only those of this profile.
        folders: where to look; by default the repository's records and then those of `output_dir`. Of
            two records of the same run the later folder's is taken.

    Raises:
        UserError: a record is damaged or of another schema; the message names the file.
    """
    found: dict[tuple[str, str], Path] = {}
    for folder in folders if folders is not None else (COMMITTED, output_dir() / "records"):
        for path in folder.glob(f"{notebook or '*'}/*.json"):
            if not path.name.startswith("."):
                found[path.parent.name, path.stem] = path
    records = [read(path) for path in found.values()]
    records = [record for record in records if profile in (None, record.profile)]
    return sorted(records, key=lambda r: (r.notebook, PROFILES.index(r.profile), r.run_id))


def tables(notebook: str, profile: str) -> dict[str, pd.DataFrame]:
    """The tables of all runs of a notebook at a profile by name, those of one name below each other."""
    found: dict[str, list[pd.DataFrame]] = {}
    for record in load(notebook, profile):
        for name, table in record.tables.items():
            found.setdefault(name, []).append(table)
    return {name: pd.concat(parts, ignore_index=True) for name, parts in found.items()}


def siblings(run: Run, *free: str) -> list[Record]:
    """Records of the same notebook and profile whose parameters differ from those of `run` in `free` alone.

    The record of the run itself, if an earlier one was stored, is not among them.
    """

    def fixed(parameters: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in parameters.items() if name not in free}

    return [
        record
        for record in load(run.notebook, run.profile)
        if fixed(record.parameters) == fixed(run.parameters) and record.parameters != run.parameters
    ]


def other_seeds(run: Run) -> list[Record]:
    """Records of the same notebook, profile and parameters as `run` with other values of SEED."""
    return siblings(run, "SEED")


def add_cell_seconds(path: Path, seconds: Iterable[float]) -> None:
    """Add the wall time of each code cell, which only the batch runner knows, to a written record."""
    save(replace(read(path), cell_seconds=list(seconds)), path)


def save(record: Record, path: Path) -> None:
    """Write a record whole or not at all; `UserError` in one sentence if the disk refuses."""
    content = {item.name: getattr(record, item.name) for item in fields(record)}
    content["tables"] = {
        name: {"columns": list(table.columns), "rows": table.astype(object).to_numpy().tolist()}
        for name, table in record.tables.items()
    }
    text = _render(_plain({"schema": SCHEMA} | content)) + "\n"
    write_atomic(path, text)


def read(path: Path) -> Record:
    """Read one record; `UserError` naming the file if it is damaged or of another schema."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        schema = content.pop("schema")
        if schema != SCHEMA:
            raise UserError(f"{path}: schema {schema} is not {SCHEMA}; it was written by another version")
        content["metrics"] = {
            name: Interval(**_floats(value)) if isinstance(value, dict) else _floats(value)
            for name, value in content["metrics"].items()
        }
        content["tables"] = {
            name: pd.DataFrame(table["rows"], columns=table["columns"])
            for name, table in content["tables"].items()
        }
        content["verdicts"] = [
            Verdict(**_floats(verdict) | {"band": tuple(_floats(verdict["band"]))})
            for verdict in content["verdicts"]
        ]
        check_choice("profile", content["profile"], PROFILES)
        return Record(**content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: not a run record, or a damaged one ({error}); remove it and run the notebook again"
        ) from None


def _plain(value: Any) -> Any:
    """JSON values: rounded floats, NaN as null, infinities as "inf" and "-inf", numpy scalars as numbers."""
    match value:
        case Interval() | Verdict():
            return _plain(asdict(value))
        case Mapping():
            return {str(key): _plain(entry) for key, entry in value.items()}
        case list() | tuple():
            return [_plain(entry) for entry in value]
        case np.generic():
            return _plain(value.item())
        case bool() | int() | str() | None:
            return value
        case float() if math.isnan(value):
            return None
        case float():
            return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    if value is pd.NA or value is pd.NaT:
        return None
    raise UserError(f"a record cannot hold {value!r} of type {type(value).__name__}")


def _floats(value: Any) -> Any:
    """Undo what `_plain` does to infinities, in a value, a list or the values of a dict."""
    if isinstance(value, dict):
        return {key: _floats(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_floats(entry) for entry in value]
    return float(value) if value in ("inf", "-inf") else value


def _render(value: Any, indent: str = "") -> str:
    """JSON with sorted keys, one entry a line; a list of plain values stays on one line."""
    deeper = indent + " "
    if isinstance(value, dict) and value:
        lines = [f"{deeper}{json.dumps(key)}: {_render(value[key], deeper)}" for key in sorted(value)]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(entry, dict | list) for entry in value):
        return "[\n" + ",\n".join(deeper + _render(entry, deeper) for entry in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _private(value: Any) -> Any:
    """A parameter without what names a machine: a path shrinks to its end, an address loses its host."""
    if isinstance(value, list | tuple):
        return [_private(entry) for entry in value]
    if not isinstance(value, str):
        return value
    value = re.sub(r"://[^/\s]+", "://host", value)
    return re.sub(r"(?<![\w./:])~?(?:/[\w.@+-]+)+/?", lambda path: Path(path.group()).name, value)
