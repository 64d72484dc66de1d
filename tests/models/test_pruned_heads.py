"""Models whose heads transformers 4 pruned, against attention computed by hand from the smaller matrices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification

from compress.errors import ModelError
from compress.families.registry import FAMILIES
from compress.models.loading import load_config, load_model, load_tokenizer, quiet, save_model
from tests.conftest import LIKE_BERT, save_tiny, tiny_batch, tiny_model

PRUNED = {"0": [0, 2], "3": [1]}


def pruned_by_transformers_4(folder: Path, family: str, pruned: dict[str, list[int]]) -> Path:
    """Save a tiny classifier as transformers 4 saved one after ``prune_heads``."""
    save_tiny(folder, family, num_labels=2)
    path, names = folder / "model.safetensors", FAMILIES[family]
    weights = load_file(path)
    for layer, heads in pruned.items():
        kept = torch.tensor([head * 4 + i for head in range(4) if head not in heads for i in range(4)])
        for part in names.projections():
            for kind in ("weight", "bias"):
                name = names.named(int(layer), f"{part.name}.{kind}")
                weights[name] = weights[name][kept].contiguous()
        output = names.named(int(layer), f"{names.attention_output_name()}.weight")
        weights[output] = weights[output][:, kept].contiguous()
    save_file(weights, path, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"pruned_heads": pruned}))
    return folder


@pytest.mark.parametrize("family", LIKE_BERT)
def test_they_answer_as_the_whole_model_with_those_heads_silenced(tmp_path: Path, family: str) -> None:
    folder = pruned_by_transformers_4(tmp_path / "pruned", family, PRUNED)
    whole = tiny_model(family, num_labels=2)
    layers = FAMILIES[family].layers(whole)
    with torch.no_grad():
        for layer, heads in PRUNED.items():
            output = FAMILIES[family].attention_output(layers[int(layer)]).weight
            for head in heads:
                output[:, head * 4 : head * 4 + 4] = 0
    batch = tiny_batch(family=family)
    model = load_model(folder)
    torch.testing.assert_close(model(**batch).logits, whole(**batch).logits)
    assert model.config.kept_heads == [[1, 3], [0, 1, 2, 3], [0, 1, 2, 3], [0, 2, 3]]
    save_model(model, load_tokenizer(folder), tmp_path / "again")
    again = load_model(tmp_path / "again")
    torch.testing.assert_close(again(**batch).logits, whole(**batch).logits)
    assert not hasattr(again.config, "pruned_heads")


def test_other_families_are_refused_by_layer_and_heads(tmp_path: Path) -> None:
    with quiet():
        config = AutoConfig.for_model(
            "roformer", vocab_size=21, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32,
            pruned_heads={"1": [0, 3]},
        )  # fmt: skip
        AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"layer 1: heads 0, 3.*roformer"):
        load_config(tmp_path)


@pytest.mark.parametrize("pruned", [{"9": [0]}, {"0": [4]}, {"0": [0, 1, 2, 3]}, {"0": "all"}, {"first": [0]}], ids=str)
def test_layers_and_heads_that_are_not_there_are_refused(tmp_path: Path, pruned: dict[str, list[int]]) -> None:
    folder = save_tiny(tmp_path / "model", num_labels=2)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"pruned_heads": pruned}))
    with pytest.raises(ModelError, match=f"pruned_heads in config.json: layer {next(iter(pruned))} cannot"):
        load_config(folder)


def test_heads_that_the_weights_still_have_are_refused(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", num_labels=2)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"pruned_heads": {"2": [1]}}))
    with pytest.raises(ModelError, match=r"layer\.2\.attention\.output\.dense\.weight.*shape 16 × 16.*is 16 × 12"):
        load_config(folder)
