import shutil
from pathlib import Path

import pytest

from data_prep import catalog
from rec_utils.errors import UserError
from rec_utils.settings import BUNDLED


def test_every_bundled_file_is_in_the_catalog_and_intact():
    entries = catalog.load().values()
    assert catalog.check_bundled(entries)
    catalog.check_no_stray(entries)


def test_what_may_not_be_shipped_is_not_and_what_is_shipped_has_its_licence_beside_it():
    for entry in catalog.load().values():
        folder = BUNDLED / entry.name
        assert folder.exists() == bool(entry.bundled)
        if entry.bundled:
            assert entry.ship
            assert [path for path in folder.iterdir() if path.name.startswith(("LICENSE", "README"))]
    assert not catalog.entry("ml-1m").ship


@pytest.fixture
def bundled(tmp_path):
    entry = catalog.entry("movietweetings")
    shutil.copytree(BUNDLED / entry.name, tmp_path / "bundled" / entry.name)
    return entry, tmp_path / "bundled"


@pytest.mark.fault("damaged file", "build", "It names the shipped file that was altered.")
def test_truncated_altered_missing_and_stray_bundled_files_are_named(bundled):
    entry, root = bundled
    path = root / "movietweetings/ratings.dat"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(
        UserError, match=r"ratings.dat has 2,945,100 bytes instead of 2,945,101: it is truncated"
    ):
        catalog.check_bundled([entry], root)
    path.write_bytes(content.replace(b"::7::", b"::8::", 1))
    with pytest.raises(UserError, match=r"ratings.dat was altered"):
        catalog.check_bundled([entry], root)
    path.unlink()
    with pytest.raises(UserError, match=r"ratings.dat is missing"):
        catalog.check_bundled([entry], root)
    (root / "movietweetings/extra.txt").write_text("?")
    with pytest.raises(UserError, match=r"extra.txt is in no catalog entry"):
        catalog.check_no_stray([entry], root)


def test_catalog_hash_prints_the_lines_that_verify(bundled):
    entry, root = bundled
    block = "x:\n  title: t\n  source: s\n  licence: l\n  citation: c\n  ship: true\n  bundled:\n"
    parsed = catalog.parse(block + catalog.catalog_lines(root / "movietweetings", root))["x"]
    assert parsed.bundled == entry.bundled
    with pytest.raises(UserError, match="is not under"):
        catalog.catalog_lines(Path(__file__), root)


@pytest.mark.parametrize(
    "change, message",
    [
        ("ship: false", "bundled files although ship is false"),
        ("ship: true\n  shipp: true", "x, shipp: Extra inputs"),
        ("", "x, ship: Field required"),
        ("ship: perhaps", "x, ship: "),
    ],
)
def test_the_catalog_refuses_unknown_missing_and_contradictory_keys(change, message):
    file = f"{{path: a, size: 1, sha256: {'a' * 64}}}"
    text = f"x:\n  title: t\n  source: s\n  licence: l\n  citation: c\n  bundled: [{file}]\n  {change}\n"
    with pytest.raises(UserError, match=message):
        catalog.parse(text)
