"""Learns the seedling's tokenizer and writes it the way Mixtral ships its own.

A sentencepiece-style BPE: ids 0-2 are <unk>, <s>, </s>; 3-258 the 256 byte pieces that stand in for
anything not in the alphabet; then learned pieces. A space is written as "▁" and one is put before
the text. Merges are learned inside words, numbers and runs of punctuation only, so the shipped file
needs no pre-tokenizer: no merge could cross those borders anyway.
"""

import json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{b:02X}>" for b in range(256)]
ASCII = [chr(c) for c in range(0x21, 0x7F)]
# Not in ASCII, yet ordinary in English text: these get a piece each instead of two or three bytes.
LETTERS = list("£°éèêàâäçñöüß–—‘’“”…€×")

# Rendered and then encoded, this gives the same ids as encoding each piece of the chat by itself:
# both put one "▁" before every text that follows a special token.
CHAT_TEMPLATE = """\
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant, after an optional system message.') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {%- if loop.first and system_message is defined %}
            {{- '[INST] ' + system_message + '\\n\\n' + message['content'] + ' [/INST]' }}
        {%- else %}
            {{- '[INST] ' + message['content'] + ' [/INST]' }}
        {%- endif %}
    {%- elif message['role'] == 'assistant' %}
        {{- ' ' + message['content'] + eos_token }}
    {%- else %}
        {{- raise_exception('Only user, assistant and one leading system message are supported.') }}
    {%- endif %}
{%- endfor %}
"""


def learn(texts, vocab_size):
    """A Tokenizer with `vocab_size` pieces at most."""
    learner = Tokenizer(models.BPE(unk_token="<unk>"))
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True),
            pre_tokenizers.Split(Regex("▁?[A-Za-z]+|▁?[0-9]+|▁?[^▁A-Za-z0-9]+|▁"), "isolated"),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL) - len(BYTES),
        initial_alphabet=["▁", *ASCII, *LETTERS],
        min_frequency=2,
        show_progress=False,
    )
    # A newline is always its byte piece, as in Mixtral.
    learner.train_from_iterator((line for text in texts for line in text.split("\n")), trainer)
    learned = json.loads(learner.to_str())["model"]
    pieces = SPECIAL + BYTES + [p for p, _ in sorted(learned["vocab"].items(), key=lambda kv: kv[1])]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    assert len(vocab) == len(pieces), "a learned piece repeats a special or byte piece"

    tok = Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=[tuple(m) for m in learned["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tok.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tok.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in SPECIAL])
    tok.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return tok


def save(tok, folder):
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tok,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
        chat_template=CHAT_TEMPLATE,
    )
    fast.save_pretrained(folder)
    # The class name that every version of transformers can load.
    path = folder / "tokenizer_config.json"
    cfg = json.loads(path.read_text())
    cfg["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(cfg, indent=2, ensure_ascii=False) + "\n")
