"""The same steps as `step.rs`, computed by `transformers`, to be run beside it on the same machine.

    pip install torch==2.15.0 transformers==5.23.0
    python benches/peer_transformers.py models/seedling [float32|bfloat16]

Prints one JSON line per row: milliseconds per step (median) and tokens per second. Decoding starts from a cache of 256
tokens per sequence; prompts are distinct.
"""

import json
import statistics
import sys
import time

import torch
from transformers import DynamicCache, MixtralForCausalLM

CONTEXT = 256
STEPS = 30


def ids(sequences: range, start: int, tokens: int, vocab: int) -> torch.Tensor:
    rows = [[(s * 7919 + p * 104_729 + 17) % vocab for p in range(start, start + tokens)] for s in sequences]
    return torch.tensor(rows)


def timed(step) -> float:
    for _ in range(5):
        step()
    times = []
    for _ in range(STEPS):
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


@torch.inference_mode()
def main(folder: str, dtype: str) -> None:
    model = MixtralForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    vocab = model.config.vocab_size

    def report(name: str, size: int, seconds: float) -> None:
        print(json.dumps({"row": f"{name}/{size}", "dtype": dtype, "ms": round(seconds * 1e3, 3), "tokens_per_s": round(size / seconds)}))

    for seqs in (1, 2, 4, 8, 16, 32):
        cache = DynamicCache(config=model.config)
        model(ids(range(seqs), 0, CONTEXT, vocab), past_key_values=cache, logits_to_keep=1)
        token = ids(range(seqs), CONTEXT, 1, vocab)

        def step() -> None:
            model(token, past_key_values=cache, logits_to_keep=1)
            cache.crop(-1)  # the token just added

        report("decode", seqs, timed(step))
    for tokens in (64, 256):
        prompt = ids(range(1), 0, tokens, vocab)
        report("prefill", tokens, timed(lambda: model(prompt, logits_to_keep=1)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "float32")
