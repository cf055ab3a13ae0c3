"""Measures the saved seedling on questions it was not trained on.

    python scripts/seedling/eval.py models/seedling

Prints, as JSON and as the table of the model card: the loss per answer token on both held-out
splits, and per kind of question the share of greedy answers that are exact: they contain every fact of
the right answer and no other number, month or crop. Also the share on training questions, refusals of
plants and topics never seen, and how evenly the experts are used.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import MixtralForCausalLM

import phrasings as ph
from answers import BY_PLURAL
from generate import COMBINATION, PHRASING, TRAIN, WEIGHTS, Generator, Talk, Turn
from train import collate, encode, losses

SEED = "evaluation"
LIMIT = 260  # tokens; the longest plan needs fewer


@torch.no_grad()
def replies(model, tok, talks):
    """Greedy answers to the last turn of each talk, batched by prompt length so that nothing is padded."""
    prompts = {}
    for i, t in enumerate(talks):
        ids, learn = encode(tok, t)
        last = len(tok.encode(t.turns[-1].answer, add_special_tokens=False).ids) + 1
        prompts.setdefault(len(ids) - last, []).append((i, ids[:-last]))
    out = [None] * len(talks)
    for n, group in prompts.items():
        for start in range(0, len(group), 32):
            part = group[start : start + 32]
            ids = torch.tensor([p.tolist() for _, p in part])
            got = model.generate(ids, max_new_tokens=LIMIT, do_sample=False, pad_token_id=0)
            for (i, _), row in zip(part, got):
                new = row[n:].tolist()
                out[i] = tok.decode(new[: new.index(2)] if 2 in new else new)
    return out


FIGURES = re.compile(r"\d+(?:\.\d+)?|\b(?:early|mid|late|" + "|".join(ph.MONTHS) + r")\b")
NAMES = re.compile("|".join(sorted((re.escape(p) for p in BY_PLURAL), key=len, reverse=True)), re.IGNORECASE)


def mentioned(text):
    """The numbers, months and crops in a text."""
    return set(FIGURES.findall(text)), {n.lower() for n in NAMES.findall(text)}


def right(reply, turn):
    """Whether the reply has every fact of the answer, and no number, month or crop that the answer has not."""
    if turn.kind == "refusal":
        return reply in (ph.NO_PLANT, ph.NO_TOPIC)
    if turn.kind.endswith("JSON"):
        try:
            return json.loads(reply) == json.loads(turn.answer)
        except ValueError:
            return False
    return all(f in reply for f in turn.facts) and mentioned(reply) == mentioned(turn.answer)


@torch.no_grad()
def loss(model, tok, talks):
    """Mean cross entropy in nats per answer token."""
    total, count = 0.0, 0
    data = [encode(tok, t) for t in talks]
    for start in range(0, len(data), 16):
        ids, learn, real = collate(data, range(start, min(start + 16, len(data))))
        n = int(learn[:, 1:].sum())
        total, count = total + losses(model, ids, learn, real)[0].item() * n, count + n
    return total / count


@torch.no_grad()
def expert_share(model, tok, talks):
    """Per layer, the smallest and largest share of token slots that one expert gets (even: 1/8)."""
    data = [encode(tok, t) for t in talks]
    counts = torch.zeros(model.config.num_hidden_layers, model.config.num_local_experts)
    for ids, _ in data:
        out = model(torch.tensor(ids.astype(int))[None], output_router_logits=True, use_cache=False)
        for layer, r in enumerate(out.router_logits):
            counts[layer] += torch.bincount(r.topk(2, -1).indices.flatten(), minlength=counts.shape[1])
    share = counts / counts.sum(-1, keepdim=True)
    return [[round(v, 3) for v in (s.min().item(), s.max().item())] for s in share]


def questions(split, count):
    """{kind: talks}: `count` single questions of every kind, none twice."""
    g, out = Generator(SEED, split), {}
    for kind in WEIGHTS:
        seen = {}
        for _ in range(count * 60):
            t = g.single(kind)
            seen.setdefault(t.turns[0].user.lower().rstrip("?.!"), t)
            if len(seen) == count:
                break
        out[kind] = list(seen.values())
    return out


def kinds_of_talk(count):
    """What single questions leave out: later turns, JSON, small talk. Combinations kept from training where there is such a split."""
    g, out = Generator(SEED, TRAIN), {"later turns": [], "JSON": []}
    while min(map(len, out.values())) < count:
        t = g.talk()
        last = t.turns[-1].kind
        for name, fits in (("later turns", "later" in last), ("JSON", "JSON" in last)):
            if fits and len(out[name]) < count:
                out[name].append(t)
    return out


def unknown():
    """Refusals that must be made for plants and topics absent from training."""
    asks = [f"When do I sow {p}?" for p in ph.UNKNOWN_PLANTS_HELD_OUT]
    asks += [f"How deep do I plant {p}?" for p in ph.UNKNOWN_PLANTS_HELD_OUT]
    asks += ph.OFF_TOPIC_HELD_OUT
    return [Talk([Turn(a, ph.NO_TOPIC, [ph.NO_TOPIC], "refusal")]) for a in asks]


def main():
    args = argparse.ArgumentParser()
    args.add_argument("folder", type=Path)
    args.add_argument("--count", type=int, default=40, help="questions per kind and split")
    args.add_argument("--misses", action="store_true", help="print wrong answers")
    args = args.parse_args()
    torch.set_num_threads(1)
    tok = Tokenizer.from_file(str(args.folder / "tokenizer.json"))
    model = MixtralForCausalLM.from_pretrained(args.folder, dtype=torch.float32).eval()

    report = {"loss": {}, "facts": {}}
    for split in (TRAIN, COMBINATION, PHRASING):
        g = Generator(SEED, split)
        report["loss"][split] = round(loss(model, tok, [g.talk() for _ in range(500)]), 4)

    def score(name, split, talks):
        got = replies(model, tok, talks)
        hits = [right(r, t.turns[-1]) for r, t in zip(got, talks)]
        report["facts"].setdefault(name, {})[split] = [sum(hits), len(hits)]
        if args.misses:
            for r, t, ok in zip(got, talks, hits):
                if not ok:
                    print(f"{name} ({split})\n  > {t.turns[-1].user}\n  got  {r}\n  want {t.turns[-1].answer}", file=sys.stderr)

    for split, count in ((TRAIN, args.count // 2), (COMBINATION, args.count), (PHRASING, args.count)):
        for kind, talks in questions(split, count).items():
            score(kind, split, talks)
    for name, talks in kinds_of_talk(args.count * 2).items():
        score(name, "as trained", talks)
    score("refusals of unseen plants and topics", "unseen", unknown())
    g = Generator(SEED, COMBINATION)
    report["expert_share"] = expert_share(model, tok, [g.talk() for _ in range(100)])

    for split in (TRAIN, COMBINATION, PHRASING):
        rows = [v[split] for v in report["facts"].values() if split in v]
        report["facts"].setdefault("all questions", {})[split] = [sum(r[0] for r in rows), sum(r[1] for r in rows)]
    print(json.dumps(report, indent=1))
    print("\n| Question | new combination | new phrasing | trained on |\n|---|---|---|---|")
    for kind, by in report["facts"].items():
        cells = [f"{by[s][0]}/{by[s][1]}" if s in by else "" for s in (COMBINATION, PHRASING, TRAIN)]
        if any(cells):
            print(f"| {kind} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
