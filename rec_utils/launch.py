"""Train ClickPrompt or CoReLLa, or have a model write knowledge, on several GPUs or hosts.

    accelerate launch --multi_gpu --num_processes 4 -m rec_utils.launch corella --folder runs/corella

Settings and sizes are those of the paper's notebook and card, the study is the one that the notebook runs,
and the metrics are those of a single process. A run that was stopped, also by the death of one of its
processes, goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rec_utils.cards import load_card
from rec_utils.errors import UserError, run_cli
from rec_utils.files import write_atomic
from rec_utils.parameters import parse_values, read_parameters
from rec_utils.settings import NOTEBOOKS, PROFILES

EPILOG = """\
examples:
  python -m rec_utils.launch clickprompt --profile smoke --folder runs/try
  accelerate launch --multi_gpu --num_processes 4 -m rec_utils.launch clickprompt --profile paper \\
      --folder runs/clickprompt
  accelerate launch --multi_gpu --num_processes 4 -m rec_utils.launch corella --profile paper \\
      -p LM=meta-llama/Llama-2-7b-chat-hf -p SEED=1 --folder runs/corella-1
  accelerate launch --multi_gpu --num_processes 4 -m rec_utils.launch knowledge \\
      --requests requests.jsonl --model Qwen/Qwen2.5-7B-Instruct --folder runs/texts

--multi_gpu starts several processes on CPUs, too. Several hosts: see `accelerate config`; data and folder
must be on a file system that all of them see. The folder gets metrics.json, and checkpoints or answers.jsonl;
after a stop the same command goes on from there, also on another number of processes.
"""

#: Seconds that other processes leave to the first one, which tells what is wrong and so ends them all.
GRACE = 10.0


def main(arguments: list[str] | None = None) -> None:
    """Run one study as one of the processes of a launch, or alone."""
    options = _parser().parse_args(arguments)
    if options.folder.exists() and not options.folder.is_dir():
        raise UserError(f"--folder {options.folder} is a file")
    with _only_launch(options.folder), _lost_process_told(options.folder):
        found = options.run(options)
        if _rank() == 0:
            content = json.dumps(_plain(found), indent=1, allow_nan=False)
            write_atomic(options.folder / "metrics.json", f"{content}\n")
            print(json.dumps(_plain(found["metrics"]), indent=1))


def clickprompt(options: argparse.Namespace) -> dict[str, Any]:
    """Variants of ClickPrompt on the rows that a language model has time for: AUC and LogLoss on the test."""
    from rec_utils.papers import clickprompt_study
    from rec_utils.papers.routing import scores

    given = _settings("04_clickprompt", options.parameters, not_here=("SWEEP", "BATCH_SIZE"))
    size = _sizes("clickprompt", options)
    names = options.variants or ["CTR model", "language model", "ClickPrompt", "ClickPrompt without LM"]
    label, probability, fits = clickprompt_study.from_settings(given, size, names, options.folder)
    metrics = {name: scores(label, p) for name, p in probability.items()}
    return _report(options, given, size) | {"metrics": metrics, "fits": fits.to_dict("records")}


def corella(options: argparse.Namespace) -> dict[str, Any]:
    """CoReLLa and its ablations: AUC, LogLoss and more on the test, and the share that goes to the LM."""
    from rec_utils.papers import corella_study
    from rec_utils.papers.routing import scores

    given = _settings("05_corella", options.parameters, not_here=("SWEEP",))
    size = _sizes("corella", options)
    label, rows, trained = corella_study.from_settings(given, size, options.folder)
    metrics = {name: scores(label, row.probability) | {"share": row.share} for name, row in rows.items()}
    fits = {name: {stage: log.epochs for stage, log in t.fits.items()} for name, t in trained.items()}
    return _report(options, given, size) | {"metrics": metrics, "fits": fits}


def knowledge(options: argparse.Namespace) -> dict[str, Any]:
    """Answers of a Hugging Face model to the requests of a file, in `answers.jsonl`."""
    from rec_utils.knowledge.huggingface import HuggingFaceBackend
    from rec_utils.knowledge.llm import generate
    from rec_utils.knowledge.request_file import read_requests
    from rec_utils.knowledge.store import Store

    requests = read_requests(options.requests)
    store = Store(options.folder / "answers.jsonl")
    n_before = sum(store.get(request, options.model) is not None for request in requests)
    drafts = [answer for answer in store if answer.model == options.model]
    backend = HuggingFaceBackend(
        options.model, batch_size=options.batch_size, decoder=options.decoder, drafts_from=drafts
    )
    answers = generate(requests, store, backend, progress=_rank() == 0)
    return {
        "study": "knowledge",
        "model": options.model,
        "requests": str(options.requests),
        "processes": _processes(),
        "metrics": {
            "answers": len(answers),
            "answered before": n_before,
            "cut off at their length": sum(answer.finish == "length" for answer in answers),
        },
    }


# Settings


class _Parser(argparse.ArgumentParser):
    """Raises what it has to say: all processes parse, and one shall tell."""

    def error(self, message: str) -> None:
        raise UserError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="rec_utils.launch",
        description=__doc__.partition("\n")[0],
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="study", required=True, parser_class=_Parser)
    for run in (clickprompt, corella, knowledge):
        command = commands.add_parser(run.__name__, help=run.__doc__, description=run.__doc__)
        command.set_defaults(run=run)
        add = command.add_argument
        told = "for metrics.json and what a stopped run goes on from"
        add("--folder", type=Path, required=True, metavar="DIR", help=told)
        if run is knowledge:
            told = "JSONL with purpose, system, prompt, decoding; or a store, to ask its questions again"
            add("--requests", type=Path, required=True, metavar="FILE", help=told)
            add("--model", required=True, metavar="NAME", help="Hugging Face name, or a folder")
            add("--batch-size", type=int, metavar="N", help="requests at a time and process")
            add("--decoder", default="generate", help="generate, dare or dare-strict")
            continue
        pairs = {"action": "append", "default": [], "metavar": "NAME=VALUE"}
        add("--profile", default="laptop", choices=PROFILES, help="default: laptop")
        add("-p", dest="parameters", **pairs, help="a parameter of the notebook, say SEED=1")
        told = "a size of the card in place of the profile's, say dataset=ml-1m"
        add("-s", dest="sizes", **pairs, help=told)
        if run is clickprompt:
            told = "of clickprompt_study.VARIANTS, say ClickPrompt 'input prompts'"
            add("--variants", nargs="+", metavar="NAME", help=told)
    return parser


def _settings(notebook: str, given: list[str], not_here: tuple[str, ...]) -> dict[str, Any]:
    """The notebook's parameters, with the values given."""
    known = read_parameters(NOTEBOOKS / f"{notebook}.ipynb")
    known = {name: p for name, p in known.items() if name not in ("PROFILE", *not_here)}
    settings = {name: parameter.default for name, parameter in known.items()}
    for name, text in _pairs("-p", given):
        if name not in known:
            raise UserError(f"-p {name}: the parameters are {', '.join(known)}")
        values = parse_values(known[name], text)
        if len(values) != 1:
            raise UserError(f"-p {name}: {text!r} are {len(values)} values; a launch takes one")
        settings[name] = values[0]
    return settings


def _sizes(card: str, options: argparse.Namespace) -> dict[str, Any]:
    given = {}
    for name, text in _pairs("-s", options.sizes):
        try:
            given[name] = json.loads(text)
        except ValueError:
            given[name] = text
    return load_card(card).sizes(options.profile, **given)


def _pairs(option: str, given: list[str]) -> Iterator[tuple[str, str]]:
    for pair in given:
        name, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"{option} {pair}: write NAME=VALUE")
        yield name, text


def _report(options: argparse.Namespace, given: dict[str, Any], size: dict[str, Any]) -> dict[str, Any]:
    study = {"study": options.study, "profile": options.profile, "processes": _processes()}
    return study | {"parameters": given, "sizes": size}


def _plain(value: Any) -> Any:
    """With JSON's types only; what is not a number is null."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, str | bool | int | None):
        return value
    return float(value) if math.isfinite(value) else None


# Processes


def _rank() -> int:
    return int(os.environ.get("RANK", 0))


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


@contextmanager
def _only_launch(folder: Path) -> Iterator[None]:
    """Refuse a second launch in a folder; the lock ends with the first process, however that dies."""
    if _rank() != 0:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another launch is at work in --folder {folder}") from None
        except OSError:  # a file system without locks
            pass
        yield


@contextmanager
def _lost_process_told(folder: Path) -> Iterator[None]:
    """Say how to go on when another process has died; the launcher says which one that was.

    Two processes speak, since one of them may be the dead one.
    """
    on = f"what was finished is kept in {folder}, and the same command goes on from there"
    speaks = _rank() < 2

    def ended(*_: Any) -> None:
        if speaks:
            sys.stderr.write(f"process {_rank()} was told to end; {on}\n")
        os._exit(128 + signal.SIGTERM)  # at once: others may never answer again

    before = signal.signal(signal.SIGTERM, ended)
    try:
        yield
    except RuntimeError as error:
        if _processes() == 1 or not _is_lost(error):
            raise
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if speaks:
            sys.stderr.write(f"process {_rank()} has lost another process; {on}\n")
        time.sleep(GRACE)  # so that the launcher names the one that died
        os._exit(1)
    finally:
        signal.signal(signal.SIGTERM, before)


def _is_lost(error: RuntimeError) -> bool:
    """Whether an error comes from the exchange between processes."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or "gloo" in str(error).lower() or "nccl" in str(error).lower()


def _as_one(main: Callable[[], None]) -> None:
    """`main`; of several processes with the same mistake, the first one tells it."""
    try:
        main()
    except (UserError, OSError):
        if _rank() != 0:
            time.sleep(GRACE)
        raise
    except KeyboardInterrupt:
        if _rank() != 0:
            os._exit(130)
        raise
    if _processes() > 1:
        from accelerate import PartialState

        PartialState().destroy_process_group()


if __name__ == "__main__":
    sys.exit(run_cli(lambda: _as_one(main)))
