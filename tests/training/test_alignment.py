"""Times of a text's units, carried from our own speech to a recording."""

import numpy as np
import pytest
import torch

from tts_models import default_voice
from tts_models.audio import save_audio
from tts_models.training.alignment import carry_times, estimate_unit_ends, log_mel, warping_path
from tts_models.training.audio_dataset import Recording


def test_path_follows_a_stretched_sequence() -> None:
    first = np.random.default_rng(0).normal(size=(12, 5))
    second = np.repeat(first, [1, 3, 1, 1, 2, 1, 1, 1, 4, 1, 1, 1], axis=0)
    path = warping_path(first, second)
    assert path[0].tolist() == [0, 0] and path[-1].tolist() == [11, 17]
    assert (np.diff(path, axis=0) >= 0).all()
    assert path[:, 0].tolist() == np.repeat(np.arange(12), [1, 3, 1, 1, 2, 1, 1, 1, 4, 1, 1, 1]).tolist()


def test_times_go_along_the_path() -> None:
    # The second sequence is the first one at half its speed, 20 ms a frame.
    path = np.array([(frame // 2, frame) for frame in range(20)])
    assert carry_times([0.05, 0.11], path) == pytest.approx([0.10, 0.22])


def test_log_mel_has_a_frame_every_20_ms() -> None:
    features = log_mel(np.random.default_rng(0).normal(size=16000).astype(np.float32), 16000)
    assert features.shape == (51, 40) and np.abs(features.mean(0)).max() < 1e-4


def test_recordings_of_the_same_sentence_get_the_times_of_their_phonemes(tmp_path) -> None:
    model, processor = default_voice()
    inputs = processor(text="The cat is sleeping in the garden.", voice="male")
    speech = model.generate(**inputs, seed=5)
    aligned, config = model.config.aligned_text_layout, model.config
    stream = speech.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    counts = aligned.frames_per_unit(stream, config.slots_per_frame)
    true = np.cumsum(counts) * config.samples_per_frame / config.sampling_rate
    # 80 ms of silence in front: every time moves by as much.
    silence = torch.zeros(round(0.08 * config.sampling_rate))
    save_audio(tmp_path / "a.wav", torch.cat([silence, speech.audio[0]]).numpy(), config.sampling_rate)
    recording = Recording(tmp_path / "a.wav", "The cat is sleeping in the garden.", "male")
    (ends,) = estimate_unit_ends(model, processor, [recording], seed=0)
    assert len(ends) == len(counts) and ends == sorted(ends)
    assert np.median(np.abs(np.array(ends) - true - 0.08)) < 0.06
