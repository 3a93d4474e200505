"""Trains the autoencoder on the drawn pictures, then writes every picture's latents.

    python train_vae.py --data build/demo/data --out build/demo/vae --minutes 9
    python train_vae.py --data build/demo/data --out build/demo/vae --minutes 20 --crop 128 --batch 4 --resume
    python train_vae.py --data build/demo/data --out build/demo/vae --encode
    python train_vae.py --data build/demo/data --out build/demo/vae --decoder --minutes 15 --batch 4 --rate 6e-4

First crops, which vary more from step to step; then whole pictures, because the decoder's group norms
see other statistics there. --resume goes on from the last checkpoint; --minutes is the total. --encode fixes the latents; after it
only the decoder may be trained further (--decoder), which can be done while or after the UNet is trained.
"""

import argparse
import os
import time

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import nets


def take(pictures, rng, count, size):
    which = rng.integers(0, len(pictures), count)
    corners = rng.integers(0, pictures.shape[1] - size + 1, (count, 2))
    some = np.stack([pictures[w, y: y + size, x: x + size] for w, (y, x) in zip(which, corners)])
    return to_tensor(some)


def to_tensor(some):
    return (torch.from_numpy(some).permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def to_bytes(x):
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def picture_loss(out, wanted):
    """Absolute and squared error, the differences of neighbours at two scales (sharp edges count), and
    the colours apart from the brightness: left alone, the latents learn edges first and colours last."""
    total = (out - wanted).abs().mean() + 2 * F.mse_loss(out, wanted)
    tints = [F.avg_pool2d(x[:, :2] - x[:, 1:], 2) for x in (out, wanted)]  # red - green, green - blue
    total = total + 2 * tints[0].sub(tints[1]).abs().mean() + 5 * F.mse_loss(*tints)
    for _ in range(2):
        for axis in (2, 3):
            total = total + 0.7 * (out.diff(dim=axis) - wanted.diff(dim=axis)).abs().mean()
        out, wanted = F.avg_pool2d(out, 2), F.avg_pool2d(wanted, 2)
    return total + (out - wanted).abs().mean()


def train(options, rank=0):
    torch.manual_seed(options.seed)
    pictures = np.load(os.path.join(options.data, "pictures.npy"), mmap_mode="r")
    vae = nets.make_vae().to(memory_format=torch.channels_last)
    if options.decoder:
        from diffusers import AutoencoderKL
        vae = AutoencoderKL.from_pretrained(os.path.join(options.out, "vae")).to(memory_format=torch.channels_last)
        for part in (vae.encoder, vae.quant_conv):
            part.requires_grad_(False)
        latents = np.load(os.path.join(options.data, "latents.npy"), mmap_mode="r")
    optimizer = torch.optim.AdamW(vae.parameters(), lr=options.rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    average = nets.Average([vae], 0.998)
    os.makedirs(options.out, exist_ok=True)
    checkpoint, spent, steps = os.path.join(options.out, "decoder.pt" if options.decoder else "checkpoint.pt"), 0.0, 0
    if options.resume:
        state = torch.load(checkpoint, weights_only=True)
        vae.load_state_dict(state["vae"])
        optimizer.load_state_dict(state["optimizer"])
        average.mean, average.steps = state["average"], state["steps"]
        spent, steps = state["seconds"], state["steps"]
    rng = np.random.default_rng([options.seed, steps, rank])
    torch.manual_seed(int(rng.integers(1 << 30)))
    parameters = [p for p in vae.parameters() if p.requires_grad]
    clock = nets.Clock(options.minutes, options.rate, spent=spent)

    def forward(x):
        posterior = vae.encode(x).latent_dist
        z = posterior.sample()
        out = vae.decode(z).sample
        kl = 0.5 * (posterior.mean.pow(2) + posterior.var - 1 - posterior.logvar).mean()
        return out, kl

    forward = torch.compile(forward) if options.compile else forward

    def save():
        nets.save_atomically({"vae": vae.state_dict(), "optimizer": optimizer.state_dict(), "average": average.mean,
                              "steps": steps, "seconds": clock.seconds()}, checkpoint)
        average.swap()
        vae.save_pretrained(os.path.join(options.out, "vae"))
        show(vae, pictures, os.path.join(options.out, "reconstructions.png"))
        average.swap()

    last, seen, running, seconds = time.time(), 0, 0.0, clock.seconds()
    while seconds < clock.total:
        if options.decoder:
            which = rng.integers(0, len(latents), options.batch)
            x, z = to_tensor(pictures[which]), torch.from_numpy(latents[which]).float()
        else:
            x = take(pictures, rng, options.batch, options.crop)
        for group in optimizer.param_groups:
            group["lr"] = clock.rate(seconds)
        with torch.autocast("cpu", torch.bfloat16):
            out, kl = (vae.decode(z).sample, torch.zeros(())) if options.decoder else forward(x)
        loss = picture_loss(out.float(), x) + options.kl * kl.float()
        optimizer.zero_grad()
        loss.backward()
        value, seconds = nets.share(parameters, float(loss.detach()), clock.seconds())
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        steps, seen, running = steps + 1, seen + 1, running + value
        if rank > 0:
            continue
        average.update()
        if steps % 50 == 0:
            print(f"{seconds:6.0f} s  step {steps}  loss {running / seen:.4f}  kl {float(kl.detach()):.2f}", flush=True)
            seen, running = 0, 0.0
        if time.time() - last > 120:
            save()
            last = time.time()
    if rank > 0:
        return
    save()


@torch.no_grad()
def show(vae, pictures, path):
    """Six pictures above their reconstructions."""
    some = np.stack([pictures[k] for k in range(0, 600, 75)])
    z = vae.encode(to_tensor(some)).latent_dist.mode()
    out = to_bytes(vae.decode(z).sample)
    Image.fromarray(np.concatenate([np.concatenate(list(some), 1), np.concatenate(list(out), 1)], 0)).save(path)


@torch.no_grad()
def standardize(vae, pictures):
    """Gives every latent channel mean 0 and deviation 1, by changing the two 1x1 convolutions around the
    latents: the UNet then learns all four alike, and the scaling factor is 1."""
    z = torch.cat([vae.encode(to_tensor(pictures[k: k + 50])).latent_dist.mode() for k in range(0, 1500, 50)])
    mean, deviation = z.mean((0, 2, 3)), z.std((0, 2, 3))
    print("latents before: mean", mean.tolist(), "deviation", deviation.tolist(), flush=True)
    into, out = vae.quant_conv, vae.post_quant_conv
    into.weight[:4] /= deviation[:, None, None, None]
    into.bias[:4] = (into.bias[:4] - mean) / deviation
    into.bias[4:] -= 2 * deviation.log()  # the logarithms of their variances
    out.bias += out.weight[:, :, 0, 0] @ mean
    out.weight *= deviation[None, :, None, None]
    vae.register_to_config(scaling_factor=1.0)


@torch.no_grad()
def encode(options):
    """Standardizes the latents and writes latents.npy beside the pictures."""
    from diffusers import AutoencoderKL
    where = os.path.join(options.out, "vae")
    vae = AutoencoderKL.from_pretrained(where)
    pictures = np.load(os.path.join(options.data, "pictures.npy"), mmap_mode="r")[: options.count]
    if vae.config.scaling_factor != 1.0:  # not done yet
        standardize(vae, pictures)
        vae.save_pretrained(where)
    vae.to(memory_format=torch.channels_last)
    latents = np.zeros((len(pictures), 4, nets.SIZE // 8, nets.SIZE // 8), np.float16)
    for k in range(0, len(pictures), 64):
        with torch.autocast("cpu", torch.bfloat16):
            z = vae.encode(to_tensor(pictures[k: k + 64])).latent_dist.mode()
        latents[k: k + 64] = z.float().numpy()
        if k % 6400 == 0:
            print(f"{k} encoded", flush=True)
    spread = latents[:: 10].astype(np.float32)
    print("mean by channel", spread.mean((0, 2, 3)), "deviation by channel", spread.std((0, 2, 3)))
    show(vae, pictures, os.path.join(options.out, "reconstructions.png"))
    np.save(os.path.join(options.data, "latents.npy"), latents)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="build/demo/data")
    parser.add_argument("--out", default="build/demo/vae")
    parser.add_argument("--minutes", type=float, default=14)
    parser.add_argument("--crop", type=int, default=64, help="side of the crops, in pixels")
    parser.add_argument("--batch", type=int, default=16, help="crops a step and process")
    parser.add_argument("--processes", type=int, default=2, help="each takes a batch, in one thread")
    parser.add_argument("--rate", type=float, default=1.2e-3)
    parser.add_argument("--kl", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="torch.compile: faster after a minute, needs a C++ compiler")
    parser.add_argument("--decoder", action="store_true", help="polish the decoder alone: the latents stay as they are")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--count", type=int, help="encode only the first so many pictures")
    parser.add_argument("--encode", action="store_true", help="only write the latents of every picture")
    options = parser.parse_args()
    encode(options) if options.encode else nets.in_processes(train, options)
