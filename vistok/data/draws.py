"""Random numbers as a function of what they are for: (seed, epoch, sample index), never of when they are drawn.

A stateful generator would tie the data to the number of workers, the number of processes and the step a run was resumed
at. A counter-based one does not (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): each number is a
hash of its coordinates, here the finaliser of SplitMix64 (Steele et al., OOPSLA 2014), the same on every machine.
"""

import numpy as np

NUM_DRAWS = 4  # uniform numbers a sample has in an epoch

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_AUGMENTATION, _ORDER = 1, 2  # independent streams


def uniform(seed: int, epoch: int, indices: np.ndarray) -> np.ndarray:
    """Return the random numbers of some samples in one epoch.

    Args:
        seed: at least 0.
        epoch: at least 0.
        indices: int [b], the samples.

    Returns:
        float64 [b, NUM_DRAWS], uniform in [0, 1).
    """
    counters = indices.astype(np.uint64)[:, None] * np.uint64(NUM_DRAWS) + np.arange(NUM_DRAWS, dtype=np.uint64)
    return (_hash(seed, epoch, _AUGMENTATION, counters) >> np.uint64(11)) * 2.0**-53  # [b, NUM_DRAWS]


def permutation(seed: int, epoch: int, num_samples: int) -> np.ndarray:
    """Return the order of the samples in one epoch, int64 [num_samples]."""
    return np.argsort(_hash(seed, epoch, _ORDER, np.arange(num_samples, dtype=np.uint64)), kind="stable")


def _hash(seed: int, epoch: int, stream: int, counters: np.ndarray) -> np.ndarray:
    key = np.zeros(1, dtype=np.uint64)
    for part in (seed, epoch, stream):
        key = _mix(key + np.uint64((part + _GOLDEN) & _MASK))
    return _mix(key + (counters + np.uint64(1)) * np.uint64(_GOLDEN))


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)  # arrays of uint64 wrap, as the hash wants
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
