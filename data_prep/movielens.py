"""The raw formats of the MovieLens family: 100K (tab, bar), 1M and 10M (double colon), later ones (csv)."""

from __future__ import annotations

from data_prep.formats import Format
from data_prep.tables import NUMBER, TEXT, Parquet, Text

RATINGS = {"user_id": NUMBER, "item_id": NUMBER, "rating": NUMBER, "timestamp": NUMBER}
MOVIES = {"item_id": NUMBER, "title": TEXT, "genres": TEXT}

#: Flag columns of u.item, in order; "unknown", the first, stands for no genre.
GENRES_100K = (
    "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip

_FLAGS = ", ".join(
    f"""CASE WHEN "{genre}" = 1 THEN '{genre.replace("'", "''")}' END""" for genre in GENRES_100K
)
_ITEMS_100K = f"SELECT item_id, title, concat_ws('|', {_FLAGS}) AS genres, NULL::VARCHAR AS imdb FROM movies"
_ITEMS_DAT = "SELECT item_id, title, genres, NULL::VARCHAR AS imdb FROM movies"
_ITEMS_CSV = """
    SELECT item_id, title, CASE WHEN genres <> '(no genres listed)' THEN genres END AS genres,
           format('{:07d}', imdb_id::BIGINT) AS imdb
    FROM movies LEFT JOIN links USING (item_id)
    ORDER BY movies.rowid
"""

FORMATS = {
    "ml-100k": Format(
        ratings=Text("u.data", "\t", RATINGS),
        movies=Text(
            "u.item",
            "|",
            {"item_id": NUMBER}
            | dict.fromkeys(("title", "released", "video_released", "url"), TEXT)
            | dict.fromkeys(("unknown", *GENRES_100K), NUMBER),
            encoding="latin-1",
        ),
        items=_ITEMS_100K,
        users=Text(
            "u.user",
            "|",
            {"user_id": NUMBER, "age": NUMBER, "gender": TEXT, "occupation": TEXT, "zip": TEXT},
        ),
    ),
    "ml-1m": Format(
        ratings=Text("ratings.dat", "::", RATINGS),
        movies=Text("movies.dat", "::", MOVIES, encoding="latin-1"),
        items=_ITEMS_DAT,
        users=Text(
            "users.dat",
            "::",
            {"user_id": NUMBER, "gender": TEXT, "age": NUMBER, "occupation": NUMBER, "zip": TEXT},
        ),
        assembled=Parquet(
            "ratings_assembled.parquet",
            # ts_err_s bounds the error of the timestamp, in seconds; 0 = exact
            RATINGS | {"ts_err_s": NUMBER},
            header=("user", "movie", "rating", "timestamp", "ts_err_s"),
        ),
    ),
    "ml-10m": Format(
        ratings=Text("ratings.dat", "::", RATINGS),
        movies=Text("movies.dat", "::", MOVIES),
        items=_ITEMS_DAT,
    ),
    "ml-csv": Format(
        ratings=Text("ratings.csv", ",", RATINGS, header=("userId", "movieId", "rating", "timestamp")),
        movies=Text("movies.csv", ",", MOVIES, header=("movieId", "title", "genres")),
        links=Text("links.csv", ",", {"item_id": NUMBER, "imdb_id": NUMBER}, header=("movieId", "imdbId")),
        items=_ITEMS_CSV,
    ),
}
