"""Tiny Qwen3-TTS models for the common suite: one of each kind, with a tokenizer made here."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast, StaticCache

from tests.common.model_tester import Inputs, SpeakingModelTester
from tests.common.recordings import noisy_tone
from tests.models.qwen3_tts_tokenizer.tester import TINY as TINY_CODEC
from tts_models import (
    Qwen3TTSConfig,
    Qwen3TTSFeatureExtractor,
    Qwen3TTSForConditionalGeneration,
    Qwen3TTSProcessor,
    Qwen3TTSVoice,
)


RATE, GROUPS, CODES, WIDTH = 2400, 4, 32, 32
# The codes, then the special rows of the codec table; its last 1024 rows cannot be spoken.
VOCAB_SIZE = CODES + 1024
LANGUAGES = {"english": 52, "chinese": 53, "german": 54, "sichuan_dialect": 55}
SPEAKERS = {"alice": 60, "bob": 61}
DIALECTS = {"alice": False, "bob": "sichuan_dialect"}
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tts_pad>", "<tts_text_bos>", "<tts_text_eod>")
ROLES = ("assistant", "user")

CODE_PREDICTOR = {
    "vocab_size": CODES,
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
TALKER = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "num_code_groups": GROUPS,
    "text_vocab_size": 300,
    "text_hidden_size": 40,
    "codec_pad_id": 40,
    "codec_bos_id": 41,
    "codec_eos_token_id": 42,
    "codec_think_id": 43,
    "codec_nothink_id": 44,
    "codec_think_bos_id": 45,
    "codec_think_eos_id": 46,
    "codec_language_id": LANGUAGES,
    # As large as a trained network's: smaller weights make every next code equally likely.
    "initializer_range": 0.2,
}
SPEAKER_ENCODER = {
    "mel_dim": 16,
    "enc_channels": [16, 16, 16, 16, 48],
    "enc_attention_channels": 8,
    "enc_res2net_scale": 4,
    "enc_se_channels": 8,
    "sample_rate": RATE,
    "initializer_range": 0.2,
}


def tokenizer_files() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a byte-level tokenizer that knows the roles as single tokens."""
    vocabulary = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = []
    for role in ROLES:
        for end in range(1, len(role)):
            merge = (role[:end], role[end])
            if "".join(merge) not in vocabulary:
                merges.append(merge)
                vocabulary.append("".join(merge))
    return {token: index for index, token in enumerate(vocabulary)}, merges


@cache
def load_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of the released one's kind, with a vocabulary of bytes."""
    vocabulary, merges = tokenizer_files()
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|endoftext|>", eos_token="<|im_end|>", bos_token=None
    )


def token_id(token: str) -> int:
    """Id of a special token."""
    return load_tokenizer().convert_tokens_to_ids(token)


def recording(seconds: float = 0.5, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """A noisy tone, float32 `(samples,)`."""
    return noisy_tone(seconds, rate, seed)


def prepared_voice(seed: int = 0, frames: int = 7, transcript: str | None = "A b c.") -> Qwen3TTSVoice:
    """A voice as the processor prepares it; only a vector without a transcript."""
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(WIDTH, generator=generator)
    codes = torch.randint(CODES, (frames, GROUPS), generator=generator)
    return Qwen3TTSVoice(vector, None if transcript is None else codes, transcript)


def write_released_folder(model: Qwen3TTSForConditionalGeneration, folder: Path) -> None:
    """Save a model as the released ones are: no processor, codec in a sub-folder, vocabulary and merges."""
    from safetensors.torch import save_file

    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("speech_tokenizer.")}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    content = model.config.to_dict()
    content.pop("speech_tokenizer_config")
    (folder / "config.json").write_text(json.dumps(content))
    model.generation_config.save_pretrained(folder)
    model.speech_tokenizer.save_pretrained(folder / "speech_tokenizer")
    vocabulary, merges = tokenizer_files()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    added = {
        str(token_id(token)): {
            "content": token,
            "special": True,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "single_word": False,
        }
        for token in SPECIAL_TOKENS
    }
    tokenizer_config = {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": added, "unk_token": None}
    tokenizer_config |= {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>", "bos_token": None}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    preprocessor = {"processor_class": "Qwen3TTSProcessor", "padding_side": "left", "padding_value": 0.0}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))


class Tester(SpeakingModelTester):
    """Qwen3-TTS for the common suite: a model with named speakers, which speaks without a recording."""

    config_class = Qwen3TTSConfig
    model_class = Qwen3TTSForConditionalGeneration
    attn_implementations = ("eager", "sdpa")
    padding_sides = ("left", "right")
    voice = "bob"
    generation_arguments = {"max_new_tokens": 16, "min_new_tokens": 11}

    def config(self, kind: str = "custom_voice", talker: Inputs | None = None, **overrides: Any) -> Qwen3TTSConfig:
        speakers = {"spk_id": SPEAKERS, "spk_is_dialect": DIALECTS} if kind == "custom_voice" else {}
        parts = {
            "talker_config": TALKER | {"code_predictor_config": dict(CODE_PREDICTOR)} | speakers | (talker or {}),
            "speaker_encoder_config": dict(SPEAKER_ENCODER) if kind == "base" else None,
            "speech_tokenizer_config": TINY_CODEC,
        }
        ids = {
            "im_start_token_id": token_id("<|im_start|>"),
            "im_end_token_id": token_id("<|im_end|>"),
            "tts_pad_token_id": token_id("<tts_pad>"),
            "tts_bos_token_id": token_id("<tts_text_bos>"),
            "tts_eos_token_id": token_id("<tts_text_eod>"),
        }
        return Qwen3TTSConfig(**parts | ids | {"tts_model_type": kind} | overrides)

    def processor(self, kind: str = "custom_voice", **overrides: Any) -> Qwen3TTSProcessor:
        extractor = Qwen3TTSFeatureExtractor(feature_size=16, sampling_rate=RATE, fft_length=64, hop_length=16)
        return Qwen3TTSProcessor.from_config(self.config(kind, **overrides), load_tokenizer(), extractor)

    def inputs(self, batch_size: int = 2) -> Inputs:
        generator = torch.Generator().manual_seed(1)
        length = 12
        codec_ids = torch.full((batch_size, length, GROUPS), -1)
        codec_ids[:, 3:, 0] = torch.randint(32, 64, (batch_size, length - 3), generator=generator)
        codec_ids[:, 8:] = torch.randint(CODES, (batch_size, length - 8, GROUPS), generator=generator)
        return {
            "input_ids": torch.randint(290, (batch_size, length), generator=generator),
            "codec_ids": codec_ids,
            "attention_mask": torch.ones(batch_size, length, dtype=torch.long),
        }

    def ragged_inputs(self, padding_side: str) -> tuple[Inputs, list[Inputs]]:
        lengths, whole = (12, 7, 3), self.inputs(3)
        mask = torch.zeros(3, 12, dtype=torch.long)
        alone = []
        for row, length in enumerate(lengths):
            valid = slice(12 - length, 12) if padding_side == "left" else slice(0, length)
            mask[row, valid] = 1
            alone.append({name: value[row : row + 1, valid] for name, value in whole.items()})
        return whole | {"attention_mask": mask}, alone

    def valid(self, output: Any, inputs: Inputs, row: int) -> list[torch.Tensor]:
        return [output.logits[row, inputs["attention_mask"][row].bool()]]

    def training_inputs(self) -> Inputs:
        inputs = self.inputs()
        labels = torch.where(inputs["codec_ids"][..., 1] >= 0, inputs["codec_ids"][..., 0], -100)
        return inputs | {"labels": labels}

    def invalid_configs(self) -> list[Inputs]:
        return [
            {"kind": "singing"},
            {"talker": {"codec_bos_id": VOCAB_SIZE}},
            {"talker": {"spk_id": {"carol": 5000}}},
            {"talker": {"num_code_groups": 5}},
            {"tts_pad_token_id": 4000},
            {"tokenizer_type": "qwen3_tts_tokenizer_25hz"},
            {"tts_bos_token_id": "first"},
        ]

    def invalid_calls(self, model: Qwen3TTSForConditionalGeneration) -> dict[str, tuple[Callable[[], Any], str]]:
        spoken = dict(self.processor()(text=["One, two."], voice="alice"))
        ids = spoken["input_ids"]

        def generate(**changes: Any) -> Any:
            return model.generate(**spoken | changes)

        return {
            "nothing": (lambda: model(), "input_ids"),
            "codes of another codec": (
                lambda: model(codec_ids=torch.zeros(1, 4, 3, dtype=torch.long)),
                "codec_ids",
            ),
            "an unknown loss": (lambda: model(**self.training_inputs(), loss_type="hope"), "loss_type"),
            "no prompt": (lambda: model.generate(), "input_ids"),
            "a list": (lambda: generate(input_ids=[1, 2]), "input_ids"),
            "an empty prompt": (lambda: generate(input_ids=ids[:, :0]), "input_ids"),
            "a prompt without text": (lambda: model.generate(input_ids=ids[:, :5]), "input_ids"),
            "ids that do not exist": (lambda: generate(input_ids=ids + 1000), "input_ids"),
            "speakers of another batch": (lambda: generate(speaker_ids=torch.tensor([60, 61])), "speaker_ids"),
            "a vector of another model": (
                lambda: generate(speaker_embeddings=torch.ones(1, WIDTH + 1)),
                "speaker_embeddings",
            ),
            "codes without a transcript": (
                lambda: generate(reference_codes=torch.zeros(1, 3, GROUPS, dtype=torch.long)),
                "reference_codes",
            ),
            "a recording": (
                lambda: generate(voice_features=torch.ones(1, 9, 16), voice_features_mask=torch.ones(1, 9)),
                "speaker encoder",
            ),
            "beams": (lambda: generate(num_beams=2, do_sample=False), "mode"),
            "less than a frame": (lambda: generate(max_new_tokens=1), "max_new_tokens"),
            "no frames": (lambda: generate(max_frames=0), "max_frames"),
            "a negative window": (lambda: generate(repetition_penalty_window=-1), "repetition_penalty_window"),
            "an end that is a code": (lambda: generate(eos_token_id=3), "eos_token_id"),
            "an unknown argument": (lambda: generate(loudness=3), "loudness"),
            "a negative temperature": (lambda: generate(temperature=-1.0), "temperature"),
            "a prompt longer than the context": (lambda: model.generate(input_ids=ids.repeat(1, 100)), "context"),
            "seeds of another batch": (lambda: generate(seed=[1, 2, 3]), "seed"),
            "seed and generator": (lambda: generate(seed=1, generator=torch.Generator()), "seed"),
            "a chunk of no frames": (
                lambda: model.generate_stream(**spoken, emit_every_frames=0),
                "emit_every_frames",
            ),
        }

    def invalid_speech(
        self, processor: Qwen3TTSProcessor, model: Qwen3TTSForConditionalGeneration
    ) -> dict[str, tuple[Callable[[], Any], str]]:
        base = self.processor("base")

        def clone(voice: Any, **options: Any) -> Any:
            return base(text=["Hello."], voice=voice, **options)

        silent, broken = np.zeros(1200, np.float32), recording()
        broken[7] = np.nan
        return {
            "no text": (lambda: processor(text=[]), "text"),
            "a number": (lambda: processor(text=7), "text"),
            "blank text": (lambda: processor(text=["   "]), "text"),
            "text without a word": (lambda: processor(text=["…?!"]), "text"),
            "endless text": (lambda: processor(text=["word " * 20_000]), "characters"),
            "an unknown speaker": (lambda: processor(text=["Hello."], voice="carol"), "alice, bob"),
            "a blank speaker": (lambda: processor(text=["Hello."], voice=" "), "voice"),
            "two voices for one text": (lambda: processor(text=["Hello."], voice=["alice", "bob"]), "voice"),
            "an unknown language": (lambda: processor(text=["Hello."], language="klingon"), "language"),
            "a recording for a named voice": (lambda: processor(text=["Hello."], voice=recording()), "clone"),
            "tensors of another library": (lambda: processor(text=["Hello."], return_tensors="np"), "return_tensors"),
            "a transcript of nothing": (lambda: processor(text=["Hello."], transcript="Hi."), "transcript"),
            "no voice to clone": (lambda: base(text=["Hello."]), "voice"),
            "a file that is not there": (lambda: clone("nowhere.wav"), "nowhere.wav"),
            "an array without its rate": (lambda: clone(recording()), "sampling_rate"),
            "stereo": (lambda: clone(np.stack([recording()] * 2), sampling_rate=RATE), "mono"),
            "silence": (lambda: clone(silent, sampling_rate=RATE), "silent"),
            "NaN": (lambda: clone(broken, sampling_rate=RATE), "NaN"),
            "a click": (lambda: clone(recording(0.01), sampling_rate=RATE), "at least"),
            "a lecture": (lambda: clone(np.ones(301 * RATE, np.float32), sampling_rate=RATE), "at most"),
            "a blank transcript": (lambda: clone(recording(), sampling_rate=RATE, transcript=" "), "transcript"),
        }

    def decode_step(self, model: Qwen3TTSForConditionalGeneration) -> tuple[Callable[..., Any], Callable[[], tuple]]:
        inputs = self.inputs()
        rows = model.talker.embed(inputs["input_ids"], inputs["codec_ids"])

        def step(row: torch.Tensor, position_ids: torch.Tensor, static_cache: StaticCache) -> torch.Tensor:
            return model(inputs_embeds=row, position_ids=position_ids, past_key_values=static_cache).logits[:, -1]

        def arguments() -> tuple:
            static_cache = StaticCache(config=model.config.talker_config, max_cache_len=32)
            model(inputs_embeds=rows, past_key_values=static_cache)
            return rows[:, :1], torch.full((2, 1), rows.shape[1]), static_cache

        return step, arguments
