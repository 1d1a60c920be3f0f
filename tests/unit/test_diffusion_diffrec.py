"""DiffRec and its kin: the loss by hand, the fast sampler against the plain one, clusters."""

import numpy as np
import pytest
import torch
from scipy import sparse

from rec_utils.errors import UserError
from rec_utils.implicit import ImplicitTask, RowBatch, RowSamples
from rec_utils.papers.diffusion.diffrec import DiffRec, RowDiffusion, time_weighted
from rec_utils.papers.diffusion.ldiffrec import LDiffRec, clusters, item_vectors, latent_sizes
from rec_utils.papers.diffusion.process import ancestral

SMALL = {"widths": (4, 6), "steps": 7, "scale": 0.5, "low": 0.01, "high": 0.1}


def engine(**changes):
    torch.manual_seed(0)
    return RowDiffusion(9, **(SMALL | changes))


def test_the_layers_go_down_and_up_again():
    net = engine().denoiser
    shapes = [tuple(layer.weight.shape) for layer in (net.first, *net.middle, net.last)]
    assert shapes == [(6, 19), (4, 6), (6, 4), (9, 6)]
    one = engine(widths=(5,)).denoiser
    assert [tuple(layer.weight.shape) for layer in (one.first, *one.middle, one.last)] == [(5, 19), (9, 5)]


@pytest.mark.parametrize("scale", [0.5, 0.0])
@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("widths", [(4, 6), (5,)])
def test_the_fast_sampler_equals_the_plain_one(scale, steps, widths):
    model = engine(scale=scale, widths=widths).eval()
    x = torch.randn(5, 9)
    with torch.no_grad():
        if scale:
            expected = ancestral(model.process, model.denoiser, x, generator=None, steps=steps)
        else:
            expected = x
            for t in reversed(range(steps)):
                expected = model.denoiser(expected, torch.full((5,), t))
    assert torch.allclose(model.denoise(x, steps=steps), expected, atol=1e-5)


def test_corruption_adds_the_noise_of_its_step():
    model = engine().eval()
    x = torch.randn(4, 9)
    noise = torch.randn(4, 9, generator=torch.Generator().manual_seed(3))
    start = model.process.q_sample(x, torch.full((4,), 2), noise)
    found = model.denoise(x, corrupt=3, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(found, model.denoise(start), atol=1e-5)
    for wrong in ({"steps": 8}, {"steps": 0}, {"corrupt": 8}):
        with pytest.raises(UserError, match="between"):
            model.denoise(x, **wrong)


@pytest.mark.parametrize("reweight", [True, False])
def test_the_loss_is_the_weighted_squared_error(reweight):
    model = engine(dropout=0.0, reweight=reweight)
    x0 = torch.randn(50, 9)
    torch.manual_seed(1)
    loss, predicted = model.losses(x0)
    torch.manual_seed(1)
    t, chance = model.choice.sample(50)
    xt = model.process.q_sample(x0, t, torch.randn_like(x0))
    assert torch.allclose(predicted, model.denoiser(xt, t))
    weight = model.process.bound_weight(t) if reweight else torch.ones(50)
    assert torch.allclose(loss, weight * ((x0 - predicted) ** 2).mean(1) / chance, rtol=1e-4)
    assert model.choice.count.sum() == 50


def test_evaluation_does_not_count_losses():
    model = engine().eval()
    model.losses(torch.randn(5, 9))
    assert model.choice.count.sum() == 0


def groups(seed=0):
    """Forty users of two kinds, who chose most of the five items of their kind."""
    chosen = np.kron(np.eye(2), np.ones((20, 5))) * (np.random.default_rng(seed).random((40, 10)) < 0.7)
    return sparse.csr_array(chosen.astype(np.float32))


def train(model, x, batches=120, lr=1e-2):
    samples = RowSamples.of(x)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(batches):
        optimizer.zero_grad()
        model(samples.batch(torch.arange(len(samples)))).mean().backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("kind", ["DiffRec", "DiffRec without noise", "L-DiffRec"])
def test_the_items_of_ones_kind_are_recommended(kind):
    torch.manual_seed(0)
    x = groups()
    if kind == "L-DiffRec":
        model = LDiffRec(clusters(item_vectors(x, 2), 2), latent=6, widths=(8,), steps=1)
    else:
        scale = 0.0 if "without" in kind else 0.1
        model = DiffRec(10, widths=(4, 8), steps=5, scale=scale)
    scores = train(model, x).scores(torch.eye(10)[[0, 7]] + torch.eye(10)[[1, 8]])
    assert (scores[0, :5].min() > scores[0, 5:].max()).item()
    assert (scores[1, 5:].min() > scores[1, :5].max()).item()


def test_later_choices_weigh_more():
    one = np.array([[0, 0]])
    task = ImplicitTask("tiny", 3, 4, np.array([[0, 3], [0, 1], [0, 2], [2, 1]]), one, one)
    expected = [[0, 0.6, 1.0, 0.2], [0] * 4, [0, 0.2, 0, 0]]
    assert time_weighted(task, 0.2, 1.0).toarray() == pytest.approx(np.array(expected))
    with pytest.raises(UserError, match="user by user"):
        time_weighted(ImplicitTask("tiny", 3, 4, np.array([[1, 3], [0, 1]]), one, one))


# L-DiffRec


def test_clusters_share_the_items_and_the_latent_vector():
    vectors = np.random.default_rng(0).normal(size=(30, 4)) + 5 * (np.arange(30) < 10)[:, None]
    found = clusters(vectors, 2)
    assert sorted(map(len, found)) == [10, 20]
    assert torch.cat(found).sort().values.tolist() == list(range(30))
    assert latent_sizes([10, 20], 300) == [100, 200]
    assert latent_sizes([1, 900, 99], 300) == [1, 270, 29]
    with pytest.raises(UserError, match="no room"):
        latent_sizes([1, 1, 1], 2)
    with pytest.raises(UserError, match="30 items"):
        clusters(vectors, 31)


def test_item_vectors_are_the_truncated_svd():
    x = groups()
    found = item_vectors(x, 3)
    _, size, right = np.linalg.svd(x.toarray())
    expected = (right[:3].T * size[:3]) @ right[:3]  # V S V', free of signs
    assert found @ found.T == pytest.approx(expected, abs=1e-4)


def test_each_cluster_is_encoded_by_itself_and_all_is_decoded():
    torch.manual_seed(0)
    model = LDiffRec(
        [torch.tensor([0, 2, 5]), torch.tensor([1, 3, 4])], latent=4, widths=(5,), steps=3
    ).eval()
    x = torch.rand(2, 6)
    mean, log_variance = model.encode(x)
    first, second = model.encoders[0](x[:, [0, 2, 5]]), model.encoders[1](x[:, [1, 3, 4]])
    assert torch.equal(mean, torch.cat([first[:, :2], second[:, :2]], 1))
    assert torch.equal(log_variance, torch.cat([first[:, 2:], second[:, 2:]], 1))
    assert torch.allclose(model.scores(x), model.decoder(model.diffusion.denoise(mean)))


def test_the_loss_has_three_parts_with_moving_weights():
    torch.manual_seed(0)
    model = LDiffRec(
        [torch.arange(3), torch.arange(3, 6)], latent=4, widths=(5,), steps=3, anneal_batches=100
    )
    batch = RowBatch(torch.ones(2, 6), torch.arange(2))
    for batches, weight, gamma in ((0, 0.03, 0.0), (50, 0.015, 0.25), (99, 0.005, 0.3), (1000, 0.005, 0.3)):
        model.batches.fill_(batches)
        model.eval()
        torch.manual_seed(1)
        found = model(batch)
        torch.manual_seed(1)
        mean, log_variance = model.encode(batch.x)
        diffusion, denoised = model.diffusion.losses(mean)
        nll = -(model.decoder(denoised).softmax(1).log() * batch.x).sum(1)
        kl = 0.5 * (log_variance.exp() + mean**2 - 1 - log_variance).sum(1)
        assert torch.allclose(found, weight * diffusion + nll + gamma * kl, rtol=1e-4)
    assert model.batches == 1000
    model.train()(batch)
    assert model.batches == 1001
