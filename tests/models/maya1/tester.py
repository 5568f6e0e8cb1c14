"""Tiny Maya1 models for the common suite."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from convert_snac_to_hf import feature_extractor_for
from transformers import PreTrainedTokenizerFast, StaticCache

from tests.common.model_tester import Inputs, SpeakingModelTester
from tests.models.snac.tester import TINY
from tts_models import Maya1Config, Maya1ForConditionalGeneration, Maya1Processor, SnacConfig


# A synthetic tokenizer of the released one's shape, with audio tokens for a codebook of 16.
TOKENIZER_FILE = Path(__file__).parents[2] / "fixtures" / "maya1" / "prompt_ids" / "tokenizer.json"
CODEBOOK_SIZE = 16
VOICE = "Female voice in her 30s, calm and clear."


@cache
def load_tokenizer() -> PreTrainedTokenizerFast:
    """The synthetic tokenizer."""
    return PreTrainedTokenizerFast(tokenizer_file=str(TOKENIZER_FILE))


def tiny_processor(codec_config: SnacConfig | None = None, **options: Any) -> Maya1Processor:
    """A processor for the tiny codec, or another one with the same codebook size."""
    codec_config = codec_config or Tester().config().codec_config
    return Maya1Processor(
        load_tokenizer(),
        feature_extractor_for(codec_config),
        codebook_size=codec_config.codebook_size,
        vq_strides=codec_config.vq_strides,
        **{"default_voice": VOICE} | options,
    )


class Tester(SpeakingModelTester):
    """Maya1 for the common suite."""

    config_class = Maya1Config
    model_class = Maya1ForConditionalGeneration
    attn_implementations = ("eager", "sdpa")
    padding_sides = ("left", "right")
    voice = VOICE
    generation_arguments = {"max_new_tokens": 15 * 7}

    def config(self, codec: Inputs | None = None, **overrides: Any) -> Maya1Config:
        text_config = {
            "vocab_size": len(load_tokenizer()),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": 1024,
            "tie_word_embeddings": True,
            "bos_token_id": 381,
            "eos_token_id": 393,
            "pad_token_id": 398,
            # As large as a trained network's: smaller weights make every next token equally likely.
            "initializer_range": 0.2,
        }
        ids = {
            "audio_token_offset": 401,
            "bos_token_id": 381,
            "eot_token_id": 390,
            "start_of_speech_token_id": 392,
            "end_of_speech_token_id": 393,
            "start_of_human_token_id": 394,
            "end_of_human_token_id": 395,
            "start_of_ai_token_id": 396,
            "end_of_ai_token_id": 397,
            "pad_token_id": 398,
        }
        codec_config = TINY | {"codebook_size": CODEBOOK_SIZE} | (codec or {})
        return Maya1Config(**{"text_config": text_config, "codec_config": codec_config} | ids | overrides)

    def processor(self) -> Maya1Processor:
        return tiny_processor()

    def inputs(self, batch_size: int = 2) -> Inputs:
        generator = torch.Generator().manual_seed(1)
        input_ids = torch.randint(535, (batch_size, 12), generator=generator)
        return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}

    def ragged_inputs(self, padding_side: str) -> tuple[Inputs, list[Inputs]]:
        lengths = (12, 7, 3)
        input_ids, mask = self.inputs(3)["input_ids"], torch.zeros(3, 12, dtype=torch.long)
        alone = []
        for row, length in enumerate(lengths):
            valid = slice(12 - length, 12) if padding_side == "left" else slice(0, length)
            mask[row, valid] = 1
            alone.append({"input_ids": input_ids[row : row + 1, valid], "attention_mask": mask[row : row + 1, valid]})
        input_ids = input_ids.masked_fill(mask == 0, 398)
        # The library numbers positions from the first column: left padding needs them counted from the first token.
        position_ids = (mask.cumsum(-1) - 1).clamp(min=0)
        return {"input_ids": input_ids, "attention_mask": mask, "position_ids": position_ids}, alone

    def valid(self, output: Any, inputs: Inputs, row: int) -> list[torch.Tensor]:
        return [output.logits[row, inputs["attention_mask"][row].bool()]]

    def training_inputs(self) -> Inputs:
        inputs = self.inputs()
        return inputs | {"labels": inputs["input_ids"].clone()}

    def invalid_configs(self) -> list[Inputs]:
        return [
            {"audio_token_offset": 500},
            {"end_of_speech_token_id": 402},
            {"audio_token_offset": "first"},
        ]

    def invalid_calls(self, model: Maya1ForConditionalGeneration) -> dict[str, tuple[Callable[[], Any], str]]:
        prompts = self.inputs()["input_ids"]
        return {
            "no prompt": (lambda: model.generate(), "input_ids"),
            "a list": (lambda: model.generate(input_ids=[1, 2]), "input_ids"),
            "an empty prompt": (lambda: model.generate(input_ids=prompts[:, :0]), "input_ids"),
            "a mask of another shape": (
                lambda: model.generate(input_ids=prompts, attention_mask=torch.ones(2, 3)),
                "attention_mask",
            ),
            "beams": (lambda: model.generate(input_ids=prompts, num_beams=2, do_sample=False), "mode"),
            "less than a frame": (lambda: model.generate(input_ids=prompts, max_new_tokens=3), "max_new_tokens"),
            "an unknown argument": (lambda: model.generate(input_ids=prompts, loudness=3), "loudness"),
            "an unknown policy": (lambda: model.generate(input_ids=prompts, unpack_policy="hope"), "unpack_policy"),
            "negative noise": (lambda: model.generate(input_ids=prompts, noise_scale=-1.0), "noise_scale"),
            "noise that is not a number": (
                lambda: model.generate(input_ids=prompts, noise_scale=float("nan")),
                "noise_scale",
            ),
            "a prompt longer than the context": (
                lambda: model.generate(input_ids=prompts.repeat(1, 100)),
                "max_length|context",
            ),
            "seeds of another batch": (lambda: model.generate(input_ids=prompts, seed=[1, 2, 3]), "seed"),
            "seed and generator": (
                lambda: model.generate(input_ids=prompts, seed=1, generator=torch.Generator()),
                "seed",
            ),
            "parts that do not add up": (
                lambda: model.generate(input_ids=prompts, part_counts=torch.tensor([3])),
                "part_counts",
            ),
            "a chunk of no frames": (
                lambda: model.generate_stream(input_ids=prompts, first_chunk_frames=0),
                "first_chunk_frames",
            ),
        }

    def invalid_speech(
        self, processor: Maya1Processor, model: Maya1ForConditionalGeneration
    ) -> dict[str, tuple[Callable[[], Any], str]]:
        named = tiny_processor(voices={"anna": VOICE})
        return {
            "no text": (lambda: processor(text=[]), "text"),
            "a number": (lambda: processor(text=7), "text"),
            "blank text": (lambda: processor(text=["   "]), "text"),
            "text without a word": (lambda: processor(text=["…?!"]), "text"),
            "endless text": (lambda: processor(text=["word " * 20_000]), "characters"),
            "an empty voice": (lambda: processor(text=["Hello."], voice=" "), "voice"),
            "a voice that is no text": (lambda: processor(text=["Hello."], voice=3), "voice"),
            "an unknown voice": (lambda: named(text=["Hello."], voice="bert"), "anna"),
            "two voices for one text": (lambda: processor(text=["Hello."], voice=[VOICE, VOICE]), "voice"),
            "an unknown tag": (lambda: processor(text=["Hello <burp>."], strict_tags=True), "<burp>"),
            "tensors of another library": (lambda: processor(text=["Hello."], return_tensors="np"), "return_tensors"),
        }

    def decode_step(self, model: Maya1ForConditionalGeneration) -> tuple[Callable[..., Any], Callable[[], tuple]]:
        prompts = self.inputs()["input_ids"]

        def step(token_ids: torch.Tensor, position_ids: torch.Tensor, static_cache: StaticCache) -> torch.Tensor:
            return model(input_ids=token_ids, position_ids=position_ids, past_key_values=static_cache).logits[:, -1]

        def arguments() -> tuple:
            static_cache = StaticCache(config=model.config.text_config, max_cache_len=32)
            model(input_ids=prompts, past_key_values=static_cache)
            return prompts[:, :1], torch.full((2, 1), prompts.shape[1]), static_cache

        return step, arguments
