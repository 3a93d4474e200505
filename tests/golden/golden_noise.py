"""torch's normal numbers: for each seed a sequence of calls, and of long calls the ends and the
sum. The tensor "<seed>:<count>,<count>,…" holds the values kept of each call, one after the other,
"<seed>:…/sums" each call's sum in double."""

import torch
from safetensors.torch import save_file

KEPT = 32
CASES = (
    (0, (1,)), (7, (15,)), (7, (16,)), (7, (17,)), (42, (4096,)), (42, (65539,)),
    (1234567890123, (1, 16, 1, 15, 17, 3, 100, 4096, 5, 65539, 2)),
    (4294967296, (64,)), (18446744073709551615, (33, 4, 33)),
)


def make(root):
    tensors = {}
    for seed, counts in CASES:
        signed = seed if seed < 2**63 else seed - 2**64
        generator = torch.Generator("cpu").manual_seed(signed)
        calls = [torch.randn(count, generator=generator) for count in counts]
        key = f"{seed}:{','.join(map(str, counts))}"
        kept = [call if len(call) <= 2 * KEPT else torch.cat([call[:KEPT], call[-KEPT:]])
                for call in calls]
        tensors[key] = torch.cat(kept)
        tensors[key + "/sums"] = torch.stack([call.double().sum() for call in calls])
    save_file(tensors, root / "expected" / "noise.safetensors")
