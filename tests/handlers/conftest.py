"""A whole training in miniature, for what follows its engines."""

from tiny_training import make_training

__all__ = ["make_training"]
