"""Whether a model's head answers the data's question, and which of its outputs stands for which label.

It sees a transformers configuration and the data's labels, and reads no file.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compress.data.dataset import Dataset
    from compress.tasks.base import Task


@dataclass(frozen=True)
class Adoption:
    """How the outputs of a head are read as labels of the data.

    ``names`` are the classes in the head's order. ``outputs`` numbers them for each label of the data; a class that
    no label stands for is absent from the data, and stays. A single output that was trained by binary cross-entropy
    is the second of two classes, whose first has the logit 0 (``single``).
    """

    names: tuple[str, ...]
    outputs: Mapping[str, int]
    note: str = ""  # how labels and outputs were matched, where their names alone do not say it
    assumed: bool = False  # the order is a convention that neither names nor the user confirm
    single: bool = False
    own: tuple[str, ...] = ()  # the outputs' names as the model has them

    def rows(self, labels: Sequence[str]) -> list[int | None]:
        """Return the output of the head that stands for each of these labels; None: its logit is 0."""
        if self.single:
            return [None if self.outputs[label] == 0 else 0 for label in labels]
        return [self.outputs[label] for label in labels]

    def order_of(self, leading: Adoption) -> list[int]:
        """Return these outputs in the order of another head's, read for the same data; raises Refusal."""
        label_of = {index: label for label, index in leading.outputs.items()}
        order = []
        for index, name in enumerate(leading.names):
            label = label_of.get(index)
            own = self.outputs.get(label) if label is not None else self._named(name)
            if own is None:
                raise Refusal(f"has no class {name}")
            order.append(own)
        return order

    def _named(self, name: str) -> int | None:
        match = _match(name, self.absent)
        return None if match is None else self.names.index(match)

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes that the model knows and the data does not have."""
        present = set(self.outputs.values())
        return tuple(name for index, name in enumerate(self.names) if index not in present)


class Refusal(Exception):
    """A head cannot be used for the data's labels; the message says why, as a clause without a subject."""


class OtherTaskRefusal(Refusal):
    """A head answers another question than the data asks: no map of labels makes it serve."""


def has_head(config: Any, task: Task | type[Task]) -> bool:
    """Return whether a model of this configuration answers as the task's do; see `Task.any_encoder`."""
    return task.any_encoder or is_trained(config, task)


def is_trained(config: Any, task: Task | type[Task]) -> bool:
    """Return whether a configuration says that its weights hold a head of the task's kind."""
    kind = task.auto.__name__.removeprefix("AutoModel")  # ForSequenceClassification, …
    return any(name.endswith(kind) for name in config.architectures or [])


def adopt(config: Any, task: Task, mapping: Mapping[str, str]) -> Adoption:
    """Return how the head of a finished model is read for the data's task; raises Refusal where it does not serve.

    ``mapping`` gives names of the model's labels the data's labels that they stand for (``data.labels``).
    """
    if not has_head(config, task):
        raise Refusal(f"has no {task.head}")
    check_mapping(config, task, mapping)
    return task.adopt(config, mapping)


def adopt_classes(config: Any, labels: Sequence[str], mapping: Mapping[str, str]) -> Adoption:
    """Return how a classifier's outputs are read as one of these labels; raises Refusal.

    Whatever ``mapping`` leaves open is matched by name (case, white space and Unicode form folded), whole numbers by
    their place in ``id2label``, and unnamed outputs (``LABEL_0``, or ``0``) in the order of the data's labels.
    """
    kind = config.problem_type
    if kind == "regression":
        raise OtherTaskRefusal("was trained for scores, not for classes (task=regression is its task)")
    if int(config.num_labels) == 1:
        return _single(config, labels, mapping)
    if kind == "multi_label_classification":
        raise OtherTaskRefusal(
            "was trained for multi label classification, not for one label per row (task=multi_label is its task)"
        )
    return _several(head_labels(config), labels, mapping)


def adopt_labels(config: Any, labels: Sequence[str], mapping: Mapping[str, str]) -> Adoption:
    """Return how the outputs of a model for several labels per row are read as these labels; raises Refusal.

    They are matched as those of `adopt_classes`.
    """
    if config.problem_type != "multi_label_classification":
        trained_for = f"problem_type is {config.problem_type} in its config.json"
        raise OtherTaskRefusal(
            f"was not trained for any number of labels per row ({trained_for}, not multi_label_classification)"
        )
    return _several(head_labels(config), labels, mapping)


def adopt_score(config: Any) -> Adoption:
    """Return how a model's one output is read as a score; raises Refusal."""
    if int(config.num_labels) != 1:
        raise OtherTaskRefusal(f"has {config.num_labels} outputs where scores need one")
    if config.problem_type not in (None, "regression"):
        raise OtherTaskRefusal("was trained for classification, not for scores")
    return Adoption(("score",), {"score": 0})


def named_as(task: Task) -> Adoption:
    """Return the adoption of a head with the task's outputs in the task's order, as one that is trained here has."""
    names = task.output_names
    return Adoption(names, {name: index for index, name in enumerate(names)})


def adopted(config: Any, data: Dataset) -> tuple[Dataset, Adoption]:
    """Return the rows with labels numbered as a model's head numbers them, and how; raises Refusal."""
    adoption = adopt(config, data.task, data.label_map)
    splits = {name: getattr(data, name) for name in ("train", "validation", "test")}
    task, labels = data.task.renumbered(adoption, [split.known_labels for split in splits.values()])
    if task == data.task:
        return data, adoption
    numbered = {n: replace(split, labels=own) for (n, split), own in zip(splits.items(), labels, strict=True)}
    return replace(data, task=task, **numbered), adoption


def rows_by_name(config: Any, labels: Sequence[str], mapping: Mapping[str, str]) -> list[int | None]:
    """Return for each label the output of a head that is named as it; None where none is, or the head has no names."""
    names = head_names(config)
    if _unnamed(names) and not mapping:
        return [None] * len(labels)
    mapped = {label: name for name, label in mapping.items() if name in names}
    by_name = [mapped.get(label) or _match(label, names) for label in labels]
    return [None if name is None else names.index(name) for name in by_name]


def own_names(config: Any, task: Task) -> tuple[str, ...]:
    """Return the names of a head's outputs; none where they contradict each other, or it is none of the task's kind."""
    return head_names(config) if has_head(config, task) else ()


def head_names(config: Any) -> tuple[str, ...]:
    """Return the names of a head's outputs, in their order; none where they contradict each other."""
    try:
        return head_labels(config)
    except Refusal:
        return ()


def head_labels(config: Any) -> tuple[str, ...]:
    """Return the names of a head's outputs, in their order; those of ``label2id`` where ``id2label`` has none.

    Raises Refusal where the two contradict each other.
    """
    count = int(config.num_labels)
    names = tuple(str((config.id2label or {}).get(index, f"LABEL_{index}")) for index in range(count))
    by_id = {int(index): str(name) for name, index in (config.label2id or {}).items() if str(index).isdecimal()}
    others = tuple(by_id.get(index, f"LABEL_{index}") for index in range(count))
    if _unnamed(names):
        return others if len(by_id) == count else names
    if not _unnamed(others) and len(by_id) == count and others != names:
        raise Refusal(f"has an id2label ({_list(names)}) and a label2id ({_list(others)}) that contradict each other")
    return names


def _single(config: Any, labels: Sequence[str], mapping: Mapping[str, str]) -> Adoption:
    """Read one output as the second of two classes."""
    (name,) = head_labels(config)
    if len(labels) != 2:
        raise OtherTaskRefusal(f"has a single output, and the data has {len(labels)} classes")
    named = mapping.get(name) or _match(name, labels)
    positive = named or labels[1]
    negative = labels[0] if positive == labels[1] else labels[1]
    note = f"its single output is the logit of {positive} against {negative}"
    outputs = {negative: 0, positive: 1}
    return Adoption((negative, positive), outputs, note, assumed=named is None, single=True, own=(name,))


def _several(names: tuple[str, ...], labels: Sequence[str], mapping: Mapping[str, str]) -> Adoption:
    outputs = {label: names.index(name) for name, label in mapping.items()}
    open_labels = [label for label in labels if label not in outputs]
    open_names = [name for index, name in enumerate(names) if index not in outputs.values()]
    if not open_labels:
        return _adoption(names, outputs, note=_mapped(names, outputs))
    matched = {label: name for label in open_labels if (name := _match(label, open_names)) is not None}
    if len(matched) == len(open_labels) == len(set(matched.values())):
        outputs |= {label: names.index(name) for label, name in matched.items()}
        folded = any(label != name for label, name in matched.items())
        note = "labels are matched without regard to case, spaces and Unicode form" if folded else ""
        return _adoption(names, outputs, note=note)
    if not mapping and (numbers := _by_number(labels, names)):
        if _unnamed(names):
            return _adoption(names, numbers, note="")
        pairs = _list([f"{label} = {names[output]}" for label, output in numbers.items()])
        return Adoption(names, numbers, f"the data's numbers are the model's labels: {pairs}", assumed=True, own=names)
    if not mapping and _unnamed(names) and len(names) == len(labels):
        note = f"its outputs {names[0]}, … have no names and are taken to be {_list(labels)}, in this order"
        outputs = {label: index for index, label in enumerate(labels)}
        return Adoption(tuple(labels), outputs, note, assumed=True, own=names)
    missing = [label for label in open_labels if label not in matched]
    if _unnamed(names):
        more = f", of which data.labels leaves open {_list(missing)}" if mapping else ""
        raise Refusal(f"has {len(names)} outputs without names, and the data has {len(labels)} classes{more}")
    raise Refusal(f"was trained on other labels ({_list(names)}), and does not know {_list(missing)}")


def _by_number(labels: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    """Return the outputs that whole numbers stand for; nothing where a label is not a number, or stands for none.

    Where every name has a number of its own, as in "1 star", that one is meant; otherwise the place in ``id2label``.
    """
    if not all(re.fullmatch(r"\d{1,6}", label) for label in labels):
        return {}
    numerals = [re.findall(r"\d+", name) for name in names]
    own = [int(inside[0]) for inside in numerals if len(inside) == 1]
    places = own if len(set(own)) == len(names) else list(range(len(names)))
    numbers = {label: places.index(int(label)) for label in labels if int(label) in places}
    return numbers if len(set(numbers.values())) == len(labels) else {}


def _adoption(names: tuple[str, ...], outputs: Mapping[str, int], note: str) -> Adoption:
    """Return the adoption in which classes bear the data's words, and those absent from it the model's."""
    word = {index: label for label, index in outputs.items()}
    absent = {index: f"LABEL_{index}" if name in outputs else name for index, name in enumerate(names)}
    classes = tuple(word.get(index, absent[index]) for index in range(len(names)))
    if len(set(classes)) < len(classes):
        double = next(name for name in classes if classes.count(name) > 1)
        raise Refusal(f"has two classes of the name {double!r}")
    return Adoption(classes, dict(outputs), note, own=names)


def check_mapping(config: Any, task: Task, mapping: Mapping[str, str]) -> None:
    """Raise Refusal where ``data.labels`` does not fit a classifier's labels and those of the data."""
    if not mapping:
        return
    if not task.label_names:
        raise Refusal(f"is asked for {task.predicts}, and data.labels names classes")
    _check_mapping(mapping, head_labels(config), task.label_names)


def _check_mapping(mapping: Mapping[str, str], names: Sequence[str], labels: Sequence[str]) -> None:
    """Raise Refusal for entries that name no output or no label, and for two that give the same label."""
    for name, label in mapping.items():
        if name not in names:
            raise Refusal(f"has no label {name!r} (data.labels); it has {_list(names)}")
        if label not in labels:
            raise Refusal(f"cannot be read as data.labels says: the data has no label {label!r}, but {_list(labels)}")
    if len(set(mapping.values())) < len(mapping):
        raise Refusal("cannot be read as data.labels says: two of its labels stand for the same label of the data")


def _match(word: str, candidates: Sequence[str]) -> str | None:
    """Return the one candidate that is the word, or else the one that is it when folded; None where it is ambiguous."""
    if word in candidates:
        return word
    same = [candidate for candidate in candidates if folded(candidate) == folded(word)]
    return same[0] if len(same) == 1 else None


def folded(label: str) -> str:
    """Return a label with case, white space and Unicode form folded."""
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold()).split())


def _unnamed(names: Sequence[str]) -> bool:
    """Return whether names are those that transformers gives, or bare numbers in order."""
    return any(list(names) == [f"{prefix}{index}" for index in range(len(names))] for prefix in ("LABEL_", ""))


def _mapped(names: Sequence[str], outputs: Mapping[str, int]) -> str:
    pairs = ", ".join(f"{names[index]} = {label}" for label, index in outputs.items())
    return f"labels are matched as data.labels says: {pairs}"


def _list(words: Sequence[str]) -> str:
    more = f" and {len(words) - 10} more" if len(words) > 10 else ""
    return ", ".join(words[:10]) + more
