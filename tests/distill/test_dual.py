"""Dual training: mixtures of two vocabularies, both softmaxes, projections by hand, resumption, a whole run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress.data.dataset import Split
from compress.distill.dual import Dual, ProjectedSide
from compress.distill.dual_objective import DualObjective, Projections
from compress.distill.losses import HardLabels, SoftTargets
from compress.distill.mixing import SharedWords, words_of
from compress.distill.stage import Distill
from compress.errors import ModelError, RecipeError
from compress.families.language_head import load_language_model
from compress.known import Known
from compress.models.loading import load_config, load_model
from compress.models.word_pieces import trained_pieces
from compress.run.check import check
from compress.student.base import Material
from compress.student.bert import Bert
from compress.train.masking import HIDDEN
from tests.conftest import LIKE_BERT, VOCABULARY, reviews, tiny_tokenizer
from tests.families.test_language_head import save_language_model
from tests.run.test_recipe import made, recipe

TEXTS = [text for _, text in reviews(60, 3)]
OFFSET = len(VOCABULARY)
SMALL = Bert(layers=2, hidden_size=8, heads=2, intermediate_size=12, vocabulary=45)


def words(max_tokens: int = 62, family: str = "bert") -> tuple[SharedWords, Any, Any]:
    theirs = tiny_tokenizer(family)
    ours = trained_pieces(theirs, TEXTS, 45)
    return words_of(Split(tuple(TEXTS)), theirs, ours, max_tokens), theirs, ours


def objective(folder: Path, family: str = "bert", **settings: Any) -> DualObjective:
    source = save_language_model(folder / "pretrained", family)
    rows, theirs, ours = words(family=family)
    student = SMALL.build(load_model(source, head={"num_labels": 2}), Material(theirs, ours, pairs=False))
    encoder, head = load_language_model(source)
    found: dict[str, Any] = {"share": 0.4, "student_words": 0.5, "weight": 3.0, "projected": "up", "seed": 3}
    return DualObjective(student, encoder, head, rows, (theirs, ours), (2, 4), **(found | settings)).eval()


def batch_of(model: DualObjective, rows: list[int]) -> dict[str, torch.Tensor]:
    _, _, ours = words()
    return model.words.tokens(ours).batch(rows)


def test_a_mixture_reads_each_word_as_one_tokenizer_or_the_other_does() -> None:
    rows, theirs, ours = words()
    for row in (0, 5, 59):
        count = rows.count(row)
        assert count == len(TEXTS[row].split())
        ids, own = rows.mixed(row, np.zeros(count, dtype=bool), OFFSET)
        assert ids.tolist() == theirs(TEXTS[row])["input_ids"]
        assert not own.any()
        ids, own = rows.mixed(row, np.ones(count, dtype=bool), OFFSET)
        expected = ours(TEXTS[row])["input_ids"]
        assert ids[1:-1].tolist() == [OFFSET + number for number in expected[1:-1]]
        assert own[1:-1].all()
        chosen = np.arange(count) % 2 == 0
        expected = []
        for word, mine in zip(TEXTS[row].split(), chosen.tolist(), strict=True):
            pieces = (ours if mine else theirs)(word)["input_ids"][1:-1]
            expected += [OFFSET + number for number in pieces] if mine else pieces
        assert rows.mixed(row, chosen, OFFSET)[0][1:-1].tolist() == expected
    tokens = rows.tokens(ours)
    batch = tokens.batch(list(range(60)))
    for row, text in enumerate(TEXTS):
        encoded = ours(text)["input_ids"]
        assert batch["input_ids"][row, : len(encoded)].tolist() == encoded
        assert int(batch["attention_mask"][row].sum()) == len(encoded)


def test_no_mixture_is_longer_than_the_limit_and_texts_of_pairs_are_rows_of_their_own() -> None:
    rows, theirs, ours = words(max_tokens=9)
    assert rows.cut > 10
    for row in range(60):
        whole = TEXTS[row].split()
        kept = rows.count(row)
        for chosen in (np.zeros(kept, dtype=bool), np.ones(kept, dtype=bool), np.arange(kept) % 2 == 1):
            assert len(rows.mixed(row, chosen, OFFSET)[0]) <= 9
        if kept < len(whole):
            pieces = [max(len(t(word)["input_ids"]) - 2 for t in (theirs, ours)) for word in whole[: kept + 1]]
            assert sum(pieces) > 7
    pairs = words_of(Split(("a film", "the plot"), ("so fine", "a dull actor")), theirs, ours, 32)
    assert [pairs.count(row) for row in range(4)] == [2, 2, 2, 3]


def test_tokenizers_that_disagree_about_words_are_refused() -> None:
    from tokenizers.pre_tokenizers import Split as Cut

    theirs, ours = tiny_tokenizer(), trained_pieces(tiny_tokenizer(), TEXTS, 45)
    ours.backend_tokenizer.pre_tokenizer = Cut("", "isolated")
    with pytest.raises(ModelError, match="different words"):
        words_of(Split(("a film",)), theirs, ours, 32)


def test_half_of_the_words_are_the_students_and_hidden_pieces_stay_in_their_vocabulary(tmp_path: Path) -> None:
    model = objective(tmp_path)
    batch = batch_of(model, list(range(60)))
    own = total = hidden = swapped = 0
    for step in range(12):
        mixed, labels = model.mixed(batch, step / 12)
        same, again = model.mixed(batch, step / 12)
        assert torch.equal(mixed["input_ids"], same["input_ids"])
        assert torch.equal(labels, again)
        chosen = labels != HIDDEN
        seen = torch.where(chosen, labels, mixed["input_ids"])
        real = mixed["attention_mask"].bool()
        words_in = real & (seen >= 5) & (seen != OFFSET)
        assert not (chosen & ~words_in).any()
        own, total = own + int((words_in & (seen >= OFFSET)).sum()), total + int(words_in.sum())
        hidden += int(chosen.sum())
        now = mixed["input_ids"][chosen]
        replaced = now != VOCABULARY.index("[MASK]")
        assert ((now >= OFFSET) == (labels[chosen] >= OFFSET))[replaced].all()
        swapped += int((now != labels[chosen])[replaced].sum())
    # the student's words have more pieces; this is their expected share
    ours = sum(len(words()[0].student.words(w, w + 1)) for w in range(int(model.words.rows[-1])))
    theirs = sum(len(words()[0].teacher.words(w, w + 1)) for w in range(int(model.words.rows[-1])))
    assert own / total == pytest.approx(ours / (ours + theirs), abs=0.02)
    assert hidden / total == pytest.approx(0.4, abs=0.02)
    assert swapped > 0


@torch.no_grad()
def test_the_teacher_predicts_each_hidden_piece_among_those_of_its_vocabulary(tmp_path: Path) -> None:
    model = objective(tmp_path)
    torch.nn.init.normal_(model.teacher.student_bias)
    batch = batch_of(model, [0, 7, 30])
    mixed, labels = model.mixed(batch, 0.4)
    states = model.teacher.encoder(**mixed).last_hidden_state
    features, weight = model.teacher.head.features(states), model.teacher.encoder.get_input_embeddings().weight
    losses = {"teacher": [], "student": []}  # type: dict[str, list[float]]
    for row in range(3):
        for place, label in enumerate(labels[row].tolist()):
            if label == HIDDEN:
                continue
            side = "student" if label >= OFFSET else "teacher"
            known = weight[OFFSET:] if side == "student" else weight[:OFFSET]
            bias = model.teacher.student_bias if side == "student" else model.teacher.head.bias
            logits = [float(features[row, place] @ known[n] + bias[n]) for n in range(len(known))]
            target = label - OFFSET if side == "student" else label
            losses[side].append(-logits[target] + math.log(sum(math.exp(x) for x in logits)))
    assert all(losses.values())
    both = losses["teacher"] + losses["student"]
    assert float(model.teacher(mixed, labels)) == pytest.approx(sum(both) / len(both), rel=1e-4)


@pytest.mark.parametrize("up", [True, False])
@torch.no_grad()
def test_projections_are_the_papers_products_and_shared(up: bool) -> None:
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    shapes = [((5, 3), (5, 4)), ((3, 3), (4, 4)), ((3,), (4,)), ((6, 3), (8, 4)), ((3, 6), (4, 8)), ((7,), (7,))]
    pairs = [(numbers(*student), numbers(*teacher)) for student, teacher in shapes]
    loss = Projections(pairs, {(3, 4), (6, 8)}, up=up).double()
    assert set(loss.matrices) == {"left_3_4", "right_3_4", "left_6_8", "right_6_8"}
    left3, right3, left6, right6 = (loss.matrices[n] for n in ("left_3_4", "right_3_4", "left_6_8", "right_6_8"))
    sides = [(None, right3), (left3, right3), (left3, None), (left6, right3), (left3, right6), (None, None)]
    expected = 0.0
    for (student, teacher), (left, right) in zip(pairs, sides, strict=True):
        moved = student if up else teacher
        if left is not None:
            moved = (left.T if up else left) @ moved
        if right is not None:
            moved = moved @ (right if up else right.T)
        expected += float(((moved - (teacher if up else student)) ** 2).sum())
    assert float(loss(pairs)) == pytest.approx(expected)
    with torch.enable_grad():
        assert torch.autograd.gradcheck(lambda s: loss([(s, pairs[1][1])]), pairs[1][0].clone().requires_grad_())
    with pytest.raises(ValueError, match="parameters of shapes"):
        Projections(pairs, {(3, 4)}, up=up)


def test_equal_models_have_no_projection_loss() -> None:
    same = torch.randn(4, 4)
    assert float(Projections([(same, same)], set(), up=True)([(same, same.clone())])) == 0


@pytest.mark.parametrize("family", LIKE_BERT)
def test_every_parameter_of_both_encoders_is_paired_and_all_parts_learn(family: str, tmp_path: Path) -> None:
    model = objective(tmp_path, family)
    left_out = ("pooler", "encoder.relative_attention_bias")  # which has a column for each head
    count = len([n for n, _ in model.student.base_model.named_parameters() if not n.startswith(left_out)])
    assert len(model.pairs()) == count
    _, _, ours = words(family=family)
    loss, parts = model(model.words.tokens(ours).batch([0, 3, 9]), 0.3)
    expected = 3 * (parts["student_masked_lm"] + parts["teacher_masked_lm"]) + parts["projection"]
    torch.testing.assert_close(loss, expected)
    loss.backward()
    for name in ("teacher.student_bias", "head.dense.weight", "projections.matrices.left_8_16"):
        assert float(model.get_parameter(name).grad.norm()) > 0, name
    for embedding in (model.student.get_input_embeddings(), model.teacher.encoder.get_input_embeddings()):
        assert float(embedding.weight.grad.norm()) > 0
    assert all(p.grad is None for n, p in model.student.named_parameters() if "classifier" in n or "pooler" in n)
    _, parts = objective(tmp_path / family, family, projected="none")(model.words.tokens(ours).batch([0, 3, 9]), 0.3)
    assert set(parts) == {"student_masked_lm", "teacher_masked_lm"}


SETTINGS: dict[str, Any] = {"epochs": 2, "batch_size": 16, "learning_rate": 5e-3}


@pytest.mark.slow
def test_a_small_vocabulary_is_trained_with_the_teacher_then_distilled_in_one_run(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_language_model(tmp_path / "teacher")
    parts: dict[str, Any] = {
        "student": SMALL,
        "prepare": {"dual": Dual(checkpoint_seconds=1e-9, **SETTINGS)},
        "distill": Distill(losses={"soft": SoftTargets(), "hard": HardLabels()}, **SETTINGS),
        "prune": {}, "quantize": {}, "export": {},
    }  # fmt: skip
    whole = recipe(files, tmp_path / "teacher", tmp_path, **parts).run().state
    facts = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [stage["name"] for stage in facts["stages"]] == ["teacher", "dual", "distill"]
    student = load_config(tmp_path / "run" / "student")
    assert (student.vocab_size, student.own_tokens) == (45, True)
    before = made(tmp_path)
    assert all(record.reused for record in recipe(files, tmp_path / "teacher", tmp_path, **parts).run().state.records)
    assert made(tmp_path) == before
    dual = whole.records[1].model
    start = next((tmp_path / "cache").glob("student-*"))
    first, trained = load_model(start).state_dict(), load_model(dual.folder).state_dict()
    changed = {name for name in first if not torch.equal(first[name], trained[name])}
    assert "bert.embeddings.word_embeddings.weight" in changed
    assert not [name for name in changed if name.startswith(("classifier", "bert.pooler"))]
    # broken off in the middle, the same run ends with the same weights
    calls, original = iter(range(10**6)), DualObjective.forward

    def interrupted(*arguments: Any) -> Any:
        if next(calls) == 13:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(DualObjective, "forward", interrupted)
    again = recipe(files, tmp_path / "teacher", tmp_path / "again", **parts)
    with pytest.raises(KeyboardInterrupt):
        again.run()
    resumed = again.run().state.records[1].model
    other = load_model(resumed.folder).state_dict()
    assert all(torch.equal(trained[name], other[name]) for name in trained)


def test_what_cannot_be_mixed_or_compared_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    save_language_model(tmp_path / "teacher")
    wrong = recipe(files, tmp_path / "teacher", tmp_path, student=Bert(layers=2), prepare={"dual": Dual()}, prune={})
    with pytest.raises(RecipeError, match=r"prepare\.dual\.student_words.*Set student\.vocabulary"):
        check(wrong)
    wrong = recipe(files, tmp_path / "teacher", tmp_path, student=SMALL, prune={})
    with pytest.raises(RecipeError) as told:
        check(wrong)
    assert [fault.setting for fault in told.value.faults] == ["distill.losses.attention"]
    assert "a tokenizer of its own" in told.value.faults[0].rule
    for stage, setting in (
        (Dual(student_words=1.5), "student_words"),
        (Dual(projected=ProjectedSide.none, masked_lm_weight=0), "masked_lm_weight"),
        (Dual(layer_map="x"), "layer_map"),
    ):
        assert [fault.setting for fault in stage.faults()] == [setting]
    for student, setting in (
        (Bert(vocabulary=0), "vocabulary"),
        (Bert(vocabulary_corpus=str(files["train"])), "vocabulary_corpus"),
        (Bert(vocabulary=50, vocabulary_corpus=str(tmp_path / "nowhere.txt")), "vocabulary_corpus"),
    ):
        assert setting in [fault.setting for fault in student.faults()]
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    student = Bert(vocabulary=50, vocabulary_corpus=str(tmp_path / "latin.txt"))
    (fault,) = student.faults(Known(teacher=load_config(tmp_path / "teacher")))
    assert (fault.setting, "UTF-8" in fault.rule) == ("vocabulary_corpus", True)


def test_a_vocabulary_can_be_learned_from_a_corpus_whose_content_counts(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("a film film film\n")
    student = Bert(vocabulary=30, vocabulary_corpus=str(path))
    first = student.made_with()
    ours = student.tokenizer(tiny_tokenizer(), Split(("zebra",)))
    assert "film" in ours.get_vocab()
    assert "z" not in ours.get_vocab()
    path.write_text("another text\n")
    assert student.made_with() != first
