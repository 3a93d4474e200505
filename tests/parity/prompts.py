"""Prompts in A1111's syntax as embeddings, computed with transformers: the reference for weights
and for prompts of several chunks, which diffusers' pipelines have no syntax for.

Written from what stable-diffusion-webui 1.10 does with its default settings (emphasis "Original",
comma backtracking 20, prompt and negative prompt padded to the same length), not from our C.
"""

import re

import torch

ROOM = 75  # tokens of text in a chunk
BACKTRACK = 20
BREAK = object()

TOKEN = re.compile(r"""
    \\(?P<escaped>[()\[\]\\])? | (?P<open>[(\[]) | :\s*(?P<weight>[+-]?[\d.]+)\s*\) |
    (?P<close>[)\]]) | (?P<text>[^\\()\[\]:]+|:)""", re.VERBOSE)


def parse(prompt):
    """[(text or BREAK, weight)], neighbours of equal weight joined."""
    pieces = []  # [text, weight]
    opened = {"(": [], "[": []}

    def close(kind, factor):
        for piece in pieces[opened[kind].pop():]:
            piece[1] *= factor

    def add(text):
        for i, words in enumerate(re.split(r"\s*\bBREAK\b\s*", text)):
            if i > 0:
                pieces.append(["BREAK", -1.0])
            pieces.append([words, 1.0])

    for match in TOKEN.finditer(prompt):
        if match["open"]:
            opened[match["open"]].append(len(pieces))
        elif match["weight"] and opened["("]:
            close("(", float(match["weight"]))
        elif match["close"] == ")" and opened["("]:
            close("(", 1.1)
        elif match["close"] == "]" and opened["["]:
            close("[", 1 / 1.1)
        elif match[0][0] == "\\":
            pieces.append([match["escaped"] or "", 1.0])
        else:
            add(match[0])
    for kind, factor in (("(", 1.1), ("[", 1 / 1.1)):
        for start in opened[kind]:
            for piece in pieces[start:]:
                piece[1] *= factor
    joined = []
    for text, weight in pieces or [["", 1.0]]:
        if joined and joined[-1][1] == weight:
            joined[-1][0] += text
        else:
            joined.append([text, weight])
    return [(BREAK if (text, weight) == ("BREAK", -1.0) else text, weight)
            for text, weight in joined]


def words_of(pipe, tokenizer, text):
    """The ids of a text, those of one learnt embedding in a list of their own, which is not cut."""
    text = pipe.maybe_convert_prompt(text, tokenizer)
    ids = tokenizer(text, add_special_tokens=False, truncation=False).input_ids
    added = {i: token for token, i in tokenizer.get_added_vocab().items()
             if i not in tokenizer.all_special_ids}
    words = []
    for i in ids:
        if i in added and re.search(r"_\d+$", added[i]) and added.get(words[-1][-1]):
            words[-1].append(i)
        else:
            words.append([i])
    return words


class Cutter:
    """Tokens with weights, cut into chunks."""

    def __init__(self, comma):
        self.comma, self.chunks, self.now, self.last_comma = comma, [], [], None

    def end(self, count=None):
        count = len(self.now) if count is None else count
        self.chunks.append(self.now[:count])
        self.now, self.last_comma = self.now[count:], None

    def add(self, word, weight):
        if word[0] == self.comma:
            self.last_comma = len(self.now)
        elif (len(self.now) == ROOM and self.last_comma is not None
              and ROOM - self.last_comma <= BACKTRACK):
            self.end(self.last_comma + 1)
        if len(self.now) + len(word) > ROOM:
            self.end()
        self.now += [(i, weight) for i in word]


def cut(pipe, tokenizer, prompt):
    """Chunks of (id, weight), without start, end and padding."""
    cutter = Cutter(tokenizer.get_vocab().get(",</w>"))
    for text, weight in parse(prompt):
        if text is BREAK:
            cutter.end()
            continue
        for word in words_of(pipe, tokenizer, text):
            cutter.add(word, weight)
    if cutter.now or not cutter.chunks:
        cutter.end()
    return cutter.chunks


def encode_chunk(tokenizer, encoder, chunk, is_xl, clip_skip):
    """[1, 77, d], and the pooled vector of an encoder that has one."""
    ids = [tokenizer.bos_token_id, *(i for i, _ in chunk), tokenizer.eos_token_id]
    weights = [1.0, *(weight for _, weight in chunk), 1.0]
    length = tokenizer.model_max_length
    ids += [tokenizer.pad_token_id] * (length - len(ids))
    weights += [1.0] * (length - len(weights))
    out = encoder(torch.tensor([ids]), output_hidden_states=True)
    skip = clip_skip or 0
    if is_xl:
        hidden = out.hidden_states[-(skip + 2)]
    elif skip == 0:
        hidden = out.last_hidden_state
    else:
        # transformers 5 dropped the level text_model.
        norm = getattr(encoder, "text_model", encoder).final_layer_norm
        hidden = norm(out.hidden_states[-(skip + 1)])
    if any(weight != 1.0 for weight in weights):
        weighted = hidden * torch.tensor(weights)[None, :, None]
        # In double: the means may be near zero, and then float32's last bits would show.
        hidden = weighted * (hidden.double().mean() / weighted.double().mean()).float()
    return hidden, out[0]


def encode(pipe, chunks, clip_skip):
    """chunks: for each encoder a list of chunks, all equally long."""
    encoders = encoders_of(pipe)
    states, pooled = [], None
    for (tokenizer, encoder), own in zip(encoders, chunks):
        parts = [encode_chunk(tokenizer, encoder, chunk, len(encoders) > 1, clip_skip)
                 for chunk in own]
        states.append(torch.cat([hidden for hidden, _ in parts], 1))
        pooled = parts[0][1]
    return torch.cat(states, -1), pooled if len(encoders) > 1 else None


def encoders_of(pipe):
    pairs = [(pipe.tokenizer, pipe.text_encoder)]
    if getattr(pipe, "text_encoder_2", None) is not None:
        pairs.append((pipe.tokenizer_2, pipe.text_encoder_2))
    return pairs


@torch.no_grad()
def embeddings(pipe, prompt, negative, guided, clip_skip=None):
    """What a pipeline takes in place of prompt and negative_prompt. clip_skip is diffusers', which
    leaves the negative prompt as it is."""
    encoders = encoders_of(pipe)
    is_xl = len(encoders) > 1
    texts = [prompt, negative] if guided else [prompt]
    chunks = [[cut(pipe, tokenizer, text) for tokenizer, _ in encoders] for text in texts]
    most = max(len(own) for text in chunks for own in text)
    for text in chunks:
        for own in text:
            own += [[]] * (most - len(own))
    states, pooled = encode(pipe, chunks[0], clip_skip)
    out = {"prompt_embeds": states}
    if is_xl:
        out["pooled_prompt_embeds"] = pooled
    if guided:
        if is_xl and not negative and pipe.config.force_zeros_for_empty_prompt:
            other, other_pooled = torch.zeros_like(states), torch.zeros_like(pooled)
        else:
            other, other_pooled = encode(pipe, chunks[1], None)
        out["negative_prompt_embeds"] = other
        if is_xl:
            out["negative_pooled_prompt_embeds"] = other_pooled
    return out
