"""Finding out when each unit of a text is spoken: the recording is laid beside our own speech of the same text.

The model knows when it spoke each unit; dynamic time warping (Sakoe and Chiba, 1978) of the two log-mel spectrograms
carries those times over to the recording.
"""

from collections.abc import Sequence

import numpy as np
import torch
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from ..audio import load_audio
from .audio_dataset import Recording


_BANDS = 40
_STEP_SECONDS = 0.02


def log_mel(audio: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Log-mel spectrogram `(frames, 40)` with a frame every 20 ms, each band free of its mean.

    Args:
        audio: float32 `(samples,)`.
        sampling_rate: Its rate in Hz.
    """
    hop = round(_STEP_SECONDS * sampling_rate)
    size = 1 << (2 * hop - 1).bit_length()
    filters = mel_filter_bank(1 + size // 2, _BANDS, 50.0, min(8000.0, sampling_rate / 2), sampling_rate)
    window = window_function(size, "hann")
    mel = spectrogram(audio, window, size, hop, mel_filters=filters, power=2.0, mel_floor=1e-7, log_mel="log").T
    return mel - mel.mean(0)


def warping_path(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The cheapest monotonic pairing of two feature sequences.

    Args:
        first: `(n, features)`.
        second: `(m, features)`.

    Returns:
        int64 `(pairs, 2)` frame numbers, from `(0, 0)` to `(n - 1, m - 1)`.
    """
    distance = np.sqrt(((first[:, None] - second[None]) ** 2).mean(-1))
    cost = np.full((len(first) + 1, len(second) + 1), np.inf)
    cost[0, 0] = 0.0
    for row, distances in enumerate(distance.tolist(), start=1):
        for column, value in enumerate(distances, start=1):
            before = min(cost[row - 1, column - 1], cost[row - 1, column], cost[row, column - 1])
            cost[row, column] = value + before
    row, column = len(first), len(second)
    pairs = []
    while row and column:
        pairs.append((row - 1, column - 1))
        steps = ((row - 1, column - 1), (row - 1, column), (row, column - 1))
        row, column = min(steps, key=lambda step: cost[step])
    return np.array(pairs[::-1])


def carry_times(times: Sequence[float], path: np.ndarray) -> list[float]:
    """Times of the first sequence of a `path` (see [`warping_path`]) as times of the second, in seconds."""
    seconds = (path + 0.5) * _STEP_SECONDS
    # One time per frame of the first sequence: the middle of those that it is paired with.
    frames = np.unique(path[:, 0])
    partners = [seconds[path[:, 0] == frame, 1].mean() for frame in frames]
    return np.interp(times, (frames + 0.5) * _STEP_SECONDS, partners).tolist()


@torch.no_grad()
def estimate_unit_ends(model, processor, recordings: Sequence[Recording], seed: int = 0) -> list[list[float]]:
    """When each unit of each recording's text ends, in seconds.

    Args:
        model ([`Maya1ForConditionalGeneration`]): A checkpoint with aligned text that can speak already.
        processor ([`Maya1Processor`]): Its processor.
        recordings: Audio files with their texts.
        seed: Of the speech that the recordings are compared with.
    """
    aligned, slots = model.config.aligned_text_layout, model.config.slots_per_frame
    frame_seconds = model.config.samples_per_frame / model.config.sampling_rate
    ends = []
    for recording in recordings:
        inputs = processor(text=[recording.text], voice=recording.voice, split_long_text=False)
        speech = model.generate(**inputs.to(model.device), seed=seed)
        stream = speech.sequences[0, inputs["input_ids"].shape[1] :].tolist()
        times = np.cumsum(aligned.frames_per_unit(stream, slots)) * frame_seconds
        audio, rate = load_audio(recording.path, model.config.sampling_rate)
        path = warping_path(log_mel(speech.audio[0].cpu().numpy(), rate), log_mel(audio, rate))
        ends.append(carry_times(times, path))
    return ends
