# Copyright 2026 The tts_models authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""S3Gen: speech tokens and a reference voice to a waveform (Chatterbox; CosyVoice 2's flow and HiFTNet)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput, logging

from ...audio.mel import log_mel_spectrogram
from ...audio.sinc_resample import sinc_resample
from ...loading import CompleteCheckpointMixin
from ...streaming.generators import RowGenerators, resolve_row_generators
from ..campplus import CAMPPlusModel
from ..hiftnet import HiFTNetModel
from ..s3_tokenizer import S3TokenizerModel
from .chunks_s3gen import FrameNoise, S3GenChunks, split_generators
from .configuration_s3gen import S3GenConfig
from .modeling_s3gen_flow import FlowPlan, S3GenFlow
from .modeling_s3gen_layers import S3GenEncoderAttention
from .reference_s3gen import S3GenPrompt, check_token_range, make_prompt
from .streaming_s3gen import S3GenStream
from .training_s3gen import TrainingDraws, draw_training, flow_loss


logger = logging.get_logger(__name__)

# Longer references are allowed; the released weights heard at most this much.
LONGEST_REFERENCE = 10.0


# trf-ignore: TRF057
@dataclass
class S3GenOutput(ModelOutput):
    r"""
    Output of [`S3GenModel`] with `return_dict=True` or `labels`.

    loss (`torch.FloatTensor` of shape `()`): Flow-matching loss, with `labels`.
    mel (`torch.FloatTensor` of shape `(batch, mel_bins, frames)`): Log-mel frames at 50 Hz, zero after a row's end.
    mel_lengths (`torch.LongTensor` of shape `(batch,)`): Frames of each row.
    """

    loss: torch.FloatTensor | None = None
    mel: torch.FloatTensor | None = None
    mel_lengths: torch.LongTensor | None = None


def returns_mel(forward: Callable[..., S3GenOutput]) -> Callable[..., torch.Tensor | S3GenOutput | tuple]:
    """Lets `forward` return the mel frames alone, unless there is a loss or `return_dict` says otherwise."""

    @wraps(forward)
    def wrapped(*args: Any, return_dict: bool | None = None, **kwargs: Any) -> torch.Tensor | S3GenOutput | tuple:
        output = forward(*args, **kwargs)
        if return_dict is None and output.loss is None:
            return output.mel
        return output.to_tuple() if return_dict is False else output

    return wrapped


# trf-ignore: TRF057
class S3GenPreTrainedModel(CompleteCheckpointMixin, PreTrainedModel):
    """Base class: configuration and initialisation of S3Gen."""

    config: S3GenConfig
    config_class = S3GenConfig
    conversion_script = "convert_s3gen_to_hf.py"
    base_model_prefix = "s3gen"
    main_input_name = "speech_tokens"
    input_modalities = "audio"
    # Half precision moves tokens of a reference across their boundaries, and the pitch's integral.
    _keep_in_fp32_modules_strict = ["tokenizer", "speaker_encoder", "mel2wav"]
    _no_split_modules = ["S3GenEncoderLayer", "S3GenTransformerBlock", "S3GenResnet"]
    _supports_sdpa = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, S3GenEncoderAttention):
            init.xavier_uniform_(module.pos_bias_u)
            init.xavier_uniform_(module.pos_bias_v)


# trf-ignore: TRF057
class S3GenModel(S3GenPreTrainedModel):
    r"""
    Speaks speech tokens (25 a second, ids 0 … 6560) in the voice of a reference recording.

    Attributes:
        tokenizer ([`S3TokenizerModel`]): Speech tokens of recordings.
        speaker_encoder ([`CAMPPlusModel`]): Speaker vectors.
        flow (`S3GenFlow`): Tokens to mel frames.
        mel2wav ([`HiFTNetModel`]): Mel frames to the waveform.

    Example:

    ```python
    >>> import torch
    >>> from tts_models import S3GenModel

    >>> model = S3GenModel.from_pretrained(folder).eval()  # doctest: +SKIP
    >>> ref_dict = model.embed_ref(0.1 * torch.randn(24000), 24000)  # doctest: +SKIP
    >>> waveform, source = model.inference(torch.randint(0, 6561, (1, 50)), ref_dict=ref_dict)  # doctest: +SKIP
    ```
    """

    def __init__(self, config: S3GenConfig):
        super().__init__(config)
        self.tokenizer = S3TokenizerModel(config.tokenizer_config)
        self.speaker_encoder = CAMPPlusModel(config.speaker_encoder_config)
        self.flow = S3GenFlow(config)
        self.mel2wav = HiFTNetModel(config.vocoder_config)
        self.post_init()

    # Reference

    @torch.no_grad()
    def embed_ref(
        self, ref_wav: torch.Tensor | np.ndarray | Sequence[torch.Tensor], ref_sr: int
    ) -> dict[str, torch.Tensor | None]:
        r"""
        What the model needs of a reference recording; compute it once per voice.

        Args:
            ref_wav (`torch.Tensor` or `np.ndarray` of shape `(samples,)` or `(voices, samples)`):
                Mono recordings in [-1, 1], 0.1 s at least, 10 s at best; or a list of recordings of any lengths.
            ref_sr (`int`): Their sampling rate in Hz.

        Returns:
            `dict`: `prompt_token` int64 `(voices, tokens)`, `prompt_token_len` `(voices,)`, `prompt_feat`
            `(voices, frames, mel_bins)` float32, `prompt_feat_len` (`None` where all have as many), and `embedding`
            `(voices, 192)`. [`save_s3gen_reference`] and [`load_s3gen_reference`] keep it in a file.

        Raises:
            ValueError: a wrong shape or rate, samples that are not finite, or a recording that is too short.
        """
        recordings = self._check_recordings(ref_wav, ref_sr)
        mels = [self.mel_spectrogram(sinc_resample(row, ref_sr, self.config.sampling_rate)) for row in recordings]
        low = [sinc_resample(row, ref_sr, self.tokenizer.config.sampling_rate) for row in recordings]
        tokens, lengths = self.tokenizer.tokenize(low)
        frames = torch.tensor([mel.shape[0] for mel in mels], device=self.device)
        lengths = torch.minimum(lengths.to(self.device), frames // self.config.token_mel_ratio)
        return {
            "prompt_token": tokens[:, : int(lengths.max())],
            "prompt_token_len": lengths,
            "prompt_feat": nn.utils.rnn.pad_sequence(mels, batch_first=True),
            "prompt_feat_len": None if len(mels) == 1 or frames.unique().numel() == 1 else frames,
            "embedding": self.speaker_encoder.embed(low),
        }

    def _check_recordings(self, ref_wav: Any, ref_sr: int) -> list[torch.Tensor]:
        if isinstance(ref_wav, (list, tuple)) and len(ref_wav) and np.ndim(ref_wav[0]) > 0:
            rows = [torch.as_tensor(row).reshape(-1) for row in ref_wav]
        else:
            tensor = torch.as_tensor(ref_wav)
            if tensor.dim() not in (1, 2) or 0 in tensor.shape:
                raise ValueError(
                    "`ref_wav` must have shape (samples,) or (voices, samples) with at least one sample, got "
                    f"{tuple(tensor.shape)}."
                )
            rows = list(torch.atleast_2d(tensor))
        rows = [row.to(self.device, torch.float32) for row in rows]
        if not all(row.isfinite().all() for row in rows):
            raise ValueError("`ref_wav` must hold finite samples, got NaN or infinity.")
        shortest, longest = min(len(row) for row in rows), max(len(row) for row in rows)
        if shortest < 0.1 * ref_sr:
            raise ValueError(f"`ref_wav` must last 0.1 s at least, got {shortest} samples at {ref_sr} Hz.")
        if longest > LONGEST_REFERENCE * ref_sr:
            logger.warning_once(
                f"`ref_wav` lasts more than {LONGEST_REFERENCE:.0f} s, which costs time at every request and was not "
                "trained: cut it."
            )
        return rows

    def mel_spectrogram(self, samples: torch.Tensor) -> torch.Tensor:
        """Log-mel frames `(frames, mel_bins)`, two per token, of `(samples,)` at `config.sampling_rate`."""
        config = self.config
        return log_mel_spectrogram(
            samples,
            sampling_rate=config.sampling_rate,
            fft_length=config.n_fft,
            hop_length=config.hop_length,
            bands=config.mel_bins,
            low=config.fmin,
            high=config.fmax or config.sampling_rate / 2,
        ).transpose(0, 1)

    # Speaking

    # trf-ignore: TRF057
    @returns_mel
    def forward(
        self,
        speech_tokens: torch.LongTensor,
        ref_wav: torch.Tensor | np.ndarray | None = None,
        ref_sr: int | None = None,
        ref_dict: Mapping[str, Any] | None = None,
        finalize: bool = False,
        speech_token_lens: torch.LongTensor | None = None,
        num_flow_steps: int | None = None,
        guidance_rate: float | None = None,
        chunks: S3GenChunks | None = None,
        noise: torch.Tensor | None = None,
        generator: RowGenerators = None,
        labels: torch.Tensor | None = None,
        speaker_embedding: torch.Tensor | None = None,
        training_draws: TrainingDraws | None = None,
    ) -> S3GenOutput:
        r"""
        Mel frames of speech tokens; or, with `labels`, the loss that trains the flow.

        Args:
            speech_tokens (`torch.LongTensor` of shape `(batch, tokens)` or `(tokens,)`):
                Ids 0 … 6560; padding after a row's end may be any such id.
            ref_wav (`torch.Tensor` or `np.ndarray` of shape `(samples,)` or `(voices, samples)`, *optional*):
                The reference recording, one for all rows or one each.
            ref_sr (`int`, *optional*): Its rate in Hz.
            ref_dict (`dict`, *optional*): Instead of both, what `embed_ref` returned; arrays are taken too.
            finalize (`bool`, defaults to `False`):
                Whether the tokens are complete. If not, the frames of the last 3 are left out: they depend on what
                follows.
            speech_token_lens (`torch.LongTensor` of shape `(batch,)`, *optional*): Tokens of each row.
            num_flow_steps (`int`, *optional*): Euler steps; 10, or 2 for a mean-flow model.
            guidance_rate (`float`, *optional*):
                Strength of classifier-free guidance, 0.7; 0 halves the work. A mean-flow model needs none.
            chunks ([`S3GenChunks`], *optional*):
                Limit attention to chunks, as `stream` does. By default every frame sees every other, as upstream.
            noise (`torch.Tensor` of shape `(batch, mel_bins, frames)`, *optional*):
                Standard normal noise where the flow begins, prompt included; drawn when absent.
            generator (`torch.Generator` or a list with one per row, *optional*): Where it is drawn from.
            labels (`torch.Tensor` of shape `(batch, mel_bins, 2 * tokens)`, *optional*):
                Mel frames that the tokens belong to. Takes `speaker_embedding` and no reference.
            speaker_embedding (`torch.Tensor` of shape `(batch, 192)`, *optional*): Speaker vectors, for training.
            training_draws (`TrainingDraws`, *optional*): The random part of the loss; drawn when absent.

        Returns:
            `torch.FloatTensor` of shape `(batch, mel_bins, frames)`: log-mel frames at 50 Hz, zero after a row's end.
            With `labels` or `return_dict=True` an [`S3GenOutput`], with `return_dict=False` a tuple.

        Raises:
            ValueError: ids outside the vocabulary, no tokens, both or neither of `ref_wav` and `ref_dict`, or a shape,
                length or option out of range.
        """
        tokens, lengths = self._check_tokens(speech_tokens, speech_token_lens)
        if labels is not None:
            loss = self._loss(tokens, lengths, labels, speaker_embedding, chunks, training_draws, generator)
            return S3GenOutput(loss=loss)
        prompt = self._prompt(ref_wav, ref_sr, ref_dict, tokens.shape[0])
        plan = self._plan(num_flow_steps, guidance_rate)
        mel, mel_lengths = self._speak(tokens, lengths, prompt, plan, finalize, chunks, noise, generator)
        return S3GenOutput(mel=mel, mel_lengths=mel_lengths)

    @torch.no_grad()
    def inference(
        self,
        speech_tokens: torch.LongTensor,
        ref_wav: torch.Tensor | np.ndarray | None = None,
        ref_sr: int | None = None,
        ref_dict: Mapping[str, Any] | None = None,
        finalize: bool = True,
        speech_token_lens: torch.LongTensor | None = None,
        num_flow_steps: int | None = None,
        guidance_rate: float | None = None,
        chunks: S3GenChunks | None = None,
        cache_source: torch.Tensor | None = None,
        generator: RowGenerators = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        r"""
        Waveform of speech tokens: `forward`, then the vocoder, then a fade-in of 40 ms that hides what the reference
        leaves behind.

        Args:
            cache_source (`torch.Tensor` of shape `(batch, 1, n)`, *optional*): First samples of the vocoder's source.

        The other arguments are `forward`'s.

        Returns:
            `waveform` float32 `(batch, 960 * tokens)` in [-0.99, 0.99], zero after a row's end, and the vocoder's
            `source` `(batch, 1, samples)`.

        Raises:
            ValueError: as `forward`.
        """
        rows = 1 if torch.as_tensor(speech_tokens).dim() == 1 else len(speech_tokens)
        flow_generators, vocoder_generators = split_generators(generator, rows)
        output = self(
            speech_tokens,
            ref_wav,
            ref_sr,
            ref_dict,
            finalize,
            speech_token_lens,
            num_flow_steps,
            guidance_rate,
            chunks,
            generator=flow_generators,
            return_dict=True,
        )
        frames = output.mel.shape[2]
        if frames == 0:
            return output.mel.new_zeros(rows, 0), output.mel.new_zeros(rows, 1, 0)
        # A row without frames gets one, whose samples are silenced.
        lengths = None if int(output.mel_lengths.min()) == frames else output.mel_lengths.clamp(min=1)
        waveform, source = self.mel2wav.inference(
            output.mel, cache_source, lengths=lengths, generator=vocoder_generators
        )
        samples = output.mel_lengths * self.config.hop_length
        waveform = waveform.float() * (torch.arange(waveform.shape[1], device=samples.device) < samples[:, None])
        fade = self.fade_in(waveform.device)[: waveform.shape[1]]
        waveform[:, : len(fade)] *= fade
        return waveform, source

    def fade_in(self, device: torch.device | None = None) -> torch.Tensor:
        """Factors of the first 40 ms of an utterance: 20 ms of zeros, then half a cosine."""
        half = self.config.sampling_rate // 50
        rise = (torch.cos(torch.linspace(torch.pi, 0, half, device=device)) + 1) / 2
        return torch.cat([torch.zeros_like(rise), rise])

    def start_stream(
        self,
        ref_dict: Mapping[str, Any],
        chunks: S3GenChunks | None = None,
        num_flow_steps: int | None = None,
        guidance_rate: float | None = None,
        generator: torch.Generator | None = None,
    ) -> S3GenStream:
        r"""
        Begin an utterance whose tokens are still being written: see [`S3GenStream`].

        Args:
            ref_dict (`dict`): What `embed_ref` returned for one voice.
            chunks ([`S3GenChunks`], *optional*): How the utterance is divided.
            num_flow_steps, guidance_rate, generator: As for `forward`.

        Raises:
            ValueError: a malformed reference or option.
        """
        chunks = S3GenChunks(self.config.chunk_size) if chunks is None else chunks
        prompt = make_prompt(ref_dict, self.config, self.device).expand(1)
        return S3GenStream(self, prompt, self._plan(num_flow_steps, guidance_rate), chunks, generator)

    def stream(
        self,
        token_iterator: Iterable[int | torch.Tensor],
        ref_dict: Mapping[str, Any] | S3GenStream,
        chunks: S3GenChunks | None = None,
        num_flow_steps: int | None = None,
        guidance_rate: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Iterator[torch.Tensor]:
        r"""
        Waveform pieces of tokens that arrive one by one or in groups. Joined they are what `inference` returns with
        the same `chunks` and a generator of the same seed; nothing already computed is computed again.

        Args:
            token_iterator (iterable of `int` or of `torch.LongTensor` of shape `(n,)` or `(1, n)`): Ids 0 … 6560.
            ref_dict (`dict` or [`S3GenStream`]): What `embed_ref` returned for one voice, or a stream started for it,
                of which a copy is used.
            chunks, num_flow_steps, guidance_rate, generator: As for `start_stream`; they belong to a started stream.

        Yields:
            `torch.FloatTensor` of shape `(1, samples)`, at least one sample each.

        Raises:
            ValueError: ids outside the vocabulary, or a malformed reference or option.
        """
        if isinstance(ref_dict, S3GenStream):
            stream = ref_dict.copy(generator)
        else:
            stream = self.start_stream(ref_dict, chunks, num_flow_steps, guidance_rate, generator)
        for tokens in token_iterator:
            piece = stream.push(tokens)
            if piece.shape[1]:
                yield piece
        piece = stream.flush()
        if piece.shape[1]:
            yield piece

    def cast_estimator(self, dtype: torch.dtype) -> "S3GenModel":
        """Compute the estimator, most of the work, in another dtype; the solver's state stays float32.

        Returns:
            The model itself.
        """
        self.flow.decoder.estimator.to(dtype)
        return self

    def use_cuda_graphs(self, bucket_frames: int | None = 128) -> "S3GenModel":
        """Launch each step of the flow as one CUDA graph, recorded once per batch size and length bucket.

        It changes nothing on other devices, but for the padding to whole buckets, and nothing in streams.

        Args:
            bucket_frames (`int`, *optional*, defaults to 128):
                Frames (20 ms, prompt included) that lengths are rounded up to; `None` ends it.

        Returns:
            The model itself.

        Raises:
            ValueError: if `bucket_frames` is not positive.
        """
        if bucket_frames is not None and bucket_frames < 1:
            raise ValueError(f"`bucket_frames` must be at least 1 or `None`, got {bucket_frames}.")
        self.flow.decoder.use_graphs(bucket_frames)
        return self

    # Helpers

    def _check_tokens(self, tokens: Any, lengths: Any) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = torch.atleast_2d(torch.as_tensor(tokens)).to(self.device)
        if tokens.dim() != 2 or 0 in tokens.shape:
            raise ValueError(
                "`speech_tokens` must have shape (batch, tokens) or (tokens,) with at least one token, got "
                f"{tuple(tokens.shape)}."
            )
        check_token_range(tokens, self.config.vocab_size, "speech_tokens")
        if lengths is None:
            lengths = [tokens.shape[1]] * tokens.shape[0]
        lengths = torch.as_tensor(lengths, device=self.device).long().reshape(-1)
        if len(lengths) != len(tokens) or not 0 <= int(lengths.min()) <= int(lengths.max()) <= tokens.shape[1]:
            raise ValueError(
                f"`speech_token_lens` must hold {len(tokens)} lengths in 0 … {tokens.shape[1]}, got "
                f"{lengths.tolist()}."
            )
        return tokens.long(), lengths

    def _prompt(self, ref_wav: Any, ref_sr: Any, ref_dict: Any, batch_size: int) -> S3GenPrompt:
        if (ref_wav is None) == (ref_dict is None):
            given = "neither" if ref_wav is None else "both"
            raise ValueError(f"Exactly one of `ref_wav` and `ref_dict` must be given, got {given}.")
        if ref_dict is None:
            if ref_sr is None:
                raise ValueError("`ref_sr` must be the sampling rate of `ref_wav` in Hz, got None.")
            ref_dict = self.embed_ref(ref_wav, ref_sr)
        return make_prompt(ref_dict, self.config, self.device).expand(batch_size)

    @torch.no_grad()
    def _plan(self, num_flow_steps: int | None, guidance_rate: float | None) -> FlowPlan:
        if num_flow_steps is not None and num_flow_steps < 1:
            raise ValueError(f"`num_flow_steps` must be at least 1, got {num_flow_steps}.")
        if guidance_rate is not None and guidance_rate < 0:
            raise ValueError(f"`guidance_rate` must be 0 or more, got {guidance_rate}.")
        return self.flow.decoder.plan(num_flow_steps, guidance_rate, self.device)

    @torch.no_grad()
    def _speak(
        self,
        tokens: torch.Tensor,
        lengths: torch.Tensor,
        prompt: S3GenPrompt,
        plan: FlowPlan,
        finalize: bool,
        chunks: S3GenChunks | None,
        noise: torch.Tensor | None,
        generator: RowGenerators,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mel frames `(batch, mel_bins, frames)` without the prompt's, and their number per row."""
        ratio, ahead = self.config.token_mel_ratio, 0 if finalize else self.config.pre_lookahead_len
        tokens, lengths = tokens[:, : max(int(lengths.max()), 1)], lengths.tolist()
        kept = [max(length - ahead, 0) for length in lengths]
        mel_lengths = torch.tensor([ratio * length for length in kept], device=self.device)
        if not any(kept):
            return torch.zeros(len(kept), self.config.mel_bins, 0, device=self.device), mel_lengths
        joined, totals = join_prompt(prompt, tokens, lengths)
        mask = None if chunks is None else chunks.mask(prompt.lengths)
        encoded, bias = self.flow.encode(joined, totals, mask, ahead)
        frames = encoded.shape[1]
        condition = encoded.new_zeros(encoded.shape)
        for row, length in enumerate(prompt.lengths):
            condition[row, : ratio * length] = prompt.features[row, : ratio * length]
        if noise is None:
            noise = self._noise(prompt, frames, generator)
        else:
            noise = self._check_noise(noise, len(kept), frames)
        solved = self.flow.decoder(noise, encoded, self.flow.speaker(prompt.embedding), condition, plan, bias)
        mel = solved.new_zeros(len(kept), ratio * max(kept), self.config.mel_bins)
        for row, (start, length) in enumerate(zip(prompt.lengths, kept, strict=True)):
            mel[row, : ratio * length] = solved[row, ratio * start : ratio * (start + length)]
        return mel.transpose(1, 2), mel_lengths

    def _noise(self, prompt: S3GenPrompt, frames: int, generator: RowGenerators) -> torch.Tensor:
        """Noise `(batch, frames, mel_bins)`, the same for a row alone and in a batch."""
        ratio, generators = self.config.token_mel_ratio, resolve_row_generators(generator, len(prompt.lengths))
        rows = [
            FrameNoise(self.config.mel_bins, ratio * length, None if generators is None else generators[row])
            for row, length in enumerate(prompt.lengths)
        ]
        return torch.stack([row.between(0, frames) for row in rows]).to(self.device)

    def _check_noise(self, noise: torch.Tensor, batch_size: int, frames: int) -> torch.Tensor:
        shape = (batch_size, self.config.mel_bins, frames)
        if noise.dim() != 3 or noise.shape[:2] != shape[:2] or noise.shape[2] < frames:
            raise ValueError(f"`noise` must have shape {shape}, prompt included, got {tuple(noise.shape)}.")
        return noise[..., :frames].to(self.device).transpose(1, 2)

    def _loss(
        self,
        tokens: torch.Tensor,
        lengths: torch.Tensor,
        labels: torch.Tensor,
        speaker_embedding: torch.Tensor | None,
        chunks: S3GenChunks | None,
        draws: TrainingDraws | None,
        generator: RowGenerators,
    ) -> torch.Tensor:
        config, batch_size = self.config, tokens.shape[0]
        shapes = {
            "labels": (labels, (batch_size, config.mel_bins, config.token_mel_ratio * tokens.shape[1])),
            "speaker_embedding": (speaker_embedding, (batch_size, config.speaker_embed_dim)),
        }
        for name, (tensor, shape) in shapes.items():
            if tensor is None or tuple(tensor.shape) != shape:
                got = None if tensor is None else tuple(tensor.shape)
                raise ValueError(f"`{name}` must have shape {shape} to train the flow, got {got}.")
        target = labels.to(self.device).transpose(1, 2)
        if draws is None:
            draws = draw_training(config, target, lengths, resolve_row_generators(generator, batch_size))
        mask = None if chunks is None else chunks.mask([0] * batch_size)
        return flow_loss(self.flow, tokens, lengths, target, speaker_embedding.to(self.device), mask, draws)


def join_prompt(
    prompt: S3GenPrompt, tokens: torch.Tensor, lengths: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Every row's prompt and tokens without a gap `(batch, tokens)`, padded with 0, and their lengths `(batch,)`."""
    totals = [before + length for before, length in zip(prompt.lengths, lengths, strict=True)]
    joined = tokens.new_zeros(len(totals), max(totals))
    for row, (before, total) in enumerate(zip(prompt.lengths, totals, strict=True)):
        joined[row, :before] = prompt.tokens[row, :before]
        joined[row, before:total] = tokens[row, : total - before]
    return joined, torch.tensor(totals, device=tokens.device)


__all__ = ["S3GenModel", "S3GenOutput", "S3GenPreTrainedModel"]
