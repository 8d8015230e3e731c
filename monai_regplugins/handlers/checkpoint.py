"""Save and resume trainings, keep the best model, and load weights for evaluation and inference."""

from __future__ import annotations

import io
import logging
import math
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from torch import Tensor, nn

from monai_regplugins.checks import (
    InputError,
    check_choice,
    check_file,
    load_into,
    load_weights,
    say_when_stopped,
)
from monai_regplugins.files.atomic import write_file
from monai_regplugins.handlers.resuming import load_optimizer, load_schedule
from monai_regplugins.handlers.rough_fields import rough_fields
from monai_regplugins.handlers.score import score_called
from monai_regplugins.handlers.validation_set import validation_fingerprint
from monai_regplugins.io.sums import check_weights
from monai_regplugins.settings import with_record

__all__ = ["Checkpointing", "WeightsLoader"]

logger = logging.getLogger(__name__)

POSITION_KEYS = ("model", "trainer", "lr_scheduler", "best_epoch", "validation")  # without them nothing is resumed


class Best(NamedTuple):
    """The best model so far: its validation score (None without validation) and its epoch."""

    score: float | None
    epoch: int


class Checkpointing:
    """Write ``checkpoint.pt`` after every epoch and ``model.pt`` whenever the validation score improves.

    A training that is interrupted (Ctrl-C, SIGTERM) writes ``checkpoint.pt`` after its last whole step.

    ``checkpoint.pt`` holds all that a resumed training needs: ``model``, ``optimizer``, ``optimizer_type``,
    ``lr_scheduler``, ``scaler`` (with mixed precision), ``trainer`` (epoch, iteration), ``best_metric``,
    ``best_epoch``, ``is_best`` (whether its weights are the best), ``steps`` (those of an epoch that a time limit or an
    interruption has cut short, 0 of a whole one), ``start_metric``, ``fields`` (means of SDlogJ and folding),
    ``record``, ``data`` and ``validation``, see
    :func:`~monai_regplugins.handlers.validation_set.validation_fingerprint`. ``model.pt`` is a bare state dict, ready
    to be shipped, with the record of its settings and its score as an attribute, see
    :func:`~monai_regplugins.settings.with_record`. Both load with ``weights_only=True``.

    *What counts as better.* A score has to beat the best one so far, that of doing nothing (the evaluator's metric
    ``<score_name>_before``, of the same pairs) and, if the training starts from given weights, theirs, which are
    validated before the first epoch. If none does, there is no ``model.pt``, and the training ends with the last
    weights in ``model_last.pt``. Without an evaluator ``model.pt`` is the model of the last epoch.

    *A training never replaces the weights of another.* A folder that holds a ``checkpoint.pt``, ``model.pt`` or
    ``model_last.pt`` is refused, unless its ``checkpoint.pt`` is what is resumed.

    *Of two trainings in one folder only one goes on.* Each one that finds a ``checkpoint.pt`` that it has not written
    stops before it replaces anything.

    *No crash can lose the best model or let a worse one take its place.* Each file is replaced in one step, and in
    an epoch that improves the score ``checkpoint.pt``, which then knows the new best score and holds the very weights
    that reached it, is replaced first, ``model.pt`` second. If a process is killed in between, the best epoch is the
    checkpoint's own, and a resumed training makes ``model.pt`` from the checkpoint. In every later epoch ``model.pt``
    is already in place. If the best model of a resumed training is nowhere to be found, its score is forgotten, so
    that the next validation writes a model again.

    *A training that diverges stops.* A loss, a weight or a score that is not finite ends it before anything is
    written. With mixed precision a loss that is not finite is passed over as long as the scaler, which leaves out
    such a step and halves its scale, has any scale left (above 1).

    *A resumed training takes its position from the checkpoint and its settings from the configuration*: a new learning
    rate or another setting of optimizer or schedule holds from the next step on, and is logged.

    Args:
        ckpt_dir: folder of both files; it is made.
        network: the network, bare or wrapped for distributed training or compiled; files hold the bare names.
        optimizer: its optimizer.
        lr_scheduler: its learning rate schedule, if any.
        ckpt: what to start from: a ``checkpoint.pt`` resumes everything, a bare state dict gives initial weights only.
        score_name: the evaluator's metric that decides; ``evaluator.metric_cmp_fn`` says what is better.
        record: what the weights are to say of themselves, see :func:`~monai_regplugins.training.record`.
        data: folder of the data set, for who resumes or evaluates; empty for the bundle's own. The weights carry its
            name alone.

    Raises:
        InputError: When ``ckpt`` does not exist, or ``ckpt_dir`` holds the weights of another training.
    """

    def __init__(
        self,
        ckpt_dir: str | Path,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: Any = None,
        ckpt: str | Path | None = None,
        score_name: str = "score",
        record: Mapping[str, Any] | None = None,
        data: str | Path = "",
    ) -> None:
        self.checkpoint_path = Path(ckpt_dir) / "checkpoint.pt"
        self.model_path = Path(ckpt_dir) / "model.pt"
        self.last_path = Path(ckpt_dir) / "model_last.pt"
        self.network = bare(network)
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.ckpt, self.score_name, self.record = ckpt, score_name, dict(record or {})
        self.data = os.path.abspath(data) if data else ""
        self._best: Best | None = None
        self._resumed: Best | None = None  # that of the training that is resumed
        self._start_score: float | None = None
        self._fields: dict[str, dict[str, float]] = {}  # means of their measures, of the start and of the best weights
        self._validate_start = False
        self._scaler_state: dict[str, Any] = {}
        self._saved = 0
        self._done = 0  # steps, of which the last is whole while ``_is_whole``
        self._is_whole = False
        self._evaluator: Any = None
        self._validation: dict[str, str] | None = None
        self._check_folder()
        self._known = _version(self.checkpoint_path)

    @property
    def weights(self) -> Path:
        """Path of the training's result: the best weights, or the last ones if none improved the score."""
        return self.last_path if self._best is None else self.model_path

    def attach(self, trainer: Any, evaluator: Any = None) -> None:
        """Load ``ckpt`` now, and save at the end of each epoch, after every handler attached before the run.

        Args:
            trainer: engine that trains; its epoch and iteration are set when resuming.
            evaluator: engine that validates during the training; its best metric is set when resuming.

        Raises:
            InputError: When ``ckpt`` cannot be read, fits another network, optimizer or schedule, was scored on other
                pairs or by another measure, or has already reached ``max_epochs``.
        """
        self._evaluator = evaluator
        self._validation = None if evaluator is None else validation_fingerprint(evaluator, self.score_name)
        state = load_weights(self.ckpt) if self.ckpt else {}
        if "optimizer" in state:
            self._resume(trainer, state)
        elif self.ckpt:
            load_into(self.network, model_part(state), self.ckpt)
            self._validate_start = evaluator is not None
        if trainer.state.rank == 0:
            self._settle(state)
        if evaluator is not None and self._best is not None and self._best.score is not None:
            evaluator.state.best_metric, evaluator.state.best_metric_epoch = self._best.score, self._best.epoch
        trainer.add_event_handler(Events.STARTED, self._started)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._check_step)
        self.optimizer.register_step_pre_hook(self._begin_update)

    def _check_folder(self) -> None:
        """Refuse a folder that holds weights, unless this training goes on with them."""
        folder, checkpoint = self.model_path.parent, self.checkpoint_path
        if self.ckpt and check_file(self.ckpt, "checkpoint").resolve() == checkpoint.resolve():
            return
        found = [path.name for path in (checkpoint, self.model_path, self.last_path) if path.exists()]
        if found:
            resume = f"go on with them by {self._resuming()}, or " if checkpoint.exists() else ""
            raise InputError(
                f"'{folder}' holds the weights of another training ({', '.join(found)}), which none replaces; "
                f"{resume}give another --output_dir."
            )

    def _resume(self, trainer: Any, state: Mapping[str, Any]) -> None:
        """Restore network, optimizer, schedule, position and best score from a full checkpoint."""
        if missing := [key for key in POSITION_KEYS if key not in state]:
            raise InputError(
                f"checkpoint '{self.ckpt}' lacks {', '.join(missing)}; give a checkpoint.pt of this version to resume."
            )
        steps = int(state.get("steps", 0))
        epoch = int(state["trainer"]["epoch"]) - (steps > 0)
        self._check_epochs(epoch, trainer.state.max_epochs)
        self._check_validation(state["validation"])
        load_into(self.network, state["model"], self.ckpt or "")
        changes = self._load_optimizer(state)
        length = trainer.state.epoch_length
        trainer.state.epoch = epoch
        kept = steps % length if length else 0  # an epoch that is shorter now begins anew
        trainer.state.iteration = epoch * length + kept if length else int(state["trainer"]["iteration"])
        self._scaler_state = state.get("scaler") or {}
        self._start_score, self._saved = state.get("start_metric"), trainer.state.iteration
        self._fields = dict(state.get("fields", {}))
        if state["best_epoch"] is not None:
            self._best = self._resumed = Best(state["best_metric"], state["best_epoch"])
        more = [f"{kept} steps into the next"] * (kept > 0) + changes
        logger.info("Resumed '%s' after epoch %d%s.", self.ckpt, epoch, "".join(f", {one}" for one in more))

    def _check_epochs(self, epoch: int, max_epochs: int | None) -> None:
        """Reject a checkpoint that completed all epochs."""
        if max_epochs is not None and epoch >= max_epochs:
            raise InputError(
                f"checkpoint '{self.ckpt}' has completed {epoch} epochs and max_epochs is {max_epochs}; "
                f"give a max_epochs above {epoch}, or leave out ckpt to train anew."
            )

    def _check_validation(self, then: Mapping[str, str] | None) -> None:
        """Reject a checkpoint whose scores are not comparable with new ones."""
        different = [key for key in then or {} if then is not None and then[key] != (self._validation or {}).get(key)]
        if different or (then is None) != (self._validation is None):
            names = ("model.pt", "model_last.pt")
            beside = [file for file in (Path(self.ckpt or "").with_name(name) for name in names) if file.is_file()]
            start = "".join(f" from '{file}'" for file in beside[:1])
            raise InputError(
                f"checkpoint '{self.ckpt}' was scored in another way ({', '.join(different) or 'validation'} differ), "
                "so its best score cannot be compared; resume with the data and settings it was validated with, or "
                f"start a new training{start}."
            )

    def _load_optimizer(self, state: Mapping[str, Any]) -> list[str]:
        """Restore optimizer and schedule, and return which settings are new."""
        try:
            if state.get("optimizer_type") != (name := type(self.optimizer).__name__):
                raise ValueError(f"{state.get('optimizer_type')}, not {name}")
            changes = load_optimizer(self.optimizer, state["optimizer"])
            if self.lr_scheduler is not None and state["lr_scheduler"] is not None:
                changes += load_schedule(self.lr_scheduler, state["lr_scheduler"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"checkpoint '{self.ckpt}' belongs to another optimizer or schedule ({error}); "
                "resume with the configuration it was trained with."
            ) from error
        return changes

    def _settle(self, state: Mapping[str, Any]) -> None:
        """Restore ``model.pt`` to the best model of the checkpoint."""
        best = self._best
        if best is None:
            return
        beside = Path(self.ckpt or "").with_name("model.pt")
        if best.epoch == state["trainer"]["epoch"] and state.get("is_best", True):
            write_file(self.model_path, serialized(state["model"], state.get("record")))
        elif not beside.is_file():
            logger.warning("The best model of '%s' (epoch %d) is gone; its score is forgotten.", self.ckpt, best.epoch)
            self._best = None
        elif beside.resolve() != self.model_path.resolve():
            write_file(self.model_path, beside.read_bytes())

    def _started(self, trainer: Any) -> None:
        """Save last of all at the end of an epoch: validation and learning rate step have to be in the file."""
        if self._scaler_state and trainer.scaler is not None:
            trainer.scaler.load_state_dict(self._scaler_state)
        if self._validate_start:
            self._start_score, self._fields["start"] = self._score_of_start(), self._regularity()
        if trainer.state.rank == 0 and not trainer.has_event_handler(self._save, Events.EPOCH_COMPLETED):
            trainer.add_event_handler(Events.EPOCH_COMPLETED, self._save)
            trainer.add_event_handler(Events.COMPLETED, self._finish)
            say_when_stopped(lambda: self._stopped(trainer))

    def _begin_update(self, *_: object) -> None:
        """Note that the weights are no longer those of a whole step."""
        self._is_whole = False

    def _stopped(self, trainer: Any) -> str:
        """Write what an interrupted training has reached, and say how it goes on and what of it is lost."""
        self._save_steps(trainer)
        if not self.checkpoint_path.exists():
            return "no step has ended, so there is no checkpoint; start again"
        lost = max(self._done, self._saved) - self._saved
        what = f"{lost} steps since then are lost" if lost else "the step that was under way is lost"
        return f"go on by the same command with {self._resuming()}; {what}"

    def _save_steps(self, trainer: Any) -> None:
        """Write the checkpoint of an epoch that was cut short, if its last step is whole and no other has written.

        Of an epoch that has ended but for its validation the last step is taken again, since no epoch is resumed after
        its end.
        """
        length, is_alone = trainer.state.epoch_length, self._known == _version(self.checkpoint_path)
        if not (self._is_whole and length and self._done > self._saved and is_alone):
            return
        iteration = self._done - (self._done % length == 0)
        if iteration % length:
            write_file(self.checkpoint_path, serialized(self._state(trainer, False, iteration)))
            self._known, self._saved = _version(self.checkpoint_path), self._done

    def _resuming(self) -> str:
        """Return the option by which the training goes on, and which one it replaces."""
        is_other = self.ckpt and Path(self.ckpt).resolve() != self.checkpoint_path.resolve()
        return f"--ckpt '{self.checkpoint_path}'" + (f" in place of '{self.ckpt}'" if is_other else "")

    def _score_of_start(self) -> float:
        """Validate the given weights, as epoch 0."""

        def call_it_epoch_0() -> None:
            self._evaluator.state.epoch = 0

        logger.info("The weights that this training starts from:")
        with self._evaluator.add_event_handler(Events.EPOCH_STARTED, call_it_epoch_0):
            self._evaluator.run()
        score = self._score(0)
        if score is None or not math.isfinite(score):
            raise InputError(f"the weights of '{self.ckpt}' give a score of {score}; start from others.")
        return score

    def _check_step(self, trainer: Any) -> None:
        """Stop a training that diverges; the weights are looked at before an epoch ends and is validated."""
        output, state = trainer.state.output, trainer.state
        loss = summed(float((output[0] if isinstance(output, (list, tuple)) else output)["loss"]), state.device)
        if not math.isfinite(loss) and not is_searching(trainer.scaler):
            raise self._diverged(f"the loss of step {state.iteration} is {loss}", state.epoch)
        if not state.epoch_length or state.iteration % state.epoch_length == 0:
            self._check_weights(state.epoch)
        self._done, self._is_whole = state.iteration, True

    def _check_weights(self, epoch: int) -> None:
        """Refuse weights that are not finite."""
        for name, value in self.network.state_dict().items():
            if value.is_floating_point() and not bool(value.isfinite().all()):
                raise self._diverged(f"the weights '{name}' are not finite", epoch)

    def _diverged(self, what: str, epoch: int) -> InputError:
        """Return an error for a diverged training, with the checkpoint to resume from."""
        rate = self.optimizer.param_groups[0]["lr"]
        again = f"go on by {self._resuming()}" if self.checkpoint_path.exists() else "start again"
        return InputError(
            f"the training diverged in epoch {epoch}: {what}, and nothing was written since the epoch before; "
            f"{again} with a lower learning_rate (it was {rate:.3g})."
        )

    def _save(self, trainer: Any) -> None:
        """Write ``checkpoint.pt``, then ``model.pt`` if it is the best so far; see the class for the order."""
        self._is_whole = False  # not to be written while this is
        epoch, score = trainer.state.epoch, self._score(trainer.state.epoch)
        if score is not None and not math.isfinite(score):
            raise self._diverged(f"the validation score is {score}", epoch)
        improved = self._evaluator is None or self._improves(score)
        if improved:
            self._best, self._fields["best"] = Best(score, epoch), self._regularity()
        state = self._state(trainer, improved, trainer.state.iteration)
        self._check_alone()
        write_file(self.checkpoint_path, serialized(state))
        self._known, self._saved = _version(self.checkpoint_path), trainer.state.iteration
        if improved:
            write_file(self.model_path, serialized(state["model"], state["record"]))

    def _check_alone(self) -> None:
        """Refuse to write where another training has written meanwhile."""
        if _version(self.checkpoint_path) != self._known:
            raise InputError(
                f"'{self.checkpoint_path}' was written by another training meanwhile, and stays as it is; give each "
                "training its own --output_dir."
            )

    def _state(self, trainer: Any, is_best: bool, iteration: int) -> dict[str, Any]:
        """Return the content of ``checkpoint.pt`` after so many steps."""
        scaler, length = getattr(trainer, "scaler", None), trainer.state.epoch_length
        return {
            "model": self._model_state(),
            "optimizer": self.optimizer.state_dict(),
            "optimizer_type": type(self.optimizer).__name__,
            "lr_scheduler": None if self.lr_scheduler is None else self.lr_scheduler.state_dict(),
            "trainer": {"epoch": trainer.state.epoch, "iteration": iteration},
            "best_metric": self._best.score if self._best else None,
            "best_epoch": self._best.epoch if self._best else None,
            "is_best": is_best,
            "steps": iteration % length if length else 0,
            "start_metric": self._start_score,
            "fields": self._fields,
            "data": self.data,
            "validation": self._validation,
            "record": self._record(trainer.state.epoch),
        } | ({} if scaler is None else {"scaler": scaler.state_dict()})

    def _record(self, epoch: int) -> dict[str, Any]:
        """Return the record of the weights of an epoch; empty without one."""
        score = {"epoch": epoch, "score": self._score(epoch), "before": self._floor(), "validation": self._validation}
        measure = score_called(self.score_name, self._evaluator).title
        data = {"data": Path(self.data).name} if self.data else {}
        return {**self.record, **score, "measure": measure, **data} if self.record else {}

    def _score(self, epoch: int) -> float | None:
        """Return the score of this epoch's validation, None if there was none in this epoch."""
        if self._evaluator is None or self._evaluator.state.epoch != epoch:
            return None
        check_choice(self.score_name, self._evaluator.state.metrics, "score_name")
        return float(self._evaluator.state.metrics[self.score_name])

    def _regularity(self) -> dict[str, float]:
        """Return the means of the measures of the fields of the last validation."""
        metrics = {} if self._evaluator is None else self._evaluator.state.metrics
        return {name: float(metrics[name]) for name in ("sdlogj", "folding_percent") if name in metrics}

    def _improves(self, score: float | None) -> bool:
        """Whether a score is strictly better than the best so far and than all that was there before the training."""
        best = None if self._best is None else self._best.score
        bars = [bar for bar in (best, *self._floor().values()) if bar is not None]
        return score is not None and all(bool(self._evaluator.metric_cmp_fn(score, bar)) for bar in bars)

    def _floor(self) -> dict[str, float]:
        """Return the scores before the training, by their origin."""
        metrics = {} if self._evaluator is None else self._evaluator.state.metrics
        before = metrics.get(f"{self.score_name}_before")
        start = score_called(self.score_name, self._evaluator).start
        found = {start: before, "the weights it started from": self._start_score}
        return {name: float(score) for name, score in found.items() if score is not None}

    def _finish(self, trainer: Any) -> None:
        """Log what the training has reached, and keep the last weights if none were good."""
        self._check_alone()
        say_when_stopped(None)
        named = score_called(self.score_name, self._evaluator)
        floor = ", ".join(f"{name} {named.value(score):.3f}" for name, score in self._floor().items())
        if self._best is None:
            write_file(self.last_path, serialized(self._model_state(), self._record(trainer.state.epoch)))
            text = "No validation %s was better than what was there before (%s); the last weights are in '%s'.%s"
            advice = "" if self._start_score is None else " Go on with the training, or keep those it started from."
            logger.warning(text, named.title, floor or "all before", self.last_path, advice)
            return
        self.last_path.unlink(missing_ok=True)
        score = "" if self._best.score is None else f", {named.text(self._best.score)}"
        there = f" ({floor})" if floor else ""
        before = " before resuming" if self._best is self._resumed else ""  # this epoch may have gone on since
        logger.info("Best weights: '%s', of epoch %d%s%s%s.", self.model_path, self._best.epoch, before, score, there)
        if rough := rough_fields(self._fields.get("best", {}), self._fields.get("start")):
            advice = "A lower --learning_rate or more weight of the smoothness makes them smoother."
            logger.warning("Their fields are rough: %s. %s", rough, advice)

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
            InputError: When the file is missing, damaged, of another network, or not the listed one.
        """
        if not (path := Path(self.ckpt)).exists():
            last = path.with_name("model_last.pt")
            there = f" Beside it is '{last}', of a training that improved no score." if last.is_file() else ""
            raise InputError(
                f"there is no model at '{path}'; train or download one first, or give its path (ckpt).{there}"
            )
        check_weights(self.ckpt)
        load_into(self.network, model_part(load_weights(self.ckpt)), self.ckpt)
        self.network.weights_file = str(self.ckpt)  # type: ignore[assignment]  # for messages


def _version(file: Path) -> tuple[int, ...] | None:
    """What changes whenever a file is written, None if there is none."""
    try:
        state = file.stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns, state.st_size


def summed(value: float, device: torch.device) -> float:
    """Return the sum of a value over all processes, so that they stop together; it is not finite where one is not."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    total = torch.tensor(value, device=device)
    dist.all_reduce(total)
    return total.item()


def is_searching(scaler: Any) -> bool:
    """Whether a gradient scaler may still find a scale at which steps are finite; it halves it after each that is not.

    It starts at 2^16; at a scale of 1 the loss itself is what is not finite.
    """
    return scaler is not None and scaler.is_enabled() and scaler.get_scale() > 1.0


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


def serialized(state: Mapping[str, Any], record: Mapping[str, Any] | None = None) -> bytes:
    """Return the bytes of a file that ``torch.load(weights_only=True)`` reads, with the record of weights if any."""
    buffer, content = io.BytesIO(), plain(state)
    torch.save(with_record(content, plain(record)) if record else content, buffer)
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
