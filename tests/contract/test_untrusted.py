"""Nothing that comes from outside is run: no pickle, remote code or shell, no archive with its own paths."""

import ast
import re

import pytest
from syntax import keyword, names, sources

#: What runs code that it reads, or writes where an archive says.
FORBIDDEN = re.compile(
    r"""(cloud)?pickle\.(load|loads|Unpickler) | dill\..+ | marshal\.loads? | shelve\.open | joblib\.load
    | pandas\.read_pickle | yaml\.(load|load_all|full_load|full_load_all|unsafe_load|unsafe_load_all)
    | yaml\.(Unsafe|Full|)(Loader|CLoader) | eval | exec | compile | __import__ | builtins\.(eval|exec)
    | os\.(system|popen|exec\w+|spawn\w+) | subprocess\.(getoutput|getstatusoutput) | tempfile\.mktemp
    | shutil\.unpack_archive | .*(?<!\.str)\.extractall""",
    re.VERBOSE,
)

#: Why a file may use one of these names all the same.
ALLOWED = {
    ("rec_utils/training.py", "cloudpickle.loads"): "of a file in a folder that only this process may enter",
    ("rec_utils/resume.py", "pickle.Unpickler"): "the one that is restricted to harmless names",
}


def faults(source):
    """(name, what is wrong with its use) of everything that could run code from outside."""
    for name, node, call in names(source):
        if FORBIDDEN.fullmatch(name):
            yield name, f"line {node.lineno}: {name}"
        elif name == "torch.load" and keyword(call, "weights_only") is not True:
            yield name, f"line {node.lineno}: torch.load without weights_only=True"
        elif re.fullmatch(r"transformers\.Auto\w+\.from_pretrained", name) and (
            keyword(call, "trust_remote_code") is not False
        ):
            yield name, f"line {node.lineno}: {name} without trust_remote_code=False"
        elif name.endswith(".query") and call and any(isinstance(each, ast.JoinedStr) for each in call.args):
            yield name, f"line {node.lineno}: a query made of values"
        for word, bad in (("shell", False), ("allow_pickle", False), ("trust_remote_code", False)):
            if call and any(each.arg == word for each in call.keywords) and keyword(call, word) is not bad:
                yield name, f"line {node.lineno}: {word}"


def test_no_code_runs_what_it_reads():
    found = {(path, name): what for path, source in sources().items() for name, what in faults(source)}
    assert not {path: what for (path, name), what in found.items() if (path, name) not in ALLOWED}
    assert set(ALLOWED) <= set(found), "an exception that nobody needs any more"


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.loads(b'')",
        "from pickle import load as read\nread(file)",
        "import cloudpickle as c\nf = c.loads",
        "class Mine(pickle.Unpickler): pass",
        "from joblib import load\nload('x')",
        "import torch\ntorch.load('x')",
        "import torch\ntorch.load('x', weights_only=False)",
        "import torch\ntorch.load('x', weights_only=flag)",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import pandas as pd\npd.read_pickle('x')",
        "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)",
        "from yaml import unsafe_load\nunsafe_load(text)",
        "eval(text)",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "import os\nos.system('ls')",
        "import tarfile\ntarfile.open('x').extractall('y')",
        "archive.extractall()",
        "from transformers import AutoModel\nAutoModel.from_pretrained('x')",
        "from transformers import AutoModel\nAutoModel.from_pretrained('x', trust_remote_code=True)",
        "from transformers import pipeline\npipeline('x', trust_remote_code=True)",
        "table.query(f'x == {value}')",
    ],
)
def test_the_rule_bites(source):
    assert list(faults(source))


def test_the_rule_lets_the_harmless_pass():
    harmless = "import torch, numpy as np\nmodel.eval()\nnp.load('x')\ntorch.load('x', weights_only=True)\n"
    assert not list(faults(harmless + "import yaml\nyaml.safe_load(text)\ntable.query('x == 1')"))
