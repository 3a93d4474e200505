"""A small CLIP vocabulary that can encode anything, tokenizer folders in the forms that are found
in the wild, and the ids that transformers gives for a few hundred strings."""

import collections
import json
import pathlib
import random
import re

from transformers import CLIPTokenizer

MERGES = 420
START, END = "<|startoftext|>", "<|endoftext|>"
MAX_LENGTH = 77

CORPUS = """
a flaming obsidian sword, pixel art a frozen silver dagger with a golden hilt on a dark background
an ancient wooden shield with iron rivets, game item, isometric view, highly detailed, 4k
a glowing purple potion in a round glass bottle, cork stopper, sparkling, fantasy game icon
a cursed black crown with red rubies, a leather bound book with brass corners, parchment scroll
the quick brown fox jumps over the lazy dog and doesn't it's we're they've i'm you'll he'd
a poisonous green axe an electric blue staff a crimson cloak a teal ring a violet amulet
photograph of an astronaut riding a horse on mars, masterpiece, best quality, sharp focus
blurry, low quality, watermark, text, deformed, bad anatomy, worst quality, jpeg artifacts
"""


def byte_characters():
    """GPT-2's printable stand-ins: byte -> character, in CLIP's order of ids."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in table:
            table[byte] = chr(256 + len(table) - len(printable))
    return table


def train(corpus, count):
    """Plain byte-pair training: (vocabulary, merges). Ties go to the smallest pair."""
    table = byte_characters()
    words = collections.Counter()
    for word in re.findall(r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+", corpus.lower()):
        symbols = [table[byte] for byte in word.encode()]
        words[(*symbols[:-1], symbols[-1] + "</w>")] += 1
    merges = []
    while len(merges) < count:
        pairs = collections.Counter()
        for word, times in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += times
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        merged = collections.Counter()
        for word, times in words.items():
            out = []
            for symbol in word:
                if out and (out[-1], symbol) == best:
                    out[-1] += symbol
                else:
                    out.append(symbol)
            merged[tuple(out)] += times
        words = merged
    tokens = list(table.values())
    tokens += [token + "</w>" for token in tokens]
    tokens += [left + right for left, right in merges]
    tokens += [START, END]
    return {token: i for i, token in enumerate(tokens)}, merges


def added_token(content, **options):
    return {"content": content, "lstrip": False, "normalized": True, "rstrip": False,
            "single_word": False, **options}


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def write_lists(folder, vocabulary, merges):
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(vocabulary, ensure_ascii=False, separators=(",", ":"))
    (folder / "vocab.json").write_text(text + "\n", encoding="utf-8")
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_sdxl_form(folder, vocabulary, merges, pad):
    """As in stabilityai/stable-diffusion-xl-base-1.0."""
    write_lists(folder, vocabulary, merges)
    write_json(folder / "tokenizer_config.json", {
        "add_prefix_space": False,
        "bos_token": {"__type": "AddedToken", **added_token(START)},
        "clean_up_tokenization_spaces": True,
        "do_lower_case": True,
        "eos_token": {"__type": "AddedToken", **added_token(END)},
        "errors": "replace",
        "model_max_length": MAX_LENGTH,
        "pad_token": pad,
        "tokenizer_class": "CLIPTokenizer",
        "unk_token": {"__type": "AddedToken", **added_token(END)},
    })
    write_json(folder / "special_tokens_map.json", {
        "bos_token": added_token(START),
        "eos_token": added_token(END),
        "pad_token": pad,
        "unk_token": added_token(END),
    })


def write_decoder_form(folder, vocabulary, merges):
    """As transformers 4.3x to 4.5x saves it: every added token by id; here with a new one."""
    write_lists(folder, vocabulary, merges)
    tokens = {0: "!", vocabulary[START]: START, vocabulary[END]: END}
    decoder = {str(i): added_token(text, special=True, normalized=i != 0)
               for i, text in tokens.items()}
    decoder[str(len(vocabulary))] = added_token("<Sword-Style>", special=False, normalized=False)
    write_json(folder / "tokenizer_config.json", {
        "added_tokens_decoder": decoder, "bos_token": START, "eos_token": END, "pad_token": "!",
        "unk_token": END, "model_max_length": MAX_LENGTH, "tokenizer_class": "CLIPTokenizer",
    })


def texts():
    """Every kind of string that a prompt box has been given."""
    rng = random.Random(1)
    plain = [
        "", " ", "   \t\n ", "a", "!", "!!", "!!!!!!", "hello!", "hello !", "! hello", "'", "''",
        "a flaming obsidian sword, pixel art", "A Flaming OBSIDIAN Sword, Pixel Art",
        "it's we're they've i'm you'll he'd don't", "IT'S WE'RE THEY'VE", "'s 't 're 've 'm 'll 'd",
        "'sword", "!'s", "''s", "'S", "'\u017f", "rock'n'roll", "it\u2019s", "x'llama", "1'm",
        "0123456789", "3.14159", "4k 8K 1920x1080", "v1.5", "½ ² ³ ① Ⅻ ५ ٣ 七", "10,000 gp",
        "a  b\tc\nd\r\ne\u00a0f\u2003g\u3000h\u1680i\u202fj\u205fk\u2028l\u2029m\x85n",
        "\u200b\u200c\u200d\ufeff zero width", "\x1c\x1d\x1e\x1f\x01\x02\x7f\x80 control",
        "caf\u00e9 cafe\u0301 \u212b \u00c5 A\u030a", "\u1e9b\u0323 \u0958 \u2126 \uf900",
        "\uac00 \u1100\u1161 \u1112\u1161\u11ab", "İstanbul ISTANBUL ıi I\u0307",
        "ΟΔΥΣΣΕΥΣ Σ σ ς ΌΣΟΣ", "Straße STRASSE ẞ ﬁ ﬀ", "ǅ ǈ ǋ ᾈ ᾼ Ω", "ꟻ Ꭰ ꭰ Ა ა Ⴀ",
        "привет мир МЕЧ", "ここに剣がある。", "剑与魔法", "검과 마법", "سيف ذهبي", "חרב זהב",
        "तलवार", "ดาบทอง", "ⲁⲃⲅ", "𝔰𝔴𝔬𝔯𝔡 𝟙𝟚𝟛 𐐀𐐨 𞤀𞤢", "𒀀𓀀 \U0001f5e1\ufe0f",
        "🗡️ ⚔️ 🛡 👩‍🚀 🏴‍☠️ 🇩🇪 👍🏽", "a🗡b", "⚔sword⚔", "e\u0301\u0302\u0303 z̸̢͝a̷l͟go",
        "<|startoftext|>", "<|endoftext|>", "<|endoftext|>sword<|endoftext|>", "<|STARTOFTEXT|>",
        "a<|EndOfText|>b", "!!<|startoftext|>!!", "<|startoftext|", "<|endoftext |>", "<||>",
        "<|endoftext|><|endoftext|>!", "<Sword-Style> axe", "<sword-style>", "<Sword-Style>>>",
        "(masterpiece:1.2), [blurry], {x|y}, <lora:pixel:0.8>", "a_b-c.d,e;f:g/h\\i|j~k`l@m#n$o%p",
        "^&*()+={}[]", "...", "…", "--", "—–-", "\"quoted\" “quoted” ‘single’ «guillemets»",
        "http://example.com/sword?x=1&y=2#z", "user@example.com", "C:\\swords\\axe.png", "</w>",
        "a</w>", "</w> </w>", "Ġ Ċ Â ł", "\u0100\u0101", "ﷺ", "㎏ ㏒ ｆｕｌｌｗｉｄｔｈ １２３",
        "\u0f73 \u0344 \u2adc", "a\u0301" * 20, "\U00010fff \U000e0041 \ue000 \ufffd \uffff",
        "\u00ad soft\u00adhyphen", "x" * 76, "x " * 75, "x " * 76, "x" * 3000, "sword " * 200,
        "剣" * 100, "🗡" * 60, "!" * 100, "! " * 100, "a" * 74 + " b c", "1" * 80, "\u0301",
        "\u0301a", "a \u0301b", "!\u0301", "\u1fbf \u00b4 \u2019", "\u01c5\u01c8", "ß", "ŉ", "ﬃ",
        "№ ℡ ™ ℠ © ®", "x²+y²=z²", "H₂O", "5′ 11″", "٠١٢٣", "১২৩", "Ⅷ ⅷ ㊷ ㉈", "\u3007\u4e8c",
    ]
    words = CORPUS.split()
    mixed = [" ".join(rng.choice(words) for _ in range(rng.randint(1, 40))) for _ in range(60)]
    blocks = [(0x20, 0x7E), (0xA0, 0x24F), (0x250, 0x36F), (0x370, 0x52F), (0x530, 0x7BF),
              (0x900, 0xDFF), (0xE00, 0x11FF), (0x1200, 0x17FF), (0x1D00, 0x214F),
              (0x2150, 0x2BFF), (0x2C00, 0x31FF), (0x4E00, 0x9FFF), (0xA640, 0xABFF),
              (0xAC00, 0xD7A3), (0xF900, 0xFFEF), (0x10000, 0x10FFF), (0x1D400, 0x1D7FF),
              (0x1F000, 0x1FAFF)]
    for first, last in blocks:
        for _ in range(8):
            length = rng.randint(1, 24)
            mixed.append("".join(chr(rng.randint(first, last)) if rng.random() > 0.2
                                 else rng.choice(" \t'!1aZ") for _ in range(length)))
    return plain + mixed


def encode_all(folder, strings):
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    result = []
    for text in strings:
        ids = tokenizer(text, padding="max_length", max_length=tokenizer.model_max_length,
                        truncation=True).input_ids
        whole = tokenizer(text).input_ids
        result.append({"ids": ids, "truncated": len(whole) > len(ids)})
    return result


def strip_padding(ids):
    """The ids without the run of equal ones at the end, and that id: padding is most of a file."""
    used = len(ids)
    while used > 1 and ids[used - 1] == ids[used - 2]:
        used -= 1
    return ids[:used]


def make(root, tiny):
    vocabulary, merges = train(CORPUS, MERGES)
    tiny, forms = pathlib.Path(tiny), pathlib.Path(root) / "tokenizers"
    write_sdxl_form(tiny / "tokenizer", vocabulary, merges, END)
    write_sdxl_form(tiny / "tokenizer_2", vocabulary, merges, "!")
    write_decoder_form(forms / "decoder", vocabulary, merges)
    CLIPTokenizer.from_pretrained(tiny / "tokenizer_2").save_pretrained(forms / "combined")
    strings = texts()
    cases = {"strings": strings}
    for folder in (tiny / "tokenizer", tiny / "tokenizer_2", forms / "decoder",
                   forms / "combined"):
        encoded = encode_all(folder, strings)
        name = str(folder.relative_to(root))
        cases[name] = [strip_padding(case["ids"]) for case in encoded]
        cases[name + ".truncated"] = [case["truncated"] for case in encoded]
    out = pathlib.Path(root) / "expected" / "tokenizer.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(cases, ensure_ascii=True, separators=(",", ":")) + "\n")
    return len(vocabulary)
