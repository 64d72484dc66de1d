"""The training engine: it learns, it resumes exactly, it leaves the world as it was."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress.data.dataset import Split
from compress.errors import CompressError
from compress.models.evaluate import main_metric, predict_rows
from compress.models.outputs import observe
from compress.models.tokens import Tokens, tokenize
from compress.tasks.classification import Classification
from compress.train import Decay, LengthGrouped, Supervised, Training, fit, summary
from tests.conftest import reviews, tiny_model, tiny_tokenizer

TASK = Classification(("bad", "good"))


def tokens(rows: int = 120, seed: int = 1) -> Tokens:
    made = reviews(rows, seed)
    labels = np.array([TASK.encode(label) for label, _ in made], dtype=np.int64)
    return tokenize(Split(tuple(text for _, text in made), None, labels), tiny_tokenizer(), 32)


def train(folder: Path, stop_at: int | None = None) -> dict[str, torch.Tensor]:
    """Train a tiny classifier; ``stop_at`` raises in the middle, as an interruption does."""
    model, validation = tiny_model(), tokens(40, 2)
    settings = Training(epochs=3, batch_size=16, learning_rate=3e-3, checkpoint_seconds=1e-9)
    objective = Supervised(model)
    if stop_at is not None:
        steps = iter(range(10**6))

        def interrupted(*arguments: Any, forward: Callable[..., Any] = objective.forward) -> Any:
            if next(steps) == stop_at:
                raise KeyboardInterrupt
            return forward(*arguments)

        objective.forward = interrupted  # type: ignore[method-assign]
    fit(
        objective, tokens(), settings, seed=3, folder=folder, title="test",
        validate=lambda: main_metric(model, validation, TASK),
    )  # fmt: skip
    return model.state_dict()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights after a training that nothing interrupts."""
    return train(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("stop_at", [3, 8, 17])
def test_an_interrupted_training_ends_with_the_same_weights_to_the_bit(
    stop_at: int, whole: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", stop_at)
    assert list((tmp_path / "parts").rglob("whole"))
    resumed = train(tmp_path / "parts")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_checkpoint_cut_short_is_not_resumed_from(whole: dict[str, torch.Tensor], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", 9)
    last = max((tmp_path / "parts" / "checkpoints").iterdir(), key=lambda p: int(p.name.rpartition("-")[2]))
    (last / "whole").unlink()
    (last / "optimizer.pt").write_bytes(b"cut")
    resumed = train(tmp_path / "parts")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def flip(path: Path) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize(("name", "damaged"), [("optimizer.pt", 1), ("model.safetensors", 2), ("whole", 1)])
def test_a_damaged_checkpoint_is_told_and_not_resumed_from(
    name: str, damaged: int, whole: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", 9)
    checkpoints = sorted((tmp_path / "parts" / "checkpoints").iterdir(), key=lambda p: int(p.name.rpartition("-")[2]))
    assert len(checkpoints) == 2
    for checkpoint in checkpoints[-damaged:]:
        flip(checkpoint / name)
    capsys.readouterr()
    resumed = train(tmp_path / "parts")
    told = [line for line in capsys.readouterr().err.splitlines() if "resumes from an earlier checkpoint" in line]
    assert len(told) == damaged
    assert str(checkpoints[-1] / name) in told[0]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_training_learns_and_leaves_random_state_and_mode_alone(tmp_path: Path) -> None:
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    model = tiny_model(hidden_dropout_prob=0.0)
    settings = Training(epochs=10, batch_size=16, learning_rate=1e-2)
    fit(Supervised(model), tokens(), settings, seed=3, folder=tmp_path, title="test", validate=dict)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected
    assert not model.training
    assert main_metric(model, tokens(60, 7), TASK)["accuracy"] >= 0.9


def test_early_stopping_keeps_the_best_epoch(tmp_path: Path) -> None:
    model = tiny_model()
    values = iter([0.5, 0.9, 0.7, 0.6, 0.95])
    at_best: list[dict[str, torch.Tensor]] = []

    def validate() -> dict[str, float]:
        at_best.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"accuracy": next(values)}

    settings = Training(epochs=5, batch_size=16, learning_rate=3e-3, early_stopping=2)
    curve = fit(Supervised(model), tokens(), settings, seed=3, folder=tmp_path, title="test", validate=validate)
    assert [point["validation_accuracy"] for point in curve if "validation_accuracy" in point] == [0.5, 0.9, 0.7, 0.6]
    assert all(torch.equal(at_best[1][name], value) for name, value in model.state_dict().items())


def scripted(
    folder: Path, answers: list[dict[str, float]], *, rows: int = 48, **arguments: Any
) -> tuple[list[int], list[dict[str, float]], int]:
    """Train with what validation says given; return the steps of the validations, the curve and the steps kept."""
    model, found = tiny_model(), iter(answers)
    weights: list[torch.Tensor] = []

    def validate() -> dict[str, float]:
        weights.append(model.classifier.bias.detach().clone())
        return next(found)

    settings = arguments.pop("settings")
    curve = fit(
        Supervised(model), tokens(rows), settings, seed=3, folder=folder, title="test", validate=validate, **arguments
    )
    steps = [int(point["step"]) for point in curve if any(name.startswith("validation_") for name in point)]
    kept = next(n for n, bias in enumerate(weights) if torch.equal(bias, model.classifier.bias))
    return steps, curve, steps[kept]


def scores(*values: float) -> list[dict[str, float]]:
    return [{"accuracy": value} for value in values]


def test_few_rows_get_more_epochs_up_to_the_floor_of_steps(tmp_path: Path) -> None:
    settings = Training(epochs=1, batch_size=16, learning_rate=1e-3)
    steps, _, _ = scripted(tmp_path, scores(*[0.5] * 9), settings=settings, least_steps=10)
    assert steps == [3, 6, 9, 10]


def test_no_early_stop_comes_before_the_floor(tmp_path: Path) -> None:
    settings = Training(epochs=8, batch_size=16, learning_rate=1e-3, early_stopping=1)
    steps, _, kept = scripted(tmp_path, scores(0.9, *[0.5] * 9), settings=settings, least_steps=12)
    assert steps == [3, 6, 9, 12]
    assert kept == 3


def test_short_epochs_are_validated_a_few_at_a_time_and_after_the_last_step(tmp_path: Path) -> None:
    settings = Training(epochs=8, batch_size=16, learning_rate=1e-3, early_stopping=2)
    steps, _, kept = scripted(tmp_path / "a", scores(0.4, 0.5, 0.6), settings=settings, validate_every=3)
    assert (steps, kept) == ([9, 18, 24], 24)
    steps, _, kept = scripted(
        tmp_path / "b", scores(0.4, 0.3, 0.3, 0.9), settings=replace(settings, epochs=12), validate_every=3
    )
    assert (steps, kept) == ([9, 18, 27], 9)  # two validations without a better one, not two epochs


def test_of_equal_metrics_the_lower_loss_is_kept(tmp_path: Path) -> None:
    answers = [{"accuracy": a, "loss": b} for a, b in ((0.8, 0.5), (0.9, 0.4), (0.9, 0.3), (0.9, 0.6), (0.8, 0.1))]
    settings = Training(epochs=5, batch_size=16, learning_rate=1e-3, early_stopping=2)
    steps, curve, kept = scripted(tmp_path, answers, settings=settings)
    assert kept == 9
    assert summary(curve, 5, best_kept=True) == "trained for 5 epochs: validation accuracy 0.900, best at epoch 3"
    assert steps == [3, 6, 9, 12, 15]


def test_a_validation_that_is_not_finite_is_a_divergence(tmp_path: Path) -> None:
    settings = Training(epochs=2, batch_size=16, learning_rate=1e-3, early_stopping=1)
    answers = [{"accuracy": 0.5, "loss": float("nan")}]
    with pytest.raises(CompressError, match="Training diverged: after step 3 validation gives"):
        scripted(tmp_path, answers, settings=settings)


@pytest.mark.parametrize(
    ("most", "best_kept", "values", "message"),
    [
        (10, True, [0.7, 0.861, 0.85], "stopped after 3 of 10 epochs: validation accuracy 0.861, best at epoch 2"),
        (3, True, [0.7, 0.861, 0.85], "trained for 3 epochs: validation accuracy 0.861, best at epoch 2"),
        (3, True, [0.7, 0.8, 0.9],
         "trained for 3 epochs: validation accuracy 0.900, best at epoch 3, the last; more epochs may help"),
        (3, False, [0.7, 0.9, 0.8],
         "trained for 3 epochs: validation accuracy 0.800 at the end, which was kept"),
        (3, True, [], "trained for 3 epochs, without validation"),
    ],
)  # fmt: skip
def test_a_curve_is_told_in_a_clause(most: float, best_kept: bool, values: list[float], message: str) -> None:
    curve = [{"loss": 0.1, "step": 30.0, "epoch": 3.0}]
    curve += [{"step": 10.0 * n, "epoch": float(n), "validation_accuracy": v} for n, v in enumerate(values, 1)]
    assert summary(curve, most, best_kept=best_kept) == message


def test_a_diverging_training_is_stopped_in_plain_words(tmp_path: Path) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.classifier.bias.fill_(float("nan"))
    with pytest.raises(CompressError, match="Training diverged: the loss is nan at step 0"):
        fit(Supervised(model), tokens(), Training(), seed=3, folder=tmp_path, title="test", validate=dict)


@pytest.mark.parametrize("stop_at", [pytest.param(0, marks=pytest.mark.slow), 8, 16])
def test_early_stopping_resumes_as_if_nothing_had_happened(stop_at: int, tmp_path: Path) -> None:
    def run(folder: Path, interrupted_after: int | None) -> tuple[list[Any], dict[str, torch.Tensor]]:
        model, validation = tiny_model(), tokens(40, 2)
        calls = iter(range(10**6))

        def validate() -> dict[str, float]:
            if next(calls) == (interrupted_after if interrupted_after is None else interrupted_after // 8):
                raise KeyboardInterrupt
            return main_metric(model, validation, TASK)

        settings = Training(
            epochs=4, batch_size=16, learning_rate=3e-3, early_stopping=1, checkpoint_seconds=1e-9
        )  # fmt: skip
        curve = fit(Supervised(model), tokens(), settings, seed=3, folder=folder, title="test", validate=validate)
        return [p["validation_accuracy"] for p in curve if "validation_accuracy" in p], model.state_dict()

    whole, weights = run(tmp_path / "whole", None)
    with suppress(KeyboardInterrupt):
        run(tmp_path / "parts", stop_at)
    again, same = run(tmp_path / "parts", None)
    assert again == whole
    assert all(torch.equal(weights[name], same[name]) for name in weights)


@pytest.mark.parametrize(("name", "damage"), [("best.json", Path.unlink), ("best-*.safetensors", flip)])
def test_damaged_weights_of_the_best_epoch_are_told_and_training_starts_anew(
    name: str, damage: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(folder: Path, stop: bool) -> dict[str, torch.Tensor]:
        metrics, model = iter([0.9, 0.5, 0.4, 0.3]), tiny_model()
        calls = iter(range(10**6))

        def validate() -> dict[str, float]:
            if next(calls) == 1 and stop:
                raise KeyboardInterrupt
            return {"accuracy": next(metrics)}

        settings = Training(
            epochs=4, batch_size=16, learning_rate=3e-3, early_stopping=3, checkpoint_seconds=1e-9
        )  # fmt: skip
        fit(Supervised(model), tokens(), settings, seed=3, folder=folder, title="test", validate=validate)
        return model.state_dict()

    whole = run(tmp_path / "whole", stop=False)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", stop=True)
    (path,) = (tmp_path / "parts").glob(name)
    damage(path)
    capsys.readouterr()
    resumed = run(tmp_path / "parts", stop=False)
    assert f"training: {path}" in capsys.readouterr().err
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_batches_hold_all_rows_once_in_similar_lengths_and_differ_by_epoch() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 1000)
    order = LengthGrouped(lengths, 10, seed=1)
    first = list(order)
    order.epoch = 1
    second = list(order)
    assert sorted(first) == list(range(1000)) == sorted(second)
    assert first != second
    spread = [np.ptp(lengths[first[i : i + 10]]) for i in range(0, 1000, 10)]
    assert np.mean(spread) < 3


def test_prediction_keeps_the_order_of_rows() -> None:
    model, rows = tiny_model(), tokens(30)
    logits = predict_rows(model, rows)
    for row in (0, 13, 29):
        with torch.no_grad():
            single = observe(model, rows.batch([row])).logits
        torch.testing.assert_close(torch.from_numpy(logits[row : row + 1]), single)


def test_a_quadratic_decay_ends_at_nothing_and_is_at_a_quarter_half_way(tmp_path: Path) -> None:
    settings = Training(epochs=20, batch_size=16, learning_rate=1e-3, warmup=0, decay=Decay.quadratic)
    curve = fit(Supervised(tiny_model()), tokens(32), settings, seed=3, folder=tmp_path, title="test", validate=dict)
    rates = {point["step"]: point["learning_rate"] for point in curve if "learning_rate" in point}
    assert rates[21] == pytest.approx(1e-3 / 4)  # the rate of the 21st step, after 20 of 40
    assert rates[40] == pytest.approx(1e-3 / 1600, rel=1e-6)
