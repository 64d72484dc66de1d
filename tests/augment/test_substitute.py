"""Words are replaced by the model's own expectations, by similar words, or by synonyms; each source is checked."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForMaskedLM, PreTrainedModel, PreTrainedTokenizerFast, RobertaConfig

from compress.augment.lexicon import read_synonyms
from compress.augment.masked_lm import MaskedLm, load
from compress.augment.substitute import Substitute, Substituter
from compress.augment.vectors import read_vectors
from compress.augment.words import cut, is_word
from compress.data.dataset import Split
from compress.errors import DataError, ModelError
from compress.models.loading import quiet, save_model
from tests.conftest import CONFIGS, EVERY_FAMILY, FAMILY_NAMES, VOCABULARY, reviews, save_tiny, tiny_tokenizer

WORDS = VOCABULARY[5:]
TEXT = "the film, @x is very awful and 3 so dull"  # "3" is unknown to the tiny tokenizer


def tiny_mlm(family: str = "bert", config: Any = None) -> PreTrainedModel:
    """Return a masked language model with weights far from symmetric."""
    state = torch.get_rng_state()
    torch.manual_seed(3)
    with quiet():
        model: PreTrainedModel = AutoModelForMaskedLM.from_config(config or CONFIGS[family]()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    torch.set_rng_state(state)
    return model


@pytest.fixture
def mlm(tmp_path: Path) -> Path:
    """A tiny masked language model, saved as transformers saves it."""
    folder = tmp_path / "mlm"
    folder.mkdir()
    save_model(tiny_mlm(), tiny_tokenizer(), folder)
    return folder


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_candidates_are_the_most_probable_words_where_the_word_is_masked(family: str, tmp_path: Path) -> None:
    model, tokenizer = tiny_mlm(family), tiny_tokenizer(family)
    save_model(model, tokenizer, tmp_path)
    text = cut(TEXT)
    found = load(str(tmp_path)).candidates([TEXT], [text], 4)
    pieces = tokenizer.tokenize(TEXT)
    assert pieces == ["the", "film", "[UNK]", "[UNK]", "[UNK]", *TEXT.split()[3:7], "[UNK]", "so", "dull"]
    position = {place: 1 + pieces.index(word) for place, word in enumerate(text.words) if word in WORDS}
    assert set(found) == {(0, place) for place in position}  # not the comma, the handle or the unknown number
    for (_, place), candidates in found.items():
        ids = tokenizer(TEXT)["input_ids"]
        ids[position[place]] = tokenizer.mask_token_id
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, position[place]]
        probabilities = {word: float(logits.softmax(-1)[tokenizer.convert_tokens_to_ids(word)]) for word in WORDS}
        assert candidates == sorted(WORDS, key=lambda word: -probabilities[word])[:4]


def test_of_a_pair_the_model_reads_both_texts(mlm: Path) -> None:
    model, tokenizer = load(str(mlm)), tiny_tokenizer()
    pair = ("the plot was good", "very poor music")
    found = model.candidates(pair, [cut(text) for text in pair], 3)
    assert len(found) == 7
    encoded = tokenizer(*pair, return_tensors="pt")
    encoded["input_ids"][0, 1 + 4 + 1 + 1] = tokenizer.mask_token_id  # "poor"
    with torch.no_grad():
        logits = model.model(**encoded).logits[0, 7]
    best = sorted(WORDS, key=lambda word: -float(logits[tokenizer.convert_tokens_to_ids(word)]))[:3]
    assert found[1, 1] == best
    alone = model.candidates(pair[1:], [cut(pair[1])], 3)
    assert alone[0, 1] != found[1, 1]


def test_byte_level_pieces_after_a_space_are_replaced_by_such_pieces() -> None:
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    texts = [text for _, text in reviews(200, 1)]
    backend.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False))
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=40, bos_token="<s>", eos_token="</s>", cls_token="<s>",
        sep_token="</s>", unk_token="<unk>", pad_token="<pad>", mask_token="<mask>",
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    size = len(tokenizer)
    config = RobertaConfig(
        vocab_size=size + 7, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=64, pad_token_id=1, type_vocab_size=1,
    )  # fmt: skip
    model = MaskedLm(tiny_mlm(config=config), tokenizer)
    text = "the film was filmy, awful plot"
    found = model.candidates([text], [cut(text)], 500)
    words = cut(text).words
    assert {words[place] for _, place in found} >= {"film", "was", "awful", "plot"}
    assert "filmy" not in {words[place] for _, place in found}  # several pieces
    after_a_space = {piece[1:] for piece in tokenizer.get_vocab() if piece.startswith("Ġ") and is_word(piece[1:])}
    assert set(found[0, 1]) == after_a_space


def test_words_beyond_the_longest_row_and_all_batches_are_handled(mlm: Path) -> None:
    text = " ".join(["good", "film"] * 30)  # 60 words, of which 30 are read
    found = load(str(mlm)).candidates([text], [cut(text)], 2)
    assert set(found) == {(0, place) for place in range(30)}


def write(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


VECTORS = "good 1 0\ngreat 0.9 0.1\nfine 0.8 0.3\nbad -1 0\n, 1 0\nFilm 0 2\nplot 0.1 3\n"


def test_the_nearest_words_have_the_largest_cosine(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(40, 6)) * generator.uniform(0.1, 9, size=(40, 1))
    lines = [f"w{row} " + " ".join(f"{x:.6f}" for x in matrix[row]) for row in range(40)]
    vectors = read_vectors(write(tmp_path / "v.txt", "40 6\n" + "\n".join(lines) + "\n"))
    for row in range(40):
        cosines = {
            f"w{other}": float(
                matrix[row] @ matrix[other] / np.linalg.norm(matrix[row]) / np.linalg.norm(matrix[other])
            )
            for other in range(40)
            if other != row
        }
        assert vectors.nearest(f"w{row}", 5) == sorted(cosines, key=lambda word: -cosines[word])[:5]
    assert len(vectors.nearest("w0", 500)) == 39
    assert vectors.nearest("unknown", 5) == []


def test_vectors_are_read_with_and_without_a_first_line_of_sizes(tmp_path: Path) -> None:
    for first in ("", "7 2\n"):
        vectors = read_vectors(write(tmp_path / "v.txt", first + VECTORS))
        assert vectors.words == ["good", "great", "fine", "bad", "Film", "plot"]  # no comma
        assert vectors.nearest("good", 2) == ["great", "fine"]
        assert vectors.nearest("film", 1) == ["plot"]
        assert vectors.nearest("Great", 1) == ["good"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("good 1 0\nbad 1\n", "line 2: expected a word and 2 numbers"),
        ("good 1 0\nbad 1 x\n", "line 2"),
        ("good 1 0\nbad nan 0\n", "line 2"),
        ("good\n", "line 1"),
        ("", "no vector"),
        (", 1 0\n", "no vector"),
        ("7 3\n" + VECTORS, "line 2: expected a word and 3 numbers"),
    ],
)
def test_bad_vectors_are_refused_with_their_line(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_vectors(write(tmp_path / "v.txt", content))


def test_binary_vectors_are_refused(tmp_path: Path) -> None:
    (tmp_path / "v.bin").write_bytes(b"3 2\ngood \x80\xff\x00\x01")
    with pytest.raises(DataError, match="text form"):
        read_vectors(tmp_path / "v.bin")


@pytest.mark.parametrize(
    ("content", "synonyms"),
    [
        ("word\tsynonym\nGood\tfine\ngood\tgreat\ngood\tgood\nbad\tvery poor\n", {"good": ["fine", "great"],
         "bad": ["very poor"]}),
        ("good\tfine\n", {"good": ["fine"]}),
        ("word\tpos\tsynonyms\ngood\ta\tfine great\ngood\tn\tgoodness fine\nbad\ta\tbad\n",
         {"good": ["fine", "great", "goodness"]}),
        ("good\ta\tfine great\n", {"good": ["fine", "great"]}),
    ],
)  # fmt: skip
def test_both_forms_of_a_thesaurus_are_read(content: str, synonyms: dict[str, list[str]], tmp_path: Path) -> None:
    assert read_synonyms(write(tmp_path / "s.tsv", content)) == synonyms


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("good\n", "line 1: expected word<TAB>synonym"),
        ("good\tfine\nbad\ta\tpoor\n", "line 2: expected the 2 fields of the lines before; got 3"),
        ("good\tfine\nbad\t \n", "line 2: a field is empty"),
        ("word\tantonym\ngood\tbad\n", "called 'antonym', not synonyms"),
        ("word\tsynonym\n", "has no synonyms"),
        ("", "has no synonyms"),
    ],
)
def test_a_bad_thesaurus_is_refused_with_its_line(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_synonyms(write(tmp_path / "s.tsv", content))


def copies(
    settings: Substitute, rows: Split, number: int, mlm: MaskedLm | None, synonyms: dict[str, list[str]], vectors: Any
) -> tuple[list[tuple[str, ...]], Counter[str]]:
    """Return copies of the first row and what was counted."""
    counts: Counter[str] = Counter()
    maker = Substituter(settings, rows, mlm, vectors, synonyms)
    return list(maker.copies(0, number, np.random.default_rng(0), counts)), counts


def test_a_piece_takes_the_model_other_words_vectors_and_the_rest_synonyms(mlm: Path, tmp_path: Path) -> None:
    text = "The film, goodish and Fabulous xyz @great!"
    vectors = read_vectors(write(tmp_path / "v.txt", "goodish 1 0\nnice 1 0.1\nodd 0 1\n"))
    synonyms = {"fabulous": ["splendid"], "film": ["movie"], "goodish": ["fair"], "great": ["no"]}
    settings = Substitute(rate=1.0, candidates=1, mlm="x", grammar=True)
    made, counts = copies(settings, Split((text,)), 3, load(str(mlm)), synonyms, vectors)
    expected = load(str(mlm)).candidates([text], [cut(text)], 1)
    the, film, and_ = (expected[0, place][0] for place in (0, 1, 4))
    assert made == 3 * [(f"{the[:1].upper()}{the[1:]} {film}, nice {and_} Splendid xyz @great!",)]
    assert counts == {"words": 18, "without_candidates": 3, "by_mlm": 9, "by_vectors": 3, "by_synonyms": 3}


def test_words_are_replaced_at_the_rate_and_candidates_drawn_evenly() -> None:
    rows = Split(("good film , bad plot",))
    synonyms = {"good": ["fine", "great", "lovely", "nice"], "bad": ["poor"]}
    made, counts = copies(Substitute(synonyms="x"), rows, 6000, None, synonyms, None)
    first = Counter(texts[0].split()[0] for texts in made)
    assert 1 - first["good"] / 6000 == pytest.approx(0.4, abs=0.02)
    assert all(first[word] / 6000 == pytest.approx(0.1, abs=0.02) for word in synonyms["good"])
    assert {texts[0].split()[1] for texts in made} == {"film"}
    assert {texts[0].split()[2] for texts in made} == {","}
    assert counts["by_synonyms"] / 12000 == pytest.approx(0.4, abs=0.02)
    assert counts["without_candidates"] == 12000


@pytest.mark.parametrize("grammar", [False, True])
def test_words_of_grammar_and_pieces_with_other_characters_than_letters_stay(grammar: bool) -> None:
    """As in TinyBERT's program, which leaves stop words and whatever is not a word of letters."""
    text = "The film is n't 3rd-rate, it was 90 minutes of good café re-runs don't you"
    words = ["the", "film", "is", "n't", "3rd-rate", "it", "was", "90", "minutes", "of", "good", "re-runs", "don't",
             "you", "café"]  # fmt: skip
    settings = Substitute(rate=1.0, synonyms="x", grammar=grammar)
    made, counts = copies(settings, Split((text,)), 1, None, {word: ["swapped"] for word in words}, None)
    pieces = text.split(" ")
    changed = {"film", "minutes", "good", "café", *(("The", "is", "it", "was", "of", "you") if grammar else ())}
    expected = [("Swapped" if piece == "The" else "swapped") if piece in changed else piece for piece in pieces]
    assert made == [(" ".join(expected),)]
    assert counts["words"] == len(changed)


def test_both_texts_of_a_pair_are_changed() -> None:
    rows = Split(("good film",), ("good plot",))
    made, _ = copies(Substitute(rate=1.0, synonyms="x"), rows, 2, None, {"good": ["fine"]}, None)
    assert made == 2 * [("fine film", "fine plot")]


def test_a_model_without_a_trained_head_is_refused(tmp_path: Path) -> None:
    for family in FAMILY_NAMES:
        with pytest.raises(ModelError, match="no trained head of a masked language model"):
            load(str(save_tiny(tmp_path / family, family)))
    with pytest.raises(ModelError, match="no such folder"):
        Substitute(mlm=str(tmp_path / "none")).look()


def test_a_tokenizer_without_a_mask_is_refused(mlm: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.mask_token = None
    tokenizer.save_pretrained(mlm)
    with pytest.raises(ModelError, match="no mask token"):
        load(str(mlm))


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({}, "mlm"),
        ({"synonyms": "none.tsv"}, "synonyms"),
        ({"vectors": "none.txt"}, "vectors"),
        ({"mlm": "x", "rate": 0.0}, "rate"),
        ({"mlm": "x", "rate": 1.5}, "rate"),
        ({"mlm": "x", "candidates": 0}, "candidates"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any], setting: str) -> None:
    assert [fault.setting for fault in Substitute(**settings).faults()] == [setting]


def test_sources_are_looked_at_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 1"):
        Substitute(vectors=str(write(tmp_path / "v.txt", "no numbers\n"))).look()
    with pytest.raises(DataError, match="line 1"):
        Substitute(synonyms=str(write(tmp_path / "s.tsv", "word\n"))).look()
