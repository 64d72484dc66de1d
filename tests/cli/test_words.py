"""Words and recipe files choose and set; they name no code to run, and nothing in them grows without bound."""

from __future__ import annotations

import json
import os
import pickle
import time
from pathlib import Path

import pytest

from compress.cli import compose
from compress.cli.composing import sweeps
from compress.cli.main import main
from compress.cli.sweep import Outcome, sweep
from compress.errors import RecipeError
from compress.run.recipe import Recipe
from compress.settings import all_faults


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Run in a folder of its own; data and models are not looked at."""

    def check(recipe, *, refused=False):
        if faults := list(all_faults(recipe)):
            raise RecipeError(faults)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compose, "check", check)
    return tmp_path


def refused(words, *, swept=False):
    """Return what is said against words; that takes no time to speak of."""
    start = time.monotonic()
    with pytest.raises(RecipeError) as caught:
        sweeps.combinations(words) if swept else compose.compose(words)
    assert time.monotonic() - start < 10
    return str(caught.value)


OURS = "belongs to Hydra"
CODE = "names code to call"
HYDRAS = [
    ("hydra.callbacks.x._target_=os.getcwd", OURS),
    ("+hydra.callbacks.x={_target_:os.getcwd}", OURS),
    ("++hydra.job.chdir=true", OURS),
    ("~hydra", OURS),
    ("hydra/callbacks=x", OURS),
    ("hydra={callbacks:{}}", OURS),
    ("Hydra.verbose=true", OURS),
    ("hydra.searchpath=[x]", OURS),
    ("hydra.sweep.dir=x", OURS),
    ("hydra.launcher._target_=os.getcwd", OURS),
    ("hydra.launcher={_target_:os.getcwd}", OURS),
    ("hydra/launcher=basic,basic", "must be one name"),
    ("hydra/launcher=[basic]", "must be one name"),
    ("hydra/launcher=../basic", "is not installed"),
    ("hydra.launcher.n_jobs=2", "is not a setting"),
    ("hydra.sweeper.params={seed:1}", "must be one plain value"),
    ("hydra.sweeper.params.seed=1", "is not a setting"),
    ("hydra.sweeper.max_batch_size=${seed}", "must be one plain value"),
    ("hydra.sweeper.max_batch_size=many", "has a value of the wrong type"),
    ("teacher._target_=os.getcwd", CODE),
    ("teacher={model:x,_target_:os.getcwd}", CODE),
    ("benchmark.tokens=[{_partial_:true}]", CODE),
    ("name=${now:%Y}", "calls the function 'now'"),
    ("name=${hydra:job.name}", "calls the function 'hydra'"),
    ("name=${oc.decode:x}", "calls the function 'oc.decode'"),
    ("name=${hydra.job.name}", "one of Hydra's own settings"),
    ("name=${${recipe}}", "nests one insertion in another"),
]


@pytest.mark.parametrize(("word", "fragment"), HYDRAS, ids=[word for word, _ in HYDRAS])
def test_of_hydras_settings_only_plugins_and_their_plain_parameters_can_be_set(word, fragment):
    assert fragment in refused([word, "seed=1,2"], swept=True)


def test_a_plugin_and_its_plain_parameter_can_be_set():
    words = ["hydra/launcher=basic", "hydra/sweeper=basic", "hydra.sweeper.max_batch_size=1", "seed=1,2"]
    assert sweeps.combinations(words) == [["seed=1"], ["seed=2"]]


FILES = [
    ("hydra: {callbacks: {x: {_target_: os.getcwd}}}", "own.yaml:1: hydra: belongs to Hydra"),
    ("seed: 1\nhydra.callbacks.x: 1", "own.yaml:2: hydra.callbacks.x: belongs to Hydra"),
    ("hydra/launcher: basic", "own.yaml:1: hydra/launcher: belongs to Hydra"),
    ("defaults:\n  - override /hydra/launcher: basic", "own.yaml:2: hydra/launcher = 'basic': is not a group"),
    ("defaults:\n  - /quantize@hydra.callbacks.x: dynamic", "own.yaml:2: /quantize@hydra.callbacks.x"),
    ("defaults:\n  - /data@_global_: tweets", "own.yaml:2: /data@_global_"),
    ("# @package hydra\ncallbacks: {x: {_target_: os.getcwd}}", "own.yaml:2: _target_: names code"),
    ("prune: {heads: {_args_: [1]}}", "own.yaml:1: _args_: names code"),
    ("benchmark: {tokens: [{_partial_: true}]}", "own.yaml:1: _partial_: names code"),
    ("name: ${now:%Y}", "own.yaml:1: name = '${now:%Y}': calls the function 'now'"),
    ("teacher: ${student}", "teacher: must be given by its settings"),
    ("teacher.epochs: 3", "own.yaml:1: teacher.epochs: is a path, and must be a name. Write `teacher: {epochs: …}`."),
    ("seed: ${", "own.yaml:1: seed: cannot be read"),
    ("seed: !!python/object/apply:os.getcwd []", "own.yaml:1: the tag"),
    ("seed: !!bool x", "own.yaml:1: the tag"),
    ("a: &a {x: 1}\nteacher:\n  <<: *a", "own.yaml:3: <<: merges settings"),
    ("seed: 1\n---\nseed: 2", "own.yaml:2: a second document begins here"),
    ("seed: &a [*a]", "own.yaml:1: holds more than 10000 values"),
    ("seed: 1\n" + "#" * 300_000, "is longer than 256 KiB"),
    ("seed: " + "[" * 2000 + "]" * 2000, "own.yaml:1: more than 32 nested levels"),
    ("".join("  " * depth + "a:\n" for depth in range(200)), "own.yaml:32: more than 32 nested levels"),
    ("1: 2", "own.yaml:1 = '1': is a key, and must be a name"),
    ("? [a]\n: 1", "own.yaml:1 = 'a list or a mapping': is a key"),
    ('name: "a\\0b"', "own.yaml:1: name = 'a\\x00b': holds a NUL"),
    ("seed: " + "9" * 5000, "cannot be read as a YAML text file"),
    ("teacher: {epochs: " + "9" * 400 + "}", "must be a number"),
    ("name: " + "${recipe}" * 1001, "insert each other so often that their length is unbounded"),
]


@pytest.mark.parametrize(("text", "fragment"), FILES, ids=[text[:30] for text, _ in FILES])
def test_a_recipe_file_holds_plain_settings_of_a_size(text, fragment, elsewhere):
    (elsewhere / "own.yaml").write_text(text)
    assert fragment in refused(["recipe=own.yaml"])


def test_aliases_are_read_and_bombs_of_them_refused(elsewhere):
    (elsewhere / "own.yaml").write_text("teacher: {learning_rate: &rate 1e-4}\ndistill: {learning_rate: *rate}\n")
    assert compose.compose(["recipe=own.yaml"]).distill.learning_rate == 1e-4
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10))]
    (elsewhere / "own.yaml").write_text("\n".join(lines))
    assert "own.yaml:5: holds more than 10000 values" in refused(["recipe=own.yaml"])


def test_recipes_that_build_on_each_other_have_bounds(elsewhere):
    for n in range(20):
        (elsewhere / f"twice{n}.yaml").write_text(f"defaults: [twice{n + 1}.yaml, twice{n + 1}.yaml]")
    (elsewhere / "twice20.yaml").write_text("seed: 5")
    assert "'twice20.yaml': is included twice" in refused(["recipe=twice0.yaml"])
    for n in range(60):
        (elsewhere / f"chain{n}.yaml").write_text(f"defaults: [chain{n + 1}.yaml]")
    (elsewhere / "chain60.yaml").write_text("seed: 5")
    assert compose.compose(["recipe=chain20.yaml"]).seed == 5
    assert "includes more than 50 recipes" in refused(["recipe=chain0.yaml"])


def test_pipes_folders_and_devices_are_no_recipes(elsewhere):
    os.mkfifo("pipe.yaml")
    Path("folder.yaml").mkdir()
    Path("zero.yaml").symlink_to("/dev/zero")
    Path("loop.yaml").symlink_to("loop.yaml")
    assert "recipe = 'pipe.yaml': is not a regular file" in refused(["recipe=pipe.yaml"])
    assert "recipe = 'zero.yaml': is not a regular file" in refused(["recipe=zero.yaml"])
    assert "recipe = 'folder.yaml': is a folder" in refused(["recipe=folder.yaml"])
    assert "recipe = 'loop.yaml': cannot be read" in refused(["recipe=loop.yaml"])
    assert "is not a file" in refused(["recipe=~no-such-user/x.yaml"])


def test_pipes_are_no_data_models_or_reports(elsewhere, capsys):
    os.mkfifo("train.tsv")
    assert "data.train = 'train.tsv': is not a regular file" in refused(["data=files", "data.train=train.tsv"])
    Path("model").mkdir()
    os.mkfifo("model/tokenizer.json")
    Path("model/config.json").write_text("{}")
    assert main(["predict", "model", "text"]) == 2
    Path("run").mkdir()
    os.mkfifo("run/report.json")
    assert main(["compare", "run", "run"]) == 2
    assert main(["compare", "train.tsv", "run"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "model/tokenizer.json",
        *["run/report.json is not a regular file. A finished run has a report.json; name its folder."],
        "train.tsv is not a regular file. A finished run has a report.json; name its folder.",
    ]


def test_a_report_that_is_nested_too_deeply_is_refused(elsewhere, capsys):
    Path("deep.json").write_text("[" * 2000 + "]" * 2000)
    inner = json.loads("[" * 400 + "]" * 400)
    Path("less.json").write_text(json.dumps({"schema": 1, "settings": {"x": inner}}))
    assert main(["compare", "deep.json", "less.json"]) == 2
    assert "deep.json: its values are nested too deeply" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["seed=range(0,1e9)"], "-m: would be 1,000,000,000 runs, and a sweep has at most 1,000."),
        (["seed=shuffle(range(0,1000000000))"], "would be 1,000,000,000 runs"),
        (["seed=range(0,100)", "name=range(0,1000)"], "would be 100,000 runs"),
        ([f"seed={','.join(map(str, range(1001)))}"], "would be 1,001 runs"),
        (["seed=range(0,inf)"], "too many to count"),
        (["seed=range(0,1,0)"], "has no values"),
        (["seed=range(5,1)"], "has no values"),
        (["seed=glob(*)"], "too many to count"),
        (["recipe=glob(*)"], "too many to count"),
        (["seed=interval(0,1)"], "is for sweepers that search"),
        (["a=" + "[" * 2000], "too many brackets"),
        (["a=" + "[" * 2000 + "]" * 2000], "too many brackets"),
        (["a=" + "x" * 100_000], "is longer than 20000 characters"),
        (["name=\udcff"], "half a character"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_grows_without_bound_is_refused_at_once(words, fragment):
    assert fragment in refused(words, swept=True)
    refused(words)


BASE = "defaults:\n  - override /distill/losses: [soft]\n  - override /prune: []\nseed: 4\n"


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("recipe=my.yaml,sub/other.yaml", ["my", "other"]),
        ("recipe=choice(quickstart,sub/other.yaml)", ["quickstart", "other"]),
        ("recipe=with space.yaml,e=q.yaml", ["with space", "e=q"]),
        ("recipe='a,b.yaml',my.yaml", ["a,b", "my"]),
        ("recipe=a,b.yaml", ["a,b"]),
        ('recipe="it\'s.yaml",my.yaml', ["it's", "my"]),
        ("recipe=~/my.yaml", ["my"]),
        ("recipe=includes.yaml", ["includes"]),
        ("recipe=ABSOLUTE/my.yaml", ["my"]),
    ],
)
def test_a_sweep_takes_recipe_files(word, names, monkeypatch, elsewhere, capsys):
    (elsewhere / "sub").mkdir()
    for name in ("my", "sub/other", "with space", "a,b", "e=q", "it's"):
        (elsewhere / f"{name}.yaml").write_text(BASE)
    (elsewhere / "includes.yaml").write_text("defaults: [sub/other.yaml]\n")
    monkeypatch.setenv("HOME", str(elsewhere))
    ran = []
    monkeypatch.setattr(Recipe, "run", lambda recipe: ran.append((recipe.recipe, recipe.seed)))
    words = [word.replace("ABSOLUTE", str(elsewhere)), "seed=1,2"]
    assert [outcome.error for outcome in sweep([*words, "output=out"])] == [""] * 2 * len(names)
    assert ran == [(name, seed) for name in names for seed in (1, 2)]
    assert [compose.compose(job).recipe for job in sweeps.combinations(words)] == [n for n in names for _ in (1, 2)]
    assert main(["run", "-m", "--cfg", *words]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 * len(names)


def test_a_sweep_may_leave_out_what_its_recipe_sets(monkeypatch):
    ran = []
    monkeypatch.setattr(Recipe, "run", lambda recipe: ran.append(list(recipe.prune)))
    assert not any(outcome.error for outcome in sweep(["prune=[heads],[],[heads]", "output=out"]))
    assert ran == [["heads"], [], ["heads"]]


def test_an_interrupted_sweep_stops_as_a_whole_and_tells_what_is_finished(monkeypatch, capsys):
    def run(recipe):
        if recipe.seed == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Recipe, "run", run)
    monkeypatch.setattr("compress.cli.commands.run.compare_runs", lambda *_: None)
    assert main(["run", "-m", "seed=1,2,3", "output=out"]) == 130
    printed = capsys.readouterr()
    assert printed.out == "seed=1: out/seed=1\n"
    assert printed.err == "Stopped: 1 run is finished. Run the same command again; it resumes.\n"
    ended: list[Outcome] = []
    with pytest.raises(KeyboardInterrupt):
        sweep(["seed=1,2,3", "output=out"], ended)
    assert [outcome.label for outcome in ended] == ["seed=1"]


class Evil:
    """Writes a file when it is unpickled."""

    def __reduce__(self):
        return Path.write_text, (Path("marker"), "ran")


@pytest.mark.parametrize("where", ["file", "words", "parameters"])
def test_a_sweep_runs_no_code_that_a_recipe_names(where, elsewhere):
    (elsewhere / "evil.pickle").write_bytes(pickle.dumps(Evil()))
    target = "{_target_: torch.load, f: evil.pickle, weights_only: false}"
    writes = "{_target_: pathlib.Path.write_text, _args_: [marker, ran]}"
    (elsewhere / "own.yaml").write_text(f"hydra: {{callbacks: {{x: {target}, y: {writes}}}}}\n")
    words = {
        "file": ["recipe=own.yaml", "seed=1,2"],
        "words": [f"+hydra.callbacks.x={writes.replace(' ', '')}", "seed=1,2"],
        "parameters": ["hydra.sweeper.params={seed:'1,2'}", "hydra.sweeper._target_=torch.load"],
    }[where]
    assert main(["run", "-m", *words]) == 2
    assert {path.name for path in elsewhere.iterdir()} == {"evil.pickle", "own.yaml"}
