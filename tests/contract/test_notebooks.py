"""What every notebook of the repository must have: a twin, a card, a smoke profile, a record."""

from __future__ import annotations

import pytest

from rec_utils import notebooks, records
from rec_utils.cards import card_ids, load_card
from rec_utils.notebook_rules import NO_PAPER
from rec_utils.parameters import read_parameters
from rec_utils.plans import notebook_names
from rec_utils.settings import NOTEBOOKS, is_tutorial, notebook_path

NAMES = sorted(
    {
        *notebook_names(NOTEBOOKS),
        *notebooks.twin_names(NOTEBOOKS),
        "00_start_here",
        "01_kar",
        "T1_ctr_prediction",
    }
)
PAPERS = [name for name in NAMES if name not in NO_PAPER and not is_tutorial(name)]


@pytest.mark.parametrize("name", NAMES)
def test_it_agrees_with_its_twin_and_obeys_the_rules(name):
    assert notebooks.check(NOTEBOOKS, name) == []


@pytest.mark.parametrize("name", PAPERS)
def test_it_has_one_card_with_a_smoke_profile(name):
    (card,) = [card for card in map(load_card, card_ids()) if card.notebook == name]
    assert card.sizes("smoke") != card.sizes("laptop"), "smoke must be smaller"


def test_every_card_and_every_exception_has_a_notebook():
    assert [card.notebook for card in map(load_card, card_ids()) if card.notebook not in PAPERS] == []
    assert set(NO_PAPER) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_its_record_is_committed_and_was_made_with_its_defaults(name):
    record = records.read(records.COMMITTED / name / "laptop.json")
    defaults = {
        key: parameter.default for key, parameter in read_parameters(notebook_path(NOTEBOOKS, name)).items()
    }
    assert record.parameters == defaults
    assert record.cell_seconds, "it must have been made by the batch runner"


@pytest.mark.parametrize("name", PAPERS)
def test_its_record_answers_every_claim_of_the_card(name):
    record = records.read(records.COMMITTED / name / "laptop.json")
    assert [verdict.claim for verdict in record.verdicts] == [
        claim.id for claim in load_card(record.card).claims
    ]


def test_no_record_is_left_of_a_notebook_that_is_gone():
    assert {path.name for path in records.COMMITTED.glob("*")} <= set(NAMES)
