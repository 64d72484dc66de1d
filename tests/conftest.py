"""A tiny world that every test can afford: families of encoders, a tokenizer, a data set, a run."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    CamembertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ErnieConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLMRobertaConfig,
)

from compress.data.dataset import Dataset, Split
from compress.files import locked
from compress.models.loading import quiet, save_model
from compress.onnx.graph import input_names, write_onnx
from compress.pipeline.model import Model
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.tasks.classification import Classification

torch.set_num_threads(1)  # tiny models are faster so, and tests can run side by side

GOOD, BAD = ("good", "great", "fine", "lovely"), ("bad", "awful", "poor", "dull")
OTHER = ("film", "plot", "actor", "scene", "the", "a", "was", "is", "very", "so", "and", "music")
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *OTHER)


def pytest_collection_finish() -> None:
    """Leave out of later searches for garbage what is imported: every training searches, a third of a second each."""
    gc.collect()
    gc.freeze()


CONFIGS: dict[str, Callable[..., Any]] = {
    "bert": lambda **k: BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=16, num_hidden_layers=4, num_attention_heads=4, intermediate_size=32,
        max_position_embeddings=64, **k,
    ),
    "roberta": lambda **k: RobertaConfig(
        vocab_size=len(VOCABULARY), hidden_size=16, num_hidden_layers=4, num_attention_heads=4, intermediate_size=32,
        max_position_embeddings=66, pad_token_id=0, type_vocab_size=1, **k,
    ),
    "electra": lambda **k: ElectraConfig(
        vocab_size=len(VOCABULARY), embedding_size=8, hidden_size=16, num_hidden_layers=4, num_attention_heads=4,
        intermediate_size=32, max_position_embeddings=64, **k,
    ),
    "distilbert": lambda **k: DistilBertConfig(
        vocab_size=len(VOCABULARY), dim=16, n_layers=4, n_heads=4, hidden_dim=32, max_position_embeddings=64, **k,
    ),
}  # fmt: skip
FAMILY_NAMES = tuple(CONFIGS)
_SIZES: dict[str, Any] = {
    "vocab_size": len(VOCABULARY), "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 4,
    "intermediate_size": 32,
}  # fmt: skip
CONFIGS |= {
    "xlm-roberta": lambda **k: XLMRobertaConfig(
        **_SIZES, max_position_embeddings=66, pad_token_id=0, type_vocab_size=1, **k
    ),
    "camembert": lambda **k: CamembertConfig(
        **_SIZES, max_position_embeddings=66, pad_token_id=0, type_vocab_size=1, **k
    ),
    "ernie": lambda **k: ErnieConfig(**_SIZES, max_position_embeddings=64, use_task_id=True, **k),
    "deberta-v2": lambda **k: DebertaV2Config(
        **_SIZES,
        max_position_embeddings=64,
        relative_attention=True,
        position_buckets=8,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type="p2c|c2p",
        position_biased_input=False,
        **k,
    ),
    "modernbert": lambda **k: ModernBertConfig(
        **_SIZES,
        max_position_embeddings=64,
        local_attention=6,
        pad_token_id=0,
        cls_token_id=2,
        bos_token_id=2,
        sep_token_id=3,
        eos_token_id=3,
        **k,
    ),
    "mpnet": lambda **k: MPNetConfig(**_SIZES, max_position_embeddings=66, **k),
    "albert": lambda **k: AlbertConfig(  # whose head drops even where its layers do not
        **_SIZES
        | {"num_hidden_groups": 4, "embedding_size": 8, "max_position_embeddings": 64, "classifier_dropout_prob": 0.0}
        | k
    ),
}
WITH_TYPES = ("bert", "electra", "ernie", "albert")
"""Families whose models tell a second text from the first by token types."""
LATER_FAMILIES = tuple(name for name in CONFIGS if name not in FAMILY_NAMES)
EVERY_FAMILY = [*FAMILY_NAMES, *(pytest.param(name, marks=pytest.mark.slow) for name in LATER_FAMILIES)]
"""All families for a test that every one must pass; the later ones run with the slow tests."""
BUT_DEBERTA = [family for family in EVERY_FAMILY if "deberta" not in str(family)]
"""Those that lose hidden channels, and whose heads for masked words are known."""
UNLIKE_BERT = ("modernbert", "deberta-v2")
LIKE_BERT = [family for family in EVERY_FAMILY if not any(name in str(family) for name in UNLIKE_BERT)]
"""Those whose modules are BERT's by other names: three projections with biases, embeddings that are a sum."""
BERT_NOW: list[Any] = [name if name == "bert" else pytest.param(name, marks=pytest.mark.slow) for name in CONFIGS]
"""All families for a test of a whole chain; those after BERT run with the slow tests (`make test-all`)."""
CUT_EVERYWHERE_NOW = [family for family in BERT_NOW if "deberta" not in str(family)]
"""Those of them that lose hidden channels too, and whose graphs can be timed in other sizes."""


def tiny_tokenizer(family: str = "bert", max_tokens: int = 32) -> PreTrainedTokenizerFast:
    """Return a word-level tokenizer over `VOCABULARY` with the inputs of a family."""
    numbers = {word: index for index, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(WordPiece(numbers, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = BertNormalizer(), BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=max_tokens, pad_token="[PAD]", unk_token="[UNK]",
        cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
        model_input_names=[*names, "token_type_ids"] if family in WITH_TYPES else names,
    )  # fmt: skip


def tiny_model(family: str = "bert", seed: int = 0, **settings: Any) -> PreTrainedModel:
    """Return a classifier of four layers, 16 units and four heads, with weights far from symmetric."""
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    with quiet():
        model: PreTrainedModel = AutoModelForSequenceClassification.from_config(CONFIGS[family](**settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    torch.set_rng_state(state)
    return model


def tiny_batch(rows: int = 3, tokens: int = 9, seed: int = 0, family: str = "bert") -> dict[str, torch.Tensor]:
    """Return a batch whose rows have different lengths."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, len(VOCABULARY), (rows, tokens), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(rows):
        mask[row, tokens - 2 * row :] = 0
    batch = {"input_ids": ids * mask, "attention_mask": mask, "labels": torch.arange(rows) % 2}
    if family in WITH_TYPES:
        batch["token_type_ids"] = torch.zeros_like(ids)
    return batch


def reviews(rows: int, seed: int) -> list[tuple[str, str]]:
    """Return (label, text) rows: made-up reviews whose label is whether good or bad words prevail."""
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(rows):
        label = int(generator.integers(2))
        words = list(generator.choice(OTHER, int(generator.integers(3, 9))))
        words += list(generator.choice(GOOD if label else BAD, 2))
        made.append((("bad", "good")[label], " ".join(generator.permutation(words))))
    return made


def write_tsv(path: Path, rows: list[tuple[str, ...]]) -> Path:
    """Write rows without a header."""
    path.write_text("".join("\t".join(row) + "\n" for row in rows))
    return path


def write_files(folder: Path) -> dict[str, Path]:
    """Write train, validation and test files of made-up reviews."""
    sizes = {"train": (160, 1), "validation": (40, 2), "test": (60, 3)}
    return {name: write_tsv(folder / f"{name}.tsv", reviews(*size)) for name, size in sizes.items()}


Once = Callable[[str, Callable[[Path], object]], Path]
"""Gives the folder of a name, made by the function in whichever test and worker asks first; nobody changes it."""


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """What many tests only read is made once in a session, for all workers."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once"

    def made(name: str, make: Callable[[Path], object]) -> Path:
        final, partial = root / name, root / f"{name}.partial"
        with locked(root / f"{name}.lock"):
            if not final.exists():
                partial.mkdir(exist_ok=True)
                make(partial)
                partial.rename(final)
        return final

    return made


Graphs = Callable[[str], Path]


@pytest.fixture(scope="session")
def graphs(once: Once) -> Graphs:
    """The exported graph of each family's tiny model, to be read."""

    def graph(family: str) -> Path:
        def export(folder: Path) -> None:
            write_onnx(tiny_model(family), input_names(tiny_tokenizer(family)), folder / "model.onnx")

        return once(f"graph-{family}", export) / "model.onnx"

    return graph


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Train, validation and test files of made-up reviews."""
    return write_files(tmp_path)


@pytest.fixture
def teacher_folder(tmp_path: Path) -> Path:
    """A tiny BERT without a head for the task, saved as transformers saves it."""
    return save_tiny(tmp_path / "tiny-teacher")


def save_tiny(folder: Path, family: str = "bert", **settings: Any) -> Path:
    """Save a tiny encoder of a family; without settings it has no trained head."""
    model = tiny_model(family, **settings)
    if not settings:
        model = model.base_model
    folder.mkdir()
    save_model(model, tiny_tokenizer(family), folder)
    return folder


def taught_state(folder: Path, rows: int = 64, **student: Any) -> State:
    """Return a state in seconds' reach: reviews, a tiny classifier that teaches, and a student that starts as it.

    ``student`` are settings of a classifier of its own.
    """
    splits = [
        Split(tuple(text for _, text in made), None, np.array([int(label == "good") for label, _ in made]))
        for made in (reviews(rows, 1), reviews(40, 2), reviews(40, 3))
    ]
    data = Dataset("reviews", Classification(("bad", "good")), *splits)
    head = data.task.head_config()
    teacher = Model(save_tiny(folder / "teacher", **head), "teacher")
    own = Model(save_tiny(folder / "student", **head, **student), "student") if student else teacher
    return State.begin(data, Workshop(folder / "cache"), 13, teacher=teacher, student=own)
