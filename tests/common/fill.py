"""The rule by which a reference case and a port get the same parameters without storing them.

A tensor's values depend on its name and shape alone, so two implementations that fill the same names hold the same
network at any size. The numbers are those of the reference cases (`"weights": "fill"` in a `case.json`).
"""

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch


# Last parts of names whose values must stay positive, and of names that scale what they multiply.
POSITIVE_NAMES = frozenset({"running_var", "alpha", "beta_snake", "weight_g", "original0", "cluster_usage"})
SCALE_NAMES = frozenset({"weight", "gamma", "scale", "g"})


def fill_array(name: str, shape: Sequence[int]) -> np.ndarray:
    """Values of the parameter `name`.

    Args:
        name (`str`): Upstream's full parameter name; its CRC-32 seeds the generator.
        shape (`Sequence[int]`): Shape of the parameter, `()` for a scalar.

    Returns:
        `np.ndarray`: float32, of `shape`: magnitudes `1 + 0.1 |n|`, scales `1 + 0.1 n`, other vectors `0.1 n`,
        matrices and kernels `n / sqrt(fan_in)`, with `n` standard normal.
    """
    shape = tuple(int(size) for size in shape)
    generator = np.random.Generator(np.random.Philox(key=zlib.crc32(name.encode("utf-8"))))
    noise = np.asarray(generator.standard_normal(size=shape or None, dtype=np.float32), dtype=np.float32)
    last_part = name.rpartition(".")[2]
    if last_part in POSITIVE_NAMES:
        values = 1.0 + 0.1 * np.abs(noise)
    elif len(shape) > 1:
        values = noise / np.sqrt(max(int(np.prod(shape[1:])), 1))
    elif last_part in SCALE_NAMES:
        values = 1.0 + 0.1 * noise
    else:
        values = 0.1 * noise
    return np.asarray(values, dtype=np.float32)


def parse_shape(entry: Sequence) -> tuple[str, tuple[int, ...]]:
    """Reads `[2, 3]` or `["float32", [2, 3]]`, the two spellings of the tables, as `(dtype name, shape)`."""
    if len(entry) == 2 and isinstance(entry[0], str):
        return entry[0], tuple(entry[1])
    return "float32", tuple(entry)


def fill_tensor(name: str, entry: Sequence) -> torch.Tensor:
    """The parameter `name` as a float32 tensor; an integer entry (a counter, say) is zero. See [`fill_array`]."""
    dtype, shape = parse_shape(entry)
    if dtype.startswith(("int", "uint", "bool")):
        return torch.zeros(shape, dtype=getattr(torch, dtype))
    return torch.from_numpy(np.ascontiguousarray(fill_array(name, shape)))


def fill_state_dict(
    keys: Mapping[str, Sequence], weight_scale: Iterable[tuple[str, float]] = ()
) -> dict[str, torch.Tensor]:
    """Fills every name of `keys`, then multiplies each whose name holds a pattern of `weight_scale` by its factor.

    Args:
        keys (`Mapping[str, Sequence]`): Parameter name to shape, or to `[dtype, shape]`.
        weight_scale (`Iterable[tuple[str, float]]`): Regular expressions (searched, not anchored) and factors.
    """
    state_dict = {name: fill_tensor(name, entry) for name, entry in keys.items()}
    for pattern, factor in weight_scale:
        for name in state_dict:
            if re.search(pattern, name):
                state_dict[name] = state_dict[name] * factor
    return state_dict
