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
from typing import TYPE_CHECKING

from transformers.utils import _LazyModule
from transformers.utils.import_utils import define_import_structure


if TYPE_CHECKING:
    from .configuration_megatts3 import *
    from .durations_megatts3 import *
    from .feature_extraction_megatts3 import *
    from .generation_megatts3 import *
    from .modeling_megatts3 import *
    from .modeling_megatts3_aligner import *
    from .modeling_megatts3_base import *
    from .modeling_megatts3_duration import *
    from .modeling_megatts3_text_encoder import *
    from .modeling_megatts3_transformer import *
    from .modeling_megatts3_vae import *
    from .phones_megatts3 import *
    from .processing_megatts3 import *
    from .request_megatts3 import *
    from .voice_megatts3 import *
else:
    import sys

    _file = globals()["__file__"]
    sys.modules[__name__] = _LazyModule(__name__, _file, define_import_structure(_file), module_spec=__spec__)
