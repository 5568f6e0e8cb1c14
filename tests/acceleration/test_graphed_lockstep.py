"""Steps over tensors of fixed shape give what the steps of a growing cache give."""

import copy
import pickle

import pytest
import torch
from transformers import Qwen2Config, Qwen2Model

from tts_models.acceleration.decoder_step import has_plain_positions
from tts_models.acceleration.graphed_lockstep import GraphedLockstepDecoder
from tts_models.acceleration.lockstep import LockstepDecoder
from tts_models.acceleration.programs import KeptPrograms


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"))]


def tiny(**overrides: object) -> Qwen2Model:
    torch.manual_seed(0)
    config = {
        "vocab_size": 50,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.2,
    }
    model = Qwen2Model(Qwen2Config(**config | overrides)).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.normal_(0, 0.5)
    return model


def prompts(device: str = "cpu") -> tuple[torch.LongTensor, torch.LongTensor]:
    """Left-padded ids and their mask."""
    ids = torch.randint(1, 50, (3, 6), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(6) >= torch.tensor([0, 2, 5])[:, None]).long()
    return (ids * mask).to(device), mask.to(device)


@torch.no_grad()
def states(decoder: LockstepDecoder, device: str = "cpu") -> list[torch.Tensor]:
    """Hidden states of some steps, during which rows leave."""
    found = [decoder.prefill()]
    kept = {2: [0, 2], 5: [1]}
    tokens = torch.randint(1, 50, (8, 3), generator=torch.Generator().manual_seed(2)).to(device)
    rows = torch.arange(3, device=device)
    for step in range(8):
        if step in kept:
            index = torch.tensor(kept[step], device=device)
            decoder.select(index)
            rows = rows[index]
        found.append(decoder.step(tokens[step, rows]))
    return found


@pytest.mark.parametrize("device", DEVICES)
def test_steps_equal_those_of_a_growing_cache(device: str) -> None:
    model, programs = tiny().to(device), KeptPrograms(8)
    expected = states(LockstepDecoder(model, *prompts(device)), device)
    for _ in range(2):
        found = states(GraphedLockstepDecoder(programs, model, *prompts(device), max_steps=8), device)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_programs_are_kept_by_size_and_weights() -> None:
    model, programs = tiny(), KeptPrograms(32, max_programs=2)

    def program(rows: int, steps: int, of: Qwen2Model = model) -> object:
        ids, mask = prompts()
        return GraphedLockstepDecoder(programs, of, ids[:rows], mask[:rows], max_steps=steps).program

    first = program(3, 8)
    assert program(3, 20) is first and program(3, 40) is not first
    assert program(3, 8) is first and program(2, 8) is not first
    assert program(3, 8, copy.deepcopy(model)) is not first
    assert program(3, 8) is not first
    for other in (copy.deepcopy(programs), pickle.loads(pickle.dumps(programs))):
        assert (other.bucket, other.max_programs) == (32, 2)


def test_no_row_can_wait() -> None:
    decoder = GraphedLockstepDecoder(KeptPrograms(32), tiny(), *prompts(), max_steps=4)
    decoder.prefill()
    with pytest.raises(ValueError, match="is_present"):
        decoder.step(torch.ones(3, dtype=torch.long), torch.tensor([True, False, True]))


def test_windows_and_changing_rotations_are_not_recorded() -> None:
    assert has_plain_positions(tiny())
    assert not has_plain_positions(tiny(use_sliding_window=True, sliding_window=4, max_window_layers=1))
    scaled = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    assert not has_plain_positions(tiny(rope_parameters=scaled))
