"""Whatever is wrong with the files of a model's folder: it loads, or one sentence says what and where."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compress.errors import ModelError
from compress.models.loading import load_config, load_model, load_tokenizer
from compress.models.positions import longest_row
from tests.conftest import save_tiny

JSON = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
WRONG: tuple[Any, ...] = (None, [], {}, "", "text", True, 0, -1, -(10**9), 10**9, 10**18, 0.5, [1, "a"], {"a": 1})
FEW = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MANY = settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def valid() -> Iterator[Path]:
    """A folder that loads, made once."""
    with tempfile.TemporaryDirectory() as place:
        folder = save_tiny(Path(place) / "valid", num_labels=2)
        (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": "[PAD]", "unk_token": "[UNK]"}))
        yield folder


def outcome(valid: Path, file: str, change: Callable[[bytes], bytes]) -> str:
    """Return what a copy with one changed file is refused with; empty where all of it loads and runs.

    Anything but a ModelError of one line is an error of the test.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        shutil.copytree(valid, folder)
        path = folder / file
        path.write_bytes(change(path.read_bytes()))
        refusal = None
        try:
            longest_row(load_config(folder))
            load_model(folder)
            load_tokenizer(folder)
        except ModelError as error:
            refusal = str(error)
    assert refusal != ""
    assert "\n" not in (refusal or "")
    return refusal or ""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a JSON document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from places(part, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


def check_wrong_value(valid: Path, data: st.DataObject, file: str) -> None:
    document = json.loads((valid / file).read_text())
    path = data.draw(st.sampled_from(list(places(document))), label="where")
    wrong = data.draw(st.sampled_from(WRONG), label="value")
    message = outcome(valid, file, lambda _: json.dumps(replaced(document, path, wrong)).encode())
    if not path and not isinstance(wrong, dict):
        assert f"{file}: must hold a JSON object" in message


def check_cut_short(valid: Path, data: st.DataObject, file: str) -> None:
    size = (valid / file).stat().st_size
    length = data.draw(st.integers(0, size - 3), label="bytes left")  # a last line break may be missing
    assert f"{file}: " in outcome(valid, file, lambda content: content[:length])


def check_flipped(valid: Path, data: st.DataObject, file: str) -> None:
    size = (valid / file).stat().st_size
    places = data.draw(st.lists(st.integers(0, min(size, 4000) - 1), min_size=1, max_size=4), label="where")
    bits = data.draw(st.integers(1, 255), label="bits")

    def flip(content: bytes) -> bytes:
        changed = bytearray(content)
        for place in places:
            changed[place] ^= bits
        return bytes(changed)

    outcome(valid, file, flip)


CHECKS = [
    *((check_wrong_value, file) for file in JSON),
    *((check_cut_short, file) for file in FILES),
    *((check_flipped, file) for file in FILES),
]
IDS = [f"{check.__name__.removeprefix('check_')}-{file}" for check, file in CHECKS]


def test_the_folder_that_is_changed_is_valid(valid: Path) -> None:
    for file in JSON:
        assert outcome(valid, file, lambda content: content) == ""


@pytest.mark.parametrize(("check", "file"), CHECKS, ids=IDS)
def test_a_broken_file_is_refused_in_one_sentence(valid: Path, check: Callable[..., None], file: str) -> None:
    FEW(given(st.data())(lambda data: check(valid, data, file)))()


@pytest.mark.slow
@pytest.mark.parametrize(("check", "file"), CHECKS, ids=IDS)
def test_a_file_broken_in_any_way_is_refused_in_one_sentence(
    valid: Path, check: Callable[..., None], file: str
) -> None:
    MANY(given(st.data())(lambda data: check(valid, data, file)))()


@pytest.mark.parametrize("file", [*JSON, "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"null", b"[]", b'"text"', b"7", b"{", b"\xff\xfe\x00", b"NaN"])
def test_a_file_of_another_kind_is_named(valid: Path, file: str, content: bytes) -> None:
    assert f"{file}: " in outcome(valid, file, lambda _: content)


@pytest.mark.parametrize("kind", ["single", "pair"])
def test_a_template_with_a_token_that_it_does_not_define_is_named(valid: Path, kind: str) -> None:
    document = json.loads((valid / "tokenizer.json").read_text())
    document["post_processor"][kind][0]["SpecialToken"]["id"] = "[START]"
    message = outcome(valid, "tokenizer.json", lambda _: json.dumps(document).encode())
    assert "tokenizer.json: post_processor adds '[START]'" in message


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe\x00"])
def test_a_vocabulary_that_is_empty_or_no_text_is_named(valid: Path, tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "model"
    shutil.copytree(valid, folder)
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_bytes(content)
    with pytest.raises(ModelError, match=r"vocab\.txt: "):
        load_tokenizer(folder)
