"""A GPT-2 of full size with random weights and the real tokenizer, in the format of a downloaded one.

Where the weights cannot be had, times, shapes and parameter counts still can: they do not depend on what the weights
are. Give the folder as ``--base``:

    python benchmarks/random_gpt2.py --tokenizer FOLDER_WITH_VOCAB_AND_MERGES --out runs/gpt2-random
    lora-clf train SMSSpamCollection --base runs/gpt2-random --strategy last-block --pooling last --protocol book
"""

from __future__ import annotations

import shutil
from pathlib import Path

import script

SIZES = {  # width, blocks, heads
    "gpt2": (768, 12, 12),
    "gpt2-medium": (1024, 24, 16),
    "gpt2-large": (1280, 36, 20),
    "gpt2-xl": (1600, 48, 25),
}


def main() -> None:
    """Write the folder."""
    parser = script.parser(__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True, help="the folder of GPT-2's vocab.json and merges.txt")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", choices=tuple(SIZES), default="gpt2")
    parser.add_argument("--seed", type=int, default=123)
    flags = parser.parse_args()

    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(flags.seed)
    width, blocks, heads = SIZES[flags.size]
    model = GPT2LMHeadModel(GPT2Config(n_embd=width, n_layer=blocks, n_head=heads))
    model.save_pretrained(flags.out)
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(flags.tokenizer / name, flags.out / name)
    print(f"{flags.out}: {sum(p.numel() for p in model.parameters()):,} parameters")


if __name__ == "__main__":
    main()
