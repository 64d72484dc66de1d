"""Models that ship their own code are used where the user trusts them, and refused in a sentence where not."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import dynamic_module_utils

from compress.data.dataset import Dataset, Split
from compress.errors import ModelError
from compress.models import trusted
from compress.models.loading import load_config, load_model, load_tokenizer, save_model
from compress.models.positions import longest_row
from compress.student.cnn import Cnn
from compress.student.saved import Saved
from compress.tasks.classification import Classification
from compress.teachers.model import FineTune, Teacher
from tests.conftest import VOCABULARY, tiny_tokenizer

CONFIGURATION = """
from transformers import PretrainedConfig

class BagConfig(PretrainedConfig):
    model_type = "bag"

    def __init__(self, vocab_size=8, hidden_size=8, max_position_embeddings=48, **rest):
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.max_position_embeddings = max_position_embeddings
        super().__init__(**rest)
"""
MODELING = """
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from .configuration_bag import BagConfig

class BagEncoder(PreTrainedModel):
    config_class = BagConfig
    base_model_prefix = "encoder"

    def __init__(self, config):
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.post_init()

    def get_input_embeddings(self):
        return self.words

    def forward(self, input_ids, attention_mask=None, **rest):
        return (self.words(input_ids),)

class BagForSequenceClassification(PreTrainedModel):
    config_class = BagConfig
    base_model_prefix = "encoder"

    def __init__(self, config):
        super().__init__(config)
        self.encoder = BagEncoder(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids, attention_mask=None, labels=None, **rest):
        return SequenceClassifierOutput(logits=self.classifier(self.encoder(input_ids)[0].mean(1)))
"""
CODE = {
    "AutoConfig": "configuration_bag.BagConfig",
    "AutoModelForSequenceClassification": "modeling_bag.BagForSequenceClassification",
}


@pytest.fixture(autouse=True)
def own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the copies of code that transformers makes within the test's folder."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(trusted, "_trusted", set())
    before, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if name.startswith("transformers_modules"):
            del sys.modules[name]


def bag(folder: Path, more: dict[str, str] | None = None, name: str = "Bag") -> Path:
    """Write a classifier of a type that only its own code knows, its classes named as ``name`` says."""
    folder.mkdir()
    (folder / "configuration_bag.py").write_text(
        CONFIGURATION.replace("Bag", name).replace('"bag"', f'"{name.lower()}"')
    )
    (folder / "modeling_bag.py").write_text(MODELING.replace("Bag", name))
    code = {auto: place.replace("Bag", name) for auto, place in (CODE | (more or {})).items()}
    settings = {
        "model_type": name.lower(), "auto_map": code, "architectures": [f"{name}ForSequenceClassification"],
        "vocab_size": len(VOCABULARY), "id2label": {"0": "bad", "1": "good"}, "label2id": {"bad": 0, "good": 1},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings))
    shapes = {"encoder.words.weight": (len(VOCABULARY), 8), "classifier.weight": (2, 8), "classifier.bias": (2,)}
    weights = {weight: torch.randn(shape) for weight, shape in shapes.items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    tiny_tokenizer().save_pretrained(folder)
    return folder


ROWS = Split(["a good film", "a bad film"], None, np.arange(2)[::-1].copy())
DATA = Dataset("rows", Classification(("bad", "good")), ROWS, ROWS, ROWS)


@pytest.mark.parametrize(
    ("more", "name"),
    [({}, "Bag"), ({"AutoModel": "modeling_bag.BagEncoder"}, "Bag"), ({}, "Bert")],
    ids=["classifier", "encoder too", "named as transformers' own"],
)
def test_a_model_with_its_own_code_is_used_where_it_is_trusted(tmp_path: Path, more: dict[str, str], name: str) -> None:
    folder = bag(tmp_path / "bag", more, name)
    teacher = Teacher(model=str(folder), trust_remote_code=True, max_tokens=32, freeze=["encoder.words.*"])
    inspection = teacher.inspect(DATA)
    assert inspection.weights is not None
    assert not inspection.weights.must_train
    assert longest_row(inspection.weights.config) == inspection.weights.longest == 48
    weights = load_model(folder, trust_remote_code=True).state_dict()
    assert weights["encoder.words.weight"].shape == (len(VOCABULARY), 8)
    assert Saved(model=str(folder), trust_remote_code=True).config(None).num_labels == 2


def test_a_saved_copy_is_trusted_as_long_as_its_code_is_the_same(tmp_path: Path) -> None:
    folder, copy = bag(tmp_path / "bag"), tmp_path / "copy"
    model = load_model(folder, trust_remote_code=True)
    save_model(model, tiny_tokenizer(), copy)
    assert load_config(copy).model_type == "bag"
    assert load_tokenizer(copy).is_fast
    torch.testing.assert_close(load_model(copy).state_dict(), model.state_dict())
    settings = json.loads((copy / "config.json").read_text())
    elsewhere = settings["auto_map"] | {"AutoConfig": "someone/bag--configuration_bag.BagConfig"}
    (copy / "config.json").write_text(json.dumps(settings | {"auto_map": elsewhere}))
    for load in (load_config, load_model):
        with pytest.raises(ModelError, match="own code"):
            load(copy)
    (copy / "config.json").write_text(json.dumps(settings))
    (copy / "modeling_bag.py").write_text(MODELING + "\n")
    for load in (load_config, load_model):
        with pytest.raises(ModelError, match="own code"):
            load(copy)


def test_a_student_starts_from_embeddings_that_shipped_code_gives(tmp_path: Path) -> None:
    model = load_model(bag(tmp_path / "bag"), trust_remote_code=True)
    student = Cnn(filters=5, embedding_size=8).build(model)
    torch.testing.assert_close(student.get_input_embeddings().weight, model.get_input_embeddings().weight)
    nameless = bag(tmp_path / "nameless")
    (nameless / "modeling_bag.py").write_text(MODELING.replace("def get_input_embeddings", "def words_of"))
    with pytest.raises(ModelError, match=r"type bag does not say.*student\.start=random"):
        Cnn(filters=5).build(load_model(nameless, trust_remote_code=True))


@pytest.mark.parametrize("fine_tune", FineTune)
def test_a_model_with_its_own_code_is_refused_in_a_sentence_where_it_is_not_trusted(
    tmp_path: Path, fine_tune: FineTune
) -> None:
    folder = bag(tmp_path / "bag")
    for load in (load_config, load_model, lambda _: Teacher(model=str(folder), fine_tune=fine_tune).inspect(DATA)):
        with pytest.raises(ModelError, match=r"own code.*set trust_remote_code=true") as failure:
            load(folder)
        assert "\n" not in str(failure.value)
    assert not (tmp_path / "modules").exists()
