"""The words: attributes of a picture, captions for them, and the pairs kept out of training.

A picture has a kind, a colour, and perhaps a material, an effect and a background. Captions are
composed afresh every time a picture is shown, in varied words and orders. Some pairs of kind and
colour are never drawn for training, whatever the other attributes: they are in heldout.json.

    python captions.py --write-heldout     chooses them (once, before any training)
    python captions.py --show 20           prints some captions
"""

import argparse
import functools
import json
import os

import numpy as np

KINDS = {
    "sword": ["sword", "sword", "longsword", "broadsword"], "dagger": ["dagger", "dagger", "knife"],
    "axe": ["axe", "axe", "hatchet"], "battle axe": ["battle axe", "battle axe", "double axe", "war axe"],
    "hammer": ["hammer", "hammer", "warhammer"], "mace": ["mace", "mace", "morning star"],
    "spear": ["spear", "spear", "lance"], "bow": ["bow", "bow", "longbow"], "crossbow": ["crossbow"],
    "staff": ["staff", "staff", "wizard staff"], "wand": ["wand", "wand", "magic wand"],
    "shield": ["shield", "shield", "buckler"], "helmet": ["helmet", "helmet", "helm"],
    "armour": ["armour", "armor", "chestplate", "breastplate"], "boots": ["boots", "boots", "pair of boots", "shoes"],
    "gloves": ["gloves", "glove", "gauntlet", "gauntlets"], "ring": ["ring", "ring", "magic ring"],
    "amulet": ["amulet", "amulet", "necklace", "pendant"], "crown": ["crown", "crown", "royal crown"],
    "potion": ["potion", "potion", "vial", "flask", "elixir"], "scroll": ["scroll", "scroll", "magic scroll"],
    "book": ["book", "book", "tome", "spellbook"], "key": ["key", "key", "old key"],
    "chest": ["chest", "chest", "treasure chest"], "gem": ["gem", "gem", "gemstone", "jewel"], "coin": ["coin", "coin"],
}
COLOURS = {
    "red": ["red", "red", "red", "crimson", "scarlet", "ruby"], "orange": ["orange", "orange", "amber"],
    "yellow": ["yellow", "yellow", "yellow", "golden"], "green": ["green", "green", "green", "emerald", "lime"],
    "cyan": ["cyan", "cyan", "teal", "turquoise"], "blue": ["blue", "blue", "blue", "azure", "sapphire"],
    "purple": ["purple", "purple", "violet"], "pink": ["pink", "pink", "rose", "magenta"],
    "brown": ["brown", "brown", "chestnut"], "white": ["white", "white", "ivory", "snow white"],
    "black": ["black", "black", "jet black", "ebony"], "grey": ["grey", "gray", "silver"],
}
MATERIALS = {
    "iron": ["iron", "iron", "wrought iron"], "steel": ["steel", "steel", "polished steel"], "gold": ["gold", "gold", "solid gold"],
    "wood": ["wooden", "wood", "oak"], "stone": ["stone", "stone", "granite"], "crystal": ["crystal", "crystal", "glass"],
    "obsidian": ["obsidian"], "bone": ["bone"],
}
# The colour of a material when the caption names no colour.
NATURAL = {"iron": "grey", "steel": "grey", "gold": "yellow", "wood": "brown", "stone": "grey",
           "crystal": "cyan", "obsidian": "black", "bone": "white"}
EFFECTS = {  # words before the item, and phrases after it
    "flaming": (["flaming", "flaming", "burning", "fiery"], ["in flames", "on fire", "wrapped in flames"]),
    "frozen": (["frozen", "frozen", "icy", "frosty"], ["covered in ice", "encased in ice"]),
    "poisonous": (["poisonous", "poisonous", "poisoned", "toxic"], ["dripping with poison", "dripping poison"]),
    "electric": (["electric", "electric", "shocking", "electrified"], ["crackling with lightning", "with lightning"]),
    "glowing": (["glowing", "glowing", "shining", "radiant"], ["with a bright glow", "surrounded by light"]),
    "cursed": (["cursed", "cursed", "haunted", "evil"], ["with a dark curse", "wrapped in shadow"]),
}
BACKGROUNDS = {
    "dark": ["on a dark background", "on a plain dark background", "dark background"],
    "light": ["on a light background", "on a plain light background", "light background"],
    "parchment": ["on parchment", "on old parchment", "parchment background"],
    "gradient": ["on a gradient background", "gradient background", "on a soft gradient"],
    "dungeon": ["in a dungeon", "on a dungeon wall", "dungeon background"],
    "forest": ["in a forest", "in the woods", "forest background"],
    "night": ["under a night sky", "night sky background", "under the stars"],
}
BACKGROUNDS_LIST = list(BACKGROUNDS)

# Words that change nothing in the picture, so that people may write them all the same.
FILLERS = ["old", "ancient", "epic", "legendary", "magic", "magical", "enchanted", "beautiful", "ornate", "shiny", "mighty",
           "small", "big", "large", "rare", "simple", "fine", "leather", "metal", "royal", "heavy", "sharp", "mystic", "holy"]
STYLES = ["game item", "game icon", "game asset", "inventory icon", "fantasy", "fantasy art", "sprite", "highly detailed", "rpg"]

NAMES = {"kind": list(KINDS), "colour": list(COLOURS), "material": [None, *MATERIALS],
         "effect": [None, *EFFECTS], "background": list(BACKGROUNDS)}
HELD_OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "heldout.json")


@functools.lru_cache(None)
def held_out():
    with open(HELD_OUT) as f:
        return json.load(f)


def held_out_pairs():
    return {(p["kind"], p["colour"]) for p in held_out()["prompts"]}


def random_attributes(rng, held=frozenset()):
    """Attributes of one picture. `said` is False where the caption must not name the colour."""
    pick = lambda names: names[rng.integers(len(names))]
    while True:
        material = pick(list(MATERIALS)) if rng.random() < 0.45 else None
        said = rng.random() < (0.72 if material else 0.97)
        colour = NATURAL[material] if material and not said else pick(NAMES["colour"])
        a = {"kind": pick(NAMES["kind"]), "colour": colour, "material": material,
             "effect": pick(list(EFFECTS)) if rng.random() < 0.45 else None,
             "background": pick(BACKGROUNDS_LIST), "said": said}
        if (a["kind"], a["colour"]) not in held:
            return a


def to_codes(a):
    """Attributes as five small numbers; a colour that is not said is stored as -1 - colour."""
    colour = NAMES["colour"].index(a["colour"])
    return [NAMES["kind"].index(a["kind"]), colour if a["said"] else -1 - colour,
            NAMES["material"].index(a["material"]), NAMES["effect"].index(a["effect"]),
            NAMES["background"].index(a["background"])]


def from_codes(codes):
    kind, colour, material, effect, background = (int(c) for c in codes)
    said, colour = colour >= 0, colour if colour >= 0 else -1 - colour
    return {"kind": NAMES["kind"][kind], "colour": NAMES["colour"][colour], "material": NAMES["material"][material],
            "effect": NAMES["effect"][effect], "background": NAMES["background"][background], "said": said}


def compose(rng, a, background=None):
    """A caption for the attributes; `background` forces the background to be named or not."""
    pick = lambda words: words[rng.integers(len(words))]
    before, after = [], []
    if a["effect"]:
        words, phrases = EFFECTS[a["effect"]]
        if rng.random() < 0.7:
            before.append(pick(words))
        else:
            after.append(pick(phrases))
    if a["said"]:
        before.append(pick(COLOURS[a["colour"]]))
    if a["material"]:
        word = pick(MATERIALS[a["material"]])
        if rng.random() < 0.85:
            before.append(word)
        else:
            after.insert(0, "made of " + ("wood" if word == "wooden" else word))
    if len(before) > 1 and rng.random() < 0.2:
        before = [before[i] for i in rng.permutation(len(before))]
    if rng.random() < 0.12:
        before.insert(rng.integers(0, len(before) + 1), pick(FILLERS))
    if rng.random() < 0.03:  # a word that the tokenizer must spell
        before.insert(rng.integers(0, len(before) + 1), "".join(pick("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.integers(3, 8))))
    noun = pick(KINDS[a["kind"]])
    named = rng.random() < 0.7 if background is None else background
    where = pick(BACKGROUNDS[a["background"]]) if named else ""

    plural = noun.endswith("s") or noun.startswith("arm")
    words = " ".join([*before, noun, *after])
    article = rng.random()
    if article < 0.6 and not plural:
        words = ("an " if words[0] in "aeiou" else "a ") + words
    elif article < 0.7:
        words = "the " + words
    if rng.random() < 0.2:
        words = pick(["icon of ", "a game icon of ", "picture of ", "a drawing of ", "game item, "]) + words
    if where:
        words += (" " if where.split()[0] in ("on", "in", "under") and rng.random() < 0.8 else ", ") + where
    if rng.random() < 0.2:
        words += ", " + pick(STYLES)
    return words


def vocabulary_words():
    """Every word a caption can have, each once: what the tokenizer is trained on."""
    texts = [w for group in (KINDS, COLOURS, MATERIALS, BACKGROUNDS) for words in group.values() for w in words]
    texts += [w for pair in EFFECTS.values() for words in pair for w in words]
    texts += FILLERS + STYLES + ["a an the and with made of for icon game picture drawing item"]
    return sorted({w for text in texts for w in text.split()})


def write_held_out(path=HELD_OUT, seed=2026, per_kind=3):
    """Three colours of every kind, each colour equally often, with prompts and seeds."""
    rng = np.random.default_rng(seed)
    kinds, colours = NAMES["kind"], NAMES["colour"]
    while True:
        deck = np.concatenate([rng.permutation(len(colours)) for _ in range(1 + per_kind * len(kinds) // len(colours))])
        hands = [deck[per_kind * k: per_kind * (k + 1)] for k in range(len(kinds))]
        if all(len(set(hand)) == per_kind for hand in hands):
            break
    prompts = []
    for kind, hand in zip(kinds, hands):
        for n, colour in enumerate(hand):
            a = {"kind": kind, "colour": colours[colour], "said": True, "background": BACKGROUNDS_LIST[rng.integers(len(BACKGROUNDS))],
                 "material": None, "effect": None}
            if n == 1 or (n == 2 and rng.random() < 0.5):
                a["effect"] = list(EFFECTS)[rng.integers(len(EFFECTS))]
            if n == 2:
                a["material"] = list(MATERIALS)[rng.integers(len(MATERIALS))]
            said = n > 0
            prompts.append({"prompt": compose(rng, a, background=said), "kind": kind, "colour": a["colour"],
                            "material": a["material"], "effect": a["effect"], "background": a["background"] if said else None})
    with open(path, "w") as f:
        f.write('{\n  "seeds": [1, 2, 3, 4, 5],\n  "prompts": [\n    ')
        f.write(",\n    ".join(json.dumps(p) for p in prompts))
        f.write("\n  ]\n}\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write-heldout", action="store_true")
    parser.add_argument("--show", type=int, default=0, help="print this many captions")
    options = parser.parse_args()
    if options.write_heldout:
        write_held_out()
    generator = np.random.default_rng()
    for _ in range(options.show):
        print(compose(generator, random_attributes(generator)))
