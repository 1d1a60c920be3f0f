import json
import os
import re
import signal
import subprocess
import sys
import zipfile

import pandas as pd
import pytest

from data_prep import catalog
from data_prep.__main__ import main
from data_prep.build import Built, build
from data_prep.catalog import Counts
from rec_utils.errors import UserError, run_cli
from rec_utils.settings import ROOT

# One tiny world in every raw format: not sorted, with an accent, a comma, brackets, a missing year and genre.
DAY = {"ml-100k": 880_000_000, "movietweetings": 1_365_000_000}
RATINGS = [(2, 10, 4, 5), (2, 30, 1, 0), (1, 10, 5, 7), (3, 20, 3, 7), (1, 40, 2, 6)]
MOVIES = [
    (10, "Misérables, Les (1995)", "Drama|Musical", 1995, "0113828"),
    (20, "1984 (Nineteen Eighty-Four) (1984)", "Drama|Sci-Fi", 1984, "0087803"),
    (30, "Paterson", "", None, "5247022"),
    (40, "Toy Story (1995)", "Animation|Children's|Comedy", 1995, "0114709"),
]
USERS = [(1, "F", 25, "10", "48067"), (2, "M", 56, "16", "02139"), (3, "M", 18, "7", "T8H1N")]
GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama",
    "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
CSV = ("ml-latest-small", "ml-20m", "ml-25m", "ml-32m")
NAMES = ("ml-100k", "ml-1m", "ml-10m", *CSV, "movietweetings")


def lines(rows, separator, end="\n"):
    return "".join(separator.join(map(str, row)) + end for row in rows)


def raw_files(name):
    start = DAY.get(name, 978_300_000)
    ratings = [(user, item, rating, start + second) for user, item, rating, second in RATINGS]
    if name == "ml-100k":
        flags = [[int(genre in genres.split("|")) for genre in GENRES_100K] for _, _, genres, _, _ in MOVIES]
        flags[2][0] = 1  # "unknown"
        items = [(m[0], m[1], "01-Jan-1995", "", "http://x", *f) for m, f in zip(MOVIES, flags, strict=True)]
        return {
            "u.data": lines(ratings, "\t").encode(),
            "u.item": lines(items, "|").encode("latin-1"),
            "u.user": lines(
                [(user, age, sex, job, zip_) for user, sex, age, job, zip_ in USERS], "|"
            ).encode(),
        }
    if name in ("ml-1m", "ml-10m"):
        movies = lines([movie[:3] for movie in MOVIES], "::")
        files = {"ratings.dat": lines(ratings, "::").encode()}
        if name == "ml-10m":
            return files | {"movies.dat": movies.encode()}
        return files | {"movies.dat": movies.encode("latin-1"), "users.dat": lines(USERS, "::").encode()}
    if name == "movietweetings":
        imdb = {movie[0]: movie[4] for movie in MOVIES}
        ratings = [(user, imdb[item], rating, time) for user, item, rating, time in ratings]
        return {
            "ratings.dat": lines(ratings, "::").encode(),
            "movies.dat": lines([(movie[4], *movie[1:3]) for movie in MOVIES], "::").encode(),
        }
    movies = [(movie[0], f'"{movie[1]}"', movie[2] or "(no genres listed)") for movie in MOVIES]
    links = [(movie[0], movie[4], 862) for movie in MOVIES]
    return {
        "ratings.csv": lines([("userId", "movieId", "rating", "timestamp"), *ratings], ",", "\r\n").encode(),
        "movies.csv": lines([("movieId", "title", "genres"), *movies], ",", "\r\n").encode(),
        "links.csv": lines([("movieId", "imdbId", "tmdbId"), *links], ",", "\r\n").encode(),
    }


def tiny(name):
    """The catalog's entry with the counts of the tiny world and without hashes of the real files."""
    entry = catalog.entry(name)
    counts = Counts(ratings=len(RATINGS), users=3, items=len(MOVIES))
    ratings = entry.ratings.model_copy(update={"counts": counts})
    return entry.model_copy(update={"ratings": ratings, "raw": (), "bundled": ()})


def write_folder(folder, files):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def write_zip(path, files, inside=""):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(inside + name, content)
    return path


def read(built, table):
    return pd.read_parquet(built.folder / f"{table}.parquet")


@pytest.fixture(autouse=True)
def data_home(tmp_path, monkeypatch):
    monkeypatch.setenv("REC_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.mark.parametrize("packing", ["folder", "named folder", "flat zip", "zip in a folder"])
@pytest.mark.parametrize("name", NAMES)
def test_every_raw_format_gives_the_same_tables(name, packing, tmp_path):
    files, entry = raw_files(name), tiny(name)
    where = tmp_path / "raw"
    if packing == "folder":
        write_folder(where, files)
    elif packing == "named folder":
        where.mkdir()
        write_folder(where / name, files)
    elif packing == "flat zip":
        where = write_zip(tmp_path / "any.zip", files)
    else:
        where.mkdir()
        write_zip(where / f"{name}.zip", files, inside="ml-10M100K/")
    built, now = build(entry, where)
    assert now

    movie_id = {movie[0]: int(movie[4]) if name == "movietweetings" else movie[0] for movie in MOVIES}
    interactions = read(built, "interactions")
    assert interactions.dtypes.astype(str).to_dict() == {
        "user_id": "int64",
        "item_id": "int64",
        "rating": "float32",
        "timestamp": "int64",
    }
    start = DAY.get(name, 978_300_000)
    expected = [(user, movie_id[item], rating, start + second) for user, item, rating, second in RATINGS]
    assert list(interactions.itertuples(index=False, name=None)) == expected

    items = read(built, "items")
    assert items["item_id"].tolist() == list(movie_id.values())
    assert items["title"].tolist() == [movie[1] for movie in MOVIES]
    assert items["genres"].tolist() == [movie[2] for movie in MOVIES]
    assert items["year"].astype("Int16").fillna(0).tolist() == [movie[3] or 0 for movie in MOVIES]
    has_imdb = name in CSV or name == "movietweetings"
    assert items["imdb"].fillna("").tolist() == [movie[4] if has_imdb else "" for movie in MOVIES]

    users = read(built, "users")
    assert users["user_id"].tolist() == [1, 2, 3]
    if name in ("ml-100k", "ml-1m"):
        assert users["gender"].tolist() == ["F", "M", "M"]
        assert users["age"].tolist() == [25, 56, 18]
        assert users["occupation"].astype(str).tolist() == ["10", "16", "7"]
        assert users["zip"].tolist() == ["48067", "02139", "T8H1N"]


def test_half_stars_and_reordered_or_extra_csv_columns(tmp_path):
    files = raw_files("ml-32m")
    table = [("rating", "userId", "source", "timestamp", "movieId")]
    table += [
        (rating - 0.5, user, "app", 978_300_000 + second, item) for user, item, rating, second in RATINGS
    ]
    built, _ = build(
        tiny("ml-32m"), write_folder(tmp_path / "raw", files | {"ratings.csv": lines(table, ",").encode()})
    )
    interactions = read(built, "interactions")
    assert interactions["rating"].tolist() == [rating - 0.5 for _, _, rating, _ in RATINGS]
    assert interactions["item_id"].tolist() == [item for _, item, _, _ in RATINGS]
    assert "source" not in interactions


def test_ml_1m_from_the_assembled_table(tmp_path):
    files = raw_files("ml-1m")
    del files["ratings.dat"]
    where = write_folder(tmp_path / "raw", files)
    table = pd.DataFrame(RATINGS, columns=["user", "movie", "rating", "timestamp"])
    table["timestamp"] += 978_300_000
    table = table.assign(ts_err_s=[0, 523, 0, 0, 15_587_955], ts_source="x", sasrec_rank=-1)
    table.to_parquet(where / "ratings_assembled.parquet")
    built, _ = build(tiny("ml-1m"), where)
    interactions = read(built, "interactions")
    assert interactions["ts_err_s"].tolist() == [0, 523, 0, 0, 15_587_955]
    assert interactions["item_id"].tolist() == table["movie"].tolist()

    table.drop(columns="ts_err_s").to_parquet(where / "ratings_assembled.parquet")
    with pytest.raises(UserError, match=r"ratings_assembled.parquet: column ts_err_s is missing"):
        build(tiny("ml-1m"), where)
    (where / "ratings_assembled.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match=r"ratings_assembled.parquet is not a whole Parquet file"):
        build(tiny("ml-1m"), where)


def replace(old, new):
    return lambda content: content.replace(old.encode(), new.encode(), 1)


ML1M, ML10M, ML25M = "ml-1m/ratings.dat", "ml-10m/movies.dat", "ml-25m/ratings.csv"
# fmt: off
BAD = [
    ("missing column", ML25M, replace(",timestamp", ""), ", line 1: column timestamp is missing; found user"),
    ("missing field", ML1M, replace("2::30::", "2::"), ", line 2: expected 4 columns split by '::'"),
    ("extra field", ML1M, replace("2::30", "2::2::30"), ", line 2: expected 4 columns split by '::'"),
    ("separator", ML1M, lambda c: c.replace(b"::", b","), ", line 1: wrong separator, expected '::'"),
    ("csv separator", ML25M, lambda c: c.replace(b",", b";"), ", line 1: wrong separator, expected ','"),
    ("word", ML25M, replace("2,30,1,", "2,30,x,"), ", line 3, column rating: not a number in '2,30,x,"),
    ("NaN", ML25M, replace("2,30,1,", "2,30,NaN,"), ", line 3, column rating: nan is not a number"),
    ("no rating", ML25M, replace("2,30,1,", "2,30,,"), ", line 3, column rating: an empty field is not a va"),
    ("no user", ML25M, replace("2,30,", ",30,"), ", line 3, column userId: an empty field is not a value"),
    ("no time", ML1M, replace("1::978300000", "1::"), ", line 2, column timestamp: an empty field is not a"),
    ("fraction", "ml-100k/u.data", replace("\t30", "\t3.5"), ", line 2, column item_id: 3.5 is not a whole"),
    ("too high", ML1M, replace("30::1", "30::6"), ", line 2, column rating: 6 is not on the scale from 1 to"),
    ("zero", ML25M, replace("2,30,1,", "2,30,0,"), ", line 3, column rating: 0 is not on the scale from 0.5"),
    ("half star", "ml-100k/u.data", replace("\t1\t", "\t1.5\t"), ", line 2, column rating: 1.5 is not on th"),
    ("milliseconds", ML1M, replace("00000\n", "00000000\n"), ", line 2, column timestamp: 978300000000 is n"),
    ("1970", "movietweetings/ratings.dat", replace("::1365000000", "::0"), ", line 2, column timestamp: 0 i"),
    ("pair twice", ML1M, replace("1::40", "1::10"), ", line 5 repeats ratings.dat, line 3: both have user_i"),
    ("unknown movie", ML25M, replace("3,20,", "3,21,"), ", line 5, column movieId: 21 is not in movies.csv"),
    ("unknown user", ML1M, replace("3::20", "4::20"), ", line 4, column user_id: 4 is not in users.dat"),
    ("movie twice", ML10M, replace("20::1", "10::1"), ", line 2 repeats movies.dat, line 1: both have item_"),
    ("no title", ML10M, replace("Paterson", ""), ", line 3, column title: an empty field is not a value"),
    ("UTF-8", "ml-1m/movies.dat", lambda c: c.decode("latin-1").encode(), ": wrong encoding, expected latin"),
    ("latin-1", ML10M, lambda c: c.decode().encode("latin-1"), ", line 1: wrong encoding, expected UTF-8"),
    ("cut at a line", ML1M, lambda c: c[: c.rindex(b"1::40")], " holds 4 ratings instead of 5"),
    ("cut in a line", ML1M, lambda c: c[:-12], ", line 5: expected 4 columns split by '::'"),
    ("header only", ML25M, lambda c: c[: c.index(b"\n") + 1], " holds 0 ratings instead of 5"),
    ("empty", ML25M, lambda c: b"", " is empty"),
    ("too many movies", ML10M, lambda c: c + b"50::Heat (1995)::Crime\n", " holds 5 items instead of 4"),
]
# fmt: on


@pytest.mark.parametrize("path, spoil, message", [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_input_is_refused_in_one_sentence_and_the_old_build_stays(path, spoil, message, tmp_path):
    name, file = path.split("/")
    where = write_folder(tmp_path / "raw", raw_files(name))
    before, _ = build(tiny(name), where)
    content = (where / file).read_bytes()
    assert spoil(content) != content
    (where / file).write_bytes(spoil(content))
    with pytest.raises(UserError, match=re.escape(file + message)) as caught:
        build(tiny(name), where)
    assert "\n" not in str(caught.value)
    assert Built.read(name) == before
    before.check()
    assert [folder.name for folder in (tmp_path / "data").iterdir() if folder.is_dir()] == [name]


def test_known_raw_files_must_be_the_published_ones(tmp_path):
    where = write_folder(tmp_path / "raw", raw_files("ml-1m"))
    entry = tiny("ml-1m").model_copy(update={"raw": catalog.entry("ml-1m").raw})
    with pytest.raises(UserError, match=r"ratings.dat has \d+ bytes instead of 24,594,131"):
        build(entry, where)


def test_a_second_build_does_nothing_until_the_raw_files_or_the_tables_change(tmp_path):
    where, entry = write_folder(tmp_path / "raw", raw_files("ml-25m")), tiny("ml-25m")
    built, _ = build(entry, where)
    stamp = (built.folder / "manifest.json").stat().st_mtime_ns
    assert build(entry, where) == (built, False)
    assert (built.folder / "manifest.json").stat().st_mtime_ns == stamp

    (built.folder / "items.parquet").write_bytes(b"altered")
    again, now = build(entry, where)
    assert now and again == built  # the same bytes once more

    (where / "movies.csv").write_bytes((where / "movies.csv").read_bytes().replace(b"Toy Story", b"Heat"))
    changed, now = build(entry, where)
    assert now and changed.tables["items.parquet"] != built.tables["items.parquet"]
    assert changed.tables["interactions.parquet"] == built.tables["interactions.parquet"]


@pytest.mark.fault("damaged file", "build", "It names the archive and the file inside it that is damaged.")
def test_archives_cannot_write_outside_and_damage_is_found(tmp_path):
    files = raw_files("ml-25m")
    evil = write_zip(tmp_path / "evil.zip", {f"../../{name}": content for name, content in files.items()})
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    built, _ = build(tiny("ml-25m"), evil)
    new = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert {path.parent for path in new} == {built.folder, built.folder.parent}

    content = bytearray(write_zip(tmp_path / "bad.zip", files).read_bytes())
    content[60] ^= 0xFF  # inside the first file's compressed bytes
    (tmp_path / "bad.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"bad.zip: ratings.csv inside it is damaged"):
        build(tiny("ml-25m"), tmp_path / "bad.zip")
    (tmp_path / "bad.zip").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"bad.zip is neither a folder nor a whole zip archive"):
        build(tiny("ml-25m"), tmp_path / "bad.zip")


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(
        UserError, match=r"python -m data_prep fetch ml-1m.*python -m data_prep build ml-1m --from DIR"
    ):
        build(tiny("ml-1m"))
    with pytest.raises(UserError, match="there is no such file or folder"):
        build(tiny("ml-1m"), tmp_path / "nowhere")
    files = raw_files("ml-1m")
    del files["users.dat"]
    with pytest.raises(UserError, match=r"holds no users.dat, which ml-1m needs"):
        build(tiny("ml-1m"), write_folder(tmp_path / "raw", files))


def run(code, tmp_path):
    """Run Python code, or the command line if given a list of arguments."""
    arguments = ["-c", code] if isinstance(code, str) else ["-m", "data_prep", *code]
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "REC_DATA": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        timeout=60,
    )


REBUILD = """
import os, resource, signal
from data_prep import build, catalog
from rec_utils.errors import run_cli
build.BUILDER = 2  # the same raw files, so only another builder builds again
{spoil}
raise SystemExit(run_cli(lambda: print(build.build(catalog.entry("ml-latest-small"))) or 0))
"""


@pytest.mark.fault("SIGKILL", "build")
def test_a_killed_build_leaves_the_old_one_and_the_next_one_cleans_up(tmp_path, data_home):
    before, _ = build(catalog.entry("ml-latest-small"))
    kill = "build.follow = lambda *_: os.kill(os.getpid(), signal.SIGKILL)"
    assert run(REBUILD.format(spoil=kill), tmp_path).returncode == -signal.SIGKILL
    assert Built.read("ml-latest-small") == before
    before.check()
    assert list(data_home.glob(".ml-latest-small.new-*"))
    assert run(REBUILD.format(spoil=""), tmp_path).returncode == 0
    assert not list(data_home.glob(".ml-latest-small.new-*"))
    assert Built.read("ml-latest-small").builder == 2


@pytest.mark.fault("SIGKILL", "build", "Killed between two renames, it gives the earlier data set back.")
def test_killed_between_the_two_renames_the_old_build_comes_back(data_home):
    built, _ = build(catalog.entry("ml-latest-small"))
    built.folder.rename(data_home / ".ml-latest-small.old")
    assert build(catalog.entry("ml-latest-small")) == (built, False)


@pytest.mark.fault("full disk", "build")
def test_a_full_disk_is_one_sentence_and_the_old_build_stays(tmp_path, data_home):
    before, _ = build(catalog.entry("ml-latest-small"))
    full = "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))"
    result = run(REBUILD.format(spoil=full), tmp_path)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    assert Built.read("ml-latest-small") == before
    before.check()
    assert not list(data_home.glob(".ml-latest-small.new-*"))


def call(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["data_prep", *arguments])
    status = run_cli(main)
    return status, *capsys.readouterr()


def test_command_line(data_home, monkeypatch, capsys):
    status, out, _ = call(["build", "movietweetings"], monkeypatch, capsys)
    manifest = json.loads((data_home / "movietweetings/manifest.json").read_text())
    assert status == 0 and all(digest in out for digest in manifest["tables"].values())
    assert "up to date" in call(["build", "movietweetings"], monkeypatch, capsys)[1]
    assert "ok" in call(["verify", "movietweetings"], monkeypatch, capsys)[1]
    rows = call(["list"], monkeypatch, capsys)[1].splitlines()[1:]
    assert [row.split()[0] for row in rows] == list(catalog.load())
    assert "nothing to fetch" in call(["fetch", "movietweetings"], monkeypatch, capsys)[1]

    (data_home / "movietweetings/items.parquet").write_bytes(b"altered")
    for arguments, message in (
        (["verify", "movietweetings"], "items.parquet is missing or altered"),
        (["verify", "ml-10m"], "neither shipped nor built"),
        (["build", "ml-1n"], "did you mean 'ml-1m'?"),
        (["build", "knowledge"], "'knowledge' is not one of"),
        (["build", "ml-1m", "--from", str(data_home)], "holds no ratings.dat"),
    ):
        status, _, error = call(arguments, monkeypatch, capsys)
        assert status == 2 and message in error and error.count("\n") == 1


def test_command_line_from_a_shell(tmp_path):
    shown = run(["build", "--help"], tmp_path)
    assert shown.returncode == 0 and "--from" in shown.stdout
    refused = run(["build", "ml-1m"], tmp_path)
    assert refused.returncode == 2 and refused.stderr.startswith("error: ml-1m is neither shipped nor built")
    assert "Traceback" not in refused.stderr
