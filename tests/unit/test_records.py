import errno
import getpass
import json
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rec_utils import machine, records
from rec_utils.claims import NotTestable, check, load_card
from rec_utils.data import Dataset
from rec_utils.errors import UserError
from rec_utils.settings import ROOT
from rec_utils.stats import Interval

DEFAULTS = {"PROFILE": "laptop", "SEED": 0, "BACKBONE": "DIN", "TEXTS": "", "SERVER": ""}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("REC_OUTPUT", str(tmp_path))
    monkeypatch.setattr(records, "COMMITTED", tmp_path / "committed")
    return tmp_path / "records"


def verdicts():
    card = load_card("kar")
    gain = {
        claim.id: NotTestable("no such arm")
        if claim.id == "gain"
        else Interval(0.61234567, 0.4, 0.8, 0.95, 610)
        for claim in card.claims
        if not claim.not_testable
    }
    return check(card, gain)


def finished(**changed):
    run = records.start("01_kar", "laptop", DEFAULTS | changed, DEFAULTS, load_card("kar"))
    run.metric("AUC base", np.float64(0.75221234567))
    run.metric("gain", Interval(0.65, 0.4, float("inf"), 0.95, 610))
    run.metric("undefined", float("nan"))
    run.table(
        "arms", pd.DataFrame({"AUC": [1 / 3, np.nan], "n": [1, 2]}, index=pd.Index(["a", "b"], name="arm"))
    )
    run.verdicts(verdicts())
    run.data(Dataset("toy", "Toy", None, None, None, (1, 5), "CC0", "nobody", {"ratings.csv": "ab" * 32}))
    return run.finish()


def test_a_record_reads_back_as_it_was(folder):
    path = finished()
    assert path == folder / "01_kar" / "laptop.json"
    (record,) = records.load("01_kar", folders=[folder])
    assert record.metrics["AUC base"] == 0.752212
    assert record.metrics["gain"] == Interval(0.65, 0.4, float("inf"), 0.95, 610)
    assert record.metrics["undefined"] is None
    pd.testing.assert_frame_equal(
        record.tables["arms"], pd.DataFrame({"arm": ["a", "b"], "AUC": [0.333333, np.nan], "n": [1, 2]})
    )
    for written, made in zip(record.verdicts, verdicts(), strict=True):
        assert (written.claim, written.status, written.band) == (made.claim, made.status, made.band)
        assert written.value == (None if made.value is None else 0.612346)
    assert record.data == {"toy": {"ratings.csv": "ab" * 32}}
    assert record.card == "kar" and record.cell_seconds is None and 0 < record.seconds < 60
    assert record.versions["numpy"] == np.__version__
    assert 0.01 < record.peak_memory_gb < record.hardware["memory_gb"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", record.finished)


def test_saving_what_was_read_changes_no_byte(folder):
    path = finished()
    before = path.read_bytes()
    records.save(records.read(path), path)
    assert path.read_bytes() == before


def test_a_record_is_json_with_sorted_keys_and_a_line_a_row(folder):
    text = finished().read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))["schema"] == 1
    keys = re.findall(r'^ "(\w+)":', text, re.MULTILINE)
    assert keys == sorted(keys)
    assert '["a", 0.333333, 1],\n' in text


def test_nothing_in_a_record_names_the_machine_or_its_user(folder, tmp_path):
    path = finished(
        TEXTS=str(Path.home() / "secret" / "my texts.klg"), SERVER="http://me:password@inner-host.lan:8000/v1"
    )
    text = path.read_text() + path.name
    private = [
        str(ROOT),
        str(Path.home()),
        str(tmp_path),
        tempfile.gettempdir(),
        "secret",
        "inner-host",
        "password",
    ]
    assert not [word for word in private if word in text]
    assert not re.search(rf"\b({re.escape(platform.node())}|{re.escape(getpass.getuser())})\b", text)
    assert not re.search(r'"[^"]*(?<![\w.:/])/\w[^"]*/', text), "an absolute path"
    assert "my texts.klg" in text and "http://host/v1" in text


@pytest.mark.fault("full disk", "record")
def test_a_full_disk_leaves_the_earlier_record_and_says_so(folder, monkeypatch):
    path = finished()
    before = path.read_bytes()

    def full(self, data):
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"^The disk is full while writing .*laptop\.json; free"):
        finished()
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["laptop.json"]


@pytest.mark.fault("damaged file", "record")
def test_a_damaged_or_foreign_record_is_named(folder):
    path = finished()
    whole = path.read_text()
    for text in [whole[:500], "", "[]", "{}", '{"schema": 1}', whole.replace('"git"', '"gti"'),
                 whole.replace('"profile": "laptop"', '"profile": "desktop"', 2)]:  # fmt: skip
        path.write_text(text)
        with pytest.raises(UserError, match=rf"^{re.escape(str(path))}: not a run record|profile 'desktop'"):
            records.load(folders=[folder])
    path.write_text(whole.replace('"schema": 1', '"schema": 99'))
    with pytest.raises(UserError, match=r"laptop\.json: schema 99 is not 1"):
        records.load(folders=[folder])


def test_load_sorts_filters_and_prefers_the_later_folder(folder, tmp_path):
    old = finished()
    finished(BACKBONE="DCNv2")
    for profile in ("smoke", "paper"):
        records.start("00_start_here", profile, {}, {}).finish()
    (folder / "01_kar" / ".laptop.json.x.json").write_text("half of a reco")
    later = tmp_path / "later" / "01_kar"
    later.mkdir(parents=True)
    (later / "laptop.json").write_text(old.read_text().replace('"finished": "', '"finished": "later '))
    found = records.load(folders=[folder, tmp_path / "later"])
    assert [(r.notebook, r.run_id) for r in found] == [
        ("00_start_here", "smoke"),
        ("00_start_here", "paper"),
        ("01_kar", "laptop"),
        ("01_kar", "laptop-BACKBONE=DCNv2"),
    ]
    assert found[2].finished.startswith("later")
    assert [r.run_id for r in records.load("00_start_here", "paper")] == ["paper"]


def test_siblings_differ_in_the_named_parameters_alone(folder):
    for changed in ({}, {"BACKBONE": "DCNv2"}, {"BACKBONE": "FM", "SEED": 1}, {"SEED": 2}):
        finished(**changed)
    run = records.start("01_kar", "laptop", DEFAULTS, DEFAULTS)
    assert [r.run_id for r in records.siblings(run, "BACKBONE")] == ["laptop-BACKBONE=DCNv2"]
    assert [r.run_id for r in records.other_seeds(run)] == ["laptop-SEED=2"]
    both = records.siblings(run, "BACKBONE", "SEED")
    assert {r.run_id for r in both} == {"laptop-BACKBONE=DCNv2", "laptop-BACKBONE=FM-SEED=1", "laptop-SEED=2"}
    of_dcn = records.start("01_kar", "laptop", DEFAULTS | {"BACKBONE": "DCNv2"}, DEFAULTS)
    assert [r.run_id for r in records.siblings(of_dcn, "BACKBONE")] == ["laptop"]


def test_tables_of_all_runs_stand_below_each_other(folder):
    finished()
    finished(SEED=1)
    records.start("01_kar", "smoke", DEFAULTS, DEFAULTS).finish()
    assert records.tables("01_kar", "laptop")["arms"]["n"].tolist() == [1, 2, 1, 2]
    assert records.tables("01_kar", "smoke") == {}


def test_cell_times_are_added_to_a_written_record(folder):
    path = finished()
    records.add_cell_seconds(path, [0.123456789, 2])
    assert records.read(path).cell_seconds == [0.123457, 2]


def test_a_run_of_defaults_is_named_by_its_profile():
    assert records.run_id("laptop", DEFAULTS, DEFAULTS) == "laptop"
    assert records.run_id("smoke", DEFAULTS | {"PROFILE": "smoke"}, DEFAULTS) == "smoke"
    assert (
        records.run_id("laptop", DEFAULTS | {"SEED": 1, "BACKBONE": "FM"}, DEFAULTS)
        == "laptop-BACKBONE=FM-SEED=1"
    )


@given(st.lists(st.text(max_size=200) | st.floats(allow_nan=False), min_size=2, max_size=4, unique=True))
def test_run_ids_are_file_names_and_differ_with_the_value(values):
    names = [records.run_id("laptop", {"TEXTS": value}, {"TEXTS": None}) for value in values]
    assert len(set(map(str, values))) == len(set(names))
    assert all(re.fullmatch(r"[\w.+,=-]{1,120}", name, re.ASCII) for name in names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("01_kar", "labtop", {}, {}), "did you mean 'laptop'"), (("../etc", "laptop", {}, {}), "plain name")],
)
def test_start_refuses_what_cannot_be_a_run(arguments, message):
    with pytest.raises(UserError, match=message):
        records.start(*arguments)


def test_what_json_cannot_hold_is_refused(folder):
    run = records.start("01_kar", "smoke", {}, {})
    run.metric("model", object())
    with pytest.raises(UserError, match="cannot hold"):
        run.finish()


def test_git_tells_a_changed_code_from_changed_outputs(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    assert machine.git() is None

    def git(*arguments):
        identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
        subprocess.run(["git", "-C", tmp_path, *identity, *arguments], check=True, capture_output=True)

    git("init", "-q")
    assert machine.git() is None  # nothing committed yet
    for name in ("rec_utils/a.py", "figures/a.csv"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("1")
    git("add", ".")
    git("commit", "-qm", "first")
    (tmp_path / "figures/a.csv").write_text("2")
    assert machine.git()["dirty"] is False and re.fullmatch(r"[0-9a-f]{40}", machine.git()["commit"])
    (tmp_path / "rec_utils/a.py").write_text("2")
    assert machine.git()["dirty"] is True


def test_packages_whose_versions_are_recorded_are_pinned():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pins = next(entry["pip"] for entry in dependencies if isinstance(entry, dict))
    assert set(machine.PACKAGES) <= {pin.split("==")[0] for pin in pins}
    assert set(machine.versions()) == {"python", *machine.PACKAGES}


def test_importing_tables_and_figures_does_not_load_torch():
    code = "import sys, rec_utils.report, rec_utils.plots; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
