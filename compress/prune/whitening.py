"""Fewer dimensions of sentence vectors: principal components, whitened or not, folded into the last linear layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from compress.errors import Fault, ModelError
from compress.known import NOTHING, Known
from compress.models.device import device
from compress.models.evaluate import predict_rows
from compress.models.heads import output_parameters
from compress.models.quiet import quiet
from compress.models.tokens import Tokens, tokenize
from compress.pipeline.record import Role
from compress.pipeline.rewrite import Rewritten, rewrite
from compress.pipeline.stage import Stage
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind
from compress.settings import at_least
from compress.tasks.base import Array
from compress.tasks.heads import NORMALIZED, head_of_size, with_head

_LEAST = 1e-9  # share of the largest variance below which a direction counts as constant


@dataclass(kw_only=True)
class Whitening(Stage):
    """Turn the student's vectors into fewer, uncorrelated dimensions (BERT-whitening, Su et al., arXiv:2103.15316).

    The mean and the covariance are those of training texts; the map becomes part of the student's last linear layer,
    and so of every artifact. Nothing is trained.
    """

    role: ClassVar[Role] = Role.pruning

    dimensions: int = 256  # that are kept, those of the largest variance first
    scale: bool = True  # divide each by its standard deviation (whitening); false: principal components as they are
    rows: int = 10000  # training texts, at most, that mean and covariance are measured on

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """The task has vectors, wider than is asked for, and nothing trains the student afterwards."""
        yield from at_least(self, "dimensions", 1)
        yield from at_least(self, "rows", 2)
        if known.task is not None and not known.task.apart:
            rule = f"is for vectors of texts, and the labels are {known.task.predicts}"
            yield Fault("dimensions", self.dimensions, rule, "Leave whitening out of prune.")
        elif known.task is not None and known.task.outputs < self.dimensions:
            rule = f"is more than the {known.task.outputs} dimensions of the vectors"
            yield Fault("dimensions", self.dimensions, rule)
        stages = list(known.stages.values())
        behind = stages[stages.index(self) + 1 :] if self in stages else []
        if any(stage.recovers for stage in behind):
            rule = "makes vectors that cannot be compared with the teacher's, and a later stage trains the student"
            yield Fault("dimensions", self.dimensions, rule, "List whitening last, and leave out qat.")

    def __call__(self, state: State) -> State:
        """Return the state with a student whose vectors have the dimensions that are kept."""
        transfer = state.data.transfer
        order = np.random.default_rng(state.seed).permutation(len(transfer))[: self.rows]
        texts = transfer.take(np.sort(order))

        def change(model: PreTrainedModel, tokenizer: Any) -> Rewritten:
            vectors = unnormalized(model, tokenize(texts, tokenizer, tokenizer.model_max_length))
            before = vectors.shape[1]
            mean, kernel, kept = whitening(vectors, self.dimensions, scale=self.scale)
            return Rewritten(folded(model, mean, kernel), tokenizer, {"before": before, "kept": kept})

        made_with = [self.made_with(), texts.fingerprint]
        product = rewrite(
            state.workshop, Kind("whitening", revision=1), state.given_student, made_with, change, on=device()
        )
        share, before = product.record["kept"], product.record["before"]
        notes = (
            f"{self.dimensions:,} of {before:,} dimensions, with {share:.1%} of the variance of {len(texts):,} texts",
        )
        return state.with_student(self.record("whitening", [product], notes=notes))


def whitening(vectors: Array, dimensions: int, *, scale: bool = True) -> tuple[Array, Array, float]:
    """Return the mean (width,), the map (width, dimensions) and the share of the variance that is kept.

    ``(vectors - mean) @ map`` are the principal components of vectors (rows, width), the largest variance first; with
    ``scale`` each has variance 1: W = U Λ^(-1/2) of the covariance U Λ Uᵀ (arXiv:2103.15316, algorithm 1). Raises
    ModelError where the vectors do not vary in so many directions.
    """
    wide = vectors.astype(np.float64)
    mean = wide.mean(0)
    variances, directions = np.linalg.eigh(np.cov(wide, rowvar=False, bias=True).reshape(len(mean), len(mean)))
    variances, directions = np.maximum(variances[::-1], 0), directions[:, ::-1]
    varied = int((variances > _LEAST * variances[0]).sum())
    if varied < dimensions:
        raise ModelError(
            f"whitening.dimensions = {dimensions}: {len(wide):,} texts vary in only {varied} directions. "
            "Lower it, or give more texts."
        )
    kernel = directions[:, :dimensions]
    if scale:
        kernel = kernel / np.sqrt(variances[:dimensions])
    return mean, kernel, float(variances[:dimensions].sum() / variances.sum())


def unnormalized(model: PreTrainedModel, tokens: Tokens) -> Array:
    """Return the vectors of texts before they are divided by their length (rows, width)."""
    before = getattr(model.config, NORMALIZED)
    setattr(model.config, NORMALIZED, False)
    try:
        return predict_rows(model, tokens, "whitening")
    finally:
        setattr(model.config, NORMALIZED, before)


def folded(model: PreTrainedModel, mean: Array, kernel: Array) -> PreTrainedModel:
    """Return a model whose vectors, before the division by their length, are ``(vectors - mean) @ kernel``.

    The map goes into its last linear layer. In evaluation mode, on the CPU; ``model`` is left as it was.
    """
    named = {name: value for name, value in model.state_dict().items() if name in output_parameters(model)}
    (weight,) = (name for name, value in named.items() if value.dim() == 2)
    (bias,) = (name for name, value in named.items() if value.dim() == 1)
    after, middle = torch.tensor(kernel.T.copy()), torch.tensor(mean)

    def wide(name: str) -> Tensor:
        value: Tensor = named[name].detach().cpu().double()
        return value

    changed = {weight: after @ wide(weight), bias: after @ (wide(bias) - middle)}
    with quiet():
        new: PreTrainedModel = type(model)(with_head(model.config, head_of_size(kernel.shape[1])))
    new.load_state_dict(model.state_dict() | {name: value.float() for name, value in changed.items()})
    new.train(False)
    return new
