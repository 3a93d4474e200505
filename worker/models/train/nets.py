"""The networks of the demo model, its tokenizer, and what the training scripts share."""

import json
import math
import os
import tempfile
import time

import torch
import torch.distributed as dist
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

import captions

LENGTH = 32  # tokens of a prompt, start and end included
TEXT = 128  # width of each text encoder
SIZE = 128  # pixels
BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)
PREDICTION = "v_prediction"

# --------------------------------------------------------------------------------- tokenizer


def _byte_letters():
    """CLIP's printable letter for every byte, in the order of its vocabulary."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {b: chr(b) for b in plain}
    for b in range(256):
        if b not in letters:
            letters[b] = chr(256 + len(letters) - len(plain))
    return letters


def write_tokenizers(folder):
    """Learns merges until every word of the captions is one token; any other text still has its bytes."""
    letters = _byte_letters()
    words = [[letters[b] for b in word.encode()] for word in captions.vocabulary_words()]
    words = [word[:-1] + [word[-1] + "</w>"] for word in words]
    merges = []
    while True:
        counts = {}
        for word in words:
            for pair in zip(word, word[1:]):
                counts[pair] = counts.get(pair, 0) + 1
        if not counts:
            break
        best = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append(best)
        for w, word in enumerate(words):
            k, out = 0, []
            while k < len(word):
                if k + 1 < len(word) and (word[k], word[k + 1]) == best:
                    out.append(word[k] + word[k + 1])
                    k += 2
                else:
                    out.append(word[k])
                    k += 1
            words[w] = out
    alphabet = list(letters.values())
    tokens = alphabet + [a + "</w>" for a in alphabet] + [a + b for a, b in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    tokens = list(dict.fromkeys(tokens))  # two merges can make the same token

    # As in SDXL, the first tokenizer pads with the end token and the second with "!" (id 0).
    for name, pad in (("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")):
        where = os.path.join(folder, name)
        os.makedirs(where, exist_ok=True)
        with open(os.path.join(where, "vocab.json"), "w", encoding="utf-8") as f:
            json.dump({t: k for k, t in enumerate(tokens)}, f, ensure_ascii=False)
        with open(os.path.join(where, "merges.txt"), "w", encoding="utf-8") as f:
            f.write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
        special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": pad}
        with open(os.path.join(where, "special_tokens_map.json"), "w") as f:
            json.dump(special, f, indent=2)
        with open(os.path.join(where, "tokenizer_config.json"), "w") as f:
            json.dump({**special, "add_prefix_space": False, "do_lower_case": True, "errors": "replace",
                       "model_max_length": LENGTH, "tokenizer_class": "CLIPTokenizer"}, f, indent=2)
    return len(tokens)


def load_tokenizers(folder):
    from transformers import CLIPTokenizer
    return [CLIPTokenizer.from_pretrained(os.path.join(folder, name)) for name in ("tokenizer", "tokenizer_2")]


def encode_words(tokenizers, texts):
    """The token ids of both tokenizers, padded as diffusers pads them."""
    return [t(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids for t in tokenizers]


# ---------------------------------------------------------------------------------- networks


def make_vae():
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, sample_size=SIZE, block_out_channels=(32, 64, 96, 128),
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        # Four channels a group at least: with one, the last norm takes away the mean of every channel,
        # which is the colour of the picture.
        layers_per_block=1, norm_num_groups=8, act_fn="silu", force_upcast=False)


def make_text_encoders(vocabulary):
    shape = dict(vocab_size=vocabulary, hidden_size=TEXT, intermediate_size=4 * TEXT, num_hidden_layers=3,
                 num_attention_heads=4, max_position_embeddings=LENGTH, projection_dim=TEXT,
                 bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1)
    first = CLIPTextModel(CLIPTextConfig(hidden_act="quick_gelu", pad_token_id=vocabulary - 1, **shape))
    second = CLIPTextModelWithProjection(CLIPTextConfig(hidden_act="gelu", pad_token_id=0, **shape))
    return first, second


def make_unet():
    # Most of the channels are at 8x8 and 4x4, where they are cheap. attention_head_dim is, by an old
    # misnomer of diffusers, the number of heads; every head has 32 channels.
    return UNet2DConditionModel(
        sample_size=SIZE // 8, in_channels=4, out_channels=4, block_out_channels=(96, 128, 160), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn", cross_attention_dim=2 * TEXT, attention_head_dim=(3, 4, 5),
        transformer_layers_per_block=(1, 1, 1), use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=32, projection_class_embeddings_input_dim=TEXT + 6 * 32, norm_num_groups=16)


def text_features(first, second, ids):
    """What SDXL's UNet is given: the last but one hidden states side by side, and the pooled projection."""
    a = first(ids[0], output_hidden_states=True)
    b = second(ids[1], output_hidden_states=True)
    return torch.cat([a.hidden_states[-2], b.hidden_states[-2]], -1), b.text_embeds


def time_ids(count, size=SIZE):
    """SDXL's original size, crop corner and target size."""
    return torch.tensor([size, size, 0, 0, size, size], dtype=torch.float32).repeat(count, 1)


def alphas():
    return DDPMScheduler(**BETAS).alphas_cumprod


# ---------------------------------------------------------------------------------- training


class Clock:
    """A learning rate that follows the wall clock, so that it ends at zero in time at any speed."""

    def __init__(self, minutes, peak, warmup_steps=100, spent=0.0):
        self.total, self.peak, self.warmup, self.spent = minutes * 60, peak, warmup_steps, spent
        self.start, self.steps = time.time(), 0

    def seconds(self):
        return self.spent + time.time() - self.start

    def done(self):
        return self.seconds() >= self.total

    def rate(self, seconds=None):
        self.steps += 1
        part = min(1.0, (self.seconds() if seconds is None else seconds) / self.total)
        return self.peak * (0.5 + 0.5 * math.cos(math.pi * part)) * min(1.0, self.steps / self.warmup)


class Average:
    """An exponential moving average of parameters."""

    def __init__(self, modules, decay):
        self.decay, self.steps = decay, 0
        self.live = [p for m in modules for p in m.parameters()]
        self.mean = [p.detach().clone() for p in self.live]

    @torch.no_grad()
    def update(self):
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.mean, [p.detach() for p in self.live], 1 - decay)

    @torch.no_grad()
    def swap(self):
        """Exchanges the average with the live weights; a second call undoes it."""
        for p, m in zip(self.live, self.mean):
            keep = p.detach().clone()
            p.copy_(m)
            m.copy_(keep)


def in_processes(work, options):
    """Runs work(options, rank) in options.processes processes of one thread each, or here if that is one.
    On a busy machine this is several times quicker than threads that meet in every layer."""
    if options.processes == 1:
        return work(options, 0)
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_process, (work, options, os.path.join(folder, "meet")), options.processes)


def _process(rank, work, options, meet):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=options.processes)
    work(options, rank)
    dist.destroy_process_group()


def share(parameters, *values):
    """The mean over the processes of every gradient, and of some numbers: their one meeting a step."""
    if not dist.is_initialized():
        return values
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = torch.cat([*(g.reshape(-1) for g in grads), torch.tensor(values, dtype=torch.float32)])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for p, part, g in zip(parameters, flat[: -len(values)].split([g.numel() for g in grads]), grads):
        p.grad = g.copy_(part.view_as(g))  # in place: the optimizer wants the parameter's own layout
    return flat[-len(values):].tolist()


def save_atomically(state, path):
    torch.save(state, path + ".part")
    os.replace(path + ".part", path)


def log_line(path, **values):
    with open(path, "a") as f:
        f.write(json.dumps(values) + "\n")
