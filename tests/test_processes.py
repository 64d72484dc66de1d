"""Several processes: which are taken, and that every command but `run`, and Python, refuses them."""

from __future__ import annotations

import pytest

from compress.cli.main import main
from compress.processes import MEETING, OWN, RANKS, SIZES, Launched, SeveralProcessesError, launched, refuse_several
from compress.run.recipe import Recipe


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in (*SIZES, *RANKS, *OWN, *MEETING):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("value", ["2", "8", "0", "-1", "two", "1.5", ""])
def test_more_than_one_process_is_refused(name, value, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(SeveralProcessesError, match=rf"^{name} = .* must be 1 or unset"):
        refuse_several()


def test_a_launcher_of_one_process_is_accepted(monkeypatch):
    refuse_several()
    monkeypatch.setenv("WORLD_SIZE", "1")
    refuse_several()


@pytest.mark.parametrize(
    "argv",
    [["run", "-m", "seed=1,2"], ["run", "--cfg"], ["export", "x"], ["compare", "x"], ["bench", "x"],
     ["predict", "x", "y"]],
    ids=" ".join,
)  # fmt: skip
def test_every_command_that_works_is_refused_in_a_line(argv, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(argv) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("WORLD_SIZE = 2: must be 1 or unset, because this runs in one process. Start several")
    assert (printed.err.count("\n"), printed.out) == (1, "")
    assert not list(tmp_path.iterdir())


def test_run_takes_what_torchrun_says_and_refuses_what_other_launchers_do(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert launched() is None
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    assert main(["run"]) == 2
    assert "because several processes must be started by torchrun or accelerate launch." in capsys.readouterr().err
    monkeypatch.delenv("OMPI_COMM_WORLD_SIZE")
    told = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert launched() == Launched(3, 4, 1)
    monkeypatch.setenv("RANK", "4")
    with pytest.raises(SeveralProcessesError, match="RANK = 4 is not the number of one of them"):
        launched()


def test_only_the_first_process_speaks(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("compress.cli.main.time.sleep", lambda _: None)
    assert main(["run"]) == 2
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("argv", [["recipes"], ["--help"], ["run", "--help"], ["--version"]], ids=" ".join)
def test_what_only_tells_is_not_refused(argv, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(argv) == 0


def test_python_is_refused_too(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SeveralProcessesError):
        Recipe(output=str(tmp_path / "run")).run()
    assert not list(tmp_path.iterdir())
