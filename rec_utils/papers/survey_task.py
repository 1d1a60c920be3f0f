"""The small data set on which every stage and quadrant of the LLM survey has its example.

A viewer is known by a *profile*, the first 30 ratings, and nothing later: each sample is a profile and one of
the viewer's later films. The test set is the same whatever the seed of a training, since stored answers of a
language model belong to it: 100 viewers with the ten films that they rated next.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
import torch

from rec_utils.batches import CTRSamples
from rec_utils.data import Dataset, load
from rec_utils.errors import UserError
from rec_utils.field_task import FieldTask
from rec_utils.samples import CTRTask, check_leaks, ctr_task
from rec_utils.splits import Masks

DATASET = "ml-latest-small"
#: Ratings of a profile: as many as the shipped text about a user was written from.
PROFILE = 30
N_USERS, N_CANDIDATES = 100, 10
#: Likes, and others, that the candidates of a test user hold at least.
MIN_OF_CLASS = 3
#: Samples of a training user at most, the earliest.
MAX_SAMPLES = 200
#: Of the draw of test users and of the order of their candidates.
TEST_SEED = 0
VALID_SHARE = 0.15


@dataclass(frozen=True)
class SurveyTask:
    """Samples with the lists to be ranked; U users, I items, N samples."""

    dataset: Dataset
    task: CTRTask  #: ratings, users, items; its samples have histories up to the sample, unlike ours
    samples: CTRSamples  #: [N] the history of a sample is its user's profile, and nothing after it
    users: np.ndarray  #: [100] rows of the test users
    lists: np.ndarray  #: [100, 10] samples of the candidates of each test user, in random order

    @property
    def label(self) -> np.ndarray:
        """[100, 10] 1 where the candidate was liked, else 0."""
        return self.samples.label.numpy()[self.lists]

    @cached_property
    def candidates(self) -> np.ndarray:
        """[100, 10] item rows."""
        return self.samples.item_row.numpy()[self.lists]

    @cached_property
    def films(self) -> pd.DataFrame:
        """[I] title, genres ("A|B") and year of each item row."""
        return self.dataset.items.set_index("item_id").loc[self.task.item_ids].reset_index()

    @cached_property
    def popularity(self) -> np.ndarray:
        """[I] number of ratings by all users who are not in the test."""
        others = ~np.isin(self.task.ratings["user_row"], self.users)
        rows = self.task.ratings["item_row"].to_numpy()[others]
        return np.bincount(rows, minlength=len(self.task.item_ids))

    @cached_property
    def profiles(self) -> list[pd.DataFrame]:
        """The first ratings of each test user, in order: title, genres, year and rating by item row."""
        rated = self.task.prompts[self.task.prompts["user_row"].isin(self.users)]
        films = self.films.iloc[rated["item_row"]].assign(rating=rated["rating"].to_numpy(np.float64))
        return [films[begin : begin + PROFILE] for begin in range(0, len(films), PROFILE)]

    def in_lists(self, predicted: np.ndarray) -> np.ndarray:
        """[100, 10] of what is predicted for the samples of the test, [1000] in their order."""
        return predicted[np.searchsorted(np.sort(self.lists, axis=None), self.lists)]

    def texts(self, n_named: int) -> FieldTask:
        """The samples with fields that a small language model can read, on the split by users of seed 0.

        Of a user these are the titles of the last `n_named` films of the profile that were liked, and of the
        last ones that were not; of an item title and genres.
        """
        titles = self.films["title"].str.replace(r"\s*\(\d{4}\)\s*$", "", regex=True)
        rated = self.task.prompts
        liked = rated["rating"] >= self.task.like_from

        def named(some: pd.DataFrame) -> np.ndarray:
            last = some.groupby("user_row").tail(n_named)
            joined = titles.iloc[last["item_row"]].groupby(last["user_row"].to_numpy()).agg("; ".join)
            return joined.reindex(range(len(self.task.user_ids)), fill_value="nothing").to_numpy()

        return FieldTask(
            samples=self.samples,
            ratings=self.task.ratings.iloc[self.task.samples.position],
            user_ids=self.task.user_ids,
            item_ids=self.task.item_ids,
            user_texts=pd.DataFrame({"Liked": named(rated[liked]), "Disliked": named(rated[~liked])}),
            item_texts=pd.DataFrame({"Title": titles, "Genres": genres_text(self.films["genres"])}),
            masks=self.masks(0),
        )

    def masks(self, seed: int) -> Masks:
        """Samples [N] to train on, to stop early by (drawn users), and of the test.

        Test users have no other samples than their candidates, so that no model learns from their labels.
        """
        user = self.samples.user_row.numpy()
        test = np.isin(user, self.users)
        others = np.random.default_rng(seed).permutation(np.unique(user[~test]))
        valid = np.isin(user, others[: round(VALID_SHARE * len(others))])
        masks = ~(test | valid), valid, test
        check_leaks(self.task, self.task.samples, [masks])
        return masks


def genres_text(genres: pd.Series) -> pd.Series:
    """Genres "A|B" as words: "A, B"."""
    return genres.str.replace("|", ", ").replace("", "(no genres listed)")


def load_task(first_users: int | None = None) -> SurveyTask:
    """The one data set of the examples.

    Test users are drawn from those with a full profile whose next ten ratings hold at least three likes and
    three others, since a list of one kind cannot be ranked well or badly.

    Args:
        first_users: keep the samples of only this many of the others, for smoke runs.
    """
    dataset = load(DATASET)
    task = ctr_task(dataset, history_length=PROFILE, prompt_cap=PROFILE, max_samples_per_user=MAX_SAMPLES)
    user, label = task.samples.user_row.numpy(), task.samples.label.numpy()
    n_before = np.bincount(task.prompts["user_row"], minlength=len(task.user_ids))
    place = _place(user)
    first = place < N_CANDIDATES
    n_first, likes = np.bincount(user[first]), np.bincount(user[first], label[first])
    eligible = (n_before == PROFILE) & (n_first == N_CANDIDATES)
    eligible &= (likes >= MIN_OF_CLASS) & (likes <= N_CANDIDATES - MIN_OF_CLASS)
    rng = np.random.default_rng(TEST_SEED)
    if eligible.sum() < N_USERS:
        raise UserError(f"{DATASET}: {eligible.sum()} users can be tested on, not {N_USERS}")
    users = np.sort(rng.permutation(np.flatnonzero(eligible))[:N_USERS])
    others = np.setdiff1d(user, users)[:first_users]
    kept = np.isin(user, others) | (first & np.isin(user, users))
    task = replace(task, samples=task.samples.select(torch.from_numpy(np.flatnonzero(kept))))
    user = user[kept]
    lists = np.flatnonzero(np.isin(user, users)).reshape(N_USERS, N_CANDIDATES)
    return SurveyTask(dataset, task, _with_profiles(task), users, rng.permuted(lists, axis=1))


def _with_profiles(task: CTRTask) -> CTRSamples:
    """The samples of a task on a sequence of their own: for each one its user's profile, then its film.

    So all that reads "the ratings before the sample" reads the profile.
    """
    samples = task.samples
    length = np.bincount(task.prompts["user_row"], minlength=len(task.user_ids))[samples.user_row]
    end = np.cumsum(length + 1) - 1  # of each sample's part of the sequence: where its film stands
    begin = end - length
    sample = np.repeat(np.arange(len(samples)), length + 1)
    rows = samples.first.numpy()[sample] + np.arange(len(sample)) - begin[sample]
    rows[end] = samples.position.numpy()
    rows = torch.from_numpy(rows)
    return replace(
        samples,
        sequence=samples.sequence[rows],
        rating_ids=samples.rating_ids[rows],
        first=torch.from_numpy(begin),
        position=torch.from_numpy(end),
    )


def _place(user: np.ndarray) -> np.ndarray:
    """[N] number of earlier samples of the same user; samples are user by user."""
    begins = np.flatnonzero(np.diff(user, prepend=-1))
    return np.arange(len(user)) - np.repeat(begins, np.diff(begins, append=len(user)))
