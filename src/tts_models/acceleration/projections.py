"""Matrix products of a decoding step: a few rows times weights that are read from memory once per step.

Each kind is a callable `(…, in) -> (…, out)`. Projections that read the same input are joined into one product.
"""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import nn


Projection = Callable[[torch.Tensor], torch.Tensor]
# The rows that a packed layout is chosen for; it takes any number.
_PACKED_ROWS = 2
# The operator itself: Python would look for it, and through its arguments, at every call.
_linear_dynamic = torch.ops.quantized.linear_dynamic.default
_linear_dynamic = getattr(_linear_dynamic, "_op", _linear_dynamic)


class RowsProjection:
    """`F.linear` with a weight `(out, in)`."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self.weight, self.bias = weight, bias

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(states, self.weight, self.bias)


class ColumnsProjection:
    """The same with the weight stored as `(in, out)`, which a CPU reads faster for a single row."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self.weight, self.bias = weight, bias

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        product = states @ self.weight
        return product if self.bias is None else product + self.bias


class PackedProjection:
    """The same in the layout that the CPU's own library computes in: faster for two rows and more.

    The layout is a copy: the weight stays where it is.

    Args:
        weight: `(out, in)`, float32, on the CPU.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _PACKED_ROWS)

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise(states, self.packed, None, "none", [], "")


class Int8Projection:
    """Weights of 8 bits with a scale per output, inputs of 8 bits with a scale per call (dynamic quantisation).

    For the CPU. The float weight is not kept.

    Args:
        weight: `(out, in)`, any float dtype.
        bias: `(out,)`, or `None`.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self._pack(*_eight_bits(weight), bias)

    @classmethod
    def of_modules(cls, modules: Sequence[nn.Linear], bias: torch.Tensor | None = None) -> "Int8Projection":
        """One product for several modules, whose weights may have been quantised before."""
        codes, scales = zip(*(_eight_bits(module.weight) for module in modules), strict=True)
        projection = cls.__new__(cls)
        projection._pack(torch.cat(codes), torch.cat(scales), bias)
        return projection

    def _pack(self, codes: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None) -> None:
        zeros = torch.zeros(len(codes), dtype=torch.long)
        with warnings.catch_warnings():
            # Tensors of quantised dtype are on their way out; the product below still wants its weight as one.
            warnings.filterwarnings("ignore", message=".*quantize")
            quantized = torch._make_per_channel_quantized_tensor(codes, scales.double(), zeros, 0)
        bias = None if bias is None else bias.detach().float()
        self.packed = torch.ops.quantized.linear_prepack(quantized, bias)

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        # `reduce_range`: seven bits of the input, so that 16-bit sums of processors without VNNI cannot overflow.
        if states.dtype != torch.float32:
            return self(states.float()).to(states.dtype)
        return _linear_dynamic(states, self.packed, True)


def _eight_bits(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`weight` `(out, in)` in 8 bits, and the scales `(out,)`: its own, where it is quantised so already."""
    if is_eight_bits(weight):
        return weight.qdata.detach(), weight.scale.detach().float().flatten()
    weight = weight.detach().float()
    scales = weight.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return (weight / scales[:, None]).round().clamp(-128, 127).to(torch.int8), scales


def is_eight_bits(weight: torch.Tensor) -> bool:
    """Whether torchao holds `weight` in 8 bits with one scale per output."""
    codes, scales, zeros = (getattr(weight, name, None) for name in ("qdata", "scale", "zero_point"))
    if codes is None or scales is None or codes.dtype != torch.int8 or scales.numel() != len(codes):
        return False
    return zeros is None or not bool(zeros.any())


class ModulesProjection:
    """The modules as they are, one after the other: for layers with adapters, hooks or a quantisation of their own."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.modules = list(modules)

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        outputs = [module(states) for module in self.modules]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)


def is_plain(module: nn.Module) -> bool:
    """Whether `module` is a linear layer of plain numbers that nothing is wrapped around or hooked into."""
    return is_unwrapped(module) and type(module.weight.data) is torch.Tensor


def is_unwrapped(module: nn.Module) -> bool:
    """Whether `module` is a linear layer, quantised or not, that nothing is wrapped around or hooked into."""
    has_hooks = module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__
    return type(module) is nn.Linear and not has_hooks


def project_as_is(*modules: nn.Module) -> Projection:
    """The modules themselves, without a copy of their weights and without joining them."""
    if len(modules) == 1 and is_plain(modules[0]):
        return RowsProjection(modules[0].weight, modules[0].bias)
    return ModulesProjection(modules)


def project_joined(*modules: nn.Module) -> Projection:
    """One product for all modules, in the layout that suits their device.

    The parameters of the modules become views of the joined weight: no memory is needed twice, and whatever changes
    them in place changes both. Modules that are not plain linear layers, or have biases, stay as they are.
    """
    if not all(is_plain(module) and module.bias is None for module in modules):
        return project_as_is(*modules)
    weights = [module.weight for module in modules]
    with torch.no_grad():
        if weights[0].device.type == "cpu" and weights[0].dtype == torch.float32:
            joined = torch.cat([weight.T for weight in weights], dim=1)
            views, projection = joined.T.split([len(weight) for weight in weights]), ColumnsProjection(joined)
        else:
            joined = torch.cat(list(weights)) if len(weights) > 1 else weights[0].detach()
            views, projection = joined.split([len(weight) for weight in weights]), RowsProjection(joined)
    for weight, view in zip(weights, views, strict=True):
        weight.data = view
    return projection


def project_packed(*modules: nn.Module) -> Projection:
    """One product for all modules, which keep their own weights; see [`PackedProjection`].

    Modules that are not plain linear layers in float32 on the CPU, or have biases, stay as they are.
    """
    weights = [module.weight for module in modules if is_plain(module) and module.bias is None]
    is_fit = all(weight.device.type == "cpu" and weight.dtype == torch.float32 for weight in weights)
    if len(weights) < len(modules) or not is_fit or not torch.backends.mkldnn.is_available():
        return project_as_is(*modules)
    with torch.no_grad():
        return PackedProjection(torch.cat(weights) if len(weights) > 1 else weights[0])


def project_int8(*modules: nn.Module) -> Projection:
    """One product with weights of 8 bits for all modules, which keep their own.

    Weights that torchao holds in 8 bits already are taken as they are.

    Raises:
        ValueError: a module is not a plain linear layer on the CPU, or only some have a bias.
    """
    for module in modules:
        is_known = is_plain(module) or (is_unwrapped(module) and is_eight_bits(module.weight))
        if not is_known or module.weight.device.type != "cpu":
            raise ValueError(f"`int8` needs plain linear layers on the CPU; got {type(module).__name__}.")
    biases = [module.bias for module in modules if module.bias is not None]
    if biases and len(biases) < len(modules):
        raise ValueError("`int8` cannot join linear layers of which only some have a bias.")
    return Int8Projection.of_modules(modules, torch.cat(biases) if biases else None)


__all__ = [
    "ColumnsProjection",
    "Int8Projection",
    "ModulesProjection",
    "PackedProjection",
    "Projection",
    "RowsProjection",
    "is_eight_bits",
    "is_plain",
    "is_unwrapped",
    "project_as_is",
    "project_int8",
    "project_joined",
    "project_packed",
]
