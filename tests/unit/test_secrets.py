"""Nobody's key gets into a message, a traceback, a store or a record, and no model brings code of its own."""

import json
import logging
import pickle
import traceback

import pytest
from fault_server import completion, serving

from rec_utils import records
from rec_utils.errors import UserError
from rec_utils.knowledge.encoder import Encoder
from rec_utils.knowledge.huggingface import HuggingFaceBackend
from rec_utils.knowledge.llm import generate
from rec_utils.knowledge.request import Request
from rec_utils.knowledge.server import ServerBackend
from rec_utils.knowledge.store import Store
from rec_utils.papers import clickprompt, corella_lm

KEY = "sk-verysecret-0123456789"
ECHO = json.dumps({"error": {"message": f"bad request with Authorization: Bearer {KEY}"}})


@pytest.fixture(params=["argument", "environment"])
def key(request, monkeypatch):
    """How the backend gets its key; a line break at the end is usual where it comes from a file."""
    if request.param == "environment":
        monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
        return {}
    return {"api_key": f"{KEY}\n"}


@pytest.mark.parametrize("fault", [400, 401, 404, 429, 503, "drop", "cut", ECHO, "{}", KEY, completion(None)])
def test_no_error_shows_the_key(fault, key, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    store = Store(tmp_path / "answers.jsonl")
    with serving(lambda prompt, attempt: fault) as server:
        backend = ServerBackend(server.url, KEY, attempts=1, timeout=5, **key)
        with pytest.raises(UserError) as caught:
            generate([Request("p", "s", "a")], store, backend, progress=False)
    shown = "".join(traceback.format_exception(caught.value)).replace(f"model {KEY!r}", "")
    assert KEY not in shown
    assert KEY not in repr(backend)
    assert f"Bearer {KEY}" not in caplog.text
    assert KEY not in (tmp_path / "answers.jsonl").read_text()


def test_a_server_that_repeats_the_key_gets_it_into_no_store(key, tmp_path):
    store = Store(tmp_path / "answers.jsonl")
    with serving(lambda prompt, attempt: completion(f"Your key is {KEY}.")) as server:
        backend = ServerBackend(server.url, "m", **key)
        (response,) = generate([Request("p", "s", "a")], store, backend, progress=False)
    assert response.text == "Your key is ***."
    assert KEY not in (tmp_path / "answers.jsonl").read_text()


@pytest.mark.parametrize("bad", [f"{KEY}\nX-Other: 1", f"{KEY}é", f"{KEY} "[:-1] + "\0", f"two {KEY}"])
def test_a_key_that_no_header_can_hold_is_refused_unseen(bad):
    with pytest.raises(
        UserError, match=r"parameter api_key or OPENAI_API_KEY has a space or a letter"
    ) as caught:
        ServerBackend("http://127.0.0.1:9/v1", "m", api_key=bad)
    assert "verysecret" not in str(caught.value)


def test_an_address_with_a_password_is_shown_without():
    backend = ServerBackend(f"http://me:{KEY}@127.0.0.1:9/v1?key={KEY}", "m", attempts=1)
    with pytest.raises(UserError, match=r"the server http://127\.0\.0\.1:9/v1 cannot be reached") as caught:
        generate([Request("p", "s", "a")], None, backend, progress=False)
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_a_record_holds_no_password_host_or_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("REC_OUTPUT", str(tmp_path))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("HF_TOKEN", KEY)
    parameters = {"PROFILE": "smoke", "URL": f"http://me:{KEY}@host.example:8000/v1", "LM": "/data/models/x"}
    path = records.start("a", "smoke", parameters, {"PROFILE": "laptop"}).finish()
    text = path.name + path.read_text()
    assert KEY not in text and "host.example" not in text and "/data" not in text
    assert records.read(path).parameters["URL"] == "http://host/v1"


# Models


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


LOADERS = {
    "backend": lambda name: HuggingFaceBackend(name),
    "encoder": lambda name: Encoder(name).encode(["x"], progress=False),
    "masked LM": clickprompt.masked_lm,
    "tokeniser": corella_lm.tokenizer,
}


@pytest.fixture
def asked(monkeypatch):
    """Somebody who answers yes to all questions; transformers asks whether to run a model's code."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")


@pytest.mark.parametrize("loader", LOADERS.values(), ids=LOADERS.keys())
def test_code_that_comes_with_a_model_is_never_run(loader, asked, tmp_path):
    ran = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(
        f"open({str(ran)!r}, 'w')\n"
        "from transformers import PretrainedConfig, PreTrainedModel\n"
        "class Config(PretrainedConfig):\n    model_type = 'evil'\n"
        "class Model(PreTrainedModel):\n    config_class = Config\n"
        "class Tokenizer: pass\n"
    )
    models = dict.fromkeys(("AutoModel", "AutoModelForCausalLM", "AutoModelForMaskedLM"), "evil.Model")
    config = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"} | models}
    tokenizer = {"tokenizer_class": "Tokenizer", "auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match=r"could not be loaded: The repository .* contains custom code"):
        loader(str(tmp_path))
    assert not ran.exists()


def test_pickled_weights_are_never_unpickled(tmp_path):
    import tiny_lm

    folder, ran = tiny_lm.save(tmp_path / "model"), tmp_path / "ran"
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Touch(ran)))
    with (
        pytest.warns(UserWarning, match="protocol"),
        pytest.raises(UserError, match=r"could not be loaded: "),
    ):
        HuggingFaceBackend(str(folder))
    assert not ran.exists()
