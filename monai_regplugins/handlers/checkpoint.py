"""Save and resume a training so that no crash loses the best model; load weights for evaluation and inference."""

from __future__ import annotations

import hashlib
import io
import logging
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from monai_regplugins.checks import InputError, check_choice, load_into, load_weights
from monai_regplugins.io.atomic import write_file
from monai_regplugins.io.provenance import digest_of
from monai_regplugins.io.sums import check_weights

__all__ = ["Checkpointing", "WeightsLoader"]

logger = logging.getLogger(__name__)

SCHEDULE_LENGTH = ("t_total", "warmup_steps", "T_max")  # of MONAI's and PyTorch's cosine schedules


class Best(NamedTuple):
    """The best model so far: its validation score (None without validation), its epoch, the SHA-256 of its file."""

    score: float | None
    epoch: int
    digest: str


class Checkpointing:
    """Write ``checkpoint.pt`` after every epoch and ``model.pt`` whenever the validation score improves.

    ``checkpoint.pt`` holds all that a resumed training needs: ``model``, ``optimizer``, ``lr_scheduler``, ``scaler``
    (with mixed precision), ``trainer`` (epoch, iteration), ``best_metric``, ``best_epoch`` and ``best_digest``, the
    SHA-256 of the best ``model.pt``. ``model.pt`` is a bare state dict, ready to be shipped. Both load with
    ``weights_only=True``.

    Why no crash can lose the best model or let a worse one take its place: each file is replaced in one step, and in
    an epoch that improves the score ``checkpoint.pt``, which then knows the new best score and holds the very weights
    that reached it, is replaced first, ``model.pt`` second. A process killed in between leaves a ``model.pt`` that
    does not have the digest; if the best epoch is the checkpoint's own, a resumed training makes it anew from the
    checkpoint. In every later epoch ``model.pt`` is already in place. The digest also tells whose a ``model.pt`` is:
    any other one, such as a downloaded model or that of an earlier training, is copied to ``model_previous.pt``
    (``model_previous_2.pt``, ...) before this training may replace it. If the best model of a resumed training is
    nowhere to be found, its score is forgotten, so that the next validation writes a model again.

    Without an evaluator ``model.pt`` is the model of the last epoch.

    Args:
        ckpt_dir: folder of both files; it is made.
        network: the network, bare or wrapped for distributed training or compiled; files hold the bare names.
        optimizer: its optimizer.
        lr_scheduler: its learning rate schedule, if any.
        ckpt: what to start from: a ``checkpoint.pt`` resumes everything, a bare state dict gives initial weights only.
        score_name: the evaluator's metric that decides; ``evaluator.metric_cmp_fn`` says what is better.
    """

    def __init__(
        self,
        ckpt_dir: str | Path,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: Any = None,
        ckpt: str | Path | None = None,
        score_name: str = "score",
    ) -> None:
        self.checkpoint_path = Path(ckpt_dir) / "checkpoint.pt"
        self.model_path = Path(ckpt_dir) / "model.pt"
        self.network = bare(network)
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.ckpt, self.score_name = ckpt, score_name
        self._best: Best | None = None
        self._scaler_state: dict[str, Any] = {}
        self._evaluator: Any = None

    def attach(self, trainer: Any, evaluator: Any = None) -> None:
        """Load ``ckpt`` now, and save at the end of each epoch, after every handler attached before the run.

        Args:
            trainer: engine that trains; its epoch and iteration are set when resuming.
            evaluator: engine that validates during the training; its best metric is set when resuming.

        Raises:
            InputError: When ``ckpt`` cannot be read, fits another preset, optimizer or schedule, or has already
                reached ``max_epochs``.
        """
        self._evaluator = evaluator
        state = load_weights(self.ckpt) if self.ckpt else {}
        if "optimizer" in state:
            self._resume(trainer, state)
        elif self.ckpt:
            load_into(self.network, model_part(state), self.ckpt)
        if trainer.state.rank == 0:
            self._settle(state)
        if evaluator is not None and self._best is not None and self._best.score is not None:
            evaluator.state.best_metric, evaluator.state.best_metric_epoch = self._best.score, self._best.epoch
        trainer.add_event_handler(Events.STARTED, self._started)

    def _resume(self, trainer: Any, state: Mapping[str, Any]) -> None:
        """Restore network, optimizer, schedule, position and best score from a full checkpoint."""
        if missing := [key for key in ("model", "trainer", "lr_scheduler", "best_epoch") if key not in state]:
            raise InputError(f"checkpoint '{self.ckpt}' lacks {', '.join(missing)}; give a checkpoint.pt to resume.")
        epoch, max_epochs = int(state["trainer"]["epoch"]), trainer.state.max_epochs
        if max_epochs is not None and epoch >= max_epochs:
            raise InputError(
                f"checkpoint '{self.ckpt}' has completed {epoch} epochs and max_epochs is {max_epochs}; "
                f"give a max_epochs above {epoch}, or leave out ckpt to train anew."
            )
        load_into(self.network, state["model"], self.ckpt or "")
        try:
            self.optimizer.load_state_dict(state["optimizer"])
            if self.lr_scheduler is not None and state["lr_scheduler"] is not None:
                load_schedule(self.lr_scheduler, state["lr_scheduler"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"checkpoint '{self.ckpt}' belongs to another optimizer or schedule ({error}); "
                "resume with the configuration it was trained with."
            ) from error
        length = trainer.state.epoch_length
        trainer.state.epoch = epoch
        trainer.state.iteration = epoch * length if length else int(state["trainer"]["iteration"])
        self._scaler_state = state.get("scaler") or {}
        if state["best_epoch"] is not None:
            self._best = Best(state["best_metric"], state["best_epoch"], state["best_digest"])
        logger.info("Resumed '%s' after epoch %d.", self.ckpt, epoch)

    def _settle(self, state: Mapping[str, Any]) -> None:
        """Make ``model.pt`` the best model that the checkpoint speaks of, and keep a foreign one."""
        best = self._best
        if best is not None and digest_of(self.model_path) == best.digest:
            return
        keep_previous(self.model_path)
        if best is None:
            return
        beside = Path(self.ckpt or "").with_name("model.pt")
        if best.epoch == state["trainer"]["epoch"]:
            write_file(self.model_path, serialized(state["model"]))
        elif digest_of(beside) == best.digest:
            write_file(self.model_path, beside.read_bytes())
        else:
            logger.warning("The best model of '%s' (epoch %d) is gone; its score is forgotten.", self.ckpt, best.epoch)
            self._best = None

    def _started(self, trainer: Any) -> None:
        """Save last of all at the end of an epoch: validation and learning rate step have to be in the file."""
        if self._scaler_state and trainer.scaler is not None:
            trainer.scaler.load_state_dict(self._scaler_state)
        if trainer.state.rank == 0 and not trainer.has_event_handler(self._save, Events.EPOCH_COMPLETED):
            trainer.add_event_handler(Events.EPOCH_COMPLETED, self._save)

    def _save(self, trainer: Any) -> None:
        """Write ``checkpoint.pt``, then ``model.pt`` if it is the best so far; see the class for the order."""
        epoch, score, model = trainer.state.epoch, self._score(trainer.state.epoch), self._model_state()
        improved = self._evaluator is None or self._improves(score)
        content = serialized(model) if improved else b""
        if improved:
            self._best = Best(score, epoch, hashlib.sha256(content).hexdigest())
        scaler = getattr(trainer, "scaler", None)
        state = {
            "model": model,
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": None if self.lr_scheduler is None else self.lr_scheduler.state_dict(),
            "trainer": {"epoch": epoch, "iteration": trainer.state.iteration},
            "best_metric": self._best.score if self._best else None,
            "best_epoch": self._best.epoch if self._best else None,
            "best_digest": self._best.digest if self._best else None,
        } | ({} if scaler is None else {"scaler": scaler.state_dict()})
        write_file(self.checkpoint_path, serialized(state))
        if improved:
            write_file(self.model_path, content)

    def _score(self, epoch: int) -> float | None:
        """Return the score of this epoch's validation, None if there was none in this epoch."""
        if self._evaluator is None or self._evaluator.state.epoch != epoch:
            return None
        check_choice(self.score_name, self._evaluator.state.metrics, "score_name")
        return float(self._evaluator.state.metrics[self.score_name])

    def _improves(self, score: float | None) -> bool:
        """Whether a score is strictly better than the best so far; one that is not finite never is."""
        if score is None or not math.isfinite(score):
            return False
        best = None if self._best is None else self._best.score
        return best is None or bool(self._evaluator.metric_cmp_fn(score, best))

    def _model_state(self) -> dict[str, Tensor]:
        """Return the weights on the CPU, each in a storage of its own, so that equal weights make equal files."""
        return {
            name: value.detach().to("cpu", copy=True).contiguous() for name, value in self.network.state_dict().items()
        }


class WeightsLoader:
    """Load a network's weights when an engine starts; for evaluation and inference.

    Args:
        network: the network, bare or wrapped for distributed evaluation or compiled.
        ckpt: a bare state dict, or a full checkpoint, of which only the model is used.
    """

    def __init__(self, network: nn.Module, ckpt: str | Path) -> None:
        self.network, self.ckpt = bare(network), ckpt

    def attach(self, engine: Engine) -> None:
        """Load at the start of the run of ``engine``."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Load the weights, those that the ``SHA256SUMS`` of their bundle lists if there is one.

        Raises:
            InputError: When the file is missing, damaged, of another preset, or not the listed one.
        """
        if not Path(self.ckpt).exists():
            raise InputError(
                f"there is no model at '{self.ckpt}'; train or download one first, or give its path (ckpt)."
            )
        check_weights(self.ckpt)
        load_into(self.network, model_part(load_weights(self.ckpt)), self.ckpt)
        self.network.weights_file = str(self.ckpt)  # type: ignore[assignment]  # for messages


def load_schedule(schedule: Any, state: dict[str, Any]) -> None:
    """Restore the position of a schedule, not its length: that follows this training's ``max_epochs``."""
    length = {key: value for key, value in vars(schedule).items() if key in SCHEDULE_LENGTH}
    schedule.load_state_dict(state)
    vars(schedule).update(length)


def bare(network: nn.Module) -> nn.Module:
    """Return the network inside the wrappers of distributed training and of ``torch.compile``."""
    if isinstance(network, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
        return bare(network.module)
    inner = getattr(network, "_orig_mod", None)
    return bare(inner) if isinstance(inner, nn.Module) else network


def model_part(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the weights of a full checkpoint, or the state dict itself if it is a bare one."""
    model = state.get("model")
    return model if isinstance(model, Mapping) else state


def keep_previous(path: Path) -> None:
    """Copy ``model.pt`` to the first free ``model_previous[_n].pt``, unless such a copy is there already."""
    if not path.is_file():
        return
    copies = sorted(path.parent.glob(f"{path.stem}_previous*{path.suffix}"))
    if digest_of(path) in {digest_of(copy) for copy in copies}:
        return
    number = 1
    while (copy := path.with_stem(f"{path.stem}_previous" + (f"_{number}" if number > 1 else ""))) in copies:
        number += 1
    write_file(copy, path.read_bytes())
    logger.info("Kept the model that was in '%s' as '%s'.", path, copy.name)


def serialized(state: Any) -> bytes:
    """Return the bytes of a file that ``torch.load(weights_only=True)`` reads."""
    buffer = io.BytesIO()
    torch.save(plain(state), buffer)
    return buffer.getvalue()


def plain(value: Any) -> Any:
    """Reduce NumPy values and dictionary types to what a file without code may hold."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping) and not isinstance(value, Counter):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(item) for item in value)
    return value
