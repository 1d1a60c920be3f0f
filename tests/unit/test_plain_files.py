"""Data sets of plain files: fetched from a local server, built from a folder, verified, read."""

import functools
import hashlib
import http.server
import sys
import threading

import pytest

from data_prep import catalog, plain
from data_prep.__main__ import main
from rec_utils import data
from rec_utils.errors import UserError, run_cli

CONTENT = {"a.json": b'{"1": 2}\n', "deep/er/b.csv": b"x,y\n1,2\n", "own.parquet": b"PAR1 by hand PAR1"}


@pytest.fixture
def original(tmp_path):
    """A folder with the three files."""
    for name, content in CONTENT.items():
        path = tmp_path / "original" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "original"


@pytest.fixture
def address(original):
    """Address of a server of that folder without own.parquet, as `fetch` finds the world."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def send_head(self):
            return self.send_error(404) if "own" in self.path else super().send_head()

        def log_message(self, *arguments):
            pass

    handler = functools.partial(Handler, directory=str(original))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def entry(address, tmp_path, monkeypatch):
    """A catalog of one data set, toy, whose own.parquet has no address; data go to `tmp_path / "data"`."""
    monkeypatch.setenv("REC_DATA", str(tmp_path / "data"))
    text = "toy:\n  title: t\n  source: s\n  licence: l\n  citation: c\n  ship: false\n  files:\n"
    for name, content in CONTENT.items():
        origin = "missing: a fold; ask Ann" if name == "own.parquet" else f"url: '{address}/{name}'"
        digest = hashlib.sha256(content).hexdigest()
        text += f"    - {{path: {name}, size: {len(content)}, sha256: {digest}, {origin}}}\n"
    entries = catalog.parse(text)
    monkeypatch.setattr(catalog, "load", lambda: entries)
    return entries["toy"]


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["data_prep", *map(str, arguments)])
    return run_cli(main)


def test_build_from_a_folder_makes_all_files_readable(entry, original, tmp_path):
    assert plain.build(entry, original) is True
    files = data.files("toy")
    assert {name: path.read_bytes() for name, path in files.items()} == CONTENT
    assert all(path.is_relative_to(tmp_path / "data" / "toy") for path in files.values())
    assert plain.build(entry, original) is False
    assert plain.build(entry) is False, "what is built needs no source"
    files["a.json"].write_bytes(b'{"1": 3}\n')
    assert plain.build(entry, original) is True
    assert files["a.json"].read_bytes() == CONTENT["a.json"]


def test_fetch_takes_what_has_an_address_and_says_what_a_person_must_supply(
    entry, original, tmp_path, monkeypatch, capsys
):
    assert command(monkeypatch, "fetch", "toy") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "own.parquet: a fold; ask Ann (sha256 " in error
    assert "python -m data_prep build toy --from DIR" in error and "a.json:" not in error
    fetched = tmp_path / "data" / "downloads" / "toy"
    assert (fetched / "deep/er/b.csv").read_bytes() == CONTENT["deep/er/b.csv"]
    assert command(monkeypatch, "build", "toy") == 2
    assert "the fetched files lack own.parquet of toy" in capsys.readouterr().err
    # the one file suffices: the folder is completed by the fetched files
    supplied = tmp_path / "supplied" / "toy"
    supplied.mkdir(parents=True)
    (original / "own.parquet").rename(supplied / "own.parquet")
    assert command(monkeypatch, "build", "toy", "--from", supplied.parent) == 0
    assert set(data.files("toy")) == set(CONTENT)
    (supplied / "own.parquet").rename(fetched / "own.parquet")
    assert command(monkeypatch, "fetch", "toy") == 0
    assert "all 3 files" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"x,y\n1,3\n"), r"original/deep/er/b.csv was altered"),
        (lambda path: path.write_bytes(b"x,y\n"), r"original/deep/er/b.csv has 4 bytes instead of 8"),
        (
            lambda path: path.unlink(),
            r"neither .*original nor the fetched files hold deep/er/b.csv of toy: run",
        ),
    ],
)
def test_a_faulty_file_stops_the_build_and_an_earlier_one_stays(entry, original, tmp_path, damage, message):
    damage(original / "deep/er/b.csv")
    with pytest.raises(UserError, match=message):
        plain.build(entry, original)
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".toy.lock"]
    (original / "deep/er/b.csv").write_bytes(CONTENT["deep/er/b.csv"])
    plain.build(entry, original)
    other = entry.model_copy(update={"files": entry.files[:2]})  # as if the catalog had changed
    damage(original / "deep/er/b.csv")
    with pytest.raises(UserError, match=message):
        plain.build(other, original)
    assert set(data.files("toy")) == set(CONTENT)


@pytest.mark.fault("damaged file", "build")
def test_files_that_are_not_built_or_altered_name_the_commands(entry, original):
    with pytest.raises(
        UserError, match=r"data_prep fetch toy` and `.* build toy`; or, .* build toy --from DIR`"
    ):
        data.files("toy")
    plain.build(entry, original)
    path = data.files("toy")["a.json"]
    path.write_bytes(b'{"1": 3}\n')
    with pytest.raises(UserError, match=r"a.json was altered: .*; run `python -m data_prep build toy` again"):
        data.files("toy")
    (path.parent / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="is not built"):
        data.files("toy")
    with pytest.raises(UserError, match="did you mean 'toy'"):
        data.files("toys")


def test_list_and_verify_show_them(entry, original, monkeypatch, capsys):
    assert command(monkeypatch, "list") == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["toy", "no", "no", "l"]
    assert command(monkeypatch, "verify", "toy") == 2
    assert command(monkeypatch, "build", "toy", "--from", original) == 0
    capsys.readouterr()
    assert command(monkeypatch, "list") == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["toy", "no", "yes", "l"]
    assert command(monkeypatch, "verify", "toy") == 0
    assert [line.split()[-2:] for line in capsys.readouterr().out.splitlines()] == [
        [f"toy/{name}", "(built)"] for name in CONTENT
    ]
    assert command(monkeypatch, "build", "toy", "--from", original / "a.json") == 2
    assert "there is no such folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("origin", "ship", "message"),
    [
        ("url: u, missing: m", "false", "needs either url, or missing"),
        ("url: ''", "false", "needs either url, or missing"),
        ("url: u", "true", "can be neither shipped nor"),
    ],
)
def test_the_catalog_refuses_contradictory_plain_files(origin, ship, message):
    file = f"{{path: a, size: 1, sha256: {'a' * 64}, {origin}}}"
    text = f"x: {{title: t, source: s, licence: l, citation: c, ship: {ship}, files: [{file}]}}"
    with pytest.raises(UserError, match=message):
        catalog.parse(text)


def test_the_projects_own_entries_have_pinned_addresses():
    for name in ("kar-ml-1m", "reki"):
        entry = catalog.file_entry(name)
        assert len({file.path for file in entry.files}) == len({file.sha256 for file in entry.files})
        for file in entry.files:
            # a commit of 40 digits: a branch would move away from the hash
            assert file.missing or len(file.url.split("/")[5]) == 40
    assert [file.path for file in catalog.file_entry("kar-ml-1m").files if file.missing] == [
        "ml1m_u1_train_pairs.parquet"
    ]
