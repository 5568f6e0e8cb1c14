"""Runs S3Gen's table of released tensors."""

from collections.abc import Iterator

import convert_s3gen_to_hf as conversion
import torch
from s3gen_parts import TOKENIZER_CONSTANTS

from tests.common.fill import parse_shape
from tests.common.reference import Check, ReferenceCase, compare, reference_runner
from tts_models import S3GenConfig


@reference_runner("s3gen", kinds=("released*",), table=True)
def run_released(case: ReferenceCase) -> Iterator[Check]:
    """Every released tensor finds its place in the port, and the port's every parameter is filled."""
    for file, tensors in case.spec.items():
        entries = {} if file.startswith("_") else {n: e for n, e in tensors.items() if not n.startswith("_")}
        if not entries:  # a note, or a file described by another's table
            continue
        shapes = {name: parse_shape(entry) for name, entry in entries.items()}
        with torch.device("meta"):
            upstream = {name: torch.empty(shape, dtype=getattr(torch, kind)) for name, (kind, shape) in shapes.items()}
        config = conversion.s3gen_config(upstream)
        converted = conversion.convert_state_dict(upstream, config)
        unused = [name for name in shapes if name.removeprefix("tokenizer.") in TOKENIZER_CONSTANTS]
        fused = [name for name in shapes if name.endswith((".original0", ".weight_g"))]
        yield compare(f"{file}: tensors", len(converted) + len(unused) + len(fused), len(shapes))
        without_constants = {name: tensor for name, tensor in upstream.items() if name not in unused}
        again = conversion.convert_state_dict(without_constants, conversion.s3gen_config(without_constants))
        yield compare(f"{file}: tensors without the constants", len(again), len(converted))
        if "time_embed_mixer" not in "".join(shapes):
            yield compare(f"{file}: configuration", config.to_dict(), S3GenConfig().to_dict())
