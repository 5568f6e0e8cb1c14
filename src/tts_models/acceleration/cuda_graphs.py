"""A function of tensors, recorded once per input shape: on CUDA a replay launches all its kernels at once."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch


@dataclass
class _Recording:
    graph: "torch.cuda.CUDAGraph"
    inputs: list[torch.Tensor]
    output: torch.Tensor


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
        recording.graph.replay()
        return recording.output.clone()

    def _record(self, tensors: tuple[torch.Tensor, ...]) -> _Recording:
        inputs = [tensor.clone() for tensor in tensors]
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):  # libraries choose their kernels before the recording
            for _ in range(2):
                self.function(*inputs)
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = self.function(*inputs)
        return _Recording(graph, inputs, output)


__all__ = ["GraphedFunction"]
