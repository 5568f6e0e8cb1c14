"""The second stage: what it reads, windows over more frames than fit, codes that never are the padding."""

import pytest
import torch

from tests.models.metavoice.tiny import TINY
from tts_models import MetaVoiceFirstStageConfig, MetaVoiceSecondStageConfig, MetaVoiceSecondStageModel
from tts_models.models.metavoice.decoding_metavoice_second_stage import (
    complete_codes,
    draw_uniforms,
    plan_windows,
    second_stage_room,
)
from tts_models.models.metavoice.tokens_metavoice import first_stage_ids, second_stage_ids, split_first_stage


CONFIG = TINY["second_stage_config"]
CODES, SPEAKER, ROOM = CONFIG["num_codes"], CONFIG["speaker_embed_size"], CONFIG["max_position_embeddings"]


@pytest.fixture(scope="module")
def model() -> MetaVoiceSecondStageModel:
    torch.manual_seed(0)
    return MetaVoiceSecondStageModel(MetaVoiceSecondStageConfig(**CONFIG)).eval()


def codes(frames: int, seed: int = 0) -> torch.LongTensor:
    return torch.randint(0, CODES, (2, frames), generator=torch.Generator().manual_seed(seed))


def speakers(rows: int) -> torch.Tensor:
    return torch.rand(rows, SPEAKER, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def complete(
    model: MetaVoiceSecondStageModel, frames: list[int], text: int = 5, drawn: bool = True
) -> list[torch.Tensor]:
    uniforms = [draw_uniforms(torch.Generator().manual_seed(n), n, model.config) for n in frames] if drawn else None
    given = [codes(each, each) for each in frames]
    return complete_codes(model, [range(text)] * len(frames), given, speakers(len(frames)), uniforms, top_k=5)


# Layouts


def test_interleaved_there_and_back() -> None:
    config, text, given = MetaVoiceFirstStageConfig(**TINY["first_stage_config"]), [3, 1, 4], codes(7)
    ids = first_stage_ids(config, text, given)
    assert ids[:4].tolist() == [20, 18, 21, config.end_of_text_token_id]
    assert ids[4:8].tolist() == [given[0, 0], given[1, 0] + CODES, given[0, 1], given[1, 1] + CODES]
    found_text, found = split_first_stage(config, torch.cat([ids, torch.tensor([config.end_of_audio_token_id])]))
    assert found_text == text and torch.equal(found, given)
    assert torch.equal(split_first_stage(config, ids[:-1])[1], given[:, :-1])
    assert split_first_stage(config, first_stage_ids(config, text))[1].shape == (2, 0)


def test_rows_are_always_whole() -> None:
    config = MetaVoiceSecondStageConfig(**CONFIG)
    for frames in (0, 3, 500):
        ids = second_stage_ids(config, [7, 8], codes(frames))
        assert ids.shape == (2, ROOM)
        assert ids[0, :3].tolist() == [16, 17, config.end_of_text_token_id] and ids[1, :3].tolist() == [CODES] * 3
        assert torch.all(ids[:, 3 + frames :] == CODES)
    assert second_stage_ids(config, range(200), codes(3)).shape == (2, ROOM)


# Windows


@pytest.mark.parametrize("frames", [1, 599, 600, 601, 800, 1000, 1001, 5000])
@pytest.mark.parametrize("room", [1, 2, 7, 600, 990])
def test_every_frame_is_kept_once(frames: int, room: int) -> None:
    windows = plan_windows(frames, room)
    assert [each for window in windows for each in range(window.keep_start, window.keep_end)] == list(range(frames))
    for window in windows:
        assert 0 <= window.start <= window.keep_start < window.keep_end <= window.end <= frames
        assert window.end - window.start <= room
    assert len(windows) == 1 or frames > room


def test_kept_frames_see_both_sides() -> None:
    windows = plan_windows(2000, 900)
    for one, other in zip(windows, windows[1:], strict=False):
        assert one.end - one.keep_end >= 100 and other.keep_start - other.start >= 100


def test_what_fits_is_read_at_once(model: MetaVoiceSecondStageModel) -> None:
    text, given = [1, 2, 3], codes(60)
    (whole,) = complete_codes(model, [text], [given], speakers(1))
    with torch.no_grad():
        logits = model(second_stage_ids(model.config, text, given)[None], speakers(1)).logits[0]
    assert torch.equal(whole, torch.cat([given, logits[:, 4:64, :CODES].argmax(-1)]))


def test_rows_get_what_they_get_alone(model: MetaVoiceSecondStageModel) -> None:
    frames = [40, 0, 300, 7]
    batch = complete(model, frames)
    assert [each.shape for each in batch] == [(4, n) for n in frames]
    for row, n in enumerate(frames):
        uniforms = [draw_uniforms(torch.Generator().manual_seed(n), n, model.config)]
        with torch.no_grad():
            (alone,) = complete_codes(model, [range(5)], [codes(n, n)], speakers(4)[row : row + 1], uniforms, top_k=5)
        assert torch.equal(alone, batch[row])


def test_padding_is_never_picked(model: MetaVoiceSecondStageModel) -> None:
    biased = MetaVoiceSecondStageModel(model.config).eval()
    biased.load_state_dict(model.state_dict())
    with torch.no_grad():
        # The last choice of every head is the likeliest by far.
        for head in biased.heads:
            head.weight[CODES] = 100 * head.weight[:CODES].sum(0)
    for drawn in (True, False):
        for row in complete(biased, [50, 200], drawn=drawn):
            assert row.min() >= 0 and row.max() < CODES


def test_draws_do_not_depend_on_how_many_there_are(model: MetaVoiceSecondStageModel) -> None:
    one, other = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    pieces = [draw_uniforms(one, 4, model.config), draw_uniforms(one, 6, model.config)]
    assert torch.equal(torch.cat(pieces), draw_uniforms(other, 10, model.config))


def test_errors(model: MetaVoiceSecondStageModel) -> None:
    assert second_stage_room(model.config, ROOM - 3) == 1
    with pytest.raises(ValueError, match="split the text"):
        complete_codes(model, [range(ROOM - 2)], [codes(3)], speakers(1))
    for shape in ((1, 3, 10), (1, 2, ROOM + 1), (2, 10)):
        with pytest.raises(ValueError, match="`input_ids` must have the shape"):
            model(torch.zeros(shape, dtype=torch.long))


@pytest.mark.parametrize(
    "overrides",
    [
        {"norm_type": "rms_norm", "use_gated_mlp": True, "hidden_act": "silu"},
        {"use_norm_bias": True, "attention_bias": True, "mlp_bias": True},
    ],
)
def test_other_blocks(overrides: dict) -> None:
    torch.manual_seed(0)
    model = MetaVoiceSecondStageModel(MetaVoiceSecondStageConfig(**CONFIG | overrides))
    ids = second_stage_ids(model.config, [1, 2], codes(20))[None]
    labels = torch.randint(0, CODES, (1, 2, ROOM))
    labels[..., 30:] = -100
    model(ids, speakers(1), labels=labels).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@torch.no_grad()
def test_codebooks_of_unequal_sizes() -> None:
    torch.manual_seed(0)
    model = MetaVoiceSecondStageModel(MetaVoiceSecondStageConfig(**CONFIG | {"target_vocab_sizes": [5, 9]})).eval()
    ids = second_stage_ids(model.config, [1, 2], codes(20))[None]
    labels = torch.randint(0, 5, (1, 2, ROOM))
    output = model(ids, speakers(1), labels=labels)
    assert output.logits.shape == (1, 2, ROOM, 9) and output.loss.isfinite()
    assert output.logits[:, 0, :, 5:].eq(-float("inf")).all() and output.logits[:, 0, :, :5].isfinite().all()
    assert output.logits[:, 1].isfinite().all()
    assert all(row[2].max() < 5 for row in complete(model, [50, 200]))


@torch.no_grad()
def test_every_codebook_counts_the_same(model: MetaVoiceSecondStageModel) -> None:
    ids = second_stage_ids(model.config, [1, 2], codes(20))[None]
    labels = torch.randint(0, CODES, (1, 2, ROOM))
    labels[:, 0, 5:] = -100
    output = model(ids, speakers(1), labels=labels)
    pairs = zip(output.logits[0], labels[0], strict=True)
    means = [torch.nn.functional.cross_entropy(scores, given) for scores, given in pairs]
    torch.testing.assert_close(output.loss, torch.stack(means).mean())
