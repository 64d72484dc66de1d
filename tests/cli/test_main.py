"""The command line: what it refuses and how, what it teaches, what it leaves alone."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from compress.cli import compose
from compress.cli import main as cli
from compress.cli.commands.bench import failures, timings
from compress.cli.main import main
from compress.cli.output import table
from compress.data.dataset import Dataset, Split
from compress.errors import ModelError, RecipeError
from compress.run.check import Checked, Tried
from compress.run.recipe import Recipe
from compress.settings import all_faults
from compress.tasks.classification import Classification


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def quick_check(monkeypatch):
    def check(recipe, *, refused=False):
        if faults := list(all_faults(recipe)):
            raise RecipeError(faults)

    monkeypatch.setattr(compose, "check", check)
    monkeypatch.setattr(Recipe, "run", lambda *_, **__: pytest.fail("started"))


MISTAKES = [
    (["seeed=3"], ["seeed = 3: is not a setting.", "Did you mean seed?"]),
    (["teacher.epocs=3"], ["Did you mean teacher.epochs?"]),
    (["prune.heads.ratoi=0.3"], ["Did you mean prune.heads.ratio?"]),
    (["ratio=0.3"], ["Did you mean prune.heads.ratio?"]),
    (["prune=[]", "prune.heads.ratio=0.3"], ["Choose it first: prune=[heads]."]),
    (["+data.typo=1"], ["data.typo = 1: is not a setting."]),
    (["++data.typo=1"], ["data.typo = 1: is not a setting."]),
    (["data.subset=x"], ["It is a setting of data=hub."]),
    (["seed.x=1"], ["seed has no settings of its own."]),
    (["foo@bar=1"], ["foo@bar=1: is not of the form setting=value."]),
    (["seed=abc"], ["seed = 'abc': must be a whole number."]),
    (["seed=1.5"], ["seed = 1.5: must be a whole number."]),
    (["seed=null"], ["seed: must be a whole number."]),
    (["seed="], ["seed", "must be a whole number."]),
    (["teacher.epochs=long"], ["teacher.epochs = 'long': must be a number."]),
    (["teacher.trust_remote_code=perhaps"], ["must be true or false."]),
    (["distill.decay=lineer"], ["must be one of linear, quadratic, cosine, constant."]),
    (["benchmark.tokens=32"], ["benchmark.tokens = 32: must be a list, as [a,b], each a whole number."]),
    (
        ["teacher=endpoint", "teacher.words={bad:no}"],
        ["teacher.words = {'bad': 'no'}: must be a dictionary, as {a: [b,c]}."],
    ),
    (["benchmark.tokens=[a]"], ["must be a list", "each a whole number."]),
    (["prune.heads=0.3"], ["must be given by its settings (", "ratio, "]),
    (["prune.heads.ratio=3"], ["prune.heads.ratio = 3.0: must lie in [0, 1)."]),
    (["seed=-1"], ["seed = -1: must lie in"]),
    (["name=a/b"], ["name = 'a/b': must be a plain name"]),
    (["student=brt"], ["student = 'brt': is not a choice.", "Did you mean bert?"]),
    (["student=null"], ["is not a choice"]),
    (["data=imbd"], ["Did you mean imdb?", "data=hub data.path=ID"]),
    (["prune=[haeds]"], ["prune = 'haeds': is not a choice.", "Did you mean heads?"]),
    (["quantize=static,dynamic"], ["has several values.", "Write quantize=[static,dynamic], or add -m"]),
    (["distill.losses=[hard,sfot]"], ["Did you mean soft?"]),
    (["recipe=quikstart"], ["recipe = 'quikstart': is not a known recipe.", "Did you mean quickstart?"]),
    (["recipe=no/such.yaml"], ["recipe = 'no/such.yaml': is not a file."]),
    (["recipe=[quickstart]"], ["is not a known recipe"]),
    (["=5"], ["=5: is not of the form setting=value.", "For example seed=7."]),
    (["seed"], ["seed: is not of the form setting=value.", "Write seed=VALUE."]),
    (["prune=[heads"], ["prune = '[heads': cannot be read.", "Close every bracket"]),
    (["~seed"], ["seed: cannot be removed, only set."]),
    (["~prune"], ["Write prune=[] for none."]),
    (["seed=1,2"], ["seed = '1,2': has several values.", "add -m to run each of them."]),
    (["hydra/launcher=joblib"], ["has no effect outside a sweep.", "Add -m."]),
    (["teacher.model=${oc.env:NOT_THERE}"], ["teacher.model: cannot be resolved: Environment variable 'NOT_THERE'"]),
    (["-m", "seed=1,x"], ["seed = 'x': must be a whole number."]),
    (["-m", "seed=1,2", "prune.heads.ratio=3,0.1"], ["prune.heads.ratio = 3.0: must lie in"]),
    (["-m", "seed=1,2", "hydra/launcher=basik"], ["hydra/launcher = 'basik': is not installed. Did you mean basic?"]),
    (["-m", "recipe=quickstart,quikstart"], ["Did you mean quickstart?"]),
    (["--multrun"], ["unknown option --multrun. Did you mean --multirun?"]),
]


@pytest.mark.parametrize(("words", "fragments"), MISTAKES, ids=lambda value: " ".join(value)[:40])
def test_a_mistake_is_told_in_words(words, fragments, capsys, quick_check):
    assert code_of(["run", *words]) == 2
    printed = capsys.readouterr().err
    for fragment in fragments:
        assert fragment in printed
    assert not any(word in printed for word in ("full_key", "Traceback", "object_type", "ConfigStore", "faults"))


FILES = [
    ("a: [1\nb: 2", ["own.yaml:2: this is not YAML"]),
    ("seed: 1\nseed: 2\n", ["own.yaml:2: seed: is set already, in line 1."]),
    ("- a\n- b\n", ["own.yaml:1: a recipe holds settings"]),
    ("\nteacher:\n  epocs: 1\n", ["own.yaml:3: teacher.epocs = 1: is not a setting. Did you mean teacher.epochs?"]),
    ("seed: x\n", ["own.yaml:1: seed = 'x': must be a whole number."]),
    (
        "defaults:\n  - override /prune: [haeds]\n",
        ["own.yaml:2: prune = 'haeds': is not a choice. Did you mean heads?"],
    ),
    ("defaults:\n  - override /studnt: layers\n", ["own.yaml:2: studnt", "Did you mean student?"]),
    ("defaults:\n  - a: 1\n    b: 2\n", ["own.yaml:2: defaults", "is not a choice"]),
    ("defaults: quickstart\n", ["must be a list of choices"]),
    ("defaults: [quikstart]\n", ["Did you mean quickstart?"]),
    ("defaults: [own.yaml]\n", ["includes itself"]),
    ("prune: [heads]\n", ["own.yaml:1: prune = ['heads']", "`- override /prune: [heads]`"]),
    ("student: bert\n", ["`- override /student: bert`"]),
    ("prune: {hedas: {}}\n", ["own.yaml:1: prune.hedas"]),
    ("seed: ${nope}\n", ["seed: cannot be resolved: Interpolation key 'nope' not found."]),
    ("hydra: {x: 1}\n", ["own.yaml:1: hydra"]),
    ("\x00", ["own.yaml"]),
]


@pytest.mark.parametrize(("text", "fragments"), FILES, ids=lambda value: repr(value)[:40])
def test_a_mistake_in_a_recipe_file_is_told_with_file_and_line(text, fragments, capsys, quick_check, elsewhere):
    (elsewhere / "own.yaml").write_text(text)
    assert code_of(["run", "recipe=own.yaml"]) == 2
    printed = capsys.readouterr().err
    for fragment in fragments:
        assert fragment in printed
    assert printed.count("\n") == 1


def test_mistakes_are_told_at_once(capsys, quick_check, elsewhere):
    (elsewhere / "own.yaml").write_text("teacher: {epocs: 1}\nseed: x\ndefaults:\n  - override /prune: [heads]\n")
    assert main(["run", "recipe=own.yaml", "prune.heads.ratio=3", "student=brt", "teacher.epochs=0", "=5"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "6 errors in the recipe; nothing was started."
    assert len(lines) == 7


def test_an_unreadable_recipe_does_not_make_other_words_wrong(capsys, quick_check):
    assert main(["run", "recipe=quikstart", "prune.heads.ratio=0.5"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "fragment"),
    [
        (["rnu"], "Unknown command rnu. Did you mean compress run?"),
        (["seed=3"], "Did you mean compress run seed=3?"),
        (["xyz"], "Known: run, plan, search, export, answer"),
        (["recipes", "x"], "compress recipes: unknown option x."),
        (["compare"], "the following arguments are required: RUN"),
        (["compare", "a", "b"], "a does not exist."),
        (["bench", "x", "--batch", "a"], "must be whole numbers from 1"),
        (["bench", "x", "--batch", ",".join(["1"] * 65)], "65 numbers are more than the 64 that fit a table"),
        (["bench", "x", "--tokens", "9" * 5000], "must be whole numbers from 1 to 1,000,000"),
        (["bench", "x", "--threads", "0"], "must be whole numbers from 1"),
        (["predict"], "the following arguments are required: PATH"),
        (["predict", "x", "a", "b", "--pair", "c"], "--pair is given 1 times for 2 texts"),
    ],
)
def test_a_mistaken_command_is_told_in_a_line(argv, fragment, capsys):
    assert code_of(argv) == 2
    printed = capsys.readouterr().err
    assert fragment in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "fragment"),
    [
        (ModelError("no such model."), 2, "no such model."),
        (KeyboardInterrupt(), 130, "Stopped. Run the same command again; it resumes."),
        (OSError(errno.ENOSPC, "No space", "runs/x"), 2, "runs/x: the disk is full. Free some space"),
        (PermissionError(errno.EACCES, "denied", "runs/x"), 2, "runs/x: no permission."),
        (OSError(errno.EIO, "Input/output error", "runs/x"), 2, "runs/x: Input/output error. Fix that"),
        (
            shutil.Error([("a", "runs/x", "[Errno 28] No space left on device: 'runs/x'")]),
            2,
            "runs/x: the disk is full. Free some space",
        ),
        (RuntimeError("Symlink loop from 'runs/x'"), 2, "A symbolic link leads back to itself."),
        (
            UnicodeEncodeError("utf-8", "a\udce9", 1, 2, "surrogates not allowed"),
            2,
            "'a\\udce9': is not UTF-8 text.",
        ),
    ],
)
def test_what_stops_a_run_is_told_in_a_line(error, code, fragment, monkeypatch, capsys):
    def stop(_):
        raise error

    monkeypatch.setitem(cli.COMMANDS, "run", stop)
    assert main(["run"]) == code
    assert fragment in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "resumes"),
    [(["run"], True), (["export", "x"], True), (["run", "--cfg"], False), (["run", "-m", "--dry-run"], False)],
)
def test_only_work_is_said_to_resume(words, resumes, monkeypatch, capsys):
    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, words[0], stop)
    assert main(words) == 130
    assert ("it resumes" in capsys.readouterr().err) is resumes


def test_what_nobody_foresaw_keeps_its_traceback(monkeypatch):
    def stop(_):
        raise RuntimeError("shapes differ")

    monkeypatch.setitem(cli.COMMANDS, "run", stop)
    with pytest.raises(RuntimeError, match="shapes differ"):
        main(["run"])


def test_cfg_checks_and_prints_a_recipe_and_runs_nothing(capsys, monkeypatch, elsewhere):
    rows = Split(["a", "b"], None, np.array([0, 1]))
    data = Dataset("two rows", Classification(("x", "y")), rows, rows, rows)
    tried = Tried("teacher: minilm is trained, because it has no classification head", ())
    monkeypatch.setattr("compress.run.check.check", lambda _: Checked(data, (tried,)))
    monkeypatch.setattr(Recipe, "run", lambda *_, **__: pytest.fail("started"))
    assert main(["run", "seed=7", "--cfg"]) == 0
    text, block = capsys.readouterr()
    assert block == "data: two rows\n"
    assert text.splitlines()[-1] == f"# {tried}"
    (elsewhere / "again.yaml").write_text(text)
    assert compose.compose(["recipe=again.yaml"]) == compose.compose(["seed=7"])


def test_cfg_of_a_sweep_lists_its_jobs(capsys, quick_check):
    assert main(["run", "-m", "--cfg", "seed=1,2"]) == 0
    assert capsys.readouterr().out == "compress run seed=1\ncompress run seed=2\n"


def test_flags_may_stand_between_words(capsys, quick_check):
    assert main(["run", "seed=1,2", "-m", "prune=[]", "--cfg"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_help_of_run_lists_every_choice_and_setting(capsys):
    assert main(["run", "--help"]) == 0
    printed = capsys.readouterr().out
    for fragment in (
        "prune.heads.ratio=0.3",
        "share removed, over all layers",
        "distill/losses=[NAME,…]",
        "runs/<recipe>/",
        "-m",
    ):
        assert fragment in printed


@pytest.mark.parametrize("command", ["compare", "bench", "predict", "recipes"])
def test_every_command_has_help(command, capsys):
    assert code_of([command, "--help"]) == 0
    assert f"usage: compress {command}" in capsys.readouterr().out


def test_recipes_are_listed_with_what_they_are(capsys):
    assert main(["recipes"]) == 0
    assert "quickstart" in capsys.readouterr().out


def test_predictions_can_be_printed_as_json(capsys, monkeypatch):
    module = type(sys)("compress.run.predict")
    module.predict = lambda path, texts, *_: [{"label": f"{path.name} {text}"} for text in texts]
    monkeypatch.setitem(sys.modules, "compress.run.predict", module)
    assert main(["predict", "some/student", "é", "b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"label": "student é"}, {"label": "student b"}]


def test_latencies_are_a_line_each(capsys, monkeypatch):
    module = type(sys)("compress.run.bench")
    latency = [
        {"device": "cpu", "batch": batch, "tokens": 32, "median_ms": 1.2345 * batch, "p90_ms": 2, "p99_ms": 3}
        for batch in (1, 8)
    ]
    module.bench_paths = lambda paths, *_: [{"path": str(path), "runtime": "[x]", "latency": latency} for path in paths]
    monkeypatch.setitem(sys.modules, "compress.run.bench", module)
    assert main(["bench", "a", "b"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[1:3]] == [
        ["a", "[x]", "cpu", "1", "32", "1.23", "2", "3"],
        ["a", "[x]", "cpu", "8", "32", "9.88", "2", "3"],
    ]
    assert len(lines) == 5


def test_a_path_stays_readable_in_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    path, variants = "runs/quickstart/reviews/artifacts/onnx", ("SDPA fp32", "torch.compile fp16")
    timing = {"device": "cuda", "batch": 32, "tokens": 128, "median_ms": 12.3456, "p90_ms": 12.3456, "p99_ms": 12.3456}
    rows = [
        {"path": path, "runtime": "onnxruntime", "latency": [timing | {"variant": variant, "copies": False}]}
        for variant in variants
    ]
    table(list(timings(rows)))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == path
    assert lines[2].split() == ["onnxruntime", "cuda", "SDPA", "fp32", "False", "32", "128", *["12.3"] * 3]
    assert lines[3].split() == ["onnxruntime", "cuda", "torch.compile", "False", "32", "128", *["12.3"] * 3]
    assert [line.split() for line in lines[4:]] == [["fp16"]]
    table([{"text": "long " * 30, "label": "good"}])
    beside = capsys.readouterr().out.splitlines()
    assert beside[0].split() == ["text", "label"]
    assert beside[1].split()[-1] == "good"


def test_each_reason_for_a_missing_timing_is_told_once():
    cell = {"device": "cuda", "batch": 32, "tokens": 128, "not_measured": "OutOfMemoryError: 3 GiB"}
    rows = [
        {"path": "a", "runtime": "pytorch", "latency": [cell | {"copies": copies} for copies in (False, True)]},
        {"path": "b", "runtime": "", "latency": [], "not_measured": "it has no engine"},
        {"path": "c", "runtime": "", "latency": [], "not_measured": "it has no engine"},
    ]
    assert list(failures(rows)) == [
        "Not measured: a, 32 × 128 tokens on cuda: OutOfMemoryError: 3 GiB", "it has no engine",
    ]  # fmt: skip
    assert [row["median_ms"] for row in timings(rows)] == ["–", "–"]


def test_the_module_is_the_program():
    done = subprocess.run([sys.executable, "-m", "compress", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("compress 0.")


def code_of(argv: list[str]) -> int:
    """Run a command line; argparse leaves by SystemExit."""
    try:
        return main(argv)
    except SystemExit as exit_:
        return int(exit_.code or 0)
