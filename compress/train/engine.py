"""The one training engine: transformers' Trainer, with length-grouped batches and exact resumption.

Fine-tuning a teacher, distillation and recovery after pruning all go through `fit`; they differ in the
objective, a module that turns a batch into a loss and its named parts.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerState, TrainingArguments

from compress.errors import CompressError
from compress.families.registry import layers_below_top
from compress.interruption import held_back
from compress.models.loading import quiet
from compress.models.masking import unmasked_name
from compress.models.tokens import Tokens
from compress.tasks.registry import task_of_config
from compress.telling import warn
from compress.train.callbacks import Keeper, ProgressBar
from compress.train.checkpoints import CHECKPOINTS, finished, resumable
from compress.train.helpers import helped
from compress.train.objective import Objective, TrainingRows
from compress.train.order import Order, order_of
from compress.train.randomness import same_randomness
from compress.train.recomputing import kept_because, recomputing
from compress.train.settings import Decay, Precision, Training
from compress.train.trackers import trackers
from compress.train.trainer import ObjectiveTrainer
from compress.train.words import words_in_use

MIXED = {Precision.bf16: torch.bfloat16, Precision.fp16: torch.float16}
CURVE_POINTS = 40  # points of a training curve


def fit(
    objective: Objective,
    tokens: TrainingRows,
    settings: Training,
    *,
    seed: int,
    folder: Path,
    title: str,
    validate: Callable[[], Mapping[str, float]],
    order: Order | None = None,
    shares: Mapping[Tensor, float] | None = None,
    undecayed: Collection[Tensor] = (),
    least_steps: int = 0,
    validate_every: int = 1,
) -> list[dict[str, float]]:
    """Train ``objective`` in place on all rows of ``tokens``; return the training curve.

    ``order`` replaces that of the settings; its length is that of an epoch. Where rows belong together, a step has a
    batch of groups.

    Checkpoints go to ``folder``; training resumes from the newest intact one there, with the same result
    as an uninterrupted run (one process, CPU). Ctrl-C and SIGTERM take effect after the current step: a checkpoint
    is written, then the previous handler runs; a second signal takes effect at once. ``validate`` is called
    after every ``validate_every`` epochs and after the last step; the first metric that it returns decides early
    stopping, and ``loss``, where it returns one, breaks ties. If the settings' epochs are fewer than
    ``least_steps``, there are more epochs, and early stopping waits for these steps. ``shares`` gives parameters a
    share of the learning rate other than 1; ``undecayed`` have no weight decay; parameters that require no
    gradient do not change. Random state and global settings are left unchanged.
    """
    if isinstance(tokens, Tokens) and tokens.groups is not None:
        tokens = tokens.whole
    if order is None:
        classes = tokens.classes(task_of_config(objective.trained.config)) if isinstance(tokens, Tokens) else None
        order = order_of(settings, tokens.lengths, seed, classes)
    steps = settings.steps(len(order), least_steps)
    with quiet():
        arguments = TrainingArguments(
            output_dir=str(folder / CHECKPOINTS),
            max_steps=steps,
            per_device_train_batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            lr_scheduler_type=settings.decay.value,
            lr_scheduler_kwargs={"power": 2.0, "lr_end": 0.0} if settings.decay is Decay.quadratic else {},
            warmup_steps=round(settings.warmup * steps),
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.gradient_clip,
            bf16=settings.precision is Precision.bf16,
            fp16=settings.precision is Precision.fp16,
            eval_strategy="no",
            save_strategy="no",  # our callback saves by time
            save_total_limit=2,
            logging_steps=max(1, steps // CURVE_POINTS),
            report_to="none",
            use_cpu=not torch.cuda.is_available(),
            disable_tqdm=True,
            remove_unused_columns=False,
            seed=seed,
        )
    arguments._n_gpu = min(1, arguments.n_gpu)  # of several GPUs, each is for a process of its own
    if settings.micro_batch is not None and (reason := objective.indivisible):
        warn(f"{title}: batches stay whole, although micro_batch = {settings.micro_batch}: {reason}")
    recomputed = settings.gradient_checkpointing
    if recomputed and (reason := kept_because(objective.trained)):
        warn(f"{title}: activations are kept, although gradient_checkpointing = true: {reason}")
        recomputed = False
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = resumable(folder)
    with (
        held_back() as interruption,
        same_randomness(),
        quiet(),
        warnings.catch_warnings(),
        _frozen(objective.trained, settings.freeze),
        words_in_use(objective, tokens) as words,
        recomputing(objective.trained) if recomputed else nullcontext(),
        helped(objective, tokens, folder, title, seed, MIXED.get(settings.precision)) as helpers,
    ):
        warnings.filterwarnings("ignore", message=".*pin_memory.*")
        trainer = ObjectiveTrainer(
            tokens,
            title,
            settings.micro_batch,
            model=objective,
            args=arguments,
        )
        trainer.order, trainer.helpers, trainer.words = order, helpers, words
        if words is not None:
            shares = {words.trained(parameter): share for parameter, share in (shares or {}).items()}
            undecayed, validate = [words.trained(parameter) for parameter in undecayed], words.completely(validate)
        trainer.shares = _shares(objective.trained, settings.layer_decay, shares or {})
        trainer.undecayed = frozenset(map(id, undecayed))
        keeper = Keeper(
            objective, settings, folder, validate, order, interruption,
            least_steps=least_steps, validate_every=validate_every,
        )  # fmt: skip
        trainer.callback_handler.callbacks = [*_stock_callbacks(trainer), keeper, ProgressBar(title)]
        trainer.callback_handler.callbacks += [tracker.callback(title) for tracker in trackers()]
        if checkpoint and finished(checkpoint):
            trainer._load_from_checkpoint(str(checkpoint))
            trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        else:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        keeper.restore_best()
    objective.eval()
    history = [entry for entry in trainer.state.log_history if "train_runtime" not in entry]  # the Trainer's summary
    return [{name: float(value) for name, value in entry.items() if math.isfinite(value)} for entry in history]


def _shares(model: PreTrainedModel, layer_decay: float, shares: Mapping[Tensor, float]) -> Mapping[Tensor, float]:
    """Return each parameter's share of the learning rate; empty if all learn at the full rate."""
    if layer_decay == 1:
        return shares
    decayed = {
        parameter: layer_decay ** layers_below_top(name, model.config) for name, parameter in model.named_parameters()
    }
    return {parameter: share * shares.get(parameter, 1.0) for parameter, share in decayed.items()}


def _stock_callbacks(trainer: Trainer) -> list[TrainerCallback]:
    """Return the Trainer's flow control, without its printing."""
    from transformers.trainer_callback import DefaultFlowCallback

    return [c for c in trainer.callback_handler.callbacks if isinstance(c, DefaultFlowCallback)]


@contextmanager
def _frozen(model: PreTrainedModel, patterns: list[str]) -> Iterator[None]:
    """Freeze the parameters whose names match, within the block; raises CompressError if none would be left."""
    learning = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    named = {unmasked_name(name): parameter for name, parameter in learning.items()}
    still = [p for name, p in named.items() if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if still and len(still) == len(learning):
        raise CompressError(f"freeze = {patterns} leaves nothing to train.")
    for parameter in still:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in still:
            parameter.requires_grad_(True)
