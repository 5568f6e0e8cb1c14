"""Released Chatterbox folders of every variant become one folder each; anything that does not fit becomes an error."""

import json
from pathlib import Path
from typing import Any

import convert_chatterbox_to_hf as conversion
import pytest
import torch
from checkpoint_tools import ConversionError, SafetensorsCheckpoint
from safetensors.torch import load_file, save_file
from transformers import AutoModelForTextToWaveform, AutoProcessor

from tests.conversion.test_convert_s3gen import released_state
from tests.models.chatterbox.tester import load_tokenizer, prepared_voice


WIDTH, TEXT = 64, {"english": 96, "multilingual": 96, "turbo": 300, "nano": 300}


def filled(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def t3_shapes(variant: str) -> dict[str, tuple[int, ...]]:
    """Upstream's names, tiny."""
    is_gpt2, speech = variant in ("turbo", "nano"), 6563 if variant in ("turbo", "nano") else 6570
    shapes: dict[str, tuple[int, ...]] = {
        "text_emb.weight": (TEXT[variant], WIDTH),
        "speech_emb.weight": (speech, WIDTH),
        "text_head.weight": (TEXT[variant], WIDTH),
        "speech_head.weight": (speech, WIDTH),
        "cond_enc.spkr_enc.weight": (WIDTH, 8),
        "cond_enc.spkr_enc.bias": (WIDTH,),
    }
    if is_gpt2:
        shapes |= {
            "tfmr.wte.weight": (TEXT[variant], WIDTH),
            "tfmr.wpe.weight": (512, WIDTH),
            "speech_head.bias": (speech,),
        }
        block = {
            "ln_1.weight": (WIDTH,), "ln_1.bias": (WIDTH,), "ln_2.weight": (WIDTH,), "ln_2.bias": (WIDTH,),
            "attn.c_attn.weight": (WIDTH, 3 * WIDTH), "attn.c_attn.bias": (3 * WIDTH,),
            "attn.c_proj.weight": (WIDTH, WIDTH), "attn.c_proj.bias": (WIDTH,),
            "mlp.c_fc.weight": (WIDTH, 4 * WIDTH), "mlp.c_fc.bias": (4 * WIDTH,),
            "mlp.c_proj.weight": (4 * WIDTH, WIDTH), "mlp.c_proj.bias": (WIDTH,),
        }  # fmt: skip
        norm = {"tfmr.ln_f.weight": (WIDTH,), "tfmr.ln_f.bias": (WIDTH,)}
        return shapes | norm | {f"tfmr.h.{n}.{name}": shape for n in range(2) for name, shape in block.items()}
    block = {f"self_attn.{name}_proj.weight": (WIDTH, WIDTH) for name in "qkvo"}
    block |= {
        "mlp.gate_proj.weight": (48, WIDTH),
        "mlp.up_proj.weight": (48, WIDTH),
        "mlp.down_proj.weight": (WIDTH, 48),
    }
    block |= {"input_layernorm.weight": (WIDTH,), "post_attention_layernorm.weight": (WIDTH,)}
    shapes |= {f"tfmr.layers.{n}.{name}": shape for n in range(2) for name, shape in block.items()}
    attention = "cond_enc.perceiver.attn."
    for name in ("to_q", "to_k", "to_v", "proj_out"):
        shapes |= {f"{attention}{name}.weight": (WIDTH, WIDTH), f"{attention}{name}.bias": (WIDTH,)}
    return shapes | {
        "tfmr.embed_tokens.weight": (8, WIDTH),
        "tfmr.norm.weight": (WIDTH,),
        "text_pos_emb.emb.weight": (400, WIDTH),
        "speech_pos_emb.emb.weight": (120, WIDTH),
        "cond_enc.emotion_adv_fc.weight": (WIDTH, 1),
        "cond_enc.perceiver.pre_attention_query": (1, 3, WIDTH),
        f"{attention}norm.weight": (WIDTH,),
        f"{attention}norm.bias": (WIDTH,),
    }


def voice_encoder_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"similarity_weight": (1,), "similarity_bias": (1,)}
    for layer, width in enumerate((40, 12, 12)):
        shapes |= {f"lstm.weight_ih_l{layer}": (48, width), f"lstm.weight_hh_l{layer}": (48, 12)}
        shapes |= {f"lstm.bias_ih_l{layer}": (48,), f"lstm.bias_hh_l{layer}": (48,)}
    return shapes | {"proj.weight": (8, 12), "proj.bias": (8,)}


def write_released(folder: Path, variant: str, pickles: bool = False) -> Path:
    """A tiny folder in the released layout."""
    folder.mkdir(parents=True)
    (t3_name, *_), (s3gen_name, *_), tokenizer_name = conversion.FILES[variant]
    save_file(filled(t3_shapes(variant)), folder / t3_name)
    voice_encoder, s3gen = filled(voice_encoder_shapes(), 1), released_state(meanflow=variant in ("turbo", "nano"))
    if pickles:
        torch.save(voice_encoder, folder / "ve.pt")
        torch.save(s3gen, folder / "s3gen.pt")
    else:
        save_file(voice_encoder, folder / "ve.safetensors")
        save_file(s3gen, folder / s3gen_name)
    if tokenizer_name is None:
        load_tokenizer("turbo").save_pretrained(folder)
    else:
        load_tokenizer().backend_tokenizer.save(str(folder / tokenizer_name))
    (folder / "Cangjie5_TC.json").write_text(json.dumps(["日\ta"]))
    voice = prepared_voice()
    width, bins = (
        s3gen["flow.spk_embed_affine_layer.weight"].shape[1],
        s3gen["flow.spk_embed_affine_layer.bias"].shape[0],
    )
    voice.reference_embedding, voice.reference_features = torch.ones(width), torch.zeros(14, bins)
    t3 = {
        "speaker_emb": voice.speaker_embedding[None],
        "clap_emb": None,
        "cond_prompt_speech_tokens": voice.prompt_tokens[None],
        "cond_prompt_speech_emb": None,
        "emotion_adv": torch.full((1, 1, 1), 0.5),
    }
    torch.save({"t3": t3, "gen": voice.reference | {"prompt_feat_len": None}}, folder / "conds.pt")
    return folder


@pytest.mark.parametrize("variant", list(conversion.FILES))
def test_every_variant_speaks(variant: str, tmp_path: Path) -> None:
    released = write_released(tmp_path / "released", variant)
    assert conversion.main(["--input", str(released), "--output", str(tmp_path / "out")]) == 0
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    model = AutoModelForTextToWaveform.from_pretrained(tmp_path / "out")
    spoken = model.generate(**processor(text="Hello."), seed=0, max_new_tokens=3)
    assert spoken.audio_lengths > 0 and spoken.audio.isfinite().all()
    t3, is_turbo = model.config.t3_config, variant in ("turbo", "nano")
    assert (t3.start_text_token_id, t3.stop_text_token_id) == ((None, None) if is_turbo else (4, 0))
    assert (t3.start_speech_token_id, t3.num_start_tokens) == (6561, 1 if is_turbo else 2)
    assert model.generation_config.max_new_tokens == (1001 if is_turbo else 1000)
    assert (processor.cangjie_table is not None) == (variant == "multilingual")
    weights = dict(SafetensorsCheckpoint(tmp_path / "out").items())
    for name, ours in (("text_emb.weight", "text_embedding.weight"), ("speech_head.weight", "speech_head.weight")):
        assert torch.equal(weights[f"t3.{ours}"], filled(t3_shapes(variant))[name])


def test_pickles_and_older_multilingual_file(tmp_path: Path) -> None:
    released = write_released(tmp_path / "released", "multilingual", pickles=True)
    (released / "t3_mtl23ls_v3.safetensors").rename(released / "t3_mtl23ls_v2.safetensors")
    conversion.convert(released, tmp_path / "out", max_shard_size=50_000)
    model = AutoModelForTextToWaveform.from_pretrained(tmp_path / "out")
    assert model.generation_config.repetition_penalty == 2.0
    with pytest.raises(ConversionError, match="t3_cfg"):
        conversion.convert(released, tmp_path / "other", variant="english")


def spoil(released: Path, file: str, change: Any) -> None:
    weights = load_file(released / file)
    change(weights)
    save_file(weights, released / file)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("t3_cfg.safetensors", lambda w: w.pop("text_head.weight"), "text_head"),
        ("t3_cfg.safetensors", lambda w: w.update(surprise=torch.zeros(1)), "surprise"),
        ("t3_cfg.safetensors", lambda w: w.update({"tfmr.norm.weight": torch.zeros(3)}), "norm"),
        ("t3_cfg.safetensors", lambda w: w.pop("text_emb.weight"), "text_emb"),
        ("ve.safetensors", lambda w: w.pop("proj.bias"), "projection.bias"),
        ("s3gen.safetensors", lambda w: w.pop("flow.encoder_proj.bias"), "encoder_proj"),
    ],
    ids=["missing", "extra", "misshapen", "unreadable", "voice encoder", "S3Gen"],
)
def test_tensors_that_do_not_fit_are_errors(tmp_path: Path, file: str, change: Any, message: str) -> None:
    released = write_released(tmp_path / "released", "english")
    spoil(released, file, change)
    with pytest.raises(ConversionError, match=message):
        conversion.convert(released, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_incomplete_folders_are_refused(tmp_path: Path) -> None:
    released = write_released(tmp_path / "released", "english")
    for name, content, message in (
        ("conds.pt", "no pickle", "voice"),
        ("tokenizer.json", "{}", "tokenizer"),
        ("ve.safetensors", None, "ve.pt"),
        ("t3_cfg.safetensors", None, "--variant"),
    ):
        kept = (released / name).read_bytes()
        (released / name).unlink()
        if content is not None:
            (released / name).write_text(content)
        with pytest.raises(ConversionError, match=message):
            conversion.convert(released, tmp_path / "out")
        (released / name).write_bytes(kept)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("")
    assert conversion.main(["--input", str(released), "--output", str(tmp_path / "out")]) == 1
