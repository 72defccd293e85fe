"""The learning rate over a run: linear warm-up, then linear decay to zero."""

from __future__ import annotations


def warmup_decay(step: int, total: int, warmup: float) -> float:
    """The share of the peak rate at ``step`` (from zero) of ``total``.

    It rises linearly over the first ``warmup`` share of the steps and falls linearly to zero at the end
    (Devlin et al. 2019, appendix A.2).
    """
    rising = round(warmup * total)
    if step < rising:
        return (step + 1) / rising
    return max(0.0, (total - step) / max(1, total - rising))
