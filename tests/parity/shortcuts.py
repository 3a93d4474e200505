"""Step caching and token merging for a UNet of diffusers, written from their papers: what diffusers
leaves to other packages. Run as a program it compares itself with those packages, DeepCache 0.1.1
and tomesd 0.1.3, where they are installed.

DeepCache (arXiv 2312.00858): of each `interval` calls of the UNet the first is computed whole; in
the others every layer that is deeper than skip connection `branch` gives what it gave last.

ToMe (arXiv 2303.17604): before the self-attentions of the first level that has any, a part of the
tokens is merged into those that point in the most similar direction; one token in each 2x2 square
takes others in. Its matrices here are plain: rows of means on the way in, ones on the way out.
"""

import functools
import math

import torch

# ---- Step caching --------------------------------------------------------------------------------


def layers_by_depth(unet):
    """[(module, depth)]: the number of the skip connection that a layer of the way down gives and
    one of the way up takes, counted from conv_in's, which is 0."""
    found, depth = [], 0
    for block in unet.down_blocks:
        attentions = getattr(block, "attentions", [None] * len(block.resnets))
        for resnet, attention in zip(block.resnets, attentions):
            depth += 1
            found += [(resnet, depth), (attention, depth)]
        for sampler in block.downsamplers or []:
            depth += 1
            found.append((sampler, depth))
    if unet.mid_block is not None:
        found.append((unet.mid_block, math.inf))
    for block in unet.up_blocks:
        attentions = getattr(block, "attentions", [None] * len(block.resnets))
        for resnet, attention in zip(block.resnets, attentions):
            found += [(resnet, depth), (attention, depth)]
            depth -= 1
        # What is enlarged here meets the next layer, so it is one deeper than that.
        found += [(sampler, depth + 1) for sampler in block.upsamplers or []]
    assert depth == -1
    return [(module, depth) for module, depth in found if module is not None]


def map_tensors(value, change):
    return tuple(map(change, value)) if isinstance(value, tuple) else change(value)


class StepCache:
    def __init__(self, unet, interval, branch):
        self.interval, self.branch = interval, branch
        self.calls, self.batch, self.whole, self.outputs = 0, 0, True, {}
        whole_forward = unet.forward

        @functools.wraps(whole_forward)
        def forward(sample, *arguments, **options):
            n = sample.shape[0]
            # A batch that has grown has nothing to take.
            self.whole = self.calls % interval == 0 or n > self.batch
            self.batch = n if self.whole else self.batch
            self.now, self.calls = n, self.calls + 1
            return whole_forward(sample, *arguments, **options)

        unet.forward = forward
        for module, depth in layers_by_depth(unet):
            if depth > branch:
                self.wrap(module)

    def wrap(self, module):
        compute = module.forward

        def forward(*arguments, **options):
            if self.whole:
                self.outputs[module] = compute(*arguments, **options)
            return map_tensors(self.outputs[module], lambda x: x[x.shape[0] - self.now:])

        module.forward = forward


# ---- Token merging -------------------------------------------------------------------------------


def merge_matrices(tokens, height, width, ratio, squares):
    """([kept, t], [t, kept]) for tokens [t, c]: the means on the way in, the copies on the way
    out. squares [height // 2, width // 2]: which of its four is a square's destination."""
    count = tokens.shape[0]
    taking = torch.zeros(height, width, dtype=torch.bool)
    for y, row in enumerate(squares.tolist()):
        for x, at in enumerate(row):
            taking[2 * y + at // 2, 2 * x + at % 2] = True
    taking = taking.flatten()
    sources, destinations = torch.where(~taking)[0], torch.where(taking)[0]
    merged = min(int(count * ratio), len(sources))
    directions = tokens / tokens.norm(dim=1, keepdim=True)
    likeness, nearest = (directions[sources] @ directions[destinations].T).max(1)
    order = likeness.argsort(descending=True, stable=True)
    going, staying = order[:merged], order[merged:]
    groups = {int(token): [int(token)] for token in destinations}
    for source in going:
        groups[int(destinations[nearest[source]])].append(int(sources[source]))
    groups = [[int(sources[source])] for source in staying] + list(groups.values())
    out = torch.zeros(count, len(groups))
    for row, group in enumerate(groups):
        out[group, row] = 1
    return (out / out.sum(0)).T, out


class TokenMerging:
    def __init__(self, unet, ratio, seed):
        self.ratio, self.generator = ratio, torch.Generator("cpu").manual_seed(seed)
        levels = [(down, up) for down, up in zip(unet.down_blocks, list(unet.up_blocks)[::-1])]
        first = next(pair for pair in levels if any(hasattr(block, "attentions")
                                                    for block in pair))
        parts = [block for block in first if hasattr(block, "attentions")]
        if first is levels[-1] and hasattr(unet.mid_block, "attentions"):
            parts.append(unet.mid_block)
        for transformer in [each for block in parts for each in block.attentions]:
            transformer.register_forward_pre_hook(self.see_map)
            for block in transformer.transformer_blocks:
                if not block.only_cross_attention:
                    block.register_forward_pre_hook(self.see_tokens, with_kwargs=True)
                    self.wrap(block.attn1)

    def see_map(self, module, arguments):
        self.height, self.width = arguments[0].shape[2:]

    def see_tokens(self, module, arguments, options):
        self.tokens = arguments[0] if arguments else options["hidden_states"]

    def choose(self, batch):
        """At random for a guided pair, as tomesd does it."""
        shape = (self.height // 2, self.width // 2)
        if batch % 2 == 1:
            return torch.zeros(shape, dtype=torch.int64)
        return torch.randint(4, shape + (1,), generator=self.generator)[..., 0]

    def wrap(self, attention):
        attend = attention.forward

        def forward(x, *arguments, **options):
            if min(self.height, self.width) < 2 or int(x.shape[1] * self.ratio) == 0:
                return attend(x, *arguments, **options)
            squares = self.choose(x.shape[0])
            pairs = [merge_matrices(tokens, self.height, self.width, self.ratio, squares)
                     for tokens in self.tokens]
            merged = torch.stack([into @ each for (into, _), each in zip(pairs, x)])
            merged = attend(merged, *arguments, **options)
            return torch.stack([out @ each for (_, out), each in zip(pairs, merged)])

        attention.forward = forward


def apply(unet, settings):
    """What a request's settings ask for."""
    if settings.get("tome_ratio", 0) > 0:
        TokenMerging(unet, settings["tome_ratio"], settings["seed"])
    if settings.get("cache_interval", 0) > 1:
        StepCache(unet, settings["cache_interval"], settings.get("cache_branch_id", 0))


# ---- Against the authors' packages ---------------------------------------------------------------


def picture_of(kind, change):
    import reference
    pipe = reference.load(kind)
    pipe.set_progress_bar_config(disable=True)
    change(pipe)
    return pipe("a sword", height=128, width=128, num_inference_steps=6, guidance_scale=4.0,
                generator=torch.Generator("cpu").manual_seed(3), output_type="latent").images


def with_deep_cache(interval, branch):
    from DeepCache.extension.deepcache import DeepCacheSDHelper

    def change(pipe):
        helper = DeepCacheSDHelper(pipe=pipe)
        helper.set_params(cache_interval=interval, cache_branch_id=branch)
        helper.enable()
    return change


def with_tomesd(ratio, seed, level):
    import tomesd

    def change(pipe):
        tomesd.apply_patch(pipe, ratio=ratio, max_downsample=level)
        pipe.unet._tome_info["args"]["generator"] = torch.Generator("cpu").manual_seed(seed)
    return change


def compare():
    # Not a kind with PNDM: it visits a timestep twice, and the helper counts timesteps, not calls.
    for kind, level in (("sd21", 1), ("sdxl", 2)):
        plain = picture_of(kind, lambda pipe: None)
        changes = [(f"tomesd ratio {ratio}", {"tome_ratio": ratio, "seed": 5},
                    functools.partial(with_tomesd, ratio, 5, level)) for ratio in (0.3, 0.5, 0.75)]
        changes += [(f"DeepCache {interval} {branch}",
                     {"cache_interval": interval, "cache_branch_id": branch},
                     functools.partial(with_deep_cache, interval, branch))
                    for interval, branch in ((2, 0), (3, 1), (2, 2), (3, 3), (5, 4), (2, 6))]
        for name, settings, theirs in changes:
            ours = picture_of(kind, lambda pipe: apply(pipe.unet, settings))
            other = picture_of(kind, theirs())
            print(f"{kind} {name}: {float((ours - other).norm() / other.norm()):.1e} from theirs, "
                  f"{float((ours - plain).norm() / plain.norm()):.1e} from off")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    compare()
