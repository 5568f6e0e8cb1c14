"""Runs the S3 tokenizer's reference cases: upstream's names in, features, states and tokens out."""

import re
from collections.abc import Iterator

import s3gen_parts as conversion
import torch

from tests.common.reference import EXACT, Check, ReferenceCase, compare, reference_runner
from tts_models import S3TokenizerModel
from tts_models.audio.mel import mel_filters, whisper_log_mel


def build_model(case: ReferenceCase) -> S3TokenizerModel:
    """The tokenizer of a case: filled in upstream's names, then converted as a released checkpoint is."""
    upstream = case.state_dict()
    config = conversion.tokenizer_config(upstream)
    config.num_attention_heads = case.spec.get("config", {}).get("n_audio_head", config.num_attention_heads)
    model = S3TokenizerModel(config)
    model.load_state_dict(conversion.convert_tokenizer(upstream))
    return model.eval().to(case.device)


def check_codes(
    case: ReferenceCase, name: str, actual: torch.Tensor, lengths: torch.Tensor, tolerance: str = "codes"
) -> Check:
    """Compares tokens inside each row's length; a tolerance may allow a share of them to differ."""
    expected = case.output(name)
    inside = torch.arange(expected.shape[1]) < lengths[:, None]
    actual = actual.cpu()[:, : expected.shape[1]]
    stated = str(case.spec.get("tolerance", {}).get(name, case.spec["tolerance"].get(tolerance)))
    share = re.search(r"allow ([\d.]+) ?%", stated)
    if actual.shape != expected.shape or share is None:
        return compare(name, actual * inside if actual.shape == expected.shape else actual, expected * inside)
    unequal = (actual != expected)[inside].double().mean()
    return compare(f"{name}: share of other tokens", unequal, torch.zeros(()), float(share[1]) / 100)


@reference_runner("s3gen", kinds=("s3_log_mel*",), needs=("inputs.wav", "outputs.log_mel"))
def run_log_mel(case: ReferenceCase) -> Iterator[Check]:
    """Frames of whole recordings, one of them also with zeros behind it."""
    for name in sorted(case.tensors):
        match = re.fullmatch(r"outputs\.(log_mel(.*?)(?:_padded_(\d+))?)", name)
        if match is None:
            continue
        is_short = match[3] and case.holds("inputs.wav_short")
        samples = case.input("wav_short" if is_short else f"wav{match[2]}")
        samples = torch.nn.functional.pad(samples, (0, int(match[3] or 0)))
        yield case.check(match[1], whisper_log_mel(samples), "log_mel")
    if "extra.mel_filters" in case.tensors:
        yield compare(
            "mel filters", mel_filters(400, 128, 0.0, 8000.0, 16000), case.tensors["extra.mel_filters"], 1e-6
        )


@reference_runner("s3gen", kinds=("s3_tokenizer_*",), needs=("inputs.mel", "inputs.mel_len", "outputs.codes"))
def run_encoder(case: ReferenceCase) -> Iterator[Check]:
    """Frames of different lengths to states and tokens."""
    model = build_model(case)
    output = model(case.input("mel"), case.input("mel_len"))
    lengths = output.speech_token_lengths.cpu()
    yield compare("code_len", lengths, case.output("code_len"))
    yield check_codes(case, "codes", output.speech_tokens, lengths)
    if case.holds("outputs.hidden"):
        # Upstream's encoder knows no windows, so that its states of long recordings are not those of the tokens.
        mel_lengths = case.input("mel_len")
        states, _ = model.encoder(case.input("mel")[..., : int(mel_lengths.max())], mel_lengths)
        hidden, inside = case.output("hidden"), torch.arange(states.shape[1]) < lengths[:, None]
        actual = states.cpu() * inside[..., None]
        yield compare("hidden", actual, hidden[:, : actual.shape[1]] * inside[..., None], case.tolerance("hidden"))


@reference_runner("s3gen", kinds=("s3_tokenizer_forward_*",), needs=("inputs.wav0", "outputs.codes"))
def run_waveforms(case: ReferenceCase) -> Iterator[Check]:
    """Recordings of different lengths to tokens, also cut to a number of tokens."""
    model = build_model(case)
    waveforms = [
        case.input(f"wav{index}").flatten() for index in range(sum(n.startswith("inputs.wav") for n in case.tensors))
    ]
    for name in sorted(n.removeprefix("outputs.codes") for n in case.tensors if n.startswith("outputs.codes")):
        limit = re.search(r"\d+", name)
        tokens, lengths = model.tokenize(waveforms, max_len=int(limit[0]) if limit else None)
        yield compare(f"lengths{name}", lengths, case.output(f"lengths{name}"))
        yield check_codes(case, f"codes{name}", tokens, lengths.cpu())


@reference_runner("s3gen", kinds=("s3_tokenizer_long_*",), needs=("inputs.base", "inputs.time_drift", "outputs.codes"))
def run_windows(case: ReferenceCase) -> Iterator[Check]:
    """A row above 30 s and a short one beside it; and how windows are joined."""
    model, base, steps = build_model(case), case.input("base"), int(case.input("T"))
    tiled = base.repeat(1, -(-steps // base.shape[1]))[:, :steps]
    lengths = case.input("mel_len")
    mel = base.new_zeros(2, base.shape[0], steps)
    mel[0] = tiled + case.input("time_drift")[None] + case.input("bin_drift")[:, None]
    short = int(lengths[1])
    start = re.search(r"tiled\[:, ?(\d+):", case.spec.get("build", ""))
    first = int(start[1]) if start else 100
    mel[1, :, :short] = tiled[:, first : first + short]
    output = model(mel, lengths)
    yield compare("code_len", output.speech_token_lengths, case.output("code_len"))
    yield check_codes(case, "codes", output.speech_tokens, case.output("code_len"))
    if case.holds("outputs.merge_demo"):
        spans = re.findall(r"(\d+)-(\d+)", case.spec["merge_demo"]["segments"])
        windows = [torch.arange(int(first), int(last) + 1) for first, last in spans]
        demo = case.spec["merge_demo"]
        half = demo.get("overlap_s", 4) // 2 * demo.get("token_rate", 25)
        model.config.window_overlap_frames = 2 * half * model.config.frames_per_token
        yield compare("merge_demo", model._join(windows), case.output("merge_demo"), EXACT)
