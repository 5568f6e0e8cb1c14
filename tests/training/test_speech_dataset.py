"""Training examples of the language model: padding, and an unreliable past."""

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


def test_collator_pads_on_the_right_and_marks_the_slot_constraint() -> None:
    processor = tiny_processor()
    example = SpeechTokenDataset(processor, [RECORDING], [codes(processor, 2)])[0]
    batch = SpeechTokenCollator(0)([example, {name: values[:-3] for name, values in example.items()}])
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    assert batch["attention_mask"][1].tolist() == [1] * (len(example["input_ids"]) - 3) + [0] * 3
    assert (batch["labels"][1, -3:] == -100).all()
    assert SpeechTokenCollator(0, constrain_slots=True)([example])["constrain_slots"] is True
