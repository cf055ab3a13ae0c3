"""Writes what transformers computes for the committed seedling: logits, greedy answers, token ids.

    python scripts/goldens/make_seedling.py

Into models/goldens/seedling/:

    golden.safetensors      as for the tiny models, but logits at a few positions only
    greedy.json             chats, their exact prompt ids, and the greedy answer's ids and text
    tokenizer_vectors.json  strings, their ids without special tokens, and what these decode to

All from the bf16 weights, computed in f32 on the CPU with eager attention.
"""

import json
import random
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import AutoTokenizer, MixtralForCausalLM

ROOT = Path(__file__).resolve().parents[2] / "models"
SEEDLING, OUT = ROOT / "seedling", ROOT / "goldens" / "seedling"
MAX_BYTES = 600_000
MAX_NEW = 80
MARGIN = 2e-4  # (best - second) / max |logit|: twice the 1e-4 that an f32 engine may be off

# Chats, or raw text. {a}, {b}, {c} and {n} are drawn until no position is close to a tie.
PROMPTS = [
    [{"role": "user", "content": "When do I sow carrots in a cold climate?"}],
    [
        {"role": "system", "content": "You are a gardening assistant."},
        {"role": "user", "content": "I have {n} seeds of {a}. Plan my bed with {a}, {b} and {c} in a cold climate, please. It is {n} metres long, it lies in full sun, "
         "and the soil is heavy clay. Tell me how deep and how far apart everything goes, and when I should start."},
    ],
    "{n} × crème brûlée à 180 °C — naïve café, 東京の庭, Привет, 🌱🥕!\n\tEnd",
    [
        {"role": "user", "content": "How deep do I sow leeks?"},
        {"role": "assistant", "content": "Sow leeks 1 cm deep."},
        {"role": "user", "content": "And how far apart?"},
    ],
]  # fmt: skip
DRAW = ["carrots", "onions", "lettuces", "tomatoes", "peas", "kale", "basil", "radishes"]
DRAWS = 300

CHATS = [
    PROMPTS[0],
    PROMPTS[3],
    [{"role": "user", "content": "Make a planting plan for garlic and peas in a warm climate."}],
    [{"role": "user", "content": "Describe tomatoes as a JSON object."}],
    [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": "What is the capital of France?"}],
    [{"role": "user", "content": "Hello!"}],
    [{"role": "user", "content": "Give me a full guide to carrots."}],
]

STRINGS = [
    "", " ", "  ", "   a", "a", "a ", " a", "a  b", "a   b    c", "\n", "\n\n", "a\nb", "a\n\nb\n", "\t", "a\tb", "\r\n",
    "Hello", "Hello, world!", "When do I sow carrots in a cold climate?", "WHEN DO I SOW CARROTS", "[INST] How deep? [/INST]",
    "0", "7", "12 to 16 weeks", "3.14159", "2026-11-23", "10 °C", "5–10 cm", "{\"crop\": \"leek\", \"depth_cm\": 1}", "[1, 2, 3]",
    "<s>", "</s>", "<unk>", "a</s>b", "<0x0A>", "▁", "a▁b", "café", "cafe\u0301", "naïve façade", "ÀÉÎÕÜ ß", "Ελληνικά", "Привет", "日本語", "中文测试",
    "한국어", "العربية", "🌱", "👩‍🌾 plants 🥕🥕", "\u00a0", "\u200b", "\ufeff", "\u0000", "don't", "lamb's lettuce", "supercalifragilistic",
    "fn main() { println!(\"{}\", 1 + 1); }", "a" * 40, "https://example.org/a?b=c&d=%20", "~`!@#$%^&*()_-+=|\\:;\"'<>,.?/",
]  # fmt: skip


def fold_system(chat):
    """The chat without its system message, which goes before the first question."""
    if chat[0]["role"] != "system":
        return chat
    first = {"role": "user", "content": chat[0]["content"] + "\n\n" + chat[1]["content"]}
    return [first, *chat[2:]]


def prompt_ids(tok, chat):
    """[1] + for each turn: the question in [INST], then the answer and 2; every text is encoded by itself."""
    ids = [1]
    for m in fold_system(chat):
        if m["role"] == "user":
            ids += tok.encode(f"[INST] {m['content']} [/INST]", add_special_tokens=False).ids
        else:
            ids += tok.encode(m["content"], add_special_tokens=False).ids + [2]
    return ids


def logits_of(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


def is_clear(logits):
    top = logits.topk(2, -1).values
    return ((top[:, 0] - top[:, 1]) / logits.abs().max(-1).values).min().item() > MARGIN


def drawn(prompt, rng):
    """The prompt with its placeholders filled in."""
    names = dict(zip("abc", rng.sample(DRAW, 3))) | {"n": rng.randrange(2, 100)}
    if isinstance(prompt, str):
        return prompt.format(**names)
    return [m | {"content": m["content"].format(**names)} for m in prompt]


def make_logits(model, tok):
    tensors, rng = {}, random.Random(0)
    for k, template in enumerate(PROMPTS):
        for _ in range(DRAWS):
            prompt = drawn(template, rng)
            ids = [1] + tok.encode(prompt, add_special_tokens=False).ids if isinstance(prompt, str) else prompt_ids(tok, prompt)
            logits = logits_of(model, ids)
            if is_clear(logits):
                break
        else:
            raise SystemExit(f"prompt {k} is always close to a tie: change its text")
        n = len(ids)
        at = sorted({0, n // 5, 2 * n // 5, 3 * n // 5, n - 2, n - 1})
        tensors[f"prompt_{k}.input_ids"] = torch.tensor(ids)
        tensors[f"prompt_{k}.positions"] = torch.tensor(at)
        tensors[f"prompt_{k}.logits"] = logits[at].contiguous()
        tensors[f"prompt_{k}.argmax"] = logits.argmax(-1)
        print(f"prompt {k}: {n} tokens")
    save_file(tensors, OUT / "golden.safetensors")


def make_greedy(model, tok):
    cases = []
    template = AutoTokenizer.from_pretrained(SEEDLING)
    for chat in CHATS:
        ids = prompt_ids(tok, chat)
        rendered = template.apply_chat_template(chat, tokenize=False)
        assert template(rendered, add_special_tokens=False).input_ids == ids, "the chat template disagrees"
        with torch.no_grad():
            out = model.generate(torch.tensor([ids]), max_new_tokens=MAX_NEW, do_sample=False, pad_token_id=0)
        new = out[0, len(ids) :].tolist()
        # The same tokens without a cache: otherwise a golden would bless a cache bug.
        whole = logits_of(model, ids + new)
        assert whole[len(ids) - 1 : -1].argmax(-1).tolist() == new
        assert is_clear(whole[len(ids) - 1 : -1]), f"a near tie in the answer to {chat}: change the question"
        cases.append({
            "messages": chat,
            "prompt_ids": ids,
            "greedy_ids": new,
            "finish": "stop" if new[-1] == 2 else "length",
            "text": tok.decode(new),
        })  # fmt: skip
        print(f"> {chat[-1]['content']}\n{cases[-1]['text']}")
    write("greedy.json", cases)


def make_vectors(tok):
    """Special tokens in a text are text: what a user types must not become a control token."""
    tok.encode_special_tokens = True
    cases = []
    for s in STRINGS:
        ids = tok.encode(s, add_special_tokens=False).ids
        assert not set(ids) & {0, 1, 2}, s
        cases.append({"text": s, "ids": ids, "decoded": tok.decode(ids)})
    write("tokenizer_vectors.json", cases)


def write(name, cases):
    lines = ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases)
    (OUT / name).write_text(f"[\n{lines}\n]\n")


def main():
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    tok = Tokenizer.from_file(str(SEEDLING / "tokenizer.json"))
    tok.encode_special_tokens = True
    model = MixtralForCausalLM.from_pretrained(SEEDLING, dtype=torch.float32, attn_implementation="eager").eval()
    make_logits(model, tok)
    make_greedy(model, tok)
    make_vectors(tok)
    for f in OUT.iterdir():
        f.chmod(0o644)
        assert f.stat().st_size < MAX_BYTES, f


if __name__ == "__main__":
    main()
