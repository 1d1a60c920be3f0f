"""Dialogues: raw formats into tables, the bundled ReDial, sequences of sessions, what is to be predicted."""

import json
import sys
import zipfile
from dataclasses import replace

import pandas as pd
import pytest
import tiny_dialogues as tiny

from data_prep import catalog, dialogue_formats, dialogues
from data_prep.__main__ import main
from data_prep.build import Built
from rec_utils import dialogues as loader
from rec_utils.errors import UserError, run_cli

A = tiny.dialogue(
    7,
    1,
    2,
    [
        (True, "Hi &amp; hello, I like @1 and @4"),
        (False, "Try @3"),
        (False, "or @3 and @5 and @1"),
        (True, "Seen @3 ."),
        (False, "Then @6"),
    ],
    {1: (0, 1, 1), 3: (1, 1, 0), 5: (1, 2, 2)},
)
B = tiny.dialogue(9, 1, 3, [(False, "Hello"), (True, "Hello"), (False, "@6 or @7 ?")])
C = tiny.dialogue(8, 4, 3, [(False, "@1 ?"), (True, "write to me @99999")])


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    tiny.write_lines(folder / "train_data.jsonl", [B, A])
    tiny.write_lines(folder / "test_data.jsonl", [C])
    return folder


@pytest.fixture
def toy(raw):
    files = {"train": raw / "train_data.jsonl", "test": raw / "test_data.jsonl"}
    return loader.Dialogues.of("toy", dialogue_formats.read_redial(files))


# Raw formats


def test_redial_becomes_five_tables_in_the_order_of_the_numbers(toy):
    assert toy.sessions.values.tolist() == [
        [7, "train", 1, 2, 0],
        [8, "test", 4, 3, 0],
        [9, "train", 1, 3, 1],
    ]
    assert toy.turns["session_id"].tolist() == [7] * 5 + [8] * 2 + [9] * 3
    assert toy.turns["by_seeker"].tolist()[:5] == [True, False, False, True, False]
    of_a = toy.mentions[toy.mentions["session_id"] == 7]
    assert of_a[["turn", "place", "movie_id"]].values.tolist() == [
        [0, 0, 1], [0, 1, 4], [1, 0, 3], [2, 0, 3], [2, 1, 5], [2, 2, 1], [3, 0, 3], [4, 0, 6],
    ]  # fmt: skip
    assert 99999 not in set(toy.mentions["movie_id"]), "an at sign that names no movie"
    assert len(toy.forms) == 6 and toy.forms["by_seeker"].sum() == 3
    assert toy.movies.set_index("movie_id")["year"].dropna().to_dict()[1] == 1995


def test_titles_stand_for_numbers_with_single_spaces(toy):
    assert toy.texts()[0] == "Hi & hello, I like Heat (1995) and The Matrix (1999)"
    assert toy.texts()[6] == "write to me @99999"


def test_a_movie_without_a_title_is_left_out(raw):
    odd = json.loads(json.dumps(A))
    odd["movieMentions"]["3"] = None
    path = tiny.write_lines(raw / "odd.jsonl", [odd])
    tables = dialogue_formats.read_redial({"train": path})
    for name in ("movies", "mentions", "forms"):
        assert 3 not in set(tables[name]["movie_id"])


def test_the_publishers_list_gives_movies_that_nobody_names(raw, tmp_path):
    listed = tmp_path / "movies.csv"
    listed.write_text("movieId,movieName,nbMentions\n500,Persona  (1966),0\n1,Heat (1995),3\n", "utf-8-sig")
    movies = dialogue_formats.read_redial({"train": raw / "train_data.jsonl"}, listed)["movies"]
    assert movies.set_index("movie_id").loc[500].tolist() == ["Persona (1966)", 1966]


def broken(change):
    odd = json.loads(json.dumps(A))
    change(odd)
    return json.dumps(odd)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", r"x.jsonl, line 2: not JSON"),
        (broken(lambda d: d.pop("messages")), r"x.jsonl, line 2: field messages is missing"),
        (
            broken(lambda d: d["messages"][0].update(senderWorkerId=77)),
            r"dialogue 7 has a message of somebody",
        ),
    ],
)
def test_what_is_wrong_with_redial_is_named(tmp_path, line, message):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(B) + "\n" + line + "\n")
    with pytest.raises(UserError, match=message):
        dialogue_formats.read_redial({"train": path})


def test_tg_redial_in_crslabs_json(tmp_path):
    def conversation(number, user, *messages):
        keys = ("local_id", "role", "text", "movie")
        return {
            "conv_id": number,
            "user_id": user,
            "messages": [dict(zip(keys, (n, *each), strict=True)) for n, each in enumerate(messages, 1)],
        }

    train = [
        conversation(20, "5", ("Seeker", ["你好", "！"], []), ("Recommender", ["看", "乙"], ["乙(2001)"])),
        conversation(3, "5", ("Recommender", "甲", ["甲(1999)", "乙(2001)"])),
    ]
    files = {"train": tmp_path / "train_data.json"}
    files["train"].write_text(json.dumps(train))
    tables = dialogue_formats.READERS["tg-redial"](files)
    assert tables["sessions"][["session_id", "seeker"]].values.tolist() == [[3, 5], [20, 5]]
    assert tables["turns"]["text"].tolist() == ["甲", "你好！", "看乙"]
    assert tables["turns"]["by_seeker"].tolist() == [False, True, False]
    names = tables["mentions"]["movie_id"].map(tables["movies"].set_index("movie_id")["title"])
    assert names.tolist() == ["甲(1999)", "乙(2001)", "乙(2001)"]
    assert tables["movies"]["year"].tolist() == [2001, 1999]
    files["train"].write_text('{"a": 1}')
    with pytest.raises(UserError, match=r"train_data.json: not a list of dialogues"):
        dialogue_formats.read_tg_redial(files)
    files["train"].write_text('[{"conv_id": 1}]')
    with pytest.raises(UserError, match=r"train_data.json, dialogue 1: field user_id is missing"):
        dialogue_formats.read_tg_redial(files)


def test_inspired_in_its_tables(tmp_path):
    header = "dialog_id\tutt_id\tspeaker\tturn_id\ttext\tmovies\n"
    rows = [
        "b.pkl\t1\tRECOMMENDER\t1\tHi\t\n",
        "b.pkl\t2\tSEEKER\t1\tI saw QUOTATION_MARKUpQUOTATION_MARK\tUp (2009); Heat (1995)\n",
        'a.pkl\t1\tSEEKER\t1\tan "odd quote\tHeat (1995)\n',
    ]
    path = tmp_path / "dev.tsv"
    path.write_text(header + "".join(rows))
    tables = dialogue_formats.read_inspired({"valid": path})
    assert tables["sessions"]["seeker"].tolist() == [1, 2], "nobody is named, so everybody is somebody else"
    assert tables["turns"]["text"].tolist() == ['an "odd quote', "Hi", 'I saw "Up"']
    titles = tables["movies"].set_index("movie_id")["title"]
    assert tables["mentions"]["movie_id"].map(titles).tolist() == ["Heat (1995)", "Up (2009)", "Heat (1995)"]
    assert tables["mentions"]["turn"].tolist() == [0, 1, 1]
    path.write_text(header.replace("movies", "films"))
    with pytest.raises(UserError, match=r"dev.tsv: field movies is missing"):
        dialogue_formats.read_inspired({"valid": path})


# Builds


@pytest.fixture
def full(raw, tmp_path, monkeypatch):
    """The catalog's redial-full without an archive, and the command line; data go to `tmp_path / "data"`."""
    monkeypatch.setenv("REC_DATA", str(tmp_path / "data"))
    entry = catalog.dialogue_entry("redial-full")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["data_prep", *map(str, arguments)])
        return run_cli(main)

    return entry, run


def test_the_official_files_are_built_from_a_folder_or_an_archive(full, raw, tmp_path, capsys):
    entry, run = full
    assert run("build", entry.name, "--from", raw) == 0
    from_folder = Built.read(entry.name)
    assert from_folder.rows["sessions.parquet"] == 3
    assert run("build", entry.name, "--from", raw) == 0
    assert "up to date" in capsys.readouterr().out
    with zipfile.ZipFile(tmp_path / "redial_dataset.zip", "w") as archive:
        for path in raw.iterdir():
            archive.write(path, f"data/{path.name}")
    assert run("build", entry.name, "--from", tmp_path / "redial_dataset.zip") == 0
    assert Built.read(entry.name).tables == from_folder.tables, "the same bytes"
    ours = loader.load("redial-full")
    assert ours.split("test").sessions["session_id"].tolist() == [8]
    assert run("verify", entry.name) == 0
    (from_folder.folder / "turns.parquet").write_bytes(b"?")
    with pytest.raises(UserError, match=r"turns.parquet is missing or altered"):
        loader.load("redial-full")


def test_what_is_not_built_says_how_to_build_it(full, raw, capsys):
    with pytest.raises(UserError, match=r"redial-full is neither shipped nor built: run"):
        loader.load("redial-full")
    (raw / "test_data.jsonl").unlink()
    assert full[1]("build", "redial-full", "--from", raw) == 2
    assert "holds no test_data.jsonl" in capsys.readouterr().err
    assert full[1]("fetch", "tg-redial") == 2
    assert "tg-redial has no archive to fetch: https://github.com/RUCAIBox" in capsys.readouterr().err
    assert full[1]("build", "redial") == 2
    assert "redial is shipped as tables; give its raw files" in capsys.readouterr().err
    with pytest.raises(UserError, match="did you mean 'redial'"):
        loader.load("redal")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t | {"sessions": pd.concat([t["sessions"]] * 2)}, "dialogue 7 stands there twice"),
        (lambda t: t | {"forms": t["forms"].assign(liked=3)}, "form of dialogue 7 has a label other than"),
        (lambda t: t | {"turns": t["turns"][1:]}, "holds 9 turns instead of 10: it is truncated"),
    ],
)
def test_tables_that_do_not_fit_are_refused(raw, change, message):
    entry = catalog.dialogue_entry("redial-full")
    counts = catalog.DialogueCounts(sessions=3, turns=10, movies=6)
    entry = entry.model_copy(update={"dialogues": entry.dialogues.model_copy(update={"counts": counts})})
    files = {"train": raw / "train_data.jsonl", "test": raw / "test_data.jsonl"}
    tables = dialogue_formats.read_redial(files)
    dialogues.check(tables, entry)
    with pytest.raises(UserError, match=message):
        dialogues.check(change(tables), entry)


@pytest.mark.skipif(
    Built.read("redial") is None, reason="the bundled tables of ReDial are not built anew here"
)
def test_the_bundled_tables_are_those_of_the_raw_files():
    bundled = {file.path.removeprefix("redial/"): file.sha256 for file in catalog.entry("redial").bundled}
    built = Built.read("redial").tables
    assert built == {name: bundled[name] for name in built}


# Sequences and targets


def test_sessions_of_a_seeker_are_counted_in_time_order(toy):
    assert toy.sessions.set_index("session_id")["n_earlier"].to_dict() == {7: 0, 8: 0, 9: 1}
    assert toy.split("train").sessions["session_id"].tolist() == [7, 9]
    assert set(toy.split("test").mentions["session_id"]) == {8}
    with pytest.raises(UserError, match=r"split 'dev' of toy is not one of train, test"):
        toy.split("dev")


def test_targets_are_movies_that_the_dialogue_had_not_named(toy):
    found = loader.recommendations(toy).drop(columns="seeker").values.tolist()
    assert found == [
        [7, 1, 3, False, False],
        [7, 2, 5, False, False],
        [7, 4, 6, False, False],
        [8, 0, 1, False, False],
        [9, 2, 6, True, True],
        [9, 2, 7, True, False],
    ]


def by_hand(data):
    """The same with loops: (session, turn, movie, warm, repeat)."""
    rows, past = [], {}
    for session in data.sessions.itertuples():
        named = data.mentions[data.mentions["session_id"] == session.session_id]
        earlier, here = past.setdefault(session.seeker, [set(), 0]), set()
        for turn in sorted(set(named["turn"])):
            for mention in named[named["turn"] == turn].itertuples():
                movie = mention.movie_id
                if movie not in here and not mention.by_seeker:
                    rows.append((session.session_id, turn, movie, earlier[1] > 0, movie in earlier[0]))
                here.add(movie)
        earlier[0] |= here
        earlier[1] += 1
    return rows


def test_targets_of_redial_equal_a_loop_over_its_first_dialogues(redial):
    test = redial.split("test")
    part = test.select(test.sessions["session_id"][:150])
    found = loader.recommendations(part).drop(columns="seeker")
    assert [tuple(row) for row in found.values.tolist()] == by_hand(part)


@pytest.fixture(scope="module")
def redial():
    return loader.load("redial")


def test_redial_is_as_counted(redial):
    train, test = redial.split("train"), redial.split("test")
    assert (len(train.sessions), len(train.turns)) == (3458, 62715)
    assert (len(test.sessions), len(test.turns)) == (1342, 23952)
    sizes = test.sessions.groupby("seeker").size()
    assert (len(sizes), sizes.max(), (sizes == 1).sum()) == (97, 108, 40)
    assert not set(train.sessions["seeker"]) & set(test.sessions["seeker"])
    targets = loader.recommendations(test)
    assert (len(targets), targets["warm"].sum()) == (4498, 4111)
    # the reference harness counts 4,503: a movie named twice in its first turn is two of them
    first = test.mentions.groupby(["session_id", "movie_id"])["turn"].transform("min")
    assert ((first == test.mentions["turn"]) & ~test.mentions["by_seeker"]).sum() == 4503
    named = test.mentions.drop_duplicates(["session_id", "movie_id"]).merge(test.sessions, on="session_id")
    keys = pd.MultiIndex.from_frame(named[["seeker", "movie_id"]])
    repeats = loader.first_sessions(test).loc[keys].to_numpy() < named["session_id"].to_numpy()
    assert (repeats.sum(), (named["n_earlier"] > 0).sum()) == (2116, 6573)
    labels = test.forms[test.forms["by_seeker"]]["liked"].value_counts()
    assert labels.to_dict() == {1: 5694, 2: 1047, 0: 323}


# Transcripts


def test_transcripts_end_before_the_turn_and_join_what_one_person_says(toy):
    ends = pd.DataFrame({"session_id": [7, 7, 9, 7], "turn": [0, 3, 2, 99]})
    empty, early, other, whole = loader.transcripts(toy, ends, 100)
    assert empty == ""
    assert early.split("\n") == [
        "Seeker: Hi & hello, I like Heat (1995) and The Matrix (1999)",
        "Recommender: Try Alien (1979) or Alien (1979) and Up (2009) and Heat (1995)",
    ]
    assert other == "Recommender: Hello\nSeeker: Hello"
    assert whole.endswith("Seeker: Seen Alien (1979) .\nRecommender: Then Jaws (1975)")


@pytest.mark.parametrize(("words", "lines"), [(4, 1), (8, 1), (9, 2), (21, 2), (22, 3)])
def test_of_long_dialogues_the_last_lines_are_kept(toy, words, lines):
    (text,) = loader.transcripts(toy, pd.DataFrame({"session_id": [7], "turn": [99]}), words)
    shown = text.split("\n")
    assert shown[0] == "[…]" and len(shown) == lines + 1
    assert len(" ".join(shown[1:]).split()) <= words


def test_texts_side_by_side_are_joined(toy):
    group = pd.Series([1, 1, 2, 1], index=list("abcd"))
    assert loader.joined(pd.Series(list("wxyz"), index=list("abcd")), group) == ["w x", "y", "z"]


def test_dialogues_without_forms_or_mentions_are_no_trouble(toy):
    bare = replace(toy, mentions=toy.mentions[:0], forms=toy.forms[:0])
    assert loader.recommendations(bare).empty
