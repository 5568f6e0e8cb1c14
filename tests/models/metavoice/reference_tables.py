"""Runs the tables of MetaVoice (text, tokenizer, token layouts, released tensors), and the cases of single rules."""

from collections.abc import Iterator, Mapping
from typing import Any

import metavoice_stages as conversion
import torch
from checkpoint_tools import ConversionError, account_for, state_shapes
from convert_deepfilternet_to_hf import convert_state_dict as convert_enhancer
from metavoice_parts import convert_speaker_encoder
from transformers import PreTrainedConfig, PreTrainedModel

from tests.common.reference import Check, ReferenceCase, compare, compare_rows, reference_runner
from tests.models.metavoice.reference import guidance_of, stripped
from tests.models.metavoice.tiny import tokenizer_from_table
from tts_models import DeepFilterNetConfig, DeepFilterNetModel, MetaVoiceSpeakerEncoder
from tts_models.models.metavoice.configuration_metavoice import (
    MetaVoiceFirstStageConfig,
    MetaVoiceSecondStageConfig,
)
from tts_models.models.metavoice.decoding_metavoice_first_stage import first_stage_processors
from tts_models.models.metavoice.modeling_metavoice_first_stage import MetaVoiceFirstStageForCausalLM
from tts_models.models.metavoice.modeling_metavoice_second_stage import MetaVoiceSecondStageModel
from tts_models.models.metavoice.text_metavoice import normalize_text
from tts_models.models.metavoice.tokens_metavoice import first_stage_ids, second_stage_ids, split_first_stage


TRADE_MARK = "\u2122"


# Text


@reference_runner("metavoice", kinds=("text_normalize*",), needs=("rows",), table=True)
def run_normalization(case: ReferenceCase) -> Iterator[Check]:
    """Texts as they are tokenized, and those that are refused; the trade-mark sign is ours to read."""
    expected = {row["in"]: row.get("out", row.get("error")) for row in case.spec["rows"]}
    yield compare_rows("texts", {text: normalized(text) for text in expected}, expected)


def normalized(text: str) -> str:
    """The text, or the name of the error; where the trade-mark sign stands, what upstream makes of it."""
    try:
        result = normalize_text(text)
    except ValueError as error:
        return type(error).__name__
    return ValueError.__name__ if TRADE_MARK in text else result


@reference_runner("metavoice", kinds=("bpe*",), needs=("meta", "rows"), table=True)
def run_tokenizer(case: ReferenceCase) -> Iterator[Check]:
    """Ids of texts; where upstream refuses the written special token, it must not become that token."""
    tokenizer = tokenizer_from_table(case.path)
    expected, actual = {}, {}
    for number, row in enumerate(case.spec["rows"]):
        ids = tokenizer(row["in"]).input_ids
        if "ids" in row:
            expected[number], actual[number] = row["ids"], [token + row["offset"] for token in ids]
        else:
            expected[number], actual[number] = 1, ids.count(tokenizer.eos_token_id)
    yield compare_rows("ids", actual, expected)


# Layouts


@reference_runner("metavoice", kinds=("token_layouts*",), needs=("flattened_interleaved|tilted|combine",), table=True)
def run_layouts(case: ReferenceCase) -> Iterator[Check]:
    """First-stage ids to codes, second-stage rows to codes, text and codes to training rows."""
    config, second = MetaVoiceFirstStageConfig(), MetaVoiceSecondStageConfig()
    sections = {
        "flattened_interleaved": lambda row: (split_ids(config, row["in"]), [row["text_ids"], row["codes"]]),
        "tilted": lambda row: (split_rows(second, row["in"]), [row["text_ids"], row["codes"]]),
        "combine": lambda row: combined(config, row),
    }
    for name, pair in sections.items():
        if name in case.spec:
            rows = case.spec[name] if name == "combine" else case.spec[name]["rows"]
            pairs = {number: pair(row) for number, row in enumerate(rows)}
            actual = {number: ours for number, (ours, _) in pairs.items()}
            yield compare_rows(name, actual, {number: theirs for number, (_, theirs) in pairs.items()})


def split_ids(config: MetaVoiceFirstStageConfig, ids: list[int]) -> list[Any]:
    """Text ids as the stage has them, and codes, of first-stage ids."""
    text, codes = split_first_stage(config, ids)
    if config.end_of_text_token_id not in ids:
        text = text[:-1]  # Upstream takes the last for the end.
    return [[token + config.text_token_offset for token in text], codes.tolist()]


def split_rows(config: MetaVoiceSecondStageConfig, given: list[list[int]]) -> list[Any]:
    """The same of the second stage's rows."""
    rows = torch.tensor(given)
    return [rows[0][rows[0] > config.num_codes][:-1].tolist(), stripped(rows, config.num_codes).tolist()]


def combined(config: MetaVoiceFirstStageConfig, row: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """Text and codes in one row, unpadded and padded or cut; and what they should be."""
    # The texts of this table come without their end, which is put between text and codes here and taken out again.
    codes = torch.tensor(row["audio"])[: config.num_codebooks]
    ids = first_stage_ids(config, [token - config.text_token_offset for token in row["text"]], codes)
    ids = torch.cat([ids[: len(row["text"])], ids[len(row["text"]) + 1 :]])
    actual, expected = [[ids.tolist()]], [row["out"]]
    for name in (name for name in row if name.startswith("padded_to_")):
        length = int(name.removeprefix("padded_to_"))
        padded = torch.nn.functional.pad(ids, (0, max(length - len(ids), 0)), value=config.end_of_audio_token_id)
        actual.append([padded[:length].tolist()])
        expected.append(row[name])
    return actual, expected


@reference_runner("metavoice", kinds=("second_stage_input*",), needs=("rows",), table=True)
def run_second_stage_input(case: ReferenceCase) -> Iterator[Check]:
    """What the second stage reads, padded or cut to its length."""
    expected = {number: row["out"] for number, row in enumerate(case.spec["rows"])}
    actual = {}
    for number, row in enumerate(case.spec["rows"]):
        config = MetaVoiceSecondStageConfig(max_position_embeddings=row["block_size"])
        text = [token - config.text_token_offset for token in row["text_ids"][:-1]]
        actual[number] = second_stage_ids(config, text, torch.tensor(row["codes"])).tolist()
    yield compare_rows("rows", actual, expected)


# Rules


@reference_runner(
    "metavoice", kinds=("sampling*",), needs=("fast|older|guidance", "inputs.logits|inputs.guidance_rows_0")
)
def run_sampling(case: ReferenceCase) -> Iterator[Check]:
    """Probabilities of both of upstream's loops, and of guided scores."""
    for loop in ("fast", "older"):
        for number, options in enumerate(case.spec.get(loop, ())):
            # Upstream's older loop refuses what its newer one, and ours, can do.
            if "error" in options or not case.holds(f"outputs.{loop}_{number}"):
                continue
            probabilities = probabilities_of(case.input("logits"), options)
            yield check_probabilities(case, f"{loop}_{number}", probabilities, f"{loop}_*")
    for number, options in enumerate(case.spec.get("guidance", ())):
        rows = case.input(f"guidance_rows_{number}")
        guidance = guidance_of({}, options["scale"])
        parts = dict(zip(options["rows"], rows.chunk(len(options["rows"])), strict=True))
        kept = [parts["speaker"]]
        kept += [parts["no speaker"]] if guidance.speaker != 1 else []
        kept += [parts["no prompt"]] if guidance.prompt != 1 else []
        if not case.holds(f"outputs.guided_{number}"):
            continue
        probabilities = probabilities_of(guidance.combine(torch.cat(kept)), options)
        expected = case.tensors[f"outputs.guided_{number}"]
        yield case.check(f"guided_{number}", probabilities.view(expected.shape), "guided_*")


def probabilities_of(logits: torch.Tensor, options: Mapping[str, Any]) -> torch.Tensor:
    """Probabilities after the processors of `options`."""
    processors = first_stage_processors(options.get("temperature", 1.0), options.get("top_p"), options.get("top_k"))
    return processors(None, logits.float()).softmax(-1)


def check_probabilities(case: ReferenceCase, name: str, actual: torch.Tensor, tolerance: str) -> Check:
    """Compares row by row; a row with equal scores at the border by its sorted values."""
    expected, actual = case.output(name).clone(), actual.cpu().clone()
    for row in (int(key.split()[1]) for key in case.spec["tolerance"] if key.startswith("row ")):
        expected[row], actual[row] = expected[row].sort().values, actual[row].sort().values
    return compare(name, actual, expected, case.tolerance(name, tolerance))


@reference_runner("metavoice", kinds=("quantisation*",), needs=("config", "inputs.weight"))
def run_quantization(case: ReferenceCase) -> Iterator[Check]:
    """Weights of 8 and 4 bits as torchao, through `quantization_config`, makes them."""
    held = [name for name in case.tensors if name.startswith("outputs.")]
    if any(name.startswith("outputs.int8") for name in held):
        yield from check_eight_bits(case)
    if any(name.startswith("outputs.int4") for name in held):
        yield from check_four_bits(case)


def check_eight_bits(case: ReferenceCase) -> Iterator[Check]:
    """Codes and scales of a linear layer's channels, and what the layer makes of an input."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    weight = case.input("weight")
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, device=case.device)
    linear.weight = torch.nn.Parameter(weight.clone())
    quantize_(linear, Int8WeightOnlyConfig())
    if case.holds("outputs.int8"):
        apart = (linear.weight.qdata.cpu().long() - case.output("int8").long()).abs()
        # torchao multiplies by the reciprocal of the scale: rounding may differ by one, rarely.
        yield compare("int8, more than one apart", int((apart > 1).sum()), 0)
        yield compare("int8, share of one apart", (apart == 1).float().mean(), torch.tensor(0.0), 1e-3)
    yield case.check("int8_scales", linear.weight.scale.flatten().float(), "int8_scales")
    if case.holds("inputs.x"):
        yield case.check("int8_linear", linear(case.input("x")), "int8_linear")


def check_four_bits(case: ReferenceCase) -> Iterator[Check]:
    """Codes, scales and zeros of groups along the input, and the weights that they stand for."""
    from torchao.quantization.utils import (
        get_groupwise_affine_qparams,
        groupwise_affine_dequantize_tensor_from_qparams,
        groupwise_affine_quantize_tensor_from_qparams,
    )

    group, half = case.spec["config"]["group_size"], case.input("weight").bfloat16()
    scales, zeros = get_groupwise_affine_qparams(half, 4, group, torch.bfloat16)
    packed = groupwise_affine_quantize_tensor_from_qparams(half, scales, zeros, 4, group)
    unpacked = torch.stack([packed >> 4, packed & 15], dim=-1).flatten(-2) if packed.shape != half.shape else packed
    yield case.check("int4", unpacked.long(), "int4")
    yield case.check("int4_scales", scales.float().reshape(len(half), -1), "int4_scales")
    yield case.check("int4_zeros", zeros.float().reshape(len(half), -1), "int4_scales")
    restored = groupwise_affine_dequantize_tensor_from_qparams(unpacked.int(), scales, zeros, 4, group)
    yield case.check("int4_dequantised", restored.float(), "int4_dequantised")


# Released checkpoints

# What the released files were trained as; the tensors do not tell it.
RELEASED_ARGUMENTS = {
    "first_stage": {"n_head": 16, "norm_type": "rmsnorm", "nonlinearity_type": "swiglu", "causal": True},
    "second_stage": {"n_head": 6, "norm_type": "layernorm", "nonlinearity_type": "gelu", "causal": False},
}


@reference_runner("metavoice", kinds=("released*",), table=True)
def run_released(case: ReferenceCase) -> Iterator[Check]:
    """Every tensor of every released file has its place, with its shape, or is on a list of unused ones."""
    actual, expected = {}, {}
    for name, table in case.spec.items():
        if not name.startswith("_"):
            upstream = {key: torch.empty(shape, device="meta") for key, (_, shape) in table.items()}
            actual[name], expected[name] = place_all(name, upstream), "all placed"
    yield compare_rows("released", actual, expected)


def place_all(name: str, upstream: dict[str, torch.Tensor]) -> str:
    """Converts one file's names and shapes; says what is wrong, or that all is placed."""
    try:
        if name.startswith("first_stage"):
            config = conversion.first_stage_config(upstream, RELEASED_ARGUMENTS["first_stage"])
            converted = conversion.convert_first_stage(upstream)
            return placed(MetaVoiceFirstStageForCausalLM, config, converted, tied=("lm_head.weight",))
        if name.startswith("second_stage"):
            config = conversion.second_stage_config(upstream, RELEASED_ARGUMENTS["second_stage"])
            return placed(MetaVoiceSecondStageModel, config, conversion.convert_second_stage(upstream))
        if name.startswith("speaker_encoder"):
            return placed(MetaVoiceSpeakerEncoder, *convert_speaker_encoder(upstream))
        if name.startswith("deepfilternet"):
            config = DeepFilterNetConfig()
            return placed(DeepFilterNetModel, config, convert_enhancer(upstream, config))
    except (ConversionError, ValueError) as error:
        return str(error)
    return "no part of this name"


def placed(
    model_class: type[PreTrainedModel],
    config: PreTrainedConfig,
    converted: Mapping[str, torch.Tensor],
    tied: tuple[str, ...] = (),
) -> str:
    """Checks that `converted` fills a model."""
    with torch.device("meta"):
        model = model_class(config)
    account_for({name: tensor.shape for name, tensor in converted.items()}, state_shapes(model), tied)
    return "all placed"
