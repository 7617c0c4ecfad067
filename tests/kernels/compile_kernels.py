"""Compiles the fused kernels for GPU architectures, on a machine that need not have such GPUs.

    python compile_kernels.py ARCHITECTURE[,ARCHITECTURE...] M[,M...]

Each ARCHITECTURE is 80, 90, ...; each M is a padded number of features, or 0 for the running mean.
"""

import sys
from collections.abc import Iterable

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from esamp.explorer.kernels.adam import adam, measure
from esamp.explorer.kernels.learn import learn
from esamp.explorer.kernels.propose import propose

POINTERS = {
    "*fp32": (
        "kept",
        "corrections",
        "decay",
        "weights",
        "moments",
        "template",
        "numbers",
        "partials",
        "bank",
        "tally",
        "projection",
        "missed",
        "varied",
        "value",
        "slope",
        "gradient",
    ),
    "*i64": ("slots", "place", "cell_rows"),
    "*i1": ("live", "flags", "occupied", "active", "lived", "steered", "reports"),
    "*i32": ("arrived",),
    "*fp64": ("gram", "counts"),
    "fp32": ("beta", "half", "steepness", "clip", "lr", "eps"),
}
TYPES = {name: kind for kind, names in POINTERS.items() for name in names}


def compile_one(kernel, states: str, constants: dict[str, object], warps: int, architecture: int) -> None:
    constants |= (
        {"live_stride": 1} if "live_stride" in kernel.arg_names else {}
    )  # Triton specialises arguments that equal 1
    types = TYPES | dict.fromkeys(("source", "final", "tilted"), states)
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
    source = ASTSource(kernel, signature, {(names.index(name),): value for name, value in constants.items()})
    options = {"num_warps": warps, "enable_fp_fusion": True}
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    sys.stdout.write(
        f"{kernel.fn.__name__} {constants} {states} sm_{architecture} {compiled.metadata.shared} bytes shared\n"
    )


def compile_all(target: int, features: Iterable[int]) -> None:
    """Compile every kernel for one architecture and all numbers of `features`."""
    for padded in features:
        warps = 4 if not padded else 16 if padded > 64 else 8
        common = {"M": padded, "HOLES": True, "ROWS": 16, "WIDTH": 32 if padded > 64 else 64, "CONSTANT": 0.5}
        depth = {"STEERS": True, "DEPTH": 4096 // max(32, padded), "TINY": 1e-20}
        for mean in (False, True)[: 1 if padded else 2]:
            more = common | {"VALUE": mean, "GATE": not mean}
            for states in ("*bf16", "*fp16"):
                compile_one(propose, states, more | depth | {"NARROW": states == "*fp16"}, warps, target)
            compile_one(learn, "*bf16", more | {"RIDGE": 0.01}, warps, target)
    compile_one(measure, "*fp32", {"WIDTH": 1024, "KEEP1": 0.9, "KEEP2": 0.999}, 4, target)
    compile_one(adam, "*fp32", {"WIDTH": 1024, "SHARE1": 0.1, "SHARE2": 0.001}, 4, target)


if __name__ == "__main__":
    architectures, numbers = ([int(each) for each in argument.split(",")] for argument in sys.argv[1:])
    for architecture in architectures:
        compile_all(architecture, numbers)
