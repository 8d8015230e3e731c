"""As ``sitecustomize.py``: declares the operators that a torchvision for CUDA asks a torch without CUDA for."""

import importlib.abc
import sys
from types import ModuleType
from typing import Any


class BeforeTorchvision(importlib.abc.MetaPathFinder):
    """Finds nothing; declares the operators when torchvision is looked for."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> None:
        """Declare ``torchvision::nms`` and ``torchvision::qnms`` before torchvision is imported."""
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            self.library = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                self.library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


FINDER = BeforeTorchvision()  # kept, or else its declarations are undone
sys.meta_path.insert(0, FINDER)
