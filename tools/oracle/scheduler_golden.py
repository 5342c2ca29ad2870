#!/usr/bin/env python3
"""Writes tests/golden/schedulers/: schedules and trajectories of Diffusers' schedulers.

    python tools/oracle/scheduler_golden.py        (Diffusers 0.42.1)

cases.json: the shape of a sample, and per case the scheduler_config.json, the --scheduler choice, the number of
steps, the first step that runs, and the steps after which the latents are kept.
values.bin, float32: the first sample, kMaxSteps velocities (the same in all cases: every scheduler is linear in
them), then per case its time steps, its sigmas, and the kept latents.
"""

import json
from pathlib import Path

import diffusers
import numpy as np
import torch

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "schedulers"
SHAPE = [1, 4, 2, 3, 3]
MAX_STEPS = 50
CLASSES = {
    "unipc": diffusers.UniPCMultistepScheduler,
    "dpm++": diffusers.DPMSolverMultistepScheduler,
    "euler": diffusers.FlowMatchEulerDiscreteScheduler,
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


def kept_steps(first, steps):
    """Every step of a short run, every tenth of a long one, and the last."""
    return [i for i in range(first, steps) if steps <= 5 or i % 10 == 4 or i == steps - 1]


def run(config, choice, steps, first, sample, velocities):
    name = NAME_OF[config["_class_name"]] if choice == "auto" else choice
    scheduler = CLASSES[name].from_config(config)
    scheduler.set_timesteps(steps)
    scheduler.set_begin_index(first)
    generator = torch.Generator("cpu").manual_seed(42)
    kwargs = {} if name == "unipc" else {"generator": generator}
    kept = []
    for i in range(first, steps):
        sample = scheduler.step(velocities[i], scheduler.timesteps[i], sample, return_dict=False, **kwargs)[0]
        if i in kept_steps(first, steps):
            kept.append(sample)
    values = [scheduler.timesteps.float(), scheduler.sigmas, *kept]
    assert all(bool(v.isfinite().all()) for v in values), (config, steps)
    return values


def main():
    generator = torch.Generator("cpu").manual_seed(7)
    sample = torch.randn(SHAPE, generator=generator)
    velocities = torch.randn([MAX_STEPS, *SHAPE], generator=generator)
    rows, values = [], [sample, velocities]
    for config, choice, steps, first in cases():
        values += run(config, choice, steps, first, sample, velocities)
        rows.append({"config": config, "choice": choice, "steps": steps, "first": first,
                     "kept": kept_steps(first, steps)})
    OUT.mkdir(parents=True, exist_ok=True)
    np.concatenate([v.numpy().ravel() for v in values]).astype("<f4").tofile(OUT / "values.bin")
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    (OUT / "cases.json").write_text(
        f'{{"diffusers": "{diffusers.__version__}", "shape": {SHAPE}, "max_steps": {MAX_STEPS}, "cases": [\n  {lines}\n]}}\n')
    print(f"{len(rows)} cases")


if __name__ == "__main__":
    main()
