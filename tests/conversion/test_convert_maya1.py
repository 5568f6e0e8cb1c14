"""A Llama folder and a SNAC folder become one Maya1 folder; anything that does not fit becomes an error."""

import json
import shutil
from pathlib import Path

import convert_maya1_to_hf as conversion
import pytest
import torch
from checkpoint_tools import ConversionError, SafetensorsCheckpoint
from safetensors.torch import load_file, save_file
from transformers import AutoModelForTextToWaveform, AutoProcessor, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.models.maya1.tester import TOKENIZER_FILE, Tester, load_tokenizer
from tts_models import Maya1ForConditionalGeneration, Maya1Processor, SnacModel


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `maya1` (sharded Llama in bfloat16, with tokenizer) and `snac` (a converted codec)."""
    folder = tmp_path_factory.mktemp("released")
    torch.manual_seed(0)
    config = Tester().config()
    language_model = LlamaForCausalLM(config.text_config).to(torch.bfloat16)
    language_model.save_pretrained(folder / "maya1", max_shard_size="20KB")
    assert len(list((folder / "maya1").glob("*.safetensors"))) > 1
    load_tokenizer().save_pretrained(folder / "maya1")
    SnacModel(config.codec_config).save_pretrained(folder / "snac")
    return folder


@pytest.fixture
def copy(released: Path, tmp_path: Path) -> Path:
    """A copy of the released folders that a test may spoil."""
    shutil.copytree(released, tmp_path / "released")
    return tmp_path / "released"


def convert(folder: Path, output: Path, **options: object) -> Path:
    """Joins the two folders."""
    conversion.convert(folder / "maya1", folder / "snac", output, **options)
    return output


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Every stored tensor."""
    return dict(SafetensorsCheckpoint(folder).items())


@pytest.mark.parametrize("max_shard_size", [conversion.DEFAULT_SHARD_SIZE, 20_000])
def test_joined_folder_holds_both_parts(released: Path, tmp_path: Path, max_shard_size: int) -> None:
    output = convert(released, tmp_path / "joined", max_shard_size=max_shard_size)
    weights = read_weights(output)
    for name, tensor in read_weights(released / "maya1").items():
        assert torch.equal(weights.pop(f"language_model.{name}"), tensor) and tensor.dtype == torch.bfloat16
    for name, tensor in read_weights(released / "snac").items():
        assert torch.equal(weights.pop(f"codec_model.{name}"), tensor) and tensor.dtype == torch.float32
    assert not weights


def test_joined_folder_speaks(released: Path, tmp_path: Path) -> None:
    output = convert(released, tmp_path / "joined")
    processor, model = AutoProcessor.from_pretrained(output), AutoModelForTextToWaveform.from_pretrained(output)
    assert type(processor) is Maya1Processor and type(model) is Maya1ForConditionalGeneration
    assert {p.dtype for p in model.language_model.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.codec_model.parameters()} == {torch.float32}
    # The tokenizer decides the ids, and they are those of the tester's configuration.
    assert model.config.to_dict()["audio_token_offset"] == 401
    assert model.config.start_of_speech_token_id == Tester().config().start_of_speech_token_id
    assert model.generation_config.eos_token_id == 393
    inputs = processor(text=["Hello."], voice=Tester.voice)
    assert model.generate(**inputs, seed=0, max_new_tokens=28).audio_lengths.item() == 4 * 96


def test_missing_defaults_become_the_released_ones(released: Path, tmp_path: Path) -> None:
    output = convert(released, tmp_path / "joined", prompt_template="{voice}: {text}", prepend_bos=False)
    processor = AutoProcessor.from_pretrained(output)
    assert processor.prompt_template == "{voice}: {text}" and processor.prepend_bos is False
    assert processor.default_voice == Maya1Processor(load_tokenizer(), processor.feature_extractor).default_voice


def test_single_file_with_a_head_that_repeats_the_embedding(copy: Path, tmp_path: Path) -> None:
    weights = read_weights(copy / "maya1")
    for file in (copy / "maya1").glob("*.safetensors*"):
        file.unlink()
    head = weights["model.embed_tokens.weight"].clone()
    save_file(weights | {"lm_head.weight": head}, copy / "maya1" / "model.safetensors")
    output = convert(copy, tmp_path / "joined")
    assert "language_model.lm_head.weight" not in read_weights(output)
    save_file(weights | {"lm_head.weight": head + 1}, copy / "maya1" / "model.safetensors")
    with pytest.raises(ConversionError, match="tie_word_embeddings"):
        convert(copy, tmp_path / "other")


def test_head_of_its_own_is_kept(copy: Path, tmp_path: Path) -> None:
    config_file = copy / "maya1" / "config.json"
    config_file.write_text(json.dumps(json.loads(config_file.read_text()) | {"tie_word_embeddings": False}))
    with pytest.raises(ConversionError, match="lm_head.weight"):
        convert(copy, tmp_path / "joined")
    weights = read_weights(copy / "maya1")
    for file in (copy / "maya1").glob("*.safetensors*"):
        file.unlink()
    head = torch.randn_like(weights["model.embed_tokens.weight"])
    save_file(weights | {"lm_head.weight": head}, copy / "maya1" / "model.safetensors")
    output = convert(copy, tmp_path / "joined")
    model = Maya1ForConditionalGeneration.from_pretrained(output)
    assert torch.equal(model.language_model.lm_head.weight, head)


def test_released_codec_is_converted_on_the_way(copy: Path, tmp_path: Path) -> None:
    """`--codec` may be a folder as published: the codec of a reference case, here."""
    from tests.common.reference import ReferenceCase

    case = ReferenceCase(Path(__file__).parents[1] / "fixtures" / "maya1" / "speech_tiny")
    shutil.rmtree(copy / "snac")
    (copy / "snac").mkdir()
    (copy / "snac" / "config.json").write_text(json.dumps(case.spec["snac_config"]))
    torch.save(case.state_dict(case.spec["snac_keys"]), copy / "snac" / "pytorch_model.bin")
    model = Maya1ForConditionalGeneration.from_pretrained(convert(copy, tmp_path / "joined"))
    assert model.config.codec_config.sampling_rate == 24000 and model.config.samples_per_frame == 2048


def spoil_tokenizer(folder: Path, old: str, new: str) -> None:
    """Replaces a token's string in the tokenizer."""
    text = TOKENIZER_FILE.read_text().replace(f'"{old}"', f'"{new}"')
    (folder / "spoilt.json").write_text(text)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "spoilt.json"))
    for file in folder.glob("tokenizer*"):
        file.unlink()
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<custom_token_50>", "<something_else>", "not contiguous: '<custom_token_50>' has id None, expected 441"),
        ("<custom_token_1>", "<something_else>", "lacks the control tokens.*start_of_speech"),
    ],
)
def test_tokenizer_without_the_needed_tokens_is_refused(
    copy: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    spoil_tokenizer(copy / "maya1", old, new)
    with pytest.raises(ConversionError, match=message):
        convert(copy, tmp_path / "joined")
    assert not (tmp_path / "joined").exists()


@pytest.mark.parametrize(("codebook_size", "message"), [(32, "not contiguous"), (15, "not the codec")])
def test_codec_of_another_size_is_refused(copy: Path, tmp_path: Path, codebook_size: int, message: str) -> None:
    shutil.rmtree(copy / "snac")
    codec_config = Tester().config().codec_config
    codec_config.codebook_size = codebook_size
    SnacModel(codec_config).save_pretrained(copy / "snac")
    with pytest.raises(ConversionError, match=message):
        convert(copy, tmp_path / "joined")


def test_vocabulary_smaller_than_the_tokenizer_is_refused(copy: Path, tmp_path: Path) -> None:
    config_file = copy / "maya1" / "config.json"
    config_file.write_text(json.dumps(json.loads(config_file.read_text()) | {"vocab_size": 500}))
    weights = read_weights(copy / "maya1")
    for file in (copy / "maya1").glob("*.safetensors*"):
        file.unlink()
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:500].clone()
    save_file(weights, copy / "maya1" / "model.safetensors")
    with pytest.raises(ConversionError, match="ids up to 534, the model only 500"):
        convert(copy, tmp_path / "joined")


def test_missing_and_unknown_tensors_are_refused(copy: Path, tmp_path: Path) -> None:
    index_file = copy / "maya1" / "model.safetensors.index.json"
    index = json.loads(index_file.read_text())
    name = "model.layers.1.mlp.up_proj.weight"
    shard = copy / "maya1" / index["weight_map"].pop(name)
    save_file({n: t for n, t in load_file(shard).items() if n != name} | {"odd": torch.zeros(1)}, shard)
    index["weight_map"]["odd"] = shard.name
    index_file.write_text(json.dumps(index))
    with pytest.raises(ConversionError, match=rf"1 missing \({name}\); 1 not known \(odd\)"):
        convert(copy, tmp_path / "joined")
    shard.unlink()
    with pytest.raises(ConversionError, match="is missing"):
        convert(copy, tmp_path / "joined")
    assert not (tmp_path / "joined").exists()


def test_another_model_is_refused(copy: Path, tmp_path: Path) -> None:
    config_file = copy / "maya1" / "config.json"
    config_file.write_text(json.dumps(json.loads(config_file.read_text()) | {"model_type": "qwen3"}))
    with pytest.raises(ConversionError, match="'qwen3'"):
        convert(copy, tmp_path / "joined")


def test_one_tensor_at_a_time_is_in_memory(released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No shard larger than asked for is ever assembled."""
    sizes = []

    def record(writer: object) -> None:
        sizes.append(sum(t.numel() * t.element_size() for t in writer._pending.values()))
        write_shard(writer)

    write_shard = conversion.ShardedWriter._write_shard
    monkeypatch.setattr(conversion.ShardedWriter, "_write_shard", record)
    convert(released, tmp_path / "joined", max_shard_size=40_000)
    assert len(sizes) > 3 and max(sizes) <= 40_000


def test_command_line(released: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["--input", str(released / "maya1"), "--codec", str(released / "snac")]
    arguments += ["--output", str(tmp_path / "joined")]
    assert conversion.main(arguments) == 0
    assert conversion.main(arguments) == 1
    assert "not empty" in capsys.readouterr().err
    assert conversion.main([*arguments, "--overwrite", "--single-bos"]) == 0
    assert AutoProcessor.from_pretrained(tmp_path / "joined").prepend_bos is False
