"""How a group's samples are divided into waves."""


def even_waves(n: int, waves: int) -> tuple[int, ...]:
    """The sizes of at most `waves` waves of n samples in total: as equal as possible, larger ones first, none empty."""
    count = min(waves, n)
    return tuple(n // count + (wave < n % count) for wave in range(count))
