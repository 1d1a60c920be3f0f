"""README shows the committed records, and what it tells the reader to do and to open exists."""

import re
import subprocess
import sys

import pytest

from rec_utils import records, report
from rec_utils.claims import NotTestable, check, load_card
from rec_utils.settings import ROOT
from rec_utils.stats import Interval

README = report.README.read_text(encoding="utf-8")
COMMANDS = [
    command.strip()
    for block in re.findall(r"^```\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    for command in line.partition("#")[0].split("&&")
]
COMMITTED = records.load(folders=[records.COMMITTED])


def test_tables_are_those_of_the_committed_records():
    report.check_readme()


@pytest.mark.parametrize("record", [r for r in COMMITTED if r.card], ids=lambda r: f"{r.notebook}-{r.run_id}")
def test_recorded_verdicts_follow_from_their_numbers_and_the_card_as_it_is(record):
    card = load_card(record.card)
    # a claim that has moved to another card since stays in the record as it was
    known = {claim.id for claim in card.claims}
    if record.run_id == record.profile:
        assert {verdict.claim for verdict in record.verdicts} == known
    kept = [verdict for verdict in record.verdicts if verdict.claim in known]
    undeclared = [v for v in kept if not card.claim(v.claim).not_testable]
    evidence = {
        v.claim: NotTestable(v.reason) if v.value is None else Interval(v.value, v.low, v.high, 0.95, 0)
        for v in undeclared
    }
    again = check(card, evidence)
    for name in ("claim", "text", "status", "null", "band", "ours", "reason"):
        assert [getattr(v, name) for v in again] == [getattr(v, name) for v in kept], name


def test_links_lead_to_files():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_make_targets_exist():
    targets = re.findall(r"`make (\w+)", README) + [c.split()[1] for c in COMMANDS if c.startswith("make ")]
    assert {"reproduce", "test", "lab"} <= set(targets)
    makefile = (ROOT / "Makefile").read_text()
    assert not [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)]


@pytest.mark.parametrize(
    "command", sorted({" ".join(c.split()[1:4]) for c in COMMANDS if c.startswith(".venv/bin/python -m ")})
)
def test_commands_exist(command):
    arguments = [word for word in command.split() if word != "--help"]
    done = subprocess.run([sys.executable, *arguments, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_command_is_of_a_kind_that_is_checked():
    assert COMMANDS
    assert not [c for c in COMMANDS if not c.startswith(("make ", ".venv/bin/python -m "))]
