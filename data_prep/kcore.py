"""The k-core of a table of ratings, by SQL, so that the table need not fit into memory."""

from __future__ import annotations

import duckdb

from rec_utils.errors import UserError


def k_core(connection: duckdb.DuckDBPyConnection, table: str, user_core: int, item_core: int) -> int:
    """Keep the largest part of `table` in which every user and every item has enough rows.

    A round drops all rows of users and of items that have too few; that can leave others with too few, so
    rounds go on until one drops nothing. What is left does not depend on the order of dropping.

    Args:
        connection: an open DuckDB database, limited by `streaming.limit_memory` if the table is large.
        table: name of a table with user_id and item_id, which is replaced; other columns stay, the order of
            the rows need not.
        user_core: the fewest rows of a user; a repeated pair counts each time, as in KAR's code.
        item_core: the fewest rows of an item.

    Returns:
        The number of rounds that dropped rows.

    Raises:
        UserError: nothing is left.
    """
    rows, rounds = _rows(connection, table), 0
    while True:
        connection.execute(f"""
            CREATE TABLE kept AS SELECT * FROM {table}
            WHERE user_id IN (SELECT user_id FROM {table} GROUP BY user_id HAVING count(*) >= {user_core:d})
              AND item_id IN (SELECT item_id FROM {table} GROUP BY item_id HAVING count(*) >= {item_core:d})
        """)
        connection.execute(f"DROP TABLE {table}; ALTER TABLE kept RENAME TO {table}")
        before, rows = rows, _rows(connection, table)
        if rows == before:
            break
        rounds += 1
    if not rows:
        raise UserError(f"no ratings are left in the core of user_core {user_core} and item_core {item_core}")
    return rounds


def _rows(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    return connection.table(table).shape[0]
