"""BiLSTM and convolutional students: against loops, after a reload, without regard to padding, as ONNX, int8."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.data.dataset import Split
from compress.distill.losses import HardLabels, HiddenStates, LogitsMSE, SoftTargets
from compress.distill.stage import Distill
from compress.errors import RecipeError
from compress.models.evaluate import predict_rows
from compress.models.loading import save_model
from compress.models.lstm import Lstm
from compress.models.tokens import tokenize
from compress.onnx.graph import input_names, write_onnx
from compress.prune.heads import PruneHeads
from compress.prune.vocabulary import PruneVocabulary
from compress.quantize.int8 import DynamicInt8
from compress.student.base import Material
from compress.student.bilstm import BiLstm
from compress.student.cnn import Cnn, Pooling
from compress.student.static import Static
from compress.student.words import EmbeddingStudent, Pieces, WordStart, narrowed
from tests.conftest import EVERY_FAMILY, save_tiny, tiny_model, tiny_tokenizer
from tests.fresh import run_fresh
from tests.run.test_recipe import recipe

TEXTS = Split(("the film was good", "an awful plot", "dull", "a very lovely film and so good music is great"))
PAIRS = Split(TEXTS.texts, ("so dull", "good actor was great and fine", "the plot", "bad"))
STUDENTS = (
    BiLstm(hidden_size=6, fully_connected_size=10),
    BiLstm(hidden_size=4, fully_connected_size=10, layers=2, embedding_size=8),
    Cnn(filters=5),
    Cnn(filters=4, widths=[2], pooling=Pooling.mean, embedding_size=20),
    Static(bigrams=50, embedding_size=8, hidden_size=6),
)
NAMES = ("bilstm", "two layers", "cnn", "mean", "static")


def built(student: EmbeddingStudent, split: Split, family: str = "bert") -> tuple[PreTrainedModel, Any]:
    teacher, theirs = tiny_model(family), tiny_tokenizer(family)
    ours = student.tokenizer(theirs, split)
    torch.manual_seed(1)
    return student.build(teacher, Material(theirs, ours, split.pairs is not None)), ours


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def last_state(lstm: nn.Module, states: list[Tensor]) -> Tensor:
    """One direction of an LSTM, gate by gate, in ONNX's order of gates."""
    assert isinstance(lstm, Lstm)
    b_in, b_hidden = lstm.bias[0].chunk(2)
    hidden = cell = torch.zeros(lstm.recurrence.shape[2])
    for state in states:
        gates = lstm.weight[0] @ state + b_in + lstm.recurrence[0] @ hidden + b_hidden
        enter, leave, forget, new = gates.chunk(4)
        cell = sigmoid(forget) * cell + sigmoid(enter) * torch.tanh(new)
        hidden = sigmoid(leave) * torch.tanh(cell)
    return hidden


@torch.no_grad()
def test_the_bilstm_is_two_lstms_over_the_rows_own_tokens_gate_by_gate() -> None:
    model, tokenizer = built(BiLstm(hidden_size=6, fully_connected_size=10), TEXTS)
    tokens = tokenize(TEXTS, tokenizer, 32)
    found = predict_rows(model, tokens)
    for row in range(len(TEXTS)):
        ids = tokens.columns["input_ids"][tokens.offsets[row] : tokens.offsets[row + 1]]
        states = list(model.embeddings(torch.tensor(ids)))
        both = torch.cat([last_state(model.forwards[0], states), last_state(model.backwards[0], states[::-1])])
        hidden = torch.relu(model.fully_connected.weight @ both + model.fully_connected.bias)
        expected = model.classifier.weight @ hidden + model.classifier.bias
        np.testing.assert_allclose(found[row], expected.numpy(), atol=1e-5)


@torch.no_grad()
def test_the_bilstm_compares_the_two_texts_of_a_pair() -> None:
    model, tokenizer = built(BiLstm(hidden_size=6, fully_connected_size=10), PAIRS)
    tokens = tokenize(PAIRS, tokenizer, 32)
    found = predict_rows(model, tokens)
    for row in range(len(PAIRS)):
        part = slice(tokens.offsets[row], tokens.offsets[row + 1])
        ids, types = tokens.columns["input_ids"][part], tokens.columns["token_type_ids"][part]
        sides = []
        for side in (0, 1):
            states = list(model.embeddings(torch.tensor(ids[types == side])))
            sides.append(
                torch.cat([last_state(model.forwards[0], states), last_state(model.backwards[0], states[::-1])])
            )
        a, b = sides
        both = torch.cat([a, b, a * b, (a - b).abs()])
        hidden = torch.relu(model.fully_connected.weight @ both + model.fully_connected.bias)
        expected = model.classifier.weight @ hidden + model.classifier.bias
        np.testing.assert_allclose(found[row], expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("pooling", Pooling)
@torch.no_grad()
def test_a_filter_answers_at_every_real_token_and_the_answers_are_pooled(pooling: Pooling) -> None:
    model, tokenizer = built(Cnn(filters=3, widths=[2, 4], pooling=pooling), TEXTS)
    tokens = tokenize(TEXTS, tokenizer, 32)
    found = predict_rows(model, tokens)
    for row in range(len(TEXTS)):
        ids = tokens.columns["input_ids"][tokens.offsets[row] : tokens.offsets[row + 1]]
        states = model.embeddings(torch.tensor(ids))
        features = []
        for filters, width in zip(model.filters, (2, 4), strict=True):
            padded = torch.cat([states, torch.zeros(width - 1, states.shape[1])])
            for flat, bias in zip(filters.weight, filters.bias, strict=True):
                weight = flat.view(width, -1)
                answers = []
                for place in range(len(ids)):
                    products = sum(float(weight[step] @ padded[place + step]) for step in range(width))
                    answers.append(max(0.0, products + float(bias)))
                features.append(max(answers) if pooling is Pooling.max else sum(answers) / len(answers))
        expected = model.classifier.weight @ torch.tensor(features) + model.classifier.bias
        np.testing.assert_allclose(found[row], expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("student", STUDENTS, ids=NAMES)
@pytest.mark.parametrize("split", [TEXTS, PAIRS], ids=["texts", "pairs"])
@pytest.mark.parametrize("family", EVERY_FAMILY)
@torch.no_grad()
def test_padding_never_changes_logits(student: EmbeddingStudent, split: Split, family: str) -> None:
    model, tokenizer = built(student, split, family)
    tokens = tokenize(split, tokenizer, 32)
    together = predict_rows(model, tokens)
    for row in range(len(split)):
        batch = tokens.batch([row])
        inputs = {name: value for name, value in batch.items() if name not in ("rows", "labels")}
        np.testing.assert_allclose(model(**inputs).logits[0].numpy(), together[row], atol=1e-6)


@pytest.mark.parametrize("family", ["roberta", "distilbert"])
@torch.no_grad()
def test_without_token_types_the_second_text_is_what_follows_the_first_separator(family: str) -> None:
    student = BiLstm(hidden_size=6, fully_connected_size=10)
    (model, tokenizer), (twin, typed) = built(student, PAIRS, family), built(student, PAIRS)
    twin.load_state_dict(model.state_dict())
    np.testing.assert_allclose(
        predict_rows(model, tokenize(PAIRS, tokenizer, 32)), predict_rows(twin, tokenize(PAIRS, typed, 32)), atol=1e-6
    )


@torch.no_grad()
def test_they_reload_to_the_bit_in_a_fresh_process(tmp_path: Path) -> None:
    for name, student in zip(NAMES, STUDENTS, strict=True):
        model, tokenizer = built(student, PAIRS)
        save_model(model, tokenizer, tmp_path / name)
        np.save(tmp_path / name / "said.npy", predict_rows(model, tokenize(PAIRS, tokenizer, 32)))
    code = (
        "import sys, numpy as np, compress\n"
        "from pathlib import Path\n"
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n"
        "from compress.models.evaluate import predict_rows; from compress.models.tokens import tokenize\n"
        "from tests.student.test_words import PAIRS\n"
        "for folder in Path(sys.argv[1]).iterdir():\n"
        "    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()\n"
        "    tokens = tokenize(PAIRS, AutoTokenizer.from_pretrained(folder), 32)\n"
        "    assert (predict_rows(model, tokens) == np.load(folder / 'said.npy')).all()\n"
    )
    run_fresh(code, tmp_path)


def exported_cases() -> Iterator[Any]:
    """Yield every student for texts and for pairs, of which each takes one now and the other with the slow tests."""
    for place, (name, student) in enumerate(zip(NAMES, STUDENTS, strict=True)):
        for pairs, (split, family) in enumerate([(TEXTS, "bert"), (PAIRS, "distilbert")]):
            marks = () if place % 2 == pairs else pytest.mark.slow
            yield pytest.param(student, split, family, marks=marks, id=f"{name} of {'pairs' if pairs else 'texts'}")


@pytest.mark.parametrize(("student", "split", "family"), list(exported_cases()))
def test_onnx_says_the_same_for_any_batch_and_length(
    student: EmbeddingStudent, split: Split, family: str, tmp_path: Path
) -> None:
    import onnxruntime

    model, tokenizer = built(student, split, family)
    write_onnx(model, input_names(tokenizer), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    tokens = tokenize(split, tokenizer, 32)
    known = predict_rows(model, tokens)
    for rows in ([0], [2], [3, 1], [0, 1, 2, 3]):
        feed = {name: value.numpy() for name, value in tokens.batch(rows).items() if name in input_names(tokenizer)}
        np.testing.assert_allclose(session.run(["logits"], feed)[0], known[rows], atol=1e-5)


def test_words_are_those_of_the_training_texts_most_frequent_first() -> None:
    student = BiLstm(tokens=Pieces.words, min_count=2, vocabulary=3)
    first, again = (student.tokenizer(tiny_tokenizer(), TEXTS) for _ in range(2))
    assert first.get_vocab() == again.get_vocab()
    words = [word for word, _ in sorted(first.get_vocab().items(), key=lambda item: item[1])]
    assert set(words[:5]) == {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    assert words[5:] == ["film", "good"]  # twice each; a tie goes by the alphabet
    assert first.decode(first("Good zebra film").input_ids) == "[CLS] good [UNK] film [SEP]"
    assert first("good", "film").token_type_ids == [0, 0, 0, 1, 1]
    assert first.model_max_length == 32


def test_a_words_embedding_starts_as_the_mean_of_its_pieces() -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "fil", "##m", "##s", "good"]
    backend = Tokenizer(WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    backend.pre_tokenizer = Whitespace()
    theirs = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    teacher, split = tiny_model(), Split(("good films", "good film"))
    student = BiLstm(tokens=Pieces.words, min_count=1)
    ours = student.tokenizer(theirs, split)
    model = student.build(teacher, Material(theirs, ours, False))
    known, own = teacher.get_input_embeddings().weight, model.get_input_embeddings().weight
    torch.testing.assert_close(own[ours.convert_tokens_to_ids("films")], known[[4, 5, 6]].mean(0))
    torch.testing.assert_close(own[ours.convert_tokens_to_ids("good")], known[7])


def test_narrower_embeddings_keep_what_inner_products_keep_most() -> None:
    torch.manual_seed(0)
    low_rank = torch.randn(30, 3) @ torch.randn(3, 16)
    torch.testing.assert_close(
        narrowed(low_rank, 3) @ narrowed(low_rank, 3).T, low_rank @ low_rank.T, rtol=1e-3, atol=1e-3
    )
    assert torch.equal(narrowed(low_rank, 16), low_rank)
    assert torch.equal(narrowed(low_rank, 20)[:, :16], low_rank)


def test_embeddings_may_start_at_random() -> None:
    model, _ = built(Cnn(start=WordStart.random), TEXTS)
    assert not torch.equal(model.get_input_embeddings().weight, tiny_model().get_input_embeddings().weight)


WHOLE: dict[str, tuple[EmbeddingStudent, float]] = {
    "bilstm": (BiLstm(tokens=Pieces.words, hidden_size=8), 1e-2),
    "cnn": (Cnn(tokens=Pieces.words, filters=8), 1e-2),
    "static": (Static(tokens=Pieces.words, bigrams=100, embedding_size=8), 3e-2),
}


@pytest.mark.parametrize("name", ["bilstm", pytest.param("cnn", marks=pytest.mark.slow), "static"])
def test_a_whole_run_with_words_of_its_own(name: str, files: dict[str, Path], tmp_path: Path) -> None:
    save_tiny(tmp_path / "teacher")
    student, rate = WHOLE[name]
    distill = Distill(losses={"mse": LogitsMSE(), "hard": HardLabels()}, epochs=6, learning_rate=rate, batch_size=16)
    parts = {"student": student, "distill": distill, "quantize": {"dynamic": DynamicInt8()}}
    recipe(files, tmp_path / "teacher", tmp_path, **parts, prune={"vocabulary": PruneVocabulary()}).run()
    facts = json.loads((tmp_path / "run" / "report.json").read_text())
    stages = {stage["name"]: stage for stage in facts["stages"]}
    assert stages["distill"]["metrics"]["accuracy"] > 0.7
    assert "layers" not in stages["distill"]
    artifacts = {artifact["name"]: artifact for artifact in facts["artifacts"]}
    assert artifacts["onnx"]["agreement"] == 1
    assert artifacts["dynamic"]["agreement"] > 0.9
    ran, total = artifacts["dynamic"]["int8_matmuls"]
    assert 0 < ran == total
    again = recipe(files, tmp_path / "teacher", tmp_path, **parts, prune={"vocabulary": PruneVocabulary()})
    assert all(record.reused for record in again.run().state.records)


def test_what_needs_layers_is_refused_before_work(files: dict[str, Path], tmp_path: Path) -> None:
    save_tiny(tmp_path / "teacher")
    losses = {"soft": SoftTargets(), "hidden": HiddenStates()}
    wrong = recipe(
        files,
        tmp_path / "teacher",
        tmp_path,
        student=BiLstm(),
        distill=Distill(losses=losses),
        prune={"heads": PruneHeads()},
    )
    with pytest.raises(RecipeError) as told:
        wrong.run()
    assert {fault.setting for fault in told.value.faults} == {"distill.losses.hidden", "prune.heads.ratio"}
