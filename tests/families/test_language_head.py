"""Masked-language-model heads: ours says what transformers' says, for every family, tied or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM, PreTrainedModel

from compress.families.language_head import LanguageHead, has_language_head, load_language_model, word_embeddings
from compress.models.loading import load_config, quiet, save_model
from compress.models.outputs import INPUTS
from tests.conftest import BUT_DEBERTA, CONFIGS, save_tiny, tiny_batch, tiny_tokenizer


def tiny_language_model(family: str = "bert", seed: int = 0, **settings: Any) -> PreTrainedModel:
    """Return a masked language model with weights far from symmetric."""
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    with quiet():
        model: PreTrainedModel = AutoModelForMaskedLM.from_config(CONFIGS[family](**settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    torch.set_rng_state(state)
    return model


def save_language_model(folder: Path, family: str = "bert", **settings: Any) -> Path:
    """Save a pretrained model with its head."""
    save_model(tiny_language_model(family, **settings), tiny_tokenizer(family), folder)
    return folder


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", BUT_DEBERTA)
@torch.no_grad()
def test_encoder_and_head_say_what_the_whole_model_says(family: str, tied: bool, tmp_path: Path) -> None:
    folder = save_language_model(tmp_path / "model", family, tie_word_embeddings=tied)
    batch = tiny_batch(family=family)
    inputs = {name: batch[name] for name in INPUTS if name in batch}
    with quiet():
        expected = AutoModelForMaskedLM.from_pretrained(folder).eval()(**inputs).logits
    encoder, head = load_language_model(folder)
    assert (head.decoder is None) == tied
    found = head(encoder(**inputs).last_hidden_state, word_embeddings(encoder))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert has_language_head(folder, load_config(folder))


@pytest.mark.parametrize("family", BUT_DEBERTA)
def test_a_model_without_a_head_is_known_for_it(family: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "plain", family)
    assert not has_language_head(folder, load_config(folder))
    classifier = save_tiny(tmp_path / "classifier", family, num_labels=2)
    assert not has_language_head(classifier, load_config(classifier))


def test_a_narrower_head_takes_over_what_has_its_shape() -> None:
    known = LanguageHead(CONFIGS["bert"]())
    torch.nn.init.normal_(known.bias)
    config = CONFIGS["bert"]()
    config.hidden_size = 8
    own = LanguageHead(config)
    before = own.dense.weight.clone()
    own.start_from(known)
    assert torch.equal(own.bias, known.bias)
    assert torch.equal(own.dense.weight, before)
