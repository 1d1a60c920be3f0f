"""Checks of the exercises in tutorial T5, diffusion from one-dimensional noise to DiffRec."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rec_utils.classroom import Wrong, close, exercise
from rec_utils.papers.diffusion.process import Process
from rec_utils.papers.diffusion.schedules import linear, linear_variance
from rec_utils.ranking import rank_rows


@exercise(1, points=1, title="what three steps leave of the signal")
def signal_left(answer: Any) -> None:
    """alpha_bar after steps of beta = 0.1, 0.2 and 0.5."""
    if close(answer, 0.1 * 0.2 * 0.5):
        raise Wrong("this is the product of the betas; what does one step leave of the variance?")
    if close(answer, 1 - 0.9 * 0.8 * 0.5):
        raise Wrong("this is the share of the noise")
    if close(answer, (0.9 * 0.8 * 0.5) ** 0.5):
        raise Wrong("this is the factor of x_0; the question is the share of the variance, its square")
    if not close(answer, 0.9 * 0.8 * 0.5, 1e-3):
        raise Wrong("each step leaves 1 - beta of what stood before it")


@exercise(2, points=2, title="the steps until noise outweighs the signal")
def steps_until_noise(answer: Callable[[Tensor], int]) -> None:
    """How many steps until alpha_bar is below one half."""
    for beta, expected in (
        (torch.full((10,), 0.2), 4),  # 0.8, 0.64, 0.512, 0.4096
        (torch.tensor([0.6, 0.1]), 1),
        (torch.tensor([0.1, 0.1, 0.45, 0.1]), 3),  # 0.81 x 0.55 = 0.4455
        (linear(200), int((Process(linear(200)).alpha_bar >= 0.5).sum()) + 1),
    ):
        got = answer(beta)
        if close(got, expected):
            continue
        if close(got, expected - 1):
            raise Wrong("it is one too few: steps are counted from 1, places in a tensor from 0")
        if close(got, expected + 1):
            raise Wrong("it is one too many")
        raise Wrong("alpha_bar is the product of all 1 - beta so far, not the value of one step")


@exercise(3, points=3, title="the product of two bells")
def product_of_bells(answer: Callable[..., tuple[Any, Any]]) -> None:
    """Mean and variance of the normalised product of two Gaussian densities."""
    for mean_a, variance_a, mean_b, variance_b in ((1.0, 2.0, -3.0, 0.8), (0.3, 0.1, 0.7, 0.4)):
        got = answer(mean_a, variance_a, mean_b, variance_b)
        if not isinstance(got, tuple | list) or len(got) != 2:
            raise Wrong("it should return two numbers: mean, variance")
        mean, variance = _product_on_a_grid(mean_a, variance_a, mean_b, variance_b)
        if not close(got[1], variance, 1e-3):
            if close(got[1], 1 / variance, 1e-3):
                raise Wrong("the second number is the precision; the variance is 1 over it")
            if close(got[1], variance_a + variance_b, 1e-3):
                raise Wrong("variances add when independent numbers are added, not when bells are multiplied")
            raise Wrong("the variance is not right; precisions (1 / variance) add")
        if not close(got[0], mean, 1e-3):
            if close(got[0], (mean_a * variance_a + mean_b * variance_b) / (variance_a + variance_b), 1e-3):
                raise Wrong("the wider bell pulls harder in your mean; should it?")
            raise Wrong("the mean is not right: each mean counts as much as its bell is sharp")


def _product_on_a_grid(mean_a: float, variance_a: float, mean_b: float, variance_b: float) -> tuple:
    """Mean and variance of the product by adding up on a fine grid."""
    x = torch.linspace(-15, 15, 60_001, dtype=torch.float64)
    density = torch.exp(-((x - mean_a) ** 2) / (2 * variance_a) - (x - mean_b) ** 2 / (2 * variance_b))
    density /= density.sum()
    mean = (density * x).sum()
    return mean, (density * (x - mean) ** 2).sum()


@exercise(4, points=3, title="the best guess of a denoiser")
def best_guess(answer: Callable[[Tensor, float], Tensor]) -> None:
    """E[x_0 | x_t] where x_0 is -1 or 1 with equal chance."""
    xt = torch.linspace(-2, 2, 9)
    for alpha_bar in (0.9, 0.3):
        got, expected = answer(xt, alpha_bar), _guess_by_bayes(xt, alpha_bar)
        if close(got, expected, 1e-4):
            continue
        if close(got, xt.sign(), 1e-4):
            raise Wrong("this is the likelier value; the best guess is the mean of both, by their chances")
        if close(got, (expected + 1) / 2, 1e-4):
            raise Wrong("this is the chance that x_0 is 1; what is the mean of x_0 then?")
        if close(got, xt / alpha_bar**0.5, 1e-4):
            raise Wrong("this undoes the shrinking only, and can lie beyond -1 and 1")
        raise Wrong("weigh -1 and 1 by the density of x_t given each: bells around -sqrt(a) and sqrt(a)")


def _guess_by_bayes(xt: Tensor, alpha_bar: float) -> Tensor:
    log_density = [-((xt - x0 * alpha_bar**0.5) ** 2) / (2 * (1 - alpha_bar)) for x0 in (-1.0, 1.0)]
    chance = torch.stack(log_density).softmax(0)
    return chance[1] - chance[0]


@exercise(5, points=2, title="from a predicted noise to the clean value")
def clean_value(answer: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """The x_0 that gives x_t with a noise."""
    process, t = Process(linear(100)), torch.tensor([3, 40, 99])
    x0, noise = torch.tensor([[0.5], [-2.0], [1.2]]), torch.tensor([[1.1], [0.3], [-0.7]])
    xt = process.q_sample(x0, t, noise)
    for row, step in enumerate(t):
        alpha_bar = process.alpha_bar[step].item()
        got = answer(xt[row], noise[row], alpha_bar)
        if close(got, x0[row], 1e-4):
            continue
        if close(got, xt[row] - noise[row], 1e-4):
            raise Wrong("neither the noise nor x_0 stands in x_t with factor 1")
        if close(got, xt[row] - (1 - alpha_bar) ** 0.5 * noise[row], 1e-4):
            raise Wrong("the noise is gone, but x_0 is still shrunk")
        if close(got, (xt[row] - (1 - alpha_bar) * noise[row]) / alpha_bar, 1e-4):
            raise Wrong("these are variances; x_t holds their roots")
        raise Wrong("solve x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) noise for x_0")


@exercise(6, points=3, title="Recall@k")
def recall(answer: Callable[[Tensor, Tensor, Tensor, int], Tensor]) -> None:
    """Recall@k of each user, without the items seen."""
    draw = torch.Generator().manual_seed(5)
    scores = torch.rand(6, 12, generator=draw)
    kind = torch.rand(6, 12, generator=draw)
    seen, wanted = kind < 0.3, kind > 0.6
    scores[seen] += 0.5  # a model likes best what it has learnt from
    for k in (3, 5):
        got, before = answer(scores.clone(), seen.clone(), wanted.clone(), k), _recall(scores, wanted, k)
        if close(got, _recall(scores, wanted, k, seen)):
            continue
        if close(got, before):
            raise Wrong("items that the user has seen take up places; they are no candidates")
        found = _recall(scores, wanted, k, seen) * wanted.sum(1)
        if close(got, found / k):
            raise Wrong("this is the precision, hits over k; recall asks how much of the wanted was found")
        if close(got, found):
            raise Wrong("these are the numbers of hits; which share of the wanted items is it?")
        raise Wrong("count the wanted items among the k best unseen ones, over all wanted ones, user by user")


def _recall(scores: Tensor, wanted: Tensor, k: int, seen: Tensor | None = None) -> Tensor:
    from scipy import sparse

    truth, known = (None if m is None else sparse.csr_array(m.numpy()) for m in (wanted, seen))
    table = rank_rows(lambda users: scores[users], truth, known, cuts=(k,))
    return torch.tensor(table[f"Recall@{k}"].to_numpy())


@exercise(7, points=1, title="the noise of a released model")
def released_noise(answer: Any) -> None:
    """Standard deviation of the noise after the last step of DiffRec's setting for MovieLens-1M."""
    variance = 1 - Process(linear_variance(40, scale=0.005, low=0.005, high=0.01, first=None)).alpha_bar[-1]
    if close(answer, variance, 1e-7):
        raise Wrong("this is the variance; the noise has its root as standard deviation")
    if close(answer, (0.005 * 0.005) ** 0.5, 1e-7):
        raise Wrong("this is the first step; the last one has scale x high")
    if not close(answer, variance.sqrt(), 1e-4):
        raise Wrong("the variance after the last step, 1 - alpha_bar, is scale x high")
