"""Chance that no two environments share, not even two that were restored from one snapshot."""

import os


def uniform(low: float, high: float) -> float:
    """A number between the two, from the system's randomness."""
    return low + (high - low) * int.from_bytes(os.urandom(7), "big") / (1 << 56)
