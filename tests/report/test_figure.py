"""Pictures: small, reproducible, coloured by the page, names apart from each other."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from compress.report.contributions import contributions
from compress.report.curves import curves
from compress.report.document import parse
from compress.report.figure import COLOURS
from compress.report.labels import Box, place_labels, spread
from compress.report.steps import steps
from compress.report.timings import grids
from compress.report.tradeoff import Point, frontier, picture, tradeoff


def test_the_picture_names_every_model_with_both_figures(report: dict[str, Any]) -> None:
    del report["baselines"][0]["latency"]
    svg = tradeoff(parse(report))
    names = [element.text for element in ElementTree.fromstring(svg).iter("text")]
    assert {"teacher", "distill", "heads", "neurons", "onnx", "dynamic", "static", "labels_only"} <= set(names)
    assert "tfidf" not in names
    assert "student" not in names  # the same model as the one after the last stage


def test_fewer_than_two_points_are_no_picture(report: dict[str, Any]) -> None:
    assert tradeoff(parse(report | {"stages": report["stages"][:1], "artifacts": [], "baselines": []})) == ""


@pytest.mark.parametrize("narrow", [False, True])
def test_colours_and_font_are_the_page_s(report: dict[str, Any], narrow: bool) -> None:
    parsed = parse(report)
    pictures = [tradeoff(parsed, narrow=narrow), contributions(parsed, narrow=narrow)]
    pictures += [curves(parsed, stage, narrow=narrow) for stage in parsed.stages[1:]]
    for svg in pictures:
        assert len(svg) < 40_000
        assert "font-family" not in svg
        outside = re.sub(r"var\(--\w+, #\w{6}\)", "", svg)
        assert not [colour for colour in COLOURS.values() if colour in outside]
        assert "#000000" not in outside
        assert ElementTree.fromstring(svg).get("role") == "img"


def test_curves_show_losses_alone_and_count_on_when_training_began_anew(report: dict[str, Any]) -> None:
    parsed = parse(report)
    svg = curves(parsed, parsed.stages[3])
    names = [element.text for element in ElementTree.fromstring(svg).iter("text")]
    assert {"loss", "soft", "labels", "validation accuracy, %", "150"} <= set(names)  # 90 steps, twice
    assert not {"grad_norm", "learning_rate", "validation_accuracy", "epoch"} & set(names)


def test_the_frontier_is_what_no_other_beats() -> None:
    assert frontier([(3, 0.8), (1, 0.7), (2, 0.9), (4, 0.95), (1, 0.6), (4, 0.9)]) == [(1, 0.7), (2, 0.9), (4, 0.95)]


def test_names_of_close_points_do_not_lie_on_each_other() -> None:
    points = [(200.0 + 6 * number, 150.0 + 4 * (number % 3), f"model {number}") for number in range(8)]
    places = place_labels(points, [6.0] * 8, Box(0, 0, 500, 300), [], 12)
    half = len("model 0") * 0.58 * 6
    boxes = [
        Box(x + place.x - half, y + place.y - 7, x + place.x + half, y + place.y + 7)
        for (x, y, _), place in zip(points, places, strict=True)
    ]
    shared = sum(box.overlap(other) for number, box in enumerate(boxes) for other in boxes[:number])
    assert shared < 5  # square pixels, where one name has 680


def test_heights_are_spread_about_their_middle_in_order() -> None:
    assert spread([10.0, 10.0, 50.0], 10) == [5.0, 15.0, 50.0]
    assert spread([12.0, 10.0, 11.0], 10) == [21.0, 1.0, 11.0]
    assert spread([], 10) == []


def test_each_step_is_measured_against_the_one_before_it(report: dict[str, Any]) -> None:
    found = {step.entry.name: step for step in steps(parse(report))}
    assert list(found) == ["distill", "heads", "neurons", "onnx", "dynamic", "static"]
    assert found["heads"].before.name == "distill"
    assert found["heads"].latency == pytest.approx(10.5 / 10.9)
    assert found["dynamic"].before.name == "neurons"
    assert found["dynamic"].size == pytest.approx(17.6 / 58.5)
    assert found["distill"].metric == pytest.approx(-0.012)
    assert not found["distill"].chance
    assert found["heads"].chance  # the paired test says so, whatever the intervals are
    assert found["static"].paired is not None


def test_a_step_without_a_paired_test_may_be_chance(report: dict[str, Any]) -> None:
    del report["stages"][1]["differences"]
    found = {step.entry.name: step for step in steps(parse(report))}
    assert found["distill"].paired is None
    assert found["distill"].chance


def test_a_step_timed_elsewhere_has_no_change_of_latency(report: dict[str, Any]) -> None:
    for timing in report["artifacts"][1]["latency"]:
        timing["device"] = "cuda"
    found = {step.entry.name: step for step in steps(parse(report))}
    assert found["onnx"].latency is None


def test_grids_keep_devices_apart_and_compare_equal_conditions(report: dict[str, Any]) -> None:
    timing = report["stages"][0]["latency"][0]
    report["stages"][0]["latency"].append(timing | {"device": "cuda", "threads": None, "median_ms": 4.0})
    report["artifacts"][2]["latency"].append(timing | {"device": "cuda", "threads": None, "median_ms": 2.0})
    cpu, gpu = grids(parse(report))
    assert (cpu.place, gpu.place) == ("cpu, 1 thread", "cuda")
    assert [name for name, _ in gpu.rows] == ["teacher", "dynamic"]
    cells = gpu.rows[1][1]
    assert [cell and cell.speedup for cell in cells] == [2.0]
    assert cpu.columns[0] == ("batch 1", "real lengths")


@pytest.mark.parametrize(("metric", "value"), [("accuracy", 0.9), ("spearman", 0.0), ("loss", 12.5)])
def test_models_that_are_worth_the_same_have_an_axis_of_different_figures(metric: str, value: float) -> None:
    points = [Point(name, ms, value, None, "#0063b1", "o") for name, ms in (("a", 1.0), ("b", 2.0))]
    svg = picture("same", points, metric, "cpu", narrow=False)
    axis = svg[svg.index("matplotlib.axis_2") :]
    figures = re.findall(r">([−\d.]+)</text>", axis)
    assert len(figures) > 2
    assert len(set(figures)) == len(figures)
