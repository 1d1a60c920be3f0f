"""One running example of each stage and each quadrant of the LLM survey, on one data set, in one table.

Lin et al., "How Can Recommender Systems Benefit from Large Language Models: A Survey", TOIS, arXiv
2306.05817, asks WHERE a language model enters the pipeline (five stages) and HOW: is it tuned, and is there a
conventional recommendation model (CRM) at inference? Every arm scores the same films of the same users, see
`survey_task`. Two kinds of language model take part: a large one whose answers are shipped, and MiniLM cut to
one block, which stands for a language model that is tuned and is thousands of times smaller.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression

from rec_utils import stats
from rec_utils.baselines import SMOOTHING
from rec_utils.crossfit import Arm, fit_arm
from rec_utils.knowledge import movies, vectors
from rec_utils.metrics import ndcg_at_k
from rec_utils.papers import clickprompt, clickprompt_text, kar
from rec_utils.papers.clickprompt_study import VARIANTS, Recipe, fit_variants
from rec_utils.papers.corella_lm import MiniLM
from rec_utils.papers.corella_samples import CUE, PromptedSamples, with_prompts
from rec_utils.papers.survey_language import Answers
from rec_utils.papers.survey_task import N_CANDIDATES, SurveyTask, load_task
from rec_utils.training import TrainConfig, fit, predict, run_jobs

BASE = "CTR model"
LARGE, SMALL, FROZEN = "large, shipped answers", "MiniLM, 1 block", "MiniLM, 6 blocks"
K = 5

BACKBONE = "DCNv2"
CTR_TRAINING = TrainConfig(lr=1e-3, lr_decay=True, batch_size=256, max_epochs=4, patience=2)
#: Experts in KAR's adaptor, of all sides together and of each side.
ADAPTOR = {"shared": 1, "dedicated": 1}
#: Liked and disliked films of a profile that the small language models read.
N_NAMED = 2
#: Samples that the tuned LM trains on, those of the LM with a CTR model, and those to choose the epoch by.
LM_ROWS, JOINT_ROWS, LM_VALID = 1500, 800, 300
#: Tokens of a field in the text of the latter.
VALUE_TOKENS = 16
LM_TRAINING = TrainConfig(lr=5e-3, lr_decay=True, batch_size=32, eval_batch_size=256, max_epochs=1)
JOINT_TRAINING = TrainConfig(lr=1e-3, lr_decay=True, batch_size=64, eval_batch_size=256, max_epochs=2)
PLM_LR = 5e-4


@dataclass(frozen=True)
class Example:
    """Where and how an arm uses a language model."""

    stage: str  #: of the survey's pipeline, or "baseline"
    tuned: bool | None  #: whether the language model is; None without one
    crm: bool  #: whether a conventional recommendation model takes part at inference
    lm: str = ""  #: which language model
    calls: float = 0.0  #: of the language model for one list of candidates, while its user waits

    @property
    def quadrant(self) -> str:
        """Q1 tuned with CRM, Q2 frozen with CRM, Q3 frozen without, Q4 tuned without; "" without an LM."""
        return (
            ""
            if self.tuned is None
            else {(1, 1): "Q1", (0, 1): "Q2", (0, 0): "Q3", (1, 0): "Q4"}[self.tuned, self.crm]
        )


EXAMPLES: Mapping[str, Example] = {
    "popularity": Example("baseline", None, False),
    "like rate": Example("baseline", None, False),
    BASE: Example("baseline", None, True),
    "LLM texts": Example("feature engineering", False, True, LARGE),
    "frozen encoder": Example("feature encoder", False, True, FROZEN),
    "zero-shot": Example("scoring or ranking", False, False, LARGE, 1),
    "tuned LM": Example("scoring or ranking", True, False, SMALL, N_CANDIDATES),
    "LM and CTR model": Example("scoring or ranking", True, True, SMALL, N_CANDIDATES),
    "before a question": Example("user interaction", False, False, LARGE, 1),
    "after a question": Example("user interaction", False, False, LARGE, 2),
    "controller": Example("pipeline controller", False, True, LARGE, 1),
}


# Baselines


def popularity(survey: SurveyTask, seed: int) -> np.ndarray:
    """Probability of a like from the number of ratings alone, by a logistic regression."""
    train = survey.masks(seed)[0]
    count = np.log1p(survey.popularity)[:, None]
    model = LogisticRegression().fit(count[survey.samples.item_row[train]], survey.samples.label[train])
    return model.predict_proba(count)[:, 1][survey.candidates]


def like_rate(survey: SurveyTask, seed: int) -> np.ndarray:
    """Share of likes among the ratings of each film by users who are not in the test; nothing is drawn."""
    rated = survey.task.ratings[~np.isin(survey.task.ratings["user_row"], survey.users)]
    liked = (rated["rating"] >= survey.task.like_from).to_numpy(np.float64)
    likes = np.bincount(rated["item_row"], liked, minlength=len(survey.popularity))
    return ((likes + SMOOTHING * liked.mean()) / (survey.popularity + SMOOTHING))[survey.candidates]


def ctr_model(survey: SurveyTask, seed: int) -> np.ndarray:
    """The base: DCN-V2 on id and first genre of the film and of those of the profile, with their stars."""
    return _fit(survey, kar.arm({}, backbone=BACKBONE), seed)


# Feature engineering and feature encoder: frozen, with a CTR model


def llm_texts(survey: SurveyTask, seed: int) -> np.ndarray:
    """KAR: what a large language model wrote about films and, from the profile, about users, as features."""
    texts = {
        "item": kar.item_vectors(survey.dataset, survey.task),
        "user": kar.user_vectors(survey.dataset, survey.task),
    }
    return _fit(survey, kar.arm(texts, backbone=BACKBONE, adaptor_settings=ADAPTOR), seed)


def frozen_encoder(survey: SurveyTask, seed: int) -> np.ndarray:
    """Vectors of title and genres by a frozen sentence encoder, and their mean over the liked films."""
    items = vectors.centred(vectors.encode(movies.title_genres(survey.films), progress=False))
    texts = {"item": items, "user": survey.task.prompt_mean(items, liked=True)}
    return _fit(survey, kar.arm(texts, backbone=BACKBONE, adaptor_settings=ADAPTOR), seed)


def _fit(survey: SurveyTask, arm: Arm, seed: int) -> np.ndarray:
    config = replace(CTR_TRAINING, seed=seed)
    return survey.in_lists(fit_arm(survey.samples, arm, survey.masks(seed), config)[0])


# Scoring by a tuned language model, alone and with a CTR model


def tuned_lm(survey: SurveyTask, seed: int) -> np.ndarray:
    """A language model with LoRA reads the last likes and dislikes and the film, and says yes or no."""
    language, task = MiniLM(layers=1), survey.texts(N_NAMED)

    def read(rows: np.ndarray) -> PromptedSamples:
        some = survey.samples.select(torch.from_numpy(np.flatnonzero(rows)))
        asked = _prompts(task.user_texts.iloc[some.user_row], task.item_texts.iloc[some.item_row])
        return with_prompts(some, language.tokens(asked))

    train, valid, test = map(read, _few(survey, LM_ROWS, seed))
    model = language.scorer(seed)
    fit(model, train, valid, replace(LM_TRAINING, seed=seed), progress=False)
    return survey.in_lists(predict(model, test, LM_TRAINING.eval_batch_size))


def trained_together(survey: SurveyTask, seed: int) -> np.ndarray:
    """ClickPrompt: the CTR model writes prompts of the language model, and both score the film."""
    plm, tokenizer = clickprompt.masked_lm(layers=1, seed=seed)
    plm, samples = clickprompt_text.compact(
        plm, clickprompt_text.text_samples(survey.texts(N_NAMED), tokenizer, VALUE_TOKENS)
    )
    once = replace(JOINT_TRAINING, max_epochs=1)
    recipe = Recipe(BACKBONE, once, JOINT_TRAINING, JOINT_TRAINING, PLM_LR)
    name = "ClickPrompt"
    variants, masks = {name: VARIANTS[name]}, _few(survey, JOINT_ROWS, seed)
    predicted, _ = fit_variants(samples, plm, masks, variants, recipe, seed, progress=False)
    return survey.in_lists(predicted[name])


def _prompts(users: pd.DataFrame, items: pd.DataFrame) -> list[str]:
    fields = zip(users["Liked"], users["Disliked"], items["Title"], items["Genres"], strict=True)
    return [
        f"A viewer liked {liked}. The viewer did not like {disliked}. Will the viewer like {title}"
        f" ({genres})? {CUE}"
        for liked, disliked, title, genres in fields
    ]


def _few(survey: SurveyTask, n_train: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masks with as many drawn samples as a language model has time for."""
    train, valid, test = survey.masks(seed)
    rng, number = np.random.default_rng(seed), np.arange(len(test))
    train, valid = (
        np.isin(number, rng.permutation(np.flatnonzero(mask))[:n])
        for mask, n in ((train, n_train), (valid, LM_VALID))
    )
    return train, valid, test


# All arms

TRAINED: Mapping[str, Callable[[SurveyTask, int], np.ndarray]] = {
    # the longest first, so that two processes end together
    "LM and CTR model": trained_together,
    "tuned LM": tuned_lm,
    "LLM texts": llm_texts,
    "frozen encoder": frozen_encoder,
    BASE: ctr_model,
    "popularity": popularity,
    "like rate": like_rate,
}


def train(
    survey: SurveyTask, seed: int, progress: bool = True
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Scores [100, 10] of every arm that is trained here, and the CPU seconds that it took."""

    def timed(name: str) -> tuple[np.ndarray, float]:
        start = time.process_time()
        return TRAINED[name](survey, seed), time.process_time() - start

    fitted = run_jobs(timed, [{"name": name} for name in TRAINED], progress=progress and "examples")
    scores = {name: scored for name, (scored, _) in zip(TRAINED, fitted, strict=True)}
    return scores, {name: seconds for name, (_, seconds) in zip(TRAINED, fitted, strict=True)}


def ask(fitted: Mapping[str, np.ndarray], answers: Answers) -> dict[str, np.ndarray]:
    """Scores [100, 10] of every arm that is a large language model, or is controlled by one.

    The controller gives each user the scores of the tool that was chosen: `fitted` has the other ones.
    """
    tools = {"model": fitted[BASE], "popularity": fitted["popularity"], "language": answers.zero_shot}
    chosen = [tools[tool][row] for row, tool in enumerate(answers.tools)]
    return {
        "zero-shot": answers.zero_shot,
        "before a question": answers.before_reply,
        "after a question": answers.after_reply,
        "controller": np.stack(chosen),
    }


@dataclass(frozen=True)
class Examples:
    """All arms on one test set."""

    survey: SurveyTask
    scores: dict[str, np.ndarray]  #: arm -> [100, 10]
    calls: dict[str, float]  #: arm -> mean calls of its language model for one list
    seconds: dict[str, float]  #: of CPU, for the arms that are trained here
    auc: stats.Draws  #: over all pairs of user and film
    ndcg: stats.Draws  #: mean NDCG@5 of the lists

    @property
    def metrics(self) -> dict[str, stats.Draws]:
        """By name."""
        return {"AUC": self.auc, f"NDCG@{K}": self.ndcg}

    def table(self) -> pd.DataFrame:
        """One row an arm: stage, quadrant, LM, its calls for a list, AUC, NDCG@5, changes, CPU seconds.

        Changes are differences to the CTR model, with the ends of their 95 % intervals over users.
        """
        rows = {}
        for name, example in EXAMPLES.items():
            row = {"stage": example.stage, "quadrant": example.quadrant, "LM": example.lm}
            row["LM calls a list"] = self.calls[name]
            for metric, drawn in self.metrics.items():
                change = difference(drawn, name, BASE)
                row |= {metric: drawn.value[name], f"{metric} change": change.value}
                row |= {f"{metric} low": change.low, f"{metric} high": change.high}
            rows[name] = row | {"CPU seconds": self.seconds.get(name, np.nan)}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("arm")

    def contrasts(self) -> pd.DataFrame:
        """Differences between arms in each metric, with their 95 % intervals over users.

        The best arm of a quadrant is chosen by the AUC of this very test, which flatters it.
        """
        pairs = [
            ("question", "after a question", "before a question"),
            ("control", "controller", "zero-shot"),
            *((quadrant, self.best(quadrant), "like rate") for quadrant in ("Q1", "Q2", "Q3", "Q4")),
        ]
        return pd.DataFrame(
            {"of": of, "label": f"{arm} - {over}", "metric": metric} | vars(difference(drawn, arm, over))
            for of, arm, over in pairs
            for metric, drawn in self.metrics.items()
        )

    def best(self, quadrant: str) -> str:
        """The arm of a quadrant with the highest AUC."""
        arms = [name for name, example in EXAMPLES.items() if example.quadrant == quadrant]
        return max(arms, key=self.auc.value.__getitem__)


def difference(drawn: stats.Draws, arm: str, over: str) -> stats.Interval:
    """Of a metric between two arms."""
    return drawn.interval(lambda metric: metric[arm] - metric[over])


def run(
    seed: int,
    n_boot: int = 1000,
    answers: Answers | None = None,
    *,
    first_users: int | None = None,
    progress: bool = True,
) -> Examples:
    """Train and ask all arms.

    Args:
        seed: of validation users, drawn samples, initial weights, shuffling and the bootstrap; the test set
            and the answers of the large language model are the same for every seed.
        n_boot: replicates of the bootstrap over users.
        answers: of a large language model; None for the shipped ones.
        first_users: see `load_task`.
        progress: show a bar.
    """
    survey = load_task(first_users)
    fitted, seconds = train(survey, seed, progress)
    return compare(survey, fitted, seconds, answers or Answers(survey), seed, n_boot)


def compare(
    survey: SurveyTask,
    fitted: Mapping[str, np.ndarray],
    seconds: dict[str, float],
    answers: Answers,
    seed: int,
    n_boot: int,
) -> Examples:
    """The arms of `train`, and those that `answers` makes, on the test set."""
    found = {**fitted, **ask(fitted, answers)}
    scores = {name: found[name] for name in EXAMPLES}
    calls = {name: example.calls for name, example in EXAMPLES.items()}
    calls["controller"] += np.mean([tool == "language" for tool in answers.tools])  # which is asked, too
    label, user = survey.label, np.repeat(survey.users, N_CANDIDATES)
    flat = {name: scored.ravel() for name, scored in scores.items()}
    lists = {name: ndcg_at_k(label, scored, K) for name, scored in scores.items()}
    return Examples(
        survey,
        scores,
        calls,
        seconds,
        stats.draw_auc(label.ravel(), flat, user, n_boot, seed),
        stats.draw_mean(lists, survey.users, n_boot, seed),
    )
