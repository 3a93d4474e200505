#!/usr/bin/env python3
"""Ten thousand strings and the ids that transformers' CLIPTokenizer gives them with CLIP's own
vocabulary of 49,408 tokens (worker/models/clip/merges.txt, which is linked into our binaries).

A string is pieced together by a small generator (SplitMix64) that test_tokens.c has too, from
fragments and from ranges of code points; so the fixture keeps only a hash of each string and one of
its ids. `golden_tokens.py 123` prints string 123 and its ids.

The reference is the tokenizer that diffusers gets from transformers 5: CLIPTokenizer there is built
on the Rust library tokenizers; the slow tokenizer of transformers 4, which cleaned text with ftfy,
is gone.
"""

import json
import pathlib
import struct
import sys
import tempfile

from transformers import CLIPTokenizer

import golden_tokenizer

COUNT = 10000
SEED = 20261121
MASK = (1 << 64) - 1

MORE = """
masterpiece best quality ultra-detailed 8k uhd (masterpiece:1.4) ((best)) [[worst]] \\(old\\) {{a}}
&amp; &lt;b&gt; &quot; &#39; &#x1F5E1; &nbsp; &copy; <b>bold</b> <br/> <!-- --> <lora:pixel-art:0.8>
https://example.org/a_b?c=d&e=%20f#g mailto:me@example.org c:\\tmp\\x.png /usr/share/x ../.. ~/.x
don't won't it'll they'd we've you're i'm he's 'tis o'clock rock'n'roll DON'T It'S l'épée d'or
1girl 2boys 3d 35mm f/1.8 iso100 1/250s 16:9 4:3 1920x1080 50% $9.99 €10 £5 ¥100 #1 @me 1e-5 -0.5
1st 2nd 3rd 10,000 3.14159265358979 007 0x1F 1_000 5' 6" 30° 20℃ ½ ⅓ x² H₂O №1 ™ © ® ℃ ㎏ ﬁ ﬂ ﬃ
sword épée espada spada Schwert меч 剣 劍 剑 검 سيف חרב तलवार তলোয়ার வாள் ดาบ gươm kılıç ξίφος թուր
pedang miekka kard sabie ծով ქართული ხმალი አማርኛ ሰይፍ မြန်မာ ខ្មែរ ລາວ සිංහල తెలుగు ಕನ್ನಡ മലയാളം ਪੰਜਾਬੀ
ᏣᎳᎩ ⵜⵉⴼⵉⵏⴰⵖ ᠮᠣᠩᠭᠣᠯ བོད་ཡིག ꦗꦮ ߒߞߏ ᚠᚢᚦ 𐌰𐌱 𓀀𓂀 𒀀 𝕬𝖇 𝟘𝟙 ＡＢＣ １２３ ｶﾀｶﾅ カタカナ ひらがな
🗡️ ⚔️ 🛡️ 🏹 👩‍🚀 👨‍👩‍👧‍👦 🏳️‍🌈 🏴󠁧󠁢󠁥󠁮󠁧󠁿 🇩🇪🇯🇵 👍🏽 ❤️‍🔥 ♥ ★☆ ◆ → ⇒ ∞ ≠ ∑ √ ✓ ♪ ☠ ☢ ⚡ 🅰️ 1️⃣ #️⃣
:-) :D ;) ^_^ (╯°□°)╯︵ ┻━┻ ¯\\_(ツ)_/¯ ʕ•ᴥ•ʔ xD <3 </3 o_O T_T ... …… !!! ?!? -- — – · • ‣ « » „ “ ” ‘ ’
antidisestablishmentarianism Donaudampfschifffahrtsgesellschaftskapitän pneumonoultramicroscopic
llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
BREAK AND break_me camelCaseWord snake_case_word kebab-case-word SCREAMING_CASE a.b.c a/b/c a|b a+b=c
Z̸̢͝a̷l͟g̡o̢ é e\u0301 ñ n\u0303 ü u\u0308 Å A\u030a \u212b ạ̈ ｈ ſ K Å İ ı ß ẞ ǆ ﷺ ŉ ŀ º ª
"""

ODD = [
    " ", "  ", "\t", "\n", "\r\n", "\x0b", "\x0c", "\x85", "\xa0", "\u1680", "\u2003", "\u2028",
    "\u2029", "\u202f", "\u205f", "\u3000", "\u200b", "\u200c", "\u200d", "\u2060", "\ufeff",
    "\x01", "\x02", "\x07", "\x08", "\x1b[31m", "\x1c", "\x1d", "\x1e", "\x1f", "\x7f", "\x80",
    "\x9f", "\xad", "\u061c", "\u202e", "\u2066", "\ufffd", "\uffff", "\ue000", "\U000e0001",
    "\U0010ffff", "\u0300", "\u0301", "\u0338", "\u0345", "\u3099", "\u20dd", "\ufe0f", "\u1ab0",
    "\u0f71", "\u0f72", "\u1160", "\u11a7", "\u11a8", "\uac00", "\u1100\u1161", "\u07fd", "\u0898",
    "\u1abf", "\U0001e2ec", "\U00011930", "\U00011935", "\u1c89", "\ua7cb", "\U00010d50",
    "\U00016ea0", "\U0001ccf0", "\U00013460", "\U0002ebf0", "<|startoftext|>", "<|endoftext|>",
    "<|StartOfText|>", "<|ENDOFTEXT|>", "<|", "|>", "</w>", "'", "''", "'s", "'S", "'ll", "'\u017f",
]

BLOCKS = [
    (0x20, 0x7E), (0x1, 0x1F), (0x7F, 0xFF), (0x100, 0x24F), (0x250, 0x36F), (0x370, 0x52F),
    (0x530, 0x7BF), (0x7C0, 0x8FF), (0x900, 0xDFF), (0xE00, 0x11FF), (0x1200, 0x17FF),
    (0x1800, 0x1CFF), (0x1D00, 0x1DFF), (0x1E00, 0x1FFF), (0x2000, 0x214F), (0x2150, 0x2BFF),
    (0x2C00, 0x31FF), (0x3200, 0x4DFF), (0x4E00, 0x9FFF), (0xA000, 0xA63F), (0xA640, 0xABFF),
    (0xAC00, 0xD7FF), (0xE000, 0xFAFF), (0xFB00, 0xFFFF), (0x10000, 0x10FFF), (0x11000, 0x11FFF),
    (0x12000, 0x16FFF), (0x17000, 0x1BFFF), (0x1C000, 0x1DFFF), (0x1E000, 0x1EFFF),
    (0x1F000, 0x1FFFF), (0x20000, 0x3FFFF), (0xE0000, 0xE01FF), (0x100000, 0x10FFFF),
]


class Generator:
    """SplitMix64 (Steele, Lea & Flood 2014)."""

    def __init__(self, seed):
        self.state = seed

    def next(self, below):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return (z ^ (z >> 31)) % below


def make_string(i, fragments):
    """String i. test_tokens.c does the same, draw for draw."""
    draw = Generator(SEED + i)
    pieces = 1 + draw.next(150 if draw.next(40) == 0 else 14)
    out = last = ""
    for _ in range(pieces):
        kind = draw.next(12)
        if kind < 6:
            last = fragments[draw.next(len(fragments))]
            out += last + " "
        elif kind < 8:
            last = fragments[draw.next(len(fragments))]
            out += last
        elif kind < 11:
            first, end = BLOCKS[draw.next(len(BLOCKS))]
            last = "".join(chr(first + draw.next(end - first + 1))
                           for _ in range(1 + draw.next(6)))
            out += last
        else:
            out += last * (1 + draw.next(30))
    return out


def make_fragments():
    listed = (golden_tokenizer.CORPUS + MORE).split() + ODD
    listed += [text for text in golden_tokenizer.texts() if 0 < len(text) <= 40]
    return list(dict.fromkeys(listed))


def hash_bytes(data):
    """FNV-1a, 32 bits."""
    value = 0x811C9DC5
    for byte in data:
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


def open_tokenizer(merges_path):
    """As in stabilityai/stable-diffusion-xl-base-1.0's tokenizer folder."""
    merges = [tuple(line.split(" "))
              for line in merges_path.read_text(encoding="utf-8").splitlines()[1:]]
    bytes_ = list(golden_tokenizer.byte_characters().values())
    tokens = bytes_ + [token + "</w>" for token in bytes_]
    tokens += [left + right for left, right in merges]
    tokens += [golden_tokenizer.START, golden_tokenizer.END]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    assert len(vocabulary) == len(tokens) == 49408
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        golden_tokenizer.write_sdxl_form(folder, vocabulary, merges, golden_tokenizer.END)
        return CLIPTokenizer.from_pretrained(folder)


def encode(tokenizer, strings):
    return tokenizer(strings, add_special_tokens=False, truncation=False).input_ids


def make(root):
    root = pathlib.Path(root)
    tokenizer = open_tokenizer(root / "../../worker/models/clip/merges.txt")
    fragments = make_fragments()
    strings = [make_string(i, fragments) for i in range(COUNT)]
    out = b"".join(
        struct.pack("<II", hash_bytes(text.encode()),
                    hash_bytes(struct.pack(f"<{len(ids)}i", *ids)))
        for text, ids in zip(strings, encode(tokenizer, strings)))
    (root / "expected" / "tokens.bin").write_bytes(out)
    text = json.dumps({"seed": SEED, "fragments": fragments, "blocks": BLOCKS},
                      separators=(",", ":"))
    (root / "expected" / "tokens.json").write_text(text + "\n")


def show(i):
    root = pathlib.Path(__file__).resolve().parent
    text = make_string(i, make_fragments())
    tokenizer = open_tokenizer(root / "../../worker/models/clip/merges.txt")
    print(ascii(text), encode(tokenizer, [text])[0], sep="\n")


if __name__ == "__main__":
    show(int(sys.argv[1]))
