"""The feature extractor of the Qwen3-TTS tokenizer; the checks that it shares with SNAC are tested there."""

from pathlib import Path

import numpy as np
import torch
from transformers import AutoFeatureExtractor, EncodecFeatureExtractor

from tests.models.qwen3_tts_tokenizer.tester import Tester
from tts_models import Qwen3TTSTokenizerFeatureExtractor


def test_batch_is_padded_to_its_longest_row() -> None:
    inputs = Qwen3TTSTokenizerFeatureExtractor()([np.ones(100), np.ones(30)], sampling_rate=24000)
    assert inputs["input_values"].shape == (2, 1, 100)
    assert torch.equal(inputs["input_values"][:, 0], inputs["padding_mask"].float())


def test_round_trip(tmp_path: Path) -> None:
    extractor = Qwen3TTSTokenizerFeatureExtractor(pad_to_multiple_of=1920)
    extractor.save_pretrained(tmp_path)
    Tester().config().save_pretrained(tmp_path)
    reloaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(reloaded) is Qwen3TTSTokenizerFeatureExtractor
    assert reloaded.to_dict() == extractor.to_dict()


def test_model_takes_what_extractors_make() -> None:
    """Ours, and the one that the released folder names."""
    codec = Tester().model()
    audio = [np.random.default_rng(0).uniform(-1, 1, size).astype(np.float32) for size in (100, 30)]
    ours = Qwen3TTSTokenizerFeatureExtractor(sampling_rate=2400)(audio, sampling_rate=2400)
    theirs = EncodecFeatureExtractor(sampling_rate=2400)(audio, sampling_rate=2400, return_tensors="pt")
    with torch.no_grad():
        encoded, again = codec.encode(**ours), codec.encode(**theirs)
    assert encoded.code_lengths.tolist() == [5, 2]
    assert torch.equal(encoded.audio_codes, again.audio_codes)
