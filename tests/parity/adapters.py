"""LoRA, LoCon and textual inversion files for the kinds' architectures, small and random, in the
formats that are found: kohya's names (SDXL's after the original UNet), PEFT's, and convolutions."""

import torch
from safetensors.torch import save_file

import kinds

RANK = 2
# Of the first attention on the way down and of the first on the way up.
DOWN_LAYERS = ("proj_in", "transformer_blocks.0.attn1.to_q", "transformer_blocks.0.attn2.to_v",
               "transformer_blocks.0.attn2.to_out.0")
UP_LAYERS = ("transformer_blocks.0.ff.net.0.proj", "transformer_blocks.0.attn2.to_k")
CONVOLUTIONS = (
    "down_blocks.0.resnets.0.conv1",
    "down_blocks.0.downsamplers.0.conv",
    "up_blocks.1.resnets.0.conv2",
    "up_blocks.1.resnets.0.conv_shortcut",
)
TEXT_MODULES = (
    "text_model.encoder.layers.0.self_attn.q_proj",
    "text_model.encoder.layers.1.mlp.fc2",
)


def attentions(unet):
    """The blocks (down, up) whose first attentions are changed."""
    return [next(i for i, block in enumerate(blocks) if getattr(block, "attentions", None))
            for blocks in (unet.down_blocks, unet.up_blocks)]


def unet_modules(unet):
    down, up = attentions(unet)
    return ([f"down_blocks.{down}.attentions.0.{layer}" for layer in DOWN_LAYERS] +
            [f"up_blocks.{up}.attentions.0.{layer}" for layer in UP_LAYERS])


def original_places(unet):
    """Where kohya's files have the places of the original UNet instead of diffusers'."""
    down, up = attentions(unet)
    layers = len(unet.down_blocks[0].resnets)
    return {f"down_blocks.{down}.attentions.0": f"input_blocks.{down * (layers + 1) + 1}.1",
            f"up_blocks.{up}.attentions.0": f"output_blocks.{up * (layers + 1)}.1"}


def folder_of(kind):
    """Kinds with the same trunk and text encoders share their files."""
    unet = kinds.KINDS[kind]["unet"][0]
    if "file" in kinds.KINDS[kind]:
        return kinds.ROOT / "adapters" / kind
    return kinds.ROOT / "adapters" / kinds.ARCHITECTURE.get(unet, unet)


def low_rank(weight, generator):
    """(down, up) of a layer with this weight, exact in float16 and bfloat16."""
    down = torch.randn((RANK, *weight.shape[1:]), generator=generator) / weight[0].numel()**0.5
    tail = (1, 1) if weight.dim() == 4 else ()
    up = torch.randn((weight.shape[0], RANK, *tail), generator=generator) * 0.5
    return down.bfloat16().half(), up.bfloat16().half()


def kohya_name(module, part, xl, places=()):
    for ours in places:
        module = module.replace(ours, places[ours])
    prefix = {"unet": "lora_unet", "text_encoder": "lora_te1" if xl else "lora_te",
              "text_encoder_2": "lora_te2"}[part]
    return f"{prefix}_{module.replace('.', '_')}"


def modules_of(pipe):
    """(part, module name, weight) of everything that the LoRA files change."""
    for module in unet_modules(pipe.unet):
        yield "unet", module, pipe.unet.get_submodule(module).weight
    for part in ("text_encoder", "text_encoder_2"):
        encoder = getattr(pipe, part, None)
        for module in TEXT_MODULES if encoder is not None else ():
            yield part, module, text_module(encoder, module).weight


def text_module(encoder, module):
    """transformers 5 dropped the prefix of CLIPTextModel's layers; files keep it."""
    if "text_model" not in dict(encoder.named_children()):
        module = module.removeprefix("text_model.")
    return encoder.get_submodule(module)


def make_kohya(pipe, xl, generator):
    state = {}
    places = original_places(pipe.unet) if xl else ()
    for part, module, weight in modules_of(pipe):
        name = kohya_name(module, part, xl, places)
        state[f"{name}.lora_down.weight"], state[f"{name}.lora_up.weight"] = (
            low_rank(weight, generator))
        state[f"{name}.alpha"] = torch.tensor(1.0)  # half the rank: a scale of 0.5
    return state


def make_peft(pipe, generator):
    state = {}
    for part, module, weight in modules_of(pipe):
        down, up = low_rank(weight, generator)
        state[f"{part}.{module}.lora_A.weight"] = down
        state[f"{part}.{module}.lora_B.weight"] = up
    return state


def make_locon(pipe, generator):
    state = {}
    for module in (*CONVOLUTIONS, *unet_modules(pipe.unet)[1:3]):
        name = kohya_name(module, "unet", False)
        weight = pipe.unet.get_submodule(module).weight
        state[f"{name}.lora_down.weight"], state[f"{name}.lora_up.weight"] = (
            low_rank(weight, generator))
        state[f"{name}.alpha"] = torch.tensor(1.0)
    return state


def make_embedding(pipe, generator):
    """Two vectors: A1111's form for one encoder, the pair of names for SDXL's two."""
    parts = [pipe.text_encoder] + ([pipe.text_encoder_2] if hasattr(pipe, "text_encoder_2") else [])
    vectors = [(0.5 * torch.randn((2, part.config.hidden_size), generator=generator))
               for part in parts]
    names = ("emb_params",) if len(parts) == 1 else ("clip_l", "clip_g")
    return dict(zip(names, vectors))


def make(kind, pipe):
    """The files of a kind's architecture, where they are not there yet."""
    folder = folder_of(kind)
    if folder.exists():
        return
    folder.mkdir(parents=True)
    xl = hasattr(pipe, "text_encoder_2")
    generator = torch.Generator().manual_seed(500 + sum(folder.name.encode()))
    files = {"kohya": make_kohya(pipe, xl, generator), "peft": make_peft(pipe, generator),
             "locon": make_locon(pipe, generator)}
    (folder / "embeddings").mkdir()
    files["embeddings/gemstyle"] = make_embedding(pipe, generator)
    for name, state in files.items():
        save_file({key: value.contiguous() for key, value in state.items()},
                  folder / f"{name}.safetensors")


def apply(layer, state, name, names, weight):
    """layer.weight += weight * alpha / rank * up * down, in float32."""
    down, up = (state[f"{name}.{key}.weight"].float() for key in names)
    scale = state[f"{name}.alpha"].item() / RANK if f"{name}.alpha" in state else 1.0
    change = (up.flatten(1) @ down.flatten(1)).reshape(layer.weight.shape)
    layer.weight.data += weight * scale * change


def apply_to_text(pipe, state, weight):
    xl = hasattr(pipe, "text_encoder_2")
    for part in ("text_encoder", "text_encoder_2") if xl else ("text_encoder",):
        for module in TEXT_MODULES:
            layer = text_module(getattr(pipe, part), module)
            name = kohya_name(module, part, xl)
            if f"{name}.lora_down.weight" in state:
                apply(layer, state, name, ("lora_down", "lora_up"), weight)
            elif f"{part}.{module}.lora_A.weight" in state:
                apply(layer, state, f"{part}.{module}", ("lora_A", "lora_B"), weight)


def apply_locon(unet, state, weight):
    """diffusers does not read convolutions in kohya's names."""
    for module, layer in unet.named_modules():
        name = kohya_name(module, "unet", False)
        if f"{name}.lora_down.weight" in state:
            apply(layer, state, name, ("lora_down", "lora_up"), weight)
