"""Declares the operators of torchvision that it registers fakes for, where its compiled part cannot be loaded.

The package index may offer torchvision for another build of PyTorch than the one installed: its Python part is all that timm
needs, but it cannot be imported before these operators are known. Import this module before timm and transformers.
"""

import importlib.util
from pathlib import Path

import torch

SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def _loads() -> bool:
    """Whether torchvision's compiled part can be loaded (also where torchvision is missing: nothing is to be declared then)."""
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        return True
    try:
        for library in Path(found.origin).parent.glob("_C*"):
            torch.ops.load_library(str(library))
    except OSError:
        return False
    return True


LIBRARY = None
if not _loads():
    LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
    for name, schema in SCHEMAS.items():
        LIBRARY.define(name + schema)
