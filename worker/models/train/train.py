"""Trains the UNet and both text encoders together, on the latents of the drawn pictures.

    python train.py --data build/demo/data --vae build/demo/vae/vae --out build/demo/run --minutes 75

First the text encoders alone learn to name the attributes of captions (two minutes: the UNet then has
something to listen to from its first step); then everything learns to remove noise. The learning rate
follows the wall clock, so that it ends at zero in time at any speed; checkpoints are written every few
minutes, --resume goes on from the last one (give the total minutes again, or more), and --export
writes the averaged weights as a pipeline folder in half precision.
"""

import argparse
import json
import os
import shutil
import time

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F

import captions
import nets

GROUPS = ("kind", "colour", "material", "effect", "background")


def pretrain(first, second, tokenizers, minutes, rng):
    """Attributes from captions: one linear layer an attribute on the end token, another on the pooled vector."""
    sizes = [len(captions.NAMES[g]) for g in GROUPS]
    by_tokens, by_pool = torch.nn.Linear(2 * nets.TEXT, sum(sizes)), torch.nn.Linear(nets.TEXT, sum(sizes))
    parameters = [p for m in (first, second, by_tokens, by_pool) for p in m.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True)
    clock = nets.Clock(minutes, 1e-3)
    right = []
    while not clock.done():
        some = [captions.random_attributes(rng) for _ in range(96)]
        texts = [captions.compose(rng, a) for a in some]
        # A background that the caption does not name cannot be learnt; it only adds a constant here.
        wanted = torch.tensor([[captions.NAMES[g].index(a[g]) for g in GROUPS] for a in some])
        for group in optimizer.param_groups:
            group["lr"] = clock.rate()
        ids = nets.encode_words(tokenizers, texts)
        states, pooled = nets.text_features(first, second, ids)
        end = (ids[0] == ids[0].max()).int().argmax(1)
        loss = 0
        for scores in (by_tokens(states[torch.arange(len(end)), end]), by_pool(pooled)):
            for part, target in zip(scores.split(sizes, 1), wanted.T):
                loss = loss + F.cross_entropy(part, target)
        right.append([(p.argmax(1) == t).float().mean().item() for p, t in zip(scores.split(sizes, 1), wanted.T)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print("captions understood:", dict(zip(GROUPS, np.round(np.mean(right[-50:], 0), 3))), f"{clock.steps} steps", flush=True)


def captions_for(rng, codes, drop):
    return ["" if rng.random() < drop else captions.compose(rng, captions.from_codes(c)) for c in codes]


def train(options, rank=0):
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    latents = torch.from_numpy(np.load(os.path.join(options.data, "latents.npy")))
    codes = np.load(os.path.join(options.data, "attributes.npy"))[: len(latents)]
    held = captions.held_out_pairs()
    for c in codes if rank == 0 else ():  # the promise of the measurement, checked on what is really trained on
        a = captions.from_codes(c)
        assert (a["kind"], a["colour"]) not in held, a
    from diffusers import AutoencoderKL
    scale = AutoencoderKL.load_config(options.vae)["scaling_factor"]
    os.makedirs(options.out, exist_ok=True)
    if rank == 0:
        nets.write_tokenizers(options.out)
    if dist.is_initialized():
        dist.barrier()
    tokenizers = nets.load_tokenizers(options.out)
    first, second = nets.make_text_encoders(len(tokenizers[0]))
    unet = nets.make_unet().to(memory_format=torch.channels_last)
    checkpoint, spent, steps = os.path.join(options.out, "checkpoint.pt"), 0.0, 0
    modules = {"unet": unet, "text_encoder": first, "text_encoder_2": second}
    for name, module in modules.items() if rank == 0 else ():
        print(name, f"{sum(p.numel() for p in module.parameters()) / 1e6:.2f} M", flush=True)
    if options.start:
        from diffusers import StableDiffusionXLPipeline
        old = StableDiffusionXLPipeline.from_pretrained(options.start)
        if old.tokenizer.get_vocab() != tokenizers[0].get_vocab():
            raise SystemExit("the captions' words have changed since: start anew")
        for name, module in modules.items():
            module.load_state_dict(getattr(old, name).state_dict())
    elif not options.resume and rank == 0:
        pretrain(first, second, tokenizers, options.pretrain, rng)
    if dist.is_initialized():
        for module in modules.values():
            for p in module.parameters():
                whole = p.detach().contiguous()
                dist.broadcast(whole, 0)
                p.data.copy_(whole)
    average = nets.Average(modules.values(), options.average)
    optimizer = torch.optim.AdamW([
        {"params": list(unet.parameters()), "share": 1.0},
        {"params": [*first.parameters(), *second.parameters()], "share": 0.5},
    ], lr=options.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    if options.resume:
        state = torch.load(checkpoint, weights_only=True)
        for name, module in modules.items():
            module.load_state_dict(state[name])
        optimizer.load_state_dict(state["optimizer"])
        average.mean, average.steps = state["average"], state["steps"]
        spent, steps = state["seconds"], state["steps"]
    rng = np.random.default_rng([options.seed, steps, rank])
    torch.manual_seed(int(rng.integers(1 << 30)))
    parameters = [p for m in modules.values() for p in m.parameters()]
    clock = nets.Clock(options.minutes, options.rate, warmup_steps=options.warmup, spent=spent)
    alphas = nets.alphas()

    def save():
        state = {name: module.state_dict() for name, module in modules.items()}
        nets.save_atomically({**state, "optimizer": optimizer.state_dict(), "average": average.mean,
                              "steps": steps, "seconds": clock.seconds()}, checkpoint)

    run = torch.compile(unet) if options.compile else unet
    ids_of_time = nets.time_ids(options.batch)
    order, at = rng.permutation(len(latents)), 0
    last, running, seen = time.time(), 0.0, 0
    seconds = clock.seconds()
    while seconds < clock.total:
        if at + options.batch > len(order):
            order, at = rng.permutation(len(latents)), 0
        which = order[at: at + options.batch]
        at += options.batch
        clean = (latents[which].float() * scale).contiguous(memory_format=torch.channels_last)
        texts = captions_for(rng, codes[which], options.drop)
        noise = torch.randn_like(clean)
        # Stratified times: every batch has early and late ones.
        t = ((torch.arange(len(which)) + torch.rand(len(which))) * (1000 / len(which))).long()
        a = alphas[t][:, None, None, None]
        noisy = a.sqrt() * clean + (1 - a).sqrt() * noise
        wanted = a.sqrt() * noise - (1 - a).sqrt() * clean  # v
        rate = clock.rate(seconds)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        with torch.autocast("cpu", torch.bfloat16):
            states, pooled = nets.text_features(first, second, nets.encode_words(tokenizers, texts))
            out = run(noisy, t, states, added_cond_kwargs={"text_embeds": pooled, "time_ids": ids_of_time}).sample
        error = (out.float() - wanted).pow(2).mean((1, 2, 3))
        # min-SNR weighting (gamma 5) for v-prediction
        snr = alphas[t] / (1 - alphas[t])
        loss = (error * snr.clamp(max=5.0) / (snr + 1)).mean()
        optimizer.zero_grad()
        loss.backward()
        # The processes also agree on the time, so that their rates are the same and they stop together.
        value, seconds = nets.share(parameters, float(loss.detach()), clock.seconds())
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        steps, seen, running = steps + 1, seen + 1, running + value
        if rank > 0:
            continue
        average.update()
        if steps % 50 == 0:
            print(f"{seconds:6.0f} s  step {steps}  loss {running / seen:.4f}  rate {rate:.2e}", flush=True)
            running, seen = 0.0, 0
        if time.time() - last > 240:
            save()
            last = time.time()
    if rank > 0:
        return
    save()
    export(options)


def export(options):
    """The averaged weights of the last checkpoint as a pipeline folder, in half precision."""
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline
    vocabulary = nets.write_tokenizers(options.out)
    tokenizers = nets.load_tokenizers(options.out)
    first, second = nets.make_text_encoders(vocabulary)
    unet = nets.make_unet()
    checkpoint = os.path.join(options.out, "checkpoint.pt")
    if os.path.exists(checkpoint):
        state = torch.load(checkpoint, weights_only=True)
        live = [p for m in (unet, first, second) for p in m.parameters()]
        with torch.no_grad():
            for p, m in zip(live, state["average"]):
                p.copy_(m)
    scheduler = EulerDiscreteScheduler(**nets.BETAS, prediction_type=nets.PREDICTION, timestep_spacing="trailing", steps_offset=0)
    vae = AutoencoderKL.from_pretrained(options.vae) if os.path.isdir(options.vae) else nets.make_vae()
    pipeline = StableDiffusionXLPipeline(
        vae=vae, text_encoder=first, text_encoder_2=second, tokenizer=tokenizers[0], tokenizer_2=tokenizers[1],
        unet=unet, scheduler=scheduler, force_zeros_for_empty_prompt=False, add_watermarker=False)
    folder = options.export or os.path.join(options.out, "pipeline")
    pipeline.to(torch.float16).save_pretrained(folder)
    for name in ("tokenizer", "tokenizer_2"):  # in CLIP's own two files, not in those of newer libraries
        shutil.rmtree(os.path.join(folder, name))
    nets.write_tokenizers(folder)
    # As in SDXL's own file: DDIM, made from this configuration, would otherwise clip the latents to [-1, 1].
    edit(os.path.join(folder, "scheduler", "scheduler_config.json"), clip_sample=False)
    for name in ("text_encoder", "text_encoder_2"):  # else a plain from_pretrained mixes half and single
        edit(os.path.join(folder, name, "config.json"), dtype="float32")


def edit(path, **values):
    with open(path) as f:
        config = json.load(f)
    with open(path, "w") as f:
        json.dump({**config, **values}, f, indent=2)



if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="build/demo/data")
    parser.add_argument("--vae", default="build/demo/vae/vae", help="the trained autoencoder")
    parser.add_argument("--out", default="build/demo/run", help="folder of the checkpoint")
    parser.add_argument("--minutes", type=float, default=75)
    parser.add_argument("--pretrain", type=float, default=2, help="minutes for the text encoders alone")
    parser.add_argument("--batch", type=int, default=32, help="pictures a step and process")
    parser.add_argument("--rate", type=float, default=8e-4)
    parser.add_argument("--warmup", type=int, default=200, help="steps of rising rate at every start")
    parser.add_argument("--processes", type=int, default=2, help="each takes a batch, in one thread")
    parser.add_argument("--drop", type=float, default=0.1, help="share of empty captions")
    parser.add_argument("--average", type=float, default=0.999)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="torch.compile: faster after a minute, needs a C++ compiler")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--start", help="begin with the weights of this pipeline folder, for example worker/models/demo")
    parser.add_argument("--export", help="only write the last checkpoint as a pipeline into this folder")
    options = parser.parse_args()
    if options.export:
        export(options)
    else:
        nets.in_processes(train, options)
