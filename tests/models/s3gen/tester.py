"""Tiny S3Gen models for the common suite."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from tests.common.model_tester import Inputs, ModelTester
from tts_models import S3GenChunks, S3GenConfig, S3GenModel


MEL_BINS = 8
TINY = {
    "token_embed_dim": 16,
    "encoder_output_size": 16,
    "encoder_attention_heads": 2,
    "encoder_linear_units": 24,
    "encoder_num_blocks": 2,
    "encoder_num_up_blocks": 1,
    "encoder_dropout_rate": 0.0,
    "speaker_embed_dim": 12,
    "decoder_in_channels": 4 * MEL_BINS,
    "decoder_out_channels": MEL_BINS,
    "decoder_channels": [16],
    "decoder_n_blocks": 1,
    "decoder_num_mid_blocks": 2,
    "decoder_num_heads": 2,
    "decoder_attention_head_dim": 8,
    "mel_bins": MEL_BINS,
    "num_flow_steps": 2,
    "chunk_size": 5,
    "tokenizer_config": {
        "hidden_size": 16,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_mel_bins": 32,
    },
    "speaker_encoder_config": {
        "embedding_size": 12,
        "num_mel_bins": 16,
        "head_channels": 4,
        "initial_channels": 16,
        "growth_rate": 4,
        "block_layers": [1, 1, 1],
    },
    "vocoder_config": {
        "in_channels": MEL_BINS,
        "f0_predictor_in_channels": MEL_BINS,
        "base_channels": 16,
        "f0_predictor_cond_channels": 8,
    },
}
PROMPT_TOKENS = 7


def random_tokens(batch_size: int, tokens: int, seed: int = 0) -> torch.LongTensor:
    """Seeded speech tokens (batch, tokens)."""
    return torch.randint(0, 6561, (batch_size, tokens), generator=torch.Generator().manual_seed(seed))


def recording(seconds: float, rate: int, seed: int = 0) -> torch.Tensor:
    """A hum with noise (samples,)."""
    time = torch.arange(int(seconds * rate)) / rate
    noise = torch.randn(len(time), generator=torch.Generator().manual_seed(seed))
    return 0.3 * torch.sin(2 * torch.pi * 140 * time) + 0.02 * noise


def voice(config: S3GenConfig, tokens: int = PROMPT_TOKENS, voices: int = 1, seed: int = 3) -> dict[str, Any]:
    """A reference voice as `embed_ref` returns it."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "prompt_token": random_tokens(voices, tokens, seed),
        "prompt_token_len": torch.full((voices,), tokens),
        "prompt_feat": torch.randn(voices, 2 * tokens, config.mel_bins, generator=generator),
        "prompt_feat_len": None,
        "embedding": torch.randn(voices, config.speaker_embed_dim, generator=generator),
    }


def generators(batch_size: int) -> list[torch.Generator]:
    """Fresh generators, one per row, the same at every call."""
    return [torch.Generator().manual_seed(row) for row in range(batch_size)]


class Tester(ModelTester):
    """S3Gen for the common suite."""

    config_class = S3GenConfig
    model_class = S3GenModel
    attn_implementations = ("eager", "sdpa")
    padding_sides = ("right",)

    @property
    def untrained_parameters(self) -> frozenset[str]:
        """The loss is the flow's; the other parts are trained by themselves."""
        return frozenset(name for name, _ in self.model().named_parameters() if not name.startswith("flow."))

    def config(self, **overrides: Any) -> S3GenConfig:
        return S3GenConfig(**(TINY | overrides))

    def model(self, **overrides: Any) -> S3GenModel:
        model = super().model(**overrides)
        # Freshly initialised layers hardly change what they get: larger weights show what depends on what.
        for name, parameter in model.flow.named_parameters():
            if parameter.dim() > 1 and "embedding" not in name:
                parameter.data *= 5
        return model

    def inputs(self, batch_size: int = 2) -> Inputs:
        frames = 2 * (PROMPT_TOKENS + 9)
        noise = torch.randn(batch_size, MEL_BINS, frames, generator=torch.Generator().manual_seed(1))
        return {
            "speech_tokens": random_tokens(batch_size, 9),
            "ref_dict": voice(self.config()),
            "noise": noise,
            "finalize": True,
            "return_dict": True,
        }

    def ragged_inputs(self, padding_side: str) -> tuple[Inputs, list[Inputs]]:
        lengths, inputs = (9, 4, 1), self.inputs(batch_size=3)
        alone = [
            inputs
            | {"speech_tokens": inputs["speech_tokens"][row : row + 1, :n], "noise": inputs["noise"][row : row + 1]}
            for row, n in enumerate(lengths)
        ]
        return inputs | {"speech_token_lens": torch.tensor(lengths)}, alone

    def valid(self, output: Any, inputs: Inputs, row: int) -> list[torch.Tensor]:
        return [output.mel[row, :, : output.mel_lengths[row]]]

    def training_inputs(self) -> Inputs:
        generator = torch.Generator().manual_seed(2)
        return {
            "speech_tokens": random_tokens(3, 8),
            "speech_token_lens": torch.tensor([8, 6, 8]),
            "labels": torch.randn(3, MEL_BINS, 16, generator=generator),
            "speaker_embedding": torch.randn(3, 12, generator=generator),
            "generator": generators(3),
        }

    def invalid_configs(self) -> list[Inputs]:
        return [
            {"decoder_in_channels": 31},
            {"decoder_channels": [16, 16]},
            {"encoder_attention_heads": 3},
            {"cfm_solver": "heun"},
            {"cfm_t_scheduler": "square"},
            {"hop_length": 256},
            {"chunk_size": 0},
            {"vocab_size": "many"},
        ]

    def invalid_calls(self, model: S3GenModel) -> dict[str, tuple[Callable[[], Any], str]]:
        tokens, reference = random_tokens(1, 4), voice(model.config)
        hum = recording(0.3, 24000)

        def speak(**changes: Any) -> Any:
            return model(**({"speech_tokens": tokens, "ref_dict": reference, "finalize": True} | changes))

        return {
            "id of the start mark": (lambda: speak(speech_tokens=tokens * 0 + 6561), r"0 … 6560.*drop_invalid_tokens"),
            "negative id": (lambda: speak(speech_tokens=tokens - 7000), "speech_tokens"),
            "no tokens": (lambda: speak(speech_tokens=tokens[:, :0]), "speech_tokens.*at least one"),
            "tokens that are no integers": (lambda: speak(speech_tokens=tokens.float()), "integers"),
            "length beyond the row": (lambda: speak(speech_token_lens=torch.tensor([5])), "speech_token_lens"),
            "no reference": (lambda: speak(ref_dict=None), "neither"),
            "two references": (lambda: speak(ref_wav=hum, ref_sr=24000), "both"),
            "no rate": (lambda: speak(ref_dict=None, ref_wav=hum), "ref_sr"),
            "stereo": (lambda: speak(ref_dict=None, ref_wav=torch.stack([hum, hum]), ref_sr=24000), "average"),
            "reference of no samples": (lambda: model.embed_ref(hum[:0], 24000), "ref_wav"),
            "reference of 20 ms": (lambda: model.embed_ref(hum[:480], 24000), "0.1 s"),
            "reference with NaN": (lambda: model.embed_ref(hum * float("nan"), 24000), "finite"),
            "reference at no rate": (lambda: model.embed_ref(hum, 0), "0"),
            "incomplete reference": (lambda: speak(ref_dict={"prompt_token": tokens}), "lacks"),
            "prompt id out of range": (
                lambda: speak(ref_dict=reference | {"prompt_token": tokens + 6561}),
                "prompt_token",
            ),
            "mel of another model": (
                lambda: speak(ref_dict=reference | {"prompt_feat": torch.ones(1, 4, 5)}),
                "prompt_feat",
            ),
            "no step": (lambda: speak(num_flow_steps=0), "num_flow_steps"),
            "negative guidance": (lambda: speak(guidance_rate=-1.0), "guidance_rate"),
            "noise too short": (lambda: speak(noise=torch.ones(1, MEL_BINS, 3)), "noise"),
            "labels of another length": (lambda: speak(labels=torch.ones(1, MEL_BINS, 7)), "labels"),
            "labels without a speaker": (lambda: speak(labels=torch.ones(1, MEL_BINS, 8)), "speaker_embedding"),
            "chunks of nothing": (lambda: S3GenChunks(0), "size"),
            "streamed id out of range": (lambda: model.start_stream(reference).push(6561), "tokens"),
            "several rows streamed": (lambda: model.start_stream(reference).push(random_tokens(2, 3)), "tokens"),
        }

    def streams(self, model: S3GenModel) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
        tokens, reference = random_tokens(1, 23), voice(model.config)
        for chunks in (S3GenChunks(5, first=None), S3GenChunks(5, first=4), S3GenChunks(6, first=1, left=7)):
            offline, _ = model.inference(tokens, ref_dict=reference, chunks=chunks, generator=generators(1))
            for pieces in ([1] * 23, [23], [4, 0, 9, 10]):
                streamed = list(
                    model.stream(tokens.split(pieces, 1), reference, chunks=chunks, generator=generators(1)[0])
                )
                yield f"{chunks}, pieces {pieces}", offline, torch.cat(streamed, dim=1)
