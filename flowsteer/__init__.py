"""FlowSteer: few-step distillation of flow-matching image models (Ke et al., arXiv 2511.18834)."""

from __future__ import annotations

import importlib
import logging
from typing import Any

__version__ = "0.1.0"

# transformers tells at import that some image processors lack torchvision; no model here uses them
logging.getLogger("transformers.utils.import_utils").addFilter(
    lambda record: "requires torchvision" not in record.getMessage()
)

# name -> module; loaded at first use, so that `import flowsteer` stays quick
_EXPORTS = {
    "RectifiedFlowMatchEulerDiscreteScheduler": "flowsteer.schedulers",
    "load_pipeline": "flowsteer.loading",
}
__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'flowsteer' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
