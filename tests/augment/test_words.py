"""Texts are cut into words and joined again without loss."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.augment.words import cut, is_word, joined, kind, written_as


@given(st.text())
def test_a_text_comes_back_as_it_was(text: str) -> None:
    words, gaps, starts = cut(text)
    assert joined(words, gaps) == text.strip()
    assert all(text[start : start + len(word)] == word for word, start in zip(words, starts, strict=True))
    assert all(word and not any(character.isspace() for character in word) for word in words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a gorgeous , witty movie", ["a", "gorgeous", ",", "witty", "movie"]),
        ("it does n't matter , it 's fine", ["it", "does", "n't", "matter", ",", "it", "'s", "fine"]),
        ("I don't know (really)!!!", ["I", "don't", "know", "(", "really", ")!!!"]),
        ("@united: thanks, #fail http://t.co/x1?", ["@united", ":", "thanks", ",", "#fail", "http://t.co/x1", "?"]),
        ("'quoted' state-of-the-art 3.5%", ["'", "quoted", "'", "state-of-the-art", "3.5", "%"]),
        ("हिन्दी भाषा।", ["हिन्दी", "भाषा", "।"]),
        ("😀 ❤️ ok", ["😀", "❤️", "ok"]),
        ("", []),
    ],
)
def test_punctuation_is_a_word_of_its_own_and_tokenised_texts_stay_so(text: str, words: list[str]) -> None:
    assert cut(text).words == words


def test_handles_hashtags_and_links_are_told_from_words() -> None:
    assert [kind(word) for word in ("@united", "#fail", "https://x.y", "www.x.y", "@", "united")] == [
        "handle", "hashtag", "link", "link", "", "",
    ]  # fmt: skip
    assert [is_word(word) for word in ("good", "3", "n't", "!!", "@x", "😀")] == [True, True, True, False, False, False]


def test_a_replacement_is_written_as_what_it_replaces() -> None:
    assert [written_as("good", like=word) for word in ("bad", "Bad", "BAD", "I")] == ["good", "Good", "GOOD", "Good"]
