"""The tools behind the conversion scripts."""

import json
import pickle
from pathlib import Path

import checkpoint_tools as tools
import pytest
import torch
from safetensors.torch import load_file, save_file


def _write_shards(folder: Path) -> dict[str, torch.Tensor]:
    tensors = {"a": torch.arange(4.0), "b": torch.ones(2, 3), "c": torch.zeros(1, dtype=torch.bfloat16)}
    save_file({"a": tensors["a"]}, folder / "one.safetensors")
    save_file({"b": tensors["b"], "c": tensors["c"]}, folder / "two.safetensors")
    weight_map = {"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors"}
    (folder / tools.SAFETENSORS_INDEX_NAME).write_text(json.dumps({"weight_map": weight_map}))
    return tensors


def test_shards_read_like_one_file(tmp_path: Path) -> None:
    tensors = _write_shards(tmp_path)
    checkpoint = tools.SafetensorsCheckpoint(tmp_path)
    assert checkpoint.shapes() == {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in checkpoint.items())
    assert torch.equal(checkpoint.load("b"), tensors["b"])


def test_index_and_shards_must_agree(tmp_path: Path) -> None:
    tensors = _write_shards(tmp_path)
    save_file({"b": tensors["b"]}, tmp_path / "two.safetensors")
    with pytest.raises(tools.ConversionError, match="disagree about c"):
        tools.SafetensorsCheckpoint(tmp_path)
    (tmp_path / "two.safetensors").unlink()
    with pytest.raises(tools.ConversionError, match="'two.safetensors' is missing"):
        tools.SafetensorsCheckpoint(tmp_path)


def test_shard_outside_the_folder_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "secret.safetensors")
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    index = {"weight_map": {"a": "../secret.safetensors"}}
    (folder / tools.SAFETENSORS_INDEX_NAME).write_text(json.dumps(index))
    with pytest.raises(tools.ConversionError, match="missing"):
        tools.SafetensorsCheckpoint(folder)


def test_no_weights_and_broken_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(tools.ConversionError, match="has neither"):
        tools.read_state_dict(tmp_path)
    (tmp_path / tools.SAFETENSORS_NAME).write_bytes(b"no safetensors at all")
    with pytest.raises(tools.ConversionError, match="not a readable safetensors file"):
        tools.read_state_dict(tmp_path)


class _Malicious:
    def __reduce__(self) -> tuple:
        return (print, ("executed",))


def test_pickle_that_runs_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / tools.PICKLE_NAME).write_bytes(pickle.dumps({"weight": _Malicious()}))
    with pytest.raises(tools.ConversionError, match="cannot be read as plain weights"):
        tools.read_state_dict(tmp_path)
    torch.save({"nested": {"weight": torch.zeros(1)}}, tmp_path / tools.PICKLE_NAME)
    with pytest.raises(tools.ConversionError, match="flat dictionary of tensors"):
        tools.read_state_dict(tmp_path)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("layer", [torch.nn.Conv1d(4, 6, 3), torch.nn.ConvTranspose1d(4, 6, 3)])
def test_three_spellings_of_weight_norm_mean_the_same(layer: torch.nn.Module) -> None:
    plain = {f"part.{name}": tensor.detach() for name, tensor in layer.state_dict().items()}
    layer = torch.nn.utils.parametrizations.weight_norm(layer)
    with torch.no_grad():
        layer.parametrizations.weight.original0.mul_(1.5)
    new = {f"part.{name}": tensor.detach() for name, tensor in layer.state_dict().items()}
    old = {
        "part.bias": new["part.bias"],
        "part.weight_g": new["part.parametrizations.weight.original0"],
        "part.weight_v": new["part.parametrizations.weight.original1"],
    }
    assert tools.fuse_weight_norm(plain) == plain
    for spelling in (new, old):
        fused = tools.fuse_weight_norm(spelling)
        assert fused.keys() == plain.keys()
        assert torch.equal(fused["part.weight"], layer.weight)


def test_half_a_weight_norm_is_refused() -> None:
    for name in ("part.weight_g", "part.weight_v", "part.parametrizations.weight.original0"):
        with pytest.raises(tools.ConversionError, match="part"):
            tools.fuse_weight_norm({name: torch.ones(2, 1, 1)})


def test_every_difference_from_the_model_is_named() -> None:
    tools.account_for({"a": (1,)}, {"a": (1,), "tied": (2,)}, optional=["tied"])
    with pytest.raises(tools.ConversionError) as error:
        tools.account_for({"a": (1, 2), "x": (3,)}, {"a": (1,), "b": (2,)})
    assert "1 missing (b)" in str(error.value)
    assert "1 not known (x)" in str(error.value)
    assert "a: (1, 2), the configuration makes it (1,)" in str(error.value)


def test_output_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    output = tmp_path / "converted"
    with pytest.raises(RuntimeError), tools.written_whole(output) as staging:
        (staging / "half").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with tools.written_whole(output) as staging:
        (staging / "config.json").write_text("{}")
        assert not output.exists()
    assert [file.name for file in output.iterdir()] == ["config.json"]


def test_output_is_overwritten_only_when_asked(tmp_path: Path) -> None:
    output = tmp_path / "converted"
    output.mkdir()
    (output / "precious").write_text("precious")
    with pytest.raises(tools.ConversionError, match="not empty"), tools.written_whole(output):
        pytest.fail("the block must not run")
    with tools.written_whole(output, overwrite=True) as staging:
        (staging / "new").write_text("new")
    assert [file.name for file in output.iterdir()] == ["new"]
    assert [file.name for file in tmp_path.iterdir()] == ["converted"]


@pytest.mark.parametrize(("max_shard_size", "num_files"), [(10**6, 1), (40, 3)])
def test_written_shards_hold_everything(tmp_path: Path, max_shard_size: int, num_files: int) -> None:
    tensors = {f"t{i}": torch.full((8,), float(i)) for i in range(3)}
    writer = tools.ShardedWriter(tmp_path, max_shard_size)
    for name, tensor in tensors.items():
        writer.add(name, tensor)
    writer.close()
    assert len(list(tmp_path.glob("*.safetensors"))) == num_files
    assert not list(tmp_path.glob("*.part"))
    read = dict(tools.SafetensorsCheckpoint(tmp_path).items())
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


def test_writer_keeps_only_a_slice_of_a_shared_storage(tmp_path: Path) -> None:
    big = torch.arange(12.0).reshape(3, 4)
    writer = tools.ShardedWriter(tmp_path, 10**6)
    writer.add("column", big[:, 1])
    writer.close()
    assert torch.equal(load_file(tmp_path / tools.SAFETENSORS_NAME)["column"], big[:, 1])
