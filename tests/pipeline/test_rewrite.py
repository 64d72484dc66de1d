from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from compress.distill.projections import go_on, keep
from compress.models.loading import load_model, load_tokenizer, save_model
from compress.pipeline.model import Model
from compress.pipeline.rewrite import Rewritten, rewrite
from compress.pipeline.workshop import Kind, Workshop
from tests.conftest import tiny_model, tiny_tokenizer

KIND = Kind("negated", revision=1)


def saved(folder: Path) -> Model:
    save_model(tiny_model(), tiny_tokenizer(), folder)
    return Model(folder, "student")


def projections() -> nn.ModuleDict:
    return nn.ModuleDict({"states": nn.Linear(8, 16, bias=False)})


def negated(model: PreTrainedModel, tokenizer: Any) -> Rewritten:
    for parameter in model.parameters():
        parameter.data.neg_()
    return Rewritten(model, tokenizer, {"parameters": len(list(model.parameters()))})


def test_a_copy_is_changed_and_projections_go_with_it(tmp_path: Path) -> None:
    source = saved(tmp_path / "student")
    given = projections()
    keep(given, source.folder)
    product = rewrite(Workshop(tmp_path / "cache"), KIND, source, ["all"], negated)
    before, after = load_model(source.folder).state_dict(), load_model(product.folder).state_dict()
    assert all(value.equal(-before[name]) for name, value in after.items() if value.is_floating_point())
    assert product.record["parameters"] > 10
    assert load_tokenizer(product.folder).get_vocab() == load_tokenizer(source.folder).get_vocab()
    carried = projections()
    assert go_on(carried, product.folder)
    assert carried["states"].weight.equal(given["states"].weight)


def test_it_is_done_once_for_a_model_and_what_it_depends_on(tmp_path: Path) -> None:
    source, shop = saved(tmp_path / "student"), Workshop(tmp_path / "cache")
    first = rewrite(shop, KIND, source, ["all"], negated)
    assert rewrite(shop, KIND, source, ["all"], negated).reused
    others = (
        rewrite(shop, KIND, source, ["some"], negated),
        rewrite(shop, KIND, Model(source.folder, "b"), ["all"], negated),
    )
    assert len({first.key, *(other.key for other in others)}) == 3
