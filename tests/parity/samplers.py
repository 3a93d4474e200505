"""The samplers and noise schedules of the list, and the diffusers class that each of them is."""

import inspect
import sys
import types

import diffusers
import torch
from diffusers.utils.torch_utils import randn_tensor

# torchsde holds the tree that DPMSolverSDEScheduler takes its noise from by default. Here the noise
# comes from the picture's own generator, so the package is not needed.
sys.modules.setdefault("torchsde", types.ModuleType("torchsde"))
from diffusers.schedulers import scheduling_dpmsolver_sde as dpmsolver_sde  # noqa: E402

SAMPLERS = {
    "ddim": (diffusers.DDIMScheduler, {}),
    "ddpm": (diffusers.DDPMScheduler, {}),
    "pndm": (diffusers.PNDMScheduler, {}),
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "euler_ancestral": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "heun": (diffusers.HeunDiscreteScheduler, {}),
    "dpm2": (diffusers.KDPM2DiscreteScheduler, {}),
    "dpm2_ancestral": (diffusers.KDPM2AncestralDiscreteScheduler, {}),
    "dpmpp_2m": (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "dpmpp_2m_sde": (diffusers.DPMSolverMultistepScheduler,
                     {"algorithm_type": "sde-dpmsolver++"}),
    "dpmpp_sde": (dpmsolver_sde.DPMSolverSDEScheduler, {}),
    "unipc": (diffusers.UniPCMultistepScheduler, {}),
    "lcm": (diffusers.LCMScheduler, {}),
    "tcd": (diffusers.TCDScheduler, {}),
}
SECOND_ORDER = ("heun", "dpm2", "dpm2_ancestral", "dpmpp_sde")

# What a request asks for -> what the diffusers class is given.
SCHEDULES = {
    "default": ({}, {}),
    "karras": ({"sigmas": "karras"}, {"use_karras_sigmas": True}),
    "exponential": ({"sigmas": "exponential"}, {"use_exponential_sigmas": True}),
    "sgm_uniform": ({"sigmas": "sgm_uniform"}, {"timestep_spacing": "trailing"}),
    "leading": ({"timestep_spacing": "leading"}, {"timestep_spacing": "leading"}),
    "trailing": ({"timestep_spacing": "trailing"}, {"timestep_spacing": "trailing"}),
    "linspace": ({"timestep_spacing": "linspace"}, {"timestep_spacing": "linspace"}),
    # Of the model, not of the request: a folder with another scheduler_config.json. Its last
    # timestep has no signal at all, which only a v-prediction can say something about.
    "zero_snr": ({}, {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing",
                      "prediction_type": "v_prediction"}),
}


def accepts(sampler, schedule):
    """Whether the class has the options of the schedule. LCM and TCD take their timesteps from
    their own original steps."""
    if sampler in ("lcm", "tcd") and schedule not in ("default", "zero_snr"):
        return False
    # Their first step then goes from a sigma of 4096 to one of 10 or so, where float32 loses three
    # digits: diffusers differs from itself by 4e-4 when weights move by a bit. tests/golden has
    # these steps alone.
    if sampler in ("euler", "euler_ancestral") and schedule == "zero_snr":
        return False
    known = inspect.signature(SAMPLERS[sampler][0].__init__).parameters
    return all(option in known for option in SCHEDULES[schedule][1])


def create(sampler, schedule, config):
    kind, options = SAMPLERS[sampler]
    return kind.from_config(config, **options, **SCHEDULES[schedule][1])


def draw_from(generator):
    """Make DPMSolverSDEScheduler take its noise from this generator: the increments of a Brownian
    path over sigma, a draw for each piece. A step asks for the piece from s to its middle, then
    for the whole from s to n, of which that piece is a part."""
    class Path:
        def __init__(self, sample, *arguments, **options):
            self.shape, self.begin = sample.shape, None

        def __call__(self, sigma, sigma_next):
            draw = randn_tensor(self.shape, generator=generator, dtype=torch.float32)
            if self.begin is None or sigma != self.begin:
                self.begin, self.middle, self.first = sigma, sigma_next, draw
                return draw
            first, second = self.begin - self.middle, self.middle - sigma_next
            self.begin = None
            return ((self.first * first.sqrt() + draw * second.sqrt()) /
                    (sigma - sigma_next).sqrt())

    dpmsolver_sde.BrownianTreeNoiseSampler = Path
