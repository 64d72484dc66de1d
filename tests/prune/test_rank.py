"""Low-rank matrices: what they compute, what they cost, which ranks are chosen, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from transformers import PreTrainedModel

from compress.errors import RecipeError
from compress.families.forms.uneven import factored, multiplied, ranks, shrink
from compress.families.registry import FAMILIES
from compress.known import Known
from compress.models.loading import load_model, save_model
from compress.models.masking import SPARSE, matrices
from compress.models.outputs import INPUTS, observe, parameters
from compress.onnx.graph import input_names, write_onnx
from compress.onnx.sizes import factored as factored_graph
from compress.prune.budget import Budget
from compress.prune.heads import PruneHeads
from compress.prune.layers import PruneLayers
from compress.prune.rank import PruneRank, best_ranks
from compress.prune.rank_costs import WHOLE, Matrix, RankCosts, counted, matrices_of, measured
from compress.prune.rank_losses import RankSensitivity, modules_of, spectra_of
from compress.prune.weights import PruneWeights
from compress.quantize.int8 import DynamicInt8
from compress.quantize.qat import QuantizationAware
from compress.runtimes.onnxruntime import inference_session
from compress.student.bert import Bert
from compress.student.bilstm import BiLstm
from tests.conftest import BERT_NOW, CONFIGS, EVERY_FAMILY, Graphs, save_tiny, tiny_batch, tiny_model, tiny_tokenizer
from tests.fresh import run_fresh
from tests.prune.test_budget import distilled, files, small, stage_of

__all__ = ["distilled", "files"]  # fixtures
UNEVEN: dict[str, Any] = {"heads": [[0, 2], [1], [0, 1, 2, 3], [3]], "units": [[0, 5, 31], [*range(32)], [7], [1, 2]]}


def low_rank(model: PreTrainedModel, rank: int = 3) -> PreTrainedModel:
    """Return a model whose matrices, all but those of the second layer, have this rank on a batch."""
    whole = [matrix for matrix in matrices_of(model.config) if matrix.layer != 1]
    spectra = spectra_of(model, whole, [tiny_batch(family=str(model.config.model_type).removeprefix("compress_"))])
    parts = zip(whole, spectra, modules_of(model, whole), strict=True)
    return factored(model, {(m.layer, m.name): found.factors(module.weight, rank) for m, found, module in parts})


def budget(**settings: Any) -> PruneRank:
    """Return a budget of seconds."""
    return replace(PruneRank(rows=24, input_rows=40, ranks=4, tries=4, recovery_epochs=0.5), **settings)


@pytest.mark.parametrize("family", EVERY_FAMILY)
@torch.no_grad()
def test_low_rank_matrices_compute_their_products_and_reload_to_the_bit(family: str, tmp_path: Path) -> None:
    model, batch = low_rank(shrink(tiny_model(family), **UNEVEN)), tiny_batch(family=family)
    logits = observe(model, batch).logits
    torch.testing.assert_close(observe(multiplied(model), batch).logits, logits)
    assert [len(layer) for layer in ranks(model.config)] == [
        len(FAMILIES[family].matrix_names()) * i for i in (1, 0, 1, 1)
    ]
    save_model(model, tiny_tokenizer(family), tmp_path)
    assert torch.equal(observe(load_model(tmp_path), batch).logits, logits)
    for left in (shrink(model, layers=[0, 3]), load_model(tmp_path)):
        names = FAMILIES[family]
        with names.running(
            model, [names.layers(model)[i] for i in ((0, 3) if len(ranks(left.config)) == 2 else range(4))]
        ):
            assert torch.equal(observe(left, batch).logits, observe(model, batch).logits)


@pytest.mark.slow
def test_the_shipped_code_of_a_low_rank_model_needs_transformers_alone(tmp_path: Path) -> None:
    model, batch = low_rank(tiny_model()), tiny_batch()
    save_model(model, tiny_tokenizer(), tmp_path)
    with torch.no_grad():
        torch.save({"batch": batch, "logits": observe(model, batch).logits}, tmp_path / "said.pt")
    code = (
        "import sys, torch\n"
        "sys.modules['compress'] = None\n"
        "from transformers import AutoModelForSequenceClassification\n"
        "said = torch.load(sys.argv[1] + '/said.pt')\n"
        "model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1], trust_remote_code=True).eval()\n"
        "inputs = {k: v for k, v in said['batch'].items() if k != 'labels'}\n"
        "with torch.no_grad():\n"
        "    assert torch.equal(model(**inputs).logits, said['logits'])\n"
    )
    run_fresh(code, tmp_path)


@pytest.mark.parametrize("family", BERT_NOW)
@torch.no_grad()
def test_the_graph_of_a_low_rank_model_says_what_it_says(family: str, tmp_path: Path) -> None:
    model, batch = low_rank(tiny_model(family)), tiny_batch(family=family)
    write_onnx(model, input_names(tiny_tokenizer(family)), tmp_path / "model.onnx")
    feed = {name: batch[name].numpy() for name in INPUTS if name in batch}
    answers = inference_session(tmp_path / "model.onnx", 1).run(["logits"], feed)[0]
    np.testing.assert_allclose(answers, observe(model, batch).logits.numpy(), atol=1e-5)


@torch.no_grad()
def test_a_timed_graph_has_two_products_for_one(graphs: Graphs) -> None:
    model, graph = tiny_model(), onnx.load(graphs("bert"))
    chosen = {(0, "intermediate.dense"): 3, (2, "attention.self.value"): 5}
    made = factored_graph(graph, model.config, chosen)
    assert sum(node.op_type == "MatMul" for node in made.graph.node) == 2 + sum(
        node.op_type == "MatMul" for node in graph.graph.node
    )
    stored = [sum(int(np.prod(weight.dims)) for weight in item.graph.initializer) for item in (graph, made)]
    assert stored[0] - stored[1] == 16 * 32 - 3 * (16 + 32) + 16 * 16 - 5 * (16 + 16)
    batch = tiny_batch()
    feed = {name: batch[name].numpy() for name in INPUTS if name in batch}
    assert np.isfinite(inference_session(made, 1).run(["logits"], feed)[0]).all()


def test_ranks_are_those_at_which_two_factors_are_smaller() -> None:
    assert Matrix(0, "", 16, 16).ranks(100) == [1, 2, 3, 4, 5, 6, 7]
    assert Matrix(0, "", 768, 768).ranks(3) == [96, 192, 288]
    assert Matrix(0, "", 2, 2).ranks(4) == []
    for matrix in (Matrix(0, "", 768, 3072), Matrix(0, "", 100, 7)):
        assert all(rank * (matrix.outputs + matrix.inputs) < matrix.outputs * matrix.inputs for rank in matrix.ranks(8))


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_counts_are_those_of_the_low_rank_model(family: str) -> None:
    model = shrink(tiny_model(family), heads=[[0, 1, 2]] * 4)
    costs = counted(model, 4, "parameters", 1)
    chosen = tuple(own[0 if place % 2 else -1][0] for place, own in enumerate(costs.saved))
    spectra = spectra_of(model, matrices_of(model.config), [tiny_batch(family=family)])
    parts = zip(matrices_of(model.config), spectra, modules_of(model, matrices_of(model.config)), chosen, strict=True)
    factors = {(m.layer, m.name): s.factors(module.weight, r) for m, s, module, r in parts if r != WHOLE}
    assert costs.of(chosen) == parameters(factored(model, factors)) < parameters(model) == costs.whole


@pytest.mark.slow
def test_measured_savings_never_fall_as_ranks_do() -> None:
    costs = measured(CONFIGS["bert"](), input_names(tiny_tokenizer()), 12, 1, 3)
    assert costs.whole > 0
    assert len(costs.saved) == 4 * 6
    for own in costs.saved:
        assert own[-1] == (WHOLE, 0.0)
        assert [saved for _, saved in own[:-1]] == sorted((saved for _, saved in own[:-1]), reverse=True)


def sensitivity_of(family: str = "bert") -> RankSensitivity:
    model, batches = tiny_model(family), [tiny_batch(family=family), tiny_batch(2, 5, seed=1, family=family)]
    whole = matrices_of(model.config)
    return RankSensitivity(model, batches, whole, spectra_of(model, whole, batches))


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_a_matrixs_loss_is_the_distance_of_the_model_with_its_factors(family: str) -> None:
    known = sensitivity_of(family)
    before = {name: value.clone() for name, value in known.model.state_dict().items()}
    lost = known.by_matrix([[2, WHOLE] for _ in known.matrices])
    for place in (0, 5, len(known.matrices) - 1):
        matrix, module = known.matrices[place], modules_of(known.model, known.matrices)[place]
        other = factored(
            known.model, {(matrix.layer, matrix.name): known.spectra[place].factors(module.weight.detach(), 2)}
        )
        expected = known.between(known.answered(other))
        assert lost[place] == {2: pytest.approx(expected, rel=1e-3, abs=1e-7), WHOLE: 0.0}
        alone = tuple(2 if i == place else WHOLE for i in range(len(known.matrices)))
        assert known.distance(alone) == pytest.approx(expected, rel=1e-3, abs=1e-7)
    assert all(torch.equal(before[name], value) for name, value in known.model.state_dict().items())


def test_the_first_ranks_are_the_best_of_all_whose_losses_add_up() -> None:
    saved = (((1, 30.0), (4, 10.0), (WHOLE, 0.0)), ((1, 30.0), (4, 10.0), (WHOLE, 0.0)), ((2, 25.0), (WHOLE, 0.0)))
    costs = RankCosts("parameters", 100.0, saved)
    lost = [{1: 5.0, 4: 1.0, WHOLE: 0.0}, {1: 2.0, 4: 1.5, WHOLE: 0.0}, {2: 2.4, WHOLE: 0.0}]

    class Nothing:
        def distance(self, chosen: Any) -> float:
            return 0.0

    every = list(product((1, 4, WHOLE), (1, 4, WHOLE), (2, WHOLE)))
    for budget in (101.0, 89.9, 75.5, 60.5, 45.5, 20.5, 15.0):
        chosen, _ = best_ranks(costs, (WHOLE,) * 3, lost, budget, Nothing(), 0, 0)  # type: ignore[arg-type]
        fitting = [item for item in every if costs.of(item) <= budget]
        assert chosen in fitting
        loss = {item: sum(own[rank] for own, rank in zip(lost, item, strict=True)) for item in fitting}
        assert loss[chosen] == min(loss.values())
    assert costs.least() == 15.0
    assert costs.options((4, WHOLE, 2)) == [[1, 4], [1, 4, WHOLE], [2]]


@pytest.mark.parametrize("family", BERT_NOW)
def test_a_size_is_kept_with_every_family(family: str, tmp_path: Path, files: dict[str, Path]) -> None:
    save_tiny(tmp_path / "teacher", family)
    size = 0.034 if family == "bert" else 0.03
    state = (
        small(files, tmp_path / "teacher", tmp_path, rank=budget(size_mib=size, rounds=2, allow_slower=True))
        .run()
        .state
    )
    stage, before = stage_of(tmp_path, "rank"), stage_of(tmp_path, "distill")
    assert stage["details"]["measured_size_mib"] <= size < before["size_mib"]
    assert stage["details"]["measured_size_mib"] == pytest.approx(stage["size_mib"])
    assert any(stage["details"]["ranks"])
    assert len({point["step"] for point in stage["curves"]}) > 0  # it was recovered
    assert ranks(load_model(state.given_student.folder).config) == stage["details"]["ranks"]


@pytest.mark.slow
def test_the_int8_artifacts_of_a_low_rank_student_answer(
    tmp_path: Path, files: dict[str, Path], teacher_folder: Path
) -> None:
    chain = small(files, teacher_folder, tmp_path, rank=budget(parameters=7_000, allow_slower=True))
    state = replace(chain, quantize={"dynamic": DynamicInt8(), "qat": QuantizationAware(epochs=0.5)}).run().state
    stage = stage_of(tmp_path, "rank")
    assert stage["parameters"] == stage["details"]["predicted_parameters"] <= 7_000
    assert {"dynamic", "qat"} <= {artifact.name for artifact in state.artifacts}


@pytest.mark.slow
def test_a_student_that_becomes_no_faster_is_refused_before_its_recovery(
    tmp_path: Path, files: dict[str, Path], teacher_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compress.prune import rank

    real = rank.side_by_side

    def slower(*given: Any) -> Any:
        found, product = real(*given)
        return found | {"speedup": 0.97}, product

    monkeypatch.setattr(rank, "side_by_side", slower)
    with pytest.raises(RecipeError, match=r"prune\.rank\.parameters = 7000.*no faster.*0\.97×.*allow_slower=true"):
        small(files, teacher_folder, tmp_path, rank=budget(parameters=7_000, recovery_epochs=50)).run()


def test_a_budget_out_of_reach_is_refused_with_what_can_be_had(
    tmp_path: Path, files: dict[str, Path], teacher_folder: Path
) -> None:
    with pytest.raises(RecipeError, match=r"parameters = 10\.0: is out of reach: every matrix .* at least \d"):
        small(files, teacher_folder, tmp_path, rank=budget(parameters=10, allow_slower=True)).run()


@pytest.mark.parametrize(
    ("given", "setting"),
    [
        ({}, "speedup"),
        ({"speedup": 2.0, "parameters": 100}, "parameters"),
        ({"speedup": 1.0}, "speedup"),
        ({"speedup": 2.0, "ranks": 0}, "ranks"),
        ({"speedup": 2.0, "input_rows": 0}, "input_rows"),
        ({"speedup": 2.0, "allow_slower": True}, "allow_slower"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], setting: str) -> None:
    assert [fault.setting for fault in PruneRank(**given).faults()] == [setting]


def test_students_without_whole_matrices_are_refused() -> None:
    def rules(stage: Any, student: Any) -> str:
        (fault,) = stage.faults(Known(student=student))
        return fault.rule

    teacher = CONFIGS["bert"]()
    cut = low_rank(tiny_model()).config
    assert "of type compress_bilstm" in rules(budget(speedup=2.0), BiLstm().config(teacher))
    assert "cannot time" in rules(budget(speedup=2.0), CONFIGS["deberta-v2"]())
    assert "low-rank already" in rules(budget(parameters=9, allow_slower=True), cut)
    assert "with low-rank matrices" in rules(Budget(parameters=9), cut)
    assert "with low-rank matrices" in rules(PruneHeads(), cut)
    assert not list(PruneLayers().faults(Known(student=cut)))
    setattr(teacher, SPARSE, True)
    assert "fill the zeros" in rules(budget(speedup=2.0), teacher)


def test_stages_that_cut_matrices_must_come_before() -> None:
    stage = budget(speedup=2.0)
    before = {"prune.heads": PruneHeads(), "prune.rank": stage, "prune.layers": PruneLayers()}
    assert not list(stage.faults(Known(stages=before)))
    after = {"prune.rank": stage, "prune.heads": PruneHeads(), "prune.weights": PruneWeights()}
    (fault,) = stage.faults(Known(stages=after))
    assert fault.rule.startswith("must come after heads")


def test_weights_of_the_factors_can_become_zero() -> None:
    found = matrices(low_rank(tiny_model()))
    assert len(found) == 6 + 3 * 12
    assert all(isinstance(module, torch.nn.Linear) for module in found.values())


@torch.no_grad()
def test_a_low_rank_teacher_lends_its_layers() -> None:
    teacher = low_rank(tiny_model())
    student = Bert(layers=2).build(teacher)
    assert ranks(student.config) == [ranks(teacher.config)[layer - 1] for layer in student.config.teacher_layers]
    names = FAMILIES["bert"]
    with names.running(teacher, [names.layers(teacher)[layer - 1] for layer in student.config.teacher_layers]):
        assert torch.equal(observe(student, tiny_batch()).logits, observe(teacher, tiny_batch()).logits)
    assert not any(ranks(Bert(layers=2, intermediate_size=8).config(teacher.config)))
