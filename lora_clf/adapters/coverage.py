"""What of a base an adapter changes, and by how much; what the named targets match in a base."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import torch

from lora_clf.adapters.finding import Finding
from lora_clf.base.targets import expand_targets
from lora_clf.tuners.low_rank import LowRankTuned

if TYPE_CHECKING:
    from lora_clf.adapters.adapter import Adapter
    from lora_clf.base.base import Base

_SHOWN = 3


def base_coverage(base: Base) -> Finding:
    """Whether each named target matches as many layers in one block as in the next.

    Raises:
        TargetError: a target matches nothing.
    """
    counts, uneven = {}, []
    for target in ("attention", "attention+output", "all"):
        coverage = expand_targets(base.backbone, base.architecture, target)
        depth = base.architecture.blocks.count(".") + 1
        blocks = Counter(name.split(".")[depth] for name in coverage.modules)
        counts[target] = len(coverage.modules)
        if len(set(blocks.values())) != 1 or len(blocks) != coverage.total_blocks:
            uneven.append(f"{target} matches {dict(blocks)} layers by block")
    found = ", ".join(f"{target} {count}" for target, count in counts.items())
    return Finding(
        "targets",
        not uneven,
        f"the linear layers of {coverage.total_blocks} blocks that attention, attention+output and all match",
        "; ".join([found, *uneven]),
        "Half of the blocks would not be adapted: name the layers with --targets." if uneven else "",
        {**counts, "blocks": coverage.total_blocks},
    )


def adapter_coverage(adapter: Adapter) -> Finding:
    """Whether everything that an adapter trains differs from before its training."""
    tuned, header = adapter.tuned, adapter.header
    head = tuned.view.head.state_dict()
    first = adapter.base.view(header.outputs, header.pooling, header.seed, header.how.combiner).head.state_dict()
    untrained = all(torch.equal(first[name], tensor) for name, tensor in head.items())
    problems = ["the head is as before training"] if untrained else []
    problems += ["the head is all zero"] if not any(bool(tensor.any()) for tensor in head.values()) else []
    if isinstance(tuned, LowRankTuned):
        # B starts at zero: a layer whose B is zero was never trained, or lost it on the way.
        idle = [name for name, (a, b) in tuned.factors.items() if not (bool(a.any()) and bool(b.any()))]
        total, what = len(tuned.factors), f"{tuned.coverage}"
        problems += [f"{len(idle)} layers change nothing, first {', '.join(idle[:_SHOWN])}"] if idle else []
        advice = "Train it again: those layers never got a gradient, or their factors were lost."
    else:
        fresh = adapter.base.view(header.outputs, header.pooling, header.seed, header.how.combiner)
        before = tuned.tuner.prepare(fresh).state_dict()
        mine = {name: tensor for name, tensor in tuned.state_dict().items() if not name.startswith("head.")}
        idle = [name for name, tensor in mine.items() if torch.equal(tensor, before[name])]
        total, what = len(mine), f"{len(mine)} tensors beside {sum(1 for _ in adapter.base.backbone.parameters())}"
        problems += ["nothing of the backbone differs from before training"] if mine and len(idle) == total else []
        advice = "Train it again: what it was to train is as it began."
    changed = total - len(idle)
    return Finding(
        "targets",
        not problems,
        f"what {header.strategy} trained: {what}, and the head",
        "; ".join(problems) or f"{changed} of {total} differ from before training, and the head",
        advice if problems else "",
        {"trained": total, "changed": changed},
    )
