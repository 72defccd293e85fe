"""A GPT-2 of full size with random weights and the real tokenizer, in the format of a downloaded one.

Where the weights cannot be had, times, shapes and parameter counts still can: they do not depend on what the weights
are. Give the folder as ``--base``:

    python benchmarks/random_gpt2.py --tokenizer FOLDER_WITH_VOCAB_AND_MERGES --out runs/gpt2-random
    lora-clf train SMSSpamCollection --base runs/gpt2-random --strategy last-block --pooling last --protocol book
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

SIZES = {
    "gpt2": {"n_embd": 768, "n_layer": 12, "n_head": 12},
    "gpt2-medium": {"n_embd": 1024, "n_layer": 24, "n_head": 16},
    "gpt2-large": {"n_embd": 1280, "n_layer": 36, "n_head": 20},
    "gpt2-xl": {"n_embd": 1600, "n_layer": 48, "n_head": 25},
}


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True, help="the folder of GPT-2's vocab.json and merges.txt")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", choices=tuple(SIZES), default="gpt2")
    parser.add_argument("--seed", type=int, default=123)
    flags = parser.parse_args()

    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(flags.seed)
    model = GPT2LMHeadModel(GPT2Config(**SIZES[flags.size]))
    model.save_pretrained(flags.out)
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(flags.tokenizer / name, flags.out / name)
    print(f"{flags.out}: {sum(p.numel() for p in model.parameters()):,} parameters")


if __name__ == "__main__":
    main()
