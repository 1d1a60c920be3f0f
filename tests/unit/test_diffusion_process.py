"""Schedules against their closed forms, steps against the Gaussian algebra, samplers on a known target."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rec_utils.errors import UserError
from rec_utils.papers.diffusion import schedules
from rec_utils.papers.diffusion.process import (
    LossAwareSteps,
    Process,
    ancestral,
    ddim,
    ddim_steps,
    time_embedding,
)

SCHEDULES = {
    "linear": schedules.linear(50),
    "linear variance": schedules.linear_variance(40, 0.5, 0.005, 0.1),
    "cosine": schedules.cosine(30),
    "exponential": schedules.exponential(60),
    "truncated linear": schedules.truncated_linear(32),
}


def alpha_bar(betas):
    return np.cumprod(1 - betas.numpy())


# Schedules


def test_the_variance_of_linear_variance_is_linear():
    betas = schedules.linear_variance(40, 0.5, 0.005, 0.1, first=None)
    assert 1 - alpha_bar(betas) == pytest.approx(np.linspace(0.0025, 0.05, 40))


def test_diffrecs_first_step_is_cut_and_shifts_the_rest():
    """On MovieLens-1M (scale 0.005, 0.005 to 0.01) the noise is almost nothing: 0.6 % at the last step."""
    betas = schedules.linear_variance(40, 0.005, 0.005, 0.01)
    uncut = schedules.linear_variance(40, 0.005, 0.005, 0.01, first=None)
    assert betas[0] == 1e-5
    assert torch.equal(betas[1:], uncut[1:])
    assert alpha_bar(betas) == pytest.approx(alpha_bar(uncut) / (1 - uncut[0].item()) * (1 - 1e-5))
    assert math.sqrt(1 - alpha_bar(betas)[-1]) == pytest.approx(0.0059, abs=1e-4)


def test_the_cosine_is_its_formula():
    def f(u):
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = schedules.cosine(30)
    for t in range(29):
        assert alpha_bar(betas)[t] == pytest.approx(f((t + 1) / 30) / f(0), rel=1e-9)
    assert betas[-1] == 0.999  # the formula would destroy all


def test_dreamrecs_exponential_is_its_formula():
    betas = schedules.exponential(60)
    for t, x in enumerate(np.linspace(1, 121, 60)):
        assert betas[t].item() == pytest.approx(1 - math.exp(-0.1 / 60 - x * 4.95 / 3600))


def test_diffurecs_schedule_has_the_ends_of_its_code():
    betas = schedules.truncated_linear(32)
    assert (betas[0].item(), betas[-1].item()) == pytest.approx((0.013125, 0.635))
    assert betas.diff() == pytest.approx(torch.full((31,), (0.635 - 0.013125) / 31))
    assert schedules.truncated_linear(10)[-1].item() == pytest.approx(0.11)  # 2.01 would be above 1


def test_the_scaled_line_ends_alike_for_any_number_of_steps():
    assert torch.equal(schedules.scaled_linear(1000), schedules.linear(1000))
    ends = [math.log(alpha_bar(schedules.scaled_linear(steps))[-1]) for steps in (200, 1000)]
    assert ends[0] == pytest.approx(ends[1], rel=0.05)
    assert schedules.scaled_linear(5).max() == 0.999


def test_impossible_schedules_are_errors():
    with pytest.raises(UserError, match="at least 1 step"):
        schedules.linear(0)
    with pytest.raises(UserError, match="beta of step 0"):
        schedules.linear_variance(5, 0.0, 0.1, 0.2, first=None)
    with pytest.raises(UserError, match="beta of step 2"):
        schedules.linear(3, 0.1, 1.0)


# Steps


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_forward_step_is_the_product_of_single_steps(name):
    """x_t = sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) noise, whose factor and variance are followed by hand."""
    betas, process = SCHEDULES[name], Process(SCHEDULES[name])
    factor, variance = 1.0, 0.0
    for t, beta in enumerate(betas.tolist()):
        factor, variance = factor * math.sqrt(1 - beta), (1 - beta) * variance + beta
        x = process.q_sample(torch.tensor([[2.0]]), torch.tensor([t]), torch.tensor([[0.0]]))
        noise = process.q_sample(torch.tensor([[0.0]]), torch.tensor([t]), torch.tensor([[1.0]]))
        assert x.item() == pytest.approx(2 * factor, rel=1e-5)
        assert noise.item() == pytest.approx(math.sqrt(variance), rel=1e-5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_posterior_is_bayes_rule(name):
    """q(x_{t-1} | x_t, x_0) is proportional to q(x_t | x_{t-1}) q(x_{t-1} | x_0), two Gaussians."""
    betas, process = SCHEDULES[name], Process(SCHEDULES[name])
    bars = alpha_bar(betas)
    x0, xt = 0.7, -0.4
    for t in range(1, len(betas)):
        beta, prior = betas[t].item(), 1 - bars[t - 1]
        precision = (1 - beta) / beta + 1 / prior
        mean = (math.sqrt(1 - beta) / beta * xt + math.sqrt(bars[t - 1]) / prior * x0) / precision
        found = process.posterior_mean(torch.tensor([[x0]]), torch.tensor([[xt]]), torch.tensor([t]))
        assert found.item() == pytest.approx(mean, abs=2e-4)
        assert process.variance[t].item() == pytest.approx(1 / precision, rel=2e-3)
    first = process.posterior_mean(torch.tensor([[x0]]), torch.tensor([[xt]]), torch.tensor([0]))
    assert (first.item(), process.variance[0].item()) == pytest.approx((x0, 0))


def test_noise_and_signal_are_two_sides_of_one_prediction():
    process, t = Process(SCHEDULES["linear"]), torch.tensor([3, 49, 20])
    x0, noise = torch.randn(2, 3, 4, 5)
    xt = process.q_sample(x0, t, noise)
    assert torch.allclose(process.x0_of(noise, xt, t), x0, atol=1e-5)
    assert torch.allclose(process.noise_of(x0, xt, t), noise, atol=1e-4)


def test_the_weights_are_differences_of_the_signal_to_noise_ratio():
    process = Process(SCHEDULES["linear"])
    bars = alpha_bar(SCHEDULES["linear"])
    snr = bars / (1 - bars)
    found = process.bound_weight(torch.arange(50)).numpy()
    assert found[0] == 1
    assert found[1:] == pytest.approx(snr[:-1] - snr[1:], rel=1e-3)
    assert process.min_snr_weight(torch.arange(50)).numpy() == pytest.approx(
        np.minimum(snr, 5) / snr, rel=1e-5
    )


def test_the_embedding_of_time_is_its_formula():
    found = time_embedding(torch.tensor([0, 7]), 5)
    for row, t in enumerate((0, 7)):
        angles = [t, t / 100]  # periods 10000^(k / 2)
        assert found[row].tolist() == pytest.approx([*map(math.cos, angles), *map(math.sin, angles), 0])


# Samplers


def test_a_perfect_denoiser_is_followed_to_its_target():
    process, target = Process(SCHEDULES["linear"]), torch.randn(3, 2)
    start = torch.randn(3, 2)
    for sample in (
        ancestral(process, lambda x, t: target, start, generator=None),
        ancestral(process, lambda x, t: target, start, generator=torch.Generator().manual_seed(0)),
        ddim(process, lambda x, t: target, start, steps=5),
    ):
        assert torch.allclose(sample, target)


def gaussian_denoiser(process, mean, std):
    """E[x_0 | x_t] of x_0 ~ N(mean, std^2), in closed form."""

    def denoise(x, t):
        a, s = process.signal[t][:, None], process.noise[t][:, None]
        return mean + std**2 * a / (std**2 * a**2 + s**2) * (x - a * mean)

    return denoise


def test_the_ancestral_sampler_draws_from_the_data():
    process = Process(schedules.linear(200, 1e-4, 0.05))
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(20_000, 1, generator=generator)
    x = ancestral(process, gaussian_denoiser(process, 2.0, 0.5), start, generator=generator)
    assert x.mean().item() == pytest.approx(2.0, abs=0.02)
    assert x.std().item() == pytest.approx(0.5, abs=0.02)


def test_ddim_maps_noise_to_the_data_without_drawing():
    """With a Gaussian target the map is affine: quantiles go to quantiles."""
    process = Process(schedules.linear(1000, 1e-4, 0.02))
    start = torch.tensor([[-1.0], [0.0], [1.0]])
    x = ddim(process, gaussian_denoiser(process, 2.0, 0.5), start, steps=200)
    assert x.squeeze().tolist() == pytest.approx([1.5, 2.0, 2.5], abs=0.03)


@given(st.integers(1, 60), st.integers(1, 60))
def test_ddim_steps_fall_evenly_to_the_first(total, steps):
    if steps > total:
        with pytest.raises(UserError, match="steps"):
            ddim_steps(total, steps)
        return
    places = ddim_steps(total, steps)
    gaps = -np.diff([total, *places])
    assert len(places) == steps
    assert places[-1] == 0
    assert gaps.max() - gaps.min() <= 1
    assert gaps.sum() == total


def test_fewer_steps_start_further_down():
    process, seen = Process(schedules.linear(10)), []
    ancestral(process, lambda x, t: seen.append(t[0].item()) or x, torch.zeros(2, 1), generator=None, steps=3)
    assert seen == [2, 1, 0]
    with pytest.raises(UserError, match="10 of the schedule"):
        ancestral(process, lambda x, t: x, torch.zeros(2, 1), generator=None, steps=11)


# The choice of steps


@given(st.integers(0, 2**32 - 1))
def test_losses_are_kept_as_if_they_came_one_by_one(seed):
    rng = np.random.default_rng(seed)
    choice, kept = LossAwareSteps(3), {t: [] for t in range(3)}
    for _ in range(rng.integers(1, 6)):
        t = rng.integers(3, size=rng.integers(1, 40))
        loss = rng.random(len(t)).astype(np.float32)
        choice.update(torch.from_numpy(t), torch.from_numpy(loss))
        for step, value in zip(t, loss, strict=True):
            kept[step] = [*kept[step], value][-10:]
    if all(len(values) == 10 for values in kept.values()):
        for t, values in kept.items():
            assert np.sort(choice.history[t].numpy()) == pytest.approx(np.sort(values))
        size = np.array([np.sqrt(np.mean(np.square(values))) for values in kept.values()])
        expected = 0.999 * size / size.sum() + 0.001 / 3
    else:
        expected = np.full(3, 1 / 3)
    assert choice.probabilities().numpy() == pytest.approx(expected, rel=1e-4)


def test_weighted_losses_stay_unbiased():
    torch.manual_seed(0)
    choice, losses = LossAwareSteps(4), torch.tensor([1.0, 2.0, 4.0, 9.0])
    choice.update(torch.arange(4).repeat(10), losses.repeat(10))
    t, weight = choice.sample(200_000)
    assert torch.bincount(t) / len(t) == pytest.approx(losses / losses.sum(), abs=0.01)
    assert (losses[t] / weight).mean().item() == pytest.approx(losses.mean().item(), rel=0.01)
