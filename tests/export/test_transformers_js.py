"""The folder for transformers.js and Optimum: names, types that both know, which graph is where, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from tokenizers import Tokenizer
from transformers import AutoConfig

from compress.benchmark.stage import Benchmark
from compress.errors import ModelError, RecipeError
from compress.export.javascript import row_module
from compress.export.onnx import Onnx
from compress.export.transformers_js import TransformersJs
from compress.onnx.graph import input_names
from compress.quantize.half import HalfPrecision
from compress.quantize.int8 import DynamicInt8, StaticInt8
from compress.quantize.symmetric import SymmetricInt8
from compress.run.check import check
from compress.student.bilstm import BiLstm
from tests.conftest import CONFIGS, reviews, save_tiny, tiny_tokenizer, write_tsv
from tests.run.test_recipe import recipe, report

QUICK = Benchmark(rows=3, batches=[1], tokens=[8], seconds=0.02, tfidf=False, labels_only=False, teacher_int8=False)
BOTH: dict[str, Any] = {"onnx": Onnx(), "transformers_js": TransformersJs()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with several int8 candidates, whose student lost heads."""
    folder = tmp_path_factory.mktemp("js")
    sizes = {"train": (160, 1), "validation": (40, 2), "test": (60, 3)}
    files = {name: write_tsv(folder / f"{name}.tsv", reviews(*size)) for name, size in sizes.items()}
    quantize = {
        "symmetric": SymmetricInt8(rows=16), "static": StaticInt8(rows=16), "dynamic": DynamicInt8(),
        "fp16": HalfPrecision(),
    }  # fmt: skip
    made = recipe(files, save_tiny(folder / "teacher"), folder, quantize=quantize, export=BOTH, benchmark=QUICK)
    made.run()
    return folder


def again(world: Path, **changes: Any) -> Any:
    files = {name: world / f"{name}.tsv" for name in ("train", "validation", "test")}
    return recipe(files, world / "teacher", world, **{"benchmark": QUICK, "export": BOTH} | changes)


def test_files_have_the_names_that_are_looked_for_and_hold_what_the_notes_say(world: Path) -> None:
    folder = world / "run" / "artifacts" / "transformers_js"
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {
        "README.md", "config.json", "row.mjs", "tokenizer.json", "tokenizer_config.json",
        "onnx/model.onnx", "onnx/model_quantized.onnx", "onnx/model_fp16.onnx",
    }  # fmt: skip
    origin = {"model": "onnx", "model_quantized": "static", "model_fp16": "fp16"}
    for name, artifact in origin.items():
        there = world / "run" / "artifacts" / artifact / "model.onnx"
        assert (folder / "onnx" / f"{name}.onnx").read_bytes() == there.read_bytes()
    facts = next(
        given_artifact for given_artifact in report(world)["artifacts"] if given_artifact["name"] == "transformers_js"
    )
    assert facts["not_measured"] == "holds the files of onnx, static, fp16, measured there"
    assert "onnx/model_quantized.onnx is static" in facts["notes"][0]
    assert {"symmetric has no place of its own there", "dynamic has no place of its own there"} < set(facts["notes"])


def test_the_type_is_one_that_others_know_though_layers_differ(world: Path) -> None:
    student = json.loads((world / "run" / "student" / "config.json").read_text())
    assert student["model_type"] == "compress_bert"
    for name in ("transformers_js", "onnx", "dynamic"):
        folder = world / "run" / "artifacts" / name
        config = json.loads((folder / "config.json").read_text())
        assert config["model_type"] == "bert"
        assert "auto_map" not in config
        assert config["kept_heads"] == student["kept_heads"]  # what the graph has
        assert type(AutoConfig.from_pretrained(folder)).__module__.startswith("transformers.")
        tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
        assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"  # transformers 4 knows it as well


def test_it_answers_with_onnxruntime_and_tokenizers_alone(world: Path) -> None:
    folder = world / "run" / "artifacts" / "transformers_js"
    encoded = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("a good film")
    feed = {
        "input_ids": np.array([encoded.ids]), "attention_mask": np.array([encoded.attention_mask]),
        "token_type_ids": np.array([encoded.type_ids]),
    }  # fmt: skip
    logits = {}
    for name in ("model", "model_quantized", "model_fp16"):
        session = onnxruntime.InferenceSession(folder / "onnx" / f"{name}.onnx", providers=["CPUExecutionProvider"])
        (logits[name],) = session.run(["logits"], feed)
    assert logits["model"].shape == (1, 2)
    np.testing.assert_allclose(logits["model_fp16"], logits["model"], atol=0.02)
    np.testing.assert_allclose(logits["model_quantized"], logits["model"], atol=0.5)


def constants(module: str) -> dict[str, Any]:
    """Return what a module of JavaScript sets at its top, by name."""
    lines = [line.removeprefix("const ").rstrip(";") for line in module.splitlines() if line.startswith("const ")]
    return {name: json.loads(value) for name, _, value in (line.partition(" = ") for line in lines)}


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("texts", [("a good film",), ("a good film", "so dull")])
def test_rows_for_javascript_are_put_together_as_the_tokenizer_does(family: str, texts: tuple[str, ...]) -> None:
    tokenizer = tiny_tokenizer(family)
    backend = tokenizer.backend_tokenizer
    backend.enable_truncation(48, strategy="longest_first", direction="right")
    known = constants(row_module(backend, input_names(tokenizer), windows=False))
    pieces = [backend.encode(text, add_special_tokens=False).ids for text in texts]
    ids, types = [], []
    for part in known["TWO" if len(texts) > 1 else "ONE"]:
        numbers = part["ids"] if "ids" in part else pieces[part["text"]]
        ids += numbers
        types += [part["type"]] * len(numbers)
    expected = tokenizer(*texts)
    assert ids == expected["input_ids"]
    assert types == expected.get("token_type_ids", types)
    assert known["INPUTS"] == list(input_names(tokenizer))
    assert (known["TOKENS"], known["FROM_THE_LEFT"], known["ONLY_THE_SECOND"]) == (48, False, False)


def test_the_page_says_how_rows_are_cut(world: Path) -> None:
    page = (world / "run" / "artifacts" / "transformers_js" / "README.md").read_text()
    assert "await model(row(tokenizer, 'a text'))" in page
    assert 'tokenizer("a text", truncation=True, return_tensors="pt")' in page


def test_the_int8_graph_can_be_chosen(world: Path) -> None:
    quantize = {"static": StaticInt8(rows=16), "dynamic": DynamicInt8()}
    export = {"onnx": Onnx(), "transformers_js": TransformersJs(int8="dynamic")}
    state = again(world, quantize=quantize, export=export, output=str(world / "chosen")).run().state
    assert state.artifacts[-1].notes[0] == "onnx/model.onnx is onnx, onnx/model_quantized.onnx is dynamic"
    wrong = {"onnx": Onnx(), "transformers_js": TransformersJs(int8="learned")}
    with pytest.raises(RecipeError, match=r"export\.transformers_js\.int8 = 'learned': names no quantization"):
        check(again(world, quantize=quantize, export=wrong))
    other = {"onnx": Onnx(), "transformers_js": TransformersJs(int8="fp16")}
    with pytest.raises(ModelError, match=r"int8 = 'fp16': the run's int8 graphs for the CPU are static, dynamic"):
        again(world, quantize=quantize | {"fp16": HalfPrecision()}, export=other, output=str(world / "wrong")).run()


def test_what_it_cannot_gather_is_refused_before_any_work(world: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"export\.transformers_js: gathers .* Choose export=\[onnx,transformers_js\]"
    ):
        check(again(world, export={"transformers_js": TransformersJs()}))
    with pytest.raises(RecipeError, match=r"transformers\.js does not know students of type .* It knows .*\bbert\b"):
        check(again(world, student=BiLstm(), prune={}))
