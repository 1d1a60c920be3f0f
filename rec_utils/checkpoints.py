"""What a stopped training goes on from: one file, written whole after every epoch.

A checkpoint holds what it belongs to: the settings, the samples, and the model as it was at the start. So it
is never taken for that of another training. It does not depend on the number of processes.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from rec_utils.batches import Samples
from rec_utils.errors import UserError
from rec_utils.files import atomic_path

if TYPE_CHECKING:
    from rec_utils.training import TrainConfig

#: Of the format; a file of another one is refused.
VERSION = 1


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """What training changes of a model: buffers, and parameters that are not frozen; not copied."""
    frozen = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


@dataclass
class TrainingState:
    """A training as far as it has come."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: LambdaLR | None
    shuffle: torch.Generator
    device: torch.device
    epochs: list[dict[str, float]] = field(default_factory=list)
    best: float = -math.inf  #: what the best epoch was chosen by
    best_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    done: bool = False

    def choose(self, chosen_by: float) -> None:
        """Remember the weights if the last epoch is the best so far."""
        if chosen_by > self.best:
            self.best, self.best_epoch = chosen_by, len(self.epochs)
            self.best_weights = {name: value.clone() for name, value in trained_state(self.model).items()}

    def state(self, seconds: float) -> dict[str, Any]:
        """What to keep of it; all processes must call. Once it is done, the result alone."""
        state = {
            "epochs": json.dumps(self.epochs, default=float),
            "best": float(self.best),
            "best_epoch": self.best_epoch,
            "best_weights": self.best_weights,
            "done": self.done,
            "seconds": seconds,
        }
        if self.done:
            return state
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        return state | {
            "weights": trained_state(self.model),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule else None,
            "shuffle": self.shuffle.get_state(),
            "random": gather_object([random]),  # of each process
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`, except for torch's global generators."""
        self.epochs = json.loads(state["epochs"])
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.best_weights, self.done = state["best_weights"], state["done"]
        if not self.done:
            self.model.load_state_dict(state["weights"], strict=False)
            self.optimizer.load_state_dict(state["optimizer"])
            self.shuffle.set_state(state["shuffle"])
            if self.schedule:
                self.schedule.load_state_dict(state["schedule"])

    def restore_random(self, state: dict[str, Any], rank: int) -> None:
        """Set torch's global generators; a process that was not there keeps the fresh ones."""
        if not self.done and rank < len(state["random"]):
            random = state["random"][rank]
            torch.set_rng_state(random["cpu"])
            if self.device.type == "cuda" and "cuda" in random:
                torch.cuda.set_rng_state(random["cuda"], self.device)


class Checkpoint:
    """The file of one training.

    Args:
        path: of the file; it need not exist.
        model: before the first step, on every process.
        train: training samples.
        valid: validation samples, if any.
        config: all settings count but `eval_batch_size`, which changes no result.
    """

    def __init__(
        self, path: Path, model: nn.Module, train: Samples, valid: Samples | None, config: TrainConfig
    ) -> None:
        self.path = path
        self._first = PartialState().is_main_process
        # made by the process that reads and writes; the weights of a large model take a while
        self._belongs_to = _identity(model, train, valid, config) if self._first else {}

    def read(self) -> dict[str, Any] | None:
        """What `write` was given last, the same on all processes; None if there is no file.

        Only the first process reads, so the others need not see the file.

        Raises:
            UserError: the file is damaged or belongs to another training. It stays as it is.
        """
        found: list[Any] = [None]
        if self._first:
            try:
                found = [self._read()]
            except UserError as error:
                found = [error]
        broadcast_object_list(found)
        if isinstance(found[0], UserError):
            raise found[0]
        return found[0]

    def write(self, state: dict[str, Any]) -> None:
        """Replace the file by one with `state`: tensors, numbers and texts, in dicts and lists.

        A process that is killed while it writes leaves the file as it was.
        """
        if not self._first:
            return
        for left in self.path.parent.glob(f".{self.path.name}.*"):  # of a process that was killed
            left.unlink()
        with atomic_path(self.path) as temporary:
            torch.save({"version": VERSION, "belongs_to": self._belongs_to, "state": state}, temporary)

    def _read(self) -> dict[str, Any] | None:
        where = "; move it away to train from the start"
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"checkpoint {self.path} cannot be read: {error.strerror}") from error
        try:
            with file:
                if ZipFile(file).testzip():  # torch itself takes a file with a wrong bit
                    raise ValueError("a checksum is wrong")
                file.seek(0)
                content = torch.load(file, map_location="cpu", weights_only=True)
            version, belongs_to, state = (content[key] for key in ("version", "belongs_to", "state"))
        except Exception as error:  # torch does not say what it raises for a damaged file
            raise UserError(f"checkpoint {self.path} is damaged{where}") from error
        if version != VERSION:
            raise UserError(f"checkpoint {self.path} has format {version}, not {VERSION}{where}")
        if different := _differences(belongs_to, self._belongs_to):
            raise UserError(f"checkpoint {self.path} is that of another training: {different}{where}")
        return state


def _identity(
    model: nn.Module, train: Samples, valid: Samples | None, config: TrainConfig
) -> dict[str, str | int]:
    """What a training's result depends on, by name; long things as their SHA-256."""
    settings = {
        name: json.dumps(value) for name, value in asdict(config).items() if name != "eval_batch_size"
    }
    return settings | {
        "number of training samples": len(train),
        "number of validation samples": 0 if valid is None else len(valid),
        "training samples": _digest(train),
        "validation samples": _digest(valid),
        "model": _digest(str(model)),
        "weights at the start": _digest(model.state_dict()),
    }


def _differences(there: dict[str, Any], here: dict[str, Any]) -> str:
    """Names of what differs, with the two values where they are short."""
    told = []
    for name in here:
        was, now = there.get(name), here[name]
        if was != now:
            long = isinstance(now, str) and len(now) == 64
            told.append(f"other {name}" if long else f"{name} was {was} and is {now}")
    return ", ".join(told)


def _digest(value: Any) -> str:
    """Hex SHA-256 of a value: tensors by their bytes, samples and dicts by what they hold."""
    digest = hashlib.sha256()
    if isinstance(value, Tensor):
        digest.update(f"{value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    elif isinstance(value, Samples | dict):
        held = value if isinstance(value, dict) else vars(value)
        for name in sorted(held):
            digest.update(f"{name} {_digest(held[name])} ".encode())
    else:
        digest.update(repr(value).encode())
    return digest.hexdigest()
