"""Random schedules of requests for a vLLM engine, each drawn from a seed."""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from support.esamp_options import without_unused
from support.vllm_schedules import (
    BLOCK,
    CHOICES,
    DIGITS,
    EOS,
    INVALID,
    NUMBERS,
    SIDES,
    Abort,
    Arrival,
    Flush,
    Profile,
    Schedule,
)


def draw_schedule(seed: int, profile: Profile) -> Schedule:
    """Draw the schedule of a seed."""
    rng = random.Random(seed)
    prefixes = [[_number_tokens(rng, length) for length in profile.prefixes] for _ in SIDES]
    events: defaultdict[int, list[Arrival | Abort | Flush]] = defaultdict(list)
    now = 0
    for number in range(profile.requests):
        arrival = _arrival(rng, profile, f"r{number} of {seed}", prefixes)
        events[now].append(arrival)
        if rng.random() < 0.2:
            for _ in range(rng.choice((1, 1, 3))):  # some at the same step, so that they never run
                sample = rng.randrange(arrival.n) if rng.random() < 0.5 else None
                events[now + rng.choice((0, 1, 2, 5, 20))].append(Abort(arrival.name, sample))
        if rng.random() < 2 / profile.requests:
            events[now + rng.randrange(20)].append(Flush())
        now += rng.choice(profile.pace)
    return Schedule(seed, profile, dict(events))


def _arrival(rng: random.Random, profile: Profile, name: str, prefixes: Sequence[Sequence[tuple[int, ...]]]) -> Arrival:
    side = rng.choice(SIDES)
    shared = rng.choice(prefixes[side]) if rng.random() < 0.4 else ()
    prompt = (1, *shared, *_number_tokens(rng, rng.choice(profile.lengths)))
    extra: Mapping[str, Any] | None = None
    bypasses_admission = refused = False
    if rng.random() < profile.invalid:
        extra = rng.choice(INVALID)
        bypasses_admission = rng.random() < 0.6
        refused = not bypasses_admission
    elif rng.random() < profile.methods:
        extra = _options(rng, profile, side)
        bypasses_admission = profile.waves and rng.random() < 0.1
    arrival = Arrival(name, prompt, {"n": _sample_count(rng)}, extra, bypasses_admission, refused, side)
    fixed = profile.all_fixed or (profile.steered_fixed and arrival.steers)
    if fixed:  # prompts end within a block, so that equal samples do not share one by chance
        prompt = prompt[: len(prompt) // BLOCK * BLOCK + 12]
    params = _sampling(rng, profile, arrival.n, fixed=fixed)
    return replace(arrival, prompt=prompt, params=params)


def _sample_count(rng: random.Random) -> int:
    return rng.choices((1, 2, 3, 4, 8, 16, 64), (50, 12, 8, 12, 6, 2, 1))[0]


def _options(rng: random.Random, profile: Profile, side: int) -> dict[str, Any]:
    """Options that admission accepts. The engine refuses some of them: layers that are not kept, scopes not allowed."""
    options: dict[str, Any] = {"method": "esamp", "features": rng.choice((8, 16, 16))}
    if rng.random() < profile.unusual:
        options |= _unusual(rng)
    if rng.random() < 0.25:
        options |= {"beta": 0.0, "signal": "state"}
    if profile.waves and rng.random() < 0.3:
        options["waves"] = rng.choice((1, 2, 3, 5))
    if not profile.waves:
        options["waves"] = 1
    if rng.random() < profile.shared:
        options["group"] = f"a group of side {side}, number {rng.randrange(3)}"
    options |= {flag: rng.choice((1, True, "true")) for flag in ("telemetry", "trace") if rng.random() < 0.3}
    return without_unused(options)


def _unusual(rng: random.Random) -> dict[str, Any]:
    pool: dict[str, Sequence[Any]] = {
        "signal": ("state", "action", "both"),
        "beta": (0.1, 0.25, 1, 4.0),
        "gain": (0.5, 3.0),
        "gate": (True, False, 0),
        "candidates": ("fused", "reference"),
        "ridge": (0.1, 10.0),
        "forgetting": (1.0, 0.9),
        "centre": (True, False),
        "update_every": (1, 3),
        "warmup": (0, 2),
        "seed": (0, 5),
        "target_layer": (2, 3),
        "source_layer": (0, 1),
        "scope": ("prompt", "prompt", "batch"),
        "dtype": ("float32", "float64"),
        "features": (0, 4, 32),
    }
    options = {name: rng.choice(pool[name]) for name in rng.sample(sorted(pool), rng.randrange(1, 5))}
    match rng.randrange(6):
        case 0:
            options |= {
                "distiller": "mlp",
                "width": 8,
                "depth": rng.choice((1, 2)),
                "loss": rng.choice(("sum", "mean")),
            }
        case 1:
            options |= {"distiller": "mean"}
        case 2:
            options |= {"preset": "paper", "width": 8}
    return options


def _sampling(rng: random.Random, profile: Profile, n: int, *, fixed: bool) -> dict[str, Any]:
    params: dict[str, Any] = {
        "n": n,
        "max_tokens": rng.randrange(1, min(6, profile.longest) if n > 8 else profile.longest),
    }
    if rng.random() < profile.seeded:
        params["seed"] = rng.randrange(1000)
    params["temperature"] = rng.choice((0.0 if n == 1 else 1.0, 0.7, 1.0, 1.0, 1.5))
    if rng.random() < 0.3:
        params["logprobs"] = rng.choice((0, 2, 20))
    if rng.random() < 0.1:
        params["prompt_logprobs"] = rng.choice((0, 3))
    if fixed:
        return params | {"ignore_eos": True} | (_filters(rng) if rng.random() < 0.3 else {})
    match rng.randrange(4):
        case 0:
            return params | _filters(rng)
        case 1:
            return params | _stops(rng)
        case 2 if rng.random() < 0.4:
            return params | {"structured_outputs": rng.choice(({"choice": CHOICES}, {"regex": DIGITS}))}
        case _:
            return params


def _filters(rng: random.Random) -> dict[str, Any]:
    pool: dict[str, Sequence[Any]] = {
        "top_k": (1, 10, 40),
        "top_p": (0.5, 0.9),
        "min_p": (0.02, 0.2),
        "presence_penalty": (0.5, -0.5),
        "frequency_penalty": (0.5, -0.5),
        "repetition_penalty": (0.8, 1.3),
        "logit_bias": ({30: 3.0, 31: -100.0}, {EOS: 5.0}),
        "allowed_token_ids": ([30, 31, 32, 33, 34, EOS],),
        "bad_words": (["7"], ["3 5"]),
    }
    return {name: rng.choice(pool[name]) for name in rng.sample(sorted(pool), rng.randrange(1, 4))}


def _stops(rng: random.Random) -> dict[str, Any]:
    pool: dict[str, Sequence[Any]] = {
        "stop": (["="], [" 7", "not"], ["1 "]),
        "stop_token_ids": (list(range(22, 40)), [16, 17]),
        "ignore_eos": (True,),
        "min_tokens": (1,),
        "include_stop_str_in_output": (True,),
    }
    return {name: rng.choice(pool[name]) for name in rng.sample(sorted(pool), rng.randrange(1, 4))}


def _number_tokens(rng: random.Random, length: int) -> tuple[int, ...]:
    return tuple(rng.choice(NUMBERS) for _ in range(length))
