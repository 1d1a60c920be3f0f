"""Two public logs of exposed lists, for users who have them: neither may be shipped.

- "alimama": ad displays and clicks of Taobao (Tianchi, data set 56). What a user saw within five minutes is a
  list of up to ten, as in LibRerank. Files: raw_sample.csv, ad_feature.csv, user_profile.csv.
- "prm-public": the log published with PRM (GitHub rank2rec/rerank), lists of thirty; the order of lines is
  taken for that of time, as in MIR. Files: set1.train.txt.part1, set1.train.txt.part2. The 19 dense values of
  an item are left out, since the models here read ids.

Both come as a `ListLog`, like lists cut from ratings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rec_utils.errors import UserError
from rec_utils.list_log import ListLog, id_columns
from rec_utils.settings import check_choice

FORMATS = ("alimama", "prm-public")
#: Most seconds from the first impression of a list to its last, and most places (LibRerank).
WINDOW, AD_LENGTH = 300, 10
#: Places of a list of PRM Public.
PRM_LENGTH = 30
#: Equally frequent bins of the price, which then is a field like the others.
PRICE_BINS = 10
PROFILE = (
    *("cms_segid", "cms_group_id", "final_gender_code", "age_level", "pvalue_level", "shopping_level"),
    *("occupation", "new_user_class_level"),
)
PRM_FILES = ("set1.train.txt.part1", "set1.train.txt.part2")
#: What a line of PRM Public holds, split by "|", and the types of what is read.
PRM_COLUMNS = ("user", "profile", "fields", "dense", "more_dense", "label")
PRM_TYPES = {"user": "BIGINT", "profile": "BIGINT[]", "fields": "BIGINT[][]", "label": "BIGINT[]"}


@dataclass(frozen=True)
class _Impressions:
    """R impressions, user by user, list by list, in the order shown."""

    user: np.ndarray  #: [R] ids
    item: np.ndarray  #: [R] ids
    clicked: np.ndarray  #: [R] bool
    time: np.ndarray  #: [R]
    begins: np.ndarray  #: [R] True where a list begins

    def of_users_with(self, min_lists: int, name: str) -> _Impressions:
        """Those of users with at least so many lists."""
        users, row = np.unique(self.user, return_inverse=True)
        kept = (np.bincount(row, self.begins) >= min_lists)[row]
        if not kept.any():
            raise UserError(f"{name}: none of {len(users)} users has min_lists = {min_lists} lists")
        return _Impressions(*(values[kept] for values in vars(self).values()))

    def log(
        self, name: str, length: int, item_fields: np.ndarray, user_fields: np.ndarray, n_ids: int
    ) -> ListLog:
        """As lists of `length` places."""
        user_ids, user_row = np.unique(self.user, return_inverse=True)
        item_ids, item_row = np.unique(self.item, return_inverse=True)
        first = np.flatnonzero(self.begins)
        last = np.append(first[1:], len(self.user)) - 1
        row = np.cumsum(self.begins) - 1
        place = np.arange(len(row)) - first[row]
        real, clicked = np.zeros((2, len(first), length), bool)
        shown = np.zeros((len(first), length), np.int64)
        real[row, place], clicked[row, place], shown[row, place] = True, self.clicked, item_row
        return ListLog(
            name=name,
            user_row=user_row[first],
            item_row=shown,
            real=real,
            clicked=clicked,
            begin=self.time[first],
            end=self.time[last],
            user_ids=user_ids,
            item_ids=item_ids,
            item_fields=item_fields,
            n_ids=n_ids,
            user_fields=user_fields,
        )


def load(name: str, folder: Path, *, min_lists: int = 4, seed: int = 0) -> ListLog:
    """Read a log from the files that its publisher gives out.

    Args:
        name: one of `FORMATS`.
        folder: where the files are.
        min_lists: users with fewer lists are left out (MIR on PRM Public: those with three or fewer).
        seed: of the order of impressions of one second; "prm-public" has an order.

    Raises:
        UserError: a file or column is missing, a line cannot be read, or no user has enough lists.
    """
    check_choice("log", name, list(FORMATS))
    return _alimama(folder, min_lists, seed) if name == "alimama" else _prm_public(folder, min_lists)


def window_starts(user: np.ndarray, time: np.ndarray, window: float, length: int) -> np.ndarray:
    """Where lists begin, each reaching at most `window` beyond its first row, and `length` rows.

    Args:
        user: [R] ascending.
        time: [R] ascending within a user; whole numbers.
        window: in units of `time`.
        length: most rows of a list.

    Returns:
        [R] bool.
    """
    _, first, code = np.unique(user, return_index=True, return_inverse=True)
    line = code * (np.ptp(time) + window + 1) + time  # users so far apart that no window reaches over
    following = np.minimum(np.searchsorted(line, line + window, side="right"), np.arange(len(user)) + length)
    begins, at = np.zeros(len(user), bool), first
    end = np.append(first[1:], len(user))
    while len(at):  # one list of every user a turn
        begins[at] = True
        at = following[at]
        end, at = end[at < end], at[at < end]
    return begins


def _alimama(folder: Path, min_lists: int, seed: int) -> ListLog:
    columns = dict.fromkeys(("user", "time_stamp", "adgroup_id", "clk"), "BIGINT")
    user, time, ad, click = _csv(folder / "raw_sample.csv", columns).values()
    order = np.lexsort((np.random.default_rng(seed).random(len(user)), time, user))
    user, time, ad, click = user[order], time[order], ad[order], click[order]
    begins = window_starts(user, time, WINDOW, AD_LENGTH)
    shown = _Impressions(user, ad, click > 0, time, begins).of_users_with(min_lists, "alimama")

    path = folder / "ad_feature.csv"
    texts = dict.fromkeys(("cate_id", "campaign_id", "customer", "brand"), "VARCHAR")
    ads = _csv(path, {"adgroup_id": "BIGINT"} | texts | {"price": "DOUBLE"})
    items = np.unique(shown.item)
    rows = _rows_of(items, ads["adgroup_id"])
    if (rows < 0).any():
        raise UserError(f"{path}: adgroup_id {items[rows < 0][0]} of raw_sample.csv is missing")
    price = ads.pop("price")[rows]
    bins = np.searchsorted(np.quantile(price, np.linspace(0, 1, PRICE_BINS + 1)[1:-1]), price)
    item_fields, n_ids = id_columns([*(values[rows] for values in ads.values()), bins])

    people = _csv(folder / "user_profile.csv", {"userid": "BIGINT"} | dict.fromkeys(PROFILE, "VARCHAR"))
    rows = _rows_of(np.unique(shown.user), people.pop("userid"))  # -1, the value "", without a profile
    user_fields, n_ids = id_columns([np.append(values, "")[rows] for values in people.values()], n_ids)
    return shown.log("alimama", AD_LENGTH, item_fields, user_fields, n_ids)


def _prm_public(folder: Path, min_lists: int) -> ListLog:
    table = pa.concat_tables([_prm_lines(folder / name) for name in PRM_FILES]).combine_chunks()
    user, profile, fields, label = (table.column(name).chunk(0) for name in PRM_TYPES)
    user, sizes = user.to_numpy(), label.value_lengths().to_numpy()
    line = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(len(line)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    features = fields.flatten().flatten().to_numpy().reshape(len(line), -1)
    order = np.argsort(user[line], kind="stable")
    order = order[place[order] < PRM_LENGTH]
    clicked, item = label.flatten().to_numpy() > 0, features[:, 0]
    shown = _Impressions(user[line][order], item[order], clicked[order], line[order], place[order] == 0)
    shown = shown.of_users_with(min_lists, "prm-public")

    item_fields, n_ids = id_columns(list(features[_rows_of(np.unique(shown.item), item)].T))
    people = profile.flatten().to_numpy().reshape(len(user), -1)
    people = people[_rows_of(np.unique(shown.user), user)]
    user_fields, n_ids = id_columns(list(people.T), n_ids)
    return shown.log("prm-public", PRM_LENGTH, item_fields, user_fields, n_ids)


def _rows_of(wanted: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Where each of `wanted` first stands in `ids`; -1 if nowhere."""
    values, first = np.unique(ids, return_index=True)
    at = np.searchsorted(values, wanted).clip(max=len(values) - 1)
    return np.where(values[at] == wanted, first[at], -1)


def _csv(path: Path, columns: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Columns, of the types of DuckDB that are asked for, of a file with a header; a missing text is ""."""
    _check_is_there(path)
    with path.open(encoding="utf-8") as file:
        header = [name.strip() for name in file.readline().split(",")]  # one name ends in a blank
    for name in columns:
        if name not in header:
            raise UserError(f"{path}, line 1: column {name} is missing; found {', '.join(header)}")
    types = {name: columns.get(name, "VARCHAR") for name in header}
    wanted = ", ".join(f"COALESCE({n}, '') AS {n}" if t == "VARCHAR" else n for n, t in columns.items())
    try:
        table = duckdb.read_csv(str(path), header=True, delimiter=",", columns=types, auto_detect=False)
        found = table.project(wanted).fetchnumpy()
    except duckdb.Error as error:
        raise UserError(f"{path}: {_first_line(error)}") from None
    for name, values in found.items():
        if np.ma.is_masked(values):
            raise UserError(f"{path}, line {np.flatnonzero(values.mask)[0] + 2}: no {name}")
        if not len(values):
            raise UserError(f"{path} has no line below its header")
    return {
        name: np.array(values, dtype=str if columns[name] == "VARCHAR" else None)
        for name, values in found.items()
    }


def _prm_lines(path: Path) -> pa.Table:
    """The columns of `PRM_TYPES` of a file; lines with a null are left out, as in LibRerank and MIR."""
    _check_is_there(path)
    columns = dict.fromkeys(PRM_COLUMNS, "VARCHAR")
    layout = {"header": False, "delimiter": "|", "quotechar": "", "escapechar": "", "auto_detect": False}
    null = " OR ".join(f"contains({name}, 'null')" for name in PRM_COLUMNS)
    typed = ", ".join(f"TRY_CAST({name} AS {kind}) AS {name}" for name, kind in PRM_TYPES.items())
    fault = " ".join(f"WHEN {name} IS NULL THEN '{name}'" for name in PRM_TYPES)
    # what cannot be read inside a list has become a null there
    fault += " ".join(
        f" WHEN list_count({flat}) < len({flat}) THEN '{name}'"
        for name, flat in (("profile", "profile"), ("fields", "flatten(fields)"), ("label", "label"))
    )
    try:
        lines = duckdb.read_csv(str(path), columns=columns, **layout)
        lines = lines.project("*, row_number() OVER () AS line").filter(f"NOT ({null})")
        lines = lines.project(f"{typed}, line").project(f"*, CASE {fault} END AS fault")
        table = lines.to_arrow_table()
    except duckdb.Error as error:
        raise UserError(f"{path}: {_first_line(error)}") from None
    if not len(table):
        raise UserError(f"{path} has no line without a null")
    number, fault = table.column("line").to_numpy(), table.column("fault")
    if fault.null_count < len(table):
        bad = np.flatnonzero(fault.is_valid())[0]
        name = fault[bad].as_py()
        raise UserError(f"{path}, line {number[bad]}: {name} cannot be read as {PRM_TYPES[name]}")
    items, labels = (pc.list_value_length(table.column(name)).to_numpy() for name in ("fields", "label"))
    if (bad := np.flatnonzero(items != labels)).size:
        raise UserError(f"{path}, line {number[bad[0]]}: {items[bad[0]]} items but {labels[bad[0]]} labels")
    inner = pc.list_flatten(table.column("fields"))
    for name, lists in (("profile", table.column("profile")), ("fields", inner)):
        widths = pc.unique(pc.list_value_length(lists)).to_pylist()
        if len(widths) > 1:
            raise UserError(
                f"{path}: {name} should have one length, but has {min(widths)} to {max(widths)} values"
            )
    return table.select(list(PRM_TYPES))


def _check_is_there(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path} is missing; download the log from its publisher and name its folder")


def _first_line(error: Exception) -> str:
    """The first line of DuckDB's message; it puts hints below."""
    return str(error).partition("\n")[0]
