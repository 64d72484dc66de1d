"""Chinese words as the package jieba finds them: the one file that imports it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from compress.errors import MissingPackageError

HAN = "[\u3005-\u3007\u2e80-\u2fdf\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd]"
"""A regular expression for a Chinese character."""
_RUN = re.compile(f"{HAN}+")


def is_installed() -> bool:
    """Return whether words can be found."""
    return find_spec("jieba") is not None


def version() -> str:
    """Return the version of jieba, on which depends what it finds."""
    return metadata.version("jieba")


def jieba_words(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each Chinese word begins and ends; each run of Chinese characters is cut by itself.

    Raises MissingPackageError.
    """
    for run in _RUN.finditer(text):
        for _, begin, end in _segmenter().tokenize(run[0]):
            yield run.start() + begin, run.start() + end


@cache
def _segmenter() -> Any:
    """Return jieba's segmenter with its dictionary; of its own it would write a copy to the folder of temporary files.

    The dictionary is read again in every process, once.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its strings have escapes that newer Pythons warn of
        try:
            import jieba
        except ImportError as error:
            raise MissingPackageError("jieba", "chinese", "Cutting Chinese into words (data.words=jieba)") from error
    segmenter = jieba.Tokenizer()
    segmenter.FREQ, segmenter.total = segmenter.gen_pfdict(segmenter.get_dict_file())
    segmenter.initialized = True
    return segmenter
