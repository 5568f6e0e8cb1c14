"""Tiny parts of MegaTTS3 for the common suite: aligner and duration model."""

from collections.abc import Callable
from typing import Any

import torch

from tests.common.model_tester import Inputs, ModelTester
from tts_models import (
    MegaTTS3AlignerConfig,
    MegaTTS3AlignerForConditionalGeneration,
    MegaTTS3DurationConfig,
    MegaTTS3DurationModel,
)


BANDS, FRAMES, WORDS = 8, 24, 5
PHONES = 7


def seeded(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def ids(low: int, high: int, *shape: int, seed: int = 0) -> torch.LongTensor:
    """Ids in `low`…`high - 1`, seeded."""
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))


def enlarged(model: torch.nn.Module) -> Any:
    """Freshly initialised layers hardly change what they get: larger weights show what depends on what."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data *= 50 * parameter[0].numel() ** -0.5
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            module.weight.data *= module.embedding_dim**0.5
    return model


def spread(model: MegaTTS3DurationModel) -> MegaTTS3DurationModel:
    """Durations that are not all alike."""
    model.head.weight.data *= 12
    if model.is_regression:
        model.head.bias.data.fill_(60.0)
    return model


def cut(inputs: Inputs, row: int, **lengths: int) -> Inputs:
    """One row, with the last axis of the named inputs cut."""
    single = {
        name: value[row : row + 1] if isinstance(value, torch.Tensor) else value for name, value in inputs.items()
    }
    return single | {name: single[name][..., :length] for name, length in lengths.items()}


class AlignerTester(ModelTester):
    """The aligner: 24 frames, 5 tokens."""

    config_class = MegaTTS3AlignerConfig
    model_class = MegaTTS3AlignerForConditionalGeneration
    attn_implementations = ("eager", "sdpa")
    padding_sides = ("right",)

    def config(self, **overrides: Any) -> MegaTTS3AlignerConfig:
        tiny = {
            "vocab_size": 860,
            "num_mel_bins": BANDS,
            "hidden_size": 32,
            "encoder_layers": 1,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 40,
            "max_source_positions": 40,
            "max_target_positions": 30,
            "max_new_tokens": 12,
        }
        return MegaTTS3AlignerConfig(**(tiny | overrides))

    def model(self, **overrides: Any) -> MegaTTS3AlignerForConditionalGeneration:
        return enlarged(super().model(**overrides))

    def inputs(self, batch_size: int = 2) -> Inputs:
        return {
            "input_features": seeded(batch_size, BANDS, FRAMES),
            "decoder_input_ids": ids(1, 860, batch_size, WORDS),
            "return_dict": True,
        }

    def ragged_inputs(self, padding_side: str) -> tuple[Inputs, list[Inputs]]:
        inputs, frames = self.inputs(batch_size=3), (24, 15, 8)
        alone = [cut(inputs, row, input_features=count) for row, count in enumerate(frames)]
        mask = (torch.arange(FRAMES) < torch.tensor(frames)[:, None]).long()
        return inputs | {"attention_mask": mask}, alone

    def valid(self, output: Any, inputs: Inputs, row: int) -> list[torch.Tensor]:
        return [output.logits[row]]

    def training_inputs(self) -> Inputs:
        labels = ids(1, 860, 2, WORDS, seed=1)
        labels[1, 3:] = -100
        return {"input_features": seeded(2, BANDS, FRAMES), "labels": labels}

    def invalid_configs(self) -> list[Inputs]:
        return [
            {"hidden_size": 33},
            {"decoder_attention_heads": 3},
            {"eos_token_id": 860},
            {"decoder_start_token_id": -1},
            {"first_time_token_id": 900},
        ]

    def invalid_calls(
        self, model: MegaTTS3AlignerForConditionalGeneration
    ) -> dict[str, tuple[Callable[[], Any], str]]:
        features, tokens = seeded(1, BANDS, FRAMES), ids(1, 860, 1, WORDS)
        return {
            "other bands": (lambda: model(seeded(1, 5, FRAMES), decoder_input_ids=tokens), "input_features.*8.*5"),
            "no frames": (lambda: model(features[..., :0], decoder_input_ids=tokens), "input_features"),
            "too many frames": (lambda: model.align(seeded(1, BANDS, 81)), "input_features.*80.*81"),
            "no recording": (lambda: model(decoder_input_ids=tokens), "input_features.*missing"),
            "no tokens": (lambda: model(features), "decoder_input_ids.*missing"),
            "a token out of range": (
                lambda: model(features, decoder_input_ids=tokens + 860),
                "decoder_input_ids.*859",
            ),
            "too many positions": (
                lambda: model(features, decoder_input_ids=ids(1, 860, 1, 31)),
                "decoder_input_ids.*31.*30",
            ),
            "a length beyond the frames": (lambda: model.align(features, torch.tensor([25])), "lengths.*24.*25"),
            "no new token": (lambda: model.align(features, max_new_tokens=0), "max_new_tokens.*29.*0"),
            "more tokens than positions": (lambda: model.align(features, max_new_tokens=30), "max_new_tokens.*30"),
        }


class DurationTester(ModelTester):
    """The duration model: 7 phones."""

    config_class = MegaTTS3DurationConfig
    model_class = MegaTTS3DurationModel
    attn_implementations = ("eager", "sdpa")
    padding_sides = ("right",)

    def config(self, **overrides: Any) -> MegaTTS3DurationConfig:
        tiny = {
            "text_encoder_config": {
                "hidden_size": 16,
                "intermediate_size": 24,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
            },
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
        }
        return MegaTTS3DurationConfig(**(tiny | overrides))

    def model(self, **overrides: Any) -> MegaTTS3DurationModel:
        return enlarged(super().model(**overrides))

    def text(self, batch_size: int, count: int = PHONES, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Phones and tones `(batch, count)`."""
        return ids(3, 174, batch_size, count, seed=seed), ids(3, 16, batch_size, count, seed=seed + 1)

    def inputs(self, batch_size: int = 2) -> Inputs:
        phones, tones = self.text(batch_size)
        tokens = ids(1, 129, batch_size, PHONES, seed=2)
        return {"phone_ids": phones, "tone_ids": tones, "duration_ids": tokens, "return_dict": True}

    def ragged_inputs(self, padding_side: str) -> tuple[Inputs, list[Inputs]]:
        inputs, alone, names = self.inputs(batch_size=3), [], ("phone_ids", "tone_ids", "duration_ids")
        for row, count in enumerate((7, 4, 1)):
            alone.append(cut(inputs, row, **dict.fromkeys(names, count)))
        for row, count in enumerate((7, 4, 1)):
            for name in names:
                inputs[name][row, count:] = 0
        return inputs, alone

    def valid(self, output: Any, inputs: Inputs, row: int) -> list[torch.Tensor]:
        return [output.logits[row, : int((inputs["phone_ids"][row] > 0).sum())]]

    def training_inputs(self) -> Inputs:
        phones, tones = self.text(3)
        labels = ids(1, 129, 3, PHONES, seed=2)
        phones[1, 5:], labels[2, :2] = 0, -100
        return {"phone_ids": phones, "tone_ids": tones, "labels": labels}

    def invalid_configs(self) -> list[Inputs]:
        return [
            {"hidden_size": 30},
            {"num_durations": 1},
            {"head_type": "guess"},
            {"use_text_encoder": "maybe"},
            {"text_encoder_config": {"hidden_size": 15, "num_attention_heads": 1}},
            {"text_encoder_config": {"kernel_size": 2}},
            {"text_encoder_config": {"num_attention_heads": 3}},
            {"text_encoder_config": {"window_size": 0}},
        ]

    def invalid_calls(self, model: MegaTTS3DurationModel) -> dict[str, tuple[Callable[[], Any], str]]:
        (phones, tones), durations = self.text(1), ids(1, 90, 1, PHONES)
        prompt = model.prompt(phones, tones, durations)
        return {
            "neither tokens nor labels": (lambda: model(phones, tones), "duration_ids.*missing"),
            "tokens of another length": (lambda: model(phones, tones, durations[:, 1:]), "duration_ids.*7.*6"),
            "labels of another length": (
                lambda: model(phones, tones, durations, labels=durations[:, 1:]),
                "labels.*7.*6",
            ),
            "a token out of range": (lambda: model(phones, tones, durations + 129), "duration_ids.*129"),
            "a phone out of range": (lambda: model(phones + 174, tones, durations), "phone_ids.*173"),
            "a tone out of range": (lambda: model(phones, tones + 23, durations), "tone_ids.*22"),
            "phones that are no ids": (lambda: model(phones.float(), tones, durations), "phone_ids.*int64"),
            "tones of another length": (lambda: model(phones, tones[:, 1:], durations), "tone_ids.*7.*6"),
            "no phones": (lambda: model.predict(prompt, phones[:, :0], tones[:, :0]), "phone_ids"),
            "a reference without phones": (lambda: model.prompt(phones * 0, tones, durations), "phone_ids.*phone"),
            "durations of another length": (lambda: model.prompt(phones, tones, durations[:, 1:]), "durations.*7.*6"),
            "more texts than references": (lambda: model.predict(prompt, *self.text(2)), "prompt.*1.*2"),
            "too many phones": (
                lambda: super(DurationTester, self).model(max_position_embeddings=10).predict(None, *self.text(1, 11)),
                "phone_ids.*10.*11",
            ),
            "a draw from one number": (lambda: model.predict(prompt, phones, tones, do_sample=True), "do_sample"),
            "no temperature": (
                lambda: self.model(head_type="classification").predict(
                    None, phones, tones, do_sample=True, temperature=0.0
                ),
                "temperature.*0",
            ),
            "fewer than no scores": (
                lambda: self.model(head_type="classification").predict(None, phones, tones, do_sample=True, top_k=-1),
                "top_k.*-1",
            ),
        }
