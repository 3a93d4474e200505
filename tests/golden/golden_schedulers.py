"""What diffusers' schedulers make of many configurations and settings: timesteps, the scale of the
first noise, the sample after every step for given model outputs and noise, and add_noise.

A case is one tensor, named CONFIG/NAME/SPACING/SIGMAS/STEPS/BEGIN/ETA ("-" is the config's own; ETA
in hundredths). Its first row holds init_noise_sigma; then one row for each evaluation of the model:
the timestep and the sample after it, and, where BEGIN is above 0, add_noise at that place."""

import json
import sys
import types

import torch
from diffusers import (DDIMScheduler, DDPMScheduler, DEISMultistepScheduler,
                       DPMSolverMultistepScheduler,
                       EulerAncestralDiscreteScheduler, EulerDiscreteScheduler,
                       HeunDiscreteScheduler, KDPM2AncestralDiscreteScheduler,
                       KDPM2DiscreteScheduler, LCMScheduler, LMSDiscreteScheduler,
                       PNDMScheduler, TCDScheduler,
                       UniPCMultistepScheduler)
from safetensors.torch import save_file

# Only its noise sampler needs torchsde, and that is replaced below.
sys.modules.setdefault("torchsde", types.ModuleType("torchsde"))
from diffusers.schedulers.scheduling_dpmsolver_sde import DPMSolverSDEScheduler  # noqa: E402

VALUES = 4
STEPS = (1, 2, 5, 20)
LONG = 60
TIMESTEPS_ONLY = (30, 333, 999)  # where rounding decides; the ends of them
ENDS = 16

PLAIN = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
         "beta_schedule": "scaled_linear", "steps_offset": 1, "clip_sample": False,
         "skip_prk_steps": True}
SPACINGS = ("leading", "trailing", "linspace")
PREDICTIONS = ("epsilon", "v_prediction", "sample")
RESPACED = {"karras": "use_karras_sigmas", "exponential": "use_exponential_sigmas",
            "beta": "use_beta_sigmas", "lu_lambdas": "use_lu_lambdas"}

RESCALES = {"ddim", "ddpm", "euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_sde", "unipc", "lcm",
            "tcd"}
RESPACES = {"euler", "heun", "dpm2", "dpm2_ancestral", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_sde",
            "unipc", "lms", "deis"}
OWN_TIMESTEPS = {"lcm", "tcd"}
NO_SAMPLE = {"pndm", "euler_ancestral", "dpm2", "dpm2_ancestral", "dpmpp_sde"}
SOLVERS = {"dpmpp_2m", "dpmpp_2m_sde"}

CLASSES = {
    "ddim": (DDIMScheduler, {}),
    "ddpm": (DDPMScheduler, {}),
    "pndm": (PNDMScheduler, {}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler_ancestral": (EulerAncestralDiscreteScheduler, {}),
    "heun": (HeunDiscreteScheduler, {}),
    "dpm2": (KDPM2DiscreteScheduler, {}),
    "dpm2_ancestral": (KDPM2AncestralDiscreteScheduler, {}),
    "dpmpp_2m": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "dpmpp_2m_sde": (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "dpmpp_sde": (DPMSolverSDEScheduler, {}),
    "unipc": (UniPCMultistepScheduler, {}),
    "lcm": (LCMScheduler, {}),
    "tcd": (TCDScheduler, {}),
    "lms": (LMSDiscreteScheduler, {}),
    "deis": (DEISMultistepScheduler, {}),
}

# Configurations beyond the matrix, and the samplers that read what is special in them.
SPECIAL = {
    "defaults": ({}, set(CLASSES) - {"pndm"}),
    "linear": (PLAIN | {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
               set(CLASSES)),
    "cosine": (PLAIN | {"beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "trailing"},
               set(CLASSES)),
    "clip": (PLAIN | {"clip_sample": True, "clip_sample_range": 1.5},
             {"ddim", "ddpm", "heun", "lcm"}),
    "end": (PLAIN | {"set_alpha_to_one": False, "final_sigmas_type": "sigma_min",
                     "timestep_spacing": "leading"},
            {"ddim", "pndm", "euler", "unipc"} | SOLVERS),
    "pndm-one": (PLAIN | {"set_alpha_to_one": True}, {"pndm"}),
    "pndm-runge-kutta": (PLAIN | {"skip_prk_steps": False}, {"pndm"}),
    "karras-range": (PLAIN | {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 10.0},
                     RESPACES),
    "karras-end": (PLAIN | {"use_karras_sigmas": True, "final_sigmas_type": "sigma_min"},
                   {"euler", "unipc", "deis"} | SOLVERS),
    "exponential-end": (PLAIN | {"use_exponential_sigmas": True, "final_sigmas_type": "sigma_min",
                                 "solver_order": 3}, {"euler", "unipc", "deis"} | SOLVERS),
    "log-linear": (PLAIN | {"interpolation_type": "log_linear"}, {"euler"}),
    "continuous": (PLAIN | {"timestep_type": "continuous", "prediction_type": "v_prediction"},
                   {"euler"}),
    "short": (PLAIN | {"num_train_timesteps": 100, "timestep_spacing": "trailing",
                       "original_inference_steps": 25}, set(CLASSES)),
    "order-1": (PLAIN | {"solver_order": 1}, SOLVERS | {"unipc", "deis"}),
    "order-3": (PLAIN | {"solver_order": 3}, SOLVERS | {"unipc", "deis"}),
    "heun-solver": (PLAIN | {"solver_type": "heun"}, SOLVERS),
    "lower-order": (PLAIN | {"lower_order_final": False, "final_sigmas_type": "sigma_min"},
                    SOLVERS | {"unipc"}),
    "order-3-lower": (PLAIN | {"solver_order": 3, "lower_order_final": False,
                               "final_sigmas_type": "sigma_min"},
                      SOLVERS | {"unipc", "deis"}),
    "euler-at-final": (PLAIN | {"euler_at_final": True, "final_sigmas_type": "sigma_min"},
                       SOLVERS),
    "clipped": (PLAIN | {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1},
                SOLVERS),
    "no-clipping": (PLAIN | {"lambda_min_clipped": -float("inf")}, SOLVERS),
    "bh1": (PLAIN | {"solver_type": "bh1", "final_sigmas_type": "sigma_min"}, {"unipc"}),
    "bh1-order-3": (PLAIN | {"solver_type": "bh1", "solver_order": 3,
                             "final_sigmas_type": "sigma_min"}, {"unipc"}),
    "predict-eps": (PLAIN | {"predict_x0": False, "final_sigmas_type": "sigma_min"}, {"unipc"}),
    "predict-eps-v": (PLAIN | {"predict_x0": False, "final_sigmas_type": "sigma_min",
                               "prediction_type": "v_prediction"}, {"unipc"}),
    "no-corrector": (PLAIN | {"disable_corrector": [0, 3], "solver_order": 3}, {"unipc"}),
    "fixed-large": (PLAIN | {"variance_type": "fixed_large"}, {"ddpm"}),
    "fixed-small-log": (PLAIN | {"variance_type": "fixed_small_log"}, {"ddpm"}),
    "distilled": (PLAIN | {"original_inference_steps": 100, "timestep_scaling": 2.0,
                           "set_alpha_to_one": False}, {"lcm", "tcd"}),
}


def matrix():
    """CONFIG -> config of the predictions, with and without zero terminal SNR."""
    configs = {}
    for prediction in PREDICTIONS:
        configs[prediction] = PLAIN | {"prediction_type": prediction}
        configs[f"zero-snr-{prediction}"] = configs[prediction] | {"rescale_betas_zero_snr": True}
    return configs


class Noise:
    """Rows of given noise in the order in which a scheduler draws them."""

    def __init__(self, rows):
        self.rows, self.drawn = rows, 0

    def draw(self):
        self.drawn += 1
        return self.rows[self.drawn - 1]


class BrownianPath:
    """The noise sampler of DPMSolverSDEScheduler: increments of one path, a draw for each stretch
    that has not been walked yet. A step asks for the way to its middle, then for the whole of it."""

    def __init__(self, noise):
        self.noise, self.start, self.middle, self.half = noise, None, None, None

    def __call__(self, sigma, sigma_next):
        if self.start is None or not torch.isclose(sigma, self.start):
            self.start, self.middle = sigma, sigma_next
            self.half = self.noise.draw() * (sigma - sigma_next).sqrt()
            return self.half / (sigma - sigma_next).sqrt()
        whole = self.half + self.noise.draw() * (self.middle - sigma_next).sqrt()
        self.start = None
        return whole / (sigma - sigma_next).sqrt()


def take_levels(scheduler, config, steps):
    """This class cannot space its sigmas anew: it is given those of EulerDiscreteScheduler."""
    if any(config.get(key) for key in RESPACED.values()):
        other = EulerDiscreteScheduler.from_config(config)
        other.set_timesteps(steps)
        scheduler.sigmas, scheduler.timesteps = other.sigmas, other.timesteps


def run(name, config, steps, begin, eta, outputs, noises):
    kind, options = CLASSES[name]
    scheduler = kind.from_config(config | options)
    scheduler.set_timesteps(steps)
    if name == "euler_ancestral":
        take_levels(scheduler, config, steps)
    begin = begin * scheduler.order
    noise = Noise(noises)
    sys.modules[kind.__module__].randn_tensor = lambda *arguments, **named: noise.draw()
    if name == "dpmpp_sde":
        scheduler.noise_sampler = BrownianPath(noise)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    timesteps = scheduler.timesteps[begin:]
    # One value in a batch for each: DPM++ and UniPC want tensors of some rank.
    shape = (1, VALUES, 1, 1)
    clean, first = outputs[-1].reshape(shape), noises[-1].reshape(shape)
    sigma = torch.as_tensor(scheduler.init_noise_sigma, dtype=torch.float32)
    sample = first * sigma if begin == 0 else scheduler.add_noise(clean, first, timesteps[:1])
    width = 1 + VALUES * (1 + (begin > 0))
    rows = [torch.cat([sigma.reshape(1), torch.zeros(width - 1)])]
    noise.rows = noises.reshape(-1, *shape)
    for i, timestep in enumerate(timesteps):
        row = [timestep.reshape(1).to(torch.float32)]
        mixed = scheduler.add_noise(clean, first, timesteps[i:i + 1])
        scheduler.scale_model_input(sample, timestep)
        named = {"eta": eta} if name in ("ddim", "tcd") else {}
        sample = scheduler.step(outputs[i].reshape(shape), timestep, sample, **named).prev_sample
        row += [sample.flatten()] + ([mixed.flatten()] if begin > 0 else [])
        rows.append(torch.cat(row))
    return torch.stack(rows)


def ends_of_timesteps(name, config, steps):
    """init_noise_sigma and the count, then the first and last timesteps."""
    kind, options = CLASSES[name]
    scheduler = kind.from_config(config | options)
    scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps.to(torch.float32)
    sigma = torch.as_tensor(scheduler.init_noise_sigma, dtype=torch.float32).reshape(1)
    kept = torch.cat([timesteps[:ENDS], timesteps[-ENDS:]])
    return torch.cat([sigma, torch.tensor([float(len(timesteps))]), kept])


def cases():
    """(config name, config, sampler, spacing, sigmas, steps, begin, eta)"""
    for config_name, config in matrix().items():
        for name in CLASSES:
            if config_name.endswith("sample") and name in NO_SAMPLE:
                continue
            if config_name.startswith("zero-snr") and name not in RESCALES:
                continue
            spacings = ("-",) if name in OWN_TIMESTEPS else SPACINGS
            respaces = name in RESPACES or name == "euler_ancestral"
            kinds = ["-"] + (list(RESPACED)[:3] if respaces else [])
            for spacing in spacings:
                for sigmas in kinds + (["lu_lambdas"] if name in SOLVERS else []):
                    for steps in STEPS:
                        yield config_name, config, name, spacing, sigmas, steps, 0, 0
                plain = config_name in ("epsilon", "v_prediction")
                if plain:
                    long = 49 if name in OWN_TIMESTEPS else LONG
                    yield config_name, config, name, spacing, "-", long, 0, 0
                    for begin in (1, 4, 5):
                        yield config_name, config, name, spacing, "-", 6, begin, 0
                if plain and name in ("ddim", "tcd"):
                    for eta in (30, 100):
                        yield config_name, config, name, spacing, "-", 6, 0, eta
    for config_name, (config, names) in SPECIAL.items():
        for name in CLASSES:
            if name in names:
                for steps in STEPS:
                    yield config_name, config, name, "-", "-", steps, 0, 0


def make(root):
    generator = torch.Generator("cpu").manual_seed(7)
    outputs = torch.randn((2 * LONG + 2, VALUES), generator=generator)
    noises = torch.randn((2 * LONG + 3, VALUES), generator=generator)
    tensors = {"outputs": outputs, "noises": noises}
    folder = root / "schedulers"
    folder.mkdir(exist_ok=True)
    for config_name, config in (matrix() | {n: c for n, (c, _) in SPECIAL.items()}).items():
        text = json.dumps({"_class_name": "EulerDiscreteScheduler"} | config, indent=2)
        (folder / f"{config_name}.json").write_text(text + "\n")
    for config_name, config, name, spacing, sigmas, steps, begin, eta in cases():
        own = dict(config)
        if spacing != "-":
            own["timestep_spacing"] = spacing
        if sigmas != "-":
            own[RESPACED[sigmas]] = True
        key = f"{config_name}/{name}/{spacing}/{sigmas}/{steps}/{begin}/{eta}"
        try:
            rows = run(name, own, steps, begin, eta / 100, outputs, noises)
        except (ValueError, IndexError) as error:
            print(f"{key}: no such schedule: {str(error)[:80]}")
            continue
        if torch.isfinite(rows).all():
            tensors[key] = rows
        else:
            print(f"{key}: the reference is not finite")
    for name in CLASSES:
        for spacing in ("-",) if name in OWN_TIMESTEPS else SPACINGS:
            for steps in TIMESTEPS_ONLY if name not in OWN_TIMESTEPS else (29, 50):
                own = PLAIN | ({} if spacing == "-" else {"timestep_spacing": spacing})
                if steps == 999 and spacing == "leading" and name in SOLVERS | {"unipc", "deis"}:
                    continue  # its first two timesteps are past the trained ones
                key = f"epsilon/{name}/{spacing}/-/{steps}/ends"
                tensors[key] = ends_of_timesteps(name, own, steps)
    save_file({key: value.contiguous() for key, value in tensors.items()},
              root / "expected" / "schedulers.safetensors")
