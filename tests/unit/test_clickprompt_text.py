"""ClickPrompt's text view against texts written and tokenised whole."""

import pytest
import torch
from tiny_plm import tokenizer, whole
from tiny_ratings import dataset, random_dataset

from rec_utils.errors import UserError
from rec_utils.field_task import field_task
from rec_utils.papers.clickprompt_text import SPECIAL, TEMPLATE, compact, text_samples

TITLES = {3: "Heat (1995)", 5: "Mr. & Mrs. Smith (2005)", 8: "Se7en: Director's Cut (1995)"}
KINDS = ["bert", "roberta"]


@pytest.fixture(scope="module")
def task():
    genres = {3: "Action|Crime", 5: "Comedy", 8: ""}
    rows = [(user, item, 5.0 - 4 * (user > 40), 7 * user + item) for user in (3, 41, 612) for item in TITLES]
    return field_task(dataset(rows * 4, genres, titles=TITLES), "CoReLLa")


def written(task, n):
    row = task.ratings.iloc[n]
    texts = {**task.user_texts.iloc[int(row["user_row"])], **task.item_texts.iloc[int(row["item_row"])]}
    return " ".join(f"{name} is {value}." for name, value in texts.items())


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_holds_the_tokens_of_the_whole_text_and_the_field_of_each_value(kind, task, tmp_path):
    words = tokenizer(kind, tmp_path)
    samples = text_samples(task, words)
    assert samples.field_names == ("User ID", "Movie ID", "Title", "Film genre")
    index = torch.tensor([5, 0, 11])
    batch = samples.batch(index)
    texts = [written(task, n) for n in index.tolist()]
    expected = words(texts, padding=True, return_tensors="pt")
    assert torch.equal(batch.tokens, expected["input_ids"])
    assert torch.equal(batch.mask, expected["attention_mask"].bool())
    assert torch.equal(batch.label, samples.label[index])
    assert torch.equal(batch.ctr.item, samples.ctr.batch(index).item)
    special = torch.tensor(words.all_special_ids)
    assert torch.equal(batch.field == SPECIAL, torch.isin(batch.tokens, special))
    for n, tokens, field in zip(index.tolist(), batch.tokens, batch.field, strict=True):
        row = task.ratings.iloc[n]
        user, item = int(row["user_row"]), int(row["item_row"])
        values = [*task.user_texts.iloc[user], *task.item_texts.iloc[item]]
        shown = [words.decode(tokens[field == number]).strip() for number in range(4)]
        plain = [words.decode(words(f" {value}", add_special_tokens=False)["input_ids"]) for value in values]
        assert shown == [text.strip() for text in plain]
        rest = words.decode(tokens[field == TEMPLATE]).replace(" ", "").lower()
        assert rest == "useridis.movieidis.titleis.filmgenreis."


def test_a_batch_is_as_long_as_its_longest_text(task, tmp_path):
    samples = text_samples(task, tokenizer("bert", tmp_path))
    lengths = [len(samples.batch(torch.tensor([n])).tokens[0]) for n in range(len(samples))]
    assert len(set(lengths)) > 1
    for size in (2, 5):
        for n in range(len(samples) - size):
            batch = samples.batch(torch.arange(n, n + size))
            assert batch.tokens.shape[1] == max(lengths[n : n + size])
            assert batch.mask.sum(1).tolist() == lengths[n : n + size]


def test_long_values_are_cut_and_the_template_is_kept(task, tmp_path):
    words = tokenizer("bert", tmp_path)
    samples = text_samples(task, words, max_value_tokens=2)
    item = [text.endswith("Cut") for text in task.item_texts["Title"]].index(True)
    n = task.ratings["item_row"].tolist().index(item)
    tokens = samples.batch(torch.tensor([n])).tokens[0]
    assert words.decode(tokens).endswith("title is se7. film genre is unknown. [SEP]")


def test_a_tokenizer_without_a_mask_is_refused(task, tmp_path):
    words = tokenizer("bert", tmp_path)
    words.mask_token = None
    with pytest.raises(UserError, match="the tokenizer has no mask token"):
        text_samples(task, words)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_compact_model_says_the_same_of_the_tokens_that_it_keeps(kind, tmp_path):
    plm, samples = whole(kind, field_task(random_dataset(), "CoReLLa"), tmp_path)
    torch.nn.init.normal_(plm.get_output_embeddings().bias)
    small, fewer = compact(plm, samples)
    small.eval()
    index = torch.arange(20)
    batch, other = samples.batch(index), fewer.batch(index)
    occurring = torch.cat([samples.user_tokens.unique(), samples.item_tokens.unique()])
    ids = torch.cat([occurring, torch.tensor([samples.mask_id, samples.pad_id])]).unique()
    assert fewer.n_tokens == len(ids) < samples.n_tokens
    assert torch.equal(ids[other.tokens], batch.tokens)
    assert (ids[fewer.mask_id], ids[fewer.pad_id]) == (samples.mask_id, samples.pad_id)
    logits = plm(input_ids=batch.tokens, attention_mask=batch.mask.long()).logits
    fewer_logits = small(input_ids=other.tokens, attention_mask=other.mask.long()).logits
    torch.testing.assert_close(fewer_logits[other.mask], logits[..., ids][batch.mask])
    assert small.get_output_embeddings().weight is small.get_input_embeddings().weight
