"""The classifier that judges the model's pictures. It is trained apart from the model, on drawings of
its own (another seed, every pair of kind and colour, held-out ones too), and never sees a picture that
the model made.

    python classify.py --out build/demo/classifier.pt --count 16000 --minutes 5
"""

import argparse
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import captions
import draw
import nets

HEADS = ("kind", "colour", "effect")


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        layers = [nn.Conv2d(3, 32, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
        before = 32
        for width in (48, 96, 128):
            for _ in range(2):
                layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                before = width
            layers.append(nn.MaxPool2d(2))
        self.body = nn.Sequential(*layers)
        self.heads = nn.ModuleDict({h: nn.Linear(before * 2, len(captions.NAMES[h])) for h in HEADS})

    def forward(self, x):
        """x: pictures in [-1, 1], of any size; they are looked at in 64 x 64."""
        x = self.body(F.interpolate(x, size=(64, 64), mode="area"))
        x = torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)
        return {h: head(x) for h, head in self.heads.items()}


def roughen(x):
    """Blur, noise, brightness and shifts: the model's pictures are softer than drawings."""
    if torch.rand(()) < 0.5:
        small = int(torch.randint(28, 64, ()))
        x = F.interpolate(F.interpolate(x, size=(small, small), mode="area"), size=(64, 64), mode="bilinear")
    x = x + torch.randn_like(x) * 0.06 * torch.rand(len(x), 1, 1, 1)
    x = x * (1 + 0.1 * (torch.rand(len(x), 1, 1, 1) - 0.5)) + 0.06 * (torch.rand(len(x), 1, 1, 1) - 0.5)
    dy, dx = torch.randint(-4, 5, (2,)).tolist()
    return torch.roll(x, (dy, dx), (2, 3))


def drawings(count, seed):
    import multiprocessing
    jobs = [((seed, k), min(250, count - k), True) for k in range(0, count, 250)]
    with multiprocessing.Pool(2) as pool:
        parts = pool.map(draw._batch, jobs)
    x = torch.from_numpy(np.concatenate([p for p, _ in parts])).permute(0, 3, 1, 2)
    x = torch.cat([F.interpolate(part.float() / 127.5 - 1, size=(64, 64), mode="area") for part in x.split(500)])
    them = [captions.from_codes(c) for _, codes in parts for c in codes]
    return x, {h: torch.tensor([captions.NAMES[h].index(a[h]) for a in them]) for h in HEADS}


def load(path):
    net = Classifier()
    state = torch.load(path, weights_only=True)
    net.load_state_dict(state["net"])
    return net.eval(), state["score"]


@torch.no_grad()
def names(net, pictures):
    """For bytes (n, h, w, 3): the named kind, colour and effect of each."""
    x = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    out = net(x)
    return {h: [captions.NAMES[h][k] for k in out[h].argmax(1)] for h in HEADS}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="build/demo/classifier.pt")
    parser.add_argument("--count", type=int, default=16000)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=99)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    x, labels = drawings(options.count, options.seed)
    test, truth = drawings(2000, options.seed + 1)
    net = Classifier().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.02)
    clock = nets.Clock(options.minutes, 2e-3)
    while not clock.done():
        some = torch.randint(0, len(x), (64,))
        for group in optimizer.param_groups:
            group["lr"] = clock.rate()
        out = net(roughen(x[some]).contiguous(memory_format=torch.channels_last))
        loss = sum(F.cross_entropy(out[h], labels[h][some], label_smoothing=0.05) for h in HEADS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if clock.steps % 100 == 0:
            print(f"{clock.seconds():5.0f} s  step {clock.steps}  loss {float(loss.detach()):.3f}", flush=True)
    net.eval()
    with torch.no_grad():
        parts = [net(part) for part in test.split(500)]
    score = {h: float((torch.cat([p[h] for p in parts]).argmax(1) == truth[h]).float().mean()) for h in HEADS}
    print("on 2000 fresh drawings:", score)
    torch.save({"net": net.state_dict(), "score": score}, options.out)
