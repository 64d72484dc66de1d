"""Preparations on texts: each loss by hand, what learns and what does not, resumption, refusals, whole runs."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from compress.data.dataset import Dataset, Split
from compress.distill.general import General
from compress.distill.layers import Layers, layer_losses
from compress.distill.losses import HardLabels, SoftTargets
from compress.distill.masked_lm import MaskedDistillation, MaskedLM, Positions
from compress.distill.on_corpus import OnCorpus
from compress.distill.source import Keep
from compress.distill.stage import Distill
from compress.errors import Fault, RecipeError
from compress.families.language_head import load_language_model, word_embeddings
from compress.known import Known
from compress.models.loading import load_config, load_model, save_model
from compress.pipeline.model import Model
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.run.check import check
from compress.run.recipe import Recipe
from compress.student.bert import Bert
from compress.student.cnn import Cnn
from compress.tasks.classification import Classification
from compress.train.masking import HIDDEN, masking_of
from tests.conftest import EVERY_FAMILY, reviews, save_tiny, tiny_batch, tiny_model, tiny_tokenizer
from tests.families.test_language_head import save_language_model
from tests.run.test_recipe import made, recipe
from tests.test_train import tokens

SETTINGS: dict[str, Any] = {"epochs": 2, "batch_size": 16, "learning_rate": 5e-3}
NARROW = {"layers": 2, "hidden_size": 8, "heads": 2}


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    """A text file, a row a line, with an empty one."""
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join(text for _, text in reviews(80, 9)) + "\n")
    return str(path)


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    """A tiny masked language model."""
    return save_language_model(tmp_path / "pretrained")


def state_of(folder: Path, student: Bert, pretrained: Path | None = None) -> State:
    """Return a state as it is after the student was built."""
    rows = Split(tuple(text for _, text in reviews(60, 4)))
    data = Dataset("made up", Classification(("bad", "good")), rows, rows, rows)
    built = student.build(tiny_model())
    save_model(built, tiny_tokenizer(), folder / "student")
    return State.begin(
        data=data, workshop=Workshop(folder / "cache"), seed=5, student=Model(folder / "student", "student"),
        pretrained=None if pretrained is None else str(pretrained),
    )  # fmt: skip


def objective(pretrained: Path, student: Bert, **settings: Any) -> MaskedDistillation:
    teacher = load_model(pretrained, head={"num_labels": 2})
    encoder, head = load_language_model(pretrained)
    return MaskedDistillation(
        student.build(teacher), encoder, head, masking_of(tiny_tokenizer(), 0.4, 3), MaskedLM(**settings)
    ).eval()


def softmax(values: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in values]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("soft_on", list(Positions))
@torch.no_grad()
def test_the_three_losses_of_masked_rows_are_those_of_loops_over_positions(
    soft_on: Positions, pretrained: Path
) -> None:
    model = objective(pretrained, Bert(layers=2), soft_on=soft_on, temperature=2.5)
    batch = tiny_batch() | {"rows": torch.arange(3)}
    loss, parts = model(batch, 0.3)
    ids, labels = masking_of(tiny_tokenizer(), 0.4, 3)(batch, 0.3)
    teacher, teacher_head = model.frozen
    inputs = {"input_ids": ids, "attention_mask": batch["attention_mask"], "token_type_ids": batch["token_type_ids"]}
    ours, theirs = (side(**inputs).last_hidden_state for side in (model.student.bert, teacher))
    found = model.head(ours, word_embeddings(model.student)).tolist()
    known = teacher_head(theirs, word_embeddings(teacher)).tolist()
    soft, hard, cosine = [], [], []
    for row in range(3):
        for place in range(9):
            if not batch["attention_mask"][row, place]:
                continue
            a, b = ours[row, place].tolist(), theirs[row, place].tolist()
            dot = sum(x * y for x, y in zip(a, b, strict=True))
            cosine.append(1 - dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(x * x for x in b)))
            label = int(labels[row, place])
            if soft_on is Positions.real or label != HIDDEN:
                p, q = softmax(known[row][place], 2.5), softmax(found[row][place], 2.5)
                soft.append(2.5**2 * sum(x * math.log(x / y) for x, y in zip(p, q, strict=True)))
            if label != HIDDEN:
                hard.append(-math.log(softmax(found[row][place], 1.0)[label]))
    assert 0 < len(hard) < len(cosine)
    means = {"soft": sum(soft) / len(soft), "labels": sum(hard) / len(hard), "cosine": sum(cosine) / len(cosine)}
    for name, mean in means.items():
        assert float(parts[name]) == pytest.approx(mean, rel=1e-4), name
    assert float(loss) == pytest.approx(5 * means["soft"] + 2 * means["labels"] + means["cosine"], rel=1e-4)


@torch.no_grad()
def test_a_student_that_is_the_teacher_has_no_soft_and_no_cosine_loss(pretrained: Path) -> None:
    _, parts = objective(pretrained, Bert(layers=4))(tiny_batch() | {"rows": torch.arange(3)}, 0.3)
    assert float(parts["soft"]) == pytest.approx(0, abs=1e-5)
    assert float(parts["cosine"]) == pytest.approx(0, abs=1e-5)
    assert float(parts["labels"]) > 0.1


@torch.no_grad()
def test_padding_does_not_matter_and_a_batch_without_hidden_tokens_costs_nothing(pretrained: Path) -> None:
    model = objective(pretrained, Bert(layers=2))
    known = tiny_batch()
    batch = {name: known[name][:1, :5] for name in ("input_ids", "attention_mask", "token_type_ids")}
    batch["rows"] = torch.tensor([7])
    _, parts = model(batch, 0.3)
    wider = {name: torch.nn.functional.pad(v, (0, 4)) for name, v in batch.items() if v.dim() == 2}
    _, same = model(wider | {"rows": batch["rows"]}, 0.3)
    for name in parts:
        torch.testing.assert_close(parts[name], same[name])
    nothing = replace_share(model, 1e-9)
    nothing.settings = MaskedLM(soft_on=Positions.masked)
    _, parts = nothing(batch, 0.3)
    assert (float(parts["soft"]), float(parts["labels"])) == (0.0, 0.0)


def replace_share(model: MaskedDistillation, share: float) -> MaskedDistillation:
    model.masking = replace(model.masking, chances=share * (model.masking.chances > 0))
    return model


def test_a_narrow_students_states_are_projected_and_only_encoder_head_and_projection_learn(pretrained: Path) -> None:
    model = objective(pretrained, Bert(**NARROW))
    loss, _ = model(tiny_batch() | {"rows": torch.arange(3)}, 0.3)
    loss.backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and float(p.grad.norm()) > 0}
    assert "projection.weight" in reached
    assert "head.dense.weight" in reached
    assert "student.bert.embeddings.word_embeddings.weight" in reached
    assert not [name for name in reached if "classifier" in name or "pooler" in name]
    assert all(p.grad is None for part in model.frozen for p in part.parameters())


STAGES: list[Any] = [General, MaskedLM]


@pytest.mark.parametrize("kind", STAGES)
def test_the_encoder_learns_and_the_classifier_is_handed_on_untouched(
    kind: type[OnCorpus], corpus: str, pretrained: Path, tmp_path: Path
) -> None:
    state = state_of(tmp_path, Bert(**NARROW), pretrained)
    after = kind(corpus=corpus, **(SETTINGS | {"epochs": 8}))(state)
    before, now = load_model(state.given_student.folder), load_model(after.given_student.folder)
    own = before.state_dict()
    changed = {name for name, value in now.state_dict().items() if not torch.equal(value, own[name])}
    assert own.keys() == now.state_dict().keys()
    assert {"bert.embeddings.word_embeddings.weight", "bert.encoder.layer.1.output.dense.weight"} <= changed
    assert not [name for name in changed if name.startswith(("classifier", "bert.pooler"))]
    assert sorted(p.suffix for p in after.given_student.folder.iterdir() if p.suffix == ".safetensors") == [
        ".safetensors"
    ]
    losses = [point["loss"] for point in after.records[-1].curves if "loss" in point]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert after.records[-1].notes[0].startswith("80 texts without labels")


@pytest.mark.parametrize("family", EVERY_FAMILY)
@pytest.mark.parametrize("kind", STAGES)
def test_every_family_can_be_prepared(kind: type[OnCorpus], family: str, corpus: str, tmp_path: Path) -> None:
    if family == "deberta-v2" and kind is not General:
        pytest.skip("its head for masked words is not known")
    source = save_tiny(tmp_path / "pretrained", family)
    if kind is not General:
        source = save_language_model(tmp_path / "pretrained", family)
    teacher = load_model(source, head={"num_labels": 2})
    save_model(Bert(layers=2).build(teacher), tiny_tokenizer(family), tmp_path / family)
    state = replace(state_of(tmp_path, Bert(layers=2), source), student=Model(tmp_path / family, family))
    after = kind(corpus=corpus, rows=40, **(SETTINGS | {"epochs": 1}))(state)
    model = AutoModelForSequenceClassification.from_pretrained(after.given_student.folder)
    assert type(model) is type(teacher)
    assert after.records[-1].notes[0].startswith("40 texts")


@pytest.mark.parametrize("kind", STAGES)
def test_a_preparation_that_was_broken_off_ends_with_the_same_weights(
    kind: type[OnCorpus], corpus: str, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {"teacher_outputs": Keep.disk} if kind is General else {}  # not what is faster today
    stage = kind(corpus=corpus, checkpoint_seconds=1e-9, **kept, **SETTINGS)
    (tmp_path / "whole").mkdir(), (tmp_path / "parts").mkdir()
    whole = stage(state_of(tmp_path / "whole", Bert(layers=2), pretrained))
    state = state_of(tmp_path / "parts", Bert(layers=2), pretrained)
    from compress.distill.objective import Distillation

    objective_class: Any = MaskedDistillation if kind is MaskedLM else Distillation
    original, calls = objective_class.forward, iter(range(10**6))

    def interrupted(*arguments: Any) -> Any:
        if next(calls) == 7:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(objective_class, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stage(state)
    assert list((tmp_path / "parts" / "cache").rglob("whole"))
    resumed = stage(state)
    first, second = (load_model(after.given_student.folder).state_dict() for after in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert stage(state).records[-1].reused


def test_a_teacher_without_a_head_gets_one_that_is_trained_with_the_encoder_frozen(corpus: str, tmp_path: Path) -> None:
    plain = save_tiny(tmp_path / "plain")
    before = load_model(plain, head={"num_labels": 2}).base_model.state_dict()
    state = state_of(tmp_path, Bert(layers=2), plain)
    stage = MaskedLM(corpus=corpus, head_epochs=6, **(SETTINGS | {"learning_rate": 1e-2}))
    notes: list[str] = []
    rows = tokens(80)
    encoder, head = stage.language_teacher(state, str(plain), lambda: rows, tiny_tokenizer(), notes)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert not head.training
    first, last = (float(part) for part in notes[0].partition("loss ")[2].replace(" at first, ", " ").split()[:2])
    assert last < 0.95 * first
    again = stage.language_teacher(state, str(plain), lambda: rows, tiny_tokenizer(), [])[1]
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in head.state_dict().items())
    assert len(list((tmp_path / "cache").glob("language_head-*"))) == 1
    found = stage(state).records[-1].notes
    assert any("had no masked-language-model head" in note for note in found)


def faults(stage: OnCorpus, teacher: Path, *, student: Any = None, fine_tuned: bool = True) -> list[Fault]:
    theirs = load_config(teacher)
    config = student or Bert(layers=2).config(theirs)
    return list(stage.faults(Known(student=config, teacher=theirs, source=str(teacher), fine_tuned=fine_tuned)))


def test_what_cannot_be_done_is_refused_with_a_remedy(corpus: str, pretrained: Path, tmp_path: Path) -> None:
    assert not faults(MaskedLM(corpus=corpus), pretrained)
    assert not faults(General(corpus=corpus), pretrained)
    plain = save_tiny(tmp_path / "plain")
    assert not faults(General(), plain)
    assert not faults(MaskedLM(head_epochs=1), plain)
    (fault,) = faults(MaskedLM(), plain)
    assert "no masked-language-model head" in fault.rule
    assert "head_epochs" in fault.remedy
    (fault,) = faults(General(), pretrained, fine_tuned=False)
    assert (fault.setting, "not fine-tuned here" in fault.rule) == ("teacher", True)
    assert not faults(General(teacher=str(plain)), pretrained, fine_tuned=False)
    (fault,) = faults(General(teacher=str(tmp_path / "nowhere")), pretrained)
    assert "nowhere" in fault.rule
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "blank.txt").write_text("\n \n")
    (tmp_path / "table.tsv").write_text("good\ta film\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    for name, words in {
        "empty.txt": "no rows", "blank.txt": "no rows", "table.tsv": "table", "latin.txt": "UTF-8",
        "corpsu.txt": "does not exist",
    }.items():  # fmt: skip
        (fault,) = faults(MaskedLM(corpus=str(tmp_path / name)), pretrained)
        assert (fault.setting, words in fault.rule) == ("corpus", True), name
    assert "corpus.txt" in fault.remedy
    (fault,) = faults(MaskedLM(max_tokens=65), pretrained)
    assert fault.setting == "max_tokens"
    (fault,) = faults(MaskedLM(early_stopping=2), pretrained)
    assert fault.setting == "early_stopping"


def test_students_that_are_no_such_encoder_or_read_other_pieces_are_refused(pretrained: Path) -> None:
    config = Cnn().config(load_config(pretrained))
    for stage in (General(), MaskedLM()):
        (fault,) = faults(stage, pretrained, student=config)
        assert "student=bert" in fault.remedy
    own = Bert(layers=2, vocabulary=50).config(load_config(pretrained))
    assert {fault.setting for fault in faults(General(losses=["hidden", "minilm"]), pretrained, student=own)} == {
        "losses.minilm"
    }
    assert "prepare=[dual]" in faults(MaskedLM(), pretrained, student=own)[0].remedy


def test_losses_are_those_inside_the_models_each_with_a_weight(pretrained: Path) -> None:
    assert set(layer_losses()) >= {"hidden", "embeddings", "attention", "cosine", "relations", "minilm"}
    assert not set(layer_losses()) & {"hard", "soft", "mse"}
    for wrong, setting in (
        (Layers(losses=["soft"]), "losses"),
        (Layers(losses=["hiden"]), "losses"),
        (Layers(losses=["hidden", "hidden"]), "losses"),
        (Layers(losses=["hidden"], weights=[1, 2]), "weights"),
        (Layers(losses=[]), "losses"),
        (Layers(weights=[-1, 1, 1]), "losses.hidden.weight"),
        (Layers(early_stopping=1), "early_stopping"),
        (General(losses=["soft"]), "losses"),
        (General(layer_map="unifrom"), "layer_map"),
    ):
        found = [fault.setting for fault in all_of(wrong)]
        assert found == [setting], wrong
    own = Layers(losses=["hidden", "relations"], weights=[0.5, 2.0]).distill()
    assert {name: loss.weight for name, loss in own.losses.items()} == {"hidden": 0.5, "relations": 2.0}
    student = Bert(layers=2, hidden_size=8, heads=2).config(load_config(pretrained))
    (fault,) = faults(General(), pretrained, student=student)
    assert (fault.setting, "equal head counts" in fault.rule) == ("losses.attention", True)


def all_of(stage: Any) -> list[Fault]:
    from compress.settings import all_faults

    distill = stage.distill() if not list(stage.faults()) else None
    return list(stage.faults()) + (list(all_faults(distill)) if distill else [])


def test_general_layers_and_distillation_are_one_run(files: dict[str, Path], corpus: str, tmp_path: Path) -> None:
    save_tiny(tmp_path / "teacher")
    parts: dict[str, Any] = {
        "student": Bert(layers=2, hidden_size=8, heads=4, intermediate_size=16),
        "prepare": {"general": General(corpus=corpus, **SETTINGS), "layers": Layers(**SETTINGS)},
        "distill": Distill(losses={"soft": SoftTargets(), "hard": HardLabels()}, **SETTINGS),
        "prune": {}, "quantize": {}, "export": {},
    }  # fmt: skip
    recipe(files, tmp_path / "teacher", tmp_path, **parts).run()
    facts = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [stage["name"] for stage in facts["stages"]] == ["teacher", "general", "layers", "distill"]
    before = made(tmp_path)
    state = recipe(files, tmp_path / "teacher", tmp_path, **parts).run().state
    assert all(record.reused for record in state.records)
    assert made(tmp_path) == before
    assert {name.rpartition("-")[0] for name in before} >= {"general", "layers", "distill", "student"}
    parts["prepare"]["general"] = General(corpus=corpus, **(SETTINGS | {"epochs": 1}))
    parts["output"] = str(tmp_path / "other")
    state = recipe(files, tmp_path / "teacher", tmp_path, **parts).run().state
    assert [record.reused for record in state.records] == [True, False, False, False]


def test_masked_language_modelling_then_distillation_is_one_run(files: dict[str, Path], tmp_path: Path) -> None:
    save_language_model(tmp_path / "teacher")
    parts: dict[str, Any] = {
        "prepare": {"masked_lm": MaskedLM(**SETTINGS)},
        "distill": Distill(losses={"soft": SoftTargets(), "hard": HardLabels()}, **(SETTINGS | {"epochs": 6})),
        "prune": {}, "quantize": {}, "export": {},
    }  # fmt: skip
    recipe(files, tmp_path / "teacher", tmp_path, **parts).run()
    facts = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [stage["name"] for stage in facts["stages"]] == ["teacher", "masked_lm", "distill"]
    assert facts["stages"][-1]["metrics"]["accuracy"] > 0.6
    assert all(record.reused for record in recipe(files, tmp_path / "teacher", tmp_path, **parts).run().state.records)


def test_a_run_with_a_teacher_without_a_head_starts_nothing(files: dict[str, Path], tmp_path: Path) -> None:
    wrong: Recipe = recipe(files, save_tiny(tmp_path / "plain"), tmp_path, prepare={"masked_lm": MaskedLM()})
    with pytest.raises(RecipeError, match=r"prepare\.masked_lm\.teacher.*no masked-language-model head"):
        check(wrong)
    assert not (tmp_path / "cache").exists()


def test_a_family_without_a_known_head_for_masked_words_has_a_general_stage_all_the_same(tmp_path: Path) -> None:
    source = save_tiny(tmp_path / "pretrained", "deberta-v2")
    config = load_config(source)
    known = Known(student=Bert(layers=2).config(config), teacher=config, source=str(source), fine_tuned=True)
    assert not list(General().faults(known))
    (fault,) = MaskedLM().faults(known)
    assert "the student is of type deberta-v2" in str(fault)
    assert "deberta-v2" not in str(fault).partition(", and the student")[0]
