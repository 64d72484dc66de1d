"""The words of a text, as the model of a tagger has them."""

import re
import unicodedata

WORD = re.compile(r"['’]s(?![ws])|[@#]?[ws](?:[ws]|\.(?=[ws])|['’](?=[ws])(?!s(?![ws])))*|c|[^ ]")
UNDIVIDED = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]")


def divided(text: str) -> list[tuple[int, int]]:
    """Return the words of a text, as the model's rows have them: punctuation is apart, and so are Chinese signs."""

    def kind(sign: str) -> str:
        if sign in "'’.@#":
            return sign
        if sign in "sS":
            return "s"
        if sign.isspace():
            return " "
        if UNDIVIDED.match(sign):
            return "c"
        return "w" if sign == "_" or unicodedata.category(sign)[0] in "LMN" else "-"

    return [match.span() for match in WORD.finditer("".join(map(kind, text)))]


def in_words(text: str) -> str:
    """Return a text with a space between its words."""
    return " ".join(text[start:stop] for start, stop in divided(text))
