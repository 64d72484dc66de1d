"""Reading and writing report.json: JSON on one side, the records of `compress.report.schema` on the other."""

from __future__ import annotations

import json
import math
import numbers
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from compress.errors import CompressError
from compress.files import storage_error
from compress.report.schema import SCHEMA, Report
from compress.runs import run_in

_NESTED = "its values are nested too deeply for a report. Run the recipe again to write a new one."
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_MISFIT = re.compile(r"(?P<rule>.*?)(?: - at `\$\.?(?P<place>.*)`)?", re.DOTALL)


def load_report(path: Path) -> Report:
    """Read report.json; ``path`` may be its run directory. Raises CompressError when it cannot be used."""
    path = Path(path)
    path = path / "report.json" if path.is_dir() else path
    if path.exists() and not path.is_file():
        raise CompressError(f"{path} is not a regular file. A finished run has a report.json; name its folder.")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        remedy = run_in(path.parent) or "A finished run has a report.json; name its folder."
        raise CompressError(f"{path} does not exist. {remedy}") from None
    except OSError as error:
        raise storage_error(error, path) or error from error
    except UnicodeDecodeError as error:
        raise CompressError(f"{path} cannot be read: {error}.") from error
    except ValueError as error:
        raise CompressError(f"{path} is not valid JSON: {error}. Run the recipe again to write a new one.") from error
    except RecursionError:
        raise CompressError(f"{path}: {_NESTED}") from None
    try:
        return parse(document)
    except CompressError as error:
        raise CompressError(f"{path}: {error}") from None
    except RecursionError:
        raise CompressError(f"{path}: {_NESTED}") from None


def parse(document: Any) -> Report:
    """Return the report that ``document``, plain JSON, holds; raises CompressError where it is not one of ours."""
    if not isinstance(document, Mapping) or "schema" not in document:
        raise CompressError("this is not a report of compress: it has no key 'schema'.")
    if document["schema"] != SCHEMA:
        raise CompressError(
            f"the report has schema {document['schema']!r}, this version of compress reads schema {SCHEMA}. "
            "Use the version that wrote it, or run the recipe again."
        )
    try:
        return msgspec.convert(clean(document), Report)
    except msgspec.ValidationError as error:
        misfit = _MISFIT.fullmatch(str(error))
        assert misfit is not None
        rule = misfit["rule"].replace("`", "")
        raise CompressError(f"'{misfit['place'] or 'report'}': {rule[:1].lower()}{rule[1:]}.") from None


def plain(report: Report) -> dict[str, Any]:
    """Return a report as report.json holds it."""
    document: dict[str, Any] = clean(msgspec.to_builtins(report, enc_hook=_plain))
    return document


def _plain(value: Any) -> Any:
    """Return what a library's number or mapping stands for."""
    return dict(value) if isinstance(value, Mapping) else clean(value)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of report.json."""
    described: dict[str, Any] = clean(msgspec.json.schema(Report))  # tuples become lists
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "report.json of compress"} | described


def clean(value: Any) -> Any:
    """Return ``value`` as JSON can hold it: control characters become U+FFFD, NaN and infinities null.

    In an object, a number that is not finite is left out, as a figure that was not recorded.
    """
    if isinstance(value, Mapping):
        return {clean(str(key)): clean(item) for key, item in value.items() if not _is_unbounded(item)}
    if isinstance(value, (list, tuple)):
        return [clean(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return None if _is_unbounded(value) else float(value)
    return _UNPRINTABLE.sub("\ufffd", str(value))


def _is_unbounded(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not math.isfinite(value)
