"""Two records: what counts as a difference."""

import json

import pytest

from rec_utils.compare import differences, main
from rec_utils.errors import UserError


@pytest.fixture
def two(record_text, tmp_path):
    """A record, and a function that writes a changed copy."""
    first = tmp_path / "a.json"
    first.write_text(record_text)

    def changed(change):
        content = json.loads(record_text)
        change(content)
        second = tmp_path / "b.json"
        second.write_text(json.dumps(content))
        return first, second

    return changed


def test_times_machine_and_commit_are_no_difference(two, capsys):
    later = {"seconds": 9.0, "finished": "2030-01-01T00:00:00Z", "cell_seconds": [1.0], "peak_memory_gb": 3.0}
    paths = two(lambda record: record.update(later | {"git": None, "hardware": {}}))
    assert differences(*paths) == []
    assert main([str(path) for path in paths]) == 0
    assert capsys.readouterr().out == "the same\n"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda r: r["verdicts"][0].update(value=1.2346), "verdicts[0].value: 1.2345 and 1.2346"),
        (lambda r: r["metrics"].update(auc=0.7), "metrics.auc: only in the second"),
        (lambda r: r["verdicts"].clear(), "verdicts: 1 entries and 0 entries"),
        (lambda r: r["parameters"].update(PROFILE="smoke"), "parameters.PROFILE: 'laptop' and 'smoke'"),
        (lambda r: r["verdicts"][0].update(value=None), "verdicts[0].value: 1.2345 and None"),
        (lambda r: r["versions"].pop("torch"), "versions.torch: only in the first"),
        (lambda r: r["verdicts"][0].update(ours=0), "verdicts[0].ours: False and 0"),
    ],
)
def test_any_other_difference_is_named(two, change, line, capsys):
    paths = two(change)
    assert differences(*paths) == [line]
    assert main([str(path) for path in paths]) == 1
    assert capsys.readouterr().out == f"{line}\n"


def test_a_damaged_record_is_named(two):
    first, second = two(lambda record: record.pop("metrics"))
    with pytest.raises(UserError, match=r"b.json: not a run record"):
        differences(first, second)
