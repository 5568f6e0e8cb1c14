"""Tiny parts of MegaTTS3 for the common suite: the diffusion transformer and WaveVAE."""

from collections.abc import Callable
from typing import Any

import torch

from tests.common.model_tester import Inputs, ModelTester
from tts_models import MegaTTS3TransformerConfig, MegaTTS3VAEConfig
from tts_models.models.megatts3.modeling_megatts3_transformer import MegaTTS3TransformerModel
from tts_models.models.megatts3.modeling_megatts3_vae import MegaTTS3VAEModel
from tts_models.training.wave_vae import WaveVAETraining


LATENT_DIM, STEPS = 8, 2


def seeded(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def generators(batch_size: int) -> list[torch.Generator]:
    """Fresh generators, one per row, the same at every call."""
    return [torch.Generator().manual_seed(row) for row in range(batch_size)]


def phones(batch_size: int, count: int) -> torch.LongTensor:
    """Phone ids (batch, count), seeded."""
    return torch.randint(3, 174, (batch_size, count), generator=torch.Generator().manual_seed(count))


class TransformerTester(ModelTester):
    """The diffusion transformer: 6 phones of 8 frames, the first 4 latents given."""

    config_class = MegaTTS3TransformerConfig
    model_class = MegaTTS3TransformerModel
    attn_implementations = ("eager", "sdpa")
    padding_sides = ("right",)

    def config(self, **overrides: Any) -> MegaTTS3TransformerConfig:
        tiny = {
            "text_encoder_config": {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
            "latent_dim": LATENT_DIM,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "local_condition_size": 16,
            "context_mask_size": 4,
            "time_embedding_size": 16,
            "max_position_embeddings": 64,
            "condition_dropout": 0.3,
        }
        return MegaTTS3TransformerConfig(**(tiny | overrides))

    def model(self, **overrides: Any) -> MegaTTS3TransformerModel:
        model = super().model(**overrides)
        # Freshly initialised layers hardly change what they get: larger weights show what depends on what.
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "emb" not in name:
                parameter.data *= 50 * parameter[0].numel() ** -0.5
        return model

    def inputs(self, batch_size: int = 2) -> Inputs:
        return {
            "phone_ids": phones(batch_size, 6),
            "tone_ids": torch.randint(3, 16, (batch_size, 6), generator=torch.Generator().manual_seed(1)),
            "frame_map": torch.arange(1, 7).repeat_interleave(8).repeat(batch_size, 1),
            "prompt_latents": seeded(batch_size, 4, LATENT_DIM),
            "num_inference_steps": STEPS,
            "initial_noise": seeded(batch_size, 12, LATENT_DIM, seed=1),
            "step_noise": seeded(batch_size, STEPS, 12, LATENT_DIM, seed=2),
            "return_dict": True,
        }

    def ragged_inputs(self, padding_side: str) -> tuple[Inputs, list[Inputs]]:
        inputs, alone = self.inputs(batch_size=3), []
        counts, prompts = (6, 4, 1), (4, 3, 0)
        for row, (count, prompt) in enumerate(zip(counts, prompts, strict=True)):
            for name in ("phone_ids", "tone_ids"):
                inputs[name][row, count:] = 0
            inputs["frame_map"][row, 8 * count :] = 0
            single = {
                name: value[row : row + 1] if isinstance(value, torch.Tensor) else value
                for name, value in inputs.items()
            }
            single |= {name: single[name][:, :count] for name in ("phone_ids", "tone_ids")}
            single |= {
                "frame_map": single["frame_map"][:, : 8 * count],
                "prompt_latents": single["prompt_latents"][:, :prompt],
                "initial_noise": single["initial_noise"][:, : 2 * count],
                "step_noise": single["step_noise"][:, :, : 2 * count],
            }
            alone.append(single)
        return inputs | {"prompt_lengths": torch.tensor(prompts)}, alone

    def valid(self, output: Any, inputs: Inputs, row: int) -> list[torch.Tensor]:
        return [output.latents[row, : output.latent_lengths[row]]]

    def training_inputs(self) -> Inputs:
        inputs = self.inputs(batch_size=4)
        kept = {name: inputs[name] for name in ("phone_ids", "tone_ids", "frame_map")}
        return kept | {"labels": seeded(4, 12, LATENT_DIM, seed=3), "generator": generators(4)}

    def invalid_configs(self) -> list[Inputs]:
        return [
            {"hidden_size": 33},
            {"num_attention_heads": 32},
            {"frames_per_latent": 2},
            {"num_inference_steps": 0},
            {"dropped_phone_id": 302},
            {"dropped_tone_id": 0},
            {"condition_dropout": 1.0},
            {"latent_dim": "many"},
        ]

    def invalid_calls(self, model: MegaTTS3TransformerModel) -> dict[str, tuple[Callable[[], Any], str]]:
        inputs = self.inputs(batch_size=1)
        prompt, labels = inputs["prompt_latents"], seeded(1, 12, LATENT_DIM)

        def call(**changes: Any) -> Any:
            return model(**(inputs | changes))

        return {
            "latents of another width": (lambda: call(prompt_latents=prompt[..., :5]), "prompt_latents.*8.*5"),
            "latents that are not finite": (lambda: call(prompt_latents=prompt / 0), "prompt_latents.*finite"),
            "prompt as long as everything": (
                lambda: call(prompt_latents=seeded(1, 12, LATENT_DIM)),
                "prompt_lengths.*below",
            ),
            "prompt longer than its latents": (lambda: call(prompt_lengths=torch.tensor([5])), "prompt_lengths.*4"),
            "frames that make no latent": (lambda: call(frame_map=inputs["frame_map"][:, :5]), "frame_map.*4 frames"),
            "no frames": (lambda: call(frame_map=inputs["frame_map"][:, :0]), "frame_map"),
            "frames of no phone": (lambda: call(frame_map=inputs["frame_map"] + 1), "frame_map.*0 … 6"),
            "too many frames": (lambda: call(frame_map=torch.ones(1, 260, dtype=torch.long)), "max_position"),
            "more rows of phones": (lambda: call(phone_ids=phones(2, 6)), "phone_ids"),
            "a phone out of range": (lambda: call(phone_ids=inputs["phone_ids"] + 302), "phone_ids"),
            "a length beyond the frames": (lambda: call(lengths=torch.tensor([13])), "lengths.*12"),
            "no step": (lambda: call(num_inference_steps=0), "num_inference_steps.*0"),
            "half a step": (lambda: call(num_inference_steps=1.5), "num_inference_steps.*1.5"),
            "guidance that is no number": (
                lambda: call(similarity_weight=float("nan")),
                "similarity_weight.*finite",
            ),
            "guidance of two rows": (lambda: call(intelligibility_weight=torch.ones(2)), "intelligibility_weight"),
            "noise of another length": (lambda: call(initial_noise=labels[:, :5]), "initial_noise.*12"),
            "noise of other steps": (lambda: call(num_inference_steps=3), "step_noise.*3"),
            "generators of two rows": (
                lambda: call(initial_noise=None, generator=generators(2)),
                "generator",
            ),
            "labels of another length": (lambda: call(labels=labels[:, 1:]), "labels.*12"),
            "a bucket of nothing": (lambda: model.use_cuda_graphs(0), "bucket_latents"),
        }


class VAETester(ModelTester):
    """WaveVAE with an encoder."""

    config_class = MegaTTS3VAEConfig
    model_class = MegaTTS3VAEModel
    padding_sides = ("right",)

    def config(self, **overrides: Any) -> MegaTTS3VAEConfig:
        tiny = {
            "latent_dim": LATENT_DIM,
            "decoder_input_size": 16,
            "decoder_hidden_size": 4,
            "encoder_num_filters": 2,
            "encoder_hidden_size": 16,
        }
        return MegaTTS3VAEConfig(**(tiny | overrides))

    def model(self, **overrides: Any) -> MegaTTS3VAEModel:
        model = super().model(**overrides)
        for parameter in model.decoder.parameters():
            if parameter.dim() == 3:
                parameter.data.normal_(0, (2 * parameter.shape[1] * parameter.shape[2]) ** -0.5)
        return model

    def inputs(self, batch_size: int = 2) -> Inputs:
        return {"input_values": 0.1 * seeded(batch_size, 3000), "return_dict": True}

    def ragged_inputs(self, padding_side: str) -> tuple[Inputs, list[Inputs]]:
        lengths, inputs = (3000, 1921, 2), self.inputs(batch_size=3)
        alone = [inputs | {"input_values": inputs["input_values"][row : row + 1, :n]} for row, n in enumerate(lengths)]
        return inputs | {"lengths": torch.tensor(lengths)}, alone

    def valid(self, output: Any, inputs: Inputs, row: int) -> list[torch.Tensor]:
        lengths = inputs.get("lengths")
        samples = inputs["input_values"].shape[1] if lengths is None else int(lengths[row])
        return [output.latents[row, : -(-samples // 960)], output.audio_values[row, :samples]]

    def training_inputs(self) -> Inputs:
        return {"input_values": 0.1 * seeded(2, 2880)}

    def loss(self, model: MegaTTS3VAEModel) -> torch.Tensor:
        torch.manual_seed(0)
        return WaveVAETraining(model)(**self.training_inputs()).loss

    def invalid_configs(self) -> list[Inputs]:
        return [
            {"encoder_ratios": [6, 5, 4, 4]},
            {"upsampling_ratios": [5, 4]},
            {"latent_dim": 0},
            {"num_bands": 0},
            {"encoder_num_lstm_layers": -1},
            {"use_tanh": "yes"},
        ]

    def invalid_calls(self, model: MegaTTS3VAEModel) -> dict[str, tuple[Callable[[], Any], str]]:
        waveform, latents = self.inputs(1)["input_values"], seeded(1, 5, LATENT_DIM)
        decoder_only = super().model(has_encoder=False)
        return {
            "no encoder": (lambda: decoder_only.encode(waveform), r"\.npy.*community"),
            "no encoder in the whole": (lambda: decoder_only(waveform), "has_encoder"),
            "an encoder too many": (model.add_encoder, "add_encoder"),
            "training without an encoder": (lambda: WaveVAETraining(decoder_only), "add_encoder"),
            "training on bands": (
                lambda: WaveVAETraining(super(VAETester, self).model(num_bands=2)),
                "num_bands=1.*2",
            ),
            "a channel axis": (lambda: model.encode(waveform[:, None]), "input_values.*batch, samples"),
            "no samples": (lambda: model.encode(waveform[:, :0]), "input_values.*one sample"),
            "samples that are not finite": (lambda: model.encode(waveform / 0), "input_values.*finite"),
            "a length beyond the row": (lambda: model.encode(waveform, torch.tensor([3001])), "lengths.*3000"),
            "noise of another shape": (
                lambda: model.encode(waveform, sample=True, noise=latents),
                r"noise.*\(1, 4, 8\)",
            ),
            "generators of two rows": (
                lambda: model.encode(waveform, sample=True, generator=generators(2)),
                "generator",
            ),
            "latents of another width": (lambda: model.decode(latents[..., :3]), "latents.*8.*3"),
            "no latents": (lambda: model.decode(latents[:, :0]), "latents.*one step"),
            "a length of nothing": (lambda: model.decode(latents, torch.tensor([0])), "lengths"),
            "a start behind the end": (lambda: model.decode(latents, first_latent=5), "first_latent"),
            "starts of two rows": (lambda: model.decode(latents, first_latent=torch.tensor([0, 1])), "first_latent"),
        }
