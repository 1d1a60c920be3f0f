"""Outfits of handwritten digits, for generation that needs no download.

scikit-learn's digits (8 x 8 pixels) stand for fashion items: the category is the digit. A *user* has a way to
write, slanted or upright and thin or bold, which all pictures of the user share. An *outfit* is four digits
of one user with one *ground*, light or dark, on which they match. So what category, user and the other
items of the outfit tell about a picture are three different things, each of which can be judged.

Pixels run from -1 to 1; a dark ground is the picture as it is, a light one its negative.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from scipy import ndimage
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from torch import Tensor

from rec_utils.batches import Samples
from rec_utils.errors import UserError

SIDE, N_CATEGORIES, SIZE = 8, 10, 4  #: pixels of a side, digits, items of an outfit
#: (slant, whether bold) of each user, see `written_by`
USERS = tuple((slant, bold) for slant in (-3, 0, 3) for bold in (False, True))
GROUNDS = ("dark", "light")
N_HISTORY = 5  #: past pictures of a category that a user's history averages


@cache
def pictures() -> tuple[np.ndarray, np.ndarray]:
    """(Ink [N, 8, 8] from 0 to 1, digit [N]) of scikit-learn's digits."""
    digits = load_digits()
    return digits.images.astype(np.float32) / 16, digits.target


def written_by(ink: np.ndarray, slant: float, bold: bool) -> np.ndarray:
    """Pictures [N, 8, 8] as a user writes: the foot moved `slant` pixels left of the top, thin or bold."""
    shear = np.eye(3)
    shear[1:, 1:] = [[1, 0], [slant / (SIDE - 1), 1]]
    centre = np.array([0, (SIDE - 1) / 2, (SIDE - 1) / 2])
    found = ndimage.affine_transform(ink, shear, centre - shear @ centre, order=1)
    return np.maximum(found, ndimage.grey_dilation(found, (1, 2, 2)) * 0.9) if bold else found**2


@dataclass(frozen=True)
class OutfitBatch:
    """B outfits of four items of P pixels."""

    image: Tensor  #: [B, 4, P]
    history: Tensor  #: [B, 4, P] mean of the user's past pictures of the item's category, on dark ground
    category: Tensor  #: [B, 4]
    user: Tensor  #: [B]
    ground: Tensor  #: [B] index into `GROUNDS`
    label: Tensor  #: [B] outfit


@dataclass(frozen=True)
class Outfits(Samples):
    """N outfits, as indices into the pictures of every user."""

    pictures: Tensor  #: [users, N pictures, P]
    digit: Tensor  #: [N pictures]
    item: Tensor  #: [N, 4] pictures
    past: Tensor  #: [N, 4, N_HISTORY] pictures of the same digits
    user: Tensor  #: [N]
    ground: Tensor  #: [N]
    label: Tensor  #: [N] number of the outfit

    def select(self, index: Tensor) -> Outfits:
        """The outfits at `index` (int64 positions or a boolean mask [N])."""
        names = ("item", "past", "user", "ground", "label")
        return replace(self, **{name: getattr(self, name)[index] for name in names})

    def batch(self, index: Tensor) -> OutfitBatch:
        """The batch of the outfits at `index` [B]."""
        item, user, ground = self.item[index], self.user[index], self.ground[index]
        image = self.pictures[user[:, None], item] * (1 - 2 * ground)[:, None, None]
        history = self.pictures[user[:, None, None], self.past[index]].mean(2)
        return OutfitBatch(image, history, self.digit[item], user, ground, self.label[index])


def outfits(n: int, part: str, seed: int = 0) -> Outfits:
    """n outfits drawn at random: user, ground, four different digits, a picture and a history of each.

    The pictures are split in two halves once and for all; "train" and "test" outfits never share one.

    Raises:
        UserError: the part is neither, or n is below 1.
    """
    if part not in ("train", "test") or n < 1:
        raise UserError(f"outfits are drawn for 'train' or 'test', at least 1, not {n} for {part!r}")
    ink, digit = pictures()
    half = np.random.default_rng(0).permutation(len(digit)) % 2 == (part == "test")
    ink, digit = ink[half], digit[half]
    rng = np.random.default_rng([seed, part == "test"])
    order = np.argsort(digit, kind="stable")
    count = np.bincount(digit, minlength=N_CATEGORIES)
    first = np.cumsum(count) - count
    category = rng.random((n, N_CATEGORIES)).argsort(1)[:, :SIZE]
    # a picture of each item's digit, and as many others for its history
    place = rng.random((n, SIZE, 1 + N_HISTORY)) * count[category][..., None]
    chosen = torch.from_numpy(order[first[category][..., None] + place.astype(np.int64)])
    written = np.stack([written_by(ink, *user) for user in USERS]) * 2 - 1
    return Outfits(
        pictures=torch.from_numpy(written.astype(np.float32)).flatten(2),
        digit=torch.from_numpy(digit),
        item=chosen[..., 0],
        past=chosen[..., 1:],
        user=torch.from_numpy(rng.integers(len(USERS), size=n)),
        ground=torch.from_numpy(rng.integers(len(GROUNDS), size=n)),
        label=torch.arange(n),
    )


class Judge:
    """Three classifiers of pictures, for the digit, the user and the ground, trained on real pictures.

    Support vector machines with an RBF kernel; a picture is judged by its pixels alone.
    """

    def __init__(self, train: Outfits) -> None:
        batch = train.batch(torch.arange(len(train)))
        pixels = batch.image.flatten(0, 1).numpy()
        self.models = {
            name: SVC(C=10, gamma="scale").fit(pixels, truth.flatten().numpy())
            for name, truth in _truth(batch).items()
        }

    def right(self, image: Tensor, batch: OutfitBatch) -> dict[str, np.ndarray]:
        """Is each picture [B, 4, P] of the digit, the user, the ground of `batch`? "digit", … -> [B, 4]."""
        pixels = image.flatten(0, 1).numpy()
        truth = _truth(batch)
        return {
            name: model.predict(pixels).reshape(truth[name].shape) == truth[name].numpy()
            for name, model in self.models.items()
        }


def _truth(batch: OutfitBatch) -> dict[str, Tensor]:
    each = {"user": batch.user, "ground": batch.ground}
    return {"digit": batch.category} | {
        name: value[:, None].expand_as(batch.category) for name, value in each.items()
    }
