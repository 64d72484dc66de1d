from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compress.data import Files, Hub
from compress.data.conll import read_conll
from compress.data.dataset import Dataset
from compress.data.files import Format
from compress.data.labels import Broken, refuse_unseen
from compress.errors import DataError
from compress.run.handed_over import settled
from compress.run.recipe import Recipe
from compress.tasks.functions import UNLABELLED
from compress.tasks.tags import Tags

KNOWN = [("Ada met Bo", "B-per O B-per"), ("in New York", "O B-loc I-loc"), ("rain", "O")]
ROWS = [(f"{text} {number}", f"{tags} O") for number in range(8) for text, tags in KNOWN]


def load(tmp_path: Path, name: str, content: str, task: str = "auto", **settings: Any) -> Dataset:
    (tmp_path / name).write_text(content)
    return Files(train=str(tmp_path / name), **settings).load(task, 1)


def rows_of(data: Dataset) -> set[tuple[str, str]]:
    """Return all rows as texts and tags."""
    splits = (data.train, data.validation, data.test)
    return {
        (text, data.task.shown_label(label))
        for split in splits
        for text, label in zip(split.texts, split.known_labels, strict=True)
    }


def columns(rows: list[tuple[str, str]], line: str = "{word}\t{tag}\n") -> str:
    sentences = [zip(text.split(), tags.split(), strict=True) for text, tags in rows]
    return "\n".join("".join(line.format(word=word, tag=tag) for word, tag in pairs) for pairs in sentences)


def lines(records: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def spans_of(text: str, tags: str) -> list[dict[str, Any]]:
    """Return spans of the names in the rows above."""
    names = [("Ada", "per"), ("Bo", "per"), ("New York", "loc")]
    return [
        {"start": text.index(name), "end": text.index(name) + len(name), "label": kind}
        for name, kind in names
        if name in text
    ]


KINDS = {
    "conll with tabs": ("a.conll", "-DOCSTART-\tO\n\n" + columns(ROWS)),
    "conll with spaces and four columns": ("a.bio", "# a comment\n" + columns(ROWS, "{word} NN x {tag}\n")),
    "lists": ("a.jsonl", lines([{"tokens": text.split(), "ner_tags": tags.split()} for text, tags in ROWS])),
    "a table": ("a.tsv", "tags\ttokens\n" + "".join(f"{tags}\t{text}\n" for text, tags in ROWS)),
    "a table without names": ("a.tsv", "".join(f"{tags}\t{text}\n" for text, tags in ROWS)),
    "spans": ("a.jsonl", lines([{"text": text, "spans": spans_of(text, tags)} for text, tags in ROWS])),
    "lists of spans": (
        "a.jsonl",
        lines([{"text": t, "entities": [list(span.values()) for span in spans_of(t, tags)]} for t, tags in ROWS]),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_to_write_tags_is_read_alike(tmp_path: Path, kind: str) -> None:
    data = load(tmp_path, *KINDS[kind])
    assert data.task == Tags(("O", "B-loc", "I-loc", "B-per"))
    assert rows_of(data) == set(ROWS)
    assert data.train.by_token is Tags


def test_columns_of_conll_are_chosen_by_number(tmp_path: Path) -> None:
    content = columns(ROWS, "7 {word} {tag} x\n")
    data = load(tmp_path, "a.txt", content, text="2", label="-2", format=Format.conll)
    assert rows_of(data) == set(ROWS)


def test_conll_u_gives_parts_of_speech(tmp_path: Path) -> None:
    row = "{number}\t{word}\t_\t{tag}" + "\t_" * 6 + "\n"
    words = [("1-2", "don't", "_"), ("1", "do", "AUX"), ("2", "n't", "PART"), ("3", "go", "VERB")]
    body = "".join(row.format(number=number, word=word, tag=tag) for number, word, tag in words)
    (tmp_path / "a.conllu").write_text(f"# sent_id = 1\n# text = don't go\n{body}\n")
    (record,) = read_conll(tmp_path / "a.conllu")
    assert record == (4, {"tokens": ["do", "n't", "go"], "tags": ["AUX", "PART", "VERB"]})


def test_numbers_of_tags_take_their_names_from_a_setting_or_from_parquet(tmp_path: Path) -> None:
    names = ["O", "B-per", "B-loc", "I-loc"]
    records = [{"tokens": text.split(), "tags": [names.index(tag) for tag in tags.split()]} for text, tags in ROWS]
    assert rows_of(load(tmp_path, "a.jsonl", lines(records), label_names=names)) == set(ROWS)
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: the tag of word 1 \('Ada'\) is the number 1, and its name"):
        load(tmp_path, "a.jsonl", lines(records))
    with pytest.raises(DataError, match=r"the label 3 is none of the 3 classes that data\.label_names has"):
        load(tmp_path, "a.jsonl", lines(records), label_names=names[:3])
    for feature in ({"_type": "List", "feature": {"_type": "ClassLabel", "names": names}}, [
        {"_type": "ClassLabel", "names": names}
    ]):  # fmt: skip
        info = json.dumps({"info": {"features": {"tags": feature, "tokens": {"_type": "List"}}}})
        table = pa.Table.from_pylist(records).replace_schema_metadata({"huggingface": info})
        pq.write_table(table, tmp_path / "a.parquet")
        assert rows_of(Files(train=str(tmp_path / "a.parquet")).load("auto", 1)) == set(ROWS)


def test_spans_that_end_inside_a_word_hold_the_whole_of_it(tmp_path: Path) -> None:
    records = [{"text": "we saw Vienna.", "spans": [{"start": 7, "end": 12, "label": "loc"}]}] * 9
    records += [{"text": f"no {index}", "spans": []} for index in range(9)]
    data = load(tmp_path, "a.jsonl", lines(records))
    assert ("we saw Vienna .", "O O B-loc O") in rows_of(data)
    assert any("9 spans" in note and "inside a word" in note for note in data.notes)


def test_unlabelled_texts_are_divided_as_people_write_and_lists_are_not(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("Rain, again.\n")
    data = load(tmp_path, "a.conll", columns(ROWS), unlabelled=str(tmp_path / "more.txt"))
    assert data.unlabelled is not None
    assert list(data.unlabelled.texts) == ["Rain , again ."]
    (tmp_path / "more.jsonl").write_text('{"tokens": ["Rain,", "again"]}\n')
    data = load(tmp_path, "a.conll", columns(ROWS), unlabelled=str(tmp_path / "more.jsonl"))
    assert data.unlabelled is not None
    assert list(data.unlabelled.texts) == ["Rain, again"]
    assert (data.transfer.known_labels[-1] == UNLABELLED).all()


BROKEN = columns([*ROWS, ("to Rome", "O I-loc")])


def test_broken_tags_are_reported_repaired_or_refused(tmp_path: Path) -> None:
    data = load(tmp_path, "a.conll", BROKEN)
    assert ("to Rome", "O I-loc") in rows_of(data)
    place = f"{tmp_path / 'a.conll'}, line {BROKEN[: BROKEN.index('to')].count(chr(10)) + 1}"
    assert any("1 row of 25" in note and place in note and "broken_labels=repair" in note for note in data.notes)
    assert ("to Rome", "O B-loc") in rows_of(load(tmp_path, "a.conll", BROKEN, broken_labels=Broken.repair))
    with pytest.raises(DataError, match=r"line \d+: .* follow the scheme.*; got 'O I-loc'") as caught:
        load(tmp_path, "a.conll", BROKEN, broken_labels=Broken.refuse)
    assert place in str(caught.value)


BAD: dict[str, tuple[str, str, dict[str, Any], list[str]]] = {
    "another number of tags": (
        "a.tsv",
        "".join(f"{tags}\t{text}\n" for text, tags in ROWS) + "O O\tone\n",
        {},
        ["line 25: 1 word, but 2 tags", "Give each word one tag"],
    ),
    "another number of tags in lists": (
        "a.jsonl",
        lines([{"tokens": ["a", "b"], "tags": ["O"]}, {"tokens": ["a"], "tags": ["B-x"]}]),
        {},
        ["line 1: 2 words, but 1 tag, ", "Give each word one"],
    ),
    "another number of columns": ("a.conll", "a O\nb\n\n", {}, ["line 2: 1 column divided by white space"]),
    "an empty tag": ("a.conll", "a\tO\nb\t\n\n", {}, ["line 2: the tag is empty"]),
    "a column that is not there": (
        "a.conll", "a O\n", {"label": "3"}, ["data.label=3 is not one of its 2 columns"],
    ),
    "a column by name": ("a.conll", "a O\n", {"label": "ner"}, ["data.label=ner is not one of its 2 columns"]),
    "one column": ("a.conll", "a\nb\n", {}, ["both read from column 1 of 1"]),
    "columns in a table": (
        "a.tsv", columns(ROWS), {}, ["words in columns, as CoNLL has them?", "data.format=conll"],
    ),
    "two kinds of tags": (
        "a.jsonl", lines([{"tokens": ["a"], "pos_tags": ["X"], "ner_tags": ["O"]}]), {},
        ["which column holds the tags, 'pos_tags' or 'ner_tags'?", "data.label=ner_tags"],
    ),
    "a tag that is missing": ("a.jsonl", lines([{"tokens": ["a"], "tags": [None]}]), {}, ["word 1 ('a') has no tag"]),
    "white space in a tag": (
        "a.jsonl", lines([{"tokens": ["a"], "tags": ["B-x y"]}]), {}, ["'B-x y' of word 1 ('a') has white space"],
    ),
    "an empty word": ("a.jsonl", lines([{"tokens": ["a", " "], "tags": ["O", "O"]}]), {}, ["word 2 is empty"]),
    "a span beyond the text": (
        "a.jsonl", lines([{"text": "ab", "spans": [{"start": 0, "end": 3, "label": "x"}]}]), {},
        ["line 1: span 1 must have a start below its end, both within the 2 characters"],
    ),
    "spans that overlap": (
        "a.jsonl", lines([{"text": "ab cd", "spans": [[0, 5, "x"], [3, 5, "y"]]}]), {},
        ["the span 'cd' shares a word with the one before it"],
    ),
    "names of columns": (
        "a.conll", "word\tner\n" + columns(ROWS), {}, ["line 1: 'word' and 'ner' are names of columns"],
    ),
    "other names of columns": (
        "a.conll", "Mot\tétiquette\n" + columns(ROWS), {},
        ["line 1: the tag 'étiquette' (1 word of 81) is neither O nor one as B-person"],
    ),
    "a tag of no scheme": (
        "a.conll", columns([*ROWS, ("Cy", "X-per")]), {}, ["line 105: the tag 'X-per' (1 word of 81) is neither O"],
    ),
    "tags in small letters": (
        "a.conll", columns([(text, tags.lower()) for text, tags in ROWS]), {},
        ["('b-loc', 'b-per', 'i-loc') mark spans in small letters"],
    ),
    "a text among lists of words": (
        "a.jsonl", lines([{"tokens": "a b", "tags": ["O", "O"]}, {"tokens": ["a"], "tags": ["B-x"]}]), {},
        ["line 1: a text with a list, where others have lists of words"],
    ),
    "columns of zeros and ones": (
        "a.conll", columns(ROWS), {"label_columns": ["a", "b"]}, ["Leave out data.label_columns"],
    ),
    "another task": ("a.conll", columns(ROWS), {"task": "classification"}, ["its rows are written for task=tags"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_tags_are_refused_in_one_message(tmp_path: Path, case: str) -> None:
    name, content, settings, fragments = BAD[case]
    settings = dict(settings)
    with pytest.raises(DataError) as caught:
        load(tmp_path, name, content, settings.pop("task", "auto"), **settings)
    for fragment in (str(tmp_path), *fragments):
        assert fragment in str(caught.value)


def test_an_unknown_tag_is_refused_with_its_place_but_another_part_of_a_known_type_is_not(tmp_path: Path) -> None:
    (tmp_path / "dev.conll").write_text("a B-org\n\nb I-per\n")
    data = load(tmp_path, "a.conll", columns(ROWS, "{word} {tag}\n"), validation=str(tmp_path / "dev.conll"))
    assert set(data.unseen) == {"B-org", "I-per"}
    with pytest.raises(DataError, match=r"dev\.conll, line 1: the label 'B-org' does not occur in the training rows"):
        refuse_unseen(data)
    (tmp_path / "dev.conll").write_text("b I-per\n")
    refuse_unseen(load(tmp_path, "a.conll", columns(ROWS, "{word} {tag}\n"), validation=str(tmp_path / "dev.conll")))


def test_lists_of_a_hub_folder_and_of_python_are_read_alike(tmp_path: Path) -> None:
    names = ["O", "B-per", "B-loc", "I-loc"]
    records = [{"tokens": text.split(), "ner_tags": [names.index(tag) for tag in tags.split()]} for text, tags in ROWS]
    kinds = datasets.Features(
        tokens=datasets.List(datasets.Value("string")), ner_tags=datasets.List(datasets.ClassLabel(names=names))
    )
    table = datasets.Dataset.from_list(records, features=kinds)
    (tmp_path / "set").mkdir()
    table.to_parquet(tmp_path / "set" / "train.parquet")
    assert rows_of(Hub(path=str(tmp_path / "set")).load("auto", 1)) == set(ROWS)
    for given in (table, [(text.split(), tags.split()) for text, tags in ROWS]):
        recipe = settled(Recipe(data=given, cache=str(tmp_path / "cache")))  # type: ignore[arg-type]
        assert rows_of(recipe.data.load("auto", 1)) == set(ROWS)


def test_rare_tags_of_no_scheme_are_classes_where_many_words_have_them(tmp_path: Path) -> None:
    data = load(tmp_path, "a.conll", columns([*ROWS, *[(f"x{n} y", "NOUN VERB") for n in range(8)]]))
    assert isinstance(data.task, Tags)
    assert data.task.is_raw


def test_names_of_numbers_stand_once() -> None:
    (fault,) = (fault for fault in Files(train="a.jsonl", label_names=["O", "O"]).faults() if "twice" in fault.rule)
    assert fault.setting == "label_names"
