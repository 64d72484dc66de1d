"""Word embeddings in training: those that no row reads only decay, and everything is as if all were a parameter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.data.dataset import Split
from compress.models.masking import Pattern, mask
from compress.models.tokens import Tokens, tokenize
from compress.train import Objective, Supervised, Training, fit
from compress.train.words import words_in_use
from tests.conftest import tiny_model, tiny_tokenizer

READ, UNREAD = "good film bad plot", "awful"


class AllLearn(Supervised):
    """A training in which every embedding is a parameter."""

    reads_rows_alone = False


def few_words(rows: int = 24) -> Tokens:
    words = np.array(READ.split())
    draws = np.random.default_rng(3).integers(0, len(words), (rows, 5))
    texts = tuple(" ".join(words[draw[: 1 + row % 5]]) for row, draw in enumerate(draws))
    return tokenize(Split(texts, None, draws[:, 0] % 2), tiny_tokenizer(), 16)


def table(model: PreTrainedModel) -> Tensor:
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, Tensor)
    return weight.detach().clone()


def trained(kind: type[Supervised], model: PreTrainedModel, folder: Path) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Return the embeddings at each validation, and all weights at the end."""
    seen: list[Tensor] = []

    def validate() -> dict[str, float]:
        seen.append(table(model))
        return {}

    settings = Training(epochs=2, batch_size=8, learning_rate=1e-2, weight_decay=0.5, layer_decay=0.9)
    fit(kind(model), few_words(), settings, seed=3, folder=folder, title="test", validate=validate)
    return seen, model.state_dict()


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v2"])
def test_a_training_gives_the_weights_that_it_gives_with_all_embeddings_as_a_parameter(
    family: str, tmp_path: Path
) -> None:
    start = table(tiny_model(family))
    seen, ours = trained(Supervised, tiny_model(family), tmp_path / "ours")
    known, expected = trained(AllLearn, tiny_model(family), tmp_path / "all")
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-5, msg=name)
    for mine, other in zip(seen, known, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
    unread = tiny_tokenizer().convert_tokens_to_ids(UNREAD)
    assert 0.9 < float((seen[-1][unread] / start[unread]).mean()) < 0.995  # what weight decay leaves of it


def test_only_the_embeddings_that_rows_read_are_a_parameter_meanwhile() -> None:
    model, rows = tiny_model(), few_words()
    whole, batch = model.get_input_embeddings().weight, rows.batch([0, 1, 4])
    expected = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    with words_in_use(Supervised(model), rows) as words:
        assert words is not None
        own = model.get_input_embeddings().weight
        assert len(own) == len(READ.split()) + 3  # with padding and the two special tokens of every row
        assert torch.equal(words.trained(whole), own)
        found = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        assert torch.equal(found, expected)
        found.sum().backward()
        assert own.grad is not None
        assert not own.grad[0].any()  # padding
        assert own.grad[1:].any(-1).sum() >= 3
    assert model.get_input_embeddings().weight is whole
    assert not model.get_input_embeddings()._forward_pre_hooks


def tied(model: PreTrainedModel) -> Objective:
    objective = Supervised(model)
    objective.decoder = nn.Linear(16, len(table(model)), bias=False)
    objective.decoder.weight = model.get_input_embeddings().weight
    return objective


def masked(model: PreTrainedModel) -> Objective:
    mask(model.get_input_embeddings(), Pattern())
    return Supervised(model)


def frozen(model: PreTrainedModel) -> Objective:
    model.get_input_embeddings().requires_grad_(False)
    return Supervised(model)


@pytest.mark.parametrize("made", [tied, masked, frozen, AllLearn])
def test_all_embeddings_stay_a_parameter_where_more_than_rows_reads_them(made: type[AllLearn]) -> None:
    with words_in_use(made(tiny_model()), few_words()) as words:
        assert words is None
