"""CoReLLa: a conventional recommender and a language model, trained together; hard samples go to the latter.

"Play to Your Strengths: Collaborative Intelligence of Conventional Recommender Models and Large Language
Models", arXiv 2403.16378. The conventional recommendation model (CRM) is DCN-V2; the language model (LM)
reads a prompt, see `corella_samples` and `corella_lm`. Trained apart, the two put their decision boundaries
in different places. So hidden states are aligned, and training has three stages:

1. the CRM alone, on all samples;
2. both on a small random subset, L = a L_llm + b L_crm + c L_cal with (a, b, c) = (1, 1, 0.1);
3. the LM alone, on another subset.

At inference the samples of which the CRM is unsure go to the LM, see `routing`. The paper's body could not be
read: which layers are aligned, the width and the exponent are ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rec_utils.ctr import DCN
from rec_utils.papers.corella_lm import LanguageScorer
from rec_utils.papers.corella_samples import Parts, PromptedBatch, PromptedSamples
from rec_utils.papers.routing import SHARES, best_share, route
from rec_utils.training import FitResult, Objective, TrainConfig, click_scores, fit, predict_in_shares

WEIGHTS = (1.0, 1.0, 0.1)
#: Depths in both models whose layers are aligned in pairs: the middle and the end.
DEPTHS = (0.5, 1.0)
#: Validation samples on which the projections are watched.
WATCHED = 256


# Models


class Alignment(nn.Module):
    """L_cal of each sample: sum over layer pairs j of ||g_llm(h_llm[S_j]) - g_crm(h_crm[T_j])||_2^exponent.

    g_llm and g_crm are linear, one each a pair, on states normalised to mean 0 and variance 1. Nothing in the
    loss keeps the projections from shrinking to zero or to a constant: see `CoReLLa.watch`.

    Args:
        n_pairs: number of layer pairs C.
        lm_width: of the LM's states.
        crm_width: of the CRM's states.
        width: of the common space.
        exponent: the paper's alpha.
    """

    def __init__(
        self, n_pairs: int, lm_width: int, crm_width: int, *, width: int = 64, exponent: float = 2.0
    ) -> None:
        super().__init__()
        self.exponent = exponent
        self.of_lm = _projections(n_pairs, lm_width, width)
        self.of_crm = _projections(n_pairs, crm_width, width)

    def extra_repr(self) -> str:
        """See `CoReLLa.extra_repr`."""
        return f"exponent={self.exponent}"

    def project(self, lm: Sequence[Tensor], crm: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """g_llm and g_crm of the C states [B, d] of each model: [C, B, width] each."""
        return (
            torch.stack([g(state) for g, state in zip(self.of_lm, lm, strict=True)]),
            torch.stack([g(state) for g, state in zip(self.of_crm, crm, strict=True)]),
        )

    def forward(self, lm: Sequence[Tensor], crm: Sequence[Tensor]) -> Tensor:
        """L_cal [B] of the C states [B, d] of each model."""
        of_lm, of_crm = self.project(lm, crm)
        return (of_lm - of_crm).square().sum(2).pow(self.exponent / 2).sum(0)


def _projections(n_pairs: int, in_width: int, width: int) -> nn.ModuleList:
    return nn.ModuleList(
        nn.Sequential(nn.LayerNorm(in_width, elementwise_affine=False), nn.Linear(in_width, width))
        for _ in range(n_pairs)
    )


class CoReLLa(nn.Module):
    """CRM and LM with their alignment, for stage 2.

    Args:
        crm: DCN-V2, or DCN: the states are those of its cross layers.
        lm: the language model.
        seed: of the projections.
        width: see `Alignment`.
        exponent: see `Alignment`.
        weights: a, b and c of the loss; c = 0 trains both side by side without aligning them.
    """

    def __init__(
        self,
        crm: DCN,
        lm: LanguageScorer,
        *,
        seed: int = 0,
        width: int = 64,
        exponent: float = 2.0,
        weights: tuple[float, float, float] = WEIGHTS,
    ) -> None:
        super().__init__()
        self.crm, self.lm, self.weights = crm, lm, weights
        self.blocks = [math.ceil(depth * lm.n_blocks) for depth in DEPTHS]
        self.layers = [math.ceil(depth * len(crm.cross)) for depth in DEPTHS]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.alignment = Alignment(
                len(DEPTHS), lm.width, crm.inputs.all_dim, width=width, exponent=exponent
            )

    def extra_repr(self) -> str:
        """Shown with the model, and one of the things by which a checkpoint is known."""
        return f"weights={self.weights}"

    def states(self, batch: PromptedBatch) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
        """Logits [B] of the LM and of the CRM, and the C states [B, d] of the LM and of the CRM."""
        lm_logit, lm_states = self.lm.score(batch, self.blocks)
        with kept([self.crm.cross[layer - 1] for layer in self.layers]) as crm_states:
            crm_logit = self.crm(batch.ctr)
        return lm_logit, crm_logit, lm_states, crm_states

    def forward(self, batch: PromptedBatch) -> Tensor:
        """[B, 3]: logit of the LM, logit of the CRM, L_cal."""
        lm_logit, crm_logit, lm_states, crm_states = self.states(batch)
        return torch.stack([lm_logit, crm_logit, self.alignment(lm_states, crm_states)], dim=1)

    @torch.no_grad()
    def watch(self, samples: PromptedSamples) -> dict[str, float]:
        """Whether the projections collapse, on the first `WATCHED` samples; means over samples and pairs.

        The norm of the projected states, their spread (distance from their own mean), and how far the LM's
        state is from the CRM's of the same sample and of another. Norms near 0 are a collapse to zero, a
        small spread is one to a constant; equal distances mean that nothing about a sample is shared.
        """
        first = torch.arange(min(WATCHED, len(samples)))
        batch = samples.select(first).to(self.crm.embedding.weight.device).batch(first)
        was_training = self.training
        self.eval()
        of_lm, of_crm = self.alignment.project(*self.states(batch)[2:])
        self.train(was_training)
        vectors = {
            "lm_norm": of_lm,
            "crm_norm": of_crm,
            "lm_spread": of_lm - of_lm.mean(dim=1, keepdim=True),
            "crm_spread": of_crm - of_crm.mean(dim=1, keepdim=True),
            "distance": of_lm - of_crm,
            "distance_to_others": of_lm - of_crm.roll(1, dims=1),
        }
        return {name: value.norm(dim=2).mean().item() for name, value in vectors.items()}


@contextmanager
def kept(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """A list that collects what the modules return while the context is open, in order of the calls."""
    outputs: list[Tensor] = []
    hooks = [module.register_forward_hook(lambda _, __, out: outputs.append(out)) for module in modules]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


# Training


def joint_objective(weights: tuple[float, float, float]) -> Objective:
    """L = a L_llm + b L_crm + c L_cal; the best epoch has the lowest a L_llm + b L_crm on validation."""
    a, b, c = weights

    def loss(output: Tensor, label: Tensor) -> Tensor:
        lm, crm, distance = output.unbind(1)
        llm_loss = F.binary_cross_entropy_with_logits(lm, label)
        crm_loss = F.binary_cross_entropy_with_logits(crm, label)
        return a * llm_loss + b * crm_loss + c * distance.mean()

    def scores(label: np.ndarray, probability: np.ndarray) -> dict[str, float]:
        lm, crm = (click_scores(label, probability[:, column]) for column in (0, 1))
        by_model = {f"lm_{name}": value for name, value in lm.items()}
        by_model |= {f"crm_{name}": value for name, value in crm.items()}
        return {"logloss": a * lm["logloss"] + b * crm["logloss"]} | by_model

    return Objective(loss, scores, higher_is_better=False)


def warm_up(
    model: CoReLLa, parts: Parts, config: TrainConfig, progress: bool = True, checkpoint: Path | None = None
) -> FitResult:
    """Stage 1: the CRM alone, on all training samples."""
    label = progress and "stage 1"
    return fit(model.crm, parts.train, parts.valid_all, config, label, checkpoint=checkpoint)


def align(
    model: CoReLLa, parts: Parts, config: TrainConfig, progress: bool = True, checkpoint: Path | None = None
) -> FitResult:
    """Stage 2: both models and the projections; every epoch is logged with `CoReLLa.watch`."""
    return fit(
        model,
        parts.joint,
        parts.valid,
        config,
        progress and "stage 2",
        joint_objective(model.weights),
        lambda trained: trained.watch(parts.valid),
        checkpoint,
    )


def go_on(
    model: CoReLLa, parts: Parts, config: TrainConfig, progress: bool = True, checkpoint: Path | None = None
) -> FitResult:
    """Stage 3: the LM alone, on other samples; the CRM stays as it is."""
    label = progress and "stage 3"
    return fit(model.lm, parts.alone, parts.valid, config, label, checkpoint=checkpoint)


STAGES = {1: warm_up, 2: align, 3: go_on}
#: What the stages of the method and of its ablations are. "LM" is the LM of "w/o stage 2".
PATHS: Mapping[str, tuple[int, ...]] = {
    "CRM": (1,),
    "CoReLLa": (1, 2, 3),
    "w/o stage 1": (2, 3),
    "w/o stage 2": (1, 3),
    "w/o stage 3": (1, 2),
}


class Pair(NamedTuple):
    """Probabilities of the two models for the same samples."""

    crm: np.ndarray  #: [N]
    lm: np.ndarray | None  #: [N]; None of an LM that is not trained


@dataclass(frozen=True)
class Trained:
    """What the models predict after some stages."""

    valid: Pair
    test: Pair
    fits: dict[int, FitResult]  #: of each stage


def train_variants(
    model: CoReLLa,
    parts: Parts,
    configs: Mapping[int, TrainConfig],
    paths: Mapping[str, tuple[int, ...]] = PATHS,
    progress: bool = True,
    checkpoints: Path | None = None,
) -> dict[str, Trained]:
    """Train each variant from the model as it is now; what paths have in common is trained once.

    Under `accelerate launch` the processes share every batch and the samples to predict.

    Args:
        model: untrained; left in one of the trained states.
        parts: the samples.
        configs: of each stage.
        paths: variant -> its stages, in order.
        progress: show a bar for each stage.
        checkpoints: folder where a stopped training goes on from, in its stage and epoch; see `training.fit`.
    """
    reached: dict[tuple[int, ...], tuple[dict[str, Tensor], dict[int, FitResult]]]
    reached = {(): (_trained_weights(model), {})}
    trained = {}
    for name, path in paths.items():
        for n, stage in enumerate(path):
            if path[: n + 1] not in reached:
                weights, fits = reached[path[:n]]
                model.load_state_dict(weights, strict=False)
                file = checkpoints and checkpoints / f"stages-{'-'.join(map(str, path[: n + 1]))}.pt"
                log = STAGES[stage](model, parts, configs[stage], progress, file)
                reached[path[: n + 1]] = _trained_weights(model), fits | {stage: log}
        weights, fits = reached[path]
        model.load_state_dict(weights, strict=False)
        batch_size = configs[path[-1]].eval_batch_size
        valid, test = (_predict(model, part, path, batch_size) for part in (parts.valid, parts.test))
        trained[name] = Trained(valid, test, fits)
    return trained


@dataclass(frozen=True)
class Outcome:
    """A row of the paper's tables."""

    share: float  #: of the samples that the LM predicts
    probability: np.ndarray  #: [N] of the test samples


def outcomes(
    trained: Mapping[str, Trained], valid_label: np.ndarray, shares: Sequence[float] = SHARES
) -> dict[str, Outcome]:
    """The test predictions of both models alone, of the method, and without each of its parts.

    The share that goes to the LM is chosen on validation samples for each variant. "w/o mix" is the CRM of
    the method, without routing.

    Args:
        trained: of `train_variants`, along all of `PATHS`.
        valid_label: [N] of the validation samples.
        shares: to choose from.
    """
    rows = {
        "CRM": Outcome(0.0, trained["CRM"].test.crm),
        "LM": Outcome(1.0, trained["w/o stage 2"].test.lm),
    }
    for name in [name for name in PATHS if name not in rows]:
        share = best_share(valid_label, *trained[name].valid, shares)
        rows[name] = Outcome(share, route(*trained[name].test, share))
    return rows | {"w/o mix": Outcome(0.0, trained["CoReLLa"].test.crm)}


def _predict(model: CoReLLa, samples: PromptedSamples, path: tuple[int, ...], batch_size: int) -> Pair:
    lm = None if path == (1,) else predict_in_shares(model.lm, samples, batch_size)
    return Pair(predict_in_shares(model.crm, samples.ctr), lm)


def _trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """Copies, on the CPU, of the parameters that training changes: with LoRA they are few."""
    return {
        name: weight.detach().cpu().clone()
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }
