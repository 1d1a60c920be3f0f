"""The network over groups equals KAR's with the same vectors spread over items and users."""

import numpy as np
import pytest
import torch
from tiny_ratings import random_dataset

from rec_utils.papers import hein, kar, reki
from rec_utils.papers.reki import Grouping
from rec_utils.samples import ctr_task

SETTINGS = {
    "backbone_settings": {"embed_dim": 4},
    "adaptor_settings": {"shared": 2, "dedicated": 1, "hidden": 6, "out": 3},
}


@pytest.fixture(scope="module")
def task():
    return ctr_task(random_dataset(), history_length=3)


def sides(task, seed=0):
    """Vectors and groups of three sides; some users have no group."""
    rng = np.random.default_rng(seed)
    made = {}
    for name, n_rows, n_groups in (("item", len(task.item_ids), 4), ("user+", 12, 3), ("user-", 12, 5)):
        group = rng.permutation(np.arange(n_rows) % n_groups)
        if name == "user-":
            group[:3] = -1
        made[name] = rng.normal(size=(n_groups, 7)).astype(np.float32), group
    return made


def test_logits_and_gradients_equal_those_of_vectors_spread_over_rows(task):
    given = sides(task)
    grouped = hein.arm(given, **SETTINGS).build(task.samples, 3)
    spread = {
        name: Grouping(group, [np.array([0])] * len(vectors)).spread(vectors)
        for name, (vectors, group) in given.items()
    }
    rows = kar.arm(spread, **SETTINGS).build(task.samples, 3)
    batch = task.samples.batch(torch.arange(len(task.samples)))
    torch.testing.assert_close(grouped(batch), rows(batch))
    grouped(batch).square().sum().backward()
    rows(batch).square().sum().backward()
    theirs = dict(rows.named_parameters())
    for name, parameter in grouped.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad)
    assert grouped.adaptor.gates["user-"].weight.grad.any()


def test_a_users_groups_and_an_items_group_each_matter(task):
    batch = task.samples.batch(torch.arange(len(task.samples)))
    given = sides(task)
    plain = hein.arm(given, **SETTINGS).build(task.samples, 3)(batch)
    for name in given:
        vectors, group = given[name]
        moved = given | {name: (vectors, np.roll(group, 1))}
        other = hein.arm(moved, **SETTINGS).build(task.samples, 3)(batch)
        changed = (other != plain).numpy()
        rows = (batch.item_row if name == "item" else batch.user_row).numpy()
        assert changed.any()
        assert not changed[(np.roll(group, 1) == group)[rows]].any()


def test_controls_are_those_of_rows_one_vector_a_group():
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(9, 4))
    groupings = {
        "item": Grouping(np.arange(9) % 3, [np.arange(start, 9, 3) for start in range(3)]),
        "user+": Grouping(np.array([1, 0, -1, 1]), [np.array([2, 5]), np.array([], int)]),
    }
    by_id = reki.id_codes(groupings)
    for name, (table, group) in hein.id_sides(groupings).items():
        assert len(table) == len(groupings[name].items)
        np.testing.assert_array_equal(Grouping(group, groupings[name].items).spread(table), by_id[name])
    for name, (table, group) in hein.title_sides(groupings, vectors).items():
        spread = Grouping(group, groupings[name].items).spread(table)
        np.testing.assert_array_equal(spread, reki.title_means(groupings[name], vectors))
