"""A tiny MegaTTS3 for the common suite, with a tokenizer and a voice made here."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from tests.common.model_tester import Inputs, SpeakingModelTester
from tts_models import MegaTTS3Config, MegaTTS3ForConditionalGeneration, MegaTTS3Processor, MegaTTS3Voice
from tts_models.models.megatts3.training_megatts3_transformer import MegaTTS3TrainingDraws


LATENT_DIM, RATE = 8, 24000
PHONE_TOKENS = 802
TEXT_ENCODER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
TINY = {
    "aligner_config": {
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "max_source_positions": 800,
        "max_target_positions": 100,
        "max_new_tokens": 12,
    },
    "g2p_config": {
        "vocab_size": 1100,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": 0,
        "eos_token_id": 0,
        # As large as a trained network's: smaller weights make every next token equally likely.
        "initializer_range": 0.2,
    },
    "duration_config": {
        "text_encoder_config": TEXT_ENCODER,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
    },
    "transformer_config": {
        "text_encoder_config": {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
        "latent_dim": LATENT_DIM,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "local_condition_size": 16,
        "context_mask_size": 4,
        "time_embedding_size": 16,
        "max_position_embeddings": 2048,
    },
    "vae_config": {
        "latent_dim": LATENT_DIM,
        "decoder_input_size": 16,
        "decoder_hidden_size": 2,
        "encoder_num_filters": 2,
        "encoder_hidden_size": 16,
    },
    "g2p_first_phone_id": 258,
}


@cache
def load_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of the released one's kind, with a vocabulary of bytes and the phone tokens."""
    vocabulary = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    own = ["<BOT>", "<BOS>", *(f"<Reserved_TTS_{number}>" for number in range(PHONE_TOKENS)), "<|endoftext|>"]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in own])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|endoftext|>", eos_token="<|endoftext|>", bos_token=None
    )


def seeded(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def recording(seconds: float = 1.0, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """A noisy tone, float32 `(samples,)`."""
    generator = np.random.default_rng(seed)
    times = np.arange(int(seconds * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * (120 + 40 * seed) * times) + 0.05 * generator.standard_normal(len(times))
    return tone.astype(np.float32)


def prepared_voice(seed: int = 0, phones: int = 4) -> MegaTTS3Voice:
    """A voice of 8 frames a phone."""
    generator = torch.Generator().manual_seed(seed)
    return MegaTTS3Voice(
        phone_ids=torch.randint(101, 145, (phones,), generator=generator),
        tone_ids=torch.full((phones,), 3),
        durations=torch.full((phones,), 8),
        latents=torch.randn(2 * phones, LATENT_DIM, generator=generator),
        loudness=torch.tensor(-20.0),
    )


def latents_for(seconds: float) -> np.ndarray:
    """Latents as upstream publishes them, for a recording of so many seconds."""
    return seeded(1, round(25 * (seconds + 0.6)) + 1, LATENT_DIM).numpy()


class Tester(SpeakingModelTester):
    """MegaTTS3 for the common suite."""

    config_class = MegaTTS3Config
    model_class = MegaTTS3ForConditionalGeneration
    attn_implementations = ("eager", "sdpa")
    padding_sides = ("right",)
    text = (
        "This sentence is so long that it fills nearly all of the hundred and thirty bytes that a part of an English "
        "text may have. A second part follows."
    )
    other_text = text + (
        " The third part is again a sentence that is long enough to stand alone, as it has about a hundred and more "
        "bytes of text in it."
    )
    generation_arguments = {"max_new_tokens": 9, "num_inference_steps": 2}

    def config(self, **overrides: Any) -> MegaTTS3Config:
        parts = {
            name: value | overrides.pop(name, {}) if isinstance(value, dict) else value for name, value in TINY.items()
        }
        return MegaTTS3Config(**parts | overrides)

    def model(self, **overrides: Any) -> MegaTTS3ForConditionalGeneration:
        model = super().model(**overrides)
        # Freshly initialised layers hardly change what they get: larger weights show what depends on what.
        for part in (model.transformer, model.duration):
            for name, parameter in part.named_parameters():
                if parameter.dim() > 1 and "emb" not in name:
                    parameter.data *= 50 * parameter[0].numel() ** -0.5
        for parameter in model.vae.parameters():
            if parameter.dim() == 3:
                parameter.data.normal_(0, (2 * parameter.shape[1] * parameter.shape[2]) ** -0.5)
        # Phones of some frames, of different lengths.
        model.duration.head.bias.data += 6.0
        # The aligner says English phones and times in turn, so that a recording holds speech.
        model.aligner.get_output_embeddings().bias.data[101:145] += 20.0
        return model

    def processor(self, **overrides: Any) -> MegaTTS3Processor:
        processor = MegaTTS3Processor.from_config(self.config(), load_tokenizer(), **overrides)
        processor.default_voice = prepared_voice()
        return processor

    def inputs(self, batch_size: int = 2) -> Inputs:
        generator = torch.Generator().manual_seed(1)
        return {
            "input_ids": torch.randint(1100, (batch_size, 7), generator=generator),
            "attention_mask": torch.ones(batch_size, 7, dtype=torch.long),
            "phone_ids": torch.randint(3, 174, (batch_size, 6), generator=generator),
            "tone_ids": torch.randint(3, 16, (batch_size, 6), generator=generator),
            "duration_ids": torch.randint(1, 129, (batch_size, 6), generator=generator),
            "return_dict": True,
        }

    def ragged_inputs(self, padding_side: str) -> tuple[Inputs, list[Inputs]]:
        whole, alone = self.inputs(3), []
        for row, (ids, phones) in enumerate(((7, 4), (4, 6), (2, 1))):
            single = {name: value[row : row + 1] for name, value in whole.items() if isinstance(value, torch.Tensor)}
            lengths = {"input_ids": ids, "attention_mask": ids}
            single = {name: value[:, : lengths.get(name, phones)].clone() for name, value in single.items()}
            for name, value in single.items():
                whole[name][row, value.shape[1] :] = 0
            alone.append(single | {"return_dict": True})
        return whole, alone

    def valid(self, output: Any, inputs: Inputs, row: int) -> list[torch.Tensor]:
        phones = int((inputs["phone_ids"][row] > 0).sum())
        return [
            output.g2p_logits[row, inputs["attention_mask"][row].bool()],
            output.duration_logits[row, :phones],
        ]

    def training_inputs(self) -> Inputs:
        inputs = self.inputs()
        labels = seeded(2, 12, LATENT_DIM)
        draws = MegaTTS3TrainingDraws(
            time=torch.tensor([0.3, 0.6]),
            noise=seeded(2, 12, LATENT_DIM, seed=1),
            prompt_lengths=torch.tensor([3, 2]),
            has_prompt=torch.tensor([True, False]),
            has_text=torch.tensor([True, True]),
        )
        return inputs | {
            "g2p_labels": inputs["input_ids"],
            "duration_labels": inputs["duration_ids"],
            "frame_map": torch.arange(1, 7).repeat_interleave(8).repeat(2, 1),
            "labels": labels,
            "training_draws": draws,
            "input_features": seeded(2, 80, 40),
            "aligner_labels": torch.randint(101, 145, (2, 6), generator=torch.Generator().manual_seed(2)),
        }

    def invalid_configs(self) -> list[Inputs]:
        return [
            {"vae_config": {"latent_dim": 9}},
            {"vae_config": TINY["vae_config"] | {"num_bands": 2}},
            {"frames_multiple": 6},
            {"g2p_first_phone_id": 1090},
            {"transformer_config": {"hidden_size": 33}},
            {"duration_config": {"head_type": "guess"}},
            {"aligner_config": {"eos_token_id": 6800}},
            {"g2p_first_phone_id": "many"},
        ]

    def invalid_calls(self, model: MegaTTS3ForConditionalGeneration) -> dict[str, tuple[Callable[[], Any], str]]:
        spoken = dict(self.processor()(text=["One, two."]))
        ids = spoken["input_ids"]
        phones = dict(self.processor()(phones=["sil E0w E0ah E0n"]))

        def generate(**changes: Any) -> Any:
            return model.generate(**spoken | changes)

        def speak_phones(**changes: Any) -> Any:
            return model.generate(**phones | changes)

        without_voice = {name: value for name, value in spoken.items() if name in ("input_ids", "attention_mask")}
        return {
            "nothing": (lambda: model(), "(?i)nothing|input_ids|labels"),
            "no prompt": (lambda: model.generate(), "input_ids"),
            "an empty prompt": (lambda: generate(input_ids=ids[:, :0]), "input_ids"),
            "ids that do not exist": (lambda: generate(input_ids=ids + 2000), "input_ids"),
            "text and phones": (lambda: generate(phone_ids=torch.ones(1, 3).long()), "phone_ids"),
            "phones without tones": (lambda: speak_phones(tone_ids=None), "tone_ids"),
            "phones that do not exist": (lambda: speak_phones(phone_ids=phones["phone_ids"] + 100), "phone_ids"),
            "phones padded in front": (lambda: speak_phones(phone_ids=torch.tensor([[0, 0, 103, 104]])), "right"),
            "parts that do not add up": (lambda: generate(part_counts=torch.tensor([2])), "part_counts"),
            "no voice": (lambda: model.generate(**without_voice), "(?i)voice"),
            "half a voice": (lambda: generate(prompt_latents=None), "prompt_latents"),
            "a voice of zeros": (lambda: generate(prompt_phones=torch.zeros(1, 4).long()), "no voice"),
            "a voice of another model": (lambda: generate(prompt_latents=torch.ones(1, 8, 9)), "another model"),
            "voices of another batch": (lambda: generate(prompt_tones=torch.ones(2, 4).long()), "prompt_tones"),
            "too few latents": (lambda: generate(prompt_latents=torch.ones(1, 5, LATENT_DIM)), "latents"),
            "phones nobody knows": (lambda: generate(prompt_phones=torch.full((1, 4), 200)), "phones"),
            "an unknown tensor": (lambda: generate(loudness_values=torch.ones(1)), "loudness_values"),
            "an unknown argument": (lambda: generate(loudness=3), "loudness"),
            "beams": (lambda: generate(num_beams=2), "mode"),
            "no tokens": (lambda: generate(max_new_tokens=0), "max_new_tokens"),
            "a negative temperature": (lambda: generate(do_sample=True, temperature=-1.0), "temperature"),
            "no steps": (lambda: generate(num_inference_steps=0), "num_inference_steps"),
            "no steps by upstream's name": (lambda: generate(time_step=0), "num_inference_steps"),
            "half a step": (lambda: generate(num_inference_steps=2.5), "num_inference_steps"),
            "a negative weight of the text": (lambda: generate(p_w=-1.0), "p_w"),
            "an endless weight of the voice": (lambda: generate(t_w=1e6), "t_w"),
            "a negative disturbance": (lambda: generate(dur_disturb=-0.1), "dur_disturb"),
            "no speed": (lambda: generate(dur_alpha=0.0), "dur_alpha"),
            "no parts at once": (lambda: generate(parts_per_batch=0), "parts_per_batch"),
            "seeds of another batch": (lambda: generate(seed=[1, 2, 3]), "seed"),
        }

    def invalid_speech(
        self, processor: MegaTTS3Processor, model: MegaTTS3ForConditionalGeneration
    ) -> dict[str, tuple[Callable[[], Any], str]]:
        def clone(voice: Any, **options: Any) -> Any:
            return processor(text=["Hello."], voice=voice, **options)

        silent, broken = np.zeros(36000, np.float32), recording()
        broken[7] = np.nan
        sound, latents = (recording(), RATE), latents_for(1.0)
        nobody = self.processor()
        nobody.default_voice = None
        return {
            "no text": (lambda: processor(text=[]), "text"),
            "neither text nor phones": (lambda: processor(), "phones"),
            "both text and phones": (lambda: processor(text="Hello.", phones="sil"), "phones"),
            "a number": (lambda: processor(text=7), "text"),
            "empty text": (lambda: processor(text=[""]), "text"),
            "blank text": (lambda: processor(text=["   "]), "text"),
            "text without a word": (lambda: processor(text=["…?!。"]), "text"),
            "endless text": (lambda: processor(text=["word " * 20_000]), "characters"),
            "no phones": (lambda: processor(phones=[]), "phones"),
            "blank phones": (lambda: processor(phones=[" "]), "phones"),
            "an unknown phone": (lambda: processor(phones="sil E0xx"), "E0xx"),
            "a phone without its tone": (lambda: processor(phones="C0n C0i/3"), "C0n"),
            "a tone too high": (lambda: processor(phones="C0n/7"), "C0n/7"),
            "a tone of English": (lambda: processor(phones="E0n/1"), "E0n/1"),
            "two voices for one text": (lambda: clone([prepared_voice()] * 2), "voice"),
            "another language": (lambda: processor(text=["Bonjour."], language="fr"), "language"),
            "an unknown splitter": (lambda: processor(text=["Hi."], splitter="words"), "splitter"),
            "a negative window": (lambda: processor(text="Hi.", splitter="flashtts", window_size=-1), "window_size"),
            "tensors of another library": (lambda: processor(text=["Hello."], return_tensors="np"), "return_tensors"),
            "no voice": (lambda: nobody(text=["Hello."]), "voice"),
            "a file that is not there": (lambda: clone("nowhere.wav"), "nowhere.wav"),
            "latents that are not there": (lambda: clone((sound, "nowhere.npy")), "nowhere.npy"),
            "an array without its rate": (lambda: clone(recording()), "sampling_rate"),
            "stereo": (lambda: clone(np.stack([recording()] * 2), sampling_rate=24000), "mono"),
            "silence": (lambda: clone(silent, sampling_rate=24000), "silent"),
            "NaN": (lambda: clone(broken, sampling_rate=24000), "NaN"),
            "a click": (lambda: clone(recording(0.05), sampling_rate=24000), "lasts"),
            "a lecture": (lambda: clone(np.ones(31 * 24000, np.float32), sampling_rate=24000), "lasts"),
            "latents of a shorter recording": (lambda: clone((sound, latents[:, :20])), "do not belong together"),
            "latents of another width": (lambda: clone((sound, latents[..., :7])), "shape"),
            "latents of two recordings": (lambda: clone((sound, np.repeat(latents, 2, 0))), "shape"),
            "whole numbers": (lambda: clone((sound, latents.astype(np.int32))), "floating"),
            "latents that are not finite": (lambda: clone((sound, latents * np.nan)), "NaN"),
            "far too many latents": (lambda: clone((sound, np.zeros((1, 5000, LATENT_DIM), np.float32))), "at most"),
        }
