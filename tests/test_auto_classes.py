"""The Auto classes load every student, whichever of the two packages is imported first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from compress.auto_classes import PREFIX
from compress.models.cnn import CnnConfig, CnnForSequenceClassification
from compress.models.registration import CLASSIFIERS
from tests.fresh import run_fresh

LOAD = """
config = AutoConfig.from_pretrained(sys.argv[1])
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1])
assert type(model).__module__ == "compress.models.cnn", type(model)
assert "compress_nothing" not in CONFIG_MAPPING
"""
ORDERS = {
    "ours first": """
import sys, compress
assert not {"torch", "transformers", "numpy"} & set(sys.modules), "heavy packages are imported"
import transformers
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
""",
    "theirs first": """
import sys, transformers
import compress
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers import AutoConfig, AutoModelForSequenceClassification
""",
    "their Auto classes first": """
import sys
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
AutoConfig.for_model("bert")
import compress
""",
}


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("student")
    CnnForSequenceClassification(CnnConfig(vocab_size=20, num_labels=2, pad_token_id=0)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("order", ["ours first", pytest.param("theirs first", marks=pytest.mark.slow)])
def test_a_student_is_loaded_by_the_auto_classes(order: str, student: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", ORDERS[order] + LOAD, str(student)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_a_student_is_loaded_by_auto_classes_that_were_there_before(student: Path) -> None:
    run_fresh(ORDERS["their Auto classes first"] + LOAD, student)


def test_the_model_types_are_told_by_how_they_begin() -> None:
    assert all(config.model_type.startswith(PREFIX) for config, _ in CLASSIFIERS)
