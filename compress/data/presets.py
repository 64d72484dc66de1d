"""Well-known data sets of the hub, by the names under which a recipe chooses them."""

from __future__ import annotations

from collections.abc import Mapping

from compress.data.hub import Hub

GLUE = "nyu-mll/glue"

PRESETS: Mapping[str, Hub] = {
    "sst2": Hub(path=GLUE, subset="sst2", text="sentence", label="label"),
    "cola": Hub(path=GLUE, subset="cola", text="sentence", label="label"),
    "mrpc": Hub(path=GLUE, subset="mrpc", text="sentence1", text_pair="sentence2", label="label"),
    "qqp": Hub(path=GLUE, subset="qqp", text="question1", text_pair="question2", label="label"),
    "stsb": Hub(path=GLUE, subset="stsb", text="sentence1", text_pair="sentence2", label="label"),
    "mnli": Hub(
        path=GLUE,
        subset="mnli",
        text="premise",
        text_pair="hypothesis",
        label="label",
        validation="validation_matched",
        test="test_matched",
    ),
    "qnli": Hub(path=GLUE, subset="qnli", text="question", text_pair="sentence", label="label"),
    "rte": Hub(path=GLUE, subset="rte", text="sentence1", text_pair="sentence2", label="label"),
    "wnli": Hub(path=GLUE, subset="wnli", text="sentence1", text_pair="sentence2", label="label"),
    "imdb": Hub(path="stanfordnlp/imdb", text="text", label="label", unlabelled="unsupervised"),
    "ag_news": Hub(path="fancyzhx/ag_news", text="text", label="label"),
}
