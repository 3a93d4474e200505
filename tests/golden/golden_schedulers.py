"""What diffusers' schedulers make of many configurations: timesteps, the scale of the first noise,
and the sample after every step for given model outputs and noise."""

import json

import torch
from diffusers import (DDIMScheduler, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler)
from diffusers.schedulers import scheduling_euler_ancestral_discrete as ancestral
from safetensors.torch import save_file

CLASSES = {"ddim": DDIMScheduler, "euler": EulerDiscreteScheduler,
           "euler_ancestral": EulerAncestralDiscreteScheduler}
VALUES = 8
STEPS = (1, 2, 7, 20)
MANY_STEPS = (30, 333, 999)  # timesteps only: where rounding decides

BASE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "steps_offset": 1, "clip_sample": False}


def configurations():
    configs = {}
    for spacing in ("leading", "trailing", "linspace"):
        for prediction in ("epsilon", "v_prediction", "sample"):
            configs[f"{spacing}-{prediction}"] = {"timestep_spacing": spacing,
                                                  "prediction_type": prediction}
    configs |= {
        "defaults": {},
        "linear": {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
        "cosine": {"beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "trailing"},
        "clip": {"clip_sample": True, "clip_sample_range": 1.5},
        "end": {"set_alpha_to_one": False, "final_sigmas_type": "sigma_min",
                "timestep_spacing": "leading"},
        "karras": {"use_karras_sigmas": True, "timestep_spacing": "leading"},
        "karras-range": {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 10.0},
        "exponential": {"use_exponential_sigmas": True},
        "log-linear": {"interpolation_type": "log_linear"},
        "continuous": {"timestep_type": "continuous", "prediction_type": "v_prediction"},
        "zero-snr": {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction",
                     "timestep_spacing": "trailing"},
        "short": {"num_train_timesteps": 100, "timestep_spacing": "trailing"},
    }
    return {name: BASE | options for name, options in configs.items()}


def run(scheduler, outputs, noises):
    """The samples after each step; noises replace what the ancestral scheduler would draw."""
    samples = []
    sample = noises[-1] * scheduler.init_noise_sigma
    for i, timestep in enumerate(scheduler.timesteps):
        ancestral.randn_tensor = lambda *arguments, **options: noises[i]
        scheduler.scale_model_input(sample, timestep)
        sample = scheduler.step(outputs[i], timestep, sample).prev_sample
        samples.append(sample)
    return torch.stack(samples)


def make(root):
    generator = torch.Generator("cpu").manual_seed(7)
    outputs = torch.randn((max(STEPS) + 1, VALUES), generator=generator)
    noises = torch.randn((max(STEPS) + 2, VALUES), generator=generator)
    tensors = {"outputs": outputs, "noises": noises}
    draw = ancestral.randn_tensor
    folder = root / "schedulers"
    folder.mkdir(exist_ok=True)
    for config_name, config in configurations().items():
        text = json.dumps({"_class_name": "EulerDiscreteScheduler"} | config, indent=2)
        (folder / f"{config_name}.json").write_text(text + "\n")
        for name, kind in CLASSES.items():
            if name == "euler_ancestral" and config.get("prediction_type") == "sample":
                continue
            for steps in STEPS + MANY_STEPS:
                if steps > config["num_train_timesteps"]:
                    continue
                scheduler = kind.from_config(config)
                scheduler.set_timesteps(steps)
                key = f"{config_name}/{name}/{steps}/"
                tensors[key + "timesteps"] = scheduler.timesteps.to(torch.float64)
                sigma = torch.as_tensor(scheduler.init_noise_sigma, dtype=torch.float64)
                tensors[key + "sigma"] = sigma.reshape(1)
                if steps in STEPS:
                    tensors[key + "samples"] = run(scheduler, outputs, noises)
    ancestral.randn_tensor = draw
    # Timesteps of long schedules: the ends and the count are enough.
    for key in [key for key in tensors if key.endswith("timesteps")]:
        whole = tensors[key]
        if len(whole) > 40:
            tensors[key.replace("timesteps", "count")] = torch.tensor([len(whole)],
                                                                      dtype=torch.int64)
            tensors[key] = torch.cat([whole[:16], whole[-16:]])
    save_file({key: value.contiguous() for key, value in tensors.items()},
              root / "expected" / "schedulers.safetensors")
