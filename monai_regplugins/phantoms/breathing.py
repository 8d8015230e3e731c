r"""Breathing in a sagittal plane: a signal over time, and the map of the plane that it drives.

Coordinates are mm, x to the patient's right, y to the front, z to the head; a sagittal plane has one x. The chest
cavity lies between two walls, ``back(z) < y < front(z)``, and has its own coordinate ``eta = (y - back) / (front -
back)``, 0 at the back wall and 1 at the front wall. What lies within moves along lines of equal eta, hence along the
walls and not through them: the lung slides past the ribs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Breath", "BreathingSignal", "cavity_walls"]

Array = npt.NDArray[Any]

APEX, BASE = 120.0, -55.0  # z in mm where the descent begins, and below which it is complete
RIM, GLIDE = 0.03, 0.09  # how far a wall is dragged along, and how wide the gliding layer is, in parts of the cavity
NEWTON_STEPS = 8  # two more than reach rounding for the steepest breath


def cavity_walls(z: Array) -> tuple[Array, Array]:
    """Back wall and front wall of the chest cavity, y in mm, at heights z in mm."""
    back = -36.0 - 16.0 * np.exp(-(((z - 15.0) / 85.0) ** 2))
    front = 64.0 - 52.0 / (1.0 + np.exp((68.0 - z) / 21.0))
    return back, front


@dataclass(frozen=True)
class Breath:
    r"""How far the breath has moved the plane from its rest at end expiration, in closed form.

    A point at rest (eta, z) goes to

        ``z' = z - descent * w(eta) * phi(z)``,
        ``y' = back(z') + eta * width(z') + expansion * h(z') * s(eta)``

    with smooth steps phi (from the apex to the diaphragm), s (from the spine, at rest, to the front wall), h (more
    below), and a window w over the cavity that inclines to the back, where the diaphragm moves most.

    :meth:`inverse` is that formula, from rest to the breathing frame; :meth:`forward` solves it by Newton's method up
    to rounding, one unknown at a time.

    Args:
        descent: how far the diaphragm's dome goes down, mm.
        expansion: how far the front wall goes out, mm.
        tilt: how much more the back of the diaphragm moves than its front, relative.
    """

    descent: float
    expansion: float
    tilt: float = 0.3

    def forward(self, points: Array) -> Array:
        """Map points (3, N) of the breathing frame to their place at rest."""
        y, z_now = points[1], points[2]
        (back, front), push = cavity_walls(z_now), self._push(z_now)
        eta = (y - back) / (front - back)
        for _ in range(NEWTON_STEPS):
            step, slope = _step_with_slope(eta)
            eta = eta - (back + eta * (front - back) + push * step - y) / (front - back + push * slope)
        drop = self.descent * self._window(eta)
        z = z_now.copy()
        for _ in range(NEWTON_STEPS):
            step, slope = _step_with_slope((APEX - z) / (APEX - BASE))
            z = z - (z - drop * step - z_now) / (1.0 + drop * slope / (APEX - BASE))
        back, front = cavity_walls(z)
        return np.stack([points[0], back + eta * (front - back), z]).astype(points.dtype)

    def inverse(self, points: Array) -> Array:
        """Map points (3, N) at rest to their place in the breathing frame."""
        y, z = points[1], points[2]
        back, front = cavity_walls(z)
        eta = (y - back) / (front - back)
        z_now = z - self.descent * self._window(eta) * _step_with_slope((APEX - z) / (APEX - BASE))[0]
        back, front = cavity_walls(z_now)
        y_now = back + eta * (front - back) + self._push(z_now) * _step_with_slope(eta)[0]
        return np.stack([points[0], y_now, z_now]).astype(points.dtype)

    def _window(self, eta: Array) -> Array:
        """w: 0 in the walls, about 1 in the cavity."""
        into = _step_with_slope((eta + RIM) / GLIDE)[0] * _step_with_slope((1.0 + RIM - eta) / GLIDE)[0]
        return np.asarray(into * (1.0 + self.tilt * (0.5 - eta)))

    def _push(self, z: Array) -> Array:
        """How far the front wall goes out at height z, mm."""
        return np.asarray(self.expansion * _step_with_slope((100.0 - z) / 170.0)[0])


def _step_with_slope(t: Array) -> tuple[Array, Array]:
    """The smooth step ``3 t^2 - 2 t^3`` from 0 to 1, and its derivative."""
    inside = np.clip(t, 0.0, 1.0)
    return inside * inside * (3.0 - 2.0 * inside), 6.0 * inside * (1.0 - inside)


class BreathingSignal:
    """Depth of free breathing over time: breaths of irregular height and length over a level that drifts.

    Each breath is ``height * |sin(pi t / period)|^3``, which rests longer at end expiration than at end inspiration
    (after Lujan et al. 1999, Med. Phys. 26(5)).

    Args:
        rng: source of the random numbers.
        duration: seconds that are covered.
        height: median height of a breath, in the unit of the depth.
        period: mean length of a breath in s.
    """

    def __init__(self, rng: np.random.Generator, duration: float, height: float, period: float = 4.0) -> None:
        count = int(duration / (0.6 * period)) + 4
        periods = period * np.clip(rng.normal(1.0, 0.15, count), 0.6, 1.4)
        self._heights = height * np.exp(np.clip(rng.normal(0.0, 0.22, count), -0.5, 0.35))
        self._starts = np.concatenate([[0.0], np.cumsum(periods)]) - period * rng.uniform(1.0, 2.0)
        self._drift = height * rng.normal(0.0, 0.12) / duration
        self._wave = (height * rng.uniform(0.02, 0.08), 2 * np.pi / rng.uniform(9.0, 20.0), rng.uniform(0, 2 * np.pi))

    def __call__(self, times: Array) -> Array:
        """Depth at the given times in s, 0 at a quiet end expiration."""
        index = np.clip(np.searchsorted(self._starts, times, side="right") - 1, 0, len(self._heights) - 1)
        phase = (times - self._starts[index]) / (self._starts[index + 1] - self._starts[index])
        amplitude, frequency, shift = self._wave
        level = self._drift * times + amplitude * np.sin(frequency * times + shift)
        return np.asarray(self._heights[index] * np.abs(np.sin(np.pi * phase)) ** 3 + level)
