"""Hostile archives and downloads: nothing gets out of the folder, and one sentence says why."""

import gzip
import io
import os
import stat
import tracemalloc
import zipfile

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_data_prep import RATINGS, raw_files, tiny

from data_prep import catalog, dialogues, download
from data_prep.build import build
from data_prep.catalog import File
from data_prep.json_lines import JsonLines
from data_prep.source import MOST_UNPACKED, Source
from data_prep.tables import TEXT
from rec_utils import data
from rec_utils.errors import UserError

NAME = "ml-latest-small"
HOSTILE_NAMES = [
    "../../ratings.csv",
    "/ratings.csv",
    "//host/share/ratings.csv",
    "..\\..\\ratings.csv",
    "C:\\ratings.csv",
    "a/../../../ratings.csv",
    "ratings.csv\0.exe",
    "ratings.csv/",
    "./ratings.csv/../../links.csv",
    "~/ratings.csv",
    "$HOME/ratings.csv",
    "\x1b[2Jratings.csv",
    "-rf",
    "a/" * 200 + "ratings.csv",
]
PACKED = [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
KINDS = [stat.S_IFLNK, stat.S_IFBLK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFDIR]


@pytest.fixture(autouse=True)
def data_home(tmp_path, monkeypatch):
    monkeypatch.setenv("REC_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def zipped(path, members, kind=stat.S_IFREG):
    """A zip archive of (name, content); each claims to be a file of `kind`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo("x")
            info.filename, info.external_attr = name, (kind | 0o777) << 16
            info.create_system, info.compress_type = 3, zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return path


def below(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_no_name_in_an_archive_leads_out_of_the_folder(name, tmp_path):
    raw = raw_files(NAME)
    others = [(each, content) for each, content in raw.items() if each != "ratings.csv"]
    path = zipped(tmp_path / "raw.zip", [(name, raw["ratings.csv"]), *others])
    before = below(tmp_path)
    try:
        built, _ = build(tiny(NAME), path)
        assert built.rows["interactions.parquet"] == len(RATINGS)
    except UserError as error:
        assert str(error) == f"{path} holds no ratings.csv, which {NAME} needs"
    new = {each for each in below(tmp_path) - before if not each.startswith("data")}
    assert not new
    home = {each.split("/")[0] for each in below(tmp_path / "data")} - {f".{NAME}.lock"}
    assert home <= {NAME}


@pytest.mark.parametrize("kind", KINDS)
def test_a_link_or_device_in_an_archive_is_a_file_with_its_text(kind, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(raw_files(NAME)["ratings.csv"])
    raw = raw_files(NAME) | {"ratings.csv": str(secret).encode()}
    path = zipped(tmp_path / "raw.zip", raw.items(), kind)
    with pytest.raises(UserError, match=r"ratings.csv, line 1: "):
        build(tiny(NAME), path)
    source = Source.open(path)
    unpacked = source.unpack(["ratings.csv"], tmp_path / "out")["ratings.csv"]
    assert unpacked.is_file() and not unpacked.is_symlink()
    assert unpacked.read_text() == str(secret)


def test_of_two_files_of_one_name_the_outermost_is_read(tmp_path):
    members = [("a/b/x", b"deep"), ("x", b"outer"), ("../../../x", b"hostile")]
    source = Source.open(zipped(tmp_path / "raw.zip", members))
    assert source.unpack(["x"], tmp_path / "out")["x"].read_bytes() == b"outer"


@pytest.mark.parametrize("method", PACKED)
def test_a_zip_bomb_is_refused_before_it_is_unpacked(method, tmp_path):
    path = tmp_path / "raw.zip"
    with zipfile.ZipFile(path, "w", method, compresslevel=1) as archive:
        for name in raw_files(NAME):
            archive.writestr(name, bytes(10_000_000))
    assert MOST_UNPACKED * path.stat().st_size < 30_000_000
    with pytest.raises(UserError, match=r"raw.zip claims 30,000,000 bytes, over 100 for each of its own"):
        build(tiny(NAME), path)
    assert not (tmp_path / "data" / NAME).exists()


def test_a_bomb_that_lies_about_its_size_stops_there(tmp_path):
    path = zipped(tmp_path / "raw.zip", [("ratings.csv", bytes(5_000_000))])
    content = path.read_bytes().replace((5_000_000).to_bytes(4, "little"), (900).to_bytes(4, "little"))
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"raw.zip: ratings.csv inside it is damaged \(Bad CRC-32"):
        Source.open(path).unpack(["ratings.csv"], tmp_path / "out")
    assert (tmp_path / "out" / "ratings.csv").stat().st_size <= 900


def test_an_encrypted_archive_is_refused_in_a_sentence(tmp_path):
    path = zipped(tmp_path / "raw.zip", raw_files(NAME).items())
    content = bytearray(path.read_bytes())
    for mark, flags in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        at = content.find(mark)
        while at >= 0:
            content[at + flags] |= 1
            at = content.find(mark, at + 1)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"raw.zip: \w+.csv inside it is damaged \(File .* is encrypted"):
        build(tiny(NAME), path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, *PACKED])
def test_damage_anywhere_in_an_archive_is_a_sentence(method, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("movies/ratings.csv", bytes(range(256)) * 3)
    whole, path = buffer.getvalue(), tmp_path / "raw.zip"
    numbers = iter(range(10**6))

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), min_size=1, max_size=4))
    def damage(changes):
        content = bytearray(whole)
        for place, value in changes:
            content[place] = value
        path.write_bytes(content)
        try:
            source = Source.open(path)
            if "ratings.csv" in source.members:
                source.unpack(["ratings.csv"], tmp_path / f"out{next(numbers)}")
        except UserError as error:
            assert "\n" not in str(error)

    damage()
    assert all(each.name in ("raw.zip", "ratings.csv") or each.is_dir() for each in tmp_path.rglob("*"))


def test_a_folder_lists_no_devices(tmp_path):
    os.mkfifo(tmp_path / "ratings.csv")
    assert "ratings.csv" not in Source.open(tmp_path).members


def test_a_line_without_end_does_not_fill_the_memory(tmp_path):
    path = tmp_path / "Books_5.json.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(150):
            file.write(bytes(1_000_000))
    lines = JsonLines(path.name, {"user": TEXT}, ("reviewerID",))
    tracemalloc.start()
    assert lines._fault(path).startswith("Books_5.json.gz, line 1: no JSON object in ")
    assert tracemalloc.get_traced_memory()[1] < 120_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("size", [1_000, 100_000])
def test_a_download_stops_where_it_is_longer_than_the_catalog_says(size, tmp_path, monkeypatch):
    sent = []

    def endless():
        for _ in range(1_000):
            sent.append(1)
            yield bytes(10_000)

    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=endless()))
    monkeypatch.setattr(httpx, "stream", httpx.Client(transport=transport).stream)
    file = File(path="x.zip", size=size, sha256="0" * 64)
    with pytest.raises(UserError, match=r"instead of .* bytes|bytes instead of|discarded"):
        download._fetch("http://example.org/x.zip", file, tmp_path, "x")
    assert len(sent) <= size / 10_000 + 3
    assert not list(tmp_path.glob("x.zip*"))


NOT_DIALOGUES = ["7", "[]", "null", '{"conversationId": {}}', '"\\ud800"', "[" * 100_000, "\xff", "{}"]


@pytest.mark.parametrize("text", NOT_DIALOGUES, ids=range(len(NOT_DIALOGUES)))
@pytest.mark.parametrize("name", ["redial-full", "tg-redial", "inspired"])
def test_what_is_no_dialogue_is_a_sentence(name, text, tmp_path):
    entry = catalog.dialogue_entry(name)
    for file in entry.dialogues.files.values():
        (tmp_path / file).write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError) as caught:
        dialogues.build(entry, tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert not (tmp_path / "data" / name).exists()


def test_only_catalogued_names_are_loaded():
    for name in ("../../etc/passwd", "/etc/passwd", "ml-1m/../ml-1m", "ml-1m\0"):
        with pytest.raises(UserError, match=r"data set .* is not one of"):
            data.load(name)
