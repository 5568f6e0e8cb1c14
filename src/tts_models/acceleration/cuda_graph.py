"""Functions recorded as CUDA graphs, replayed with a single launch: over fixed tensors, or a graph per input shape."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch


# Libraries allocate their workspaces, and compiled code is compiled, before anything may be recorded.
_WARM_UP_CALLS = 3


class CapturedCall:
    """Replays `function`, which takes nothing, returns nothing, and works on tensors that keep their place.

    It runs a few times while it is recorded: give its tensors their values afterwards.

    Args:
        function: Never reads a value back from the device, and has the same shapes every time.
        device: A CUDA device.
    """

    def __init__(self, function: Callable[[], None], device: torch.device) -> None:
        self.function, self.graph = function, torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.device(device), torch.cuda.stream(stream):
            for _ in range(_WARM_UP_CALLS):
                function()
        torch.cuda.current_stream(device).wait_stream(stream)
        # What other threads do meanwhile, such as handing out earlier sound, is no part of the recording.
        with torch.cuda.device(device), torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            function()

    def __call__(self) -> None:
        self.graph.replay()


@dataclass
class _Recording:
    inputs: list[torch.Tensor]
    output: torch.Tensor | None = None
    replay: CapturedCall | None = None


class GraphedFunction:
    """Calls `function` through CUDA graphs; on other devices it calls it as it is.

    The function must take tensors only, return one tensor, and do the same kernels whatever the tensors hold. Give it
    few shapes: pad to buckets.

    Args:
        function: What is called.
        version: Changes when a recording is no longer valid, such as the address of a weight.
        max_graphs: Recordings kept; the one unused for longest goes first.
    """

    def __init__(
        self, function: Callable[..., torch.Tensor], version: Callable[[], Hashable], max_graphs: int = 16
    ) -> None:
        self.function, self.version, self.max_graphs = function, version, max_graphs
        self._recordings: OrderedDict[Hashable, _Recording] = OrderedDict()

    def __call__(self, *tensors: torch.Tensor) -> torch.Tensor:
        """The function's result, which the next call does not overwrite."""
        if tensors[0].device.type != "cuda" or torch.is_grad_enabled():
            return self.function(*tensors)
        key = (self.version(), tensors[0].device, *((tensor.shape, tensor.dtype) for tensor in tensors))
        recording = self._recordings.pop(key, None) or self._record(tensors)
        self._recordings[key] = recording
        if len(self._recordings) > self.max_graphs:
            self._recordings.popitem(last=False)
        for kept, tensor in zip(recording.inputs, tensors, strict=True):
            kept.copy_(tensor)
        recording.replay()
        return recording.output.clone()

    def _record(self, tensors: tuple[torch.Tensor, ...]) -> _Recording:
        recording = _Recording([tensor.clone() for tensor in tensors])

        def call() -> None:
            # The last call is the recorded one: its output is what a replay writes.
            recording.output = self.function(*recording.inputs)

        recording.replay = CapturedCall(call, tensors[0].device)
        return recording


__all__ = ["CapturedCall", "GraphedFunction"]
