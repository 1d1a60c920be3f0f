"""Baselines against brute force, and on DiffRec's split against the known rows, if its files are here."""

import numpy as np
import pytest
import torch
from scipy import sparse
from torch.distributions import Normal, kl_divergence

from rec_utils import collaborative as cf
from rec_utils.errors import UserError
from rec_utils.implicit import RowBatch, RowSamples
from rec_utils.papers.diffusion.released import released_split
from rec_utils.ranking import evaluate, means


@pytest.fixture
def x():
    rng = np.random.default_rng(0)
    found = (rng.random((30, 8)) < 0.3).astype(np.float32)
    found[:, 7] = 0  # an item that nobody chose
    return sparse.csr_array(found)


def test_popularity_counts_users(x):
    found = cf.popularity(x)(np.array([3, 5]))
    assert found.tolist() == [x.toarray().sum(0).tolist()] * 2


def test_neighbours_are_the_highest_cosines(x):
    dense = x.toarray().astype(float)
    expected = np.zeros((8, 8))
    for j in range(7):
        cosine = {
            i: dense[:, i] @ dense[:, j] / np.sqrt(dense[:, i].sum() * dense[:, j].sum())
            for i in range(7)
            if i != j
        }
        for i in sorted(cosine, key=cosine.get)[-3:]:
            expected[i, j] = cosine[i]
    assert cf.cosine_neighbours(x, 3).toarray() == pytest.approx(expected, abs=1e-6)
    assert cf.item_knn(x, 3)(np.arange(30)).numpy() == pytest.approx(dense @ expected, abs=1e-5)
    with pytest.raises(UserError, match="k must be"):
        cf.cosine_neighbours(x, 0)


def test_ease_is_the_ridge_regression_of_each_item_on_the_others(x):
    dense, l2 = x.toarray().astype(float), 2.0
    expected = np.zeros((8, 8))
    for j in range(8):
        others = np.delete(np.arange(8), j)
        a = dense[:, others]
        expected[others, j] = np.linalg.solve(a.T @ a + l2 * np.eye(7), a.T @ dense[:, j])
    assert cf.ease_weights(x, l2) == pytest.approx(expected, abs=1e-6)
    assert cf.ease(x, l2)(np.arange(30)).numpy() == pytest.approx(dense @ expected, abs=1e-5)
    with pytest.raises(UserError, match="l2"):
        cf.ease_weights(x, 0.0)


def test_the_kl_divergence_is_that_of_torch():
    mean, log_variance = torch.randn(4, 3), torch.randn(4, 3)
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0, 1)).sum(1)
    assert torch.allclose(cf.gaussian_kl(mean, log_variance), expected, atol=1e-5)


def test_the_vaes_loss_is_the_multinomial_likelihood_and_the_annealed_kl(x):
    torch.manual_seed(0)
    model = cf.MultiVAE(8, (6, 3), dropout=0.0, beta=0.4, anneal_steps=2)
    rows = RowSamples.of(x)
    batch = rows.batch(torch.arange(5))
    mean, log_variance = model.encoder(batch.x / batch.x.norm(dim=1, keepdim=True)).chunk(2, dim=1)
    for beta in (0.2, 0.4, 0.4):
        torch.manual_seed(1)
        found = model(batch)
        torch.manual_seed(1)
        z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        expected = -(model.decoder(z).softmax(1).log() * batch.x).sum(1)
        expected += beta * cf.gaussian_kl(mean, log_variance)
        assert torch.allclose(found, expected, atol=1e-5)
    assert torch.equal(model.eval().scores(batch.x), model.decoder(mean))


def test_the_vae_learns_which_items_go_together():
    groups = np.kron(np.eye(2), np.ones((20, 5))) * (np.random.default_rng(0).random((40, 10)) < 0.7)
    samples = RowSamples.of(sparse.csr_array(groups.astype(np.float32)))
    torch.manual_seed(0)
    model = cf.MultiVAE(10, (16, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model(samples.batch(torch.arange(len(samples)))).mean().backward()
        optimizer.step()
    scores = model.eval().scores(torch.eye(10)[[0, 7]])
    assert (scores[0, :5].min() > scores[0, 5:].max()).item()
    assert (scores[1, 5:].min() > scores[1, :5].max()).item()
    assert isinstance(samples.batch(torch.tensor([0])), RowBatch)


@pytest.fixture(scope="module")
def clean():
    try:
        return released_split("clean")
    except UserError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("name", "baseline", "known"),
    [
        ("popularity", cf.popularity, (0.0535, 0.0993, 0.0587, 0.0721)),
        ("ItemKNN", cf.item_knn, (0.0968, 0.1631, 0.0878, 0.1098)),
        ("EASE", cf.ease, (0.1066, 0.1816, 0.0910, 0.1165)),
    ],
)
def test_known_rows_on_diffrecs_split_are_found_again(clean, name, baseline, known):
    """The rows were measured on the same files by other code."""
    found = means(evaluate(baseline(clean.matrix("train")), clean))
    assert [round(value, 4) for value in found.values()] == list(known), name
