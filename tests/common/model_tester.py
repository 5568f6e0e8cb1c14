"""What the common suite asks of a family: a `ModelTester` in `tests/models/<model>/tester.py`."""

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from tts_models.registration import MODEL_FOLDERS, REGISTERED_MODELS


Inputs = dict[str, Any]


class ModelTester:
    """Makes the tiny models and inputs of one family for the tests in `tests/common`.

    A family subclasses this once, under the name `Tester`. Everything is deterministic, float32 and on the CPU, and
    small enough for a forward pass in milliseconds. The hooks that return nothing here are optional: the tests that
    use them are skipped for a family where they mean nothing.

    Attributes:
        config_class (`type`): The family's configuration.
        model_class (`type`): The class that `AutoModel` or its head variant loads.
        attn_implementations (`tuple[str, ...]`): Attention kinds that must agree; empty for a network without any.
        padding_sides (`tuple[str, ...]`): Sides on which a batch of unequal rows may be padded.
        untrained_parameters (`frozenset[str]`): Parameters that no loss reaches, by design.
    """

    config_class: type[PreTrainedConfig]
    model_class: type[PreTrainedModel]
    attn_implementations: tuple[str, ...] = ()
    padding_sides: tuple[str, ...] = ()
    untrained_parameters: frozenset[str] = frozenset()

    def config(self, **overrides: Any) -> PreTrainedConfig:
        """A tiny configuration."""
        raise NotImplementedError

    def inputs(self, batch_size: int = 2) -> Inputs:
        """Arguments of `forward`: rows of equal length, every tensor with the batch first."""
        raise NotImplementedError

    def ragged_inputs(self, padding_side: str) -> tuple[Inputs, list[Inputs]]:
        """A batch of rows of different lengths, padded on one side, and the same rows alone."""
        raise NotImplementedError

    def valid(self, output: ModelOutput, inputs: Inputs, row: int) -> list[torch.Tensor]:
        """The parts of a forward pass's output that belong to `row`, padding removed."""
        raise NotImplementedError

    def training_inputs(self) -> Inputs:
        """Arguments with which `forward` returns a `loss`."""
        raise NotImplementedError

    def loss(self, model: PreTrainedModel) -> torch.Tensor:
        """The scalar that training minimises: `forward`'s loss, for a codec also what the recipe adds to it."""
        return model(**self.training_inputs()).loss

    def invalid_configs(self) -> list[Inputs]:
        """Keyword arguments that the configuration must refuse."""
        return []

    def invalid_calls(self, model: PreTrainedModel) -> dict[str, tuple[Callable[[], Any], str]]:
        """Name → a call that must raise `ValueError`, and what its message must contain (a regular expression)."""
        return {}

    def streams(self, model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
        """Pairs of the offline waveform and the one put together from a stream, with a label each."""
        return iter(())

    def decode_step(self, model: PreTrainedModel) -> tuple[Callable[..., Any], Callable[[], tuple]] | None:
        """The function that a fast loop compiles, and what makes its arguments afresh (a cache is changed by use)."""
        return None

    def model(self, **overrides: Any) -> PreTrainedModel:
        """A tiny model with reproducible random weights, in evaluation mode."""
        torch.manual_seed(0)
        return self.model_class(self.config(**overrides)).eval()


class SpeakingModelTester(ModelTester):
    """A tester of a model that speaks: one that has `generate`, `generate_stream` and a processor.

    Attributes:
        text (`str`): What is said.
        other_text (`str`): Something longer, so that the rows of a batch differ in length.
        voice: A voice as the processor takes it; `None` for its default.
        generation_arguments (`dict`): Keyword arguments of `generate` that keep an untrained model short.
    """

    text = "One, two, three."
    other_text = "A longer sentence, so that the rows of a batch differ in length."
    voice: Any = None
    generation_arguments: Inputs = {}

    def processor(self) -> Any:
        """A tiny processor that fits [`ModelTester.config`]."""
        raise NotImplementedError

    def invalid_speech(self, processor: Any, model: PreTrainedModel) -> dict[str, tuple[Callable[[], Any], str]]:
        """As [`ModelTester.invalid_calls`], for the processor and `generate`."""
        raise NotImplementedError


def model_types() -> list[str]:
    """Every registered family."""
    return sorted(REGISTERED_MODELS)


def speaking_model_types() -> list[str]:
    """Every registered family that `AutoModelForTextToWaveform` knows."""
    return sorted(name for name, classes in REGISTERED_MODELS.items() if "AutoModelForTextToWaveform" in classes)


def load_tester(model_type: str) -> ModelTester:
    """The tester of a family; a registered family without one is a failed import, hence a failed test."""
    folder = MODEL_FOLDERS.get(model_type, model_type)
    return importlib.import_module(f"tests.models.{folder}.tester").Tester()
