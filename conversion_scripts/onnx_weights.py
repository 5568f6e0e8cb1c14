"""Reads the weights of an ONNX file: its nodes in order, and its tensors by name.

ONNX is a protocol buffer of few message types, of which a conversion needs three. Reading them here needs no package,
and runs nothing that the file contains.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from checkpoint_tools import ConversionError


_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# Field numbers of onnx.proto.
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_TENSOR = 1, 5
_NODE_INPUT, _NODE_OUTPUT, _NODE_TYPE, _NODE_ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_TENSOR = 1, 5
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_FLOATS, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 4, 8, 9
_FLOAT32, _INT64 = 1, 7


@dataclass
class OnnxNode:
    """One operation of a graph.

    Attributes:
        kind (`str`): The operator, such as `"Conv"`.
        inputs (`list[str]`): Names of what it takes; empty for one that is left out.
        outputs (`list[str]`): Names of what it makes.
    """

    kind: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)


@dataclass
class OnnxGraph:
    """The operations of a file in the order of execution, and its tensors (float32 and int64) by name."""

    nodes: list[OnnxNode]
    tensors: dict[str, torch.Tensor]

    def weights_of(self, *kinds: str) -> list[list[torch.Tensor]]:
        """The stored tensors that each operation of one of `kinds` takes, in the order of execution."""
        return [
            [self.tensors[name] for name in node.inputs if name in self.tensors]
            for node in self.nodes
            if node.kind in kinds
        ]


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of every field of a message."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, place = _varint(data, place)
        elif kind == _BYTES:
            size, place = _varint(data, place)
            value, place = data[place : place + size], place + size
            if len(value) != size:
                raise ConversionError("the ONNX file is cut off")
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
            value, place = data[place : place + size], place + size
        else:
            raise ConversionError(f"this is no ONNX file: field {number} is of kind {kind}")
        yield number, value


def _text(value: memoryview) -> str:
    return bytes(value).decode("utf-8")


def _dimensions(value: int | memoryview) -> list[int]:
    if isinstance(value, int):
        return [value]
    sizes, place = [], 0
    while place < len(value):
        size, place = _varint(value, place)
        sizes.append(size)
    return sizes


def _tensor(data: memoryview) -> tuple[str, torch.Tensor | None]:
    """Name and values of a tensor; no values for one of another type, such as text."""
    name, shape, kind, raw = "", [], 0, None
    for number, value in _fields(data):
        if number == _TENSOR_DIMS:
            shape += _dimensions(value)
        elif number == _TENSOR_TYPE:
            kind = value
        elif number == _TENSOR_NAME:
            name = _text(value)
        elif number in (_TENSOR_RAW, _TENSOR_FLOATS):
            raw = value
    if kind not in (_FLOAT32, _INT64) or raw is None:
        return name, None
    values = np.frombuffer(raw, "<f4" if kind == _FLOAT32 else "<i8")
    if values.size != int(np.prod(shape)):
        raise ConversionError(f"the ONNX tensor {name} of shape {shape} holds {values.size} values")
    return name, torch.from_numpy(values.reshape(shape).copy())


def _node(data: memoryview) -> tuple[OnnxNode, torch.Tensor | None]:
    """A node, and the value of one that is a constant."""
    node, constant = OnnxNode(), None
    for number, value in _fields(data):
        if number == _NODE_INPUT:
            node.inputs.append(_text(value))
        elif number == _NODE_OUTPUT:
            node.outputs.append(_text(value))
        elif number == _NODE_TYPE:
            node.kind = _text(value)
        elif number == _NODE_ATTRIBUTE:
            attribute = dict(_fields(value))
            if _text(attribute.get(_ATTRIBUTE_NAME, memoryview(b""))) == "value" and _ATTRIBUTE_TENSOR in attribute:
                constant = _tensor(attribute[_ATTRIBUTE_TENSOR])[1]
    return node, constant if node.kind == "Constant" else None


def read_onnx(content: bytes) -> OnnxGraph:
    """Parses an ONNX file.

    Raises:
        ConversionError: It is none, or is cut off.
    """
    graph = OnnxGraph([], {})
    try:
        parts = [value for number, value in _fields(memoryview(content)) if number == _MODEL_GRAPH]
        for number, value in (item for part in parts for item in _fields(part)):
            if number == _GRAPH_TENSOR:
                name, tensor = _tensor(value)
                graph.tensors |= {} if tensor is None else {name: tensor}
            elif number == _GRAPH_NODE:
                node, constant = _node(value)
                graph.nodes.append(node)
                if constant is not None:
                    graph.tensors[node.outputs[0]] = constant
    except (IndexError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise ConversionError(f"this is no readable ONNX file: {error}") from error
    if not graph.nodes:
        raise ConversionError("this is no ONNX file: it has no graph")
    return graph


__all__ = ["OnnxGraph", "OnnxNode", "read_onnx"]
