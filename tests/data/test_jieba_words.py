"""Chinese words as jieba finds them, wherever words are needed; and its silence."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compress.augment.perturb import Perturb, Perturber
from compress.augment.substitute import Substitute, Substituter
from compress.augment.words import cut, joined
from compress.benchmark.baselines import TfIdf, tfidf
from compress.cli.main import main
from compress.data import Split, jieba_words, source
from compress.data.files import Files
from compress.data.scripts import Segmentation, word_places
from compress.known import Known
from compress.models.shared_words import first_tokens
from tests.data.test_scripts import chinese
from tests.teachers.test_adaptation import cutting

JIEBA = Segmentation.jieba
TEXT = "这部电影very good!我们喜欢，ดี 电影院"


def words(text: str, segmentation: Segmentation) -> list[str]:
    return [text[begin:end] for begin, end in word_places(text, segmentation)]


def test_chinese_is_cut_into_words_and_every_other_script_as_before() -> None:
    assert words("我们喜欢这部电影 so much", JIEBA) == ["我们", "喜欢", "这部", "电影", "so", "much"]
    assert words("我们喜欢", Segmentation.letters) == [*"我们喜欢"]
    for text in ("an unlikely film!", "ดีมาก かな", "안녕 하세요", "", " \n"):
        assert words(text, JIEBA) == words(text, Segmentation.letters)
    found = cut(TEXT, JIEBA)
    assert found.words == ["这部", "电影", "very", "good", "!", "我们", "喜欢", "，", "ดี", "电影院"]
    assert joined(found.words, found.gaps) == TEXT
    assert all(TEXT[start:].startswith(word) for word, start in zip(found.words, found.starts, strict=True))


def test_the_dictionary_is_read_without_a_word_and_without_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    jieba_words._segmenter.cache_clear()
    assert list(jieba_words.jieba_words("我们喜欢")) == [(0, 2), (2, 4)]
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_a_missing_package_is_refused_with_the_command_before_any_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(source, "is_installed", lambda: False)
    assert main(["run", "--cfg", "data.words=jieba"]) == 2
    assert (
        "data.words = 'jieba': needs the package jieba. Install it: pip install 'compress-encoders[chinese]'. "
        "Or leave it at letters." in capsys.readouterr().err
    )
    assert not [fault for fault in Files(train="x").faults() if fault.setting == "words"]


def test_rows_remember_what_their_words_are(tmp_path: Path) -> None:
    rows = "".join(f"{label}\t{text} {i}\n" for i in range(20) for label, text in (("good", "很好"), ("bad", "不好")))
    (tmp_path / "rows.tsv").write_text("label\ttext\n" + rows)
    data = Files(train=str(tmp_path / "rows.tsv"), words=JIEBA).load("classification", 1)
    assert data.words is JIEBA
    assert JIEBA.key == ["jieba 0.42.1"]
    assert Segmentation.letters.key == []


def test_whole_words_are_hidden_together() -> None:
    rows = Split(("天气 unlike",))  # [CLS] 天 气 un ##like [SEP]
    assert first_tokens(rows, cutting(), 32).batch(np.array([0])).tolist() == [[0, 1, 2, 3, 3, 5]]
    assert first_tokens(rows, cutting(), 32, JIEBA).batch(np.array([0])).tolist() == [[0, 1, 1, 3, 3, 5]]


def test_words_are_masked_and_replaced_whole() -> None:
    rows, generator = Split(("我们喜欢电影。",)), np.random.default_rng(1)
    masking = Perturb(mask_rate=1.0, replace_rate=0.0, ngram_rate=0.0)
    (masked,) = Perturber(masking, rows, "M", None, JIEBA).copies(0, 1, generator, Counter())
    assert masked == ("MMMM",)
    maker = Substituter(Substitute(rate=1.0), rows, None, None, {"电影": ["话剧"], "电": ["光"]}, JIEBA)
    assert next(maker.copies(0, 1, generator, Counter())) == ("我们喜欢话剧。",)


def test_parts_of_speech_need_a_pipeline_for_the_language() -> None:
    known = Known(data=replace(chinese(20), words=JIEBA))
    (fault,) = Perturb().faults(known)
    assert (fault.setting, fault.value) == ("tagger", "english")
    assert not list(Perturb(tagger="zh_core_web_sm").faults(known))
    assert not list(Perturb(replace_rate=0).faults(known))


def test_tfidf_counts_the_words_beside_the_characters() -> None:
    found = tfidf(replace(chinese(80), words=JIEBA))
    assert found.figures.kind == "TF-IDF of words of jieba (1–2) and characters (1–3) + logistic regression"
    assert found.figures.metrics["accuracy"] == 1.0
    counted = TfIdf(["我们喜欢BERT，", "我们"], 1, JIEBA).vectorizers[0].get_feature_names_out()
    assert set(counted) == {"我们", "喜欢", "bert", "我们 喜欢", "喜欢 bert"}
