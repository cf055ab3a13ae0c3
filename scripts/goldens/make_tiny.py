"""Writes the random tiny Mixtrals and the logits that transformers computes for them.

Each folder under models/goldens/ holds a checkpoint exactly as save_pretrained writes it, and
golden.safetensors with, for each prompt k:

    prompt_k.input_ids   i64 [n]
    prompt_k.positions   i64 [m]         positions whose logits are stored (here: all of them)
    prompt_k.logits      f32 [m, vocab]  computed in f32 on the CPU, eager attention
    prompt_k.argmax      i64 [n]         the greedy choice after every position

Nothing here is close to a tie: a prompt is redrawn until the best and second-best logits, and the
last chosen and first rejected expert, differ clearly at every position. A correct f32 engine
therefore has no excuse for another argmax.

    python scripts/goldens/make_tiny.py
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import MixtralConfig, MixtralForCausalLM

OUT = Path(__file__).resolve().parents[2] / "models" / "goldens"
MAX_BYTES = 600_000
LOGIT_MARGIN = 1e-3  # (best - second) / max |logit|
ROUTER_MARGIN = 1e-3  # last chosen - first rejected probability


def config(**changes):
    base = dict(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=256,
        sliding_window=None,
        tie_word_embeddings=False,
        initializer_range=0.15,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )
    return MixtralConfig(**(base | changes))


# name -> (config, seed, prompt lengths, options)
CASES = {
    # Four query heads share the single key/value head.
    "gqa4-e4": (config(num_key_value_heads=1), 11, [1, 9, 24], {}),
    # No sharing at all, both of two experts always chosen, a vocabulary of prime size.
    "mha-e2-odd-vocab": (
        config(num_key_value_heads=4, num_local_experts=2, vocab_size=131, hidden_size=40, intermediate_size=24),
        12,
        [5, 17],
        {},
    ),
    # Eight experts stored as bf16; the logits are f32 arithmetic on those bf16 values.
    "gqa2-e8-bf16": (config(num_local_experts=8), 13, [3, 20, 33], {"dtype": torch.bfloat16}),
    # A window of seven positions under prompts several times as long.
    "sliding-window-7": (config(sliding_window=7, intermediate_size=24), 14, [6, 7, 8, 40], {"differs_without_window": True}),
    # Several files behind an index, and a prompt that crosses 16- and 32-token cache blocks.
    "sharded-e6-long": (
        config(num_local_experts=6, intermediate_size=16),
        15,
        [16, 33, 75],
        {"max_shard_size": "48KB"},
    ),
    # head_dim is not hidden/heads, three of five experts, another rope base, in the older config form.
    "head-dim-24-top3of5-old-config": (
        config(
            head_dim=24,
            num_local_experts=5,
            num_experts_per_tok=3,
            intermediate_size=16,
            vocab_size=64,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        ),
        16,
        [4, 37],
        {"old_config": True},
    ),
}


def random_model(cfg, seed, dtype):
    torch.manual_seed(seed)
    model = MixtralForCausalLM(cfg)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("norm.weight"):
                p.copy_(1 + 0.2 * torch.randn_like(p))  # all-one norms would hide a missing multiply
            elif name.endswith("gate.weight"):
                p.mul_(3)  # decisive routing
    return model.to(dtype)


def forward(model, ids):
    """Logits [n, vocab] and the smallest gap between chosen and rejected experts."""
    with torch.no_grad():
        out = model(input_ids=ids[None], use_cache=False, output_router_logits=True)
    k, gap = model.config.num_experts_per_tok, float("inf")
    if k < model.config.num_local_experts:
        for layer in out.router_logits:
            p = torch.softmax(layer.float(), -1).sort(-1, descending=True).values
            gap = min(gap, (p[:, k - 1] - p[:, k]).min().item())
    return out.logits[0].float(), gap


def is_clear(logits, router_gap):
    top = logits.topk(2, -1).values
    margin = ((top[:, 0] - top[:, 1]) / logits.abs().max(-1).values).min().item()
    return margin > LOGIT_MARGIN and router_gap > ROUTER_MARGIN


def older_config_form(path):
    """Rewrites a config the way checkpoints of 2024 have it: top-level rope_theta and torch_dtype."""
    cfg = json.loads(path.read_text())
    cfg["rope_theta"] = cfg.pop("rope_parameters")["rope_theta"]
    cfg["torch_dtype"] = cfg.pop("dtype")
    cfg["transformers_version"] = "4.42.0"
    path.write_text(json.dumps(dict(sorted(cfg.items())), indent=2) + "\n")


def make(name, cfg, seed, lengths, options):
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model = random_model(cfg, seed, options.get("dtype", torch.float32))
    model.save_pretrained(folder, max_shard_size=options.get("max_shard_size", "5GB"))
    (folder / "generation_config.json").unlink(missing_ok=True)
    if options.get("old_config"):
        older_config_form(folder / "config.json")

    # Judge the files, not the object that wrote them.
    theta = cfg.rope_parameters["rope_theta"]
    model = MixtralForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    assert model.config.rope_parameters["rope_theta"] == theta
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for k, n in enumerate(lengths):
        for _ in range(1000):
            ids = torch.randint(0, cfg.vocab_size, (n,), generator=draw)
            logits, gap = forward(model, ids)
            if is_clear(logits, gap):
                break
        else:
            raise SystemExit(f"{name}: no prompt of length {n} without a near tie; choose another seed")
        tensors[f"prompt_{k}.input_ids"] = ids
        tensors[f"prompt_{k}.positions"] = torch.arange(n)
        tensors[f"prompt_{k}.logits"] = logits.contiguous()
        tensors[f"prompt_{k}.argmax"] = logits.argmax(-1)

    if options.get("differs_without_window"):
        ids, logits = tensors[f"prompt_{len(lengths) - 1}.input_ids"], tensors[f"prompt_{len(lengths) - 1}.logits"]
        window = model.config.sliding_window
        model.config.sliding_window = None
        full, _ = forward(model, ids)
        changed = (full - logits).abs().max(-1).values
        # With two layers the first position that can differ is the window itself.
        assert changed[:window].max() < 1e-5 and changed[window:].min() > 1e-3, "the window was not applied"

    save_file(tensors, folder / "golden.safetensors")
    for f in folder.iterdir():
        f.chmod(0o644)
        assert f.stat().st_size < MAX_BYTES, f
    print(f"{name:32} {sum(f.stat().st_size for f in folder.iterdir()):>8} bytes in {len(list(folder.iterdir()))} files")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, (cfg, seed, lengths, options) in CASES.items():
        make(name, cfg, seed, lengths, options)
