"""The parts that streams are made of."""

import pytest
import torch
from torch import nn

from tests.common.comparing import assert_close
from tts_models.streaming.convolution import DelayLine, StreamingConv1d, StreamingConvTranspose1d
from tts_models.streaming.schedule import EmitSchedule, TwoPhaseSchedule


def run_in_pieces(layer: object, signal: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """Feeds the signal in pieces of these sizes, the last one as the final one."""
    pieces = signal.split(sizes, dim=-1)
    outputs = [layer(piece, is_final=index == len(pieces) - 1) for index, piece in enumerate(pieces)]
    return torch.cat(outputs, dim=-1)


@torch.no_grad()
@pytest.mark.parametrize("sizes", [[20], [1] * 20, [7, 0, 1, 12], [0, 0, 20], [19, 1], [20, 0]])
@pytest.mark.parametrize(("kernel", "dilation", "groups"), [(7, 1, 1), (7, 9, 4), (1, 1, 1), (3, 2, 2)])
def test_convolution_in_pieces(sizes: list[int], kernel: int, dilation: int, groups: int) -> None:
    padding = dilation * (kernel - 1) // 2
    layer, signal = nn.Conv1d(4, 4, kernel, 1, padding, dilation, groups), torch.randn(2, 4, 20)
    assert_close(run_in_pieces(StreamingConv1d(layer, 2), signal, sizes), layer(signal), 1e-5)


@torch.no_grad()
@pytest.mark.parametrize("sizes", [[9], [1] * 9, [2, 0, 7], [8, 1], [9, 0]])
@pytest.mark.parametrize("stride", [2, 3, 7, 8])
def test_transposed_convolution_in_pieces(sizes: list[int], stride: int) -> None:
    padding = (stride + 1) // 2
    layer = nn.ConvTranspose1d(4, 3, 2 * stride, stride, padding, output_padding=stride % 2)
    signal = torch.randn(2, 4, 9)
    assert_close(run_in_pieces(StreamingConvTranspose1d(layer, 2), signal, sizes), layer(signal), 1e-5)


@torch.no_grad()
def test_rows_are_selected_in_the_middle() -> None:
    layer, signal = nn.Conv1d(4, 4, 7, padding=3), torch.randn(3, 4, 20)
    state = StreamingConv1d(layer, 3)
    first = state(signal[..., :9])
    state.select_rows(torch.tensor([2, 0]))
    rest = state(signal[[2, 0], :, 9:], is_final=True)
    assert_close(torch.cat([first[[2, 0]], rest], dim=-1), layer(signal)[[2, 0]], 1e-5)


def test_delay_line_is_a_queue() -> None:
    line = DelayLine(torch.zeros(1, 1, 0))
    line.push(torch.arange(5.0)[None, None])
    assert line.pop(2).flatten().tolist() == [0, 1]
    line.push(torch.tensor([[[9.0]]]))
    assert line.pop(4).flatten().tolist() == [2, 3, 4, 9]


def chunk_sizes(schedule: EmitSchedule | TwoPhaseSchedule, frames: int) -> list[int]:
    """The chunks in which so many single frames are handed out."""
    sizes, waiting = [], 0
    for _ in range(frames):
        waiting += 1
        if schedule.is_due(waiting):
            sizes.append(waiting)
            waiting = 0
    return sizes


def test_schedule_starts_small_and_grows() -> None:
    assert chunk_sizes(EmitSchedule(3, 4), 18) == [3, 1, 2, 4, 4, 4]
    assert chunk_sizes(EmitSchedule(1, 1), 3) == [1, 1, 1]
    for sizes in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least one frame"):
            EmitSchedule(*sizes)


def test_two_phase_schedule_loses_no_frame_where_the_interval_changes() -> None:
    assert chunk_sizes(TwoPhaseSchedule(4), 12) == [4, 4, 4]
    assert chunk_sizes(TwoPhaseSchedule(6, 2, 5), 16) == [2, 2, 6, 6]
    assert chunk_sizes(TwoPhaseSchedule(2, 5, 8), 14) == [5, 3, 2, 2, 2]
    with pytest.raises(ValueError, match="emit_every_frames"):
        TwoPhaseSchedule(0)
    for arguments, name in (((4, -1), "first_chunk_emit_every"), ((4, 1, -1), "first_chunk_frames")):
        with pytest.raises(ValueError, match=name):
            TwoPhaseSchedule(*arguments)
