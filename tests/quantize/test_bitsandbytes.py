"""Weights in 8 and 4 bits: they are the papers' numbers, reload to the bit, take less memory, and are measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from compress.distill.losses import SoftTargets
from compress.distill.stage import Distill
from compress.errors import ModelError, RecipeError
from compress.families.base import linear
from compress.families.forms.uneven import shrink
from compress.families.registry import FAMILIES
from compress.files import size_mib
from compress.models.loading import load_model, quiet, save_model
from compress.models.outputs import INPUTS
from compress.pipeline.artifact import Artifact
from compress.pipeline.model import Model
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.quantize.bitsandbytes import Bits, BitsAndBytes
from compress.runtimes.registry import load_session
from compress.settings import all_faults
from compress.student.bert import Bert
from compress.student.bilstm import BiLstm
from tests.conftest import CONFIGS, FAMILY_NAMES, reviews, save_tiny, tiny_batch, tiny_tokenizer, write_tsv
from tests.fresh import run_fresh
from tests.quantize.test_qat import tiny
from tests.run.test_recipe import made, report

NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip  # QLoRA, appendix E


def wide(family: str) -> PreTrainedModel:
    """Return a classifier of two layers that differ in shape, wide enough for blocks of 64."""
    config = CONFIGS[family]()
    for name, value in zip(
        ("dim", "hidden_dim") if family == "distilbert" else ("hidden_size", "intermediate_size"), (64, 128),
        strict=True,
    ):  # fmt: skip
        setattr(config, name, value)
    state = torch.get_rng_state()
    torch.manual_seed(1)
    with quiet():
        model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config).eval()
    torch.set_rng_state(state)
    return shrink(model, layers=[0, 2], heads=[[0, 1, 2, 3], [0], [0, 2, 3], [0]])


def quantized(model: PreTrainedModel, family: str, folder: Path, **settings: Any) -> Artifact:
    source = folder / f"student-{family}"
    if not source.exists():
        save_model(model, tiny_tokenizer(family), source)
    state = State.begin(
        data=None,  # type: ignore[arg-type]
        workshop=Workshop(folder / "cache"), seed=0, student=Model(source, family),
    )  # fmt: skip
    return BitsAndBytes(**settings)(state).artifacts[-1]


CODE = """
import sys, torch, compress
from pathlib import Path
from transformers import AutoModelForSequenceClassification
for folder in map(Path, sys.argv[1:]):
    said = torch.load(folder / "said.pt")
    model = AutoModelForSequenceClassification.from_pretrained(folder, device_map="cpu").eval()
    with torch.no_grad():
        assert torch.equal(model(**said["inputs"]).logits, said["logits"]), folder
"""


def test_both_reload_in_a_fresh_process_to_the_bit_and_are_near_the_student(tmp_path: Path) -> None:
    folders = []
    for family in FAMILY_NAMES:
        model = wide(family)
        batch = {name: value for name, value in tiny_batch(family=family).items() if name in INPUTS}
        for bits in Bits:
            folder = quantized(model, family, tmp_path, bits=bits).folder
            runner = load_session(folder)
            found = torch.from_numpy(runner({name: value.numpy() for name, value in batch.items()}))
            with torch.no_grad():
                expected = model(**batch).logits
            apart = ((found - expected).norm() / expected.norm()).item()
            assert 0 < apart < (0.1 if bits is Bits.int8 else 0.3)
            torch.save({"inputs": batch, "logits": found}, folder / "said.pt")
            assert not list(folder.glob("*.bin"))
            folders.append(folder)
    run_fresh(CODE, *folders)


@pytest.mark.parametrize("bits", ["8", "4"])
def test_weights_that_are_not_as_config_json_says_are_refused(tmp_path: Path, bits: str) -> None:
    path = save_tiny(tmp_path / "model", num_labels=2) / "config.json"
    found = {"quant_method": "bitsandbytes", f"load_in_{bits}bit": True}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": found}))
    with pytest.raises(ModelError, match=r"says that weights are quantized, and those of bert\.encoder\..* are not"):
        load_model(path.parent)


def test_int8_is_each_rows_largest_weight_in_127_steps(tmp_path: Path) -> None:
    model = wide("bert")
    loaded = load_model(quantized(model, "bert", tmp_path).folder)
    ours = model.bert.encoder.layer[1].output.dense.weight
    theirs = loaded.bert.encoder.layer[1].output.dense.weight
    assert theirs.dtype == torch.int8
    for row, integers in zip(ours.half().float(), theirs, strict=True):
        assert (integers - (row / row.abs().max() * 127)).abs().max() < 0.51


def test_nf4_is_the_nearest_of_sixteen_normal_floats_in_blocks_of_64(tmp_path: Path) -> None:
    from bitsandbytes.functional import dequantize_4bit

    model = wide("bert")
    loaded = load_model(quantized(model, "bert", tmp_path, bits=Bits.nf4, double_quantization=False).folder)
    theirs = loaded.bert.encoder.layer[0].intermediate.dense.weight
    found = dequantize_4bit(theirs.data, theirs.quant_state).flatten().numpy()
    ours = model.bert.encoder.layer[0].intermediate.dense.weight.detach().flatten().numpy()
    codes = np.array(NF4, dtype=np.float32)
    for start in range(0, len(ours), 64):
        block = ours[start : start + 64]
        largest = np.abs(block).max()
        nearest = codes[np.abs(block[:, None] / largest - codes).argmin(1)] * largest
        np.testing.assert_allclose(found[start : start + 64], nearest, atol=1e-6)


def test_head_embeddings_and_layers_of_other_shapes_stay_in_fp32(tmp_path: Path) -> None:
    model = wide("roberta")
    for bits, layers in ((Bits.int8, 12), (Bits.nf4, 8)):
        artifact = quantized(model, "roberta", tmp_path, bits=bits)
        loaded = load_model(artifact.folder)
        left = {name for name, module in loaded.named_modules() if type(module) is nn.Linear}
        assert {"classifier.dense", "classifier.out_proj"} <= left
        first, second = FAMILIES["roberta"].layers(loaded)
        assert type(linear(first, "attention.self.query")) is not nn.Linear
        odd = linear(second, "attention.self.query"), linear(second, "attention.output.dense")
        assert [type(module) is nn.Linear for module in odd] == [bits is Bits.nf4] * 2  # 48 outputs, 48 inputs
        assert loaded.roberta.embeddings.word_embeddings.weight.dtype == torch.float32
        assert any(note.startswith(f"{layers} linear layers in {bits.value}") for note in artifact.notes)


def test_it_takes_less_memory_and_disk(tmp_path: Path) -> None:
    model = wide("bert")
    whole = sum(value.nbytes for value in model.state_dict().values()) / 2**20
    sizes = [quantized(model, "bert", tmp_path, bits=bits) for bits in Bits]
    int8, nf4 = (artifact.details.memory_mib for artifact in sizes)
    assert int8 < 0.5 * whole
    assert nf4 < 0.6 * whole  # some layers are left out
    for artifact in sizes:
        assert size_mib(artifact.folder, (".safetensors",)) < 0.8 * whole
        assert f"{whole:.1f} in fp32" in " ".join(artifact.notes)


def test_a_model_that_was_pruned_out_of_every_block_is_refused_in_words(tmp_path: Path) -> None:
    narrow = shrink(wide("distilbert"), heads=[[0], [0]], units=[[0, 1], [0]])
    with pytest.raises(ModelError, match="nf4: no linear layer has 32·i outputs and 64·j inputs"):
        quantized(narrow, "distilbert", tmp_path, bits=Bits.nf4)
    assert "12 linear layers in int8" in quantized(narrow, "distilbert", tmp_path).notes[0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with both, side by side."""
    folder = tmp_path_factory.mktemp("bitsandbytes")
    for name, rows, seed in (("train", 160, 1), ("validation", 40, 2), ("test", 60, 3)):
        write_tsv(folder / f"{name}.tsv", reviews(rows, seed))
    save_model(wide("bert").base_model, tiny_tokenizer("bert"), folder / "teacher")
    both(folder).run()
    return folder


def both(folder: Path, **changes: Any) -> Any:
    quantize = {"eight": BitsAndBytes(), "four": BitsAndBytes(bits=Bits.nf4)}
    return tiny(folder, **{"student": Bert(layers=1), "quantize": quantize, "prune": {}} | changes)


def test_both_stand_in_the_report_side_by_side_and_were_run(finished: Path) -> None:
    artifacts = {artifact["name"]: artifact for artifact in report(finished)["artifacts"]}
    assert list(artifacts) == ["student", "eight", "four"]
    times = [tuple(entry["median_ms"] for entry in artifact["latency"]) for artifact in artifacts.values()]
    assert len(set(times)) == 3  # each was timed, none is the student's
    for name, precision in (("eight", "int8"), ("four", "nf4")):
        artifact = artifacts[name]
        assert (artifact["runtime"], artifact["precision"], artifact["path"]) == (
            "pytorch",
            precision,
            f"artifacts/{name}",
        )
        assert "int8_matmuls" not in artifact
        assert artifact["max_abs_difference"] > 0
        assert artifact["agreement"] >= 0.9
        assert artifact["details"]["memory_mib"] < artifact["size_mib"] * 1.5
        assert artifact["size_mib"] < artifacts["student"]["size_mib"]
        folder = finished / "run" / artifact["path"]
        assert AutoModelForSequenceClassification.from_pretrained(folder, device_map="cpu").config.num_labels == 2
    assert artifacts["student"]["max_abs_difference"] == 0
    assert "bitsandbytes" in report(finished)["versions"]


def test_a_second_run_makes_nothing_again(finished: Path) -> None:
    before = made(finished)
    both(finished).run()
    assert made(finished) == before


def test_what_cannot_be_is_refused_before_any_work(finished: Path, tmp_path: Path) -> None:
    lstm = both(finished, student=BiLstm(), distill=Distill(losses={"soft": SoftTargets()}))
    with pytest.raises(RecipeError, match="cannot quantize a student of type compress_bilstm"):
        lstm.run()
    narrow = both(finished)
    narrow.teacher = replace(narrow.teacher, model=str(save_tiny(tmp_path / "narrow")))
    with pytest.raises(RecipeError, match=r"quantize\.four\.bits = 'nf4': needs linear layers of 32·i outputs"):
        narrow.run()
    nf4 = BitsAndBytes(bits=Bits.nf4, threshold=5)
    wrong = [BitsAndBytes(threshold=-1), nf4, BitsAndBytes(double_quantization=False)]
    found = [[fault.setting for fault in all_faults(item)] for item in wrong]
    assert found == [["threshold"], ["threshold"], ["double_quantization"]]
