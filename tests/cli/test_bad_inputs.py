"""What a user may get wrong, through the front door: one clear message, exit code 2, nothing started."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from compress.cli.main import main
from tests.conftest import reviews, save_tiny, write_tsv

Break = Callable[[Path], object]


def nothing(_: Path) -> None:
    """Break nothing: the words are wrong."""


def line(name: str, number: int, text: str) -> Break:
    """Replace a line, counted from 1, of a file."""

    def change(folder: Path) -> None:
        lines = (folder / name).read_text().splitlines()
        lines[number - 1] = text
        (folder / name).write_text("\n".join(lines) + "\n")

    return change


def whole(name: str, content: str | bytes) -> Break:
    """Replace a whole file."""
    raw = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(raw)


def without(name: str) -> Break:
    """Delete a file of the teacher's folder."""
    return lambda folder: (folder / "teacher" / name).unlink()


def pickled(folder: Path) -> None:
    """Leave only pickled weights in the teacher's folder."""
    (folder / "teacher" / "model.safetensors").unlink()
    torch.save({}, folder / "teacher" / "pytorch_model.bin")


def config(**changes: object) -> Break:
    """Change the teacher's configuration."""

    def change(folder: Path) -> None:
        path = folder / "teacher" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def no_tokenizer(folder: Path) -> None:
    """Take the tokenizer away."""
    for path in (folder / "teacher").glob("tokenizer*"):
        path.unlink()


CASES: list[tuple[str, Break, list[str], list[str]]] = [
    # recipe words
    ("unknown recipe", nothing, ["recipe=quickstrat"], ["quickstrat", "quickstart"]),
    ("unknown option", nothing, ["data=flies"], ["data", "flies", "files"]),
    ("unknown stage", nothing, ["prune=[haeds]"], ["haeds", "heads"]),
    ("misspelt key", nothing, ["teacher.epocs=1"], ["teacher.epocs", "teacher.epochs"]),
    ("added key", nothing, ["+teacher.epocs=1"], ["teacher.epocs"]),
    ("misspelt top key", nothing, ["sed=1"], ["sed", "seed"]),
    ("setting of an absent stage", nothing, ["prune=[]", "prune.heads.ratio=0.3"], ["prune.heads"]),
    ("not a number", nothing, ["prune.heads.ratio=abc"], ["prune.heads.ratio", "abc"]),
    ("not a whole number", nothing, ["student.layers=1.5"], ["student.layers", "1.5"]),
    ("unknown member", nothing, ["task=clasification"], ["task", "clasification", "classification"]),
    ("half a list", nothing, ["prune=[heads"], ["prune", "[heads", "Close every bracket"]),
    ("no key", nothing, ["=5"], ["=5"]),
    ("no value", nothing, ["seed"], ["seed"]),
    # ranges
    ("ratio too high", nothing, ["prune.heads.ratio=1"], ["prune.heads.ratio = 1.0: must lie in [0, 1)"]),
    ("negative ratio", nothing, ["prune.heads.ratio=-0.1"], ["prune.heads.ratio = -0.1"]),
    ("no epochs", nothing, ["distill.epochs=0"], ["distill.epochs = 0: leaves the student untrained. Choose"]),
    ("nan", nothing, ["distill.learning_rate=nan"], ["distill.learning_rate = nan"]),
    ("cold", nothing, ["distill.losses.soft.temperature=0"], ["distill.losses.soft.temperature = 0.0"]),
    ("negative weight", nothing, ["distill.losses.soft.weight=-1"], ["distill.losses.soft.weight = -1.0"]),
    ("end without schedule", nothing, ["distill.losses.soft.weight_end=0"], ["weight_schedule=linear"]),
    ("schedule without end", nothing, ["distill.losses.soft.weight_schedule=linear"], ["needs weight_end"]),
    ("no losses", nothing, ["distill/losses=[]"], ["distill.losses", "at least one loss"]),
    ("negative seed", nothing, ["seed=-1"], ["seed = -1"]),
    ("name with slash", nothing, ["name=a/b"], ["name = 'a/b'", "plain name"]),
    ("no threads", nothing, ["benchmark.threads=0"], ["benchmark.threads = 0: must be at least 1"]),
    ("empty batch", nothing, ["benchmark.batches=[0]"], ["benchmark.batches = [0]"]),
    # what does not fit the teacher
    ("too many layers", nothing, ["student.layers=9"], ["student.layers = 9: must be at most the teacher's 4"]),
    ("layer not there", nothing, ["student.layer_map=[1,7]"], ["student.layer_map", "each from 1 to 4"]),
    ("unknown map", nothing, ["student.layer_map=unifrom"], ["unifrom", "Did you mean uniform?"]),
    ("width against heads", nothing, ["student.hidden_size=10"], ["student.hidden_size = 10", "the 4 heads"]),
    ("heads against attention", nothing, ["student.heads=2"], ["distill.losses.attention", "student 2, teacher 4"]),
    ("rows too long", nothing, ["teacher.max_tokens=999"], ["teacher.max_tokens = 999", "at most 64 tokens"]),
    ("grid too long", nothing, ["benchmark.tokens=[8,65]"], ["benchmark.tokens = [8, 65]", "the 64 tokens"]),
    ("misspelt start", nothing, ["student.start=techer"], ["student.start = 'techer'", "Did you mean teacher?"]),
    ("start not there", nothing, ["student.start=./earlier"], ["student.start = './earlier'", "no such folder"]),
    ("layers in words", nothing, ["student.layers=most"], ["student.layers = 'most'", "a whole number, or all"]),
    ("freezing what is not there", nothing, ["distill.freeze=[bert.layer.*]"], ["distill.freeze = 'bert.layer.*'"]),
    ("modules of odd sizes", nothing, ["prepare=[theseus]", "student.layers=3"], ["divide the teacher's 4; it has 3"]),
    ("falling rate", nothing, ["prepare=[theseus]", "prepare.theseus.rate_end=0.1"], ["prepare.theseus.rate_end"]),
    # data files
    ("no such file", nothing, ["data.train=trian.tsv"], ["trian.tsv", "train.tsv"]),
    ("no file", nothing, ["data.train="], ["data.train"]),
    ("other format", whole("train.xls", "x"), ["data.train=train.xls"], ["train.xls", ".tsv"]),
    ("no rows", whole("train.tsv", ""), [], ["train.tsv", "no rows"]),
    ("one field", line("train.tsv", 5, "good"), [], ["train.tsv, line 5", "expected 2 fields"]),
    ("empty text", line("train.tsv", 7, "good\t "), [], ["train.tsv, line 7", "text", "empty"]),
    ("empty label", line("train.tsv", 3, "\tthe film"), [], ["train.tsv, line 3", "label", "empty"]),
    ("unknown test label", line("test.tsv", 4, "ugly\tthe film"), [], ["test.tsv, line 4", "ugly", "bad, good"]),
    ("not UTF-8", whole("train.tsv", b"good\tfine\nbad\tcaf\xe9\n"), [], ["train.tsv, line 2", "UTF-8"]),
    ("one class", whole("train.tsv", "good\ta film\n" * 9), [], ["train.tsv", "good"]),
    ("one row", nothing, ["data.train_rows=1"], ["data.train_rows", "one class"]),
    ("missing column", nothing, ["data.text=txt"], ["txt"]),
    ("unknown metric", nothing, ["task.metric=f2"], ["task.metric = 'f2': is not a metric of the task classification"]),
    ("metric of no class", nothing, ["task.metric=f1:god"], ["Did you mean f1:good?"]),
    ("weight of no class", nothing, ["task.class_weights={ugly: 2}"], ["no class of the data: 'ugly'"]),
    ("weight of nothing", nothing, ["task.class_weights={bad: 0}"], ["task.class_weights.bad = '0': must be a finite"]),
    ("weights in a word", nothing, ["task.class_weights=balance"], ["must be balanced or numbers"]),
    ("words as scores", nothing, ["task=regression"], ["train.tsv", "number"]),
    # model folders
    ("no folder", nothing, ["teacher.model=./techer"], ["teacher.model = './techer'", "there is no such folder"]),
    ("no config", without("config.json"), [], ["teacher", "config.json"]),
    ("no weights", without("model.safetensors"), [], ["teacher", "no weights"]),
    ("pickle only", pickled, [], ["only pickled weights", "save_pretrained"]),
    ("no tokenizer", no_tokenizer, [], ["teacher", "tokenizer"]),
    ("broken config", whole("teacher/config.json", "{"), [], ["teacher", "cannot be loaded"]),
    ("broken weights", whole("teacher/model.safetensors", b"x" * 50), [], ["teacher", "cannot be loaded"]),
    ("unknown family", config(model_type="mamba"), [], ["mamba", "bert"]),
    ("never fine-tuned", nothing, ["teacher.fine_tune=never"], ["teacher.fine_tune = never", "no classification head"]),
    # places
    ("output is a file", whole("taken", "x"), ["output=taken/run"], ["output", "taken"]),
    ("cache is a file", whole("taken", "x"), ["cache=taken"], ["cache", "taken"]),
]  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which everything is right."""
    folder = tmp_path_factory.mktemp("good")
    for name, rows, seed in (("train", 60, 1), ("validation", 20, 2), ("test", 20, 3)):
        write_tsv(folder / f"{name}.tsv", reviews(rows, seed))
    save_tiny(folder / "teacher")
    return folder


WORDS = [
    "recipe=quickstart", "data=files", "data.train=train.tsv", "data.validation=validation.tsv", "data.test=test.tsv",
    "data.train_rows=null", "data.validation_rows=null", "data.test_rows=null",
    "teacher.model=./teacher", "teacher.max_tokens=32", "student.layers=2", "benchmark.tokens=[8]",
]  # fmt: skip


def merged(words: list[str]) -> list[str]:
    """Return `WORDS` with those of the same setting replaced."""
    taken = {word.partition("=")[0] for word in words}
    return [word for word in WORDS if word.partition("=")[0] not in taken] + words


def test_what_is_right_is_accepted(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(good)
    assert main(["run", "--cfg", *WORDS]) == 0


@pytest.mark.parametrize(
    ("damage", "words", "fragments"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_it_is_refused_in_plain_words_before_any_work(
    damage: Break,
    words: list[str],
    fragments: list[str],
    good: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    damage(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["run", *merged(words)]) == 2
    printed = capsys.readouterr().err
    for fragment in fragments:
        assert fragment in printed.replace("\n", " ")
    assert "Traceback" not in printed
    assert not (tmp_path / "runs").exists()


def test_the_table_is_as_long_as_promised() -> None:
    assert len({case[0] for case in CASES}) == len(CASES) >= 40


def test_a_model_folder_for_another_program_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert main(["predict", str(tmp_path), "a film"]) == 2
    assert "config.json" in capsys.readouterr().err
