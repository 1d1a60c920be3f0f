"""Every random number comes from a seed, and no order from a set."""

import ast
import re

import pytest
from syntax import names, sources

#: Of torch, what draws from its global generator unless it is given one.
DRAWS = re.compile(r"torch\.(rand|randn|randint|randperm|bernoulli|multinomial|normal|poisson)(_like)?")
IN_PLACE = re.compile(r".+\.(random|bernoulli|exponential|uniform|normal|cauchy|geometric|log_normal)_")
FROM_SEED = re.compile(
    r"numpy\.random\.(default_rng|SeedSequence|Generator)(\(.+\)\..+)?|random\.Random(\(.+\)\..+)?"
)

#: Files that draw from torch's global generator, which somebody has seeded.
TRAINING = "in training, for which `training.fit` seeds it, or for initial weights, built under a seed"
GLOBAL = dict.fromkeys(
    (
        "rec_utils/layers.py",
        "rec_utils/sequential.py",
        "rec_utils/collaborative.py",
        "rec_utils/papers/clickprompt.py",
        *(
            f"rec_utils/papers/diffusion/{name}.py"
            for name in ("difashion", "diffrec", "diffuasr", "diffurec", "dreamrec", "ldiffrec", "process")
        ),
    ),
    TRAINING,
) | {"notebooks/src/tutorials/T3_speculative_decoding.py": "it measures the time of a product of any numbers"}

#: What makes an order out of what it is given.
ORDERED = (
    "list",
    "tuple",
    "enumerate",
    "numpy.array",
    "numpy.fromiter",
    "torch.tensor",
    "pandas.Series",
    "zip",
)


def faults(source, may_draw=False):
    """What is wrong with each draw without a seed."""
    for name, node, call in names(source):
        where = f"line {node.lineno}: {name}"
        if re.match(r"(numpy\.random|random)\.", name):
            if not FROM_SEED.fullmatch(name):
                yield where
            elif call and re.fullmatch(r".*(default_rng|Random)", name) and not (call.args or call.keywords):
                yield f"{where} without a seed"
        elif DRAWS.fullmatch(name) or (IN_PLACE.fullmatch(name) and not name.startswith("torch.nn.init.")):
            given = call and any(each.arg == "generator" for each in call.keywords)
            if call and not given and not may_draw:
                yield f"{where} without a generator"
        elif name in ORDERED and call and any(map(is_set, call.args)):
            yield f"line {node.lineno}: {ast.unparse(call)[:60]}"
    for node in ast.walk(ast.parse(source)):
        loops = [node] if isinstance(node, ast.For) else getattr(node, "generators", [])
        if not isinstance(node, ast.SetComp) and any(is_set(loop.iter) for loop in loops):
            yield f"line {node.lineno}: the order of a set"


def is_set(node):
    match node:
        case ast.Set() | ast.SetComp():
            return True
        case ast.Call(func=ast.Name(id="set" | "frozenset")):
            return True
        case ast.BinOp(left=left, op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor(), right=right):
            return is_set(left) or is_set(right)
    return False


def may_draw(path, source):
    """A notebook may draw from the generator that it seeds."""
    return path in GLOBAL or (path.startswith("notebooks/") and "torch.manual_seed(" in source)


def test_every_random_number_comes_from_a_seed():
    found = {path: list(faults(source, may_draw(path, source))) for path, source in sources().items()}
    assert not {path: what for path, what in found.items() if what}
    idle = [path for path in GLOBAL if not list(faults(sources()[path]))]
    assert not idle, "an exception that nobody needs any more"


def test_the_package_seeds_only_what_it_forked():
    """Torch's global generator is the reader's: what seeds it gives it back."""
    seeds = re.compile(r"torch\.(manual_seed|default_generator\.manual_seed)\(")
    wrong = [
        path
        for path, source in sources().items()
        if path.startswith("rec_utils/") and seeds.search(source) and "torch.random.fork_rng(" not in source
    ]
    assert wrong == ["rec_utils/knowledge/huggingface.py"], (
        "there a sampled answer is asked for with its seed"
    )


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np\nnp.random.rand(3)",
        "import numpy as np\nnp.random.seed(0)",
        "import numpy as np\nnp.random.default_rng()",
        "from numpy.random import shuffle\nshuffle(x)",
        "import random\nrandom.shuffle(x)",
        "from random import choice\nchoice(x)",
        "import random\nrandom.Random()",
        "import torch\ntorch.randperm(3)",
        "from torch import randn\nrandn(3)",
        "import torch\ntorch.empty(3).random_()",
        "list({1, 2})",
        "import numpy as np\nnp.array(set(x) - {1})",
        "for x in set(y): pass",
        "[x for x in {*y}]",
    ],
)
def test_the_rule_bites(source):
    assert list(faults(source))


def test_the_rule_lets_seeds_pass():
    assert not list(
        faults(
            "import numpy as np, torch, random\nnp.random.default_rng(SEED).permutation(3)\n"
            "torch.randperm(3, generator=g)\nrandom.Random(1234)\nsorted(set(x))\n{y for y in set(x)}"
        )
    )
