# Copyright 2026 The tts_models authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Resemble's Perth watermark, through the package `resemble-perth` where it is installed."""

from functools import lru_cache
from typing import Any

from transformers.utils import logging


logger = logging.get_logger(__name__)


@lru_cache(maxsize=1)
def load_watermarker() -> Any:
    """The watermarker, with `apply_watermark(waveform, sample_rate=)`; `None` without the package."""
    try:
        import perth
    except ImportError:
        return None
    # The package's own import of its network may have failed; it then holds `None` in its place.
    factory = getattr(perth, "PerthImplicitWatermarker", None)
    if factory is None:
        logger.warning("The package `resemble-perth` is installed, but its watermarker cannot be loaded: no mark.")
        return None
    return factory()


__all__ = ["load_watermarker"]
