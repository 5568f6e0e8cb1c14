"""Files that appear whole or not at all."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import torch


@contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a temporary path to write to, which takes the place of `path` when the block ends without an error.

    Args:
        path: The file to write; what it held stays untouched after an error.

    Raises:
        OSError: the folder of `path` is missing or cannot be written to.
    """
    path = Path(path)
    # In the same folder, so that the rename is atomic.
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_tensors(
    path: str | os.PathLike, tensors: "Mapping[str, torch.Tensor]", metadata: dict[str, str] | None = None
) -> None:
    """Writes tensors of any device to one safetensors file, whole or not at all.

    Args:
        path: The file to write.
        tensors: Name to tensor; stored with their dtypes.
        metadata: Strings kept beside them.

    Raises:
        OSError: `path` cannot be written.
    """
    from safetensors.torch import save_file

    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with written_whole(path) as temporary:
        save_file(stored, temporary, metadata=metadata)


_HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


def find_in_folder(folder: str | os.PathLike, name: str, arguments: Mapping[str, Any]) -> str | None:
    """Path of the file `name` of a checkpoint, `None` where it has none.

    Args:
        folder: A folder, or an id on the Hub.
        name: The file's name.
        arguments: Keywords of a `from_pretrained`; those that concern the Hub are taken.
    """
    from transformers.utils import cached_file

    hub = {each: arguments[each] for each in _HUB_ARGUMENTS if arguments.get(each) is not None}
    return cached_file(str(folder), name, _raise_exceptions_for_missing_entries=False, **hub)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


__all__ = ["find_in_folder", "write_tensors", "written_whole"]
