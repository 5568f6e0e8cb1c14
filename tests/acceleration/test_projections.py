"""Joined and quantised products equal those of the modules they are made of."""

import pytest
import torch
from torch import nn

from tests.common.comparing import assert_close
from tts_models.acceleration.projections import (
    ColumnsProjection,
    Int8Projection,
    ModulesProjection,
    PackedProjection,
    RowsProjection,
    is_plain,
    project_as_is,
    project_int8,
    project_joined,
    project_packed,
)


def layers(bias: bool = False, dtype: torch.dtype = torch.float32) -> list[nn.Linear]:
    """Three layers that read the same input."""
    return [nn.Linear(24, size, bias=bias, dtype=dtype) for size in (16, 8, 8)]


@torch.no_grad()
@pytest.mark.parametrize(
    ("dtype", "kind"),
    [(torch.float32, ColumnsProjection), (torch.bfloat16, RowsProjection)],
    ids=["float32", "bfloat16"],
)
def test_joined_layers_share_their_weights(dtype: torch.dtype, kind: type) -> None:
    modules, states = layers(dtype=dtype), torch.randn(2, 3, 24, dtype=dtype)
    expected = torch.cat([module(states) for module in modules], dim=-1)
    projection = project_joined(*modules)
    assert type(projection) is kind
    assert_close(projection(states), expected, 1e-2 if dtype == torch.bfloat16 else 1e-5)
    for module in modules:
        module.weight.mul_(2)
    assert_close(projection(states), torch.cat([module(states) for module in modules], dim=-1), 1e-2)


@torch.no_grad()
def test_layers_that_cannot_be_joined_stay_as_they_are() -> None:
    hooked = layers()
    hooked[1].register_forward_hook(lambda module, inputs, output: output + 1)
    for modules in (layers(bias=True), hooked):
        states = torch.randn(2, 24)
        projection = project_joined(*modules)
        assert type(projection) is ModulesProjection
        assert torch.equal(projection(states), torch.cat([module(states) for module in modules], dim=-1))


@torch.no_grad()
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_eight_bits_come_close(bias: bool, dtype: torch.dtype) -> None:
    modules, states = layers(bias, dtype), torch.randn(2, 1, 24, dtype=dtype)
    expected = torch.cat([module(states) for module in modules], dim=-1).float()
    projected = project_int8(*modules)(states)
    assert projected.dtype == dtype
    assert (projected.float() - expected).norm() / expected.norm() < 0.03


@torch.no_grad()
def test_row_of_zeros_stays_zero_in_eight_bits() -> None:
    weight = torch.randn(4, 24)
    weight[2] = 0
    projected = Int8Projection(weight)(torch.randn(1, 24))
    assert projected[0, 2] == 0 and projected.isfinite().all()


def test_what_cannot_be_quantised_is_refused() -> None:
    with pytest.raises(ValueError, match="int8"):
        project_int8(nn.Identity())
    with pytest.raises(ValueError, match="bias"):
        project_int8(nn.Linear(4, 4), nn.Linear(4, 4, bias=False))


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_packed_layers(rows: int) -> None:
    modules, states = layers(), torch.randn(rows, 3, 24)
    expected = torch.cat([module(states) for module in modules], dim=-1)
    projection = project_packed(*modules)
    assert type(projection) is (PackedProjection if torch.backends.mkldnn.is_available() else ModulesProjection)
    assert_close(projection(states), expected, 1e-5)
    assert type(project_packed(*layers(bias=True))) is ModulesProjection


@torch.no_grad()
def test_weights_of_torchao_are_taken_as_they_are() -> None:
    torchao = pytest.importorskip("torchao.quantization")
    modules = layers(False, torch.float32)
    for module in modules:
        torchao.quantize_(module, torchao.Int8WeightOnlyConfig())
    states = torch.randn(2, 1, 24)
    expected = torch.cat([module(states) for module in modules], dim=-1)
    assert not any(map(is_plain, modules))
    for project in (project_int8, project_as_is, project_joined):
        projected = project(*modules)(states)
        assert (projected - expected).norm() / expected.norm() < (0.02 if project is project_int8 else 1e-6)
    torchao.quantize_(other := nn.Linear(24, 4, bias=False), torchao.Int8DynamicActivationInt8WeightConfig())
    assert project_as_is(other)(states).shape == (2, 1, 4)
