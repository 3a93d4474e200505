#!/usr/bin/python3
"""What object files say that source text hides: a module's symbols start with its stem, and no
module but the named ones keeps mutable state of the process.

Arguments: the folder of object files (build/lint). Prints one line a violation.
"""

import re
import subprocess
import sys
from pathlib import Path

# Modules whose job is one state of the process (style.md 3.6; signals can only be latched there).
STATEFUL = {"common/base/log", "common/base/shutdown", "common/base/clock", "common/obs/metrics",
            "common/obs/health", "common/obs/tracing", "common/service/service",
            # A library is loaded once in a process.
            "worker/engine/kernels/blas",
            # libcrypto's SHA-256, looked up once; a thread's block of random bytes.
            "common/base/digest", "common/base/id",
            # What the processor has.
            "worker/engine/kernels/product_tile"}
# panic.c holds the xmalloc family; a service's entry point is <name>_service.
PREFIXES = {"common/base/error": ("error", "status"),
            "worker/engine/engine": ("engine", "picture"),
            "worker/engine/pipeline/dump": ("dump", "engine_dump"),
            "worker/engine/layers/timestep_embedding": ("timestep_embedding", "sinusoid"),
            "worker/engine/layers/loader": ("loader", "weight_name"),
            "gateway/field_reader": ("field",),
            "uploader/store_pair": ("store_pair", "store_health"),
            "gateway/http_request": ("http_request", "http_answer", "http_stream"),
            **{f"deploy/admin/{stem}": ("admin",)
               for stem in ("letters", "queues", "reading", "replay", "topics", "workers")},
            "worker/engine/schedulers/noise_schedule": ("noise_schedule", "timestep_spacing"),
            "worker/engine/schedulers/sigma_table": ("sigma_table", "sigma_kind"),
            "worker/engine/kernels/norm": ("group_norm", "layer_norm"),
            "worker/engine/kernels/token_merge": ("token_merge", "token_match", "token_unmerge"),
            "worker/engine/layers/sampling": ("downsample", "upsample"),
            "worker/engine/models/vae_mid": ("vae_mid", "vae_resnet"),
            "common/obs/metrics": ("metric", "metrics"),
            "common/bus/topics": ("topic", "topics"),
            "common/base/panic": ("panic", "xmalloc", "xcalloc", "xrealloc", "xstrdup", "xfree")}
MUTABLE = re.compile(r"^\.(data|bss|tdata|tbss)(\.(?!rel\.ro)[\w.]+)?$")


def symbols(objects):
    """(object, name, section, is_global) of every defined function and variable."""
    output = subprocess.run(["objdump", "-t", *map(str, objects)], check=True, capture_output=True,
                            text=True).stdout
    current = None
    for line in output.splitlines():
        if ":     file format " in line:
            current = line.split(":")[0]
            continue
        match = re.match(r"^[0-9a-f]+ (.)(.{5})(.) (\S+)\t[0-9a-f]+\s+(?:\.hidden )?(\S+)$", line)
        if match and match.group(4) != "*UND*" and match.group(3) in "FO":
            yield current, match.group(5), match.group(4), match.group(1) in "gu!"


def main():
    root = Path(sys.argv[1])
    # An object may have outlived its source.
    objects = [o for o in root.rglob("*.o") if o.relative_to(root).with_suffix(".c").exists()
               and o.relative_to(root).parts[0] != "tests"]
    if not objects:
        print("no object files: build them first (make lint does)")
        return 1
    problems = 0
    for path, name, section, is_global in symbols(objects):
        module = str(Path(path).relative_to(root))[:-2]
        stem = module.rsplit("/", 1)[1]
        if is_global and name != "main":
            allowed = PREFIXES.get(module, (stem,))
            if not any(name == p or name.startswith(p + "_") for p in allowed):
                print(f"{module}.c: {name} is not static and does not start with {stem}_")
                problems += 1
        if MUTABLE.match(section) and module not in STATEFUL and not name.startswith("__"):
            # METRIC_DEFINE_* makes static structs: their names say that they are metrics.
            if name.startswith("metric_"):
                continue
            print(f"{module}.c: {name} is mutable state of the process ({section}); pass a struct")
            problems += 1
    print(f"{len(objects)} object files", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
