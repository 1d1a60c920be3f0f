"""Logs of exposed lists from small files of the publishers' formats, against plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_utils.errors import UserError
from rec_utils.exposure_files import PROFILE, load, window_starts
from rec_utils.history_lists import check_leaks, history_lists


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 2000), min_size=1, max_size=12), min_size=1, max_size=4),
    st.sampled_from([0, 7, 300]),
    st.integers(1, 5),
)
def test_windows_equal_a_loop(times, window, length):
    user = np.repeat(np.arange(len(times)), [len(own) for own in times])
    time = np.concatenate([np.sort(own) for own in times])
    expected, begin = [], None
    for row in range(len(user)):
        new = row == 0 or user[row] != user[row - 1]
        if new or time[row] - time[begin] > window or row - begin == length:
            begin = row
        expected.append(begin == row)
    assert window_starts(user, time, window, length).tolist() == expected


# Alimama


def write_ads(folder, n_users=6, n_each=40, seed=0):
    """The three files, rows in random order; returns impressions and features by id."""
    rng = np.random.default_rng(seed)
    rows = [
        (user, int(1494000000 + time), int(ad), int(rng.random() < 0.3))
        for user in range(100, 100 + n_users)
        for time, ad in zip(np.cumsum(rng.integers(1, 200, n_each)), rng.integers(1, 40, n_each), strict=True)
    ]
    lines = [f"{u},{t},{ad},430548_1007,{1 - c},{c}" for u, t, ad, c in rows]
    lines = [lines[i] for i in rng.permutation(len(lines))]
    (folder / "raw_sample.csv").write_text(
        "user,time_stamp,adgroup_id,pid,nonclk,clk\n" + "\n".join(lines) + "\n"
    )
    ads = {
        ad: (
            f"{ad % 5}",
            f"{ad // 2}",
            f"{ad % 3}",
            "NULL" if ad % 4 else f"{ad % 7}",
            round(1.5 ** (ad % 9), 2),
        )
        for ad in range(1, 50)
    }
    (folder / "ad_feature.csv").write_text(
        "adgroup_id,cate_id,campaign_id,customer,brand,price\n"
        + "".join(f"{ad},{','.join(map(str, values))}\n" for ad, values in ads.items())
    )
    people = {user: [str(rng.integers(0, 3)) for _ in PROFILE] for user in range(100, 100 + n_users - 1)}
    for profile in people.values():
        profile[4] = ""
    (folder / "user_profile.csv").write_text(
        "userid,"
        + ",".join(PROFILE)
        + " \n"  # the published header ends in a blank
        + "".join(f"{user},{','.join(profile)}\n" for user, profile in people.items())
    )
    return rows, ads, people


def test_impressions_within_five_minutes_are_a_list(tmp_path):
    rows, ads, people = write_ads(tmp_path)
    log = load("alimama", tmp_path, min_lists=2)
    found = []
    for t in range(len(log.user_row)):
        n = log.real[t].sum()
        assert log.real[t].tolist() == [True] * n + [False] * (10 - n)
        found.append(
            (
                log.user_ids[log.user_row[t]],
                log.item_ids[log.item_row[t, :n]].tolist(),
                log.clicked[t, :n].tolist(),
                (log.begin[t], log.end[t]),
            )
        )
        assert not log.clicked[t, n:].any() and not log.item_row[t, n:].any()
    expected = []
    for user in sorted({row[0] for row in rows}):
        own = sorted((t, ad, click) for who, t, ad, click in rows if who == user)
        while own:
            now = [row for row in own if row[0] <= own[0][0] + 300][:10]
            own = own[len(now) :]
            ids, clicks = [ad for _, ad, _ in now], [bool(click) for *_, click in now]
            expected.append((user, ids, clicks, (now[0][0], now[-1][0])))
    assert found == expected
    assert {len(items) for _, items, _, _ in found} != {10}

    assert log.item_fields.shape == (len(log.item_ids), 6)
    assert log.user_fields.shape == (len(log.user_ids), 8)
    for column in range(5):
        values = [(ad, *ads[ad])[column] for ad in log.item_ids.tolist()]
        same = np.array(values)[:, None] == np.array(values)
        np.testing.assert_array_equal(log.item_fields[:, column][:, None] == log.item_fields[:, column], same)
    price = np.array([ads[ad][4] for ad in log.item_ids.tolist()])
    assert (np.diff(log.item_fields[np.argsort(price), 5]) >= 0).all()  # bins follow the price
    for column in range(8):
        values = [people.get(user, [""] * 8)[column] for user in log.user_ids.tolist()]
        same = np.array(values)[:, None] == np.array(values)
        np.testing.assert_array_equal(log.user_fields[:, column][:, None] == log.user_fields[:, column], same)
    ids = np.concatenate([np.unique(log.item_fields), np.unique(log.user_fields)])
    assert sorted(ids) == list(range(1, log.n_ids))
    lists = history_lists(log, min_past=1)
    check_leaks(log, {"all": lists})


def test_impressions_of_one_second_are_shuffled_by_the_seed(tmp_path):
    write_ads(tmp_path)
    shown = "".join(f"100,1494000000,{ad},1_1,1,0\n" for ad in range(1, 11))
    (tmp_path / "raw_sample.csv").write_text("user,time_stamp,adgroup_id,pid,nonclk,clk\n" + shown)
    orders = [load("alimama", tmp_path, min_lists=1, seed=seed).item_row[0].tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[2]) == list(range(10)) and orders[0] != sorted(orders[0])


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("raw_sample.csv", None, r"raw_sample\.csv is missing"),
        ("user_profile.csv", None, r"user_profile\.csv is missing"),
        ("raw_sample.csv", (",clk", ",click"), r"raw_sample\.csv, line 1: column clk is missing; found user"),
        ("ad_feature.csv", ("price", "cost"), r"ad_feature\.csv, line 1: column price is missing"),
        (
            "ad_feature.csv",
            ("\n3,", "\n3000,"),
            r"ad_feature\.csv: adgroup_id 3 of raw_sample\.csv is missing",
        ),
        ("ad_feature.csv", ("\n3,", "\nthree,"), r"ad_feature\.csv: .* on Line: 4"),
        ("raw_sample.csv", ("\n100,149", "\n100,,149"), r"raw_sample\.csv: .* on Line"),
    ],
)
def test_what_is_wrong_with_ads_is_named(tmp_path, file, change, message):
    write_ads(tmp_path)
    path = tmp_path / file
    if change is None:
        path.unlink()
    else:
        text = path.read_text()
        assert change[0] in text
        path.write_text(text.replace(*change, 1))
    with pytest.raises(UserError, match=message):
        load("alimama", tmp_path)


def test_a_missing_number_an_empty_file_and_too_few_lists_are_named(tmp_path):
    write_ads(tmp_path)
    with pytest.raises(UserError, match="alimama: none of 6 users has min_lists = 99 lists"):
        load("alimama", tmp_path, min_lists=99)
    path = tmp_path / "raw_sample.csv"
    path.write_text("user,time_stamp,adgroup_id,pid,nonclk,clk\n100,1494000000,1,1_1,1,0\n100,,1,1_1,1,0\n")
    with pytest.raises(UserError, match=r"raw_sample\.csv, line 3: no time_stamp"):
        load("alimama", tmp_path)
    path.write_text("user,time_stamp,adgroup_id,pid,nonclk,clk\n")
    with pytest.raises(UserError, match=r"raw_sample\.csv has no line below its header"):
        load("alimama", tmp_path)


# PRM Public


def write_prm(folder, n_lines=40, seed=0):
    """Both files; returns the lines without a null as (user, profile, fields, labels)."""
    rng = np.random.default_rng(seed)
    lines, kept = [], []
    for number in range(n_lines):
        n = int(rng.integers(1, 35))
        user = int(rng.integers(1, 7))
        profile = [user % 2, user % 3, 9]
        items = rng.integers(1, 60, n)
        fields = [[int(i), int(i) % 4, 5, int(i) % 7, int(i) // 9] for i in items]
        labels = [int(x) for x in rng.random(n) < 0.2]
        dense, more = [[0.5, 1e-3]] * n, [[0.25]] * n
        line = f"{user}|{profile}|{fields}|{dense}|{more}|{labels}"
        if number % 9 == 4:
            line = line.replace("0.001", "null", 1)
        else:
            kept.append((user, profile, fields, labels))
        lines.append(line)
    half = n_lines // 2
    for name, part in (("part1", lines[:half]), ("part2", lines[half:])):
        (folder / f"set1.train.txt.{name}").write_text("\n".join(part) + "\n")
    return kept


def test_lines_are_lists_in_the_order_of_the_files(tmp_path):
    kept = write_prm(tmp_path)
    log = load("prm-public", tmp_path, min_lists=4)
    expected = []
    for user in sorted({line[0] for line in kept}):
        own = [(fields, labels) for who, _, fields, labels in kept if who == user]
        if len(own) >= 4:
            expected += [(user, [f[0] for f in fields[:30]], labels[:30]) for fields, labels in own]
    assert len(log.user_row) == len(expected) and log.length == 30
    for t, (user, items, labels) in enumerate(expected):
        n = len(items)
        assert log.user_ids[log.user_row[t]] == user
        assert log.item_ids[log.item_row[t, :n]].tolist() == items
        assert log.clicked[t].tolist() == [bool(x) for x in labels] + [False] * (30 - n)
        assert log.real[t].sum() == n
    of_item = {field[0]: field for _, _, fields, _ in kept for field in fields}
    of_user = {user: profile for user, profile, _, _ in kept}
    for ids, rows, values in (
        (log.item_ids, log.item_fields, of_item),
        (log.user_ids, log.user_fields, of_user),
    ):
        table = np.array([values[i] for i in ids.tolist()])
        for column in range(table.shape[1]):
            same = table[:, column][:, None] == table[:, column]
            np.testing.assert_array_equal(rows[:, column][:, None] == rows[:, column], same)
    assert (np.diff(log.begin)[np.diff(log.user_row) == 0] > 0).all()
    check_leaks(log, {"all": history_lists(log, min_past=3)})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("7|[1,2,3]|[[1,2,3,4,5]]|[[0.1]]|[[0.1]]", r"part2: .* on Line: 1"),
        (
            "7|[1,2,3]|[[1,x,3,4,5]]|[[0.1]]|[[0.1]]|[1]",
            r"part2, line 1: fields cannot be read as BIGINT\[\]\[\]",
        ),
        ("u7|[1,2,3]|[[1,2,3,4,5]]|[[0.1]]|[[0.1]]|[1]", r"part2, line 1: user cannot be read as BIGINT"),
        ("7|[1,2,3]|[[1,2,3,4,5]]|[[0.1]]|[[0.1]]|[1,0]", r"part2, line 1: 1 items but 2 labels"),
        ("7|[1,2,3]|[[1,2,3,4,5]]|[[null]]|[[0.1]]|[1]", r"part2 has no line without a null"),
        (None, r"part2 is missing; download the log"),
    ],
)
def test_what_is_wrong_with_prm_is_named(tmp_path, line, message):
    write_prm(tmp_path)
    path = tmp_path / "set1.train.txt.part2"
    path.unlink() if line is None else path.write_text(line + "\n")
    with pytest.raises(UserError, match=message):
        load("prm-public", tmp_path)


def test_an_unknown_log_is_refused(tmp_path):
    with pytest.raises(UserError, match="did you mean 'alimama'"):
        load("alimama-ad", tmp_path)
