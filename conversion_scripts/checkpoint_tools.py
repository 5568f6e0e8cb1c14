"""What the conversion scripts share: reading upstream weights, accounting for every tensor, writing a folder whole.

Run the scripts from a clone of the repository; they import this module from their own folder.
"""

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn


SAFETENSORS_NAME = "model.safetensors"
SAFETENSORS_INDEX_NAME = "model.safetensors.index.json"
PICKLE_NAME = "pytorch_model.bin"
DEFAULT_SHARD_SIZE = 2 * 1024**3


class ConversionError(ValueError):
    """An upstream checkpoint that cannot be converted without losing or inventing something."""


def exit_status(output: Path, convert: Callable[[], None]) -> int:
    """Runs a conversion that writes `output`, says how it went, and returns the exit status of the command."""
    try:
        convert()
    except (ConversionError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {output}")
    return 0


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """`--output`, `--overwrite` and `--max-shard-size`, of scripts that write a large model."""
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an output folder that is not empty")
    parser.add_argument(
        "--max-shard-size", type=int, default=DEFAULT_SHARD_SIZE, help="bytes per weight file (default: %(default)s)"
    )


def run_conversion(
    description: str | None,
    input_help: str,
    convert: Callable[[Path, Path, bool], None],
    arguments: list[str] | None = None,
) -> int:
    """The command of a script that takes `--input`, `--output` and `--overwrite` only; returns its exit status.

    Args:
        description (`str`): What `--help` says.
        input_help (`str`): What it says of the input.
        convert (`Callable[[Path, Path, bool], None]`): Called with the three.
        arguments (`list[str]`, *optional*): Instead of the command line's.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help=input_help)
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an output folder that is not empty")
    options = parser.parse_args(arguments)
    return exit_status(options.output, lambda: convert(options.input, options.output, options.overwrite))


def read_json(file: Path) -> dict:
    """Parses a JSON object; raises [`ConversionError`] when the file is missing, broken or holds something else."""
    if not file.is_file():
        raise ConversionError(f"{file.parent} has no {file.name}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConversionError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConversionError(f"{file} should hold a JSON object, got {type(content).__name__}")
    return content


class SafetensorsCheckpoint:
    """One `model.safetensors`, or the shards named by its index, read tensor by tensor.

    Args:
        folder (`Path`): Folder of the checkpoint.

    Raises:
        ConversionError: No weights, a shard named by the index is missing or broken, or shards and index disagree.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        index_file = folder / SAFETENSORS_INDEX_NAME
        if index_file.is_file():
            self._files: dict[str, str] = read_json(index_file).get("weight_map", {})
        elif (folder / SAFETENSORS_NAME).is_file():
            self._files = dict.fromkeys(self._names_in(SAFETENSORS_NAME), SAFETENSORS_NAME)
        else:
            raise ConversionError(f"{folder} has neither {SAFETENSORS_NAME} nor {SAFETENSORS_INDEX_NAME}")
        self._check_shards()

    def _names_in(self, file_name: str) -> list[str]:
        with self._open(file_name) as handle:
            return list(handle.keys())

    @contextlib.contextmanager
    def _open(self, file_name: str) -> Iterator:
        if Path(file_name).name != file_name or not (self.folder / file_name).is_file():
            raise ConversionError(f"{self.folder}: the shard {file_name!r} is missing")
        try:
            with safe_open(self.folder / file_name, framework="pt") as handle:
                yield handle
        except SafetensorError as error:
            raise ConversionError(f"{self.folder / file_name} is not a readable safetensors file: {error}") from error

    def _check_shards(self) -> None:
        for file_name in self.file_names:
            listed = {name for name, owner in self._files.items() if owner == file_name}
            if listed != set(self._names_in(file_name)):
                different = sorted(listed ^ set(self._names_in(file_name)))
                raise ConversionError(f"{self.folder}: the index and {file_name} disagree about {_first(different)}")

    @property
    def file_names(self) -> list[str]:
        """The weight files, sorted."""
        return sorted(set(self._files.values()))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's name and shape, from the files' headers."""
        shapes = {}
        for file_name in self.file_names:
            with self._open(file_name) as handle:
                shapes.update({name: tuple(handle.get_slice(name).get_shape()) for name in handle.keys()})
        return shapes

    def load(self, name: str) -> torch.Tensor:
        """One tensor, by its name."""
        with self._open(self._files[name]) as handle:
            return handle.get_tensor(name)

    def equal(self, name: str, other: str, rows: int = 4096) -> bool:
        """Whether two tensors hold the same values, compared a block of rows at a time."""
        with self._open(self._files[name]) as one_file, self._open(self._files[other]) as other_file:
            one, two = one_file.get_slice(name), other_file.get_slice(other)
            if one.get_shape() != two.get_shape() or not one.get_shape():
                return one.get_shape() == two.get_shape() and torch.equal(self.load(name), self.load(other))
            starts = range(0, one.get_shape()[0], rows)
            return all(torch.equal(one[start : start + rows], two[start : start + rows]) for start in starts)

    def items(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Names and tensors, file by file; only the tensor at hand is in memory."""
        for file_name in self.file_names:
            with self._open(file_name) as handle:
                for name in handle.keys():
                    yield name, handle.get_tensor(name)


def read_state_dict(folder: Path) -> dict[str, torch.Tensor]:
    """Reads a small checkpoint whole: safetensors where there are any, else `pytorch_model.bin` (weights only).

    Raises:
        ConversionError: No weights, or a file that is not a flat dictionary of tensors.
    """
    if not (folder / PICKLE_NAME).is_file() or (folder / SAFETENSORS_NAME).is_file():
        return dict(SafetensorsCheckpoint(folder).items())
    try:
        state_dict = torch.load(folder / PICKLE_NAME, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a broken or malicious pickle makes of it
        raise ConversionError(f"{folder / PICKLE_NAME} cannot be read as plain weights: {error}") from error
    if not isinstance(state_dict, dict) or not all(isinstance(v, torch.Tensor) for v in state_dict.values()):
        raise ConversionError(f"{folder / PICKLE_NAME} should hold a flat dictionary of tensors")
    return state_dict


def fuse_weight_norm(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Replaces the magnitude and direction of weight-normalised layers by the plain `weight` they stand for.

    Three spellings are read: `parametrizations.weight.original0/1`, `weight_g`/`weight_v`, and a plain `weight`, which
    is kept. The norm runs over every axis but the first, as upstream's does (also for transposed convolutions).

    Raises:
        ConversionError: A magnitude without its direction, the reverse, or one that does not fit it.
    """
    fused: dict[str, torch.Tensor] = {}
    for name, tensor in state_dict.items():
        for magnitude, direction in WEIGHT_NORM_SPELLINGS:
            prefix, found, rest = name.rpartition(magnitude)
            if found and not rest:
                fused[f"{prefix}.weight"] = _plain_weight(prefix, tensor, state_dict.get(prefix + direction))
                break
            prefix, found, rest = name.rpartition(direction)
            if found and not rest:
                if prefix + magnitude not in state_dict:
                    raise ConversionError(f"{name} has no {magnitude.lstrip('.')} beside it")
                break
        else:
            fused[name] = tensor
    return fused


WEIGHT_NORM_SPELLINGS = (
    (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
    (".weight_g", ".weight_v"),
)


def _plain_weight(prefix: str, magnitude: torch.Tensor, direction: torch.Tensor | None) -> torch.Tensor:
    if direction is None:
        raise ConversionError(f"{prefix} has the magnitude of a weight-normalised layer, but not the direction")
    if magnitude.numel() != direction.shape[0]:
        raise ConversionError(
            f"{prefix}: a magnitude of shape {tuple(magnitude.shape)} does not fit {tuple(direction.shape)}"
        )
    # `_weight_norm` is the kernel that the parametrization itself uses, so nothing differs by rounding.
    return torch._weight_norm(direction, magnitude.reshape(-1, *[1] * (direction.dim() - 1)), 0)


def account_for(
    converted: Mapping[str, Iterable[int]], expected: Mapping[str, Iterable[int]], optional: Iterable[str] = ()
) -> None:
    """Checks that conversion fills every parameter, with the right shape, and leaves nothing over.

    Args:
        converted (`Mapping[str, Iterable[int]]`): Name and shape of what the conversion produced.
        expected (`Mapping[str, Iterable[int]]`): Name and shape of what the model holds.
        optional (`Iterable[str]`): Names of `expected` that may be absent, such as tied weights.

    Raises:
        ConversionError: Lists what is missing, left over or misshapen.
    """
    shapes = {name: tuple(shape) for name, shape in converted.items()}
    wanted = {name: tuple(shape) for name, shape in expected.items()}
    missing = sorted(wanted.keys() - shapes.keys() - set(optional))
    extra = sorted(shapes.keys() - wanted.keys())
    misshapen = [
        f"{name}: {shapes[name]}, the configuration makes it {wanted[name]}"
        for name in sorted(shapes.keys() & wanted.keys())
        if shapes[name] != wanted[name]
    ]
    problems = [
        f"{len(names)} {what} ({_first(names)})"
        for what, names in (("missing", missing), ("not known", extra), ("misshapen", misshapen))
        if names
    ]
    if problems:
        raise ConversionError("the checkpoint does not fit the model, tensors are: " + "; ".join(problems))


def _first(names: list[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", …" if len(names) > count else "")


def state_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name and shape of everything that the model saves."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@contextlib.contextmanager
def written_whole(output: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yields a temporary folder beside `output` that takes its place when the block ends without an error.

    Args:
        output (`Path`): The folder to write.
        overwrite (`bool`): Replace a folder that exists and holds something.

    Raises:
        ConversionError: `output` exists and holds something, or is a file.
    """
    if output.exists() and not output.is_dir():
        raise ConversionError(f"{output} is a file, an output folder is needed")
    if output.is_dir() and any(output.iterdir()) and not overwrite:
        raise ConversionError(f"{output} is not empty; choose another folder or pass --overwrite")
    output.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        yield staging
        staging.chmod(0o755)  # mkdtemp makes it private
        retired = staging.with_name(f"{staging.name}.old")
        if output.is_dir():
            output.rename(retired)
        staging.rename(output)
        shutil.rmtree(retired, ignore_errors=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


class ShardedWriter:
    """Writes tensors as they come into safetensors shards, holding no more than one shard in memory.

    Args:
        folder (`Path`): Where the shards go.
        max_shard_size (`int`): Bytes after which a shard is closed.
    """

    def __init__(self, folder: Path, max_shard_size: int):
        if max_shard_size <= 0:
            raise ValueError(f"max_shard_size should be a positive number of bytes, got {max_shard_size}")
        self.folder = folder
        self.max_shard_size = max_shard_size
        self._pending: dict[str, torch.Tensor] = {}
        self._pending_size = 0
        self._shards: list[list[str]] = []
        self._total_size = 0

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Takes one tensor; a full shard is written first."""
        size = tensor.numel() * tensor.element_size()
        if self._pending and self._pending_size + size > self.max_shard_size:
            self._write_shard()
        # A clone frees a slice from the storage of the tensor it was cut from.
        self._pending[name] = tensor.contiguous() if tensor.is_contiguous() else tensor.clone()
        self._pending_size += size
        self._total_size += size

    def _write_shard(self) -> None:
        self._shards.append(list(self._pending))
        save_file(self._pending, self._part(len(self._shards)), metadata={"format": "pt"})
        self._pending, self._pending_size = {}, 0

    def _part(self, number: int) -> Path:
        return self.folder / f"model-{number:05d}.part"

    def close(self) -> None:
        """Writes the rest and gives the files their final names, with an index where there are several."""
        if self._pending:
            self._write_shard()
        if len(self._shards) == 1:
            self._part(1).rename(self.folder / SAFETENSORS_NAME)
            return
        weight_map = {}
        for number, names in enumerate(self._shards, start=1):
            file_name = f"model-{number:05d}-of-{len(self._shards):05d}.safetensors"
            self._part(number).rename(self.folder / file_name)
            weight_map.update(dict.fromkeys(names, file_name))
        index = {"metadata": {"total_size": self._total_size}, "weight_map": dict(sorted(weight_map.items()))}
        (self.folder / SAFETENSORS_INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
