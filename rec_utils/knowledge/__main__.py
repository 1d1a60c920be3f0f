"""Encode the shipped texts again: `python -m rec_utils.knowledge`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from rec_utils import data
from rec_utils.errors import run_cli
from rec_utils.knowledge import movies, vectors
from rec_utils.knowledge.encoder import Encoder
from rec_utils.knowledge.store import Store


def shipped_texts() -> Mapping[str, tuple[Encoder, Iterable[str]]]:
    """What is prestored: file name -> (encoder, texts).

    The films of ml-latest-small that nobody wrote about have a vector of title and genres all the same: the
    groups of items are made of these.
    """
    items, users = movies.item_answers().values(), movies.user_answers().values()
    sources = [(items, movies.ITEM_TEXTS, "items", lambda _: Encoder())]
    sources += [(users, movies.USER_TEXTS, "users", movies.user_encoder)]
    stored = {
        f"{kind}_{name}.safetensors": (encoder(name), [read(answer) for answer in answers])
        for answers, texts, kind, encoder in sources
        for name, read in texts.items()
    }
    asked = set(stored["items_title_genres.safetensors"][1])
    rest = [text for text in movies.title_genres(data.load(movies.USERS_OF).items) if text not in asked]
    stored["items_title_genres_rest.safetensors"] = Encoder(), rest
    for name, path in {"groups": movies.GROUPS, "partitions": movies.PARTITIONS}.items():
        answers = Store(path, readonly=True)
        stored[f"{name}.safetensors"] = Encoder(), [answer.text for answer in answers]
    return stored


def main() -> None:
    """Write one vector file a kind of text."""
    parser = argparse.ArgumentParser(
        prog="python -m rec_utils.knowledge",
        description="Encode the shipped knowledge texts with all-MiniLM-L6-v2 and write the float16 vectors.",
        epilog="example: python -m rec_utils.knowledge --to /tmp/vectors",
    )
    parser.add_argument(
        "--to", type=Path, default=vectors.BUNDLED, metavar="DIR", help="default: the shipped folder"
    )
    folder = parser.parse_args().to
    for name, (encoder, texts) in shipped_texts().items():
        texts = list(dict.fromkeys(texts))
        keys = [vectors.text_key(text) for text in texts]
        vectors.store(folder / name, keys, encoder.encode(texts).astype(np.float16), encoder.fingerprint)


if __name__ == "__main__":
    sys.exit(run_cli(main))
