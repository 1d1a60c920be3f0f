"""Amazon's reviews and metadata of 2018, one category a data set.

Reviews come as JSON lines (`Books_5.json.gz`, the 5-core) or as ratings only (`Books.csv`: item, user,
rating, time); the metadata as JSON lines (`meta_Books.json.gz`). Users and items have ids of letters and
digits; here they get numbers from 1 in the order of their first review. A review without stars is no rating
and is left out. Who reviewed an item twice has two ratings of it, as in the raw file.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

import duckdb

from data_prep.catalog import Ratings
from data_prep.checks import Checks
from data_prep.formats import RawFile
from data_prep.json_lines import JsonLines
from data_prep.tables import NUMBER, TEXT, Text

_REVIEW = {"reviewer": TEXT, "asin": TEXT, "rating": NUMBER, "timestamp": NUMBER}
_FIELDS = ("reviewerID", "asin", "overall", "unixReviewTime")
_RATING = {"asin": TEXT, "reviewer": TEXT, "rating": NUMBER, "timestamp": NUMBER}
_META = {"asin": TEXT, "title": TEXT, "brand": TEXT, "category": "JSON"}

_PREPARE = [
    f"CREATE TABLE {table} AS SELECT {key} FROM ratings WHERE rating IS NOT NULL "
    f"GROUP BY {key} ORDER BY min(rowid)"
    for table, key in (("reviewers", "reviewer"), ("products", "asin"))
]

_INTERACTIONS = """
    SELECT reviewers.rowid + 1 AS user_id, products.rowid + 1 AS item_id,
           rating::FLOAT AS rating, timestamp::BIGINT AS timestamp
    FROM ratings JOIN reviewers USING (reviewer) JOIN products USING (asin)
    WHERE rating IS NOT NULL
    ORDER BY ratings.rowid
"""

#: The first category is the data set's own, such as "Books". Of an item with several lines the last holds, as
#: in KAR's code; an item without one has no title.
_ITEMS = """
    WITH described AS (
        SELECT asin, max_by(coalesce(title, ''), meta.rowid) AS title,
               max_by(coalesce(brand, ''), meta.rowid) AS brand,
               max_by(coalesce(category, '[]'), meta.rowid) AS category
        FROM meta SEMI JOIN products USING (asin)
        GROUP BY asin
    )
    SELECT products.rowid + 1 AS item_id, title, NULL::SMALLINT AS year,
           coalesce(array_to_string(
               list_transform((category::VARCHAR[])[2:], lambda each: trim(replace(each, '|', '/'))), '|'
           ), '') AS genres,
           NULL::VARCHAR AS imdb, asin, brand
    FROM products LEFT JOIN described USING (asin)
    ORDER BY products.rowid
"""

_USERS = "SELECT rowid + 1 AS user_id, reviewer FROM reviewers ORDER BY rowid"


@dataclass(frozen=True)
class Reviews:
    """The raw files of one category, as a `Family`."""

    category: str

    def tables(self, found: Container[str]) -> dict[str, RawFile]:
        """See `Family`; the 5-core goes before the ratings only."""
        packed, plain = (JsonLines(f"{self.category}_5.json{end}", _REVIEW, _FIELDS) for end in (".gz", ""))
        kinds = packed, plain, Text(f"{self.category}.csv", ",", _RATING)
        ratings = next((file for file in kinds if file.name in found), packed)
        end = "" if f"meta_{self.category}.json" in found else ".gz"
        return {"ratings": ratings, "meta": JsonLines(f"meta_{self.category}.json{end}", _META, tuple(_META))}

    def check(self, connection: duckdb.DuckDBPyConnection, files: dict[str, RawFile], spec: Ratings) -> None:
        """See `Family`."""
        checks = Checks(connection, files, spec)
        for table in files:
            checks.refuse(
                table,
                "asin",
                "NOT coalesce(regexp_full_match(asin, '[0-9A-Z]{10}'), false)",
                "ten capital letters and digits",
            )
        checks.refuse("ratings", "reviewer", "coalesce(reviewer, '') = ''", "a value")
        checks.refuse("ratings", "timestamp", "timestamp IS NULL", "a value")
        checks.refuse("ratings", "timestamp", "timestamp <> trunc(timestamp)", "a whole number")
        checks.refuse("meta", "category", "json_type(category) <> 'ARRAY'", "a list")
        checks.scale()
        checks.period()

    def prepare(self) -> list[str]:
        """See `Family`."""
        return _PREPARE

    def queries(self, files: dict[str, RawFile]) -> dict[str, str]:
        """See `Family`; ratings are in the order of the raw file."""
        return {"interactions.parquet": _INTERACTIONS, "items.parquet": _ITEMS, "users.parquet": _USERS}


FORMATS = {"amazon-books": Reviews("Books"), "amazon-toys": Reviews("Toys_and_Games")}
