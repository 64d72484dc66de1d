"""A family in one file: fused queries, keys and values, a gated feed-forward network, attention of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput

from compress.data.dataset import Dataset, Split
from compress.families.base import Attention, Family, Listener, Projection
from compress.families.forms.fake_quantization import FakeQuantization, ranges
from compress.families.forms.quantization_aware import fake_quantized
from compress.families.forms.uneven import kept_heads, neurons, shrink
from compress.families.registry import FAMILIES, LAYERED, can_be_taken_apart, register
from compress.families.shipped import CODE
from compress.known import Known
from compress.models.loading import load_model, save_model
from compress.models.outputs import observe, parameters
from compress.onnx.folder import MODEL
from compress.pipeline.model import Model
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.prune.criteria import importance_of
from compress.prune.parts import HEADS as HEAD_PARTS
from compress.prune.parts import UNITS as UNIT_PARTS
from compress.prune.width import PruneWidth
from compress.quantize.int8 import DynamicInt8, WeightBits
from compress.runtimes.onnxruntime import inference_session, optimized_products
from compress.tasks.classification import Classification
from tests.conftest import VOCABULARY, reviews, tiny_batch, tiny_tokenizer


class ToyConfig(PreTrainedConfig):
    """Sizes, by names that no other family has."""

    model_type = "toy"
    vocab_size: int = len(VOCABULARY)
    hidden_size: int = 16
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    glu_units: int = 12
    max_position_embeddings: int = 64
    pad_token_id: int = 0


class Mixer(nn.Module):
    """Attention, which never asks transformers for its function."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.size = config.hidden_size // config.num_attention_heads
        self.fused = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)

    def read(self, states: Tensor) -> list[Tensor]:
        """Return queries, keys and values, (batch, heads, tokens, size)."""
        fused = self.fused(states).view(*states.shape[:2], 3, -1, self.size)
        return [fused[:, :, part].transpose(1, 2) for part in range(3)]

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Mix the states (batch, tokens, hidden) of real tokens."""
        query, key, value = self.read(states)
        scores = query @ key.transpose(2, 3) * self.size**-0.5
        context = (scores + mask).softmax(-1) @ value
        mixed: Tensor = self.output(context.transpose(1, 2).flatten(2))
        return mixed


class Block(nn.Module):
    """A layer whose feed-forward network is gated: down(silu(gate) * up)."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.mixer, self.norm = Mixer(config), nn.LayerNorm(config.hidden_size)
        self.gated = nn.Linear(config.hidden_size, 2 * config.glu_units)
        self.down, self.last_norm = nn.Linear(config.glu_units, config.hidden_size), nn.LayerNorm(config.hidden_size)

    def forward(self, hidden_states: Tensor, mask: Tensor) -> Tensor:
        """Return the states after this layer."""
        states = self.norm(hidden_states + self.mixer(hidden_states, mask))
        gate, up = self.gated(states).chunk(2, dim=-1)
        after: Tensor = self.last_norm(states + self.down(nn.functional.silu(gate) * up))
        return after


class ToyModel(PreTrainedModel):
    """The encoder."""

    config_class: ClassVar[type] = ToyConfig
    base_model_prefix = "toy"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.places = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.num_hidden_layers)])
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        """Return the words' embeddings."""
        return self.words

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> BaseModelOutput:
        """Return the states of all layers."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        states = [self.words(input_ids) + self.places(places)]
        mask = (1 - attention_mask[:, None, None, :].to(states[0].dtype)) * -1e4
        for block in self.blocks:
            states.append(block(states[-1], mask))
        return BaseModelOutput(last_hidden_state=states[-1], hidden_states=tuple(states))


class ToyForSequenceClassification(PreTrainedModel):
    """The classifier, which reads the first token."""

    config_class: ClassVar[type] = ToyConfig
    base_model_prefix = "toy"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.toy = ToyModel(config)
        self.answer = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> SequenceClassifierOutput:
        """Return logits (batch, labels)."""
        seen = self.toy(input_ids, attention_mask)
        return SequenceClassifierOutput(logits=self.answer(seen[0][:, 0]), hidden_states=seen.hidden_states)


class ToyFamily(Family):
    """All that the package has to know."""

    config_class = ToyConfig
    encoder = "toy"
    stack = "blocks"
    embedding = "words"
    units_entry = "glu_units"
    sums_embeddings = False

    def projections(self) -> tuple[Projection, ...]:
        """Return the fused one."""
        return (Projection("mixer.fused", holds=3),)

    def attention_output_name(self) -> str:
        """Return attention's last layer."""
        return "mixer.output"

    def feed_forward(self) -> tuple[Projection, ...]:
        """Return gates and values in one."""
        return (Projection("gated", holds=2),)

    def feed_forward_output_name(self) -> str:
        """Return the layer that reads units."""
        return "down"

    def attention_modules(self) -> tuple[str, ...]:
        """Return attention and its normalisation."""
        return "mixer", "norm"

    def feed_forward_modules(self) -> tuple[str, ...]:
        """Return the gated network and its normalisation."""
        return "gated", "down", "last_norm"

    @contextmanager
    def listening(self, model: PreTrainedModel, listener: Listener) -> Iterator[None]:
        """Run attention by hand, with the listener in its middle."""

        def told(mixer: Any, states: Tensor, mask: Tensor) -> Tensor:
            query, key, value = mixer.read(states)
            scores = query @ key.transpose(2, 3) * mixer.size**-0.5
            attention = Attention(query, key, value, scores, (scores + mask).softmax(-1) @ value)
            listener(attention)
            mixed: Tensor = mixer.output(attention.context.transpose(1, 2).flatten(2))
            return mixed

        mixers: list[Any] = [layer.get_submodule("mixer") for layer in self.layers(model)]
        before = [vars(mixer).get("forward") for mixer in mixers]
        try:
            for mixer in mixers:
                mixer.forward = lambda states, mask, mixer=mixer: told(mixer, states, mask)
            yield
        finally:
            for mixer, own in zip(mixers, before, strict=True):
                del mixer.forward
                if own is not None:
                    mixer.forward = own


HEADS, UNITS = [[0, 2], [1], [0, 1, 2, 3]], [[1, 5, 11], list(range(12)), [0, 7]]
PRUNED_PARAMETERS = 5 * (3 * 4 * (16 + 1) + 4 * 16) + 19 * (2 * (16 + 1) + 16)


@pytest.fixture(autouse=True)
def family() -> Iterator[None]:
    """The family is known for the time of a test."""
    AutoConfig.register("toy", ToyConfig, exist_ok=True)
    AutoModel.register(ToyConfig, ToyModel, exist_ok=True)
    AutoModelForSequenceClassification.register(ToyConfig, ToyForSequenceClassification, exist_ok=True)
    register(ToyFamily())
    yield
    del FAMILIES["toy"], LAYERED["toy"]


def toy(seed: int = 0) -> PreTrainedModel:
    """Return a model whose weights are far from symmetric."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = ToyForSequenceClassification(ToyConfig(num_labels=2)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model


def batch() -> dict[str, Tensor]:
    return tiny_batch(family="roberta")  # without token types


@contextmanager
def masked(model: PreTrainedModel, heads: Sequence[Sequence[int]], units: Sequence[Sequence[int]]) -> Iterator[None]:
    """Let only some heads and units of the whole model add anything, by what its linear layers are given."""
    with ExitStack() as stack:
        for block, kept, wide in zip(model.base_model.blocks, heads, units, strict=True):
            mine, own = torch.zeros(16), torch.zeros(12)
            for head in kept:
                mine[head * 4 : head * 4 + 4] = 1
            own[list(wide)] = 1
            for module, mask in ((block.mixer.output, mine), (block.down, own)):
                handle = module.register_forward_pre_hook(lambda _, given, mask=mask: (given[0] * mask,))
                stack.callback(handle.remove)
        yield


@torch.no_grad()
def test_without_some_heads_and_units_it_computes_what_the_masked_model_does() -> None:
    model = toy()
    assert can_be_taken_apart(model.config)
    with masked(model, HEADS, UNITS):
        expected = observe(model, batch()).logits
    smaller = shrink(model, heads=HEADS, units=UNITS)
    torch.testing.assert_close(observe(smaller, batch()).logits, expected)
    assert kept_heads(smaller.config) == HEADS
    assert neurons(smaller.config) == [3, 12, 2]
    assert smaller.base_model.blocks[0].mixer.fused.out_features == 3 * 2 * 4
    assert smaller.base_model.blocks[2].gated.out_features == 2 * 2
    assert parameters(model) - parameters(smaller) == PRUNED_PARAMETERS
    again = shrink(smaller, heads=[[1], [0], [1, 3]], layers=[0, 2])
    assert kept_heads(again.config) == [[2], [1, 3]]


@torch.no_grad()
def test_it_reloads_to_the_bit_and_names_no_code_that_another_package_defines(tmp_path: Path) -> None:
    smaller = shrink(toy(), heads=HEADS, units=UNITS)
    save_model(smaller, tiny_tokenizer("roberta"), tmp_path)
    assert not (tmp_path / CODE).exists()
    for again in (load_model(tmp_path), AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()):
        assert type(again) is type(smaller)
        assert again.config.model_type == "compress_toy"
        assert torch.equal(observe(again, batch()).logits, observe(smaller, batch()).logits)


def slopes(model: PreTrainedModel, modules: Sequence[nn.Module], places: slice) -> float:
    """Return the mean over rows of |∂L/∂ξ| for a gate on what one linear layer reads, by central differences."""
    found, step = [], 1e-3
    for row in range(3):
        alone = {name: value[row : row + 1] for name, value in batch().items()}
        losses = []
        for offset in (step, -step):
            scale = torch.ones(modules[0].in_features)  # type: ignore[arg-type]
            scale[places] += offset
            handle = modules[0].register_forward_pre_hook(lambda _, given, scale=scale: (given[0] * scale,))
            with torch.no_grad():
                logits = model(alone["input_ids"], alone["attention_mask"]).logits.double()
            handle.remove()
            losses.append(nn.functional.cross_entropy(logits, alone["labels"]).item())
        found.append(abs(losses[0] - losses[1]) / (2 * step))
    return sum(found) / 3


def test_importance_of_heads_and_units_is_the_slope_of_the_loss_in_their_gates() -> None:
    model = toy()
    heads, units = (importance_of(model, parts, [batch()], "gradient") for parts in (HEAD_PARTS, UNIT_PARTS))
    assert [len(scores) for scores in heads] == [4, 4, 4]
    assert [len(scores) for scores in units] == [12, 12, 12]
    for layer, number in [(0, 0), (1, 3), (2, 2)]:
        block = model.base_model.blocks[layer]
        by_hand = slopes(model, [block.mixer.output], slice(number * 4, number * 4 + 4))
        assert heads[layer][number].item() == pytest.approx(by_hand, rel=0.05, abs=2e-4)
        assert units[layer][number].item() == pytest.approx(
            slopes(model, [block.down], slice(number, number + 1)), rel=0.05, abs=2e-4
        )
    assert not any("forward" in vars(block.mixer) for block in model.base_model.blocks)


def test_magnitude_is_the_norm_of_all_that_leaves_with_a_head_or_unit() -> None:
    model = toy()
    block = model.base_model.blocks[1]
    fused, output = block.mixer.fused.weight.detach(), block.mixer.output.weight.detach()
    squares = [fused[part * 16 + 8 + place].pow(2).sum() for part in range(3) for place in range(4)]
    head = (sum(squares) + output[:, 8:12].pow(2).sum()).sqrt()  # type: ignore[union-attr]
    torch.testing.assert_close(importance_of(model, HEAD_PARTS, [], "magnitude")[1][2], head)
    gated, down = block.gated.weight.detach(), block.down.weight.detach()
    unit = torch.cat([gated[7], gated[12 + 7], down[:, 7]]).norm()
    torch.testing.assert_close(importance_of(model, UNIT_PARTS, [], "magnitude")[1][7], unit)


@torch.no_grad()
def test_fake_quantization_takes_the_pruned_form(tmp_path: Path) -> None:
    fake = fake_quantized(shrink(toy(), heads=HEADS, units=UNITS), FakeQuantization())
    observe(fake.train(), batch())
    fake.eval()
    assert all(moving.batches == 1 for moving in ranges(fake))
    save_model(fake, tiny_tokenizer("roberta"), tmp_path)
    assert torch.equal(observe(load_model(tmp_path), batch()).logits, observe(fake, batch()).logits)


def test_its_graph_says_the_same_and_multiplies_in_int8(tmp_path: Path) -> None:
    smaller = shrink(toy(), heads=HEADS, units=UNITS)
    save_model(smaller, tiny_tokenizer("roberta"), tmp_path / "student")
    texts, labels = zip(*[(text, int(label == "good")) for label, text in reviews(20, 0)], strict=True)
    split = Split(texts, labels=np.array(labels, np.int64))
    data = Dataset("reviews", Classification(("bad", "good")), split, split, split)
    (tmp_path / "cache").mkdir()
    state = State.begin(data, Workshop(tmp_path / "cache"), 0, student=Model(tmp_path / "student", "student"))
    folder = DynamicInt8(weight_bits=WeightBits.eight)(state).artifacts[-1].folder
    (graph,) = (tmp_path / "cache").glob(f"onnx-*/{MODEL}")
    inputs = {name: value.numpy() for name, value in batch().items() if name != "labels"}
    with torch.no_grad():
        expected = observe(smaller, batch()).logits.numpy()
    np.testing.assert_allclose(inference_session(graph, 1).run(None, inputs)[0], expected, rtol=1e-4, atol=1e-5)
    assert np.abs(inference_session(folder / MODEL, 1).run(None, inputs)[0] - expected).max() < 0.2
    products = [product for product in optimized_products(folder / MODEL) if product.weighted]
    assert all(product.int8 for product in products)
    parts = Counter(product.part for product in products)
    in_layers = {f"layer {layer} {part}": 2 for layer in (1, 2, 3) for part in ("attention", "ffn")}
    assert parts == in_layers | {"head": 1}


def test_what_a_family_cannot_do_is_refused_before_work() -> None:
    pytest.importorskip("torch_pruning")
    (fault,) = PruneWidth().faults(Known(student=toy().config))
    message = "prune.width: cannot remove hidden channels from a student of type toy. Leave width out."
    assert str(fault.under("prune.width")) == message
