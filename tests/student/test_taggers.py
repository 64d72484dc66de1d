"""BiLSTM and convolutional taggers, and the other students with a head per token: loops, padding, reloading, ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from transformers import AutoModelForTokenClassification, PreTrainedModel

from compress.data.dataset import Split
from compress.models.auto import from_config
from compress.models.evaluate import predict_rows
from compress.models.loading import load_model, quiet, save_model
from compress.models.tokens import tokenize
from compress.onnx.graph import input_names, write_onnx
from compress.student.base import Material, Student
from compress.student.bert import Bert
from compress.student.bilstm import BiLstm
from compress.student.cnn import Cnn
from compress.student.mobile import Mobile
from compress.student.shared import Shared
from compress.tasks.heads import with_head
from compress.tasks.tags import Tags
from tests.conftest import CONFIGS, LIKE_BERT, tiny_tokenizer
from tests.student.test_words import last_state

TASK = Tags(("O", "B-a", "I-a"))
TEXTS = Split(("the film was good", "dull", "a very lovely film and so good music is great"), None, None, Tags)
SMALL: dict[str, Student] = {
    "bilstm": BiLstm(hidden_size=6, fully_connected_size=10, layers=2),
    "cnn": Cnn(filters=5, widths=[2, 3]),
}


def tagger(family: str = "bert", task: Tags = TASK) -> PreTrainedModel:
    """Return a tiny encoder with a head per token, its weights far from symmetric."""
    torch.manual_seed(0)
    with quiet():
        model: PreTrainedModel = from_config(with_head(CONFIGS[family](), task.head_config())).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model


def built(student: Student, family: str = "bert") -> PreTrainedModel:
    tokenizer = tiny_tokenizer(family)
    torch.manual_seed(1)
    return student.build(tagger(family), Material(tokenizer, tokenizer, pairs=False))


@torch.no_grad()
def test_a_bilstm_tagger_reads_both_states_of_each_token() -> None:
    model = built(BiLstm(hidden_size=6, fully_connected_size=10))
    tokens = tokenize(TEXTS, tiny_tokenizer(), 32)
    found = predict_rows(model, tokens)
    for row in range(len(TEXTS)):
        ids = tokens.columns["input_ids"][tokens.offsets[row] : tokens.offsets[row + 1]]
        states = list(model.embeddings(torch.tensor(ids)))
        for word in range(len(TEXTS.texts[row].split())):
            token = word + 1  # behind [CLS]
            onward = last_state(model.forwards[0], states[: token + 1])
            back = last_state(model.backwards[0], states[token:][::-1])
            hidden = torch.relu(model.fully_connected(torch.cat([onward, back])))
            np.testing.assert_allclose(found[row, word], model.classifier(hidden).numpy(), atol=1e-5)


@torch.no_grad()
def test_a_convolutional_tagger_reads_the_window_around_each_token() -> None:
    model = built(Cnn(filters=5, widths=[3]))
    tokens = tokenize(TEXTS, tiny_tokenizer(), 32)
    found = predict_rows(model, tokens)
    ids = tokens.columns["input_ids"][tokens.offsets[1] : tokens.offsets[2]]  # [CLS] dull [SEP]
    assert len(ids) == 3
    answer = model.classifier(model.filters[0](model.embeddings(torch.tensor(ids)).flatten()).relu())
    np.testing.assert_allclose(found[1, 0], answer.numpy(), atol=1e-5)
    nothing = nn.functional.pad(model.embeddings(torch.tensor(ids[:2])).flatten(), (16, 0))
    expected = model.classifier(model.filters[0](nothing).relu())
    logits = model(torch.tensor(ids)[None]).logits
    np.testing.assert_allclose(logits[0, 0].numpy(), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_taggers_do_not_read_padding_and_say_the_same_when_loaded_or_exported(name: str, tmp_path: Path) -> None:
    model, tokenizer = built(SMALL[name]), tiny_tokenizer()
    tokens = tokenize(TEXTS, tokenizer, 32)
    together = predict_rows(model, tokens)
    for row in range(len(TEXTS)):
        alone = predict_rows(model, tokens.take(np.array([row])))
        np.testing.assert_allclose(together[row], alone[0], atol=1e-5)
    save_model(model, tokenizer, tmp_path / "saved")
    loaded = load_model(tmp_path / "saved")
    assert type(loaded) is type(AutoModelForTokenClassification.from_pretrained(tmp_path / "saved"))
    np.testing.assert_array_equal(predict_rows(loaded, tokens), together)
    names = input_names(tokenizer)
    write_onnx(loaded, names, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    batch = tokens.batch([0, 1, 2])
    (logits,) = session.run(["logits"], {key: batch[key].numpy() for key in names})
    np.testing.assert_allclose(tokens.gathered([([0, 1, 2], logits)]), together, atol=1e-5)


@pytest.mark.parametrize("family", LIKE_BERT)
def test_students_of_every_family_have_the_teachers_head_per_token(family: str) -> None:
    teacher, tokenizer = tagger(family), tiny_tokenizer(family)
    material = Material(tokenizer, tokenizer, pairs=False)
    students = [Bert(layers=2), Shared(layers=2)]
    if family != "distilbert":
        students.append(Mobile(layers=2))
    for student in students:
        model = student.build(teacher, material)
        assert type(model).__name__.endswith("ForTokenClassification")
        assert dict(model.config.id2label) == dict(enumerate(TASK.tags))
        split = Split(TEXTS.texts, None, None, Tags)
        assert predict_rows(model, tokenize(split, tokenizer, 32)).shape == (3, 10, 3)
    same = Bert(layers=4).build(teacher, material)
    torch.testing.assert_close(same.classifier.weight, teacher.classifier.weight)
