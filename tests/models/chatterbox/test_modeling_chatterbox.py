"""The networks of Chatterbox by themselves: loading alone, both backbones, padding, caches, guidance rows."""

from pathlib import Path

import pytest
import torch

from tests.common.comparing import assert_close
from tests.models.chatterbox.tester import CODES, SPEAKER, WIDTH, Tester
from tts_models import ChatterboxT3Model, ChatterboxVoiceEncoder
from tts_models.models.chatterbox.decoding_chatterbox import build_prompt


@pytest.fixture(scope="module", params=["english", "turbo"])
def t3(request: pytest.FixtureRequest) -> ChatterboxT3Model:
    return Tester().model(kind=request.param).t3


def test_parts_load_alone(t3: ChatterboxT3Model, tmp_path: Path) -> None:
    t3.save_pretrained(tmp_path / "t3")
    inputs = Tester().inputs()
    loaded = ChatterboxT3Model.from_pretrained(tmp_path / "t3")
    assert torch.equal(loaded(**inputs).logits, t3(**inputs).logits)
    encoder = Tester().model().voice_encoder
    encoder.save_pretrained(tmp_path / "encoder")
    features = torch.rand(2, 170, 40)
    loaded = ChatterboxVoiceEncoder.from_pretrained(tmp_path / "encoder")
    assert torch.equal(loaded(features).speaker_embeddings, encoder(features).speaker_embeddings)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(t3: ChatterboxT3Model, side: str) -> None:
    inputs, alone = Tester().ragged_inputs(side)
    output = t3(**inputs)
    for row, single in enumerate(alone):
        expected = t3(**single)
        assert_close(output.logits[row, inputs["speech_attention_mask"][row].bool()], expected.logits[0], 1e-5)
        assert_close(output.text_logits[row, inputs["attention_mask"][row].bool()], expected.text_logits[0], 1e-5)


@torch.no_grad()
def test_prompt_is_what_forward_reads(t3: ChatterboxT3Model) -> None:
    inputs = Tester().inputs(1)
    voice, _ = t3.embed_voice(inputs["speaker_embeddings"], inputs["prompt_tokens"], inputs["exaggeration"])
    starts = torch.full((1, 1), t3.config.start_speech_token_id)
    for drop in (False, True):
        prompt = build_prompt(t3, list(voice), list(inputs["input_ids"]), is_guided=True)
        embeds = prompt.inputs_embeds[int(drop), : prompt.inputs_embeds.shape[1] - t3.config.num_start_tokens + 1]
        logits = t3(inputs_embeds=embeds[None]).logits[:, -1:]
        whole = inputs | {"speech_ids": starts, "speech_attention_mask": None, "drop_text": torch.tensor([drop])}
        assert_close(logits, t3(**whole).logits, 1e-5)


@torch.no_grad()
def test_cached_steps_equal_the_whole(t3: ChatterboxT3Model) -> None:
    inputs = Tester().inputs()
    rows = t3.embed_speech(inputs["speech_ids"])
    whole = t3(inputs_embeds=rows, use_cache=True)
    start = t3(inputs_embeds=rows[:, :6], use_cache=True)
    rest = t3(inputs_embeds=rows[:, 6:], past_key_values=start.past_key_values, use_cache=True)
    assert_close(torch.cat([start.logits, rest.logits], 1), whole.logits, 1e-5)


@torch.no_grad()
def test_voice_without_a_prompt_is_its_speaker(t3: ChatterboxT3Model) -> None:
    speaker = torch.ones(1, SPEAKER)
    rows, mask = t3.embed_voice(speaker)
    assert rows.shape == (1, 1 + int(t3.config.use_emotion), WIDTH) and mask.all()
    empty, _ = t3.embed_voice(speaker, torch.zeros(1, 0, dtype=torch.long))
    assert torch.equal(rows, empty)


def test_losses_are_reached_by_every_parameter_of_turbo() -> None:
    model = Tester().model(kind="turbo").train()
    model(**Tester().training_inputs()).loss.backward()
    missing = [
        name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    assert missing == []


def test_labels_beside_the_speech_are_left_out(t3: ChatterboxT3Model) -> None:
    inputs = Tester().inputs()
    labels = inputs["speech_ids"].clone()
    labels[:, 5:] = -100
    part = t3(**inputs, labels=labels)
    short = inputs | {"speech_ids": inputs["speech_ids"][:, :5], "speech_attention_mask": None}
    assert_close(part.speech_loss, t3(**short, labels=labels[:, :5]).speech_loss, 1e-5)
    assert part.text_loss is None and torch.equal(part.loss, part.speech_loss)
    assert int(labels.max()) < CODES
