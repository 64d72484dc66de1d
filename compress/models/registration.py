"""The model types of this package, made known to transformers' `Auto*` classes."""

from __future__ import annotations

from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from compress.families.forms.quantization_aware import FAKE_QUANTIZED_CLASSES
from compress.families.forms.shared import SHARED_CLASSES
from compress.families.forms.uneven import UNEVEN_CLASSES
from compress.models.bilstm import BiLstmConfig, BiLstmForSequenceClassification
from compress.models.cnn import CnnConfig, CnnForSequenceClassification
from compress.models.ensemble import EnsembleConfig, EnsembleForSequenceClassification
from compress.models.multi_task import MultiTaskConfig, MultiTaskForSequenceClassification
from compress.tasks.classification import Classification

CLASSIFIERS: tuple[tuple[type[PreTrainedConfig], type[PreTrainedModel]], ...] = (
    *UNEVEN_CLASSES.values(),
    *SHARED_CLASSES.values(),
    *FAKE_QUANTIZED_CLASSES.values(),
    (BiLstmConfig, BiLstmForSequenceClassification),
    (CnnConfig, CnnForSequenceClassification),
    (EnsembleConfig, EnsembleForSequenceClassification),
    (MultiTaskConfig, MultiTaskForSequenceClassification),
)
"""(configuration class, model class) of every model type that is ours: one answer per text or pair of texts."""


def register() -> None:
    """Make `AutoConfig` and the ``Auto`` class of classification know every type in `CLASSIFIERS`."""
    for config_class, model_class in CLASSIFIERS:
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
        Classification.auto.register(config_class, model_class, exist_ok=True)
