"""The raw format of MovieTweetings: double colons, movies named by their IMDb number, genres as in IMDb."""

from __future__ import annotations

from data_prep.formats import Format
from data_prep.movielens import MOVIES, RATINGS
from data_prep.tables import Text

FORMATS = {
    "movietweetings": Format(
        ratings=Text("ratings.dat", "::", RATINGS),
        movies=Text("movies.dat", "::", MOVIES),
        items="SELECT item_id, title, genres, format('{:07d}', item_id::BIGINT) AS imdb FROM movies",
    )
}
