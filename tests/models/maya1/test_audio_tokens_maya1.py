"""Codes to a flat token stream and back."""

import pytest

from tts_models.models.maya1.audio_tokens_maya1 import AudioTokenLayout, FrameAssembler, frame_layout


END = 42


@pytest.fixture
def layout() -> AudioTokenLayout:
    """Three levels with a codebook of 16, from id 50."""
    return AudioTokenLayout(50, 16, (4, 2, 1), END)


def two_frames(layout: AudioTokenLayout) -> list[int]:
    """The ids of two frames, code 1 … 14 in stream order."""
    return [50 + 16 * (index % 7) + index + 1 for index in range(14)]


@pytest.mark.parametrize(
    ("strides", "levels"),
    [
        ((4, 2, 1), [0, 1, 2, 2, 1, 2, 2]),
        ((2, 1), [0, 1, 1]),
        ((1,), [0]),
        ((1, 1), [0, 1]),
        ((8, 4, 2, 1), [0, 1, 2, 3, 3, 2, 3, 3, 1, 2, 3, 3, 2, 3, 3]),
    ],
)
def test_frame_is_written_depth_first(strides: tuple[int, ...], levels: list[int]) -> None:
    slots = frame_layout(strides)
    assert [level for level, _ in slots] == levels
    for level, stride in enumerate(strides):
        positions = [position for slot_level, position in slots if slot_level == level]
        assert positions == list(range(strides[0] // stride))


@pytest.mark.parametrize("strides", [(), (0,), (4, 3), (1, 2)])
def test_strides_that_do_not_nest_are_refused(strides: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="vq_strides"):
        frame_layout(strides)


def test_released_ids() -> None:
    layout = AudioTokenLayout(128266, 4096, (4, 2, 1), 128258)
    assert layout.num_ids == 28672 and layout.slots_per_frame == 7
    assert layout.pack([[0], [1, 2], [3, 4, 5, 4095]]) == [
        128266,
        128266 + 4096 + 1,
        128266 + 2 * 4096 + 3,
        128266 + 3 * 4096 + 4,
        128266 + 4 * 4096 + 2,
        128266 + 5 * 4096 + 5,
        156937,
    ]


def test_packed_codes_come_back(layout: AudioTokenLayout) -> None:
    levels, info = layout.unpack(two_frames(layout))
    assert levels == [[1, 8], [2, 5, 9, 12], [3, 4, 6, 7, 10, 11, 13, 14]]
    assert (info.frames, info.ended, info.dropped_tokens, info.ignored_tokens) == (2, False, 0, 0)
    assert layout.pack(levels) == two_frames(layout)
    assert layout.unpack(layout.pack(levels) + [END, 51])[1].ended


def test_resynchronising_drops_no_more_than_it_must(layout: AudioTokenLayout) -> None:
    ids = two_frames(layout)
    levels, info = layout.unpack(ids[:3] + ids[4:])  # the fourth token is missing
    assert levels[0] == [8] and info.frames == 1 and info.dropped_tokens == 6
    levels, info = layout.unpack(ids[:3] + ids[:1] + ids[1:])  # a frame starts over
    assert levels[0] == [1, 8] and info.dropped_tokens == 3
    levels, info = layout.unpack(ids[:7] + [3, 44] + ids[7:])  # text and control ids in between
    assert levels[0] == [1, 8] and info.ignored_tokens == 2 and info.dropped_tokens == 0
    levels, info = layout.unpack(ids[:10])  # an unfinished frame
    assert levels[0] == [1] and info.dropped_tokens == 3


def test_strict_names_the_place(layout: AudioTokenLayout) -> None:
    ids = two_frames(layout)
    with pytest.raises(ValueError, match=rf"Row 5, position 3: id {ids[4]} belongs to slot 4, expected slot 3"):
        layout.unpack(ids[:3] + ids[4:], policy="strict", row=5)
    with pytest.raises(ValueError, match="inside a frame"):
        layout.unpack(ids[:10], policy="strict")
    assert layout.unpack(ids, policy="strict")[1].frames == 2


def test_upstream_reads_by_position(layout: AudioTokenLayout) -> None:
    ids = two_frames(layout)
    levels, _ = layout.unpack(ids[:3] + ids[4:], policy="upstream")
    assert levels == [[1], [2, 6], [3, 5, 7, 8]]


def test_unknown_policy_is_refused(layout: AudioTokenLayout) -> None:
    with pytest.raises(ValueError, match="resync, strict, upstream.*'guess'"):
        layout.unpack([], policy="guess")


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([[1], [2, 3]], "3 levels"),
        ([[1], [2, 3], [4, 5, 6]], r"codes\[2\].*4"),
        ([[1], [2, 16], [4, 5, 6, 7]], r"codes\[1\].*0…15"),
        ([[-1], [2, 3], [4, 5, 6, 7]], r"codes\[0\]"),
    ],
)
def test_codes_that_do_not_fit_are_refused(layout: AudioTokenLayout, codes: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layout.pack(codes)


def test_frames_are_assembled_one_token_at_a_time(layout: AudioTokenLayout) -> None:
    assembler = FrameAssembler(layout)
    frames = [assembler.push(token) for token in [*two_frames(layout), END, 50]]
    assert [index for index, frame in enumerate(frames) if frame is not None] == [6, 13]
    assert assembler.finish().frames == 2 and assembler.ended
