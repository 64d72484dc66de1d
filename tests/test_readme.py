"""README.md and docs/: the commands run, links lead somewhere, and what they name exists."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tomllib
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForTokenClassification,
    BertConfig,
    BertForSequenceClassification,
)

from compress.cli.help import choices_and_settings
from compress.cli.main import main
from compress.models.loading import save_model
from compress.registry import GROUPS
from compress.tasks.ranking import Ranking
from compress.tasks.spans import AnswerSpans
from tests.conftest import CONFIGS, VOCABULARY, reviews, tiny_model, tiny_tokenizer, write_tsv
from tests.teachers.serving import serving

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))
DOCUMENTS = (*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md", ROOT / "examples/serve/README.md")
QUICK = (
    "distill.epochs=1", "benchmark.rows=5", "benchmark.batches=[1]", "benchmark.tokens=[8]",
    "benchmark.seconds=0.1", "benchmark.tfidf=false", "benchmark.labels_only=false", "benchmark.teacher_int8=false",
)  # fmt: skip


def fenced(page: Path, language: str = "") -> list[str]:
    """Return the blocks of a page that are marked as one language."""
    return [
        text for mark, text in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.M | re.S) if mark == language
    ]


def commands(page: Path, command: str) -> list[str]:
    """Return the lines of a page's blocks that call a command, without their comments."""
    lines = (line for block in fenced(page) for line in block.replace("\\\n", " ").splitlines())
    return [line.split("  #")[0].strip() for line in lines if line.split(" ")[0] == command]


def cases(command: str) -> list[object]:
    """Return each page's calls of a command once, named after page and call."""
    calls = dict.fromkeys((page, line) for page in PAGES for line in commands(page, command))
    return [pytest.param(line, id=f"{page.stem}: {line}") for page, line in calls]


def save_classifier(folder: Path) -> None:
    """Save a tiny BERT with as many positions as the default settings ask for."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=16, num_hidden_layers=4, num_attention_heads=4, intermediate_size=32,
        max_position_embeddings=128, id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1},
    )  # fmt: skip
    folder.mkdir()
    save_model(BertForSequenceClassification(config).eval(), tiny_tokenizer(max_tokens=128), folder)


def save_reader(folder: Path) -> None:
    """Save a tiny model that answers questions, which stands for a run that recommends it."""
    settings = CONFIGS["bert"](**AnswerSpans().head_config())
    folder.mkdir(parents=True)
    save_model(AutoModelForQuestionAnswering.from_config(settings).eval(), tiny_tokenizer(), folder)


def save_tagger(folder: Path) -> None:
    """Save a tiny model with a tag for each word, which stands for a run that recommends it."""
    tags = {0: "O", 1: "B-per", 2: "I-per"}
    settings = CONFIGS["bert"](id2label=tags, label2id={tag: number for number, tag in tags.items()})
    folder.mkdir(parents=True)
    save_model(AutoModelForTokenClassification.from_config(settings).eval(), tiny_tokenizer(), folder)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the names of README stand for tiny things: data, a classifier, a recipe and a finished run."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "my").mkdir()
    for name, rows, seed in (("train", 160, 1), ("test", 60, 2)):
        write_tsv(folder / "my" / f"{name}.tsv", reviews(rows, seed))
    answers = [
        {"text": text, "answers": label} for seed, rows in ((1, 160), (2, 60)) for label, text in reviews(rows, seed)
    ]
    (folder / "my" / "texts.txt").write_text("".join(f"{text}\n" for _, text in reviews(160, 1)))
    (folder / "my" / "answers.jsonl").write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    for name in ("classifier", "teacher", "student"):
        save_classifier(folder / "my" / name)
    shutil.copy(ROOT / "recipes" / "soft_targets.yaml", folder / "my" / "recipe.yaml")
    for name in ("train", "dev", "test"):
        (folder / f"{name}.conll").write_text("Ada B-per\nmet O\nBo B-per\n\n" * 20, encoding="utf-8")
    save_tagger(folder / "runs" / "tags" / "latest")
    rows = [f"{row % 2}\tquery {row // 4}\ta film {row}\n" for row in range(80)]
    (folder / "candidates.tsv").write_text("relevance\tquery\tcandidate\n" + "".join(rows), encoding="utf-8")
    save_model(tiny_model(**Ranking(1.0).head_config()), tiny_tokenizer(), folder / "runs" / "ranking" / "latest")
    for name in ("train", "dev", "test"):
        scored = [(str(row % 6), f"a film {row}", f"a film {row + row % 6}") for row in range(60)]
        write_tsv(folder / f"{name}.tsv", scored)
    answers = [{"text": "film", "answer_start": 4}]
    paragraphs = [
        {"context": f"the film {number}", "qas": [{"question": "was", "answers": answers}]} for number in range(40)
    ]
    for name in ("train", "dev"):
        (folder / f"{name}.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}), encoding="utf-8")
    save_reader(folder / "runs" / "spans" / "latest")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = ["data=files", "data.train=my/train.tsv", "data.test=my/test.tsv", "teacher.model=my/teacher"]
        words += ["prune.heads.recovery_epochs=0", "teacher.fine_tune=always", "quantize=[dynamic]", *QUICK]
        for name in ("001", "002"):
            assert (
                main(["run", "recipe=quickstart", f"name={name}", "teacher.epochs=1", "teacher.least_steps=1", *words])
                == 0
            )
    return folder


@pytest.fixture
def here(world: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(world)
    return world


def expanded(line: str, folder: Path) -> list[str]:
    """Return the words of a command as a shell hands them over."""
    words = []
    for word in shlex.split(line.replace("NAME ", "six_layer "))[1:]:
        matches = sorted(str(path.relative_to(folder)) for path in folder.glob(word)) if "*" in word else []
        words += matches or [word]
    return words


@pytest.mark.parametrize("line", cases("compress"))
def test_every_command_is_accepted(line: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those that train are only checked; all others run."""
    with serving() as served:
        words = [word.replace("http://localhost:8000/v1", served.url) for word in expanded(line, here)]
        assert main(checked(words)) == 0, capsys.readouterr().err


def checked(words: list[str]) -> list[str]:
    """Return the words of a command, of one that trains with the option that only checks them."""
    if words[0] in ("run", "search", "export") and not {"--help", "--cfg"} & set(words):
        if words == ["run"] or "-m" in words:
            words += ["data=files", "data.train=my/train.tsv", "teacher.model=my/teacher"]
        words.append("--cfg")
    if words[0] == "plan":
        words += ["data=files", "data.train=my/train.tsv", "teacher.model=my/teacher"]
    return words


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in commands(README, "compress") if "data=files" in line], ids=str)
def test_the_commands_with_own_data_run(line: str, here: Path) -> None:
    output = here / line.split()[1]
    quick = [word for word in QUICK if "export" not in line or word.startswith("benchmark.")]
    assert main([*expanded(line, here), *quick, f"output={output}"]) == 0
    assert (output / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("block", fenced(README, "python"))
def test_the_example_in_python_runs(block: str, here: Path) -> None:
    """As it stands, with all of its measurements, on tiny models."""
    exec(compile(block, "README.md", "exec"), {})
    assert sorted(here.glob("runs/custom/*/report.html"))


@pytest.mark.parametrize(
    "block", [block for page in PAGES[1:] if page.stem != "extending" for block in fenced(page, "python")]
)
def test_examples_of_the_pages_run(block: str, here: Path) -> None:
    exec(compile(block, "docs", "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)`", page.read_text(), re.M)
    assert {first or second for first, second in named} <= targets


def test_the_readme_names_the_commands_that_ci_runs() -> None:
    called = re.findall(r"^make [a-z-]+$", (ROOT / ".ci" / "run").read_text(), re.M)
    assert called
    assert [command for command in called if f"`{command}`" not in README.read_text()] == []


def test_extras_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {
        extra for page in PAGES for extra in re.findall(r"'\.\[([a-z]+)\]'|the extra `([a-z]+)`", page.read_text())
    }
    assert named
    assert {first or second for first, second in named} <= set(extras)


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_linked_from_the_readme() -> None:
    assert [page.name for page in PAGES[1:] if f"(docs/{page.name})" not in README.read_text()] == []


def test_recipes_are_listed_completely() -> None:
    listed = re.findall(r"^\| (`[a-z_`, ]+`) \|", (ROOT / "docs" / "recipes.md").read_text(), re.M)
    names = [name for names in listed for name in re.findall(r"`(\w+)`", names)]
    assert sorted(names) == sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_recipes_named_in_a_page_exist(page: Path) -> None:
    named = set(re.findall(r"recipe=([a-z_]+)(?![\w/.])", page.read_text()))
    assert {name for name in named if not (ROOT / "recipes" / f"{name}.yaml").exists()} <= {"my"}


@cache
def settings() -> frozenset[str]:
    """Return every setting that `compress run --help` lists; ``NAME`` in it stands for any choice of its group."""
    return frozenset(re.findall(r"^ +([a-z_]+(?:\.\w+)*)=", choices_and_settings(), re.M))


def known(setting: str) -> bool:
    """Return whether a setting, or a group of settings, is one of the help's."""
    parts = setting.split(".")
    shared = ".".join([*parts[:-2], "NAME", parts[-1]])
    return any(name in (setting, shared) or name.startswith(f"{setting}.") for name in settings())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_settings_named_in_a_page_exist(page: Path) -> None:
    groups = "|".join(sorted({name.split(".")[0] for name in settings() if "." in name}))
    code = [*re.findall(r"`([^`\n]+)`", page.read_text()), *fenced(page)]
    named = {name.rstrip(".") for text in code for name in re.findall(rf"(?<![\w./-])(?:{groups})\.[a-z_0-9.]+", text)}
    files = {name for name in named if name.endswith((".tsv", ".html", ".md", ".json", ".run", ".losses"))}
    assert {name for name in named - files if not known(name)} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_choices_named_in_a_page_exist(page: Path) -> None:
    wrong = []
    for group, options in GROUPS.items():
        for chosen in re.findall(rf"(?<![\w./]){group}=\[?([a-z_0-9,]+)", page.read_text()):
            wrong += [f"{group}={name}" for name in chosen.split(",") if name and name not in options]
    assert wrong == []


@pytest.mark.parametrize(
    ("heading", "group"),
    [("Losses", "distill/losses"), ("Students", "student"), ("Preparations", "prepare"), ("Pruning", "prune"),
     ("Quantization", "quantize"), ("Early exit", "exit")],
)  # fmt: skip
def test_the_methods_page_describes_every_choice(heading: str, group: str) -> None:
    section = (ROOT / "docs" / "methods.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[a-z_0-9`, ]+`) \|", section, re.M)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(GROUPS[group])
