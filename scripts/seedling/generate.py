"""Puts questions and their answers together into gardening talks, the same ones for the same seed.

    python scripts/seedling/generate.py            # prints a few talks of every kind
    python scripts/seedling/generate.py --split combination --count 20

Three splits, disjoint by construction. A question is a (kind, crop, climate, phrasing) combination:

    train         neither of the two below
    combination   4 % of all combinations, picked by a hash of their name
    phrasing      UNSEEN_QUESTIONS, with any crop

Facts themselves are in train under other phrasings: the held-out splits ask whether the seedling
understood the question, not whether it can guess a spacing it was never told.
"""

import argparse
import hashlib
import random
import re
from dataclasses import dataclass, field

import phrasings as ph
from answers import (
    ANSWERS,
    CLIMATE_NAMES,
    CROPS,
    JSON_ANSWERS,
    a_calendar,
    a_month,
    a_pair,
    a_plan,
    applies,
    as_json,
    cap,
    check,
    listing,
    months,
    relation,
)

TRAIN, COMBINATION, PHRASING = "train", "combination", "phrasing"
HELD_OUT_PERCENT = 4


@dataclass
class Turn:
    user: str
    answer: str
    facts: list  # strings that a right answer must contain
    kind: str


@dataclass
class Talk:
    turns: list = field(default_factory=list)
    system: str | None = None

    def messages(self):
        """User and assistant messages, the system message folded into the first one."""
        out = []
        for i, t in enumerate(self.turns):
            user = f"{self.system}\n\n{t.user}" if i == 0 and self.system else t.user
            out += [{"role": "user", "content": user}, {"role": "assistant", "content": t.answer}]
        return out


KEYS = list(CROPS)

WEIGHTS = {
    "sow": 20, "out": 4, "depth": 6, "spacing": 6, "sprouts": 4, "soil_min": 3, "sun": 3, "time": 4, "frost": 3,
    "good": 4, "bad": 3, "companions": 3, "pest": 5, "harvest": 5, "store": 4, "soil": 4, "family": 4,
    "overview": 4, "guide": 2, "month": 6, "pair": 7, "calendar": 3, "plan": 7,
}  # fmt: skip
KINDS = list(WEIGHTS)
# For a second round of training: mostly what takes more than one crop, or reckoning with months.
PRACTICE = {kind: max(2, w // 2) for kind, w in WEIGHTS.items()} | {"month": 14, "pair": 22, "calendar": 6, "plan": 16, "guide": 4}
# For a third round, in which every question is asked in more ways.
WORDING = {kind: max(3, w // 2) for kind, w in WEIGHTS.items()} | {"overview": 5, "pest": 4, "month": 10, "pair": 26, "plan": 7, "guide": 2}


class Unwanted(Exception):
    """The draw belongs to another split, or asks for something that does not apply."""


def bucket(key):
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4]) % 100


class Generator:
    def __init__(self, seed, split=TRAIN, weights=WEIGHTS, more=False):
        self.rng = random.Random(f"{seed}/{split}")
        self.split = split
        self.weights = list(weights.values())
        self.more = more  # MORE_QUESTIONS too, and a larger share of single questions

    def talk(self):
        """The next talk of this split."""
        while True:
            try:
                return self._draw()
            except Unwanted:
                continue

    def single(self, kind):
        """A talk of one plain question of this kind."""
        while True:
            try:
                return Talk([self._question(kind)[0]])
            except Unwanted:
                continue

    def _draw(self):
        rng = self.rng
        x = rng.random()
        if self.split != TRAIN:
            turn, _ = self._question(rng.choices(KINDS, self.weights)[0])
            return Talk([turn], self._system(0.1))
        if self.more and x >= 0.55 and rng.random() < 0.5:
            x = 0.0  # mostly single questions
        if x < 0.55:
            turn, _ = self._question(rng.choices(KINDS, self.weights)[0])
            if rng.random() < 0.06:
                return self._one_sentence(turn)
            return Talk([turn], self._system(0.12))
        if x < 0.75:
            return self._several_turns()
        if x < 0.84:
            return self._json()
        if x < 0.92:
            return Talk([self._refusal()], self._system(0.12))
        if x < 0.96:
            answer, asks = rng.choice(ph.GENERAL)
            return Talk([Turn(self._dress(rng.choice(asks)), answer, [answer], "general")], self._system(0.12))
        return Talk([self._small_talk()], self._system(0.12))

    # which split a combination belongs to

    def _claim(self, key):
        if self.split != (COMBINATION if bucket(key) < HELD_OUT_PERCENT else TRAIN):
            raise Unwanted

    def _pick(self, kind, *what):
        """A phrasing of this kind that this split may use with that crop and climate, and its number."""
        if self.split == PHRASING:
            return self.rng.choice(ph.UNSEEN_QUESTIONS[kind]), 0
        templates = ph.QUESTIONS[kind][:-1] + (ph.MORE_QUESTIONS[kind] if self.more else [])
        n = self.rng.randrange(len(templates))
        self._claim("|".join([kind, *map(str, what), str(n)]))
        return templates[n], n

    # surface variation that does not change the question

    def _system(self, probability):
        return self.rng.choice(ph.SYSTEM) if self.rng.random() < probability else None

    def _dress(self, text, plain=False):
        rng = self.rng
        if self.split == TRAIN and not plain and rng.random() < 0.3:
            text = rng.choice(ph.BEFORE) + text + rng.choice(ph.AFTER)
        if rng.random() < 0.25:
            text = text.lower()
        if rng.random() < 0.15:
            text = text.rstrip("?.!")
        if self.split == TRAIN and rng.random() < 0.03:
            at = rng.randrange(len(text))  # a slip of the finger
            text = text[:at] + rng.choice(["", text[at] * 2, rng.choice("aeinrst")]) + text[at + 1 :]
        return text

    def _nonsense(self):
        return "".join(self.rng.choice(ph.SYLLABLES) for _ in range(self.rng.choice([2, 2, 3, 3, 4])))

    def _climate(self):
        """A climate or None, and how the user says it."""
        if self.rng.random() < 0.2:
            return None, ""
        name = self.rng.choice(CLIMATE_NAMES)
        return name, self.rng.choice(ph.CLIMATES[name])

    def _name(self, c, kind):
        """How the user calls the crop (plural, singular), and the alias if it is one."""
        if c["aliases"] and self.rng.random() < 0.25:
            alias = self.rng.choice(c["aliases"])
            return alias, alias, alias
        x = self.rng.random()
        if x < 0.06 and not c["mass"]:
            return c["singular"], c["singular"], None
        if x < 0.1 and c["verb"] == "sow" and kind in ("sow", "depth", "spacing", "sprouts", "soil_min"):
            return f"{c['singular']} seeds", c["singular"], None
        return c["plural"], c["singular"], None

    def _fill(self, template, crop, p, s, **more):
        fields = {"p": p, "P": cap(p), "s": s, "v": crop["verb"], "V": crop["verb_past"], "it": "it" if crop["mass"] else "them", "c": ""}
        text = template.format(**(fields | more))
        if crop["mass"] and p == crop["plural"]:
            for a, b in (("do", "does"), ("are", "is"), ("have", "has")):
                text = re.sub(rf"\b{a} {re.escape(p)}\b", f"{b} {p}", text)
                text = re.sub(rf"\b{cap(a)} {re.escape(p)}\b", f"{cap(b)} {p}", text)
            text = text.replace(f"{p} are ", f"{p} is ").replace(f"{p} have ", f"{p} has ")
        return cap(text)

    def _question(self, kind):
        """A turn, and what later turns may refer to: (kind, crop, climate)."""
        rng = self.rng
        c = CROPS[rng.choice(KEYS)]
        climate, where_ = self._climate()
        if kind == "calendar":
            m = rng.randrange(12)
            template, _ = self._pick(kind, m, climate)
            text, facts = a_calendar(m, climate)
            said = rng.choice(ph.SEASONS[m]) if m in ph.SEASONS and "It is" not in template and rng.random() < 0.3 else ph.MONTHS[m]
            return Turn(self._dress(template.format(m=said, c=where_)), text, facts, kind), None
        if kind == "plan":
            crops = [CROPS[k] for k in rng.sample(KEYS, rng.choice([2, 2, 2, 3, 3, 4, 5]))]
            template, _ = self._pick(kind, climate, *(x["key"] for x in crops))
            text, facts = a_plan(crops, climate)
            user = template.format(list=listing([x["plural"] for x in crops]), c=where_)
            return Turn(self._dress(user), text, facts, kind), None
        if kind == "pair":
            other = [b for b in CROPS.values() if b is not c and relation(c, b) != "neutral"]
            q = rng.choice(other) if other and rng.random() < (0.8 if self.more else 0.65) else CROPS[rng.choice(KEYS)]
            if q is c:
                raise Unwanted
            template, _ = self._pick(kind, c["key"], q["key"])
            text, facts = a_pair(c, q)
            return Turn(self._dress(self._fill(template, c, c["plural"], c["singular"], q=q["plural"])), text, facts, kind), None
        p, s, alias = self._name(c, kind)
        if kind == "month":
            fit = months(c["sow"][CLIMATE_NAMES.index(climate or "temperate")])
            m = rng.choice(sorted(fit)) if rng.random() < 0.5 else rng.randrange(12)
            template, _ = self._pick(kind, c["key"], climate, m)
            text, facts = a_month(c, m, climate)
            user = self._fill(template, c, c["plural"], s, m=ph.MONTHS[m], c=where_)
            return Turn(self._dress(user), text, facts, kind), ("sow", c, climate)
        if kind not in ("sow", "out"):
            climate, where_ = None, ""
        elif kind == "sow" and climate is None:
            where_ = ""
        if not applies(kind, c, climate):
            raise Unwanted
        template, n = self._pick(kind, c["key"], climate)
        if where_ == "" and "live{c}" in template:
            raise Unwanted
        text, facts = ANSWERS[kind](c, climate, alias, n % 3 == 2)
        return Turn(self._dress(self._fill(template, c, p, s, c=where_)), text, facts, kind), (kind, c, climate)

    def _several_turns(self):
        rng = self.rng
        turns, about = [], None
        if rng.random() < 0.12:
            turns.append(self._small_talk(ph.HELLO))
        while about is None or about[0] not in ph.FOLLOW_UPS and about[0] not in ("out", "overview", "guide", "companions"):
            turn, about = self._question(rng.choices(KINDS[:18], self.weights[:18])[0])
        turns.append(turn)
        for _ in range(rng.choice([1, 1, 1, 2, 2, 3])):
            kind, c, climate = about
            x = rng.random()
            if x < 0.55:
                new = rng.choice(list(ph.FOLLOW_UPS))
                if new == kind or not applies(new, c, climate):
                    continue
                n = rng.randrange(len(ph.FOLLOW_UPS[new]))
                said, where_ = None, ""
                if new == "sow" and "{c}" in ph.FOLLOW_UPS[new][n] and rng.random() < 0.4:
                    said, where_ = self._climate()
                climate = said or climate
                self._claim(f"follow|{new}|{c['key']}|{climate}|{n}")
                user = self._fill(ph.FOLLOW_UPS[new][n], c, c["plural"], c["singular"], c=where_)
                kind = new
            elif x < 0.8:
                c = CROPS[rng.choice(KEYS)]
                if not applies(kind, c, climate):
                    continue
                n = rng.randrange(len(ph.SAME_QUESTION))
                self._claim(f"same|{kind}|{c['key']}|{climate}|{n}")
                user = ph.SAME_QUESTION[n].format(p=c["plural"])
            elif kind in ("sow", "out"):
                climate = rng.choice(CLIMATE_NAMES)
                if not applies(kind, c, climate):
                    continue
                n = rng.randrange(len(ph.OTHER_CLIMATE))
                self._claim(f"climate|{kind}|{c['key']}|{climate}|{n}")
                user = ph.OTHER_CLIMATE[n].format(c=rng.choice(ph.CLIMATES[climate]))
            else:
                continue
            text, facts = ANSWERS[kind](c, climate if kind in ("sow", "out") else None)
            turns.append(Turn(self._dress(user, plain=True), text, facts, f"{kind}, later turn"))
            about = kind, c, climate
        if rng.random() < 0.1:
            turns.append(self._small_talk(rng.choice([ph.THANKS, ph.BYE])))
        elif rng.random() < 0.08:
            turns.append(self._refusal())
        return Talk(turns, self._system(0.12))

    def _one_sentence(self, turn):
        if "\n" in turn.answer:
            raise Unwanted
        first = re.split(r"(?<=\.) (?=[A-Z])", turn.answer)[0]
        if first in ("Yes.", "No."):
            raise Unwanted
        turn.facts = [f for f in turn.facts if f in first]
        turn.answer = first
        return Talk([turn], self.rng.choice(ph.SYSTEM_ONE))

    def _json(self):
        rng = self.rng
        by_system = rng.random() < 0.4
        if by_system and rng.random() < 0.12:
            turn = self._refusal()
            turn.answer = as_json({"error": turn.answer.split(".")[0] + "."})
            turn.facts = [turn.answer]
            return Talk([turn], rng.choice(ph.SYSTEM_JSON))
        if rng.random() < 0.3:
            c = CROPS[rng.choice(KEYS)]
            p, _, _ = self._name(c, "card")
            n = rng.randrange(len(ph.JSON_CARD))
            self._claim(f"card|{c['key']}|{n}")
            user, kind, climate = ph.JSON_CARD[n].format(p=p, P=cap(p)), "card", None
        else:
            kind = rng.choice([k for k in JSON_ANSWERS if k != "card"] + ["sow"] * 6 + ["spacing"] * 2 + ["depth"] * 2)
            turn, (_, c, climate) = self._question(kind)
            user = turn.user
            if not by_system:
                user += ("" if user[-1] in "?.!" else ".") + rng.choice(ph.ASK_JSON)
        answer = as_json(JSON_ANSWERS[kind](c, climate))
        system = rng.choice(ph.SYSTEM_JSON) if by_system else self._system(0.1)
        return Talk([Turn(user, answer, [answer], f"{kind} as JSON")], system)

    def _refusal(self):
        rng = self.rng
        if rng.random() < 0.45:
            kind = rng.choice([k for k in KINDS[:20] if k != "out"])
            template = rng.choice(ph.QUESTIONS[kind][:-1] + (ph.MORE_QUESTIONS[kind] if self.more else []))
            _, where_ = self._climate()
            p = self._nonsense() if rng.random() < 0.4 else rng.choice(ph.UNKNOWN_PLANTS)
            verb = rng.choice(["sow", "plant"])
            user = template.format(p=p, P=cap(p), s=p, v=verb, V=f"{verb}ed", it="them", c=where_, m=rng.choice(ph.MONTHS))
            return Turn(self._dress(cap(user)), ph.NO_PLANT, [ph.NO_PLANT], "refusal")
        fill = {k: self._nonsense() if rng.random() < 0.25 else rng.choice(v) for k, v in ph.FILL.items()}
        return Turn(self._dress(rng.choice(ph.OFF_TOPIC).format(**fill)), ph.NO_TOPIC, [ph.NO_TOPIC], "refusal")

    def _small_talk(self, answer=None):
        answer = answer or self.rng.choice(list(ph.SMALL_TALK))
        return Turn(self._dress(self.rng.choice(ph.SMALL_TALK[answer]), plain=True), answer, [answer], "small talk")


if __name__ == "__main__":
    args = argparse.ArgumentParser()
    args.add_argument("--split", default=TRAIN, choices=[TRAIN, COMBINATION, PHRASING])
    args.add_argument("--count", type=int, default=40)
    args.add_argument("--seed", default="look")
    args = args.parse_args()
    check()
    g = Generator(args.seed, args.split)
    for _ in range(args.count):
        t = g.talk()
        if t.system:
            print(f"[{t.system}]")
        for turn in t.turns:
            print(f"> {turn.user}\n{turn.answer}    ({turn.kind})")
        print()
