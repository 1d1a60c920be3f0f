import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec_utils.cards import Card, Claim, Source, card_ids, load_card, read_card
from rec_utils.claims import STATUSES, NotTestable, check
from rec_utils.errors import UserError
from rec_utils.stats import Interval

CARD = """\
id: toy
name: Toy
notebook: 99_toy
title: A toy paper
authors: Nobody
venue: Nowhere 2020
arxiv: "0000.00000"
code: none
licence: MIT
summary: It does something.
profiles:
  smoke: {n_folds: 2, rate: 0.5, cap: null}
  laptop: {n_folds: 5, rate: 0.5, cap: 10}
  paper: {n_folds: 10, rate: 0.5, cap: null}
claims:
  - id: gain
    text: It helps.
    source: {where: its code, mark: code}
    metric: gain
    unit: "%"
    null_value: 0.0
    direction: greater
    band: [0.5, 2.0]
published:
  - id: base
    table: Table 1
    cell: base
    value: 0.7
    source: {where: its code, mark: code}
"""


@pytest.fixture
def toy(tmp_path):
    (tmp_path / "toy.yaml").write_text(CARD)
    return read_card(tmp_path / "toy.yaml")


def one(value, low, high, level=0.95):
    return Interval(value, low, high, level, 100)


NUMBER = "value: 0.7\n    source: {where: its code, mark: code}"
MORE_PROFILES = "  paper: {n_folds: 10, rate: 0.5, cap: null}\n"


@pytest.mark.parametrize(
    ("old", "new", "at", "message"),
    [
        ("unit:", "unti:", "unti", "unknown key 'claims.0.unti'"),
        ("    metric: gain\n", "", "- id: gain", "key 'claims.0.metric' is missing"),
        (
            "    source: {where: its code, mark: code}\n    metric",
            "    metric",
            "- id: gain",
            "source' is missing",
        ),
        ("null_value: 0.0", "null_value: 1e-3", "null_value", "null_value: .* valid number, not '1e-3'"),
        ("null_value: 0.0", "null_value: .nan", "null_value", "finite number"),
        ("direction: greater", "direction: more", "direction", "not 'more'"),
        ("[0.5, 2.0]", "[-0.1, 2.0]", "band", r"band \[-0.1, 2.0\] contains the null 0"),
        ("[0.5, 2.0]", "[0.0, 2.0]", "band", "contains the null 0"),
        ("[0.5, 2.0]", "[-.inf, .inf]", "band", "contains the null 0"),
        ("[0.5, 2.0]", "[-2.0, -0.5]", "band", "contradicts direction 'greater'"),
        ("direction: greater", "direction: less", "band", "contradicts direction 'less'"),
        ("[0.5, 2.0]", "[2.0, 0.5]", "band", "is not .low, high."),
        ("[0.5, 2.0]", "[0.5]", "band", "is not .low, high."),
        ("[0.5, 2.0]", "[0.5, .nan]", "band", "is not .low, high."),
        (
            "published:\n",
            "published:\n  - {id: base, table: T, cell: c}\n",
            "published",
            "id 'base' is used twice",
        ),
        (NUMBER, "value: 0.7", "- id: base", "a value needs a source"),
        (NUMBER, "source: {where: x, mark: code}", "- id: base", "a value needs a source"),
        (NUMBER, NUMBER.replace("mark: code", "mark: memory"), "memory", "not 'memory'"),
        (NUMBER, NUMBER.replace("mark: code", "mark: ours"), "- id: base", "'ours' cannot be the source"),
        ("id: toy", "id: toys", "id: toys", "must be the file's name 'toy'"),
        ('unit: "%"', 'unit: "%"\n    unit: x', "unit: x", "'unit' stands twice"),
        ("title: A toy paper", "title: [A toy paper", "authors", "not valid YAML"),
        ("smoke: {n_folds", "smoke: {folds", "profiles", "differ in folds, n_folds"),
        (MORE_PROFILES, "", "profiles", "exactly smoke, laptop, paper"),
        (CARD, "", "", "id"),
        (CARD, "- id", "id", "valid dictionary"),
    ],
)
def test_a_broken_card_is_refused_with_its_line(tmp_path, old, new, at, message):
    assert CARD.count(old) == 1
    broken = CARD.replace(old, new)
    line = next((n for n, text in enumerate(broken.splitlines(), start=1) if at in text), 1)
    path = tmp_path / "toy.yaml"
    path.write_text(broken)
    with pytest.raises(UserError, match=rf"^toy\.yaml, line {line}: .*{message}"):
        read_card(path)


PART = "id: part\npaper: toy\nnotebook: 99_part\nsummary: It goes on.\n" + CARD[CARD.index("profiles:") :]


def test_a_card_takes_what_is_said_of_the_paper_from_the_card_it_names(tmp_path, toy):
    (tmp_path / "part.yaml").write_text(PART.replace("id: gain", "id: other"))
    part = read_card(tmp_path / "part.yaml")
    assert (part.name, part.title, part.authors, part.venue) == (
        "Toy",
        "A toy paper",
        "Nobody",
        "Nowhere 2020",
    )
    assert (part.arxiv, part.code, part.licence) == ("0000.00000", "none", "MIT")
    assert (part.paper, part.notebook, part.summary) == ("toy", "99_part", "It goes on.")
    assert [claim.id for claim in part.claims] == ["other"] and toy.paper == ""


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("paper: toy\n", "paper: toy\ntitle: T\n", 3, "key 'title' comes from card 'toy'; leave it out here"),
        ("paper: toy", "paper: toi", 2, "paper 'toi' is not one of .*toy; did you mean 'toy'"),
        ("paper: toy", "paper: part", 2, "paper 'part' is not one of"),
        ("paper: toy", "paper: [toy]", 2, r"paper \['toy'\] is not one of"),
        ("paper: toy", "paper: chain", 2, "card 'chain' has no name of its own"),
        ("paper: toy\n", "", 1, "key 'name' is missing"),
        ("summary: It goes on.\n", "", 1, "key 'summary' is missing"),
    ],
)
@pytest.mark.usefixtures("toy")
def test_a_card_that_names_its_paper_wrongly_is_refused_with_its_line(tmp_path, old, new, line, message):
    (tmp_path / "chain.yaml").write_text(PART.replace("id: part\npaper: toy", "id: chain\npaper: part"))
    path = tmp_path / "part.yaml"
    path.write_text(PART.replace(old, new))
    with pytest.raises(UserError, match=rf"^part\.yaml, line {line}: .*{message}"):
        read_card(path)


def test_a_fault_of_the_papers_card_is_reported_there(tmp_path):
    (tmp_path / "toy.yaml").write_text(CARD.replace("direction: greater", "direction: more"))
    (tmp_path / "part.yaml").write_text(PART)
    with pytest.raises(UserError, match=r"^toy\.yaml, line \d+: "):
        read_card(tmp_path / "part.yaml")


def test_an_unknown_card_or_claim_suggests_the_nearest(toy):
    with pytest.raises(UserError, match="did you mean 'kar'"):
        load_card("kra")
    with pytest.raises(UserError, match="did you mean 'gain'"):
        toy.claim("gains")


@pytest.mark.parametrize("card_id", card_ids())
def test_shipped_cards_are_valid_and_name_where_each_claim_was_read(card_id):
    card = load_card(card_id)
    assert not [
        claim.id for claim in card.claims if claim.source.mark != "ours" and "memory" in claim.source.where
    ]
    assert all(claim.direction == "greater" or claim.band[1] < claim.null_value for claim in card.claims)


def test_sizes_take_overrides_of_the_same_type_only(toy):
    assert toy.sizes("laptop") == {"n_folds": 5, "rate": 0.5, "cap": 10}
    assert toy.sizes("laptop", n_folds=3, rate=1, cap=None) == {"n_folds": 3, "rate": 1, "cap": 10}
    assert toy.sizes("paper", cap=7)["cap"] == 7
    toy.sizes("laptop", n_folds=3)
    assert toy.sizes("laptop")["n_folds"] == 5
    for overrides, message in [
        ({"n_fold": 3}, "did you mean 'n_folds'"),
        ({"n_folds": "3"}, "must be int, not str '3'"),
        ({"n_folds": True}, "must be int, not bool"),
        ({"n_folds": 2.5}, "must be int, not float"),
    ]:
        with pytest.raises(UserError, match=message):
            toy.sizes("laptop", **overrides)
    with pytest.raises(UserError, match=r"profile 'labtop'.*did you mean 'laptop'"):
        toy.sizes("labtop")


@pytest.mark.parametrize(
    ("interval", "status", "margin"),
    [
        (one(1.0, 0.6, 1.4), "matched", 1.5),
        (one(0.5, 0.1, 0.9), "matched", 0.25),
        (one(0.4, 0.1, 0.7), "partly", 1 / 3),
        (one(3.0, 2.0, 4.0), "partly", 2.0),
        (one(1.0, 0.0, 2.0), "not matched", 0.0),
        (one(1.0, -0.5, 2.5), "not matched", -1 / 3),
        (one(-1.0, -1.4, -0.6), "not matched", -3.5),
        (one(1.0, 1.0, 1.0), "matched", math.inf),
        (one(0.0, 0.0, 0.0), "not matched", 0.0),
    ],
)
def test_status_and_margin(toy, interval, status, margin):
    (verdict,) = check(toy, {"gain": interval})
    assert verdict.status == status
    assert verdict.margin == pytest.approx(margin)
    assert verdict.fragile == (abs(margin) < 0.25)


def test_near_equality_is_a_claim_below_a_limit(toy):
    claim = toy.claims[0].model_copy(update={"null_value": 1.5, "direction": "less", "band": [0.8, 1.2]})
    card = toy.model_copy(update={"claims": [claim]})
    for interval, status in [
        (one(1.05, 1.0, 1.1), "matched"),
        (one(1.3, 1.2, 1.4), "partly"),
        (one(1.05, 0.5, 1.6), "not matched"),
        (one(3.0, 2.9, 3.1), "not matched"),
    ]:
        assert check(card, {"gain": interval})[0].status == status


numbers = st.floats(-10, 10).map(lambda x: round(x, 3))


@st.composite
def claims_and_intervals(draw):
    null, gap, width = draw(numbers), draw(st.floats(0.01, 5)), draw(st.floats(0.01, 5))
    direction = draw(st.sampled_from(["greater", "less"]))
    band = [null + gap, null + gap + width] if direction == "greater" else [null - gap - width, null - gap]
    claim = Claim(id="gain", text="t", source=Source(where="w", mark="code"), metric="m", unit="",
                  null_value=null, direction=direction, band=band)  # fmt: skip
    intervals = []
    for _ in range(draw(st.integers(1, 4))):
        low, value, high = sorted(draw(st.tuples(numbers, numbers, numbers)))
        intervals.append(one(value, low, high))
    return claim, intervals


def toy_card(claim):
    return Card.model_construct(id="toy", claims=[claim])


@given(claims_and_intervals())
def test_a_mirrored_claim_gets_the_same_verdict(case):
    claim, intervals = case
    low, high = claim.band
    mirrored = claim.model_copy(
        update={
            "null_value": -claim.null_value,
            "direction": "less" if claim.direction == "greater" else "greater",
            "band": [-high, -low],
        }
    )
    for interval in intervals:
        (plain,) = check(toy_card(claim), {"gain": interval})
        (other,) = check(toy_card(mirrored), {"gain": one(-interval.value, -interval.high, -interval.low)})
        assert (plain.status, plain.margin) == (other.status, other.margin)


@given(claims_and_intervals(), st.floats(0, 5))
def test_an_interval_with_the_null_never_matches_and_a_wider_one_is_never_better(case, more):
    claim, intervals = case
    for interval in intervals:
        (verdict,) = check(toy_card(claim), {"gain": interval})
        if interval.low <= claim.null_value <= interval.high:
            assert verdict.status == "not matched"
        wider = replace(interval, low=interval.low - more, high=interval.high + more)
        (worse,) = check(toy_card(claim), {"gain": wider})
        assert STATUSES.index(worse.status) >= STATUSES.index(verdict.status)


@given(claims_and_intervals())
def test_of_several_intervals_the_weakest_decides(case):
    claim, intervals = case
    named = {f"backbone {i}": interval for i, interval in enumerate(intervals)}
    single = {name: check(toy_card(claim), {"gain": interval})[0] for name, interval in named.items()}
    (verdict,) = check(toy_card(claim), {"gain": named})
    worst = max(single.values(), key=lambda v: STATUSES.index(v.status)).status
    assert verdict.status == worst
    assert verdict.margin == min(v.margin for v in single.values() if v.status == worst)
    assert verdict.value == named[verdict.decided_by].value


def test_every_claim_must_be_answered_and_soundly(toy):
    silent = toy.claims[0].model_copy(update={"id": "online", "not_testable": "no users here"})
    card = toy.model_copy(update={"claims": [toy.claims[0], silent]})
    good = one(1.0, 0.5, 1.5)
    gain, online = check(card, {"gain": NotTestable("no data")})
    assert (gain.status, gain.reason, gain.value) == ("not testable here", "no data", None)
    assert (online.status, online.reason, online.fragile) == ("not testable here", "no users here", False)
    for evidence, message in [
        ({}, "claim 'gain' has no evidence"),
        ({"gain": {}}, "claim 'gain' has no evidence"),
        ({"gain": good, "gian": good}, "did you mean 'gain'"),
        ({"gain": good, "online": good}, "'online' is declared not testable"),
        ({"gain": NotTestable("")}, "without a reason"),
        ({"gain": one(math.nan, 0.1, 1.0)}, "'gain': nan .* not a finite interval"),
        ({"gain": one(1.0, 0.1, math.inf)}, "not a finite interval"),
        ({"gain": one(1.0, 2.0, 0.0)}, "not a finite interval"),
        ({"gain": {"DIN": good, "DCN": one(1.0, 2.0, 0.0)}}, "'gain', DCN: .* not a finite interval"),
        ({"gain": one(1.0, 0.5, 1.5, level=0.5)}, "need 95% intervals, not one of 50%"),
    ]:
        with pytest.raises(UserError, match=message):
            check(card, evidence)
