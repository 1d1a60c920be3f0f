"""Text vectors that are computed once: content-addressed, in safetensors files.

A vector is found by SHA-256(text) and the encoder's fingerprint, so a changed text or another encoder
can never receive an old vector. Vectors come from the files shipped with the project, then from the
cache in the data folder; what is in neither is encoded and cached. All are stored as float16 (relative
error at most 2^-11) and returned as float32, whether freshly encoded or not, so that the first run and
the next see the same numbers.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from rec_utils import settings
from rec_utils.errors import UserError
from rec_utils.files import write_atomic, writing
from rec_utils.knowledge.encoder import Encoder

BUNDLED = settings.BUNDLED / "knowledge"


def encode(texts: Sequence[str], encoder: Encoder | None = None, progress: bool = True) -> np.ndarray:
    """Vectors [n, dim] float32 of `texts` by `encoder` (all-MiniLM-L6-v2 when None).

    The encoder's model is loaded only if a text has no stored vector.
    """
    encoder = encoder or Encoder()
    keys = [text_key(text) for text in texts]
    known = _bundled(encoder.fingerprint)
    cached = settings.data_dir() / "vectors" / encoder.fingerprint[:16]
    if not known.keys() >= set(keys):
        known = dict(known)
        for path in sorted(cached.glob("[!.]*.safetensors")):  # with a dot begins what is being written
            known |= _load_or_remove(path, encoder.fingerprint)
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    if missing:
        fresh = encoder.encode(list(missing.values()), progress=progress).astype(np.float16)
        # named after its content: processes that encode the same texts write the same file
        name = hashlib.sha256(b"".join(sorted(missing))).hexdigest()[:16]
        store(cached / f"{name}.safetensors", list(missing), fresh, encoder.fingerprint)
        known |= zip(missing, fresh, strict=True)
    vectors = np.empty((len(keys), encoder.dim), np.float32)
    for row, key in enumerate(keys):
        vectors[row] = known[key]
    return vectors


def text_key(text: str) -> bytes:
    """SHA-256 of the text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).digest()


def store(path: Path, keys: Sequence[bytes], vectors: np.ndarray, fingerprint: str) -> None:
    """Write keys (n x 32 bytes) and float16 vectors [n, dim] with the encoder's fingerprint, atomically."""
    table = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32)
    write_atomic(path, save({"keys": table, "vectors": vectors}, metadata={"fingerprint": fingerprint}))


def load(path: Path, fingerprint: str) -> dict[bytes, np.ndarray]:
    """Vectors in a file by text key; none if another encoder made them, `UserError` if it is damaged."""
    try:
        with safe_open(path, "np") as file:
            if (file.metadata() or {}).get("fingerprint") != fingerprint:
                return {}
            keys, vectors = file.get_tensor("keys"), file.get_tensor("vectors")
    except SafetensorError as error:
        raise UserError(f"vector file {path} is damaged ({error}); delete it or fetch it again") from error
    return dict(zip(map(bytes, keys), vectors, strict=True))


def _load_or_remove(path: Path, fingerprint: str) -> dict[bytes, np.ndarray]:
    """`load` for a file of the cache, which goes if it is damaged: its texts are encoded again."""
    try:
        return load(path, fingerprint)
    except FileNotFoundError:  # another process has just removed it
        return {}
    except UserError:
        warnings.warn(f"vector file {path} is damaged: removed, its texts are encoded again", stacklevel=3)
        with writing(path):
            path.unlink(missing_ok=True)
        return {}


@cache
def _bundled(fingerprint: str) -> dict[bytes, np.ndarray]:
    known: dict[bytes, np.ndarray] = {}
    for path in sorted(BUNDLED.glob("*.safetensors")):
        known |= load(path, fingerprint)
    return known


def tfidf(texts: Sequence[str | None], dim: int = 384, seed: int = 0) -> np.ndarray:
    """Vectors [n, dim] float32 of words: TF-IDF and a truncated SVD, fitted on these texts; zeros for None.

    A stand-in for a neural encoder: it knows which words a text shares with others, not what they mean. Fewer
    texts or words than `dim` span fewer directions; the other columns are then zero.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    has_text = np.array([text is not None for text in texts])
    words = TfidfVectorizer(sublinear_tf=True, min_df=2, stop_words="english").fit_transform(
        [text for text in texts if text is not None]
    )
    rank = min(dim, min(words.shape) - 1)
    table = np.zeros((len(texts), dim), np.float32)
    table[has_text, :rank] = TruncatedSVD(rank, random_state=seed).fit_transform(words)
    return table


def permuted(vectors: np.ndarray, seed: int) -> np.ndarray:
    """Vectors [n, m] dealt out at random among the rows that have one: the right texts at the wrong rows."""
    rows = np.flatnonzero(vectors.any(axis=1))
    dealt = vectors.copy()
    dealt[rows] = vectors[np.random.default_rng(seed).permutation(rows)]
    return dealt


def centred(vectors: np.ndarray) -> np.ndarray:
    """Vectors [n, m] minus their mean, scaled to length 1; rows of zeros (no text) stay out and stay zero.

    Texts about one domain share most of their direction; what tells them apart is the rest.
    """
    has_text = vectors.any(axis=1)
    result = np.zeros_like(vectors)
    if has_text.any():
        rest = vectors[has_text] - vectors[has_text].mean(axis=0)
        result[has_text] = rest / np.maximum(np.linalg.norm(rest, axis=1, keepdims=True), 1e-12)
    return result
