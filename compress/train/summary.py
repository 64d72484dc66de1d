"""One sentence about a training curve: how long training ran, and which weights were kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from compress.train.callbacks import rank

PREFIX = "validation_"


def summary(curve: Sequence[Mapping[str, float]], most_epochs: float, *, best_kept: bool) -> str:
    """Return a clause such as "stopped after 6 of 10 epochs: validation accuracy 0.861, best at epoch 4".

    ``curve`` is what `fit` returns; ``most_epochs`` is the longest it could run; ``best_kept`` tells whether early
    stopping restored the best weights.
    """
    trained = max((point["epoch"] for point in curve), default=0.0)
    measured = [point for point in curve if any(name.startswith(PREFIX) for name in point)]
    early = trained < most_epochs - 1e-3
    length = (
        f"stopped after {trained:.3g} of {most_epochs:.3g} epochs"
        if early
        else f"trained for {trained:.3g} epoch{'s' * (trained != 1)}"
    )
    if not measured:
        return f"{length}, without validation"
    scores = [
        {name.removeprefix(PREFIX): value for name, value in p.items() if name.startswith(PREFIX)} for p in measured
    ]
    metric = next(iter(scores[0]))
    if not best_kept:
        return f"{length}: validation {metric} {scores[-1][metric]:.3f} at the end, which was kept"
    best = max(range(len(scores)), key=lambda number: rank(scores[number]))
    text = f"{length}: validation {metric} {scores[best][metric]:.3f}, best at epoch {measured[best]['epoch']:.3g}"
    return f"{text}, the last; more epochs may help" if not early and best == len(scores) - 1 else text
