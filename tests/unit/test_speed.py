"""The report on speed says what the records say, and nothing else."""

import json

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from PIL import Image

from rec_utils import report, speed, speed_figure
from rec_utils.errors import UserError
from tests.bench import goals

HARDWARE = {"cpu": "Chip", "cores": 3, "threads": 1}
MADE = {"hardware": HARDWARE, "finished": "2030-05-06T07:08:09Z"}


def times(*processor):
    return {"processor": list(processor), "clock": [2 * s for s in processor]}


def contender(software, *train):
    times_of = {"train": times(*train), "predict": times(*(s / 100 for s in train))}
    return {"software": software, "parameters": 100 + 50 * ("fuxictr" in software)} | times_of


@pytest.fixture
def training():
    ran = {
        "loop": contender("torch 2", 1.0, 2.0, 4.0),
        "bare": contender("torch 2", 1.0, 1.0, 4.0),
        "plain": contender("torch 2", 2.0, 2.0, 8.0),
        "kar": contender("torch 2", 2.0, 4.0, 8.0),
        "fuxictr": contender("fuxictr 9, torch 2", 2.0, 5.0, 8.0),
        "rechub": contender("torch-rechub 9, torch 2", 1.4, 2.8, 5.6),
    }
    race = {
        "model": "DIN",
        "batch": 256,
        "contenders": ran,
        "skipped": {"recbole": "it reads less"},
        "goals": goals.judge(ran),
    }
    return {"benchmark": "training", "samples": 5, "repeats": 3, "results": [race]} | MADE


@pytest.fixture
def diffusion():
    rounds = {"ours": [9.0, 2.0, 2.0], "recbole": [9.0, 4.0, 8.0]}
    return {
        "benchmark": "diffusion",
        "repeats": 2,
        "results": {
            name: {"software": "RecBole 9", "rounds": [{"train": s, "evaluate": s} for s in seconds]}
            for name, seconds in rounds.items()
        },
        "goals": [
            {"what": "train", "at_least": 1.0, "ratio": 3.0, "least": 2.0, "greatest": 4.0, "met": True}
        ],
    } | MADE


@pytest.fixture
def decoding():
    goal = {"way": "generate", "at_least": 1.5, "ratio": 3.0, "least": 2.5, "greatest": 3.5, "met": True}
    race = {"prompts": 7, "repeats": 3, "parameters": 1000, "texts as generate": 6, "goals": [goal]}
    race["ms a token"] = {"ours": [2.0, 2.0], "generate": [5.0, 7.0]}
    return {"benchmark": "decoding", "race": race, "versions": {"transformers": "9.9"}} | MADE


@pytest.fixture
def folder(tmp_path, training, diffusion, decoding):
    for record in (training, diffusion, decoding):
        write(tmp_path, record)
    return tmp_path


def write(folder, record):
    (folder / f"{record['benchmark']}.json").write_text(json.dumps(record))


def test_the_fastest_peer_of_each_race_is_shown_and_each_goal_is_judged(folder):
    lines = [line for line in speed.block(folder).splitlines() if line.startswith("| DIN")]
    assert lines == [
        "| DIN, batch 256: training | 2 s | torch-rechub, 2.8 s | 1.40 [1.40, 1.40] | ≥ 1.5 | **MISSED** |",
        "| DIN, batch 256: training | 2 s | bare loop, 1 s | 1.00 [1.00, 2.00] | ≤ 1.1 | met |",
        "| DIN with KAR, batch 256: training | 4 s | the model alone, 2 s | 2.00 [2.00, 2.00] | ≤ 1.5"
        " | **MISSED** |",
        "| DIN, attention factorised, batch 256: training | 1 s | usual form of attention, 2 s"
        " | 2.00 [2.00, 2.00] | – | – |",
        "| DIN, batch 256: inference | 20 ms | torch-rechub, 28 ms | 1.40 [1.40, 1.40] | ≥ 1.5"
        " | **MISSED** |",
        "| DIN, batch 256: inference | 20 ms | bare loop, 10 ms | 1.00 [1.00, 2.00] | ≤ 1.1 | met |",
        "| DIN, attention factorised, batch 256: inference | 10 ms | usual form of attention, 20 ms"
        " | 2.00 [2.00, 2.00] | – | – |",
    ]


def test_other_records_have_their_rows_and_the_first_round_does_not_count(folder):
    text = speed.block(folder)
    assert "| DiffRec: training, an epoch | 2 s | RecBole, 6 s | 3.00 [2.00, 4.00] | ≥ 1 | met |" in text
    row = "| writing with a pool, a token | 2 ms | transformers, generate, 6 ms | 3.00 [2.50, 3.50] | ≥ 1.5"
    assert f"{row} | met |" in text
    assert text.startswith("4 of 7 goals are met.")


def test_each_record_says_when_on_what_and_who_was_skipped(folder):
    text = speed.block(folder)
    assert text.count("2030-05-06, Chip, 3 cores, 1 thread") == 3
    assert "5 samples, 3 rounds" in text and "fuxictr 9, torch 2, torch-rechub 9" in text
    assert "RecBole is skipped for DIN: it reads less." in text
    assert "by the clock the ratios are 1.00 to 1.00 times these" in text
    assert "peers have 1.00 to 1.50 times our parameters" in text
    assert "6 of 7 texts are those of generate; transformers 9.9" in text


def test_what_is_not_recorded_is_said_to_be_missing(tmp_path, decoding):
    assert speed.block(tmp_path).count("not recorded; `python -m tests.bench.") == len(speed.PARTS)
    assert speed.is_drawn(tmp_path)
    speed.draw(tmp_path)
    assert not list(tmp_path.iterdir())
    del decoding["race"]
    write(tmp_path, decoding)
    assert "- decoding: not recorded; " in speed.block(tmp_path)


def test_a_goal_is_met_only_if_the_record_says_so(folder, training):
    for race in training["results"]:
        for goal in race["goals"]:
            goal["met"] = False if goal["met"] is not None else None
    write(folder, training)
    assert speed.block(folder).startswith("2 of 7 goals are met.")


def test_the_figure_draws_the_ratios_of_the_records_and_is_stale_when_they_change(folder, training):
    assert not speed.is_drawn(folder)
    speed.draw(folder)
    assert speed.is_drawn(folder)
    assert Image.open(folder / "speed.png").text["Description"] in speed.block(folder)
    table = pd.read_csv(folder / "speed.csv")
    rows = table.set_index(["panel", "label", "contender"]).sort_index()
    assert rows.loc[("others", "DIN 256, training", "FuxiCTR"), "value"].item() == 2.0
    assert rows.loc[("bare", "DIN 256, training", "bare loop"), ["value", "high", "goal"]].tolist() == [
        1.0,
        2.0,
        1.1,
    ]
    assert rows.loc[("others", "decoding, generate", "transformers"), "n"] == 7
    training["results"][0]["goals"][0]["ratio"] = 1.05
    write(folder, training)
    assert not speed.is_drawn(folder)


def test_the_figure_has_a_point_at_every_ratio_in_its_panel(folder):
    points = speed_figure.points(speed.load(folder))
    fig = speed_figure.figure(points)
    for ax, panel in zip(fig.axes, ("others", "bare"), strict=True):
        shown = sorted(c.lines[0].get_xdata()[0] for c in ax.containers)
        assert shown == sorted(points.loc[points["panel"] == panel, "value"])
        assert ax.get_xlabel() and ax.get_xscale() == "log"
    plt.close(fig)


def test_readme_is_stale_without_the_figure_of_its_records(tmp_path, diffusion):
    readme, records, bench = tmp_path / "README.md", tmp_path / "records", tmp_path / "bench"
    marks = (f"<!-- {name}:begin -->\n<!-- {name}:end -->" for name in ("results", "cost", "speed"))
    readme.write_text("\n".join(marks))
    bench.mkdir()
    write(bench, diffusion)
    report.update_readme(readme, records)
    report.check_readme(readme, records)
    assert "DiffRec: training" in readme.read_text()
    (bench / "speed.csv").unlink()
    with pytest.raises(UserError, match="does not show the records"):
        report.check_readme(readme, records)
