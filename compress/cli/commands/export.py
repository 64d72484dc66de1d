"""``compress export``: quantize and export a saved student."""

from __future__ import annotations

from collections.abc import Sequence

from compress.cli.parser import FOLDERS, WORDS, Parser
from compress.cli.running import DRY, carry_out, show
from compress.starting import importing

EXPORT = """\
RUN is the folder of a finished run: its data and settings are used again, and its student is not trained further.
FOLDER is any saved classifier (transformers, safetensors), trained here or not; artifacts are compared with it.
Either way, data is needed to calibrate and measure the artifacts.

examples:
  compress export runs/quickstart/latest 'quantize=[dynamic,static]' 'export=[onnx]'
  compress export runs/quickstart/latest 'export=[onnx,tensorrt]' output=deploy
  compress export my/classifier data=files data.train=train.tsv data.test=test.tsv 'quantize=[static]'

An artifact that loses more than max_drop (1 point of the main metric) on validation rows is written under rejected/,
and a gentler form is tried: parts in fp32, static int8, fp32. If none is left, the exit code is 3.

Results are written to runs/export/<number>/, or to output=, laid out as by `compress run`. RUN and FOLDER are
not changed.
"""


def parser() -> Parser:
    """Return the options."""
    options = Parser("export", "RUN_OR_FOLDER [WORD …] [--cfg]", "Quantize and export a saved student.", EXPORT)
    options.add_completed(
        FOLDERS, "model", metavar="RUN_OR_FOLDER", help="folder of a finished run, or of a saved classifier"
    )
    options.add_completed(
        WORDS, "words", nargs="*", metavar="WORD", help="choice=NAME or setting=VALUE, as for compress run"
    )
    options.add_argument(*DRY, action="store_true", help="check, print the whole recipe, run nothing")
    options.add_telling()
    return options


def main(argv: Sequence[str]) -> int:
    """``compress export``: quantize and export a saved student."""
    options = parser().parse_intermixed_args(argv)

    with importing():
        from compress.cli.export import recipe_for

    recipe = recipe_for(options.model, options.words)
    if options.cfg:
        return show(recipe)
    return carry_out(recipe, ["export", options.model, *options.words])
