"""Released MegaTTS3 folders become one folder each; anything that does not fit becomes an error."""

import shutil
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import convert_megatts3_to_hf as conversion
import megatts3_parts as parts
import pytest
import torch
import yaml
from checkpoint_tools import ConversionError, SafetensorsCheckpoint
from transformers import (
    AutoModelForCausalLM,
    AutoModelForTextToWaveform,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from tests.common.reference import ReferenceCase
from tests.models.megatts3.tester import TINY, load_tokenizer, prepared_voice


FIXTURES = Path(__file__).parents[1] / "fixtures" / "megatts3"
# Part -> the reference case whose tiny network stands for the released one.
CASES = {"aligner": "aligner_tiny", "duration": "duration_tiny", "transformer": "dit_tiny", "vae": "wavvae_tiny"}
SETTINGS = {
    "duration": {"use_pos_embed": False, "dur_model_type": "ar_mse", "ling_labels": ["tone"], "max_tokens": 500},
    "transformer": {"frames_multiple": 8, "win_size": 1200},
    "vae": {"vae_stride": 4, "hop_size": 240, "audio_sample_rate": 24000, "melgan_config": {"use_tanh": True}},
}
Weights = dict[str, torch.Tensor]
WriteReleased = Callable[..., Path]


@cache
def filled_weights() -> dict[str, Weights]:
    """Part -> weights in upstream's names."""
    weights = {part: ReferenceCase(FIXTURES / case).state_dict() for part, case in CASES.items()}
    width = weights["aligner"]["encoder.conv1.bias"].shape[0]
    positions = parts.sinusoid_positions(torch.arange(200), width)
    return weights | {"aligner": weights["aligner"] | {"encoder.positional_embedding": positions}}


def released_weights() -> dict[str, Weights]:
    """The same, to be changed."""
    return {part: dict(weights) for part, weights in filled_weights().items()}


@pytest.fixture(scope="module")
def write_released(tmp_path_factory: pytest.TempPathFactory) -> WriteReleased:
    """[`write_folder`], with a grapheme-to-phoneme model that is made once."""
    folder = tmp_path_factory.mktemp("g2p")
    torch.manual_seed(0)
    Qwen2ForCausalLM(Qwen2Config(**TINY["g2p_config"])).bfloat16().save_pretrained(folder)
    load_tokenizer().save_pretrained(folder)
    return partial(write_folder, folder)


def write_folder(g2p: Path, folder: Path, has_encoder: bool = False, change: Callable[..., Any] | None = None) -> Path:
    """A tiny folder in the released layout; `change` may spoil its weights and settings."""
    weights, settings = released_weights(), {part: dict(content) for part, content in SETTINGS.items()}
    if not has_encoder:
        weights["vae"] = {name: t for name, t in weights["vae"].items() if not name.startswith("encoder.")}
    if change is not None:
        change(weights, settings)
    for part, (name, network) in conversion.FOLDERS.items():
        (folder / name).mkdir(parents=True)
        file = "decoder.ckpt" if part == "vae" and not has_encoder else "model_only_last.ckpt"
        state = {f"module.{network}": {f"_orig_mod.{key}": tensor for key, tensor in weights[part].items()}}
        torch.save({"state_dict": state, "global_step": 7}, folder / name / file)
        if part in settings:
            (folder / name / "config.yaml").write_text(yaml.safe_dump(settings[part]))
    shutil.copytree(g2p, folder / "g2p")
    return folder


@pytest.mark.parametrize("has_encoder", [False, True], ids=["official", "community"])
def test_converted_folder_speaks(
    write_released: WriteReleased, has_encoder: bool, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    released = write_released(tmp_path / "released", has_encoder)
    assert conversion.main(["--input", str(released), "--output", str(tmp_path / "out")]) == 0
    assert ("WaveVAE has no encoder" in capsys.readouterr().err) != has_encoder
    model = AutoModelForTextToWaveform.from_pretrained(tmp_path / "out")
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert model.config.vae_config.has_encoder == has_encoder
    assert model.config.duration_config.max_position_embeddings == 500
    assert model.config.g2p_first_phone_id == load_tokenizer().convert_tokens_to_ids("<Reserved_TTS_0>")
    spoken = model.generate(
        **processor(text="Hello.", voice=prepared_voice()), seed=0, max_new_tokens=5, num_inference_steps=2
    )
    assert spoken.audio_lengths > 0 and spoken.audio.isfinite().all()


def test_every_weight_arrives_unchanged(write_released: WriteReleased, tmp_path: Path) -> None:
    released = write_released(tmp_path / "released", has_encoder=True)
    conversion.convert(released, tmp_path / "out", max_shard_size=200_000)
    written = dict(SafetensorsCheckpoint(tmp_path / "out").items())
    upstream = released_weights()
    for part, (convert, _) in parts.PARTS.items():
        for name, tensor in convert(upstream[part]).items():
            assert torch.equal(written.pop(f"{part}.{name}"), tensor)
    g2p = dict(SafetensorsCheckpoint(released / "g2p").items())
    assert {f"g2p.{name}" for name in g2p} == set(written)
    assert all(
        torch.equal(written[f"g2p.{name}"], tensor) and tensor.dtype == torch.bfloat16 for name, tensor in g2p.items()
    )


def test_another_vae_and_the_g2p_alone(write_released: WriteReleased, tmp_path: Path) -> None:
    released = write_released(tmp_path / "released")
    community = write_released(tmp_path / "community", has_encoder=True) / "wavvae"
    for path in (community, community / "model_only_last.ckpt"):
        arguments = ["--input", released, "--output", tmp_path / "out", "--wavvae", path, "--overwrite"]
        assert conversion.main([*map(str, arguments), "--g2p-output", str(tmp_path / "g2p")]) == 0
        model = AutoModelForTextToWaveform.from_pretrained(tmp_path / "out")
        assert model.vae.encode(torch.zeros(1, 1920)).latents.shape == (1, 2, 8)
    g2p = AutoModelForCausalLM.from_pretrained(tmp_path / "g2p", dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(tmp_path / "g2p")("<BOT>one<BOS>", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(g2p(ids).logits, model.g2p(ids).logits)


def test_what_upstream_ignores_is_named_and_left_out(
    write_released: WriteReleased, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def add(weights: dict[str, Weights], settings: Any) -> None:
        weights["transformer"]["alphas_cumprod"] = torch.zeros(3)
        weights["duration"] |= {"char_encoder.emb.weight": torch.zeros(2, 2), "char_empty_embed.weight": torch.ones(1)}

    released = write_released(tmp_path / "released", change=add)
    conversion.convert(released, tmp_path / "out")
    assert "transformer: alphas_cumprod" in capsys.readouterr().err


def drop(part: str, name: str) -> Callable[..., Any]:
    return lambda weights, settings: weights[part].pop(name)


def put(part: str, name: str, *shape: int) -> Callable[..., Any]:
    return lambda weights, settings: weights[part].update({name: torch.zeros(shape)})


def say(part: str, **entries: Any) -> Callable[..., Any]:
    return lambda weights, settings: settings[part].update(entries)


SPOILED = {
    "missing": (drop("aligner", "decoder.ln.bias"), "missing.*aligner.decoder.layer_norm.bias"),
    "missing in the transformer": (drop("transformer", "postnet.bias"), "missing.*transformer.latent_out.bias"),
    "missing in the VAE": (drop("vae", "decoder.model_up.12.bias"), "missing.*vae.decoder.conv_out.bias"),
    "half a weight": (drop("vae", "decoder.model_up.12.weight_g"), "weight_g"),
    "extra": (put("duration", "surprise", 1), "not known.*surprise"),
    "misshapen": (put("duration", "enc_proj.bias", 3), "misshapen.*text_projection.bias"),
    "no sizes": (drop("duration", "code_emb.weight"), "code_emb"),
    "other positions": (put("aligner", "encoder.positional_embedding", 200, 64), "positional_embedding"),
    "other stages": (drop("vae", "decoder.model_up.8.upsample.3.bias"), "missing.*upsamplers.3.conv.bias"),
    "latents of two widths": (put("transformer", "x_prenet.weight", 64, 9), "do not fit together.*latent_dim"),
    "positions by the settings": (say("duration", use_pos_embed=True), "use_pos_embed.*lack"),
    "positions by the weights": (put("duration", "embed_positions._float_tensor", 1), "use_pos_embed.*have"),
    "another head": (say("duration", dur_model_type="ar"), "dur_model_type"),
    "speakers": (say("duration", use_spk_embed=True), "use_spk_embed"),
    "another rate": (say("vae", hop_size=256), "960"),
    "another end": (say("vae", melgan_config={"use_tanh": False}), "use_tanh"),
}


@pytest.mark.parametrize(("change", "message"), SPOILED.values(), ids=SPOILED)
def test_what_does_not_fit_is_an_error(
    write_released: WriteReleased, change: Callable[..., Any], message: str, tmp_path: Path
) -> None:
    released = write_released(tmp_path / "released", change=change)
    with pytest.raises(ConversionError, match=message):
        conversion.convert(released, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["released"]


def test_positions_follow_weights_and_settings(write_released: WriteReleased, tmp_path: Path) -> None:
    def add(weights: dict[str, Weights], settings: dict[str, Any]) -> None:
        weights["duration"]["embed_positions._float_tensor"] = torch.zeros(1)
        settings["duration"]["use_pos_embed"] = True

    conversion.convert(write_released(tmp_path / "released", change=add), tmp_path / "out")
    model = AutoModelForTextToWaveform.from_pretrained(tmp_path / "out")
    assert model.config.duration_config.use_position_embedding


@pytest.mark.parametrize("has_tones", [True, False])
def test_a_duration_model_without_a_text_encoder_converts(
    write_released: WriteReleased, tmp_path: Path, has_tones: bool
) -> None:
    def flatten(weights: dict[str, Weights], settings: dict[str, Any]) -> None:
        table = weights["duration"]["encoder.emb.weight"]
        kept = {name: t for name, t in weights["duration"].items() if not name.startswith("encoder.")}
        weights["duration"] = kept | {"encoder.weight": table, "char_encoder.weight": torch.ones(5, table.shape[1])}
        settings["duration"]["lm_use_enc"] = False
        if not has_tones:
            del weights["duration"][parts.TONES]
            settings["duration"]["ling_labels"] = []

    conversion.convert(write_released(tmp_path / "released", change=flatten), tmp_path / "out")
    model = AutoModelForTextToWaveform.from_pretrained(tmp_path / "out")
    assert not model.config.duration_config.use_text_encoder
    table = filled_weights()["duration"]["encoder.emb.weight"]
    assert torch.equal(model.duration.text_encoder.phone_embedding.weight, table)
    assert bool(model.duration.text_encoder.tone_embedding.weight.any()) is has_tones


def test_absent_text_keeps_upstreams_ids_in_larger_tables() -> None:
    weights = released_weights()["transformer"]
    assert parts.transformer_config(weights).dropped_phone_id == 301
    for name, rows in (("ph_encoder.emb.weight", 350), ("tone_embed.weight", 20)):
        weights[name] = weights[name].new_zeros(rows, weights[name].shape[1])
    config = parts.transformer_config(weights)
    assert (config.dropped_phone_id, config.dropped_tone_id) == (301, 19)


class Trap:
    """What no conversion may run."""

    def __reduce__(self) -> tuple:
        return (print, ("the trap has run",))


def test_incomplete_folders_are_refused(
    write_released: WriteReleased, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    released = write_released(tmp_path / "released")
    words = PreTrainedTokenizerFast(tokenizer_object=load_tokenizer().backend_tokenizer)
    words.save_pretrained(tmp_path / "words")
    without_phones = (tmp_path / "words" / "tokenizer.json").read_text().replace("Reserved_TTS_801", "Spare")
    spoiled: tuple[tuple[str, Any, str], ...] = (
        ("aligner_lm/model_only_last.ckpt", None, "there is no file"),
        ("wavvae/decoder.ckpt", None, "neither model_only_last.ckpt nor decoder.ckpt"),
        ("duration_lm/model_only_last.ckpt", b"no pickle", "cannot be read|more than plain"),
        ("duration_lm/model_only_last.ckpt", {"state_dict": {"dur_model": Trap()}}, "more than plain weights"),
        ("duration_lm/model_only_last.ckpt", {"state_dict": {"dit": {}}}, "'dur_model'"),
        ("duration_lm/model_only_last.ckpt", {"dur_model": {}}, "'dur_model'"),
        ("duration_lm/model_only_last.ckpt", {"state_dict": {"dur_model": {"step": 3}}}, "step is no tensor"),
        ("duration_lm/config.yaml", b"[", "not valid YAML"),
        ("duration_lm/config.yaml", b"- one", "mapping"),
        ("g2p/model.safetensors", None, "model.safetensors"),
        ("g2p/config.json", b"[]", "config.json"),
        ("g2p/tokenizer.json", without_phones.encode(), "<Reserved_TTS_801>"),
    )
    for name, content, message in spoiled:
        file = released / name
        kept = file.read_bytes()
        file.unlink()
        if isinstance(content, dict):
            torch.save(content, file)
        elif content is not None:
            file.write_bytes(content)
        with pytest.raises(ConversionError, match=message):
            conversion.convert(released, tmp_path / "out")
        file.write_bytes(kept)
    assert "trap" not in capsys.readouterr().out
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("")
    assert conversion.main(["--input", str(released), "--output", str(tmp_path / "out")]) == 1
    assert (tmp_path / "out" / "precious").exists()
