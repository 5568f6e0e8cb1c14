"""Tiny MetaVoice models for the common suite, with voices and recordings made here."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor

from tests.common.model_tester import Inputs, SpeakingModelTester
from tests.common.recordings import noisy_tone
from tests.models.deepfilternet.tester import TINY as TINY_ENHANCER
from tests.models.metavoice.tiny import TINY, tiny_tokenizer
from tts_models import (
    MetaVoiceConfig,
    MetaVoiceFeatureExtractor,
    MetaVoiceForConditionalGeneration,
    MetaVoiceProcessor,
    MetaVoiceVoice,
)


SPEAKER = TINY["speaker_encoder_config"]["speaker_embed_size"]
RATE, FRAME = 24000, 320
END = TINY["first_stage_config"]["eos_token_id"]
CODES = TINY["first_stage_config"]["num_codes"]
TEXT_OFFSET = TINY["first_stage_config"]["text_token_offset"]
END_OF_TEXT = TINY["first_stage_config"]["end_of_text_token_id"]
TINY_DIFFUSION = {
    "band_configs": [{"hidden_size": 4, "depth": 2, "growth": 2.0, "norm_groups": 2, "num_train_steps": 40}] * 2,
    "codec_hidden_size": 16,
    "num_inference_steps": 2,
    "equalizer_bands": 4,
}
ALL_PARTS = {"diffusion_config": TINY_DIFFUSION, "enhancer_config": TINY_ENHANCER | {"sampling_rate": 48000}}


def prepared_voice(seed: int = 0) -> MetaVoiceVoice:
    """A voice as the processor prepares it."""
    vector = torch.rand(SPEAKER, generator=torch.Generator().manual_seed(seed))
    return MetaVoiceVoice(vector / vector.norm())


def recording(seconds: float = 2.0, rate: int = 16000, seed: int = 0) -> np.ndarray:
    """A noisy tone, float32 `(samples,)`."""
    return noisy_tone(seconds, rate, seed)


class EndAfter(LogitsProcessor):
    """Ends every row after so many tokens, as a trained model does sooner or later."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor) -> torch.Tensor:
        is_over = input_ids.shape[1] >= self.tokens
        choice = torch.full_like(scores, -float("inf"))
        choice[:, END] = 0.0
        return choice if is_over else scores.index_fill(1, torch.tensor([END]), -float("inf"))


class Tester(SpeakingModelTester):
    """MetaVoice for the common suite: both stages, speaker encoder and EnCodec."""

    config_class = MetaVoiceConfig
    model_class = MetaVoiceForConditionalGeneration
    attn_implementations = ("eager", "sdpa")
    padding_sides = ("left", "right")
    generation_arguments = {"max_new_tokens": 130, "second_stage": "chunked"}

    def config(self, **overrides: Any) -> MetaVoiceConfig:
        parts = {
            name: TINY[name] | overrides.pop(name, {}) if isinstance(overrides.get(name, {}), dict) else None
            for name in TINY
        }
        return MetaVoiceConfig(**parts | overrides)

    def model(self, **overrides: Any) -> MetaVoiceForConditionalGeneration:
        model = super().model(**overrides)
        generator = torch.Generator().manual_seed(2)
        for layer in model.codec_model.quantizer.layers:
            layer.codebook.embed.normal_(generator=generator)
        return model

    def processor(self, **overrides: Any) -> MetaVoiceProcessor:
        processor = MetaVoiceProcessor.from_config(
            self.config(), tiny_tokenizer(), MetaVoiceFeatureExtractor(), **overrides
        )
        processor.default_voice = prepared_voice()
        return processor

    def inputs(self, batch_size: int = 2) -> Inputs:
        generator = torch.Generator().manual_seed(1)
        text = torch.randint(TEXT_OFFSET, END_OF_TEXT, (batch_size, 5), generator=generator)
        codes = torch.randint(END, (batch_size, 8), generator=generator)
        end = torch.full((batch_size, 1), END_OF_TEXT)
        return {
            "input_ids": torch.cat([text, end, codes], dim=1),
            "attention_mask": torch.ones(batch_size, 14, dtype=torch.long),
            "speaker_embeddings": torch.rand(batch_size, SPEAKER, generator=generator),
        }

    def ragged_inputs(self, padding_side: str) -> tuple[Inputs, list[Inputs]]:
        whole, alone = self.inputs(3), []
        for row, length in enumerate((14, 9, 3)):
            valid = slice(14 - length, 14) if padding_side == "left" else slice(0, length)
            single = {name: value[row : row + 1].clone() for name, value in whole.items()}
            single["input_ids"] = single["input_ids"][:, valid]
            single["attention_mask"] = torch.ones(1, length, dtype=torch.long)
            keep = torch.zeros(14, dtype=torch.long)
            keep[valid] = 1
            whole["attention_mask"][row] = keep
            alone.append(single)
        return whole, alone

    def valid(self, output: Any, inputs: Inputs, row: int) -> list[torch.Tensor]:
        return [output.logits[row, inputs["attention_mask"][row].bool()]]

    def training_inputs(self) -> Inputs:
        inputs = self.inputs()
        return inputs | {"labels": inputs["input_ids"]}

    @property
    def untrained_parameters(self) -> frozenset[str]:
        """None: all parts but the first stage are frozen."""
        return frozenset()

    def invalid_configs(self) -> list[Inputs]:
        return [
            {"first_stage_config": {"speaker_embed_size": SPEAKER + 1}},
            {"first_stage_config": {"num_codes": 9, "vocab_size": 400}},
            {"first_stage_config": {"text_token_offset": 3}},
            {"first_stage_config": {"dropout": 2.0}},
            {"first_stage_config": {"norm_type": "batch_norm"}},
            {"first_stage_config": {"speaker_start_token_id": 400}},
            {"second_stage_config": {"norm_type": "batch_norm"}},
            {"second_stage_config": {"target_vocab_sizes": []}},
            {"second_stage_config": {"target_vocab_sizes": [9, 0]}},
            {"second_stage_config": {"vocab_sizes": [276, 8]}},
            {"second_stage_config": {"target_vocab_sizes": [9] * 40}},
            {"second_stage_config": {"vocab_sizes": [400]}},
            {"speaker_encoder_config": {"min_coverage": 0.0}},
            {"speaker_encoder_config": {"windows_per_second": 0.1}},
            {"diffusion_config": {"band_configs": [{"loudness": 1}]}},
            {"diffusion_config": {"band_configs": [{"use_cross_attention": True}]}},
            {"diffusion_config": {"codec_hidden_size": 17}},
        ]

    def invalid_calls(self, model: MetaVoiceForConditionalGeneration) -> dict[str, tuple[Callable[[], Any], str]]:
        spoken = dict(self.processor()(text=["One, two."]))
        ids = spoken["input_ids"]
        recorded = dict(self.processor()(text=["One, two."], voice=(recording(), 16000)))

        def generate(**changes: Any) -> Any:
            return model.generate(**spoken | {"max_new_tokens": 4} | changes)

        return {
            "nothing": (lambda: model(), "input_ids"),
            "too many positions": (lambda: model(input_ids=torch.ones(1, 193).long()), "position"),
            "both kinds of labels": (
                lambda: model(**self.training_inputs(), shift_labels=self.inputs()["input_ids"]),
                "shift_labels",
            ),
            "no prompt": (lambda: model.generate(), "input_ids"),
            "a list": (lambda: generate(input_ids=[1, 2]), "input_ids"),
            "an empty prompt": (lambda: generate(input_ids=ids[:, :0]), "input_ids"),
            "no text": (lambda: generate(input_ids=ids[:, -1:], attention_mask=None), "text"),
            "a text without its end": (lambda: generate(input_ids=ids[:, :-1], attention_mask=None), "at the end"),
            "ids that are no text": (lambda: generate(input_ids=ids - TEXT_OFFSET), "text"),
            "a text that fills the model": (
                lambda: generate(
                    input_ids=torch.cat([ids[:, :1].repeat(1, 126), ids[:, -1:]], dim=1), attention_mask=None
                ),
                "split",
            ),
            "parts that do not add up": (lambda: generate(part_counts=torch.tensor([2])), "part_counts"),
            "a mask of another batch": (lambda: generate(attention_mask=torch.ones(2, 3)), "attention_mask"),
            "no voice": (lambda: generate(speaker_embeddings=None), "(?i)voice"),
            "a voice of zeros": (lambda: generate(speaker_embeddings=torch.zeros(1, SPEAKER)), "no voice"),
            "a voice of another model": (lambda: generate(speaker_embeddings=torch.ones(1, 9)), "another model"),
            "half a recording": (lambda: model.generate(**recorded | {"voice_mask": None}), "voice_mask"),
            "recordings of another batch": (
                lambda: model.generate(**recorded | {"voice_counts": torch.tensor([2])}),
                "voice_features",
            ),
            "an unknown tensor": (lambda: generate(loudness_values=torch.ones(1)), "loudness_values"),
            "an unknown argument": (lambda: generate(loudness=3), "loudness"),
            "beams": (lambda: generate(num_beams=2, do_sample=False), "mode"),
            "no tokens": (lambda: generate(max_new_tokens=0), "max_new_tokens"),
            "a negative temperature": (lambda: generate(temperature=-1.0), "temperature"),
            "an impossible mass": (lambda: generate(top_p=1.5), "top_p"),
            "too little guidance": (lambda: generate(guidance_scale=0.5), "guidance_scale"),
            "three scales": (lambda: generate(guidance_scale=[1.0, 2.0, 3.0]), "guidance_scale"),
            "an unknown decoder": (lambda: generate(decoder="vocos"), "decoder"),
            "diffusion that is not there": (lambda: generate(decoder="multi_band_diffusion"), "lacks"),
            "an enhancer that is not there": (lambda: generate(enhance=True), "enhance"),
            "diffusion in a stream": (
                lambda: model.generate_stream(**spoken, decoder="multi_band_diffusion"),
                "stream",
            ),
            "a full second stage in a stream": (
                lambda: model.generate_stream(**spoken, second_stage="full"),
                "second_stage",
            ),
            "an unknown second stage": (lambda: generate(second_stage="half"), "second_stage"),
            "a cold second stage": (lambda: generate(second_stage_temperature=0.0), "second_stage_temperature"),
            "no candidates": (lambda: generate(second_stage_top_k=0), "second_stage_top_k"),
            "no parts at once": (lambda: generate(parts_per_batch=0), "parts_per_batch"),
            "seeds of another batch": (lambda: generate(seed=[1, 2, 3]), "seed"),
        }

    def invalid_speech(
        self, processor: MetaVoiceProcessor, model: MetaVoiceForConditionalGeneration
    ) -> dict[str, tuple[Callable[[], Any], str]]:
        def clone(voice: Any, **options: Any) -> Any:
            return processor(text=["Hello."], voice=voice, **options)

        silent, broken = np.zeros(32000, np.float32), recording()
        broken[7] = np.nan
        nobody = self.processor()
        nobody.default_voice = None
        return {
            "no text": (lambda: processor(text=[]), "text"),
            "a number": (lambda: processor(text=7), "text"),
            "empty text": (lambda: processor(text=[""]), "text"),
            "blank text": (lambda: processor(text=["   "]), "text"),
            "text without a word": (lambda: processor(text=["***"]), "text"),
            "endless text": (lambda: processor(text=["word " * 20_000]), "characters"),
            "another script": (lambda: processor(text=["こんにちは"]), "U\\+3053"),
            "two voices for one text": (lambda: clone([prepared_voice()] * 2), "voice"),
            "tensors of another library": (lambda: processor(text=["Hello."], return_tensors="np"), "return_tensors"),
            "no voice": (lambda: nobody(text=["Hello."]), "voice"),
            "no recording": (lambda: clone([()]), "at least one"),
            "a file that is not there": (lambda: clone("nowhere.wav"), "nowhere.wav"),
            "an address": (lambda: clone("https://example.org/voice.wav"), "nothing is fetched"),
            "an array without its rate": (lambda: clone(recording()), "sampling_rate"),
            "stereo": (lambda: clone(np.stack([recording()] * 2), sampling_rate=16000), "mono"),
            "silence": (lambda: clone(silent, sampling_rate=16000), "silent"),
            "NaN": (lambda: clone(broken, sampling_rate=16000), "NaN"),
            "a click": (lambda: clone(recording(0.05), sampling_rate=16000), "lasts"),
            "a lecture": (lambda: clone(np.ones(301 * 16000, np.float32), sampling_rate=16000), "lasts"),
            "too little, strictly": (
                lambda: clone(recording(), sampling_rate=16000, strict_reference=True),
                "30 s",
            ),
            "an empty voice": (lambda: MetaVoiceVoice(torch.zeros(0)), "speaker_embedding"),
            "a voice of nobody": (lambda: MetaVoiceVoice(torch.zeros(4)), "zero"),
        }


__all__ = ["ALL_PARTS", "EndAfter", "Tester", "prepared_voice", "recording"]
