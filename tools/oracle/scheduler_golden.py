#!/usr/bin/env python3
"""Writes tests/golden/schedulers/: schedules and trajectories of Diffusers' schedulers, and of the original Wan's.

    python tools/oracle/scheduler_golden.py WAN        (Diffusers 0.42.1 with SciPy; WAN: a checkout of Wan-Video/Wan2.2)

cases.json: the shape of a sample, and per case the scheduler_config.json, the --scheduler choice, the number of
steps, the first step that runs, and the steps after which the latents are kept.
cases.bin, float32: the first sample, MAX_STEPS velocities (the same in all cases: every scheduler is linear in
them), then per case its time steps, its sigmas, and the kept latents.
more.json, more.bin: the same for the schedulers and options that came later ("sigma_schedule", "sigmas"), and
quantiles of the beta distribution. Noise is drawn from a generator with seed 42.
"""

import copy
import importlib.util
import json
import sys
from pathlib import Path

import diffusers
import numpy as np
import scipy.stats
import torch

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "schedulers"
SHAPE = [1, 4, 2, 3, 3]
MAX_STEPS = 50
CLASSES = {
    "unipc": diffusers.UniPCMultistepScheduler,
    "dpm++": diffusers.DPMSolverMultistepScheduler,
    "euler": diffusers.FlowMatchEulerDiscreteScheduler,
    "heun": diffusers.FlowMatchHeunDiscreteScheduler,
    "lcm": diffusers.FlowMatchLCMScheduler,
}
NAME_OF = {cls.__name__: name for name, cls in CLASSES.items()}
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
# The scheduler_config.json of Wan-AI/Wan2.1-T2V-1.3B-Diffusers.
WAN = json.loads("""{"_class_name": "UniPCMultistepScheduler", "_diffusers_version": "0.33.0.dev0",
  "beta_end": 0.02, "beta_schedule": "linear", "beta_start": 0.0001, "disable_corrector": [],
  "dynamic_thresholding_ratio": 0.995, "final_sigmas_type": "zero", "flow_shift": 3.0, "lower_order_final": true,
  "num_train_timesteps": 1000, "predict_x0": true, "prediction_type": "flow_prediction",
  "rescale_betas_zero_snr": false, "sample_max_value": 1.0, "solver_order": 2, "solver_p": null,
  "solver_type": "bh2", "steps_offset": 0, "thresholding": false, "timestep_spacing": "linspace",
  "trained_betas": null, "use_beta_sigmas": false, "use_exponential_sigmas": false, "use_flow_sigmas": true,
  "use_karras_sigmas": false}""")


def unipc(**settings):
    return {"_class_name": "UniPCMultistepScheduler", **FLOW, **settings}


def dpm(**settings):
    return {"_class_name": "DPMSolverMultistepScheduler", **FLOW, **settings}


def euler(**settings):
    return {"_class_name": "FlowMatchEulerDiscreteScheduler", **settings}


def wan_classes(checkout):
    """The original repositories' own schedulers, without the package around them."""
    classes = {}
    for name, file, cls in [("flow-unipc", "fm_solvers_unipc", "FlowUniPCMultistepScheduler"),
                            ("flow-dpm++", "fm_solvers", "FlowDPMSolverMultistepScheduler")]:
        spec = importlib.util.spec_from_file_location(file, Path(checkout) / "wan" / "utils" / f"{file}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        classes[name] = getattr(module, cls)
    classes["sampling_sigmas"] = module.get_sampling_sigmas
    return classes


class EulerAncestral(diffusers.FlowMatchEulerDiscreteScheduler):
    """An ancestral Euler step for rectified flows (eta and s_noise 1), after ComfyUI's description of its sampler."""

    def step(self, model_output, timestep, sample, generator, return_dict):
        self._step_index = self._begin_index if self._step_index is None else self._step_index
        sigma, above_zero = self.sigmas[self._step_index : self._step_index + 2]
        self._step_index += 1
        picture = sample - model_output * sigma
        if above_zero == 0:
            return (picture,)
        down = above_zero * (1 + (above_zero / sigma - 1))
        alpha, alpha_down = 1 - above_zero, 1 - down
        fresh = (above_zero**2 - down**2 * alpha**2 / alpha_down**2) ** 0.5
        sample = down / sigma * sample + (1 - down / sigma) * picture
        noise = torch.randn(sample.shape, generator=generator)
        return (alpha / alpha_down * sample + noise * fresh,)


CLASSES["euler-ancestral"] = EulerAncestral
CLASSES["dpm++-sde"] = diffusers.DPMSolverMultistepScheduler


def cases():
    """Yields (config, choice, steps, first step)."""
    all_steps = (1, 2, 3, 5, 20, 50)
    for shift in (1.0, 3.0, 5.0, 12.0):
        for steps in all_steps:
            for order in (1, 2, 3):
                yield unipc(flow_shift=shift, solver_order=order), "auto", steps, 0
                yield dpm(flow_shift=shift, solver_order=order), "auto", steps, 0
            yield euler(shift=shift), "auto", steps, 0
    for steps in all_steps:
        for first in (0, 2, 7):
            if first < steps:
                yield WAN, "auto", steps, first
                yield WAN, "dpm++", steps, first
    for steps in (14, 15):  # DPM++ lowers its order at the end of runs below 15 steps
        for order in (2, 3):
            for final in ("zero", "sigma_min"):
                yield dpm(flow_shift=3.0, solver_order=order, final_sigmas_type=final), "auto", steps, 0
    for steps in (2, 3, 5, 20):
        for order in (1, 2, 3):
            shift = {"flow_shift": 3.0, "solver_order": order}
            # bh1 to sigma 0 is NaN in Diffusers.
            yield unipc(**shift, solver_type="bh1", final_sigmas_type="sigma_min"), "auto", steps, 0
            yield unipc(**shift, final_sigmas_type="sigma_min"), "auto", steps, 0
            yield unipc(**shift, disable_corrector=[0, 1, 3]), "auto", steps, 0
            yield unipc(**shift, use_karras_sigmas=True), "auto", steps, 0
            yield unipc(**shift, shift_terminal=0.02, num_train_timesteps=500), "auto", steps, 0
            yield dpm(**shift, solver_type="heun"), "auto", steps, 0
            yield dpm(**shift, final_sigmas_type="sigma_min"), "auto", steps, 0
            yield dpm(**shift, final_sigmas_type="sigma_min", lower_order_final=False), "auto", steps, 0
            yield dpm(**shift, final_sigmas_type="sigma_min", euler_at_final=True), "auto", steps, 0
        yield unipc(use_karras_sigmas=True, beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012,
                    final_sigmas_type="sigma_min"), "auto", steps, 0
        yield unipc(use_karras_sigmas=True, sigma_min=0.05, sigma_max=40.0), "auto", steps, 0
        for extra in ({"use_karras_sigmas": True}, {"use_exponential_sigmas": True}, {"shift_terminal": 0.1},
                      {"stochastic_sampling": True}, {"num_train_timesteps": 500},
                      {"use_karras_sigmas": True, "sigma_min": 0.01, "sigma_max": 0.9}):
            yield euler(shift=3.0, **extra), "auto", steps, 0


def more_cases():
    """Yields (config, choice, steps, first step, options)."""
    for shift in (1.0, 3.0, 5.0):
        for steps in (1, 2, 3, 4, 20):
            yield euler(shift=shift), "heun", steps, 0, {}
            yield euler(shift=shift), "lcm", steps, 0, {}
            yield euler(shift=shift), "euler-ancestral", steps, 0, {}
    yield {"_class_name": "FlowMatchHeunDiscreteScheduler", "shift": 7.0}, "auto", 4, 2, {}
    yield {"_class_name": "FlowMatchLCMScheduler", "shift": 7.0}, "auto", 4, 1, {}
    yield euler(shift=3.0), "euler-ancestral", 20, 7, {}
    for steps in (1, 2, 3, 5, 15):
        for order in (1, 2, 3):
            for extra in ({}, {"solver_type": "heun"}, {"final_sigmas_type": "sigma_min"}):
                if order == 1 and extra:
                    continue
                yield dpm(flow_shift=3.0, solver_order=order, **extra), "dpm++-sde", steps, 0, {}
    yield dpm(flow_shift=5.0, algorithm_type="sde-dpmsolver++"), "auto", 20, 7, {}
    for steps in (1, 2, 5, 20, 50):
        for order, shift in ((2, 3.0), (2, 12.0), (3, 5.0)):
            wan = {**WAN, "solver_order": order, "flow_shift": shift}
            yield wan, "flow-unipc", steps, 0, {}
            yield wan, "flow-dpm++", steps, 0, {}
    yield {**WAN, "algorithm_type": "sde-dpmsolver++"}, "flow-dpm++", 5, 0, {}
    for steps in (1, 2, 5, 20):
        yield euler(shift=3.0, use_beta_sigmas=True), "auto", steps, 0, {}
        for name in ("unipc", "dpm++", "euler", "lcm", "flow-unipc", "flow-dpm++"):
            for spacing in ("simple", "karras", "exponential", "beta"):
                if steps in (5, 20):
                    config = euler(shift=3.0) if name in ("euler", "lcm") else WAN
                    yield config, name, steps, 0, {"sigma_schedule": spacing}
    distilled = [1.0, 0.9375, 0.8333333333333334, 0.625]  # 1000, 937, 833, 625: four steps with a shift of 5
    for name in ("unipc", "dpm++", "dpm++-sde", "euler", "euler-ancestral", "lcm", "flow-unipc", "flow-dpm++"):
        yield WAN, name, 4, 0, {"sigmas": distilled}


def shifted(levels, shift):
    return shift * levels / (1 + (shift - 1) * levels)


def own_levels(name, scheduler, steps, shift):
    """Flow levels as the class lays them out, in float64."""
    if name == "unipc":
        return shifted(np.linspace(1, 1 / 1000, steps + 1)[:-1], shift)
    if name in ("dpm++", "dpm++-sde"):
        return np.flip(shifted(1.0 - np.linspace(1, 1 / 1000, steps + 1), shift))[:-1].copy()
    if name == "flow-unipc":
        return shifted(np.linspace(scheduler.sigma_max, scheduler.sigma_min, steps + 1)[:-1], shift)
    return WAN_CLASSES["sampling_sigmas"](steps, shift)


def set_levels(name, scheduler, levels):
    """Levels that the scheduler neither shifts nor spreads any more."""
    levels = np.array(levels)
    if name == "unipc" or name.startswith("flow-"):
        if name == "flow-unipc" and levels[0] == 1:
            levels[0] -= 1e-6  # Diffusers' guard against log(0), which the original class lacks
        scheduler.set_timesteps(sigmas=levels)
    elif name.startswith("dpm++"):
        scheduler.set_timesteps(len(levels))
        scheduler.sigmas = torch.from_numpy(np.append(levels, 0).astype(np.float32))
        scheduler.timesteps = torch.from_numpy((levels * 1000).astype(np.int64))
    else:
        scheduler.set_timesteps(sigmas=levels.tolist())


def lay_out(name, config, steps, options):
    """The scheduler with its time steps set."""
    config = copy.deepcopy(config)
    shift = config.get("shift", config.get("flow_shift", 1.0))
    spacing, levels = options.get("sigma_schedule"), options.get("sigmas")
    cls = WAN_CLASSES.get(name) or CLASSES[name]
    if name in ("euler", "euler-ancestral", "lcm", "heun"):
        config["shift"] = 1.0 if levels else shift
        if spacing in ("karras", "exponential", "beta"):
            config[f"use_{spacing}_sigmas"] = True
    elif name == "unipc" and spacing == "karras":
        config["use_karras_sigmas"] = True
    elif name == "dpm++-sde":
        config["algorithm_type"] = "sde-dpmsolver++"
    if name in ("unipc", "dpm++", "dpm++-sde") and (levels or spacing in ("exponential", "beta")):
        config["flow_shift"] = 1.0
    if name.startswith("flow-"):  # made with a shift of 1, which is given to set_timesteps
        config.pop("flow_shift", None)
    scheduler = cls.from_config(config)
    respaced = spacing in ("exponential", "beta") or (spacing == "karras" and name != "unipc")
    if levels:
        set_levels(name, scheduler, levels)
    elif respaced and name not in ("euler", "lcm"):
        convert = getattr(CLASSES["euler"](), f"_convert_to_{spacing}")
        set_levels(name, scheduler, convert(own_levels(name, scheduler, steps, shift), steps))
    elif name == "flow-unipc":
        scheduler.set_timesteps(steps, shift=shift)
    elif name == "flow-dpm++":
        scheduler.set_timesteps(sigmas=own_levels(name, scheduler, steps, shift))
    else:
        scheduler.set_timesteps(steps)
    return scheduler


def kept_steps(first, steps):
    """Every step of a short run, every tenth of a long one, and the last."""
    return [i for i in range(first, steps) if steps <= 5 or i % 10 == 4 or i == steps - 1]


def run(config, choice, steps, first, options, sample, velocities):
    name = NAME_OF[config["_class_name"]] if choice == "auto" else choice
    scheduler = lay_out(name, config, steps, options)
    scheduler.set_begin_index(first)
    count = len(scheduler.timesteps)  # 2 steps - 1 with Heun's method
    generator = torch.Generator("cpu").manual_seed(42)
    kwargs = {} if name == "unipc" else {"generator": generator}
    kept = []
    for i in range(first, count):
        sample = scheduler.step(velocities[i], scheduler.timesteps[i], sample, return_dict=False, **kwargs)[0]
        if i in kept_steps(first, count):
            kept.append(sample)
    values = [scheduler.timesteps.float(), scheduler.sigmas, *kept]
    assert all(bool(v.isfinite().all()) for v in values), (config, steps, options)
    return values, count


def write(stem, chosen, values, **extra):
    sample, velocities = values
    rows = []
    for config, choice, steps, first, options in chosen:
        results, count = run(config, choice, steps, first, options, sample, velocities)
        values += results
        rows.append({"config": config, "choice": choice, "steps": steps, "first": first,
                     "kept": kept_steps(first, count), **options})
    OUT.mkdir(parents=True, exist_ok=True)
    np.concatenate([v.numpy().ravel() for v in values]).astype("<f4").tofile(OUT / f"{stem}.bin")
    head = json.dumps({"diffusers": diffusers.__version__, "shape": SHAPE, "max_steps": MAX_STEPS, **extra})
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    (OUT / f"{stem}.json").write_text(f'{head[:-1]}, "cases": [\n  {lines}\n]}}\n')
    print(f"{stem}: {len(rows)} cases")


def beta_quantiles():
    """Rows of (p, a, b, scipy's quantile)."""
    levels = [1e-9, 1e-4, *np.linspace(0.02, 0.98, 25), 0.5, 0.9999, 1 - 1e-9]
    return [[p, a, b, float(scipy.stats.beta.ppf(p, a, b))]
            for a, b in ((0.6, 0.6), (0.3, 0.9), (1.0, 0.5)) for p in map(float, levels)]


def main():
    generator = torch.Generator("cpu").manual_seed(7)
    sample = torch.randn(SHAPE, generator=generator)
    velocities = torch.randn([MAX_STEPS, *SHAPE], generator=generator)
    write("cases", ((*case, {}) for case in cases()), [sample, velocities])
    write("more", more_cases(), [sample, velocities], beta_quantiles=beta_quantiles())


if __name__ == "__main__":
    WAN_CLASSES = wan_classes(sys.argv[1])
    main()
