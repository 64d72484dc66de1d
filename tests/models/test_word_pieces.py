"""Word pieces of one's own: always the same ones, cut as the teacher cuts words, started from its embeddings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE, WordPiece
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast

from compress.models.loading import save_model
from compress.models.word_pieces import started_pieces, trained_pieces
from compress.student.base import Material
from compress.student.bert import Bert
from tests.conftest import reviews, tiny_model, tiny_tokenizer
from tests.fresh import run_fresh

TEXTS = [text for _, text in reviews(60, 3)]


def learnt() -> dict[str, int]:
    """Return pieces of made-up words, most of which are equally frequent."""
    words = ["".join("abcdef"[(i * k + k) % 6] for k in range(1, 3 + i % 5)) for i in range(60)]
    pieces: dict[str, int] = trained_pieces(tiny_tokenizer(), words, 40).get_vocab()
    return pieces


def test_the_same_texts_give_the_same_pieces_in_every_process() -> None:
    code = "import json; from tests.models.test_word_pieces import learnt; print(json.dumps(learnt()))"
    assert json.loads(run_fresh(code)) == learnt()  # each process has its own order of sets and of maps in Rust
    assert len(learnt()) == 40


def test_pieces_are_about_as_many_as_asked_and_spell_every_word() -> None:
    theirs = tiny_tokenizer()
    for size in (50, 60):
        ours = trained_pieces(theirs, TEXTS, size)
        assert len(ours) == size
        assert sorted(ours.all_special_ids) == [0, 1, 2, 3, 4]
        assert ours.unk_token_id not in {number for text in TEXTS for number in ours(text)["input_ids"]}
        for text in TEXTS:
            assert " ".join(ours.tokenize(text)).replace(" ##", "") == text
    assert len(trained_pieces(theirs, TEXTS, 1)) > 30  # every character stays
    ours = trained_pieces(theirs, TEXTS, 60)
    assert ours("THE Film")["input_ids"] == ours("the film")["input_ids"]
    pair, single = ours("a film", "the plot"), ours("a film")
    assert pair["token_type_ids"].count(1) == len(ours("the plot")["input_ids"]) - 1
    assert single["input_ids"][0] == ours.cls_token_id
    assert ours.model_max_length == theirs.model_max_length


def test_embeddings_start_as_the_mean_of_the_teachers_pieces() -> None:
    pieces = ["[UNK]", "[CLS]", "film", "fil", "##m", "##ing", "##i", "##n", "##g", "f", "##lm"]
    theirs = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordPiece({p: n for n, p in enumerate(pieces)}, unk_token="[UNK]")),
        unk_token="[UNK]", cls_token="[CLS]",
    )  # fmt: skip
    mine = ["[UNK]", "[CLS]", "film", "films", "##inn", "##m", "##x", "filing"]
    ours = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordPiece({p: n for n, p in enumerate(mine)}, unk_token="[UNK]")),
        unk_token="[UNK]", cls_token="[CLS]",
    )  # fmt: skip
    weight = torch.randn(len(pieces), 5)
    number = pieces.index
    expected = {
        "[UNK]": ["[UNK]"], "[CLS]": ["[CLS]"], "film": ["film"], "films": ["[UNK]"], "##inn": ["##i", "##n", "##n"],
        "##m": ["##m"], "##x": ["[UNK]"], "filing": ["fil", "##ing"],
    }  # fmt: skip
    started = started_pieces(weight, theirs, ours)
    for place, piece in enumerate(mine):
        rows = weight[[number(part) for part in expected[piece]]]
        torch.testing.assert_close(started[place], rows.mean(0), msg=piece)


def test_embeddings_can_start_from_merged_pairs_too() -> None:
    vocabulary = {"<unk>": 0, "f": 1, "i": 2, "l": 3, "m": 4, "fi": 5}
    bpe = Tokenizer(BPE(vocabulary, [("f", "i")], unk_token="<unk>"))
    theirs = PreTrainedTokenizerFast(tokenizer_object=bpe, unk_token="<unk>")
    mine = ["<unk>", "film", "##film", "##m"]
    ours = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordPiece({p: n for n, p in enumerate(mine)}, unk_token="<unk>")), unk_token="<unk>"
    )
    weight = torch.randn(6, 3)
    started = started_pieces(weight, theirs, ours)
    torch.testing.assert_close(started[1], weight[[5, 3, 4]].mean(0))
    torch.testing.assert_close(started[2], started[1])
    torch.testing.assert_close(started[3], weight[4])


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_student_with_its_own_pieces_reloads_elsewhere_with_the_same_logits(family: str, tmp_path: Path) -> None:
    teacher, theirs = tiny_model(family), tiny_tokenizer(family)
    student = Bert(layers=2, vocabulary=60)
    ours = trained_pieces(theirs, TEXTS, 60)
    model = student.build(teacher, Material(theirs, ours, pairs=False))
    torch.testing.assert_close(
        model.get_input_embeddings().weight, started_pieces(teacher.get_input_embeddings().weight, theirs, ours)
    )
    assert model.config.own_tokens
    assert (model.config.vocab_size, model.config.pad_token_id) == (60, ours.pad_token_id)
    save_model(model, ours, tmp_path / "student")
    inputs = ours(TEXTS[:3], padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).logits.tolist()
    script = (
        "import json, sys, torch; from transformers import AutoModelForSequenceClassification as M, AutoTokenizer as T;"
        "torch.set_num_threads(1); model, tokenizer = M.from_pretrained(sys.argv[1]).eval(), "
        "T.from_pretrained(sys.argv[1]);"
        "inputs = tokenizer(json.loads(sys.argv[2]), padding=True, return_tensors='pt');"
        "print(json.dumps(model(**inputs).logits.tolist()))"
    )
    assert json.loads(run_fresh(script, tmp_path / "student", json.dumps(TEXTS[:3]))) == expected
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student").eval()
    assert len(AutoTokenizer.from_pretrained(tmp_path / "student")) == again.config.vocab_size
