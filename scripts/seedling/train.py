"""Trains the seedling from nothing and saves it, with its tokenizer, as a Hugging Face folder.

    python scripts/seedling/train.py --work target/seedling --out models/seedling

Three rounds over freshly generated talks, f32 on one CPU core, loss on the answers only. Everything is
drawn from fixed seeds. --work keeps the tokenizer, a log, and a checkpoint to resume from after a stop.
"""

import argparse
import json
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import GenerationConfig, MixtralForCausalLM
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

import build_tokenizer
from generate import COMBINATION, PRACTICE, TRAIN, WEIGHTS, WORDING, Generator, check
from model_config import seedling_config

SEED = 1
VOCAB = 3072
TOKENIZER_TALKS = 40_000
TOKENS_PER_BATCH = 1536  # padded
SORTED_TOGETHER = 4096  # talks sorted by length before they are cut into batches: little padding, still random
WARMUP_STEPS = 150
# Three rounds, each with its own warm-up and cosine to zero: (talks, peak learning rate, weights of the
# kinds of question, more phrasings). The first teaches the facts. The second practises what the first
# leaves weak: plans, pairs and months. The third widens the wording.
ROUNDS = [(155_000, 2e-3, WEIGHTS, False), (46_000, 8e-4, PRACTICE, False), (42_000, 8e-4, WORDING, True)]
AUX_LOSS = 0.01  # keeps the eight experts in use
SAMPLES = [
    "When do I sow carrots in a cold climate?",
    "How far apart should tomatoes be?",
    "Can I plant potatoes next to tomatoes?",
    "Describe leeks as a JSON object.",
    "Make a planting plan for garlic, peas and basil in a warm climate.",
    "Who are you?",
    "What is the capital of Denmark?",
]


def encode(tok, talk):
    """Ids of a talk, and which of them are answers (to be learned)."""
    ids, learn = [1], [0]
    for m in talk.messages():
        if m["role"] == "user":
            new = tok.encode(f"[INST] {m['content']} [/INST]", add_special_tokens=False).ids
        else:
            new = tok.encode(m["content"], add_special_tokens=False).ids + [2]
        ids += new
        learn += [m["role"] == "assistant"] * len(new)
    return np.array(ids, np.int16), np.array(learn, bool)


def batches(data, rng):
    """Batches of about TOKENS_PER_BATCH, each of talks of similar length."""
    order = list(range(len(data)))
    rng.shuffle(order)
    for start in range(0, len(order), SORTED_TOGETHER):
        part = sorted(order[start : start + SORTED_TOGETHER], key=lambda i: len(data[i][0]))
        cut, batch = [], []
        for i in part:
            if batch and len(data[i][0]) * (len(batch) + 1) > TOKENS_PER_BATCH:
                cut.append(batch)
                batch = []
            batch.append(i)
        cut.append(batch)
        rng.shuffle(cut)
        yield from cut


def learning_rate(peak, step, steps):
    return peak * min(1, (step + 1) / WARMUP_STEPS) * 0.5 * (1 + math.cos(math.pi * step / steps))


def collate(data, batch):
    width = max(len(data[i][0]) for i in batch)
    ids, learn, real = (np.zeros((len(batch), width), t) for t in (np.int64, bool, np.float32))
    for row, i in enumerate(batch):
        n = len(data[i][0])
        ids[row, :n], learn[row, :n], real[row, :n] = data[i][0], data[i][1], 1
    return torch.from_numpy(ids), torch.from_numpy(learn), torch.from_numpy(real)


def losses(model, ids, learn, real):
    """Cross entropy on the answers, and the balance of the experts. Padding comes last, so causality hides it."""
    out = model.model(input_ids=ids, use_cache=False, output_router_logits=True)
    logits = model.lm_head(out.last_hidden_state[:, :-1][learn[:, 1:]])
    cfg = model.config
    # Layer by layer: over all layers at once, one expert too busy here makes up for one too idle there.
    each = [load_balancing_loss_func((r,), cfg.num_local_experts, cfg.num_experts_per_tok, real) for r in out.router_logits]
    balance = sum(each) / len(each)
    return F.cross_entropy(logits, ids[:, 1:][learn[:, 1:]]), balance


@torch.no_grad()
def reply(model, tok, user, limit=120):
    prompt = [1] + tok.encode(f"[INST] {user} [/INST]", add_special_tokens=False).ids
    out = model.generate(torch.tensor([prompt]), max_new_tokens=limit, do_sample=False, pad_token_id=0)
    return tok.decode(out[0, len(prompt) :].tolist())


def save(model, tok, folder):
    """The model as bf16 and its tokenizer, in the layout of a Hugging Face folder."""
    folder.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2)
    model.eval().to(torch.bfloat16).save_pretrained(folder)
    build_tokenizer.save(tok, folder)
    for f in folder.iterdir():
        f.chmod(0o644)


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--work", type=Path, required=True)
    args.add_argument("--out", type=Path, required=True)
    args.add_argument("--threads", type=int, default=1)
    args = args.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    torch.manual_seed(SEED)
    check()

    tokenizer_file = args.work / "tokenizer.json"
    if not tokenizer_file.exists():
        g = Generator(f"tokenizer {SEED}")
        talks = [g.talk() for _ in range(TOKENIZER_TALKS)]
        texts = [m["content"] if m["role"] == "assistant" else f"[INST] {m['content']} [/INST]" for t in talks for m in t.messages()]
        build_tokenizer.learn(texts, VOCAB).save(str(tokenizer_file))
    tok = Tokenizer.from_file(str(tokenizer_file))
    data, plan, rates = [], [], []
    for number, (talks, peak, weights, more) in enumerate(ROUNDS):
        g = Generator(SEED + number, TRAIN, weights, more)
        part = [encode(tok, g.talk()) for _ in range(talks)]
        steps = list(batches(part, random.Random(SEED + number)))
        plan += [[len(data) + i for i in batch] for batch in steps]
        rates += [learning_rate(peak, step, len(steps)) for step in range(len(steps))]
        data += part
    h = Generator(SEED, COMBINATION)
    held_out = [encode(tok, h.talk()) for _ in range(200)]
    tokens = sum(len(ids) for ids, _ in data)
    print(f"{tok.get_vocab_size()} pieces, {tokens} tokens, {len(plan)} steps", flush=True)

    model = MixtralForCausalLM(seedling_config(tok.get_vocab_size())).train()
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    opt = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}],
        lr=rates[0], betas=(0.9, 0.98), fused=True,
    )  # fmt: skip
    checkpoint = args.work / "checkpoint.pt"
    step, spent = 0, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        opt.load_state_dict(saved["opt"])
        step, spent = saved["step"], saved["spent"]

    log = (args.work / "log.jsonl").open("a")
    started, last_saved, seen, mean = time.time() - spent, time.time(), 0, None
    since = time.time()
    while step < len(plan):
        ids, learn, real = collate(data, plan[step])
        for group in opt.param_groups:
            group["lr"] = rates[step]
        loss, balance = losses(model, ids, learn, real)
        (loss + AUX_LOSS * balance).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad()
        step += 1
        seen += int(real.sum())
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        if step % 50 == 0:
            row = dict(step=step, minutes=round((time.time() - started) / 60, 1), loss=round(mean, 4),
                       balance=round(balance.item(), 3), lr=round(rates[step - 1], 6), tokens_per_s=round(seen / (time.time() - since)))  # fmt: skip
            seen, since = 0, time.time()
            if step % 500 == 0:
                model.eval()
                with torch.no_grad():
                    parts = [losses(model, *collate(held_out, range(i, i + 20)))[0].item() for i in range(0, 200, 20)]
                row["held_out"] = round(sum(parts) / len(parts), 4)
                for s in SAMPLES:
                    print(f"  > {s}\n  {reply(model, tok, s)}", flush=True)
                model.train()
                since = time.time()
            print(json.dumps(row), flush=True)
            log.write(json.dumps(row) + "\n")
            log.flush()
        if time.time() - last_saved > 240:
            state = dict(model=model.state_dict(), opt=opt.state_dict(), step=step, spent=time.time() - started)
            torch.save(state, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)
            last_saved = time.time()

    minutes = (time.time() - started) / 60
    print(f"done: {step} steps, {tokens} tokens, {minutes:.1f} minutes", flush=True)
    save(model, tok, args.out)


if __name__ == "__main__":
    main()
