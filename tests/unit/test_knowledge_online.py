"""The language model called online writes as many tokens as asked, for every prompt."""

import torch

from rec_utils.knowledge.online import small_model_call


def test_every_prompt_gets_all_its_tokens_and_the_global_generator_stays():
    before = torch.random.get_rng_state()
    call, n_parameters = small_model_call(["A film.", "A much longer request."], 5, layers=1, width=64)
    short = call()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert n_parameters > 64 * 30_000
    more, _ = small_model_call(["A film.", "A much longer request."], 9, layers=1, width=64)
    assert more().shape == (2, short.shape[1] + 4)
    assert torch.equal(more()[:, : short.shape[1]], short)
