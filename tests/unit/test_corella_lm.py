"""CoReLLa's prompts word by word, and its scorers against the plain models of the transformers library."""

import numpy as np
import pytest
import tiny_lm
import torch
from tiny_ratings import dataset, random_dataset
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from rec_utils.errors import UserError
from rec_utils.field_task import field_task
from rec_utils.knowledge.encoder import minilm_folder
from rec_utils.metrics import auc
from rec_utils.papers.corella_lm import HuggingFaceLM, MiniLM, SmallLlama
from rec_utils.papers.corella_samples import draw_parts, prompts, with_prompts
from rec_utils.training import TrainConfig, fit, predict

SIZES = {"n_joint": 30, "n_alone": 20, "n_valid": 10, "n_test": 10}


@pytest.fixture(scope="module")
def task():
    return field_task(random_dataset(12, 20, 12), "CoReLLa", history_length=5)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folder of a Llama of 2 blocks with random weights and MiniLM's tokeniser."""
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    known = AutoTokenizer.from_pretrained(minilm_folder())
    config = LlamaConfig(
        vocab_size=len(known),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    known.save_pretrained(folder)
    return folder


@pytest.fixture(params=["small", "encoder", "from scratch", "by name"])
def language(request, saved):
    return {
        "small": SmallLlama(layers=2, width=64),
        "encoder": MiniLM(layers=2),
        "from scratch": MiniLM(layers=1, pretrained=False),
        "by name": HuggingFaceLM(str(saved)),
    }[request.param]


def ragged(task, language, n=8):
    """The first samples with prompts of different lengths."""
    some = task.samples.select(torch.arange(0, 12 * n, 12))
    texts = prompts(some, np.full(len(task.ratings), 3.0), task.item_texts["Title"].tolist(), 4)
    return with_prompts(some, language.tokens(texts))


# Prompts


def test_a_prompt_word_by_word():
    rows = [
        (1, 10, 4.0, 0),
        (1, 11, 1.0, 1),
        (1, 12, 3.5, 2),
        (1, 13, 5.0, 3),
        *((2, 10, 5.0, t) for t in range(4, 20)),
    ]
    titles = {10: "Heat (1995)", 11: "Cube (1997)", 12: "Antz (1998)", 13: "Casino (1995)"}
    task = field_task(dataset(rows, dict.fromkeys(titles, "Crime"), titles=titles), "CoReLLa")
    stars = task.ratings["rating"].to_numpy()  # here, time and sequence have one order
    first, *_, last = prompts(
        task.samples.select(torch.arange(4)), stars, task.item_texts["Title"].tolist(), history_length=2
    )
    assert first == (
        "A viewer has not rated any film yet.\n"
        "Judge by these ratings and by the film itself: will the viewer like Heat?\n"
        "Answer yes or no only.\nAnswer:"
    )
    assert last == (
        "A viewer rated these films, the latest last:\n1. Cube, 1 star\n2. Antz, 3.5 stars\n"
        "Judge by these ratings and by the film itself: will the viewer like Casino?\n"
        "Answer yes or no only.\nAnswer:"
    )


def test_prompts_show_the_ratings_before_the_sample_and_parts_do_not_overlap(task):
    texts = {}

    def tokens(written):
        texts.update(enumerate(written, len(texts)))
        return [[1]] * len(written)

    parts = draw_parts(task, tokens, history_length=3, seed=0, **SIZES)
    ratings = task.ratings.assign(title=task.item_texts["Title"].to_numpy()[task.ratings["item_row"]])
    ratings["line"] = [
        f"{t}, {r:g} star{'s' if r > 1 else ''}" for t, r in ratings[["title", "rating"]].to_numpy()
    ]
    by_user = dict(list(ratings.groupby("user_row")))
    where = task.samples.position.numpy()
    number = 0
    for part, mask in (("joint", 0), ("alone", 0), ("valid", 1), ("test", 2)):
        drawn = getattr(parts, part)
        assert len(drawn) == SIZES[f"n_{part}"]
        rows = np.flatnonzero(np.isin(where, drawn.ctr.position.numpy()))
        assert len(rows) == len(drawn) and task.masks[mask][rows].all()
        for row in rows:
            mine = by_user[ratings.loc[row, "user_row"]]
            shown = mine[mine["timestamp"] < ratings.loc[row, "timestamp"]]["line"].tolist()[-3:]
            lines = [f"{i}. {line}" for i, line in enumerate(shown, 1)]
            assert texts[number].split("\n")[1:-3] == lines
            assert texts[number].split("\n")[-3].endswith(f"like {ratings.loc[row, 'title']}?")
            number += 1
    assert not np.isin(parts.joint.ctr.position, parts.alone.ctr.position).any()
    assert (len(parts.train), len(parts.valid_all)) == (task.masks[0].sum(), task.masks[1].sum())


def test_another_seed_draws_other_samples(task):
    drawn = [
        draw_parts(task, lambda texts: [[1]] * len(texts), history_length=1, seed=seed, **SIZES).test
        for seed in (0, 0, 1)
    ]
    same, again, other = (part.ctr.position for part in drawn)
    assert torch.equal(same, again) and not torch.equal(same, other)


@pytest.mark.parametrize("name, number, part", [("n_alone", 100, "train"), ("n_test", 0, "test")])
def test_more_samples_than_there_are(task, name, number, part):
    with pytest.raises(UserError, match=rf"\d+ samples are asked for, but the {part} part has \d+"):
        draw_parts(task, lambda texts: [[1]] * len(texts), history_length=1, seed=0, **SIZES | {name: number})


def test_a_batch_is_as_wide_as_its_longest_prompt(task):
    samples = with_prompts(task.samples.select(torch.arange(3)), [[5, 6], [7], [8, 9, 10, 11]])
    batch = samples.batch(torch.tensor([1, 0]))
    assert batch.tokens.tolist() == [[0, 7], [5, 6]] and batch.tokens.dtype == torch.int64
    assert batch.mask.tolist() == [[False, True], [True, True]]
    assert torch.equal(batch.label, task.samples.label[[1, 0]])
    chosen = samples.select(torch.tensor([2]))
    assert chosen.batch(torch.tensor([0])).tokens.tolist() == [[8, 9, 10, 11]]


# Scorers


def test_padding_and_neighbours_do_not_matter(task, language):
    samples, scorer = ragged(task, language), language.scorer(0).eval()
    assert len(samples.length.unique()) > 2
    blocks = range(1, scorer.n_blocks + 1)
    with torch.no_grad():
        logit, states = scorer.score(samples.batch(torch.arange(len(samples))), blocks)
        for row in range(len(samples)):
            alone, its_states = scorer.score(samples.batch(torch.tensor([row])), blocks)
            torch.testing.assert_close(alone[0], logit[row], rtol=1e-4, atol=1e-5)
            for state, its_state in zip(states, its_states, strict=True):
                assert state.shape == (len(samples), scorer.width)
                torch.testing.assert_close(its_state[0], state[row], rtol=1e-4, atol=1e-5)
    assert logit.std() > 1e-4


def test_a_causal_model_is_asked_for_its_next_token(task, saved):
    language = HuggingFaceLM(str(saved))
    known, plain = AutoTokenizer.from_pretrained(saved), AutoModelForCausalLM.from_pretrained(saved).eval()
    yes, no = language.answers()
    assert known.convert_ids_to_tokens([yes, no]) == ["yes", "no"]
    text = "Will the viewer like Heat?\nAnswer:"
    ids = language.tokens([text])[0]
    assert known.convert_ids_to_tokens(ids)[-2:] == ["answer", ":"]  # no [SEP] before the answer
    samples = with_prompts(task.samples.select(torch.arange(1)), [ids])
    with torch.no_grad():
        logit, states = language.scorer(0).eval().score(samples.batch(torch.tensor([0])), (1, 2))
        out = plain(torch.tensor([ids]), output_hidden_states=True)
    a, b = out.logits[0, -1, [yes, no]].exp()
    torch.testing.assert_close(logit.sigmoid()[0], a / (a + b))
    for block, state in zip((1, 2), states, strict=True):
        torch.testing.assert_close(state[0], out.hidden_states[block][0, -1])


def test_the_encoder_is_the_pretrained_one(task):
    """With all blocks, its last state is what the sentence vectors are made of."""
    from rec_utils.knowledge.encoder import Encoder

    language = MiniLM()
    texts = ["a quiet drama", "answer yes or no only. Answer:"]
    samples = with_prompts(task.samples.select(torch.arange(2)), language.tokens(texts))
    with torch.no_grad():
        _, (state,) = language.scorer(0).eval().score(samples.batch(torch.arange(2)), [6])
    unit = state / state.norm(dim=1, keepdim=True)
    np.testing.assert_allclose(unit, Encoder().encode(texts, progress=False), atol=1e-5)


def test_a_pretrained_model_learns_by_lora_alone(task, language):
    samples, scorer = ragged(task, language), language.scorer(0).train()
    trained = {name for name, weight in scorer.named_parameters() if weight.requires_grad}
    batch = samples.batch(torch.arange(len(samples)))
    for _ in range(2):  # the second factor of LoRA is 0 at first, and so is the gradient of the other
        loss = binary_cross_entropy_with_logits(scorer(batch), batch.label)
        loss.backward()
        with torch.no_grad():
            for weight in scorer.parameters():
                if weight.grad is not None:
                    weight -= 0.1 * weight.grad
    moved = {
        name for name, weight in scorer.named_parameters() if weight.grad is not None and weight.grad.any()
    }
    if isinstance(language, HuggingFaceLM) or language == MiniLM(layers=2):
        assert all("lora" in name or name.startswith("head") for name in trained)
        assert sum("lora" in name for name in trained) == 2 * 2 * 2  # blocks, query and value, A and B
        assert moved == trained
    else:
        assert len(trained) == len(list(scorer.parameters()))


def test_the_seed_draws_what_is_not_pretrained(language):
    torch.manual_seed(3)
    expected = torch.rand(1, generator=torch.Generator().manual_seed(3))
    one, again, other = (dict(language.scorer(seed).named_parameters()) for seed in (0, 0, 1))
    assert torch.rand(1) == expected
    assert all(torch.equal(one[name], again[name]) for name in one)
    drawn = [name for name in one if one[name].requires_grad and one[name].ndim > 1 and one[name].any()]
    assert drawn and not any(torch.equal(one[name], other[name]) for name in drawn)


def test_a_named_model_computes_its_blocks_again_in_the_backward_pass(task, saved):
    language, calls = HuggingFaceLM(str(saved)), []
    scorer = language.scorer(0).train()
    scorer.lm.get_base_model().model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    samples = ragged(task, language)
    loss = scorer(samples.batch(torch.arange(4))).sum()
    assert len(calls) == 1
    loss.backward()
    assert len(calls) == 2


def test_what_cannot_be_read_is_refused(saved, tmp_path):
    with pytest.raises(UserError, match="has 602 tokens, and the model reads 512"):
        MiniLM().tokens(["film " * 600])
    with pytest.raises(UserError, match="tokeniser 'no/such/model' could not be loaded"):
        HuggingFaceLM("no/such/model").tokens(["x"])
    # its words begin with a token for the space, so yes and no would begin alike
    with pytest.raises(UserError, match="no tokens of their own for yes and no"):
        HuggingFaceLM(str(tiny_lm.save(tmp_path))).answers()


def test_the_small_model_learns_to_read_the_title():
    """Everyone likes the films called Joy and nobody the others."""
    titles = {item: ("Joy" if item % 2 else "Gloom") for item in range(30)}
    rng = np.random.default_rng(0)
    rows = [
        (user, item, 5.0 if item % 2 else 1.0, 30 * user + day)
        for user in range(20)
        for day, item in enumerate(rng.permutation(30))
    ]
    task = field_task(dataset(rows, dict.fromkeys(titles, "Drama"), (1.0, 5.0), titles), "CoReLLa")
    language = SmallLlama(layers=1, width=64)
    sizes = {"n_joint": 400, "n_alone": 1, "n_valid": 50, "n_test": 60}
    parts = draw_parts(task, language.tokens, history_length=2, seed=0, **sizes)
    scorer = language.scorer(0)
    fit(scorer, parts.joint, parts.valid, TrainConfig(lr=3e-3, batch_size=32, max_epochs=4), progress=False)
    assert auc(parts.test.label.numpy(), predict(scorer, parts.test, 64)) > 0.95
