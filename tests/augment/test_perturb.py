"""Tang et al.'s operations, each against its definition."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from compress.augment.perturb import Perturb, Perturber, Unigrams, perturbed
from compress.augment.tagger import tags
from compress.augment.words import cut, joined
from compress.data.dataset import Split
from tests.conftest import reviews

TEXTS = tuple(text for _, text in reviews(60, 4))


def off(**rates: float) -> Perturb:
    """Return settings with every rate at 0 but those given."""
    return Perturb(**{"mask_rate": 0.0, "replace_rate": 0.0, "ngram_rate": 0.0, **rates})  # type: ignore[arg-type]


def lexicon(rows: Split) -> Unigrams:
    """Return the unigrams of rows, tagged anew."""
    names: dict[str, int] = {}
    texts = [*rows.texts, *(rows.pairs or ())]
    numbers = [names.setdefault(tag, len(names)) for found in tags("english", texts) for tag in found]
    return Unigrams(rows, list(names), np.array(numbers))


def copies(settings: Perturb, rows: Split, row: int, number: int, seed: int = 0) -> tuple[list[str], Counter[str]]:
    """Return copies of a row of single texts, and what was counted."""
    counts: Counter[str] = Counter()
    maker = Perturber(settings, rows, "[MASK]", lexicon(rows) if settings.replace_rate else None)
    made = [texts[0] for texts in maker.copies(row, number, np.random.default_rng(seed), counts)]
    return made, counts


def test_rates_of_zero_change_nothing() -> None:
    made, counts = copies(off(), Split(TEXTS), 0, 5)
    assert made == [TEXTS[0]] * 5
    assert not any(counts[name] for name in ("masked", "replaced", "ngrams"))


def test_a_masking_rate_of_one_masks_every_word_and_keeps_the_spaces() -> None:
    rows = Split(("It's good, really  good!",))
    assert copies(off(mask_rate=1.0), rows, 0, 1)[0] == ["[MASK] [MASK][MASK] [MASK]  [MASK][MASK]"]


def test_a_replacement_has_the_tag_of_the_word_it_replaces() -> None:
    rows = Split(TEXTS)
    known = lexicon(rows)
    of: dict[str, set[str]] = {}  # every tag that a word has in these texts
    for text, found in zip(TEXTS, tags("english", TEXTS), strict=True):
        for word, tag in zip(cut(text).words, found, strict=True):
            of.setdefault(word, set()).add(tag)
    changed = 0
    for row in range(10):
        original = cut(TEXTS[row]).words
        made, counts = copies(off(replace_rate=1.0), rows, row, 6, seed=row)
        assert counts["replaced"] == counts["words"] == 6 * len(original)
        for text in made:
            new = cut(text).words
            assert len(new) == len(original)
            for place, word in enumerate(new):
                assert known.names[known.tags(row)[place]] in of[word]
                changed += word != original[place]
    assert changed > 50


def test_replacements_are_drawn_from_the_unigrams_of_their_tag() -> None:
    rows = Split(("the film", "the plot", "the plot", "the plot", "a plot"))
    known = lexicon(rows)
    (noun,) = {int(known.tags(text)[1]) for text in range(5)}
    generator = np.random.default_rng(0)
    drawn = Counter(known.draw(noun, generator) for _ in range(4000))
    assert set(drawn) == {"film", "plot"}
    assert drawn["plot"] / 4000 == pytest.approx(0.8, abs=0.03)
    article = int(known.tags(0)[0])
    assert Counter(known.draw(article, generator) for _ in range(4000))["a"] / 4000 == pytest.approx(0.2, abs=0.03)


def test_an_ngram_is_a_part_of_the_text_of_one_to_five_words() -> None:
    text = "the film, so very dull and poor, was a great scene with music"
    lengths: Counter[int] = Counter()
    made, counts = copies(off(ngram_rate=1.0), Split((text,)), 0, 3000)
    assert counts["ngrams"] == 3000
    for part in made:
        assert part in text
        lengths[len(cut(part).words)] += 1
    assert set(lengths) == {1, 2, 3, 4, 5}
    assert all(count / 3000 == pytest.approx(0.2, abs=0.04) for count in lengths.values())
    short, _ = copies(off(ngram_rate=1.0), Split(("so dull",)), 0, 40)
    assert set(short) == {"so", "dull", "so dull"}


def test_every_ngram_of_a_length_is_as_likely() -> None:
    made, _ = copies(off(ngram_rate=1.0), Split(("a b c d e f g h",)), 0, 8000)
    single = Counter(part for part in made if len(part) == 1)
    assert all(count / sum(single.values()) == pytest.approx(1 / 8, abs=0.04) for count in single.values())
    assert len(single) == 8


def test_operations_come_as_often_as_their_rates_say() -> None:
    rows = Split(TEXTS)
    counts: Counter[str] = Counter()
    maker = Perturber(Perturb(), rows, "[MASK]", lexicon(rows))
    for row in range(len(rows)):
        list(maker.copies(row, 20, np.random.default_rng([1, row]), counts))
    assert counts["words"] > 8000
    assert counts["masked"] / counts["words"] == pytest.approx(0.1, abs=0.015)
    assert counts["replaced"] / counts["words"] == pytest.approx(0.1, abs=0.015)
    assert counts["ngrams"] / (20 * len(rows)) == pytest.approx(0.25, abs=0.05)


def test_it_is_what_a_loop_over_words_gives_with_the_same_chances() -> None:
    """Section 3.3 written out: one chance a word decides between masking, replacement and neither."""
    text, settings = cut(TEXTS[3]), Perturb(mask_rate=0.3, replace_rate=0.3, ngram_rate=0.0)
    chances = np.random.default_rng(5).random(len(text.words))
    expected = []
    for word, chance in zip(text.words, chances, strict=True):
        if chance < 0.3:
            expected.append("[MASK]")
        elif 0.3 <= chance < 0.6:
            expected.append(f"<{word}>")
        else:
            expected.append(word)
    assert 0 < expected.count("[MASK]") < len(expected)
    made = perturbed(
        text, settings, "[MASK]", lambda place: f"<{text.words[place]}>", np.random.default_rng(5), Counter()
    )
    assert made == joined(expected, text.gaps)


def test_of_a_pair_the_first_the_second_and_both_are_changed_in_turn() -> None:
    rows = Split(("the film", "a plot"), ("so dull", "very good"))
    maker = Perturber(off(mask_rate=1.0), rows, "M", None)
    made = list(maker.copies(1, 6, np.random.default_rng(0), Counter()))
    assert made == 2 * [("M M", "very good"), ("a plot", "M M"), ("M M", "M M")]


def test_second_texts_have_tags_of_their_own() -> None:
    rows = Split(("the film is bad", "dull"), ("music", "they were very poor"))
    known = lexicon(rows)
    assert [known.names[tag] for tag in known.tags(3)] == next(tags("english", ["they were very poor"]))


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        (Perturb(mask_rate=1.1), "mask_rate"),
        (Perturb(replace_rate=-0.1), "replace_rate"),
        (Perturb(ngram_rate=float("nan")), "ngram_rate"),
        (Perturb(mask_rate=0.6, replace_rate=0.5), "replace_rate"),
        (off(), "mask_rate"),
        (Perturb(longest_ngram=0), "longest_ngram"),
        (Perturb(copies=0), "copies"),
        (Perturb(rows=0), "rows"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: Perturb, setting: str) -> None:
    assert setting in [fault.setting for fault in settings.faults()]
    assert not list(Perturb().faults())
