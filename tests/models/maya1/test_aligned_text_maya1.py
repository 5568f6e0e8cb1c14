"""Text inside the stream of audio tokens: layout, training examples, generation."""

from dataclasses import replace

import pytest
import torch

from tests.common.comparing import assert_close
from tests.models.maya1.tester import Tester
from tts_models import Maya1Config, Maya1ForConditionalGeneration
from tts_models.models.maya1.aligned_text_maya1 import AlignedText, AlignedTextLayout, units_of_frames
from tts_models.models.maya1.loss_maya1 import slot_constrained_loss
from tts_models.speech_generation import collect_stream


# Units start at 10 to 19; 30 is the marker, 31 ends the text.
LAYOUT = AlignedTextLayout(10, 19, 30, 31)
PROMPT = [5, 6, 10, 1, 11, 12, 2, 31, 7]
UNITS = [[10, 1], [11], [12, 2]]
ALIGNED = {"next_text_token_id": 391, "text_unit_range": [20, 60]}


def test_units_take_what_follows_up_to_the_end_of_the_text() -> None:
    assert LAYOUT.units(PROMPT) == UNITS
    with pytest.raises(ValueError, match="no text"):
        LAYOUT.units([5, 6, 31])
    with pytest.raises(ValueError, match="no text"):
        LAYOUT.units([5, 10, 6])


def test_stream_holds_every_unit_ahead_of_its_frames() -> None:
    frames = [[100, 200], [101, 201], [102, 202], [103, 203]]
    ids, labels = LAYOUT.interleave(UNITS, frames, [0, 0, 1, 2])
    assert ids == [10, 1, 11, 100, 200, 101, 201, 12, 2, 102, 202, 31, 103, 203]
    assert labels == [-100] * 3 + [100, 200, 101, 201, 30, -100, 102, 202, 30, 103, 203]
    assert LAYOUT.frames_per_unit(ids, slots=2) == [2, 1, 1]
    # A unit without a frame is in the stream all the same, also at its end.
    ids, _ = LAYOUT.interleave(UNITS, frames[:1], [0])
    assert ids == [10, 1, 11, 100, 200, 12, 2, 31]
    assert LAYOUT.frames_per_unit(ids, slots=2) == [1, 0, 0]


def test_lookahead_of_none_and_of_more_than_the_text() -> None:
    assert replace(LAYOUT, lookahead=0).opening(UNITS) == [10, 1]
    assert replace(LAYOUT, lookahead=4).opening(UNITS) == [10, 1, 11, 12, 2, 31, 31]


def test_frames_belong_to_the_unit_in_their_middle() -> None:
    assert units_of_frames([0.05, 0.16, 0.2], 6, 0.1) == [0, 1, 2, 2, 2, 2]


def test_units_end_at_the_median_of_their_duration() -> None:
    text = AlignedText(LAYOUT, PROMPT)
    assert [text.is_over(0.2) for _ in range(4)] == [False, False, False, True]
    assert text.advance() == [12, 2] and not text.is_last
    assert text.is_over(0.6) and text.advance() == [31] and text.is_last


@pytest.mark.parametrize(
    "arguments",
    [{"text_unit_range": None}, {"text_unit_range": [5]}, {"text_unit_range": [9, 5]}, {"text_lookahead": -1}],
)
def test_configuration_refuses_what_does_not_fit(arguments: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Tester().config(**ALIGNED | arguments)


@pytest.fixture(scope="module")
def model() -> Maya1ForConditionalGeneration:
    """A tiny model with aligned text."""
    return Maya1ForConditionalGeneration(Tester().config(**ALIGNED)).eval()


@pytest.fixture(scope="module")
def prompts(model) -> dict[str, torch.Tensor]:
    """Three prompts with four, one and two units, left-padded."""
    config: Maya1Config = model.config
    texts = [[20, 3, 21, 22, 4, 60], [33], [20, 20]]
    rows = [[394, 381, 7, *text, config.eot_token_id, 395, 396, 392] for text in texts]
    length = max(map(len, rows))
    padded = [[config.pad_token_id] * (length - len(row)) + row for row in rows]
    return {"input_ids": torch.tensor(padded), "attention_mask": (torch.tensor(padded) != config.pad_token_id).long()}


def row_of(prompts: dict[str, torch.Tensor], row: int) -> dict[str, torch.Tensor]:
    valid = prompts["attention_mask"][row].bool()
    return {name: tensor[row : row + 1, valid] for name, tensor in prompts.items()}


OPTIONS = [{"do_sample": False, "seed": 0}, {"seed": 3, "temperature": 1.5, "top_p": 1.0}]


@pytest.mark.parametrize("options", OPTIONS)
def test_speech_holds_every_unit_in_order_and_then_ends(model, prompts, options) -> None:
    config, output = model.config, model.generate(**prompts, **options, duration_budget=torch.full((3,), 60_000))
    assert output.finish_reason == ["stop"] * 3
    aligned, layout = config.aligned_text_layout, config.audio_token_layout
    for row, ids in enumerate(output.sequences[:, prompts["input_ids"].shape[1] :].tolist()):
        stream = ids[: ids.index(config.end_of_speech_token_id)]
        units = aligned.units(prompts["input_ids"][row].tolist())
        text = [each for each in stream if layout.slot_of(each) is None]
        assert text == [each for number in range(len(units) + 1) for each in aligned.unit(units, number)]
        counts = aligned.frames_per_unit(stream, layout.slots_per_frame)
        assert len(counts) == len(units) and sum(counts) * config.samples_per_frame == output.audio_lengths[row]


@pytest.mark.parametrize("options", OPTIONS)
def test_rows_speak_as_alone_and_streams_as_whole_utterances(model, prompts, options) -> None:
    together = model.generate(**prompts, **options)
    for row in range(3):
        alone = model.generate(**row_of(prompts, row), **options)
        length = int(alone.audio_lengths)
        assert length == together.audio_lengths[row]
        assert_close(together.audio[row, :length], alone.audio[0], 1e-5)
    streamed = collect_stream(model.generate_stream(**prompts, **options))
    assert torch.equal(streamed.audio_lengths, together.audio_lengths)
    assert_close(streamed.audio, together.audio, 1e-5)


def test_generation_follows_the_forward_pass(model, prompts) -> None:
    """The greedy stream, read at once by the model, has the codes that generation picked one by one."""
    options = {"do_sample": False, "repetition_penalty": 1.0, "seed": 0}
    output, config = model.generate(**prompts, **options), model.config
    layout = config.audio_token_layout
    alone = row_of(prompts, 0)["input_ids"]
    ids = output.sequences[0, prompts["input_ids"].shape[1] :]
    ids = ids[: (ids == config.end_of_speech_token_id).nonzero()[0, 0]]
    with torch.no_grad():
        logits = model(torch.cat([alone, ids[None]], 1)).logits[0, alone.shape[1] - 1 :]
    for place, token_id in enumerate(ids.tolist()):
        slot = layout.slot_of(token_id)
        if slot is not None:
            first = layout.offset + slot * layout.codebook_size
            assert logits[place, first : first + layout.codebook_size].argmax() + first == token_id


@pytest.mark.parametrize("option", [{"constrain_slots": False}, {"stopping_criteria": [lambda *_, **__: False]}])
def test_options_that_need_the_whole_vocabulary_are_refused(model, prompts, option) -> None:
    with pytest.raises(ValueError, match="constrain_slots"):
        model.generate(**prompts, **option)


def test_prompt_without_text_is_refused(model, prompts) -> None:
    with pytest.raises(ValueError, match="no text"):
        model.generate(input_ids=prompts["input_ids"].clamp(min=381), attention_mask=prompts["attention_mask"])


# The loss


def test_constrained_loss_is_the_full_loss_where_nothing_else_is_possible() -> None:
    config = Tester().config(**ALIGNED)
    layout, generator = config.audio_token_layout, torch.Generator().manual_seed(0)
    markers = [config.end_of_speech_token_id, config.next_text_token_id]
    states = torch.randn(2, 9, 4, generator=generator, requires_grad=True)
    weight = torch.randn(config.text_config.vocab_size, 4, generator=generator)
    labels = torch.randint(layout.offset, layout.offset + layout.num_ids, (2, 9), generator=generator)
    labels[0, :3], labels[1, 2], labels[1, 8] = -100, markers[1], markers[0]
    loss = slot_constrained_loss(states, weight, labels, layout, markers)
    expected = []
    for row, column in ((row, column) for row in range(2) for column in range(1, 9) if labels[row, column] != -100):
        label = int(labels[row, column])
        slot = layout.slot_of(label) or 0
        first = layout.offset + slot * layout.codebook_size
        allowed = [*range(first, first + layout.codebook_size), *(markers if slot == 0 else [])]
        scores = (states[row, column - 1] @ weight[allowed].T).log_softmax(-1)
        expected.append(-scores[allowed.index(label)])
    assert_close(loss, torch.stack(expected).mean(), 1e-5)
    assert_close(
        slot_constrained_loss(states, weight, labels, layout, markers, 5), torch.stack(expected).sum() / 5, 1e-5
    )
    loss.backward()
    assert states.grad[0, :2].abs().max() == 0 and states.grad[1].abs().max() > 0
    with pytest.raises(ValueError, match="labels"):
        slot_constrained_loss(states, weight, labels.clamp(max=200), layout, markers)


def test_model_takes_the_constraint_and_right_padding_does_not_count() -> None:
    model = Maya1ForConditionalGeneration(Tester().config()).train()
    layout = model.config.audio_token_layout
    ids = torch.arange(20, 30).tolist() + [layout.offset + slot * layout.codebook_size for slot in range(7)] + [393]
    input_ids = torch.tensor([ids, ids])
    labels = torch.tensor([[-100] * 10 + ids[10:]] * 2)
    mask = torch.ones_like(input_ids)
    plain = model(input_ids=input_ids, attention_mask=mask, labels=labels, constrain_slots=True)
    assert plain.logits is None
    padded = model(
        input_ids=torch.nn.functional.pad(input_ids, (0, 4), value=398),
        attention_mask=torch.nn.functional.pad(mask, (0, 4)),
        labels=torch.nn.functional.pad(labels, (0, 4), value=-100),
        constrain_slots=True,
    )
    assert_close(padded.loss, plain.loss, 1e-6)
    left = model(
        input_ids=torch.nn.functional.pad(input_ids, (4, 0), value=398),
        attention_mask=torch.nn.functional.pad(mask, (4, 0)),
        position_ids=torch.nn.functional.pad(torch.arange(18), (4, 0))[None].repeat(2, 1),
        labels=torch.nn.functional.pad(labels, (4, 0), value=-100),
        constrain_slots=True,
    )
    assert_close(left.loss, plain.loss, 1e-5)
    assert plain.loss < model(input_ids=input_ids, attention_mask=mask, labels=labels).loss
