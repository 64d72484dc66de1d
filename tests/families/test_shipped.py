"""Folders that carry their code: without `compress` they say the same by it, and with `compress` it is not run."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from compress.distill.heads import with_auto
from compress.families.forms.exiting import ENTROPY, ExitRule, exiting, set_rule
from compress.families.forms.fake_quantization import FakeQuantization
from compress.families.forms.quantization_aware import fake_quantized
from compress.families.forms.uneven import shrink
from compress.families.registry import FAMILIES
from compress.families.shipped import CODE, joined
from compress.models.loading import load_config, load_model, quiet, save_model
from compress.models.multi_task import with_heads
from compress.models.outputs import observe
from compress.models.registration import CLASSIFIERS, forms_of
from compress.onnx.folder import with_tokenizer
from compress.prune.width import narrow
from compress.student.bilstm import BiLstm
from compress.student.cnn import Cnn
from compress.student.shared import Shared
from compress.student.static import Static
from compress.tasks.base import Task
from compress.tasks.classification import Classification
from compress.tasks.tags import Tags
from compress.tasks.vectors import SentenceVectors
from tests.conftest import EVERY_FAMILY, FAMILY_NAMES, LATER_FAMILIES, tiny_batch, tiny_model, tiny_tokenizer
from tests.models.test_ensemble import joined as ensemble_of_three
from tests.student.test_readers import SMALL as SMALL_READERS
from tests.student.test_readers import built as reader
from tests.student.test_words import PAIRS, TEXTS, built

HEADS = [[0, 2], [1], [0, 1, 2, 3], [3]]


def forms(family: str) -> dict[str, tuple[PreTrainedModel, str]]:
    """Return a model of every form of a family, and its name."""
    made: dict[str, tuple[PreTrainedModel, str]] = {}
    made[f"uneven-{family}"] = shrink(tiny_model(family), heads=HEADS), family
    if FAMILIES[family].loses_channels:
        made[f"narrow-{family}"] = narrow(tiny_model(family), [0, 1, 2, 5, 7, 11, 15]), family
    if FAMILIES[family].projects_tokens_alone:
        made[f"qat-{family}"] = trained_ranges(
            fake_quantized(shrink(tiny_model(family), heads=HEADS), FakeQuantization()), family
        )
    made[f"exits-{family}"] = exiting(shrink(tiny_model(family), heads=HEADS)), family
    set_rule(made[f"exits-{family}"][0], ExitRule(rule=ENTROPY, threshold=0.67))
    made[f"shared-{family}"] = Shared(embedding_size=5).build(tiny_model(family)), family
    return made


def models() -> dict[str, tuple[PreTrainedModel, str]]:
    """Return a model of every type of ours with a head for texts, and the family whose tokenizer it has."""
    made = {name: model for family in FAMILY_NAMES for name, model in forms(family).items()}
    made["bilstm"] = built(BiLstm(hidden_size=6, fully_connected_size=10, layers=2), TEXTS)[0], "bert"
    made["bilstm-pairs"] = built(BiLstm(hidden_size=6, fully_connected_size=10), PAIRS)[0], "bert"
    made["cnn"] = built(Cnn(filters=5), TEXTS)[0], "bert"
    made["static"] = built(Static(bigrams=50), TEXTS)[0], "bert"
    made["ensemble"] = ensemble_of_three(), "bert"
    tasks: dict[str, Task] = {
        "main": Classification(("bad", "good")),
        "topic": Classification(("film", "music", "other")),
        "words": Tags(("O", "B-a")),
        "vectors": SentenceVectors(0.0, 1.0, 11, "mean"),
    }
    heads = {name: with_auto(task) for name, task in tasks.items()}
    made["multi-task"] = with_heads(narrow(tiny_model(), [1, 2, 3, 4, 5]), heads, "main"), "bert"
    return made


def trained_ranges(model: PreTrainedModel, family: str) -> tuple[PreTrainedModel, str]:
    """Return the model after it has seen a batch, ranges and all."""
    with torch.no_grad():
        observe(model.train(), tiny_batch(family=family))
    return model.eval(), family


ALONE = f"""
import importlib.abc, json, shutil, sys, torch
from pathlib import Path

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "compress":
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
try:
    import compress
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("compress is not blocked")

import transformers
from transformers import AutoTokenizer

def load(folder, **settings):
    mapped = json.loads((folder / "config.json").read_text())["auto_map"]
    names = sorted(mapped.keys() - {{"AutoConfig"}}, key="AutoModelForSequenceClassification".__ne__)
    auto = names[0]  # of several heads, that of a text
    return getattr(transformers, auto).from_pretrained(folder, **settings).eval()

@torch.no_grad()
def check(folder):
    said = torch.load(folder / "said.pt")
    model = load(folder, trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    found = model(**said["inputs"])
    assert torch.equal(found.logits if "logits" in found else found.start_logits, said["logits"]), folder
    assert AutoTokenizer.from_pretrained(folder, trust_remote_code=True).is_fast
    return model

for folder in map(Path, sys.argv[1:]):
    try:
        load(folder, trust_remote_code=False)
    except ValueError as error:
        assert "trust_remote_code" in str(error), error
    else:
        raise SystemExit(f"{{folder}} ran its code unasked")
    model = check(folder)
    if folder.name == "bilstm":  # the operator for export, and a second version of its code in one process
        part = model.forwards[0]
        states = torch.randn(5, 2, part.weight.shape[2])
        exported = torch.ops.compress.lstm(states, part.weight, part.recurrence, part.bias)
        assert torch.equal(exported, part(states))
        other = folder.with_name("bilstm-2")
        shutil.copytree(folder, other)
        with (other / "{CODE}").open("a") as file:
            file.write("# another version\\n")
        again = check(other)
        assert type(again) is not type(model)
    if folder.name == "multi-task":
        other = load(folder, trust_remote_code=True, task="topic")
        assert other(torch.tensor([[2, 7, 3]])).logits.shape == (1, 3)
        other.config.task = "words"
        assert other(torch.tensor([[2, 7, 3]])).logits.shape == (1, 3, 2)
        other.config.task = "vectors"
        assert other(torch.tensor([[2, 7, 3]])).logits.shape == (1, 11)
    model.save_pretrained(folder.with_name(folder.name + "-saved"))
    shutil.copyfile(folder / "said.pt", folder.with_name(folder.name + "-saved") / "said.pt")
    shutil.copyfile(folder / "tokenizer.json", folder.with_name(folder.name + "-saved") / "tokenizer.json")
    check(folder.with_name(folder.name + "-saved"))
assert "compress" not in sys.modules
"""


def alone(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `ALONE` in a fresh process, with a cache of modules of its own."""
    return subprocess.run(
        [sys.executable, "-I", "-c", ALONE, *arguments],
        cwd=folder, env=os.environ | {"HF_MODULES_CACHE": str(folder / "modules")},
        check=False, timeout=500, stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip


def test_models_of_all_our_types_are_tried() -> None:
    forms = [pair for name in FAMILY_NAMES for pair in forms_of(FAMILIES[name], AutoModelForSequenceClassification)]
    assert {type(model) for model, _ in models().values()} == {model for _, model in (*CLASSIFIERS, *forms)}


@torch.no_grad()
def say_the_same_alone(made: dict[str, tuple[PreTrainedModel, str]], folder: Path) -> None:
    """Save the models, and let a process without the package load them by their own code."""
    places = []
    for name, (model, family) in made.items():
        place = folder / name
        save_model(model, tiny_tokenizer(family), place)
        inputs = {key: value for key, value in tiny_batch(family=family).items() if key != "labels"}
        found = model(**inputs)
        logits = found.logits if "logits" in found else found.start_logits
        torch.save({"inputs": inputs, "logits": logits}, place / "said.pt")
        places.append(str(place))
    done = alone(folder, *places)
    assert done.returncode == 0, done.stderr


def test_without_the_package_a_folder_says_the_same_to_the_bit_by_its_own_code(tmp_path: Path) -> None:
    readers = {name: (reader(SMALL_READERS[name]), "bert") for name in SMALL_READERS}
    say_the_same_alone(models() | {f"spans-{name}": made for name, made in readers.items()}, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", LATER_FAMILIES)
def test_forms_of_later_families_say_the_same_by_their_own_code(family: str, tmp_path: Path) -> None:
    say_the_same_alone(forms(family), tmp_path)


@torch.no_grad()
@pytest.mark.parametrize("trust", [None, True, False])
def test_with_the_package_no_code_of_a_folder_runs_whatever_is_trusted(
    trust: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    for name, (model, family) in models().items():
        place = tmp_path / name
        save_model(model, tiny_tokenizer(family), place)
        (place / CODE).write_text("raise SystemExit('this ran')\n")
        with quiet():
            loaded = AutoModelForSequenceClassification.from_pretrained(place, trust_remote_code=trust).eval()
        assert type(loaded) is type(model)
        batch = tiny_batch(family=family)
        assert torch.equal(observe(loaded, batch).logits, observe(model, batch).logits)
    assert "trust" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_types_of_transformers_need_no_code_and_get_none(family: str, tmp_path: Path) -> None:
    save_model(tiny_model(family), tiny_tokenizer(family), tmp_path)
    assert not (tmp_path / CODE).exists()
    assert "auto_map" not in json.loads((tmp_path / "config.json").read_text())


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_attention_says_the_numbers_that_transformers_4_reads(family: str) -> None:
    for model, count, size in (
        (shrink(tiny_model(family), heads=HEADS), None, 4),
        (narrow(tiny_model(family), [0, 1, 5]), 4, 4),
    ):
        for layer, heads in zip(FAMILIES[family].layers(model), HEADS, strict=True):
            attention: Any = layer.get_submodule("attention" if family == "distilbert" else "attention.self")
            number = count or len(heads)
            held = ("n_heads", "dim") if family == "distilbert" else ("num_attention_heads", "all_head_size")
            assert [getattr(attention, name) for name in held] == [number, number * size]
            assert attention.attention_head_size == size


def test_names_in_the_code_and_beside_it_are_those_that_transformers_4_knows_too(tmp_path: Path) -> None:
    save_model(shrink(tiny_model(), heads=HEADS), tiny_tokenizer(), tmp_path)
    assert "PreTrainedConfig" not in (tmp_path / CODE).read_text()
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_code_goes_no_further_than_the_model_that_it_is_for(tmp_path: Path) -> None:
    save_model(shrink(tiny_model(), heads=HEADS), tiny_tokenizer(), tmp_path / "uneven")
    named = json.loads((tmp_path / "uneven" / "config.json").read_text())["auto_map"]
    assert named["AutoConfig"] == "modeling_compress.UnevenBertConfig"
    assert not hasattr(load_config(tmp_path / "uneven"), "auto_map")
    (tmp_path / "onnx").mkdir()
    with_tokenizer(tmp_path / "uneven", tmp_path / "onnx", pairs=False)
    beside = json.loads((tmp_path / "onnx" / "config.json").read_text())
    assert "auto_map" not in beside
    assert beside["model_type"] == "bert"  # what others know; the shapes are in the graph
    save_model(load_model(tmp_path / "uneven"), tiny_tokenizer(), tmp_path / "again")
    assert (tmp_path / "again" / CODE).read_text() == (tmp_path / "uneven" / CODE).read_text()


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A way to make modules of this package for one test."""

    def make(name: str, source: str) -> ModuleType:
        (tmp_path / f"{name}.py").write_text(source)
        spec = importlib.util.spec_from_file_location(f"compress.{name}", tmp_path / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, f"compress.{name}", module)
        spec.loader.exec_module(module)
        return module

    return make


def test_modules_that_are_joined_keep_their_order_and_their_lines(modules: Any) -> None:
    modules("below", "from __future__ import annotations\n\nONE = 1\n")
    above = modules("above", "from compress.below import (\n    ONE,\n)\n\n\nclass Model:\n    one = ONE\n")
    namespace: dict[str, Any] = {}
    exec(joined([above.Model]), namespace)
    assert namespace["Model"].one == 1
    assert "import (" not in joined([above.Model])


@pytest.mark.parametrize(
    ("below", "above", "wrong"),
    [
        (
            "ONE = 1\n",
            "from compress.below import ONE\n\n\ndef _f():\n    from compress.below import ONE\n",
            "at the top",
        ),
        ("ONE = 1\n", "from compress.below import ONE as TWO\n", "without as"),
        ("ONE = 1\n", "import compress.below\n", "at the top"),
        ("ONE = TWO = 1\n", "from compress.below import ONE\n\nTWO = 2\n", "TWO is"),
        ("from math import pi\nONE = pi\n", "from compress.below import ONE\nfrom cmath import pi\n", "pi is"),
    ],
)
def test_what_cannot_be_joined_is_refused(below: str, above: str, wrong: str, modules: Any) -> None:
    modules("below", below)
    module = modules("above", f"{above}\n\nclass Model:\n    pass\n")
    with pytest.raises(ValueError, match=wrong):
        joined([module.Model])
