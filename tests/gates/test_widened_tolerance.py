"""Gate: no shipped claim's tolerance can be widened until it would accept "no effect"."""

import shutil

import pytest
import yaml

from rec_utils.cards import card_ids, read_card
from rec_utils.errors import UserError
from rec_utils.settings import CARDS

CLAIMS = [
    (card, index) for card in card_ids() for index in range(len(read_card(CARDS / f"{card}.yaml").claims))
]


@pytest.fixture(autouse=True)
def cards(tmp_path):
    """A copy of all cards, since some take keys from others."""
    shutil.copytree(CARDS, tmp_path, dirs_exist_ok=True)


@pytest.mark.parametrize(("card", "index"), CLAIMS)
def test_a_band_widened_to_the_null_is_refused(tmp_path, card, index):
    content = yaml.safe_load((CARDS / f"{card}.yaml").read_text())
    claim = content["claims"][index]
    path = tmp_path / f"{card}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    read_card(path)  # the copy itself is sound, so the refusal below is the widening's

    low, high = claim["band"]
    claim["band"] = [min(low, claim["null_value"]), max(high, claim["null_value"])]
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(UserError, match=rf"claim {claim['id']!r}: band .* contains the null"):
        read_card(path)


@pytest.mark.parametrize("card", card_ids())
def test_a_recalled_number_is_refused(tmp_path, card):
    content = yaml.safe_load((CARDS / f"{card}.yaml").read_text())
    empty = {"id": "recalled", "table": "Table 1", "cell": "gain"}
    path = tmp_path / f"{card}.yaml"
    path.write_text(yaml.safe_dump(content | {"published": [empty]}, sort_keys=False))
    read_card(path)  # without a value the entry is sound
    for fill in ({"value": 0.5}, {"value": 0.5, "source": {"where": "memory", "mark": "memory"}}):
        path.write_text(yaml.safe_dump(content | {"published": [empty | fill]}, sort_keys=False))
        with pytest.raises(UserError, match="source"):
            read_card(path)
