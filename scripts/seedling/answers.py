"""What facts.toml says, as sentences, lists and JSON.

Every answer comes with the strings that make it right: the months, numbers and names that a reply to
the same question has to contain. The evaluation looks for exactly these.
"""

import json
import re
import tomllib
from pathlib import Path

import phrasings as ph

CLIMATE_NAMES = ["cold", "temperate", "warm"]
RELATIVES_SHOWN = 3
CALENDAR_SHOWN = 6


def cap(text):
    return text[:1].upper() + text[1:]


def listing(names):
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def load_crops():
    crops = tomllib.loads((Path(__file__).parent / "facts.toml").read_text())
    for key, c in crops.items():
        c["key"] = key
        c.setdefault("singular", key.replace("-", " "))
        c.setdefault("aliases", [])
        c.setdefault("out", ["", "", ""])
        c["mass"] = c["plural"] == c["singular"] and key != "chives" or c["plural"] in ("garlic", "asparagus")
        c["verb"] = "plant" if "plants" in c else "sow"
        c["verb_past"] = "planted" if "plants" in c else "sown"
    return crops


CROPS = load_crops()
BY_PLURAL = {c["plural"]: c for c in CROPS.values()}


def months(window):
    """The months named or spanned by a window such as "in May, and again in August"."""
    number = {m: i for i, m in enumerate(ph.MONTHS)}
    name = "|".join(ph.MONTHS)
    qualifier = r"(?:early |mid-|late )?"
    found = set()
    span = rf"from {qualifier}({name}) to {qualifier}({name})"
    for a, b in re.findall(span, window):
        i = number[a]
        found.add(i)
        while i != number[b]:
            i = (i + 1) % 12
            found.add(i)
    found |= {number[m] for m in re.findall(name, re.sub(span, "", window))}
    return found


# --- answers: each returns (text, facts) ---


def named(c, alias):
    return f"{c['plural']} ({alias})" if alias else c["plural"]


def thing(c, alias=None):
    """What is put into the ground, for the object of "sow" or "plant"."""
    return c["plants"] if "plants" in c else named(c, alias)


def window(c, climate):
    i = CLIMATE_NAMES.index(climate)
    sow, out = c["sow"][i], c["out"][i]
    return sow + (f" and plant {'it' if c['mass'] else 'them'} out {out}" if out else ""), [sow] + ([out] if out else [])


def a_sow(c, climate, alias=None, style=0):
    text, facts = window(c, climate or "temperate")
    if climate is None:
        return (
            f"In a temperate climate, {c['verb']} {thing(c, alias)} {text}. Ask me about a cold or a warm climate too.",
            facts,
        )
    if style:
        return f"{cap(c['verb'])} {thing(c, alias)} {text} if your climate is {climate}.", facts
    return f"In a {climate} climate, {c['verb']} {thing(c, alias)} {text}.", facts


def a_out(c, climate, alias=None, style=0):
    out = c["out"][CLIMATE_NAMES.index(climate or "temperate")]
    return f"In a {climate or 'temperate'} climate, plant {named(c, alias)} out {out}.", [out]


def depth_phrase(c):
    if "depth_text" in c:
        return c["depth_text"]
    return "on the surface" if c["depth"] == 0 else f"{c['depth']} cm deep"


def a_depth(c, climate=None, alias=None, style=0):
    d = depth_phrase(c)
    if c.get("depth") == 0:
        return f"Sow {thing(c, alias)} {d} and do not cover the seeds, because they need light.", [d]
    return f"{cap(c['verb'])} {thing(c, alias)} {d}.", [d]


def a_spacing(c, climate=None, alias=None, style=0):
    a, b = c["spacing"]
    facts = [f"{a} cm", f"{b} cm"]
    if style:
        return f"Space {named(c, alias)} {a} cm apart, in rows {b} cm apart.", facts
    return f"Leave {a} cm between {named(c, alias)} and {b} cm between the rows.", facts


def is_(c):
    return "is" if c["mass"] else "are"


def s_(c, verb):
    return verb + ("es" if verb.endswith("o") else "s") if c["mass"] else verb


def they(c):
    return "it" if c["mass"] else "they"


def a_sprouts(c, climate=None, alias=None, style=0):
    fact = f"{c['sprouts']} days"
    return f"{cap(named(c, alias))} {s_(c, 'come')} up in {fact}.", [fact]


def a_soil_min(c, climate=None, alias=None, style=0):
    fact = f"{c['soil_min']} °C"
    return f"{cap(c['verb'])} {thing(c, alias)} once the soil is at least {fact}.", [fact]


def a_sun(c, climate=None, alias=None, style=0):
    if c["sun"] == "full sun":
        return f"{cap(named(c, alias))} {s_(c, 'need')} full sun.", ["full sun"]
    return f"{cap(named(c, alias))} {s_(c, 'grow')} well in {c['sun']}.", [c["sun"]]


def a_time(c, climate=None, alias=None, style=0):
    return f"{cap(named(c, alias))} {is_(c)} ready {c['time']} after {c['verb']}ing.", [c["time"]]


FROST = {
    "tender": "any frost kills {them}",
    "half-hardy": "{they} {stand} a light frost, but not a hard one",
    "hardy": "{they} {stand} frost",
    "very hardy": "{they} {stand} hard frost",
}


def a_frost(c, climate=None, alias=None, style=0):
    why = FROST[c["frost"]].format(they=they(c), stand=s_(c, "stand"), them="it" if c["mass"] else "them")
    return f"{cap(named(c, alias))} {is_(c)} {c['frost']}: {why}.", [f"{is_(c)} {c['frost']}:"]


def a_good(c, climate=None, alias=None, style=0):
    if not c["good"]:
        return f"{cap(named(c, alias))} {'has' if c['mass'] else 'have'} no good companions: give {'it' if c['mass'] else 'them'} a separate place.", ["no good companions"]
    return f"Good companions for {named(c, alias)} are {listing(c['good'])}.", c["good"]


def a_bad(c, climate=None, alias=None, style=0):
    if not c["bad"]:
        return f"No neighbour is known to harm {named(c, alias)}.", ["No neighbour"]
    return f"Keep {named(c, alias)} away from {listing(c['bad'])}.", c["bad"]


def a_companions(c, climate=None, alias=None, style=0):
    (good, f), (bad, g) = a_good(c, alias=alias), a_bad(c)
    return f"{good} {bad}", f + g


def a_pest(c, climate=None, alias=None, style=0):
    trouble, remedy = c["trouble"]
    return f"The main trouble with {named(c, alias)} is {trouble}. What helps: {remedy}.", [trouble, remedy]


def a_harvest(c, climate=None, alias=None, style=0):
    return f"Harvest {named(c, alias)} {c['harvest']}.", [c["harvest"]]


def a_store(c, climate=None, alias=None, style=0):
    return f"Store {named(c, alias)} {c['store']}.", [c["store"]]


def a_soil(c, climate=None, alias=None, style=0):
    return f"{cap(named(c, alias))} {s_(c, 'like')} {c['soil']}.", [c["soil"]]


def a_family(c, climate=None, alias=None, style=0):
    others = [o["plural"] for o in CROPS.values() if o["family"] == c["family"] and o is not c][:RELATIVES_SHOWN]
    with_ = f", with {listing(others)}" if others else ""
    return (
        f"{cap(named(c, alias))} {s_(c, 'belong')} to the {c['family']} family{with_}. Give that family another bed for three years.",
        [f"the {c['family']} family"],
    )


def where(c, climate):
    """ "sow 1 cm deep outdoors from May to July, 5 cm apart" """
    text, facts = window(c, climate)
    apart = f"{c['spacing'][0]} cm apart"
    return f"{c['verb']} {depth_phrase(c)} {text}, {apart}", facts + [depth_phrase(c), apart]


def a_overview(c, climate=None, alias=None, style=0):
    text, facts = window(c, "temperate")
    it, gap = "it" if c["mass"] else "them", f"{c['spacing'][0]} cm"
    return (
        f"In a temperate climate, {c['verb']} {thing(c, alias)} {text}. "
        f"{cap(c['verb'])} {it} {depth_phrase(c)} and leave {gap} between plants. Harvest {c['harvest']}.",
        facts + [depth_phrase(c), gap, c["harvest"]],
    )


def a_guide(c, climate=None, alias=None, style=0):
    text, facts = window(c, "temperate")
    a, b = c["spacing"]
    trouble, remedy = c["trouble"]
    steps = [
        f"In a temperate climate, {c['verb']} {thing(c)} {text}.",
        f"{cap(c['verb'])} {'it' if c['mass'] else 'them'} {depth_phrase(c)}.",
        f"Leave {a} cm between plants and {b} cm between rows.",
        f"Choose {c['sun']} and {c['soil']}.",
        f"Watch for {trouble}: {remedy}.",
        f"Harvest after {c['time']}, {c['harvest']}.",
        f"Store {'it' if c['mass'] else 'them'} {c['store']}.",
    ]
    text = f"How to grow {named(c, alias)}:\n" + "\n".join(f"{i}. {s}" for i, s in enumerate(steps, 1))
    return text, facts + [depth_phrase(c), f"{a} cm", f"{b} cm", c["sun"], c["soil"], trouble, remedy, c["time"], c["harvest"], c["store"]]


ANSWERS = {
    "sow": a_sow, "out": a_out, "depth": a_depth, "spacing": a_spacing, "sprouts": a_sprouts, "soil_min": a_soil_min,
    "sun": a_sun, "time": a_time, "frost": a_frost, "good": a_good, "bad": a_bad, "companions": a_companions,
    "pest": a_pest, "harvest": a_harvest, "store": a_store, "soil": a_soil, "family": a_family,
    "overview": a_overview, "guide": a_guide,
}  # fmt: skip


def applies(kind, c, climate):
    """Whether facts.toml says anything on this for that crop."""
    if kind == "out":
        return bool(c["out"][CLIMATE_NAMES.index(climate or "temperate")])
    if kind in ("sprouts", "soil_min"):
        return kind in c
    return True


def group(c):
    return {c["plural"]} | ({"beans"} if c["singular"].endswith("bean") else set())


def relation(a, b):
    if group(b) & set(a["bad"]) or group(a) & set(b["bad"]):
        return "bad"
    return "good" if group(b) & set(a["good"]) or group(a) & set(b["good"]) else "neutral"


def a_pair(a, b):
    p, q = a["plural"], b["plural"]
    return {
        "good": (f"Yes, {p} and {q} are good companions.", ["Yes", "good companions"]),
        "bad": (f"No, keep {p} away from {q}.", ["No, keep"]),
        "neutral": (f"Yes, {p} and {q} can share a bed.", ["Yes", "can share"]),
    }[relation(a, b)]


def a_month(c, m, climate):
    text, facts = a_sow(c, climate or "temperate")
    yes = "Yes." if m in months(c["sow"][CLIMATE_NAMES.index(climate or "temperate")]) else "No."
    return f"{yes} {text}", [yes] + facts


def a_calendar(m, climate):
    i = CLIMATE_NAMES.index(climate or "temperate")
    fit = [c for c in CROPS.values() if m in months(c["sow"][i])]
    head = f"In {ph.MONTHS[m]}, in a {CLIMATE_NAMES[i]} climate"
    if not fit:
        return f"{head}, there is nothing to sow. Plan your beds and order seeds.", ["nothing to sow"]
    step = max(1, len(fit) // CALENDAR_SHOWN)
    lines = []
    for c in fit[::step][:CALENDAR_SHOWN]:
        place = re.match(r"(indoors|outdoors|in a seedbed)?", c["sow"][i]).group()
        lines.append(f"- {thing(c)}" + (f", {place}" if place else ""))
    return f"{head}, you can start:\n" + "\n".join(lines), lines


def a_plan(crops, climate):
    climate = climate or "temperate"
    lines, facts = [f"Planting plan for a {climate} climate:"], []
    for i, c in enumerate(crops, 1):
        text, f = where(c, climate)
        lines.append(f"{i}. {cap(c['plural'])}: {text}.")
        facts += [lines[-1]]
    return "\n".join(lines), facts


# --- JSON answers ---


def j_sow(c, climate):
    i = CLIMATE_NAMES.index(climate or "temperate")
    d = {"crop": c["singular"], "climate": CLIMATE_NAMES[i], c["verb"]: c["sow"][i]}
    return d | ({"plant_out": c["out"][i]} if c["out"][i] else {})


def j_depth(c):
    return {"depth": c["depth_text"]} if "depth_text" in c else {"depth_cm": c["depth"]}


JSON_ANSWERS = {
    "sow": j_sow,
    "depth": lambda c, _: {"crop": c["singular"]} | j_depth(c),
    "spacing": lambda c, _: {"crop": c["singular"], "spacing_cm": c["spacing"][0], "row_cm": c["spacing"][1]},
    "sprouts": lambda c, _: {"crop": c["singular"], "germination_days": c["sprouts"]},
    "soil_min": lambda c, _: {"crop": c["singular"], "soil_min_c": c["soil_min"]},
    "sun": lambda c, _: {"crop": c["singular"], "light": c["sun"]},
    "time": lambda c, _: {"crop": c["singular"], "time": c["time"]},
    "frost": lambda c, _: {"crop": c["singular"], "frost": c["frost"]},
    "good": lambda c, _: {"crop": c["singular"], "good": c["good"]},
    "bad": lambda c, _: {"crop": c["singular"], "bad": c["bad"]},
    "companions": lambda c, _: {"crop": c["singular"], "good": c["good"], "bad": c["bad"]},
    "pest": lambda c, _: {"crop": c["singular"], "trouble": c["trouble"][0], "remedy": c["trouble"][1]},
    "harvest": lambda c, _: {"crop": c["singular"], "harvest": c["harvest"]},
    "store": lambda c, _: {"crop": c["singular"], "store": c["store"]},
    "soil": lambda c, _: {"crop": c["singular"], "soil": c["soil"]},
    "family": lambda c, _: {"crop": c["singular"], "family": c["family"]},
    "card": lambda c, _: j_sow(c, None)
    | j_depth(c)
    | {"spacing_cm": c["spacing"][0], "row_cm": c["spacing"][1], "time": c["time"], "harvest": c["harvest"]},
}


def as_json(value):
    return json.dumps(value, ensure_ascii=False)


def check():
    """What facts.toml must fulfil."""
    for c in CROPS.values():
        assert len(c["sow"]) == len(c["out"]) == 3 and len(c["spacing"]) == 2, c["key"]
        assert all(months(w) for w in c["sow"]), c["key"]
        assert ("depth" in c) != ("depth_text" in c), c["key"]
        for other in c["good"] + c["bad"]:
            assert other in BY_PLURAL or other == "beans", (c["key"], other)
        for other in CROPS.values():
            good = group(other) & set(c["good"]) or group(c) & set(other["good"])
            bad = group(other) & set(c["bad"]) or group(c) & set(other["bad"])
            assert not (good and bad), f"{c['key']} and {other['key']} are both good and bad neighbours"
