"""Two models for one prediction: the cheap one answers, and what it is unsure of goes to the other.

CoReLLa's rule: the difficulty of a sample is the entropy of the recommender's probability, and a hard sample
gets the language model's probability instead. "Hard" may be a threshold on the entropy or a share of the
samples; here it is the share. The study of who is good where stands here, too.

All arrays are [N]: label 0 or 1, crm and lm the probabilities of the recommender and of the language model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.special import entr

from rec_utils.errors import UserError
from rec_utils.metrics import auc, logloss, sample_logloss
from rec_utils.stats import draw_auc

#: Shares of samples that may go to the language model.
SHARES = tuple(np.linspace(0, 1, 21).round(2).tolist())
#: Bins of equal width of the expected calibration error.
CALIBRATION_BINS = 10
#: Over which a random router's scores are averaged.
RANDOM_DRAWS = 5


# Routing


def entropy(p: np.ndarray) -> np.ndarray:
    """Difficulty s = -p log p - (1 - p) log(1 - p), in nats."""
    return entr(p) + entr(1 - p)


def route(crm: np.ndarray, lm: np.ndarray, share: float) -> np.ndarray:
    """Probabilities [N]: lm's for the `share` of samples with the highest entropy of crm, crm's for the rest.

    Raises:
        UserError: `share` is not between 0 and 1.
    """
    return _replaced(crm, lm, _by_difficulty(crm), share)


def oracle(label: np.ndarray, crm: np.ndarray, lm: np.ndarray, share: float) -> np.ndarray:
    """The ceiling of routing: lm's where its LogLoss is lower by most, on at most `share` of the samples."""
    gain = sample_logloss(label, crm) - sample_logloss(label, lm)
    return _replaced(crm, np.where(gain > 0, lm, crm), np.argsort(-gain, kind="stable"), share)


def curve(
    label: np.ndarray, crm: np.ndarray, lm: np.ndarray, shares: Sequence[float] = SHARES
) -> pd.DataFrame:
    """`scores` of each share, routed by entropy, by the oracle, and at random (a mean over draws)."""
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(label)) for _ in range(RANDOM_DRAWS)]
    rows = []
    for share in shares:
        drawn = pd.DataFrame([scores(label, _replaced(crm, lm, order, share)) for order in orders])
        by_router = {
            "entropy": scores(label, route(crm, lm, share)),
            "oracle": scores(label, oracle(label, crm, lm, share)),
            "random": drawn.mean().to_dict(),
        }
        rows += [{"router": router, "share": share} | found for router, found in by_router.items()]
    return pd.DataFrame(rows)


def best_share(label: np.ndarray, crm: np.ndarray, lm: np.ndarray, shares: Sequence[float] = SHARES) -> float:
    """The share with the highest AUC, to be chosen on validation samples; of equals the smallest."""
    return max(sorted(shares), key=lambda share: auc(label, route(crm, lm, share)))


def _by_difficulty(crm: np.ndarray) -> np.ndarray:
    """[N] positions of the samples, the hardest first; of equals the earlier."""
    return np.argsort(-entropy(crm), kind="stable")


def _replaced(crm: np.ndarray, lm: np.ndarray, order: np.ndarray, share: float) -> np.ndarray:
    """crm, but lm in the first `share` of `order`."""
    if not 0 <= share <= 1:
        raise UserError(f"share must lie between 0 and 1, not at {share}")
    chosen = order[: round(share * len(order))]
    mixed = crm.copy()
    mixed[chosen] = lm[chosen]
    return mixed


# Who is good where


def scores(label: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """AUC, LogLoss, ACC at the threshold 0.5 and expected calibration error; AUC of one class is NaN."""
    both_classes = 0 < label.mean() < 1
    return {
        "AUC": auc(label, probability) if both_classes else np.nan,
        "LogLoss": logloss(label, probability),
        "ACC": float(((probability > 0.5) == label).mean()),
        "ECE": calibration_error(label, probability),
    }


def calibration_error(label: np.ndarray, probability: np.ndarray) -> float:
    """Expected calibration error: mean over bins of |mean probability - rate of positives|, by their size."""
    bins = np.minimum((probability * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return float(np.abs(np.bincount(bins, probability - label)).sum() / len(label))


def thirds(crm: np.ndarray) -> np.ndarray:
    """Group [N] of each sample by the recommender's confidence, 1 the surest third and 3 the least sure."""
    rank = np.empty(len(crm), np.int64)
    rank[_by_difficulty(crm)] = np.arange(len(crm))
    return 3 - 3 * rank // len(crm)


def by_group(
    label: np.ndarray, models: Mapping[str, np.ndarray], group: np.ndarray | pd.Series
) -> pd.DataFrame:
    """Scores of each model within each group of samples.

    Args:
        label: [N].
        models: name -> probabilities [N].
        group: [N] such as `thirds`, or a category of history length or of popularity; groups are sorted.

    Returns:
        One row a group and model: group, model, n, positive_rate, mean_p and `scores`.
    """
    rows = []
    for name, index in pd.Series(np.arange(len(label))).groupby(np.asarray(group)):
        for model, p in models.items():
            here, said = label[index], p[index]
            about = {"group": name, "model": model, "n": len(here), "positive_rate": here.mean()}
            rows.append(about | {"mean_p": said.mean()} | scores(here, said))
    return pd.DataFrame(rows)


def auc_by_group(
    label: np.ndarray,
    models: Mapping[str, np.ndarray],
    group: pd.Categorical,
    user: np.ndarray,
    n_boot: int,
    seed: int,
) -> pd.DataFrame:
    """AUC of each model within each group of samples, with intervals over users.

    Args:
        label: [N].
        models: name -> probabilities [N].
        group: [N]; those with samples of one class or one user only are left out.
        user: [N].
        n_boot: replicates of the bootstrap.
        seed: of the bootstrap.

    Returns:
        One row a group, in the order of the categories, and model, for `plots.gain_by_bin`: bin, arm, value,
        low, high, level and n, the number of samples.
    """
    rows = []
    for name in group.categories:
        inside = np.asarray(group == name)
        if not 0 < label[inside].sum() < inside.sum() or np.ptp(user[inside]) == 0:
            continue
        drawn = draw_auc(label[inside], {m: p[inside] for m, p in models.items()}, user[inside], n_boot, seed)
        for model in models:
            interval = drawn.interval(lambda metric, model=model: metric[model])
            rows.append({"bin": name, "arm": model} | vars(interval) | {"n": inside.sum()})
    return pd.DataFrame(rows)


def boundaries(label: np.ndarray, crm: np.ndarray, lm: np.ndarray, bins: int = 10) -> pd.DataFrame:
    """How far apart the decision boundaries lie: the LM's probability along the recommender's.

    Samples are sorted by crm and cut into bins of equal size. Where the mean of lm crosses 0.5, the LM says
    yes from there on; without a shift, that is where the mean of crm does.

    Returns:
        One row a bin: n, crm and lm (means), positive_rate, and disagree, the share of samples that the two
        models put on different sides of 0.5.
    """
    order = np.argsort(crm, kind="stable")
    table = pd.DataFrame(
        {"crm": crm, "lm": lm, "positive_rate": label, "disagree": (crm > 0.5) != (lm > 0.5)}
    ).iloc[order]
    grouped = table.groupby(np.arange(len(crm)) * bins // len(crm))
    return grouped.mean().assign(n=grouped.size())
