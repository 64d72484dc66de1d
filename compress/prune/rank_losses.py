"""What a model loses by low-rank matrices: the spectra of its matrices on real inputs, and the distances they give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.families.base import linear
from compress.families.registry import family_of
from compress.models.low_rank import Spectrum, spectrum, spectrum_of_outputs
from compress.models.outputs import observe
from compress.progress import progress
from compress.prune.rank_costs import WHOLE, Matrix, Ranks
from compress.prune.sensitivity import Batch, Distances


def modules_of(model: PreTrainedModel, matrices: Sequence[Matrix]) -> list[nn.Linear]:
    """Return the linear layers of matrices."""
    layers = family_of(model.config).layers(model)
    return [linear(layers[matrix.layer], matrix.name) for matrix in matrices]


@torch.no_grad()
def spectra_of(model: PreTrainedModel, matrices: Sequence[Matrix], batches: Sequence[Batch]) -> list[Spectrum]:
    """Return the spectrum of each matrix on the real tokens of some batches.

    What a matrix reads beside tokens, as DeBERTa's do relative positions, does not count.
    """
    modules = modules_of(model, matrices)
    moments = [_Moment(module) for module in modules]
    device = next(model.parameters()).device
    with ExitStack() as listening:
        for moment in moments:
            listening.enter_context(moment.listening())
        for batch in progress(batches, title="inputs of matrices", unit="batch"):
            here = {name: value.to(device) for name, value in batch.items()}
            for moment in moments:
                moment.mask = here["attention_mask"].bool()
            observe(model, here)
    pairs = zip(modules, moments, strict=True)
    return [moment.spectrum(module) for module, moment in progress(list(pairs), title="spectra", unit="matrix")]


class _Moment:
    """The second moment of a linear layer's inputs, or of its outputs without the bias, whichever has fewer numbers."""

    def __init__(self, module: nn.Linear) -> None:
        self.module, self.of_inputs = module, module.in_features <= module.out_features
        self.sum = torch.zeros(2 * [min(module.weight.shape)], dtype=torch.float64)
        self.tokens, self.mask = 0, torch.ones(0, 0, dtype=torch.bool)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Add what the layer is given."""
        handle = self.module.register_forward_hook(self._add)
        try:
            yield
        finally:
            handle.remove()

    def _add(self, module: nn.Module, given: Any, gives: Tensor) -> None:
        if given[0].shape[:-1] != self.mask.shape:
            return
        values = given[0] if self.of_inputs else nn.functional.linear(given[0], self.module.weight)
        tokens = values[self.mask].double()
        self.sum += (tokens.T @ tokens).cpu()
        self.tokens += len(tokens)

    def spectrum(self, module: nn.Linear) -> Spectrum:
        """Return the spectrum of the layer's matrix."""
        mean = self.sum / max(self.tokens, 1)
        return spectrum(module.weight.cpu(), mean) if self.of_inputs else spectrum_of_outputs(mean)


class RankSensitivity(Distances):
    """The distances of models with low-rank matrices."""

    def __init__(
        self,
        model: PreTrainedModel,
        batches: Sequence[Batch],
        matrices: Sequence[Matrix],
        spectra: Sequence[Spectrum],
    ) -> None:
        super().__init__(model, batches)
        self.matrices, self.spectra, self.modules = matrices, spectra, modules_of(model, matrices)

    @torch.no_grad()
    def distance(self, ranks: Ranks) -> float:
        """Return the distance of the model with these ranks."""
        with self._with(dict(enumerate(ranks))):
            return self.between(self.answered(self.model))

    @torch.no_grad()
    def by_matrix(self, options: Sequence[Sequence[int]]) -> list[dict[int, float]]:
        """Return, for each matrix and the ranks that it can have, the distance when it alone has this rank."""
        found: list[dict[int, float]] = [{} for _ in self.matrices]
        for layer in progress(sorted({matrix.layer for matrix in self.matrices}), title="sensitivity", unit="layer"):
            with self.from_layer(layer) as distance:
                for place in (place for place, matrix in enumerate(self.matrices) if matrix.layer == layer):
                    for rank in options[place]:
                        with self._with({place: rank}):
                            found[place][rank] = 0.0 if rank == WHOLE else distance()
        return found

    @contextmanager
    def _with(self, ranks: Mapping[int, int]) -> Iterator[None]:
        """Give matrices the nearest weights of these ranks, for a time."""
        chosen = {place: rank for place, rank in ranks.items() if rank != WHOLE}
        before = {place: self.modules[place].weight.clone() for place in chosen}
        for place, rank in chosen.items():
            self.modules[place].weight.copy_(self.spectra[place].nearest(before[place], rank))
        try:
            yield
        finally:
            for place, weight in before.items():
                self.modules[place].weight.copy_(weight)
