"""Tiny Chatterbox models for the common suite: both backbones, with tokenizers and voices made here."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE, WordLevel
from transformers import PreTrainedTokenizerFast, StaticCache

from tests.common.model_tester import Inputs, SpeakingModelTester
from tests.common.recordings import noisy_tone
from tests.models.s3gen.tester import TINY as TINY_S3GEN
from tts_models import ChatterboxConfig, ChatterboxForConditionalGeneration, ChatterboxProcessor, ChatterboxVoice


CODES, SPEAKER, WIDTH = 6561, 8, 32
SPECIAL_TOKENS = ("[STOP]", "[UNK]", "[SPACE]", "[PAD]", "[START]", "[en]", "[fr]", "[zh]", "[ko]", "[laugh]")
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?-'\""
TURBO_TOKENS = ("<|endoftext|>", "[laugh]")

LLAMA = {
    "model_type": "llama",
    "vocab_size": 1,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "max_position_embeddings": 512,
    # As large as a trained network's: smaller weights make every next token equally likely.
    "initializer_range": 0.2,
}
GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 1,
    "n_embd": WIDTH,
    "n_head": 4,
    "n_layer": 2,
    "n_positions": 512,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
    "initializer_range": 0.2,
}
T3 = {
    "text_vocab_size": 96,
    "start_text_token_id": 4,
    "stop_text_token_id": 0,
    "speech_vocab_size": CODES + 9,
    "max_text_positions": 400,
    "max_speech_positions": 120,
    "prompt_length": 9,
    "prompt_seconds": 0.5,
    "speaker_embed_size": SPEAKER,
    "perceiver_queries": 3,
    "perceiver_heads": 2,
    "initializer_range": 0.2,
}
TURBO = {
    "text_vocab_size": 300,
    "start_text_token_id": None,
    "stop_text_token_id": None,
    "num_start_tokens": 1,
    "max_text_positions": None,
    "max_speech_positions": None,
    "use_perceiver": False,
    "use_emotion": False,
    "speech_head_bias": True,
}
VOICE_ENCODER = {"hidden_size": 12, "num_hidden_layers": 2, "speaker_embed_size": SPEAKER}


@cache
def load_tokenizer(kind: str = "english") -> PreTrainedTokenizerFast:
    """A tokenizer of the released one's kind: letters for the Llama models, bytes for Turbo."""
    if kind == "turbo":
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokenizer = Tokenizer(BPE(vocab={token: index for index, token in enumerate(letters)}, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([TURBO_TOKENS[0]])
        tokenizer.add_tokens([AddedToken(TURBO_TOKENS[1], normalized=False)])
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token=TURBO_TOKENS[0], pad_token=TURBO_TOKENS[0]
        )
    vocabulary = {token: index for index, token in enumerate((*SPECIAL_TOKENS, *LETTERS))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]")


def prepared_voice(seed: int = 0, prompt_tokens: int = 9, reference_tokens: int = 7) -> ChatterboxVoice:
    """A voice as the processor prepares it."""
    generator = torch.Generator().manual_seed(seed)
    return ChatterboxVoice(
        torch.randn(SPEAKER, generator=generator).abs(),
        torch.randint(CODES, (prompt_tokens,), generator=generator),
        torch.randint(CODES, (reference_tokens,), generator=generator),
        torch.randn(2 * reference_tokens, TINY_S3GEN["mel_bins"], generator=generator),
        torch.randn(TINY_S3GEN["speaker_embed_dim"], generator=generator),
    )


def recording(seconds: float = 0.5, rate: int = 24000, seed: int = 0) -> np.ndarray:
    """A noisy tone, float32 `(samples,)`."""
    return noisy_tone(seconds, rate, seed)


class Tester(SpeakingModelTester):
    """Chatterbox for the common suite: the English kind."""

    config_class = ChatterboxConfig
    model_class = ChatterboxForConditionalGeneration
    attn_implementations = ("eager", "sdpa")
    padding_sides = ("left", "right")
    generation_arguments = {"max_new_tokens": 36, "flow_attention": "chunked"}

    def config(self, kind: str = "english", t3: Inputs | None = None, **overrides: Any) -> ChatterboxConfig:
        own = {"backbone_config": dict(GPT2), **TURBO} if kind == "turbo" else {"backbone_config": dict(LLAMA)}
        parts = {
            "t3_config": T3 | own | (t3 or {}),
            "voice_encoder_config": dict(VOICE_ENCODER),
            "s3gen_config": TINY_S3GEN | {"meanflow": kind == "turbo"},
            "variant": kind,
            "end_silence_token_id": 4299 if kind == "turbo" else None,
            "end_trim_tokens": int(kind == "multilingual"),
        }
        return ChatterboxConfig(**parts | overrides)

    def processor(self, kind: str = "english", **overrides: Any) -> ChatterboxProcessor:
        processor = ChatterboxProcessor.from_config(self.config(kind), load_tokenizer(kind), **overrides)
        processor.default_voice = prepared_voice()
        return processor

    @property
    def untrained_parameters(self) -> frozenset[str]:
        """None: voice encoder and S3Gen are frozen."""
        return frozenset()

    def inputs(self, batch_size: int = 2) -> Inputs:
        generator = torch.Generator().manual_seed(1)
        return {
            "input_ids": torch.randint(5, 90, (batch_size, 7), generator=generator),
            "attention_mask": torch.ones(batch_size, 7, dtype=torch.long),
            "speech_ids": torch.randint(CODES, (batch_size, 10), generator=generator),
            "speech_attention_mask": torch.ones(batch_size, 10, dtype=torch.long),
            "speaker_embeddings": torch.randn(batch_size, SPEAKER, generator=generator),
            "prompt_tokens": torch.randint(CODES, (batch_size, 5), generator=generator),
            "exaggeration": torch.rand(batch_size, generator=generator),
        }

    def ragged_inputs(self, padding_side: str) -> tuple[Inputs, list[Inputs]]:
        whole, alone = self.inputs(3), []
        lengths = {"input_ids": (7, 4, 2), "speech_ids": (10, 3, 6), "prompt_tokens": (5, 2, 4)}
        masks = {"input_ids": "attention_mask", "speech_ids": "speech_attention_mask"}
        for row in range(3):
            single = {name: value[row : row + 1] for name, value in whole.items()}
            for name, each in lengths.items():
                length, full = each[row], whole[name].shape[1]
                valid = slice(full - length, full) if padding_side == "left" else slice(0, length)
                single[name] = whole[name][row : row + 1, valid].clone()
                keep = torch.zeros(full, dtype=torch.bool)
                keep[valid] = True
                if name == "prompt_tokens":
                    whole[name][row, ~keep] = -1
                else:
                    whole[masks[name]][row] = keep.long()
                    single[masks[name]] = torch.ones(1, length, dtype=torch.long)
            alone.append(single)
        return whole, alone

    def valid(self, output: Any, inputs: Inputs, row: int) -> list[torch.Tensor]:
        text, speech = (inputs[name][row].bool() for name in ("attention_mask", "speech_attention_mask"))
        return [output.text_logits[row, text], output.logits[row, speech]]

    def training_inputs(self) -> Inputs:
        inputs = self.inputs()
        return inputs | {"labels": inputs["speech_ids"], "text_labels": inputs["input_ids"]}

    def invalid_configs(self) -> list[Inputs]:
        return [
            {"kind": "singing"},
            {"t3": {"start_speech_token_id": CODES + 9}},
            {"t3": {"num_speech_codes": 0}},
            {"t3": {"stop_text_token_id": None}},
            {"t3": {"max_speech_positions": None}},
            {"t3": {"start_text_token_id": 96}},
            {"t3": {"num_start_tokens": 0}},
            {"t3": {"perceiver_heads": 3}},
            {"t3": {"speaker_embed_size": 9}},
            {"t3": {"num_speech_codes": CODES + 1}},
            {"t3": {"backbone_config": {"model_type": "bert"}}},
            {"t3": {"text_vocab_size": "many"}},
            {"end_silence_token_id": CODES},
            {"end_trim_tokens": -1},
            {"voice_encoder_config": VOICE_ENCODER | {"min_coverage": 0.0}},
            {"voice_encoder_config": VOICE_ENCODER | {"windows_per_second": 0.1}},
        ]

    def invalid_calls(self, model: ChatterboxForConditionalGeneration) -> dict[str, tuple[Callable[[], Any], str]]:
        spoken = dict(self.processor()(text=["One, two."]))
        ids, inputs = spoken["input_ids"], self.inputs()

        def generate(**changes: Any) -> Any:
            return model.generate(**spoken | changes)

        without_voice = {name: value for name, value in spoken.items() if name in ("input_ids", "attention_mask")}
        return {
            "nothing": (lambda: model(), "input_ids"),
            "no voice to read": (lambda: model(**inputs | {"speaker_embeddings": None}), "speaker_embeddings"),
            "too much text": (lambda: model(**inputs | {"input_ids": torch.ones(2, 401).long()}), "split"),
            "too much speech": (lambda: model(**inputs | {"speech_ids": torch.ones(2, 121).long()}), "speech_ids"),
            "no prompt": (lambda: model.generate(), "input_ids"),
            "a list": (lambda: generate(input_ids=[1, 2]), "input_ids"),
            "an empty prompt": (lambda: generate(input_ids=ids[:, :0]), "input_ids"),
            "a text without its start": (
                lambda: generate(input_ids=ids[:, 1:], attention_mask=None),
                "between the ids",
            ),
            "ids that do not exist": (lambda: generate(input_ids=ids + 1000), "input_ids"),
            "a text longer than the positions": (
                lambda: generate(input_ids=ids.repeat(1, 100), attention_mask=None),
                "split",
            ),
            "parts that do not add up": (lambda: generate(part_counts=torch.tensor([2])), "part_counts"),
            "no voice": (lambda: model.generate(**without_voice), "(?i)voice"),
            "half a voice": (lambda: generate(reference_tokens=None), "reference_tokens"),
            "a voice of zeros": (lambda: generate(speaker_embeddings=torch.zeros(1, SPEAKER)), "no voice"),
            "a voice of another model": (lambda: generate(speaker_embeddings=torch.ones(1, 9)), "another model"),
            "a voice of another variant": (
                lambda: generate(prompt_tokens=torch.ones(1, 10, dtype=torch.long)),
                "prompt_tokens",
            ),
            "voices of another batch": (lambda: generate(prompt_tokens=torch.ones(2, 4).long()), "prompt_tokens"),
            "an unknown tensor": (lambda: generate(loudness_values=torch.ones(1)), "loudness_values"),
            "an unknown argument": (lambda: generate(loudness=3), "loudness"),
            "beams": (lambda: generate(num_beams=2, do_sample=False), "mode"),
            "no tokens": (lambda: generate(max_new_tokens=0), "max_new_tokens"),
            "a negative temperature": (lambda: generate(temperature=-1.0), "temperature"),
            "a negative guidance": (lambda: generate(cfg_weight=-0.5), "cfg_weight"),
            "too much feeling": (lambda: generate(exaggeration=2.5), "exaggeration"),
            "feelings of another batch": (lambda: generate(exaggeration=[0.5, 0.6]), "exaggeration"),
            "an unknown attention": (lambda: generate(flow_attention="sparse"), "flow_attention"),
            "full attention in a stream": (
                lambda: model.generate_stream(**spoken, flow_attention="full"),
                "flow_attention",
            ),
            "no steps": (lambda: generate(num_flow_steps=0), "num_flow_steps"),
            "a negative gap": (lambda: generate(part_gap=-1.0), "part_gap"),
            "no parts at once": (lambda: generate(parts_per_batch=0), "parts_per_batch"),
            "the alignment rule without weights": (lambda: generate(alignment_rule=True), "eager"),
            "seeds of another batch": (lambda: generate(seed=[1, 2, 3]), "seed"),
            "features of another encoder": (lambda: model.voice_encoder(torch.ones(1, 9, 41)), "input_features"),
            "no frames": (lambda: model.voice_encoder(torch.ones(1, 0, 40)), "frame"),
        }

    def invalid_speech(
        self, processor: ChatterboxProcessor, model: ChatterboxForConditionalGeneration
    ) -> dict[str, tuple[Callable[[], Any], str]]:
        def clone(voice: Any, **options: Any) -> Any:
            return processor(text=["Hello."], voice=voice, **options)

        silent, broken = np.zeros(12000, np.float32), recording()
        broken[7] = np.nan
        turbo, multilingual = self.processor("turbo"), self.processor("multilingual")
        nobody = self.processor()
        nobody.default_voice = None
        return {
            "no text": (lambda: processor(text=[]), "text"),
            "a number": (lambda: processor(text=7), "text"),
            "empty text": (lambda: processor(text=[""]), "text"),
            "blank text": (lambda: processor(text=["   "]), "text"),
            "text without a word": (lambda: processor(text=["…?!"]), "text"),
            "endless text": (lambda: processor(text=["word " * 20_000]), "characters"),
            "two voices for one text": (lambda: clone([prepared_voice()] * 2), "voice"),
            "another language": (lambda: processor(text=["Bonjour."], language="fr"), "language"),
            "an unknown language": (lambda: multilingual(text=["Hello."], language="klingon"), "language"),
            "tensors of another library": (lambda: processor(text=["Hello."], return_tensors="np"), "return_tensors"),
            "no voice": (lambda: nobody(text=["Hello."]), "voice"),
            "a file that is not there": (lambda: clone("nowhere.wav"), "nowhere.wav"),
            "an array without its rate": (lambda: clone(recording()), "sampling_rate"),
            "stereo": (lambda: clone(np.stack([recording()] * 2), sampling_rate=24000), "mono"),
            "silence": (lambda: clone(silent, sampling_rate=24000), "silent"),
            "NaN": (lambda: clone(broken, sampling_rate=24000), "NaN"),
            "a click": (lambda: clone(recording(0.05), sampling_rate=24000), "lasts"),
            "a lecture": (lambda: clone(np.ones(301 * 24000, np.float32), sampling_rate=24000), "lasts"),
            "too short for Turbo": (
                lambda: turbo(text=["Hello."], voice=recording(4.0), sampling_rate=24000),
                "lasts 4.00 s; 5 s",
            ),
        }

    def decode_step(self, model: ChatterboxForConditionalGeneration) -> tuple[Callable[..., Any], Callable[[], tuple]]:
        inputs = self.inputs()
        rows = model.t3.embed_speech(inputs["speech_ids"])

        def step(row: torch.Tensor, position_ids: torch.Tensor, static_cache: StaticCache) -> torch.Tensor:
            return model(inputs_embeds=row, position_ids=position_ids, past_key_values=static_cache).logits[:, -1]

        def arguments() -> tuple:
            static_cache = StaticCache(config=model.config.t3_config.backbone_config, max_cache_len=32)
            model(inputs_embeds=rows, past_key_values=static_cache)
            return rows[:, :1], torch.full((2, 1), rows.shape[1]), static_cache

        return step, arguments
