"""Training examples of the language model: where the text is spoken, and an unreliable past."""

from pathlib import Path

import pytest
import torch

from tests.models.maya1.tester import CODEBOOK_SIZE, tiny_processor
from tts_models.training.audio_dataset import Recording
from tts_models.training.speech_dataset import SpeechTokenCollator, SpeechTokenDataset


RECORDING = Recording(Path("a.wav"), "Hello there.", None)


def codes(processor, frames: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    strides = processor.vq_strides
    return tuple(
        torch.randint(CODEBOOK_SIZE, (frames * strides[0] // stride,), generator=generator) for stride in strides
    )


def test_text_places_follow_the_phonemes() -> None:
    processor = tiny_processor()
    layout, extractor = processor.audio_token_layout, processor.feature_extractor
    frame_seconds = extractor.hop_length * layout.strides[0] / extractor.sampling_rate
    ends = [[0.5 * frame_seconds, 2 * frame_seconds, 2.5 * frame_seconds]]
    dataset = SpeechTokenDataset(processor, [RECORDING], [codes(processor, 4)], phoneme_ends=ends)
    example = dataset[0]
    places, labels = torch.tensor(example["text_places"]), torch.tensor(example["labels"])
    # A position predicts the next label: places lie one to the left of the labels, the end of speech included.
    assert torch.equal(places[:-1] >= 0, labels[1:] != -100) and places[-1] == -1
    spoken, slots = places[places >= 0].tolist(), layout.slots_per_frame
    assert spoken == sorted(spoken) and set(spoken) == {0, 1, 2}
    assert spoken[0] == 0 and spoken[slots] == 1 and spoken[2 * slots] == 2 and spoken[-1] == 2
    batch = SpeechTokenCollator(0)([example, {name: values[:-3] for name, values in example.items()}])
    assert batch["text_places"].shape == batch["input_ids"].shape and (batch["text_places"][1, -3:] == -1).all()


def test_examples_without_times_have_no_places() -> None:
    processor = tiny_processor()
    example = SpeechTokenDataset(processor, [RECORDING], [codes(processor, 2)])[0]
    assert set(example) == {"input_ids", "labels"}
    assert "text_places" not in SpeechTokenCollator(0)([example])


@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_code_noise_changes_past_codes_only_within_their_slot(noise: float) -> None:
    torch.manual_seed(0)
    processor = tiny_processor()
    arguments = (processor, [RECORDING], [codes(processor, 40)])
    clean, noisy = SpeechTokenDataset(*arguments)[0], SpeechTokenDataset(*arguments, code_noise=noise)[0]
    assert clean["labels"] == noisy["labels"]
    layout = processor.audio_token_layout
    before, after = torch.tensor(clean["input_ids"]), torch.tensor(noisy["input_ids"])
    is_audio = (before >= layout.offset) & (before < layout.offset + layout.num_ids)
    assert torch.equal(before[~is_audio], after[~is_audio])
    slots = [(ids[is_audio] - layout.offset) // layout.codebook_size for ids in (before, after)]
    assert torch.equal(*slots)
    share = (before != after)[is_audio].float().mean()
    assert abs(share - noise * (1 - 1 / CODEBOOK_SIZE)) < 0.08
