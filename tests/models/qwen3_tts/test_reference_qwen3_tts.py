"""The runners of Qwen3-TTS and its codec: they compare what a case holds, and need nothing else."""

import json
import re
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.common.reference import ReferenceCase, run_case


FIXTURES = Path(__file__).parents[2] / "fixtures"


def case_without(name: str, pattern: str, folder: Path, spoil: bool = False) -> ReferenceCase:
    """A copy of a fixture in `folder`, without the tensors that match; `spoil` changes an entry of each output."""
    source = FIXTURES / name
    tensors = load_file(source / "tensors.safetensors")
    kept = {key: value.clone() for key, value in tensors.items() if not re.search(pattern, key)}
    assert len(kept) < len(tensors)
    for key, value in kept.items():
        if spoil and key.startswith("outputs."):
            value.view(-1)[0] += 1
    spec = json.loads((source / "case.json").read_text(encoding="utf-8"))
    (folder / "case.json").write_text(json.dumps({"note": ""} | spec), encoding="utf-8")
    save_file(kept, folder / "tensors.safetensors")
    return ReferenceCase(folder)


CASES = [
    ("qwen3_tts/talker_gen_batch2_mixed", "mask|logits|hidden|step_position"),
    ("qwen3_tts/talker_gen_batch2_mixed", "trailing|pad_embed|tokens|prefill_position"),
    ("qwen3_tts/talker_gen_icl_nonstream", "prefill_embeds"),
    ("qwen3_tts/code_predictor_projected", "teacher|loss"),
    ("qwen3_tts/code_predictor_projected", "step_logits|frame_embedding"),
    ("qwen3_tts/speaker_encoder_tiny", "outputs.mel"),
    ("qwen3_tts/speaker_encoder_tiny", "outputs.embedding"),
    ("qwen3_tts/sft_loss", "aligned|labels"),
    ("qwen3_tts/sft_loss", "total|logits"),
    ("qwen3_tts_tokenizer/tokenizer_decode_tiny", "outputs.(audio|quantized|upsampled)"),
    ("qwen3_tts_tokenizer/tokenizer_decode_tiny", "outputs.(quantized|pre|upsampled)"),
    ("qwen3_tts_tokenizer/tokenizer_encode_tiny_window", "codes.0|latents|padding_mask"),
    ("qwen3_tts_tokenizer/tokenizer_encode_tiny_window", "all_codes|seanet|transformer"),
]


@pytest.mark.parametrize(("name", "pattern"), CASES)
def test_case_that_leaves_tensors_out(name: str, pattern: str, tmp_path: Path) -> None:
    checks = list(run_case(case_without(name, pattern, tmp_path)))
    assert checks and not [check for check in checks if not check.passed]


@pytest.mark.parametrize(("name", "pattern"), CASES)
def test_every_output_that_is_left_is_compared(name: str, pattern: str, tmp_path: Path) -> None:
    case = case_without(name, pattern, tmp_path, spoil=True)
    failed = {check.quantity for check in run_case(case) if not check.passed}
    spoilt = {key.removeprefix("outputs.") for key in case.tensors if key.startswith("outputs.")}
    assert spoilt <= failed


def test_stored_channels_are_found_by_the_stated_step(tmp_path: Path) -> None:
    source = FIXTURES / "qwen3_tts_tokenizer" / "tokenizer_encode_tiny_window"
    spec, tensors = json.loads((source / "case.json").read_text()), load_file(source / "tensors.safetensors")
    # Every 6th of 16 channels: 3 are left, as of every 7th.
    tensors["outputs.latents"] = tensors["outputs.latents"][:, ::6].contiguous()
    spec["outputs_meaning"] = {"outputs.latents": "every 6. channel"}
    (tmp_path / "case.json").write_text(json.dumps(spec))
    save_file(tensors, tmp_path / "tensors.safetensors")
    assert all(check.passed for check in run_case(ReferenceCase(tmp_path)))
