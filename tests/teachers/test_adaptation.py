"""A teacher that reads the domain's texts first: what is hidden, what is trained and kept, and what is refused."""

from __future__ import annotations

from dataclasses import replace
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
from transformers import AutoModel, AutoModelForMaskedLM, PreTrainedTokenizerFast

from compress.data import Files
from compress.data.dataset import Split
from compress.data.scripts import word_places
from compress.errors import ModelError
from compress.families.language_head import head_of_model, load_language_model, put_head, word_embeddings
from compress.known import Known
from compress.models.loading import load_model, quiet, save_model
from compress.models.shared_words import first_tokens
from compress.models.tokens import tokenize
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.settings import all_faults
from compress.tasks.heads import IDLE_HEAD
from compress.teachers.adaptation import MaskedWords
from compress.teachers.model import FineTune, Teacher
from compress.train.masking import HIDDEN, masking_of
from compress.train.word_prediction import states_of
from tests.conftest import BERT_NOW, CONFIGS, reviews, save_tiny, tiny_batch, tiny_tokenizer, write_tsv

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##like", "##ly", "film", "!", "天", "气", "好")


def cutting() -> PreTrainedTokenizerFast:
    """Return a tokenizer that cuts words into pieces."""
    tokenizer = Tokenizer(WordPiece({piece: number for number, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = BertNormalizer(), BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=32, model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def test_words_stand_between_white_space_and_letters_alone() -> None:
    def words(text: str) -> list[str]:
        return [text[begin:end] for begin, end in word_places(text)]

    assert words("an unlikely film!") == ["an", "unlikely", "film!"]
    assert words("天气 so好!") == ["天", "气", "so", "好", "!"]
    assert words(" \n") == []


def test_the_pieces_of_a_word_share_its_first_token() -> None:
    # [CLS] un ##like ##ly film ! [SEP]; letters of Chinese stand alone; the second text begins anew
    rows = Split(("unlikely film!", "天气 unlike"), pairs=("film", "好!"))
    first = first_tokens(rows, cutting(), 32)
    numbers = first.batch(np.array([0, 1])).tolist()
    assert numbers[0] == [0, 1, 1, 1, 4, 4, 6, 7, 8]
    assert numbers[1] == [0, 1, 2, 3, 3, 5, 6, 7, 8]
    assert first_tokens(rows, cutting(), 5).batch(np.array([0])).shape == (1, 5)  # cut as the rows are


def test_the_pieces_of_a_word_are_hidden_together_and_as_often_as_asked() -> None:
    rows = Split(("unlikely film unlike film unlikely",) * 800)
    tokens, first = tokenize(rows, cutting(), 32), first_tokens(rows, cutting(), 32)
    masking = replace(masking_of(cutting(), 0.15, 1), words=first)
    batch = tokens.batch(list(range(800)))
    _, labels = masking(batch, 0.5)
    chosen = labels != HIDDEN
    assert not chosen[:, 0].any()
    for word in ([1, 2, 3], [5, 6], [8, 9, 10]):
        assert (chosen[:, word].sum(1) % len(word) == 0).all()
    assert 0.12 < float(chosen[:, [1, 4, 5, 7, 8]].float().mean()) < 0.18  # 4,000 words: 0.15 ± 5 standard errors
    alone = replace(masking, words=None)(batch, 0.5)[1] != HIDDEN
    assert (alone[:, [1, 2, 3]].sum(1) % 3 != 0).any()


@pytest.mark.parametrize("family", [name for name in BERT_NOW if "deberta" not in str(name)])
@torch.no_grad()
def test_a_head_that_is_put_back_says_what_it_said(family: str) -> None:
    with quiet():
        model = AutoModelForMaskedLM.from_config(CONFIGS[family]()).eval()
    head = head_of_model(model)
    for parameter in head.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    if family == "modernbert":
        head.dense.bias.zero_()  # for which there is no place, as for the normalisation's
        head.norm.bias.zero_()
    put_head(head, model)
    batch = tiny_batch(family=family)
    states = states_of(model.base_model, batch, batch["input_ids"])
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    torch.testing.assert_close(head(states, word_embeddings(model)), model(**inputs).logits, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a tiny masked language model, a classifier, labelled rows and unlabelled texts."""
    folder = tmp_path_factory.mktemp("adaptation")
    torch.manual_seed(0)
    with quiet():
        pretrained = AutoModelForMaskedLM.from_config(CONFIGS["bert"]())
        pretrained.base_model.pooler = AutoModel.from_config(CONFIGS["bert"]()).pooler  # as pretrained BERTs have
    save_model(pretrained, tiny_tokenizer(), folder / "pretrained")
    save_tiny(folder / "plain")
    save_tiny(folder / "finished", label2id={"bad": 0, "good": 1}, id2label={0: "bad", 1: "good"})
    for name, rows in (("train", 48), ("validation", 24), ("test", 24)):
        write_tsv(folder / f"{name}.tsv", reviews(rows, rows))
    (folder / "texts.txt").write_text("".join(f"{text}\n" for _, text in reviews(64, 9)))
    return folder


def state(world: Path, cache: Path, *, unlabelled: bool = True) -> State:
    paths = {name: str(world / f"{name}.tsv") for name in ("train", "validation", "test")}
    data = Files(**paths, unlabelled=str(world / "texts.txt") if unlabelled else None).load("auto", seed=1)
    return State.begin(data=data, workshop=Workshop(cache), seed=1)


def teacher(world: Path, model: str = "pretrained") -> Teacher:
    how = MaskedWords(epochs=12, learning_rate=5e-3, batch_size=16)
    return Teacher(model=str(world / model), max_tokens=32, epochs=1, least_steps=0, adapt=["masked_lm"], masked_lm=how)


def adapted(cache: Path) -> list[Path]:
    return sorted(cache.glob("adapted_teacher*"))


def test_a_model_that_has_read_the_texts_fills_them_better_and_is_fine_tuned_from_there(
    world: Path, tmp_path: Path
) -> None:
    settings = teacher(world)
    after = settings(state(world, tmp_path))
    (record,) = after.records
    (folder,) = adapted(tmp_path)
    assert "adapted before by masked language modelling of 112 texts: loss " in record.notes[1]
    assert record.notes[2].startswith("trained for 1 epoch")

    tokens = tokenize(state(world, tmp_path).data.transfer, tiny_tokenizer(), 32)
    batch = tokens.batch(list(range(len(tokens))))
    ids, labels = masking_of(tiny_tokenizer(), 0.3, 5)(batch, 0.5)

    def loss(model: str | Path) -> float:
        encoder, head = load_language_model(model)
        with torch.no_grad():
            scores = head(states_of(encoder, batch, ids), word_embeddings(encoder))
        return float(torch.nn.functional.cross_entropy(scores.flatten(0, 1), labels.flatten()))

    assert loss(folder) < loss(settings.model) - 0.15  # of 3.2, where words at random leave 2.6
    pooler = [load_model(model, head=IDLE_HEAD).base_model.pooler.dense.weight for model in (folder, settings.model)]
    assert torch.equal(*pooler)  # masked words do not reach it, and it is not lost
    assert after.pretrained == str(folder)  # what prepares a student reads the adapted model too
    start, ended = load_model(folder, head=IDLE_HEAD), load_model(after.given_teacher.folder)
    whole = load_model(settings.model, head=IDLE_HEAD)
    words = [word_embeddings(model) for model in (start, ended, whole)]
    assert (words[0] - words[1]).norm() < (words[0] - words[2]).norm()

    again = settings(state(world, tmp_path))
    assert again.records[0].reused
    assert again.given_teacher.key == after.given_teacher.key
    other = replace(settings, masked_lm=replace(settings.masked_lm, masked_share=0.3))(state(world, tmp_path))
    assert len(adapted(tmp_path)) == 2
    assert other.given_teacher.key != after.given_teacher.key
    plain = replace(settings, adapt=[])(state(world, tmp_path))
    assert len(adapted(tmp_path)) == 2
    assert plain.given_teacher.key not in (other.given_teacher.key, after.given_teacher.key)


def test_a_corpus_and_a_head_that_is_trained_first(world: Path, tmp_path: Path) -> None:
    how = MaskedWords(epochs=1, head_epochs=1, corpus=str(world / "texts.txt"), rows=20, batch_size=16)
    settings = replace(teacher(world, "plain"), masked_lm=how)
    begun = state(world, tmp_path, unlabelled=False)
    after = settings(begun)
    assert "of 20 texts" in after.records[0].notes[1]
    assert after.pretrained == str(adapted(tmp_path)[0])
    with pytest.raises(
        ModelError, match=r"teacher\.adapt = \[masked_lm\].*has no masked-language-model head.*head_epochs"
    ):
        replace(settings, masked_lm=replace(how, head_epochs=0.0)).inspect(begun.data)


def test_what_cannot_be_adapted_is_refused_before_work(world: Path, tmp_path: Path) -> None:
    begun = state(world, tmp_path)
    with pytest.raises(ModelError, match=r"teacher\.adapt = .*finished is used as it is"):
        teacher(world, "finished").inspect(begun.data)
    again = replace(teacher(world, "finished"), fine_tune=FineTune.always)
    with pytest.raises(ModelError, match="finished has no masked-language-model head"):
        again.inspect(begun.data)
    assert replace(again, adapt=[]).inspect(begun.data)
    save_tiny(tmp_path / "deberta", "deberta-v2")
    with pytest.raises(ModelError, match=r"deberta is of type deberta-v2, of which no masked language model is known"):
        replace(teacher(world), model=str(tmp_path / "deberta")).inspect(begun.data)
    maskless = tiny_tokenizer()
    maskless.mask_token = None
    with pytest.raises(ModelError, match="has no mask token"):
        MaskedWords().check("it", str(world / "pretrained"), CONFIGS["bert"](), maskless)

    labelled = state(world, tmp_path, unlabelled=False).data
    (fault,) = all_faults(teacher(world), Known(data=labelled))
    assert (fault.setting, "no unlabelled rows" in fault.rule) == ("adapt", True)
    assert not list(all_faults(teacher(world), Known(data=begun.data)))


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({"adapt": ["masked_ml"]}, "adapt"),
        ({"adapt": ["masked_lm", "masked_lm"]}, "adapt"),
        ({"masked_lm": MaskedWords(masked_share=0.0)}, "masked_lm.masked_share"),
        ({"masked_lm": MaskedWords(rows=0)}, "masked_lm.rows"),
        ({"masked_lm": MaskedWords(early_stopping=1)}, "masked_lm.early_stopping"),
        ({"masked_lm": MaskedWords(corpus="nowhere.txt")}, "masked_lm.corpus"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any], setting: str) -> None:
    assert [fault.setting for fault in all_faults(Teacher(**settings))] == [setting]
