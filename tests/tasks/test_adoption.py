"""A head's outputs and the data's labels: which is which, what is refused, and what the words of a refusal name."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from transformers import BertConfig

from compress.data.dataset import Dataset, Split
from compress.tasks.adoption import Adoption, Refusal, adopt, adopted, rows_by_name
from compress.tasks.classification import Classification
from compress.tasks.regression import Regression

TOPICS = ("apples", "cherries", "pears")
DECOMPOSED = unicodedata.normalize("NFD", "Dalí")


def head(names: Sequence[str], **settings: Any) -> BertConfig:
    numbered = {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    return BertConfig(architectures=["BertForSequenceClassification"], **(numbered | settings))


def read(names: Sequence[str], labels: Sequence[str], mapping: Mapping[str, str] | None = None) -> Adoption:
    return adopt(head(names), Classification(tuple(labels)), mapping or {})


@pytest.mark.parametrize(
    ("names", "labels", "classes", "outputs"),
    [
        (["pears", "apples", "cherries"], TOPICS, ["pears", "apples", "cherries"], [1, 2, 0]),
        (["PEARS", "Apples ", "cherries"], TOPICS, ["pears", "apples", "cherries"], [1, 2, 0]),
        (["Miró", DECOMPOSED], ["Dalí", "miró"], ["miró", "Dalí"], [1, 0]),
        (["pears", "plums", "apples", "cherries"], TOPICS, ["pears", "plums", "apples", "cherries"], [2, 3, 0]),
        (["pears", "apples", "cherries"], ["0", "2"], ["pears", "apples", "cherries"], [0, 2]),
        (["LABEL_0", "LABEL_1", "LABEL_2"], TOPICS, TOPICS, [0, 1, 2]),
        (["LABEL_0", "LABEL_1", "LABEL_2"], ["1", "2"], ["LABEL_0", "1", "2"], [1, 2]),
        (["0", "1", "2"], TOPICS, TOPICS, [0, 1, 2]),
        (["0", "1", "2"], ["0", "1", "2"], ["0", "1", "2"], [0, 1, 2]),
        (["1 star", "2 stars", "3 stars"], ["2", "1"], ["1 star", "2 stars", "3 stars"], [1, 0]),
    ],
)  # fmt: skip
def test_outputs_are_matched_by_name_by_number_or_in_order(
    names: Sequence[str], labels: Sequence[str], classes: Sequence[str], outputs: Sequence[int]
) -> None:
    adoption = read(names, labels)
    assert adoption.names == tuple(classes)
    assert [adoption.outputs[label] for label in labels] == list(outputs)


def test_what_names_do_not_confirm_is_marked_as_assumed() -> None:
    assert read(["LABEL_0", "LABEL_1"], ["bad", "good"]).assumed
    assert read(["bad", "good"], ["0", "1"]).assumed
    assert not read(["bad", "good"], ["BAD", "Good"]).assumed
    assert not read(["LABEL_0", "LABEL_1"], ["bad", "good"], {"LABEL_0": "good", "LABEL_1": "bad"}).assumed


def test_a_map_goes_before_names_and_leaves_the_rest_to_them() -> None:
    swapped = read(["LABEL_0", "LABEL_1"], ["bad", "good"], {"LABEL_0": "good", "LABEL_1": "bad"})
    assert swapped.names == ("good", "bad")
    assert swapped.outputs == {"good": 0, "bad": 1}
    partly = read(["fruit", "apples", "cherries"], TOPICS, {"fruit": "pears"})
    assert partly.outputs == {"pears": 0, "apples": 1, "cherries": 2}
    assert "fruit = pears" in read(["fruit", "x"], ["pears", "x"], {"fruit": "pears", "x": "x"}).note


@pytest.mark.parametrize(
    ("config", "labels", "mapping", "reason"),
    [
        (head(["plums", "pears"]), TOPICS, {}, "does not know apples, cherries"),
        (head(["LABEL_0", "LABEL_1"]), TOPICS, {}, "2 outputs without names"),
        (head(["LABEL_0", "LABEL_1", "LABEL_2"]), TOPICS, {"LABEL_0": "pears"}, "leaves open apples, cherries"),
        (head(["a", "A", "b"]), ["á", "b"], {}, "does not know á"),
        (head(["a", "b"]), ["-1", "1"], {}, "does not know -1, 1"),
        (head(["1 star", "2 stars"]), ["0", "1"], {}, "does not know 0, 1"),
        (head(["a", "b"]), ["a", "b"], {"c": "a"}, "has no label 'c' (data.labels)"),
        (head(["a", "b"]), ["a", "b"], {"a": "c"}, "the data has no label 'c'"),
        (head(["a", "b"]), ["a", "b"], {"a": "a", "b": "a"}, "stand for the same label"),
        (head(["a", "b"], label2id={"b": 0, "a": 1}), ["a", "b"], {}, "contradict each other"),
        (head(["a", "b"], problem_type="multi_label_classification"), ["a", "b"], {}, "multi label"),
        (head(["score"], problem_type="regression"), ["a", "b"], {}, "scores, not for classes"),
        (head(["score"]), TOPICS, {}, "a single output, and the data has 3 classes"),
        (BertConfig(architectures=["BertModel"]), ["a", "b"], {}, "no classification head"),
    ],
)  # fmt: skip
def test_what_cannot_be_matched_is_refused_with_its_reason(
    config: BertConfig, labels: Sequence[str], mapping: Mapping[str, str], reason: str
) -> None:
    with pytest.raises(Refusal, match=re.escape(reason)):
        adopt(config, Classification(tuple(labels)), mapping)


def test_a_class_that_gave_its_name_away_gets_another() -> None:
    adoption = read(["apples", "pears", "plums"], ["apples", "pears"], {"plums": "apples"})
    assert adoption.outputs == {"apples": 2, "pears": 1}
    assert adoption.names == ("LABEL_0", "pears", "apples")


def test_names_that_only_label2id_holds_are_used() -> None:
    config = head(["LABEL_0", "LABEL_1"])
    config.label2id = {"good": 0, "bad": 1}
    assert adopt(config, Classification(("bad", "good")), {}).names == ("good", "bad")


@pytest.mark.parametrize(
    ("name", "mapping", "classes"),
    [("LABEL_0", {}, ("bad", "good")), ("BAD", {}, ("good", "bad")), ("LABEL_0", {"LABEL_0": "bad"}, ("good", "bad"))],
)
def test_one_logit_is_the_second_of_two_classes(name: str, mapping: dict[str, str], classes: tuple[str, str]) -> None:
    adoption = adopt(head([name]), Classification(("bad", "good")), mapping)
    assert adoption.single
    assert adoption.names == classes
    assert adoption.rows(classes) == [None, 0]
    assert adoption.rows(tuple(reversed(classes))) == [0, None]


def test_scores_need_one_output_that_was_trained_for_them() -> None:
    task = Regression(0, 5)
    adoption = adopt(head(["score"], problem_type="regression"), task, {})
    assert adoption.rows(["score"]) == [0]
    assert not adoption.absent
    for config in (head(["a", "b"]), head(["a"], problem_type="multi_label_classification")):
        with pytest.raises(Refusal):
            adopt(config, task, {})


def test_rows_are_numbered_as_the_head_numbers_them() -> None:
    rows = Split(["x", "y", "z"], None, np.array([0, 1, 2]))
    data = Dataset("rows", Classification(TOPICS), rows, rows, rows)
    numbered, adoption = adopted(head(["pears", "plums", "apples", "cherries"]), data)
    assert numbered.train.known_labels.tolist() == [2, 3, 0]
    assert numbered.task == Classification(("pears", "plums", "apples", "cherries"))
    assert adoption.absent == ("plums",)


def test_a_head_that_is_trained_anew_starts_from_rows_of_the_same_name() -> None:
    assert rows_by_name(head(["Pears", "plums", "apples"]), TOPICS, {}) == [2, None, 0]
    assert rows_by_name(head(["LABEL_0", "LABEL_1", "LABEL_2"]), TOPICS, {}) == [None, None, None]
    assert rows_by_name(head(["LABEL_0", "LABEL_1"]), ["a", "b"], {"LABEL_1": "a", "LABEL_0": "b"}) == [1, 0]


def test_one_heads_outputs_are_put_into_the_order_of_another() -> None:
    labels = ["apples", "pears"]
    leading, other = read(["pears", "plums", "apples"], labels), read(["apples", "PEARS", "Plums", "figs"], labels)
    assert other.order_of(leading) == [1, 2, 0]
    assert leading.order_of(leading) == [0, 1, 2]
    with pytest.raises(Refusal, match="figs"):
        leading.order_of(other)
