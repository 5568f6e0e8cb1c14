from typing import TYPE_CHECKING

from transformers.utils import _LazyModule
from transformers.utils.import_utils import define_import_structure


if TYPE_CHECKING:
    from .audio_tokens_maya1 import *
    from .configuration_maya1 import *
    from .generation_maya1 import *
    from .modeling_maya1 import *
    from .processing_maya1 import *
    from .request_maya1 import *
else:
    import sys

    _file = globals()["__file__"]
    sys.modules[__name__] = _LazyModule(__name__, _file, define_import_structure(_file), module_spec=__spec__)
