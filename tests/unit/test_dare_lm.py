"""The texts, their split, a training of seconds, and the hashes of the shipped models."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

from data_prep import catalog
from rec_utils.errors import UserError, run_cli
from rec_utils.knowledge import movies
from rec_utils.papers import dare_lm
from rec_utils.papers.dare_groups import by_attribute
from rec_utils.papers.dare_lm import RECIPES, Recipe, Sequences, answer_loss, load, make_tokenizer, train

TINY = Recipe(width=32, layers=1, kv_heads=1, inner=32, epochs=8, lr=1e-2, n_held_out=4)


@pytest.fixture(scope="module")
def table():
    return dare_lm.texts()


@pytest.fixture(scope="module")
def few():
    """24 short texts of two kinds, all of one pattern."""
    films = [f"Film {n} (19{n})\n" for n in range(60, 84)]
    return pd.DataFrame(
        {
            "prompt": films,
            "answer": [
                f"A quiet {('drama', 'comedy')[n % 2]} about the sea and two brothers." for n in range(60, 84)
            ],
            "part": ["old"] * 18 + ["new"] * 6,
        }
    )


@pytest.fixture(scope="module")
def trained(few):
    return train(few, 0, TINY, progress=False)


# Texts


def test_the_texts_are_those_of_the_stored_answers(table):
    items, users = (table[table["kind"] == kind].set_index("id") for kind in ("item", "user"))
    assert len(items) == len(movies.item_answers()) and len(users) == len(movies.user_answers())
    for imdb, answer in list(movies.item_answers().items())[::500]:
        assert items.loc[imdb, "prompt"] == answer.request.prompt + "\n"
        assert items.loc[imdb, "answer"] == answer.text
        assert answer.request.prompt.endswith("Genres: " + items.loc[imdb, "genres"])
    for user, answer in list(movies.user_answers().items())[::100]:
        row = users.loc[str(user)]
        assert answer.request.prompt.endswith(row["prompt"].rstrip("\n"))
        assert row["prompt"].count("; ") == 4 and row["answer"] == answer.text
        last_stars = answer.meta["history"][-1][1]
        assert row["prompt"].endswith(f" {last_stars:g}\n")


def test_half_of_each_group_is_old_and_no_text_is_in_both_parts(table):
    assert set(table["part"]) == {"old", "new"}
    for column in ("prompt", "answer"):
        parts = [set(table.loc[table["part"] == part, column]) for part in ("old", "new")]
        assert not parts[0] & parts[1]
        assert len(parts[0]) + len(parts[1]) == len(table)
    old = (table["part"] == "old").groupby(table["group"]).agg(["sum", "size"])
    assert ((2 * old["sum"] - old["size"]).abs() <= 1).all()
    items = table[table["kind"] == "item"]
    np.testing.assert_array_equal(items["group"], by_attribute(items))
    assert set(table.loc[table["kind"] == "user", "group"]) == {-1}


def test_the_split_repeats_itself_and_depends_on_the_seed(table):
    assert dare_lm.texts().equals(table)
    other = dare_lm.texts(1)
    assert other.drop(columns="part").equals(table.drop(columns="part"))
    assert 0.4 < (other["part"] == table["part"]).mean() < 0.6


def test_prompts_are_short_and_the_tokens_give_the_text_back(table):
    tokenizer = load()[1]
    tokens = tokenizer(table["prompt"].tolist())["input_ids"]
    lengths = np.array([len(row) for row in tokens])
    assert np.quantile(lengths, 0.99) < 100 and lengths.max() < 150
    assert tokenizer.batch_decode(tokens) == table["prompt"].tolist()
    # a prompt and its answer fall apart where one ends
    joined = tokenizer((table["prompt"] + table["answer"]).tolist()[:50])["input_ids"]
    assert all(whole[: len(prompt)] == prompt for whole, prompt in zip(joined, tokens, strict=False))


# Training


def test_batches_hold_every_text_once_and_mark_its_answer(few):
    tokenizer = make_tokenizer(few)
    sequences = Sequences.of(few, tokenizer)
    seen = []
    for tokens, is_answer in sequences.batches(5, np.random.default_rng(0)):
        for row, mask in zip(tokens, is_answer, strict=True):
            answer = row[mask].tolist()
            assert answer[-1] == tokenizer.eos_token_id
            start = int(mask.nonzero()[0])
            assert (row[start + len(answer) :] == tokenizer.pad_token_id).all()
            seen.append((tokenizer.decode(row[:start]), tokenizer.decode(answer[:-1])))
    assert sorted(seen) == sorted(zip(few["prompt"], few["answer"], strict=True))


def test_the_loss_is_that_of_each_text_alone(few, trained):
    """Padding and the other texts of a batch have no part in it."""
    model, tokenizer, _ = trained
    uneven = few.assign(answer=[answer[: 20 + n] for n, answer in enumerate(few["answer"])])
    tokens, is_answer = next(Sequences.of(uneven, tokenizer).batches(24, np.random.default_rng(0)))
    losses = []
    for prompt, answer in zip(uneven["prompt"], uneven["answer"], strict=True):
        before, after = (tokenizer(text)["input_ids"] for text in (prompt, answer))
        after = [*after, tokenizer.eos_token_id]
        logits = model(torch.tensor([before + after])).logits[0, len(before) - 1 : -1]
        losses.append(cross_entropy(logits, torch.tensor(after), reduction="none"))
    torch.testing.assert_close(answer_loss(model, tokens, is_answer), torch.cat(losses).mean())


def test_the_model_learns_and_writes_held_out_texts(few, trained):
    model, tokenizer, log = trained
    assert not model.training
    assert log["step"].tolist() == list(range(1, 9 * 8 + 1)) and log["epoch"].max() == 8
    assert log["held_out_loss"].notna().sum() == 8 and log["held_out_loss"].iloc[-1] < 1 < log["loss"].iloc[0]
    prompt = tokenizer(few["prompt"].iloc[-1], return_tensors="pt")
    written = model.generate(**prompt, do_sample=False, max_new_tokens=60)[0, prompt["input_ids"].shape[1] :]
    assert written[-1] == tokenizer.eos_token_id
    text = tokenizer.decode(written, skip_special_tokens=True)
    assert text.startswith("A quiet ") and text.endswith("about the sea and two brothers.")


def test_the_same_seed_gives_the_same_model(few, trained):
    torch.manual_seed(3)
    expected = torch.rand(1, generator=torch.Generator().manual_seed(3))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        again, other = (train(few, seed, replace(TINY, epochs=1), progress=False)[0] for seed in (0, 1))
        twice = train(few, 0, replace(TINY, epochs=1), progress=False)[0]
    finally:
        torch.set_num_threads(threads)
    assert torch.rand(1) == expected
    for name, weight in again.state_dict().items():
        assert torch.equal(weight, twice.state_dict()[name])
    assert not torch.equal(again.lm_head.weight, other.lm_head.weight)


def test_a_table_without_one_of_the_parts_is_refused(few):
    with pytest.raises(UserError, match="0 old texts to learn from and 6 new ones"):
        train(few[few["part"] == "new"], 0, TINY, progress=False)


# The shipped models


@pytest.fixture
def bundled(tmp_path, tmp_path_factory, monkeypatch):
    """A copy of the shipped models and of the catalog that one may alter."""
    shutil.copytree(dare_lm.BUNDLED / dare_lm.DATA_SET, tmp_path / dare_lm.DATA_SET)
    copied = shutil.copy(catalog.CATALOG, tmp_path_factory.mktemp("catalog") / "catalog.yaml")
    monkeypatch.setattr(dare_lm, "BUNDLED", tmp_path)
    monkeypatch.setattr(catalog, "CATALOG", copied)
    catalog.load.cache_clear()
    yield tmp_path
    catalog.load.cache_clear()


@pytest.mark.parametrize("name", list(RECIPES))
def test_the_shipped_models_are_those_of_the_recipes(name):
    model, _, log = load(name)
    recipe, config = RECIPES[name], model.config
    assert (config.hidden_size, config.num_hidden_layers) == (recipe.width, recipe.layers)
    assert (config.num_key_value_heads, config.intermediate_size) == (recipe.kv_heads, recipe.inner)
    assert not model.training and model.dtype == torch.float32
    assert log["epoch"].max() == recipe.epochs
    assert (
        log["held_out_loss"].dropna().iloc[-1] < log["held_out_loss"].dropna().iloc[0] < log["loss"].iloc[0]
    )
    assert sum(f.size for f in catalog.entry(dare_lm.DATA_SET).bundled) < 8_000_000


def test_both_models_read_the_same_tokens(table):
    target, assistant = load()[1], load("assistant")[1]
    assert target.get_vocab() == assistant.get_vocab()
    assert target.get_vocab() == make_tokenizer(table).get_vocab()


def test_the_shipped_target_has_the_loss_that_its_log_ends_with(table):
    model, tokenizer, log = load()
    new = table[table["part"] == "new"].sample(RECIPES["target"].n_held_out, random_state=0)
    loss = dare_lm.held_out_loss(model, Sequences.of(new, tokenizer))
    assert loss == pytest.approx(log["held_out_loss"].iloc[-1], abs=1e-3)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "log.csv"])
def test_an_altered_or_missing_file_is_named(bundled, name):
    path = bundled / dare_lm.DATA_SET / "target" / name
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} was altered.*dare_lm train"):
        load()
    path.unlink()
    with pytest.raises(UserError, match=rf"{name} is missing.*dare_lm train"):
        load()


def test_an_unknown_model_is_refused():
    with pytest.raises(UserError, match=r"model 'asistant' is not one of .* did you mean 'assistant'"):
        load("asistant")


def test_the_command_replaces_models_and_hashes(bundled, few, monkeypatch, capsys):
    before = load("assistant")[0]
    monkeypatch.setattr(dare_lm, "texts", lambda: few)
    monkeypatch.setattr(dare_lm, "RECIPES", {"target": TINY, "assistant": replace(TINY, epochs=2)})
    monkeypatch.setattr("sys.argv", ["dare_lm", "train", "--seed", "1"])
    assert run_cli(dare_lm.main) == 0
    assert "target: " in capsys.readouterr().out
    model, _, log = load("assistant")
    expected, *_ = train(few, 1, replace(TINY, epochs=2), progress=False)
    assert model.num_parameters() != before.num_parameters() and log["epoch"].max() == 2
    for name, weight in expected.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], weight, rtol=1e-2, atol=1e-3)
    catalog.check_bundled([catalog.entry(dare_lm.DATA_SET)], bundled)
    assert set(catalog.load()) >= {"ml-latest-small", "knowledge", "ml-1m"}
    assert not list(bundled.rglob(".*"))


def test_what_is_saved_comes_back_the_same(bundled, trained):
    dare_lm.save("target", *trained)
    dare_lm.rehash()
    model, tokenizer, log = load()
    for name, weight in trained[0].state_dict().items():
        assert torch.equal(model.state_dict()[name], weight)
    assert tokenizer("A film (1960)\n") == trained[1]("A film (1960)\n")
    np.testing.assert_allclose(log["loss"], trained[2]["loss"], rtol=1e-4)
