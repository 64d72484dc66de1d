"""A Triton repository: configs by Triton's schema against the graphs, models and clients really run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from compress.benchmark.stage import Benchmark
from compress.cli.compose import compose
from compress.data.dataset import Dataset, Split
from compress.errors import ModelError, RecipeError
from compress.export.onnx import Onnx
from compress.export.tensorrt import Engines
from compress.export.triton import InstanceKind, Tokenize, Triton
from compress.models.loading import load_tokenizer, save_model
from compress.models.tokens import tokenize
from compress.pipeline.artifact import Artifact
from compress.pipeline.model import Model
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.quantize.bitsandbytes import BitsAndBytes
from compress.quantize.int8 import DynamicInt8
from compress.quantize.symmetric import SymmetricInt8
from compress.run.predict import predict
from compress.settings import all_faults
from compress.tasks.classification import Classification
from compress.tasks.regression import Regression
from tests.conftest import EVERY_FAMILY, WITH_TYPES, reviews, save_tiny, tiny_model, tiny_tokenizer, write_tsv
from tests.export.triton_server import RequestError, Server, config, kind, listening, load
from tests.run.test_recipe import made, recipe, report

TEXTS = [
    "good film",
    "The plot was very BAD and the actor is dull, so dull",
    "lovely " * 60,  # above 32 tokens
    "unknown words — ünïcödé 电影 here",
    "  a  ",
]
TYPES = {"tensor(int64)": "TYPE_INT64", "tensor(float)": "TYPE_FP32"}


@cache
def exported(folder: Path, family: str, outputs: int) -> State:
    """Return a state with a tiny student and its ONNX artifact, made once for all tests."""
    folder = folder / f"{family}-{outputs}"
    (folder / "student").mkdir(parents=True)
    (folder / "cache").mkdir()
    head = Classification(("bad", "good", "so")).head_config() if outputs == 3 else Regression(0, 5).head_config()
    model = tiny_model(family, **(head if outputs != 2 else Classification(("bad", "good")).head_config()))
    save_model(model, tiny_tokenizer(family), folder / "student")
    student = Model(folder / "student", f"{family} {outputs}")
    return Onnx()(State.begin(dataset(Regression(0, 5)), Workshop(folder / "cache"), 0, student=student))


def dataset(task: Any, *, paired: bool = False) -> Dataset:
    labels, texts = zip(*reviews(40, 0), strict=True)
    split = Split(texts, texts[::-1] if paired else None, labels=np.array([label == "good" for label in labels], int))
    return Dataset("reviews", task, split, split, split)


@pytest.fixture
def state(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Callable[..., State]:
    """Return how a state is made: with a tiny student of a family, and a copy of its ONNX artifact."""
    place = tmp_path_factory.getbasetemp() / "students"

    def make(family: str = "bert", *, paired: bool = False, task: Any = None) -> State:
        task = task or Classification(("bad", "good"))
        found = exported(place, family, task.outputs)
        folder, artifact = tmp_path / f"{family}-{paired}", found.artifacts[0]
        shutil.copytree(artifact.folder, folder)
        config = json.loads((folder / "config.json").read_text())
        names = {str(index): label for index, label in task.head_config()["id2label"].items()}
        config["compress"]["pairs"] = paired
        (folder / "config.json").write_text(json.dumps(config | {"id2label": names}))
        return replace(found, data=dataset(task, paired=paired), artifacts=(replace(artifact, folder=folder),))

    return make


def repository(before: State, **settings: Any) -> Path:
    """Return the folder that the stage writes."""
    return Triton(**settings)(before).artifacts[-1].folder


def column(texts: list[str]) -> Any:
    return np.array([[text.encode()] for text in texts], dtype=np.object_)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a repository of three graphs, and its files."""
    folder = tmp_path_factory.mktemp("triton")
    sizes = {"train": (160, 1), "validation": (40, 2), "test": (60, 3)}
    files = {name: write_tsv(folder / f"{name}.tsv", reviews(*size)) for name, size in sizes.items()}
    save_tiny(folder / "teacher")
    short(files, folder).run()
    return folder


def short(files: dict[str, Path], folder: Path) -> Any:
    return recipe(
        files, folder / "teacher", folder, prune={},
        export={"triton": Triton(preferred_batch_sizes=[4, 16]), "onnx": Onnx()},  # the first gathers, and runs last
        quantize={"dynamic": DynamicInt8(), "symmetric": SymmetricInt8(rows=16)},
        benchmark=Benchmark(rows=5, batches=[1], tokens=[8], seconds=0.02, labels_only=False, teacher_int8=False),
    )  # fmt: skip


@pytest.fixture(scope="module")
def served(finished: Path) -> Server:
    return Server(finished / "run" / "artifacts" / "triton")


def test_a_run_serves_what_its_other_stages_made_and_says_that_it_is_not_measured(finished: Path) -> None:
    facts = report(finished)
    assert [artifact["name"] for artifact in facts["artifacts"]] == [
        "student",
        "onnx",
        "dynamic",
        "symmetric",
        "triton",
    ]
    single = facts["artifacts"][-1]
    assert single["not_measured"].endswith("which was not run: the report shows onnx, dynamic, symmetric")
    assert "metrics" not in single
    assert single["size_mib"] > 0
    assert facts["recommended"] != "triton"
    for page in ("report.md", "report.html"):
        text = (finished / "run" / page).read_text()
        assert "triton: not measured: written for nvcr.io/nvidia/tritonserver:" in text
        assert "serves onnx, dynamic, symmetric; README.md says how" in text
    folder = finished / "run" / single["path"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "client.py", "config.json", "dynamic", "dynamic_text", "logits_to_labels", "onnx", "onnx_text",
        "symmetric", "symmetric_text", "text_to_tokens", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    for name in ("onnx", "dynamic", "symmetric"):
        graph = finished / "run" / "artifacts" / name / "model.onnx"
        assert (folder / name / "1" / "model.onnx").read_bytes() == graph.read_bytes()


def test_a_second_run_writes_nothing_again(finished: Path) -> None:
    before = made(finished)
    files = {name: finished / f"{name}.tsv" for name in ("train", "validation", "test")}
    short(files, finished).run()
    assert made(finished) == before
    assert sum(name.startswith("triton-") for name in before) == 1


def test_a_graph_is_configured_with_its_own_names_types_and_sizes(served: Server) -> None:
    for name in ("onnx", "dynamic", "symmetric"):
        found = served.configs[name]
        session = onnxruntime.InferenceSession(served.folder / name / "1" / "model.onnx")
        for tensors, theirs in ((found.input, session.get_inputs()), (found.output, session.get_outputs())):
            assert [item.name for item in tensors] == [item.name for item in theirs]
            assert [kind(item) for item in tensors] == [TYPES[item.type] for item in theirs]
            sizes = [[size if isinstance(size, int) else -1 for size in item.shape] for item in theirs]
            assert [[-1, *item.dims] for item in tensors] == sizes
        assert found.max_batch_size == 32
        assert list(found.dynamic_batching.preferred_batch_size) == [4, 16]
        assert found.dynamic_batching.max_queue_delay_microseconds == 1000
        assert [(item.count, item.Kind.Name(item.kind)) for item in found.instance_group] == [(1, "KIND_CPU")]


def test_texts_get_the_labels_and_probabilities_of_compress_predict(served: Server, finished: Path) -> None:
    expected = predict(finished / "run" / "artifacts" / "onnx", TEXTS)
    for batch in ([text] for text in TEXTS):
        replies = served.infer("onnx_text", {"TEXT": column(batch)})
        single = expected[TEXTS.index(batch[0])]
        np.testing.assert_allclose(replies["PROBABILITIES"], [list(single["probabilities"].values())], atol=1e-6)
        assert replies["LABEL"].tolist() == [[single["label"].encode()]]
    together = served.infer("onnx_text", {"TEXT": column(TEXTS)})
    shares = [list(answer["probabilities"].values()) for answer in expected]
    np.testing.assert_allclose(together["PROBABILITIES"], shares, atol=1e-6)
    assert [label.decode() for label in together["LABEL"][:, 0]] == [answer["label"] for answer in expected]
    assert len(set(np.round(together["PROBABILITIES"][:, 0], 6))) > 2  # or equality would say little


def test_int8_graphs_are_served_as_they_were_measured(served: Server, finished: Path) -> None:
    for name, tolerance in (("symmetric", 1e-6), ("dynamic", 0.05)):  # padding moves ranges that are measured live
        expected = predict(finished / "run" / "artifacts" / name, TEXTS)
        shares = [list(answer["probabilities"].values()) for answer in expected]
        replies = [served.infer(f"{name}_text", {"TEXT": column([text])})["PROBABILITIES"][0] for text in TEXTS]
        np.testing.assert_allclose(replies, shares, atol=tolerance)
    assert served.configs["symmetric"].optimization.graph.level == -1  # its int8 would saturate on some processors
    assert served.configs["dynamic"].optimization.graph.level == 0


def test_without_rounding_dynamic_int8_says_what_compress_predict_says(state: Callable[..., State]) -> None:
    before = DynamicInt8()(state())
    server = Server(repository(before, pad_to_multiple_of=1))
    expected = predict(before.artifacts[-1].folder, TEXTS)
    replies = [server.infer("dynamic_text", {"TEXT": column([text])})["PROBABILITIES"][0] for text in TEXTS]
    np.testing.assert_allclose(replies, [list(answer["probabilities"].values()) for answer in expected], atol=1e-6)


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_the_server_reads_texts_as_training_did(family: str, paired: bool, state: Callable[..., State]) -> None:
    before = state(family, paired=paired)
    folder = repository(before)
    tokenizer = load_tokenizer(before.given_student.folder)
    seconds = [TEXTS[2], TEXTS[0], "so " * 40, TEXTS[1], TEXTS[3]]
    tokens = tokenize(Split(tuple(TEXTS), tuple(seconds) if paired else None), tokenizer, 32)
    given = {"TEXT": column(TEXTS)} | ({"TEXT_PAIR": column(seconds)} if paired else {})
    replies = Server(folder).infer("text_to_tokens", given)
    assert set(replies) == set(tokenizer.model_input_names)
    assert ("token_type_ids" in replies) == (family in WITH_TYPES)
    expected = tokens.batch(np.arange(len(TEXTS)))
    for name, numbers in replies.items():
        np.testing.assert_array_equal(numbers, expected[name].numpy())
    if paired and family == "bert":
        assert replies["token_type_ids"].any()


def test_a_tokenizer_that_cuts_on_the_left_does_so_in_the_server(state: Callable[..., State]) -> None:
    before = state()
    folder = before.artifacts[-1].folder
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"truncation_side": "left"}))
    before = replace(before, artifacts=(replace(before.artifacts[-1], key="left"),))
    text = " ".join(["good"] * 40 + ["bad"])
    expected = tokenize(Split((text,)), load_tokenizer(folder), 32).batch([0])["input_ids"].numpy()
    replies = Server(repository(before)).infer("text_to_tokens", {"TEXT": column([text])})["input_ids"]
    np.testing.assert_array_equal(replies, expected)
    assert replies[0, -2] != replies[0, -3]


def test_lengths_are_rounded_up_to_the_multiple_and_never_above_the_longest(state: Callable[..., State]) -> None:
    before = state()
    for multiple, widths in ((1, [3, 12, 32]), (8, [8, 16, 32]), (24, [24, 24, 32])):
        server = Server(repository(before, pad_to_multiple_of=multiple))
        texts = ["good", "the plot was very bad and so is the actor", "lovely " * 60]
        replies = [server.infer("text_to_tokens", {"TEXT": column([text])}) for text in texts]
        assert [item["input_ids"].shape[1] for item in replies] == widths
        assert all(item["input_ids"][0, -1] == 0 for item in replies[:1] if multiple > 1)


def test_a_blank_or_broken_text_is_refused_and_others_in_the_same_call_are_answered(served: Server) -> None:
    from tests.export.triton_server import InferenceRequest, Tensor

    model = served.loaded["text_to_tokens"]
    rows = [column(["good"]), column(["good", " \n"]), np.array([[b"\xff\xfe"]], dtype=np.object_), column(["bad"])]
    replies = model.execute([InferenceRequest([Tensor("TEXT", item)]) for item in rows])
    assert [item.error() is None for item in replies] == [True, False, False, True]
    assert replies[1].error().message() == "TEXT: there is no text in row 1"
    assert "utf-8" in replies[2].error().message()
    with pytest.raises(RequestError, match="no text in row 0"):
        served.infer("onnx_text", {"TEXT": column([""])})


def test_scores_are_served_as_scores(state: Callable[..., State]) -> None:
    before = state(task=Regression(0.0, 5.0))
    folder = repository(before)
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["onnx", "onnx_text", "text_to_tokens"]
    replies = Server(folder).infer("onnx_text", {"TEXT": column(TEXTS)})
    expected = [[artifact["score"]] for artifact in predict(before.artifacts[-1].folder, TEXTS)]
    np.testing.assert_allclose(replies["SCORE"], expected, atol=1e-5)


@pytest.mark.parametrize("labels", [('say "no"', "tab\tand \\", "ja – 好"), ("0", "1", "2")])
def test_labels_of_any_letters_come_back_as_they_are(labels: tuple[str, ...], state: Callable[..., State]) -> None:
    before = state(task=Classification(labels))
    replies = Server(repository(before)).infer("onnx_text", {"TEXT": column(TEXTS)})
    expected = predict(before.artifacts[-1].folder, TEXTS)
    assert [label.decode() for label in replies["LABEL"][:, 0]] == [answer["label"] for answer in expected]


@pytest.mark.parametrize("how", list(Tokenize))
@pytest.mark.parametrize("paired", [False, True])
def test_the_client_beside_the_models_asks_in_a_process_of_its_own(
    how: Tokenize, paired: bool, state: Callable[..., State]
) -> None:
    before = state(paired=paired)
    folder = repository(before, tokenize=how)
    texts, seconds = TEXTS[:4], TEXTS[:4][::-1]
    expected = predict(before.artifacts[-1].folder, texts, seconds if paired else None)
    server = Server(folder)
    model = "onnx_text" if how is Tokenize.server else "onnx"
    assert model in server.configs
    assert ("text_to_tokens" in server.configs) == (how is Tokenize.server)
    with listening(server) as url:
        words = [sys.executable, folder / "client.py", model, *texts, "--url", url]
        process = subprocess.run(
            [*words, *(["--pairs", *seconds] if paired else [])],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
    lines = [line.split("\t") for line in process.stdout.splitlines()]
    assert [line[0] for line in lines] == [answer["label"] for answer in expected]
    assert [float(line[1]) for line in lines] == pytest.approx([answer["probability"] for answer in expected], abs=1e-4)
    assert server.batches[model] == [4]


def test_the_page_starts_the_server_on_this_repository(state: Callable[..., State]) -> None:
    before = state()
    page = (repository(before) / "README.md").read_text()
    block = page.split("```")[1].strip().replace("\\\n", " ")
    assert "docker run --rm --shm-size=1g" in block
    assert "--gpus" not in block
    assert '-v "$PWD":/models:ro' in block
    assert "tritonserver --model-repository=/models" in block
    assert "pip install --quiet tokenizers==" in block
    assert subprocess.run(["sh", "-n", "-c", block], check=True).returncode == 0
    curl = next(line for line in page.splitlines() if line.startswith("curl"))
    [single] = json.loads(curl.split("'")[1])["inputs"]
    assert (single["name"], single["datatype"], single["shape"]) == ("TEXT", "BYTES", [1, 1])
    alone = (repository(before, tokenize=Tokenize.client, device=InstanceKind.gpu) / "README.md").read_text()
    assert "--gpus=all" in alone
    assert "pip install --quiet" not in alone
    graph = onnx.load(before.artifacts[-1].folder / "model.onnx")
    assert f"IR {graph.ir_version} and opset 20" in page


def test_settings_reach_the_configs(state: Callable[..., State]) -> None:
    settings = {"max_batch_size": 4, "max_queue_delay_microseconds": 250, "instances": 3, "threads": 2}
    folder = repository(state(), device=InstanceKind.gpu, preferred_batch_sizes=[2, 4], **settings)
    stored = config(folder / "onnx")
    assert stored.max_batch_size == config(folder / "onnx_text").max_batch_size == 4
    assert stored.dynamic_batching.max_queue_delay_microseconds == 250
    assert list(stored.dynamic_batching.preferred_batch_size) == [2, 4]
    assert stored.parameters["intra_op_thread_count"].string_value == "2"
    assert [(item.count, item.Kind.Name(item.kind)) for item in stored.instance_group] == [(3, "KIND_GPU")]
    assert config(folder / "text_to_tokens").instance_group[0].kind == stored.instance_group[0].KIND_CPU


def engine(before: State, by: str, profile: list[list[int]], name: str = "tensorrt-fp16") -> State:
    """Return the state with an artifact as `TensorRt` leaves it; Triton's files do not depend on what the engine is."""
    graph = before.artifacts[0].folder
    folder = graph.parent / f"engine-{len(before.artifacts)}"
    folder.mkdir()
    for file in ("model.onnx", "tokenizer.json", "tokenizer_config.json", "config.json"):
        (folder / file).write_bytes((graph / file).read_bytes())
    if by:
        (folder / "sm90.engine").write_bytes(b"a plan")
    batch, tokens = map(tuple, profile)
    engines = Engines(package=by.partition(" ")[0], version=by, batch=batch, tokens=tokens)
    made_ = Artifact(
        name=name, runtime="tensorrt", precision="fp16", folder=folder, key=f"{name} {by} {profile}", details=engines,
    )  # fmt: skip
    return replace(before, artifacts=(*before.artifacts, made_))


def test_an_engine_is_served_within_its_profile(state: Callable[..., State]) -> None:
    before = engine(state(), "tensorrt 10.13.2.6", [[1, 8, 16], [4, 8, 24]])
    folder = repository(before, preferred_batch_sizes=[8, 32])
    settings = config(folder / "tensorrt-fp16")
    assert (settings.platform, settings.backend, settings.max_batch_size) == ("tensorrt_plan", "tensorrt", 16)
    assert list(settings.dynamic_batching.preferred_batch_size) == [8]
    assert settings.instance_group[0].Kind.Name(settings.instance_group[0].kind) == "KIND_GPU"
    assert not settings.parameters
    assert (folder / "tensorrt-fp16" / "1" / "model.plan").read_bytes() == b"a plan"
    graph = config(folder / "onnx")
    assert (list(settings.input), list(settings.output)) == (list(graph.input), list(graph.output))
    assert config(folder / "tensorrt-fp16_text").max_batch_size == 16
    steps = [step.model_name for step in config(folder / "tensorrt-fp16_text").ensemble_scheduling.step]
    assert steps == ["text_to_tokens_4_24", "tensorrt-fp16", "logits_to_labels"]
    page = (folder / "README.md").read_text()
    assert "--gpus=all" in page
    assert "tensorrt 10.13.2.6, and the GPU that it was built for" in page
    for path in folder.rglob("config.pbtxt"):
        assert config(path.parent).name == path.parent.name


def test_engines_that_triton_cannot_run_are_left_out_with_the_reason(state: Callable[..., State]) -> None:
    before = engine(state(), "tensorrt_rtx_bindings 1.7.1", [[1, 8, 16], [2, 8, 32]], "rtx")
    before = engine(before, "", [[1, 8, 16], [2, 8, 32]], "none")
    before = engine(before, "tensorrt 10.13", [[8, 8, 16], [2, 8, 32]], "eights")
    artifact = Triton()(before).artifacts[-1]
    assert artifact.notes == (
        "serves onnx; README.md says how",
        "rtx is left out: its engines are by tensorrt_rtx_bindings 1.7.1, and Triton runs those of TensorRT itself",
        "none is left out: it has no engine",
        "eights is left out: its smallest batch is 8, and a request may be one row",
    )
    assert not list(artifact.folder.glob("rtx*"))


def test_what_cannot_be_served_is_refused_in_one_sentence(tmp_path: Path, state: Callable[..., State]) -> None:
    before = state()
    nothing = replace(before, artifacts=())
    with pytest.raises(ModelError, match=r"^triton: there is nothing to serve: .* no engine\. Choose export=\[onnx,tr"):
        Triton()(nothing)
    alone = engine(before, "", [[1, 8, 16], [2, 8, 32]])
    with pytest.raises(ModelError, match="tensorrt-fp16 is left out: it has no engine"):
        Triton()(replace(alone, artifacts=alone.artifacts[1:]))
    model = onnx.load(before.artifacts[0].folder / "model.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    fixed = tmp_path / "fixed"
    fixed.mkdir()
    onnx.save(model, fixed / "model.onnx")
    with pytest.raises(ModelError, match=r"the batch of input_ids is fixed"):
        Triton()(replace(before, artifacts=(replace(before.artifacts[0], folder=fixed, key="fixed"),)))
    (before.artifacts[0].folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer\.json"):
        Triton()(before)


def test_settings_that_cannot_be_are_refused_before_work(files: dict[str, Path], tmp_path: Path) -> None:
    def faults(**settings: Any) -> list[str]:
        return [fault.setting for fault in all_faults(Triton(**settings))]

    assert not faults(preferred_batch_sizes=[1, 32], threads=0, max_queue_delay_microseconds=0)
    assert faults(max_batch_size=0) == ["max_batch_size"]
    assert faults(instances=0, threads=-1) == ["instances", "threads"]
    assert faults(preferred_batch_sizes=[8, 4]) == ["preferred_batch_sizes"]
    assert faults(preferred_batch_sizes=[0, 4]) == ["preferred_batch_sizes"]
    assert faults(preferred_batch_sizes=[64]) == ["preferred_batch_sizes"]
    assert faults(pad_to_multiple_of=0, max_queue_delay_microseconds=-1)
    assert faults(image="two words") == ["image"]
    for quantize in ({}, {"bitsandbytes": BitsAndBytes()}):
        alone = recipe(files, tmp_path / "none", tmp_path, export={"triton": Triton()}, quantize=quantize)
        with pytest.raises(RecipeError, match=r"export\.triton: serves the .* Choose export=\[onnx,triton\]"):
            alone.run()
    fine = recipe(files, tmp_path / "none", tmp_path, export={"triton": Triton()}, quantize={"dynamic": DynamicInt8()})
    assert not [fault for fault in all_faults(fine) if "export" in fault.setting]


def test_it_can_be_chosen_by_name() -> None:
    words = ["export=[triton,onnx]", "export.triton.tokenize=client", "export.triton.max_batch_size=8", "quantize=[]"]
    chosen = compose([*words, "teacher.model=x"])
    assert chosen.export["triton"] == Triton(tokenize=Tokenize.client, max_batch_size=8)
    assert [name for name, _ in chosen.stages()][-2:] == ["onnx", "triton"]


def test_the_files_for_the_server_know_nothing_of_this_package() -> None:
    for path in (Path(__file__).parents[2] / "compress" / "export" / "triton_files").glob("*_model.py"):
        assert "compress" not in path.read_text()
        with pytest.raises(ModuleNotFoundError, match="triton_python_backend_utils"):
            load(path, "outside")


def test_labels_and_names_stay_text_in_the_page(state: Callable[..., State]) -> None:
    before = state(task=Classification(("a|b <script>*x*\n# c", "`d`")))
    artifact = replace(before.artifacts[0], name="on|nx")
    page = (repository(replace(before, artifacts=(artifact,))) / "README.md").read_text()
    assert "The labels: `a|b <script>*x* # c`, `` `d` ``." in page
    assert r"| `on\|nx_text`, `on\|nx` | ONNX graph |" in page
    assert "python client.py 'on|nx_text' \"a text\"" in page
    assert "models/on%7Cnx_text/infer" in page
    assert "\n# c" not in page
