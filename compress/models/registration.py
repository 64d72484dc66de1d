"""The model types of this package, made known to transformers' `Auto*` classes."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from compress.families.base import Family
from compress.families.forms.exiting import ExitingForm
from compress.families.forms.form import Form
from compress.families.forms.quantization_aware import FakeQuantizedForm
from compress.families.forms.shared import SharedForm
from compress.families.forms.uneven import UnevenForm
from compress.families.registry import FAMILIES
from compress.families.registry import on_register as on_family
from compress.models.bilstm import (
    BiLstmConfig,
    BiLstmForQuestionAnswering,
    BiLstmForSentenceVectors,
    BiLstmForSequenceClassification,
    BiLstmForTokenClassification,
)
from compress.models.cnn import (
    CnnConfig,
    CnnForQuestionAnswering,
    CnnForSentenceVectors,
    CnnForSequenceClassification,
    CnnForTokenClassification,
)
from compress.models.ensemble import EnsembleConfig, EnsembleForSequenceClassification
from compress.models.multi_task import MultiTaskConfig, MultiTaskForSequenceClassification
from compress.models.static import StaticConfig, StaticForSentenceVectors, StaticForSequenceClassification
from compress.tasks.base import Task
from compress.tasks.classification import Classification
from compress.tasks.registry import on_register as on_task
from compress.tasks.spans import AnswerSpans
from compress.tasks.tags import Tags
from compress.tasks.vectors import SentenceVectors

FORMS: tuple[type[Form], ...] = (UnevenForm, SharedForm, FakeQuantizedForm, ExitingForm)
CLASSIFIERS: tuple[tuple[type[PretrainedConfig], type[PreTrainedModel]], ...] = (
    (BiLstmConfig, BiLstmForSequenceClassification),
    (CnnConfig, CnnForSequenceClassification),
    (StaticConfig, StaticForSequenceClassification),
    (EnsembleConfig, EnsembleForSequenceClassification),
    (MultiTaskConfig, MultiTaskForSequenceClassification),
)
"""(configuration class, model class) of every model type that is ours and no family's: one answer per text or pair."""
TAGGERS: tuple[tuple[type[PretrainedConfig], type[PreTrainedModel]], ...] = (
    (BiLstmConfig, BiLstmForTokenClassification),
    (CnnConfig, CnnForTokenClassification),
)
"""The same for models with an answer per token."""
EMBEDDERS: tuple[tuple[type[PretrainedConfig], type[PreTrainedModel]], ...] = (
    (BiLstmConfig, BiLstmForSentenceVectors),
    (CnnConfig, CnnForSentenceVectors),
    (StaticConfig, StaticForSentenceVectors),
)
"""The same for models that answer with a vector."""
READERS: tuple[tuple[type[PretrainedConfig], type[PreTrainedModel]], ...] = (
    (BiLstmConfig, BiLstmForQuestionAnswering),
    (CnnConfig, CnnForQuestionAnswering),
)
"""The same for models that answer with a span."""
_autos: list[Any] = []


def register() -> None:
    """Make transformers know every type of ours: the lists above, and for every task all forms of families."""
    of_tasks = ((Classification, CLASSIFIERS), (Tags, TAGGERS), (SentenceVectors, EMBEDDERS), (AnswerSpans, READERS))
    for task, models in of_tasks:
        for config_class, model_class in models:
            AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
            task.auto.register(config_class, model_class, exist_ok=True)
    on_task(_register_task)
    on_family(_register_family)


def forms_of(family: Family, auto: Any) -> list[tuple[type[PretrainedConfig], type[PreTrainedModel]]]:
    """Return the classes of every form of a family with that head; none where the family has no such head."""
    stock = auto._model_mapping.get(family.config_class, None)
    return [] if stock is None else [(form.config_of(family), form.model_of(family, stock)) for form in FORMS]


def register_auto(auto: Any) -> None:
    """Make one of transformers' ``Auto`` classes build and load the forms of every family."""
    if auto not in _autos:
        _autos.append(auto)
        for family in FAMILIES.values():
            _register_forms(family, auto)


def _register_task(task: type[Task]) -> None:
    task.auto.register(MultiTaskConfig, MultiTaskForSequenceClassification, exist_ok=True)  # it has heads of any kind
    register_auto(task.auto)


def _register_family(family: Family) -> None:
    for auto in _autos:
        _register_forms(family, auto)


def _register_forms(family: Family, auto: Any) -> None:
    for config_class, model_class in forms_of(family, auto):
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
        auto.register(config_class, model_class, exist_ok=True)
