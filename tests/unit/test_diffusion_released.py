"""The reader of DiffRec's and DiffuRec's files, on fabricated ones and on the real ones if they are built."""

import gzip
import json

import numpy as np
import pytest

from rec_utils.errors import UserError
from rec_utils.papers.diffusion.released import released_sequences, released_split


@pytest.fixture
def files(tmp_path):
    """A split of two users and three items, and sequences of two users."""
    pairs = np.array([[0, 2], [0, 0], [1, 1]], np.int32)
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    path = tmp_path / "ml-1m_clean.npz"
    np.savez(path, train_list=pairs, valid_list=pairs[:1], test_list=pairs[2:], item_emb=vectors)
    beauty = tmp_path / "amazon_beauty_sequences.json.gz"
    beauty.write_bytes(gzip.compress(json.dumps({"0": [1, 2, 3], "1": [4, 1, 2, 5]}).encode()))
    return {file.name: file for file in (path, beauty)}


def test_a_split_is_read_with_its_vectors(files):
    task = released_split("clean", files)
    assert (task.n_users, task.n_items) == (2, 3)
    assert task.train.tolist() == [[0, 2], [0, 0], [1, 1]]
    assert task.validation.tolist() == [[0, 2]]
    assert task.test.tolist() == [[1, 1]]
    assert task.item_vectors.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_sequences_are_read_user_by_user(files):
    task = released_sequences("beauty", files)
    assert task.items.tolist() == [1, 2, 3, 4, 1, 2, 5]
    assert task.start.tolist() == [0, 3, 7]
    assert task.n_items == 5


def test_other_files_and_names_are_errors(files):
    files["ml-1m_clean.npz"].write_bytes(b"no npz")
    with pytest.raises(UserError, match=r"ml-1m_clean\.npz does not hold"):
        released_split("clean", files)
    files["amazon_beauty_sequences.json.gz"].write_bytes(b"no gzip")
    with pytest.raises(UserError, match="does not hold a sequence"):
        released_sequences("beauty", files)
    with pytest.raises(UserError, match="split 'dirty'"):
        released_split("dirty", files)
    with pytest.raises(UserError, match="sequences 'steam'"):
        released_sequences("steam", files)


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [("clean", [5949, 2810, 403277, 110722, 57532]), ("noisy", [5949, 3494, 429993, 130772, 57532])],
)
def test_the_real_splits_have_their_sizes(kind, sizes):
    try:
        task = released_split(kind)
    except UserError as error:
        pytest.skip(str(error))
    assert task.counts().tolist()[:5] == sizes
    assert (np.diff(task.train[:, 0]) >= 0).all()  # in time order, user by user
    for part in (task.validation, task.test):
        assert len(np.unique(part[:, 0])) == task.n_users


@pytest.mark.parametrize(
    ("name", "sizes"), [("beauty", (22363, 12101, 198502)), ("toys", (19412, 11924, 167597))]
)
def test_the_real_sequences_have_their_sizes(name, sizes):
    try:
        task = released_sequences(name)
    except UserError as error:
        pytest.skip(str(error))
    assert (task.n_users, task.n_items, len(task.items)) == sizes
    assert np.diff(task.start).min() == 5
