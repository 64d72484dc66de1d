"""BiLSTM and convolutional readers of spans: a loop over tokens, padding, reloading, ONNX, learning from a teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForQuestionAnswering, PreTrainedModel

from compress.models.auto import from_config
from compress.models.loading import load_model, quiet, save_model
from compress.onnx.graph import input_names, write_onnx
from compress.student.base import Material, Student
from compress.student.bilstm import BiLstm
from compress.student.cnn import Cnn
from compress.tasks.heads import with_head
from compress.tasks.spans import AnswerSpans
from tests.conftest import CONFIGS, tiny_tokenizer
from tests.student.test_words import last_state

SMALL: dict[str, Student] = {
    "bilstm": BiLstm(hidden_size=6, fully_connected_size=10, layers=2),
    "cnn": Cnn(filters=5, widths=[2, 3]),
}
QUESTIONS = ["was the film good", "dull", "music is"]
CONTEXTS = ["the plot was dull and so the film was good", "a very lovely film", "so good music is great"]


def built(student: Student, family: str = "bert") -> PreTrainedModel:
    torch.manual_seed(0)
    with quiet():
        teacher = from_config(with_head(CONFIGS[family](), AnswerSpans().head_config())).eval()
    tokenizer = tiny_tokenizer(family)
    model = student.build(teacher, Material(tokenizer, tokenizer, pairs=True))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model


def batch(tokenizer: object, rows: slice = slice(None)) -> dict[str, Tensor]:
    encoded = tokenizer(QUESTIONS[rows], CONTEXTS[rows], return_tensors="pt", padding=True)  # type: ignore[operator]
    return dict(encoded)


def features_of(model: PreTrainedModel, row: Tensor) -> list[Tensor]:
    """Return the features of each token of a row of embeddings, by another way than the model's."""
    if hasattr(model, "forwards"):
        onward = [last_state(model.forwards[0], [*row[: place + 1]]) for place in range(len(row))]
        back = [last_state(model.backwards[0], [*row[place:]][::-1]) for place in range(len(row))]
        return [torch.cat(sides) for sides in zip(onward, back, strict=True)]
    around = nn.functional.pad(row, (0, 0, 1, 1))
    return [model.filters[0](around[place : place + 3].flatten()).relu() for place in range(len(row))]


@pytest.mark.parametrize("family", ["bert", "roberta"])  # with token types, and without
@pytest.mark.parametrize(
    "student", [BiLstm(hidden_size=6, fully_connected_size=10), Cnn(filters=5, widths=[3])], ids=["bilstm", "cnn"]
)
@torch.no_grad()
def test_each_token_is_read_beside_the_question_aligned_with_it_and_compared_with_the_whole_question(
    student: Student, family: str
) -> None:
    model, tokenizer = built(student, family), tiny_tokenizer(family)
    found = model(**batch(tokenizer))
    assert ("token_type_ids" in batch(tokenizer)) is (family == "bert")
    for row, (question, context) in enumerate(zip(QUESTIONS, CONTEXTS, strict=True)):
        ids = tokenizer(question, context)["input_ids"]
        asked = len(tokenizer(question)["input_ids"])  # [CLS] question [SEP]
        states = model.embeddings(torch.tensor(ids))
        side_by_side = []
        for state in states:
            scores = torch.stack([state @ other / len(state) ** 0.5 for other in states[:asked]])
            shares = scores.exp() / scores.exp().sum()
            side_by_side.append(torch.cat([state, sum(s * other for s, other in zip(shares, states, strict=False))]))
        features = features_of(model, torch.stack(side_by_side))
        weights = torch.stack([model.weight_in_question(feature)[0] for feature in features[:asked]]).exp()
        whole = sum(weight * feature for weight, feature in zip(weights / weights.sum(), features, strict=False))
        for place, feature in enumerate(features):
            joined = torch.cat([feature, whole, feature * whole, (feature - whole).abs()])
            start, end = model.answer(joined)
            torch.testing.assert_close(found.start_logits[row, place], start, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(found.end_logits[row, place], end, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_readers_do_not_read_padding_and_say_the_same_when_loaded_or_exported(name: str, tmp_path: Path) -> None:
    model, tokenizer = built(SMALL[name]), tiny_tokenizer()
    rows = batch(tokenizer)
    together = model(**rows)
    for row in range(len(QUESTIONS)):
        alone = model(**batch(tokenizer, slice(row, row + 1))).end_logits[0]
        torch.testing.assert_close(together.end_logits[row, : len(alone)], alone, atol=1e-5, rtol=1e-4)
    save_model(model, tokenizer, tmp_path / "saved")
    loaded = load_model(tmp_path / "saved")
    assert type(loaded) is type(AutoModelForQuestionAnswering.from_pretrained(tmp_path / "saved"))
    torch.testing.assert_close(loaded(**rows).start_logits, together.start_logits, atol=0, rtol=0)
    names = input_names(tokenizer)
    write_onnx(loaded, names, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    start, end = session.run(["start_logits", "end_logits"], {key: rows[key].numpy() for key in names})
    real = rows["attention_mask"].bool().numpy()
    np.testing.assert_allclose(start[real], together.start_logits.numpy()[real], atol=1e-5)
    np.testing.assert_allclose(end[real], together.end_logits.numpy()[real], atol=1e-5)


def test_the_loss_is_the_mean_of_both_ends_as_in_transformers() -> None:
    model, rows = built(SMALL["cnn"]), batch(tiny_tokenizer())
    places = torch.tensor([7, 4, 5])
    found = model(**rows, start_positions=places, end_positions=places + 1)
    ends = (
        nn.functional.cross_entropy(found.start_logits, places),
        nn.functional.cross_entropy(found.end_logits, places + 1),
    )
    torch.testing.assert_close(found.loss, (ends[0] + ends[1]) / 2)
