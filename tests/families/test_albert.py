"""ALBERT: layers that share weights are read one by one, students have layers of their own or share them too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from transformers import AlbertConfig, AlbertForSequenceClassification, AlbertTokenizer, PreTrainedModel

from compress.data.dataset import Split
from compress.distill.losses import AttentionScores, HiddenStates, Relations, SoftTargets
from compress.distill.progressive import Progressive
from compress.distill.stage import Distill
from compress.distill.theseus import Replacement, Theseus
from compress.errors import ModelError
from compress.export.onnx import Onnx
from compress.export.transformers_js import TransformersJs
from compress.families.forms.shared import SharedForm
from compress.families.forms.uneven import shrink
from compress.families.registry import can_be_taken_apart, family_of
from compress.known import Known
from compress.models.loading import save_model
from compress.models.outputs import observe, parameters
from compress.models.pruned_heads import with_pruned_heads
from compress.models.quantities import HIDDEN, KEYS, QUERIES, SCORES, VALUES
from compress.models.tokens import tokenize
from compress.models.vocabulary import used_pieces, with_pieces, with_rows
from compress.onnx.graph import write_onnx
from compress.onnx.products import part_of
from compress.prune.budget import Budget
from compress.prune.heads import PruneHeads
from compress.prune.layers import PruneLayers
from compress.prune.neurons import PruneNeurons
from compress.prune.rank import PruneRank
from compress.prune.vocabulary import PruneVocabulary
from compress.prune.weights import PruneWeights
from compress.prune.width import PruneWidth
from compress.quantize.qat import QuantizationAware
from compress.runtimes.onnxruntime import inference_session
from compress.student.bert import Bert
from compress.student.shared import LayerStart, Share, Shared
from compress.student.start import model_faults
from compress.tasks.classification import Classification
from compress.tasks.tags import Tags
from compress.train import Training, parameter_faults
from tests.conftest import save_tiny, tiny_batch, tiny_model, tiny_tokenizer
from tests.families.test_layouts import batches, inputs
from tests.run.test_recipe import recipe, report

TASK = Classification(("bad", "good"))


def shared(groups: int = 1, **settings: Any) -> PreTrainedModel:
    """Return a classifier of four layers in so many groups, whose layers share weights."""
    return tiny_model("albert", num_hidden_groups=groups, **settings)


@pytest.mark.parametrize("groups", [1, 2])
@torch.no_grad()
def test_what_is_observed_of_shared_layers_is_what_transformers_computes_each_time(groups: int) -> None:
    model = shared(groups)
    model.set_attn_implementation("eager")
    for batch in batches("albert"):
        seen = observe(model, batch, HIDDEN, SCORES, QUERIES, KEYS, VALUES)
        plain = model(**inputs(batch), output_hidden_states=True, output_attentions=True)
        real = batch["attention_mask"].bool()
        torch.testing.assert_close(seen.logits, plain.logits, rtol=0, atol=1e-5)
        for layer, states in enumerate(plain.hidden_states):
            torch.testing.assert_close(seen[HIDDEN][layer][real], states[real], rtol=0, atol=1e-5)
        hidden = (~real)[:, None, None, :]
        for layer, attention in enumerate(plain.attentions, start=1):
            own = seen[SCORES][layer].masked_fill(hidden, -torch.inf).softmax(-1)
            torch.testing.assert_close(own, attention, rtol=0, atol=1e-5)
        assert sorted(seen[SCORES]) == sorted(seen[VALUES]) == [1, 2, 3, 4]


@pytest.mark.parametrize("groups", [1, 2])
@torch.no_grad()
def test_a_student_by_layers_has_copies_of_its_own_in_the_layout_of_transformers(groups: int, tmp_path: Path) -> None:
    teacher, batch = shared(groups), tiny_batch(family="albert")
    whole = Bert(layers="all").build(teacher)
    assert torch.equal(observe(whole, batch).logits, observe(teacher, batch).logits)
    student = Bert(layers=2, layer_map=[1, 3]).build(teacher)
    assert type(student) is AlbertForSequenceClassification
    assert student.config.num_hidden_groups == student.config.num_hidden_layers == 2
    family = family_of(teacher.config)
    chosen = [family.layers(teacher)[index] for index in (0, 2)]
    with family.running(teacher, chosen):
        assert torch.equal(observe(student, batch).logits, observe(teacher, batch).logits)
    assert len(family.layers(teacher)) == len(observe(teacher, batch, SCORES)[SCORES]) == 4
    smaller = shrink(student, heads=[[0, 1, 2, 3], [2]], units=[[3], list(range(32))])
    assert observe(smaller, batch, SCORES)[SCORES][2].shape == (3, 1, 9, 9)
    assert smaller.config.num_hidden_groups == 2
    assert shrink(student, layers=[1]).config.num_hidden_groups == 1
    folder = save_tiny(tmp_path / "start", "albert", num_hidden_groups=groups)
    assert not list(model_faults(str(folder), "uniform", teacher.config, student.config))


@torch.no_grad()
def test_a_student_that_shares_layers_is_an_albert_of_transformers() -> None:
    teacher, batch = shared(), tiny_batch(family="albert")
    student = Shared(layers=2).build(teacher)
    assert type(student) is AlbertForSequenceClassification
    assert student.config.num_hidden_groups == 1
    assert parameters(student) == parameters(teacher)
    family = family_of(teacher.config)
    with family.running(teacher, list(family.layers(teacher))[:2]):
        assert torch.equal(observe(student, batch).logits, observe(teacher, batch).logits)
    apart = tiny_model("albert")
    mean = Shared(start=LayerStart.mean, layer_map=[2, 4], layers=2).build(apart)
    ours, theirs = (family.layers(model) for model in (mean, apart))
    torch.testing.assert_close(ours[1].ffn.weight, (theirs[1].ffn.weight + theirs[3].ffn.weight) / 2)
    form = Shared(share=Share.attention).build(teacher)
    assert isinstance(form, SharedForm)
    assert torch.equal(observe(form, batch).logits, observe(teacher, batch).logits)


@torch.no_grad()
def test_layers_of_a_student_stand_in_for_runs_of_shared_ones() -> None:
    teacher, batch = shared(), tiny_batch(family="albert")
    student = Bert(layers=2).build(teacher)
    family_of(student.config).layers(student)[1].ffn.weight.add_(0.1)
    mixture = Replacement(student, teacher, Theseus(), TASK).eval()
    assert torch.equal(mixture.mixed(batch, [False, False]), observe(teacher, batch).logits)
    assert torch.equal(mixture.mixed(batch, [True, True]), observe(student, batch).logits)
    assert not list(Theseus().faults(Known(student=student.config, teacher=teacher.config)))


@pytest.mark.parametrize(
    "stage",
    [
        PruneHeads(), PruneNeurons(), PruneLayers(), Budget(parameters=1000), PruneRank(parameters=1000),
        PruneWeights(), QuantizationAware(), Distill(layer_drop=0.2), Theseus(), Progressive(),
        Training(layer_decay=0.9),
    ],
    ids=lambda stage: type(stage).__name__,
)  # fmt: skip
def test_what_changes_one_layer_is_refused_where_layers_share_weights(stage: Any) -> None:
    config = shared().config
    known = Known(student=config, teacher=config, layers=((1, 1),))
    faults = parameter_faults(stage, config) if type(stage) is Training else stage.faults(known)
    assert "albert (its layers share weights; student=bert gives each its own)" in " ".join(map(str, faults))


def test_groups_that_are_no_layers_are_refused_before_work_with_what_still_works() -> None:
    for change, feature in (
        ({"inner_group_num": 2}, "inner_group_num = 2"),
        ({"num_hidden_groups": 8}, "num_hidden_groups = 8"),
    ):
        config = tiny_model("albert").config
        other = type(config)(**(config.to_dict() | change))
        assert not can_be_taken_apart(other)
        with pytest.raises(ModelError, match=f"albert models with {feature}.*compress export takes any classifier"):
            family_of(other)
    with pytest.raises(ModelError, match=r"can, where layers share no weights\. Name the model before pruning"):
        with_pruned_heads("pruned", AlbertConfig(pruned_heads={"0": [1]}))


def test_transformers_js_has_no_tagger_of_the_type() -> None:
    config = shared().config
    assert not list(TransformersJs().faults(Known(student=config, task=TASK)))
    (fault,) = TransformersJs().faults(Known(student=config, task=Tags(("B-film", "O"))))
    assert "does not know students of type albert for token classification" in str(fault)


@torch.no_grad()
def test_a_graph_of_shared_layers_holds_their_weights_once_and_says_the_same(tmp_path: Path) -> None:
    model, names = shared(), ["input_ids", "attention_mask", "token_type_ids"]
    write_onnx(model, names, tmp_path / "model.onnx")
    stored = sum(int(np.prod(weight.dims)) for weight in onnx.load(tmp_path / "model.onnx").graph.initializer)
    assert stored < parameters(model) + 200  # masks and shapes
    session = inference_session(tmp_path / "model.onnx", 1)
    for batch in batches("albert"):
        feed = {name: batch[name].numpy() for name in names}
        expected = observe(model, batch).logits.numpy()
        np.testing.assert_allclose(session.run(["logits"], feed)[0], expected, rtol=0, atol=1e-5)
    assert part_of("albert.encoder.embedding_hidden_mapping_in") == "embeddings"
    assert part_of("albert.encoder.albert_layer_groups.2.albert_layers.0.ffn") == "layer 3 ffn"


@torch.no_grad()
def test_pieces_of_its_tokenizer_are_dropped_and_texts_are_cut_and_answered_as_before() -> None:
    pieces = ["▁the", "▁film", "▁was", "▁good", "▁bad", "▁", *"abcdefghijklmnopqrstuvwxyz", "ing", "▁dull"]
    special = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = [(piece, -float(place)) for place, piece in enumerate(special + pieces)]
    tokenizer = AlbertTokenizer(vocab=vocabulary, model_max_length=32)
    texts = Split(("The film was good", "bad film"), None, np.zeros(2, dtype=np.int64))
    model = shared(vocab_size=len(tokenizer))
    before = tokenize(texts, tokenizer, 32)
    keep = sorted(used_pieces(tokenizer, [before.columns["input_ids"]], texts.texts))
    smaller = with_pieces(tokenizer, keep)
    assert len(smaller) == len(keep) < len(tokenizer)
    batch = dict(tokenizer(list(texts.texts), padding=True, return_tensors="pt"))
    expected = observe(model, batch).logits
    with_rows(model, keep, smaller)
    ours = dict(smaller(list(texts.texts), padding=True, return_tensors="pt"))
    assert [smaller.convert_ids_to_tokens(row) for row in ours["input_ids"]] == [
        tokenizer.convert_ids_to_tokens(row) for row in batch["input_ids"]
    ]
    assert torch.equal(observe(model, ours).logits, expected)


@pytest.mark.slow
@pytest.mark.parametrize("student", [Bert(layers=2), Shared(layers=2)], ids=lambda student: type(student).__name__)
def test_a_teacher_of_shared_layers_goes_through_the_whole_chain(
    student: Any, tmp_path: Path, files: dict[str, Path]
) -> None:
    pytest.importorskip("torch_pruning")
    save_model(shared().base_model, tiny_tokenizer("albert"), tmp_path / "teacher")
    losses = {"soft": SoftTargets(), "hidden": HiddenStates(), "attention": AttentionScores(), "relations": Relations()}
    cut = {
        "heads": PruneHeads(ratio=0.4, rows=40), "neurons": PruneNeurons(ratio=0.4, rows=40),
        "width": PruneWidth(ratio=0.25, rows=40), "layers": PruneLayers(ratio=0.5, rows=40),
    }  # fmt: skip
    apart = isinstance(student, Bert)
    made = recipe(
        files, tmp_path / "teacher", tmp_path, student=student,
        distill=Distill(losses=losses, epochs=2, learning_rate=5e-3, batch_size=16),
        prune=(cut if apart else {}) | {"vocabulary": PruneVocabulary()},
        export={"onnx": Onnx(), "transformers_js": TransformersJs()},
    )  # fmt: skip
    made.run()
    facts = report(tmp_path)
    assert [len(stage["layers"]) for stage in facts["stages"]] == ([4, 2, 2, 2, 2, 1, 1] if apart else [4, 2, 2])
    assert {entry["name"] for entry in facts["artifacts"]} >= {"onnx", "dynamic", "static", "transformers_js"}
    stages = {stage["name"]: stage for stage in facts["stages"]}
    assert (stages["distill"]["parameters"] > stages["teacher"]["parameters"]) is apart
