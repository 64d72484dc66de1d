"""Recipes compose, are refused in words, go to YAML and back, and sweep."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from compress.cli import compose, recipe_paths
from compress.cli.composing import sweeps
from compress.cli.sweep import check_all, named, sweep
from compress.data import Files, Hub
from compress.describe import describe
from compress.distill.losses import SoftTargets
from compress.distill.multi_task import OtherTask
from compress.errors import Fault, ModelError, RecipeError
from compress.prune.heads import PruneHeads
from compress.registry import GROUPS, SEVERAL, slot
from compress.run.recipe import Recipe
from compress.run.recipe_yaml import chosen, to_yaml
from compress.settings import all_faults
from compress.tasks.choice import TaskChoice
from compress.teachers.model import Teacher
from compress.yaml_dialect import HEADER

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "recipes").glob("*.yaml"))
NEEDED = {
    "export": ["data.train=x.tsv", "student.model=x"],
    "answers": ["teacher.file=x.tsv"],
}  # what has no default in a recipe


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def quick_check(monkeypatch):
    """Check settings only; looking at data and models is tested with them."""

    def check(recipe, *, refused=False):
        if faults := list(all_faults(recipe)):
            raise RecipeError(faults)

    monkeypatch.setattr(compose, "check", check)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_recipe_composes_and_says_what_it_is(path, elsewhere):
    (elsewhere / "x.tsv").write_text("label\ttext\n")
    recipe = compose.compose([f"recipe={path.stem}", *NEEDED.get(path.stem, [])])
    assert recipe.recipe == path.stem
    first, second = path.read_text(encoding="utf-8").splitlines()[:2]
    assert first == HEADER
    assert f"compress run recipe={path.stem}" in second
    assert recipe_paths.headline(path)


def test_the_quickstart_is_what_is_run_without_words():
    assert compose.compose([]) == compose.compose(["recipe=quickstart"])


def test_what_a_recipe_does_not_choose_is_what_python_gives(elsewhere):
    (elsewhere / "empty.yaml").write_text("")
    assert compose.compose(["recipe=empty.yaml"]) == Recipe(recipe="empty")


@pytest.mark.parametrize(("group", "option"), [(group, option) for group in GROUPS for option in GROUPS[group]])
def test_every_option_can_be_chosen(group, option, quick_check, elsewhere):
    (elsewhere / "x.tsv").write_text("label\ttext\n")
    needed = {
        "files": ["data.train=x.tsv"],
        "hub": ["data.path=owner/name"],
        "substitute": ["augment.substitute.synonyms=x.tsv"],
        "budget": ["prune.budget.speedup=2"],
        "rank": ["prune.rank.speedup=2"],
        "shape": [f"{group}.shape.heads=[1]", f"{group}.shape.units=[8]"],
        "saved": ["student.model=x", "distill.epochs=0"],
        "answers": ["recipe=soft_targets", "teacher.file=x.tsv"],
        "endpoint": ["recipe=soft_targets", "teacher.url=http://localhost:8000/v1", "teacher.model=x"],
    }.get(option, [])
    before = {"shape", "width"} & {option} if group == "prepare" else ()
    needed += [f"prepare.{name}.recovery_epochs=0" for name in before]
    beside = {"transformers_js": "onnx,"}.get(option, "")  # which it gathers
    chosen = f"[{beside}{option}]" if group in SEVERAL else option
    recipe = compose.compose([f"{group}={chosen}", *needed])
    part = slot(recipe, group)[option] if group in SEVERAL else slot(recipe, group)
    want = GROUPS[group][option]
    assert type(part) is (want if isinstance(want, type) else type(want))


def test_defaults_are_options():
    for group, option in chosen(Recipe()).items():
        assert set(option if group in SEVERAL else [option]) <= set(GROUPS[group])


def test_words_choose_and_set():
    recipe = compose.compose(
        ["distill.losses=[hard,soft]", "distill.losses.soft.temperature=4", "prune=[]", "teacher.learning_rate=1e-4"]
    )
    assert recipe.distill.losses["soft"] == SoftTargets(temperature=4.0)
    assert list(recipe.distill.losses) == ["hard", "soft"]
    assert recipe.prune == {}
    assert recipe.teacher.learning_rate == 1e-4


def test_order_of_a_list_is_the_order_of_the_work():
    assert list(compose.compose(["quantize=[static,dynamic]"]).quantize) == ["static", "dynamic"]


def test_lists_come_as_lists():
    tokens = compose.compose(["benchmark.tokens=[16,64]"]).benchmark.tokens
    assert tokens == [16, 64]
    assert type(tokens) is list


def test_any_id_with_an_owner_is_a_data_set_of_the_hub():
    data = compose.compose(["data=some-one/set.v2"]).data
    assert isinstance(data, Hub)
    assert data.path == "some-one/set.v2"


def test_paths_may_hold_signs_that_mean_something_to_hydra(elsewhere):
    folder = elsewhere / "my data (1)"
    folder.mkdir()
    (folder / "a=b.tsv").write_text("x")
    data = compose.compose(["data=files", "data.train=my data (1)/a=b.tsv"]).data
    assert isinstance(data, Files)
    assert data.train == "my data (1)/a=b.tsv"


@pytest.mark.parametrize("ending", ["\\", "it's", "\\'", "a\\\\'b\\"])
def test_quoting_loses_nothing(ending):
    assert compose.compose([f"name=x#(@){ending}"]).name == f"x#(@){ending}"


def test_settings_can_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("MY_SEED", "7")
    assert compose.compose(["seed=${oc.env:MY_SEED}"]).seed == 7


def test_a_recipe_of_ones_own_builds_on_another(elsewhere):
    (elsewhere / "recipes").mkdir()
    (elsewhere / "recipes" / "base.yaml").write_text(
        "# @package _global_\n# A base.   compress run recipe=base\ndefaults:\n  - override /prune: []\nseed: 5\n"
    )
    (elsewhere / "own file.yaml").write_text(
        "defaults: [base, override /quantize: [dynamic]]\nteacher: {epochs: 1e-1}\n"
    )
    recipe = compose.compose(["recipe=own file.yaml"])
    assert (recipe.recipe, recipe.seed, recipe.prune, list(recipe.quantize)) == ("own file", 5, {}, ["dynamic"])
    assert recipe.teacher.epochs == 0.1
    assert recipe_paths.headline(recipe_paths.known()["base"]) == "A base."


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_yaml_of_a_recipe_composes_to_the_same_recipe(path, elsewhere):
    (elsewhere / "x.tsv").write_text("label\ttext\n")
    recipe = compose.compose([f"recipe={path.stem}", "seed=99", *NEEDED.get(path.stem, [])])
    (elsewhere / "recipe.yaml").write_text(to_yaml(recipe))
    assert compose.compose(["recipe=recipe.yaml"]) == recipe


KEYS = [
    "0",
    "01",
    "1e3",
    "true",
    "null",
    "weather.get",
    "a: b",
    "a, b",
    "it's",
    "_other_",
    "<<",
    "2020-01-01",
    "{x}",
    "",
]


def test_labels_of_any_spelling_go_to_yaml_and_back(quick_check, elsewhere):
    (elsewhere / "x.tsv").write_text("label\ttext\n")
    labels = {key: f"label {number}" for number, key in enumerate(KEYS)}
    text = f"defaults: [override /data: files]\ndata: {{train: x.tsv, labels: {json.dumps(labels)}}}\n"
    (elsewhere / "first.yaml").write_text(text)
    in_file = compose.compose(["recipe=first.yaml"])
    assert in_file.data.labels == labels
    (elsewhere / "recipe.yaml").write_text(to_yaml(in_file))
    assert compose.compose(["recipe=recipe.yaml"]) == in_file
    in_words = compose.compose(["data=files", "data.train=x.tsv", f"data.labels={json.dumps(labels)}"])
    assert in_words.data.labels == labels


@pytest.mark.parametrize(
    ("word", "labels"),
    [
        ("{0: neg, true: 01, null: true, 1.50: x}", {"0": "neg", "true": "01", "null": "true", "1.50": "x"}),
        ("{0:neg,true:pos,null:true}", {"0": "neg", "true": "pos", "null": "true"}),
        ("{'a, b': x, it's: y}", {"a, b": "x", "it's": "y"}),
        ("{c\\, d: z}", {"c, d": "z"}),
        ("{weather.get: ${seed}}", {"weather.get": "13"}),
    ],
)
def test_labels_in_a_word_are_texts_as_they_are_spelled(word, labels, quick_check):
    assert compose.compose([f"data.labels={word}"]).data.labels == labels


def test_labels_in_a_file_are_texts_as_they_are_spelled(quick_check, elsewhere):
    (elsewhere / "own.yaml").write_text("data:\n  labels:\n    0: no\n    true: 01\n    a.b:\n")
    assert compose.compose(["recipe=own.yaml"]).data.labels == {"0": "no", "true": "01", "a.b": "null"}


def test_a_task_is_chosen_by_name_and_has_settings(quick_check, elsewhere):
    words = ["task=regression", "task.metric=spearman"]
    assert compose.compose(words).task == TaskChoice(kind="regression", metric="spearman")
    weighed = compose.compose(["task.metric='f1:not good'", "task.class_weights={0: 2, good: 0.5}"])
    assert weighed.task == TaskChoice(metric="f1:not good", class_weights={"0": "2", "good": "0.5"})
    assert weighed.task.weight_of == {"0": 2.0, "good": 0.5}
    for number, recipe in enumerate((compose.compose(words), weighed)):
        (elsewhere / f"own{number}.yaml").write_text(to_yaml(recipe))
        assert compose.compose([f"recipe=own{number}.yaml"]) == recipe


def test_a_word_of_labels_that_cannot_be_read_says_where_to_write_them(quick_check):
    with pytest.raises(RecipeError, match=r'put it into a recipe file: `data: \{labels: \{"a, b": x\}\}`'):
        compose.compose(["data.labels={'a, b': x, c\\: d]}"])


@pytest.mark.parametrize("key", ["_target_", " _args_ "])
def test_labels_that_hydra_would_call_are_refused(key, quick_check, elsewhere):
    (elsewhere / "own.yaml").write_text(f"data: {{labels: {{{json.dumps(key)}: os.system}}}}\n")
    for words in (["recipe=own.yaml"], [f"data.labels={{{json.dumps(key)}: os.system}}"]):
        with pytest.raises(RecipeError, match="names code to call"):
            compose.compose(words)


def test_labels_of_another_task_are_free_texts_too(task_files, quick_check, elsewhere):
    text = OWN_TASKS.replace("validation: b.tsv", "validation: b.tsv, labels: {0: bad, a.b: good}")
    (elsewhere / "own.yaml").write_text(text)
    recipe = compose.compose(["recipe=own.yaml"])
    assert recipe.prepare["multi_task"].tasks["rte"].data.labels == {"0": "bad", "a.b": "good"}
    (elsewhere / "back.yaml").write_text(to_yaml(recipe))
    assert compose.compose(["recipe=back.yaml"]) == recipe


def test_labels_in_python_are_texts_too():
    assert Files(train="x", labels={0: "bad", True: "good", None: "odd"}).labels == {
        "0": "bad",
        "true": "good",
        "null": "odd",
    }


def test_labels_with_quotes_can_stand_in_a_sweep(quick_check, monkeypatch):
    seen = []
    monkeypatch.setattr(Recipe, "run", lambda recipe: seen.append((recipe.seed, recipe.data.labels)))
    sweep(["output=out", "data.labels={'a, b': x, 0: it's}", "seed=1,2"])
    assert seen == [(1, {"a, b": "x", "0": "it's"}), (2, {"a, b": "x", "0": "it's"})]


def test_yaml_keeps_parts_under_names_of_their_own_and_their_order(elsewhere):
    prune = {"first": PruneHeads(ratio=0.2), "heads": PruneHeads(ratio=0.5), "again": PruneHeads()}
    recipe = Recipe(prune=prune, export={}, output="elsewhere", name="mine")
    (elsewhere / "recipe.yaml").write_text(to_yaml(recipe))
    back = compose.compose(["recipe=recipe.yaml"])
    assert back == replace(recipe, output=None, name=None)
    assert list(back.prune) == list(prune)


TASKS = "prepare.multi_task.tasks"
OWN_TASKS = """defaults: [multi_task]
prepare: {multi_task: {tasks: {rte: {data: {train: a.tsv, validation: b.tsv}, teacher: {model: ./t, epochs: 1}}}}}
"""


@pytest.fixture
def task_files(elsewhere):
    (elsewhere / "a.tsv").write_text("x")
    (elsewhere / "b.tsv").write_text("x")
    (elsewhere / "t").mkdir()
    (elsewhere / "own.yaml").write_text(OWN_TASKS)


@pytest.mark.parametrize(
    "words",
    [
        ["recipe=own.yaml"],
        ["recipe=multi_task", f"{TASKS}={{rte: {{data: {{train: a.tsv, validation: b.tsv}}, "
         "teacher: {model: ./t, epochs: 1}}}"],
        ["recipe=multi_task", f"{TASKS}.rte.data.train=a.tsv", f"{TASKS}.rte.data.validation=b.tsv",
         f"{TASKS}.rte.teacher.model=./t", f"{TASKS}.rte.teacher.epochs=1"],
    ],
    ids=["file", "one word", "words"],
)  # fmt: skip
def test_tasks_are_listed_under_names_of_ones_own(words, task_files, quick_check, elsewhere):
    (own,) = compose.compose(words).prepare["multi_task"].tasks.items()
    assert own == (
        "rte",
        OtherTask(data=Files(train="a.tsv", validation="b.tsv"), teacher=Teacher(model="./t", epochs=1)),
    )
    (elsewhere / "back.yaml").write_text(to_yaml(compose.compose(words)))
    assert dict([own]) == compose.compose(["recipe=back.yaml"]).prepare["multi_task"].tasks


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("seed=x", "seed = 'x': must be a whole number"),
        (f"{TASKS}.rte.teacher.epocs=2", f"{TASKS}.rte.teacher.epocs = 2: is not a setting"),
        (f"{TASKS}.rte=5", f"{TASKS}.rte = 5: must be given by its settings (data, teacher, task, metric)"),
        (f"{TASKS}.mrpc.data.train=a.tzv", f"{TASKS}.mrpc.data.train = 'a.tzv': does not exist"),
    ],
)
def test_a_fault_beside_listed_tasks_is_the_only_one(word, message, task_files, quick_check):
    with pytest.raises(RecipeError) as caught:
        compose.compose(["recipe=own.yaml", word])
    (fault,) = caught.value.faults
    assert str(fault).startswith(message)


def test_yaml_says_what_only_python_knows():
    class Mine(PruneHeads):
        pass

    assert "# Mine is known to Python only" in to_yaml(Recipe(prune={"mine": Mine()}))


def test_faults_of_words_settings_and_files_are_told_together(monkeypatch):
    def check(recipe, *, refused):
        assert refused  # so that no model is tried for a run that cannot start
        raise RecipeError([*all_faults(recipe), Fault("data", None, "cannot be read")])

    monkeypatch.setattr(compose, "check", check)
    with pytest.raises(RecipeError) as caught:
        compose.compose(["seed=abc", "seeed=1", "prune.heads.ratio=3", "=5", "distill/losses=[sfot]"])
    assert {fault.setting for fault in caught.value.faults} >= {"seed", "seeed", "prune.heads.ratio", "=5", "data"}
    assert str(caught.value).startswith("6 errors in the recipe; nothing was started.\n- ")


def test_a_sweep_is_every_combination():
    assert sweeps.combinations(["seed=1,2", "prune=[],[heads]", "hydra/launcher=basic"]) == [
        ["seed=1", "prune=[]"], ["seed=1", "prune=[heads]"], ["seed=2", "prune=[]"], ["seed=2", "prune=[heads]"]
    ]  # fmt: skip


def test_a_sweep_with_a_fault_anywhere_starts_nothing(monkeypatch, quick_check):
    monkeypatch.setattr(Recipe, "run", lambda _: pytest.fail("started"))
    with pytest.raises(RecipeError) as caught:
        sweep(["prune.heads.ratio=0.1,3,x", "seed=1,2"])
    assert len(caught.value.faults) == 2


def test_jobs_of_a_sweep_have_folders_of_their_own_and_outlive_each_other(monkeypatch, quick_check, elsewhere):
    seen = []

    def run(recipe):
        seen.append(recipe.folder)
        if recipe.prune["heads"].ratio == 0.3:
            raise ModelError("no.")

    monkeypatch.setattr(Recipe, "run", run)
    outcomes = sweep(["prune.heads.ratio=0.1,0.3,0.5", "output=out"])
    assert seen == [Path("out") / f"heads.ratio={ratio}" for ratio in (0.1, 0.3, 0.5)]
    assert [outcome.error for outcome in outcomes] == ["", "no.", ""]
    assert {path.name for path in elsewhere.iterdir()} == {"out"}


def test_labels_of_jobs_are_short_safe_and_distinct():
    words = [["data.train=a/b.tsv"], ["data.train=a_b.tsv"], ["prune=[]"], ["prune=[heads]"], [f"name={'x' * 200}"]]
    labels = [named(Recipe(), job)[1] for job in words]
    assert len(set(labels)) == len(labels)
    assert all(len(label) <= 80 and "/" not in label for label in labels)


def test_models_and_data_are_looked_at_once_a_sweep(monkeypatch):
    looked = []

    def check(recipe, *, refused):
        assert not refused
        looked.append(recipe)

    monkeypatch.setattr(compose, "check", check)
    check_all(sweeps.combinations(["prune.heads.ratio=0.1,0.2,0.3", "seed=1,2", "name=mine"]))
    assert [recipe.name for recipe in looked] == ["mine-heads.ratio=0.1-seed=1", "mine-heads.ratio=0.1-seed=2"]
    looked.clear()
    check_all(sweeps.combinations(["prepare=[],[theseus]"]))
    assert [list(recipe.prepare) for recipe in looked] == [[], ["theseus"]]


def test_every_setting_has_words_beside_it():
    told = {field.path: field for field in describe(PruneHeads, "prune.heads")}
    ratio = told["prune.heads.ratio"]
    assert (ratio.kind, ratio.default) == ("float", "0.3")
    assert ratio.comment.startswith("share removed, over all layers")


def test_comments_are_found_in_their_field_and_only_there():
    losses = {field.path: field.comment for field in describe(SoftTargets)}
    assert losses["temperature"] == "T, dividing both sides' logits"
    assert losses["weight"] == "its factor in the sum"


@pytest.mark.slow
def test_the_wheel_holds_the_recipes(elsewhere):
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", str(elsewhere), str(ROOT)]
    subprocess.run(command, check=True)
    (wheel,) = elsewhere.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"compress/recipes/{path.name}" for path in SHIPPED} <= set(names)
    assert {f"compress/report/templates/{path.name}" for path in (ROOT / "compress/report/templates").iterdir()} <= set(
        names
    )
