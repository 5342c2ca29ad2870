#!/usr/bin/env python3
"""Runs that survive: killed at any moment and resumed, a run gives the bytes of one that was left alone.

usage: resume_test.py PROGRAM [--slow] [unittest arguments]
Without --slow: some seeded kills on the embedded model and on a tiny Animate pipeline, and what is refused.
With it: ten kills of a video of 2,000 frames, and memory that does not grow with the length.
"""
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

PROGRAM = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 else "zoetrope"
SLOW = "--slow" in sys.argv
if SLOW:
    sys.argv.remove("--slow")
SOURCE = Path(__file__).resolve().parent.parent
TINY = SOURCE / "tests/golden/pipeline/unipc"
ANIMATE = SOURCE / "tests/golden/conditions/replace"
SECONDS = 1800 if SLOW else 300

SHORT = {"--model-path": TINY, "--prompt": "a red circle", "--height": 32, "--width": 32, "--num-frames": 5,
         "--num-inference-steps": 4, "--threads": 1, "--dtype": "fp32", "--seed": 7}  # fmt: skip
DEMO = {"--model-path": SOURCE / "models/demo-t2v", "--prompt": "a red circle moves right", "--num-inference-steps": 12,
        "--num-frames": 9, "--threads": 1, "--seed": 3}  # fmt: skip


def words_of(flags, *more):
    words = []
    for flag, value in flags.items():
        if value is not None:
            words += [flag, str(value)]
    return words + [str(word) for word in more]


class Runs(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="zoetrope-resume-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def start(self, flags, *more, **options):
        environment = {**os.environ, "LC_ALL": "C", "HF_HUB_CACHE": str(self.folder / ".hub")}
        return subprocess.Popen([PROGRAM, "generate", *words_of(flags, *more)], cwd=self.folder, env=environment,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)

    def end(self, process, code=0):
        out, err = (text.decode() for text in process.communicate(timeout=SECONDS))
        self.assertEqual(process.returncode, code, err)
        return out, err

    def run_whole(self, flags, *more, code=0, **options):
        return self.end(self.start(flags, *more, **options), code)

    def refused(self, flags, *more, code=2, names=()):
        out, err = self.run_whole(flags, *more, code=code)
        self.assertEqual(out, "")
        lines = err.splitlines()
        self.assertRegex(lines[-1], r"\Azoetrope: ")
        for name in names:
            self.assertIn(name, lines[-1])
        return lines[-1]

    def files(self, folder="."):
        root = self.folder / folder
        return sorted(str(path.relative_to(root)) for path in root.rglob("*"))

    def bytes_of(self, name):
        return (self.folder / name).read_bytes()

    def resume_words(self, state):
        """--resume, once there is something to go on with."""
        folder = self.folder / state
        return ["--resume"] if (folder / "lock").exists() or (folder / "run.json").exists() else []

    def wait_for_saves(self, process, state, saves):
        """Until the state was written that often, or the run has ended."""
        seen = set()
        while len(seen) < saves and process.poll() is None:
            for file in ("loop.safetensors", "carried.safetensors"):
                try:
                    status = (self.folder / state / file).stat()
                    seen.add((file, status.st_ino, status.st_mtime_ns))
                except FileNotFoundError:
                    pass
            time.sleep(0.001)

    def kill_and_resume(self, flags, output, moments, state="state"):
        """Kills the run after each of these seconds, or (integers) saves, then lets it end. -> its report, times hit"""
        flags = {**flags, "--state-dir": state, "--output-path": output}
        hit = 0
        for moment in moments:
            process = self.start(flags, *self.resume_words(state))
            if isinstance(moment, int):
                self.wait_for_saves(process, state, moment)
            else:
                time.sleep(max(0, moment))
            hit += process.poll() is None
            process.kill()
            _, err = process.communicate()
            self.assertIn(process.returncode, (0, -signal.SIGKILL), err)
        out, _ = self.run_whole(flags, *self.resume_words(state), "--json")
        return json.loads(out), hit

    def animate(self, frames, **more):
        """Flags for an animation of that many frames: the golden's, there and back."""
        driving = self.folder / "driving"
        if not driving.exists():
            for video in ("pose", "face", "background", "mask"):
                (driving / video).mkdir(parents=True)
                for i in range(frames):
                    place = i % 30
                    source = ANIMATE / video / f"{place if place < 16 else 30 - place:03}.png"
                    (driving / video / f"{i:05}.png").symlink_to(source)
        return {"--model-path": ANIMATE, "--text-encoder-path": TINY / "text_encoder",
                "--tokenizer-path": TINY / "tokenizer", "--prompt": "a raccoon", "--image": ANIMATE / "image.png",
                "--pose-video": driving / "pose", "--face-video": driving / "face",
                "--background-video": driving / "background", "--mask-video": driving / "mask",
                "--height": 32, "--width": 32, "--num-inference-steps": 3, "--guidance-scale": 1, "--threads": 1,
                "--dtype": "fp32", "--seed": 5, "--segment-length": 9, **more}  # fmt: skip

    def times_of(self, flags, output):
        """An uninterrupted run with a state folder -> seconds until its work begins, seconds of the work"""
        begin = time.monotonic()
        process = self.start({**flags, "--output-path": output, "--state-dir": "whole"})
        while b" seed " not in process.stderr.readline():
            pass
        work = time.monotonic()
        self.end(process)
        return work - begin, time.monotonic() - work


@unittest.skipIf(SLOW, "the slow ones run")
class Killed(Runs):
    def check(self, flags, ending, kills, seed):
        rng = random.Random(seed)
        startup, work = self.times_of(flags, f"whole{ending}")
        self.run_whole({**flags, "--output-path": f"plain{ending}", "--checkpoint-every": None})
        self.assertEqual(self.bytes_of(f"whole{ending}"), self.bytes_of(f"plain{ending}"))
        # The first while it works, whatever else the machine does; the others wherever they fall.
        moments = [rng.randint(2, 4), *(startup + rng.uniform(-0.1, 0.6) * work for _ in range(kills - 1))]
        state = f"state{ending}"
        report, hit = self.kill_and_resume(flags, f"killed{ending}", moments, state)
        print(f"{ending}: {work:.2f} s, hit {hit} of {kills} times, went on {len(report['resumed_from'])} times")
        self.assertGreater(hit, 0)
        self.assertEqual(self.bytes_of(f"killed{ending}"), self.bytes_of(f"whole{ending}"))
        self.assertEqual(self.files(state), ["run.json"])
        return report

    def test_embedded_model(self):
        report = self.check(DEMO, ".mp4", 8, seed=1)
        self.assertEqual(len(report["step_seconds"]), 12)

    def test_saved_every_fifth_step(self):
        self.check({**DEMO, "--checkpoint-every": 5, "--scheduler": "dpm++-sde"}, ".webm", 5, seed=2)

    def test_schedulers_and_several_outputs(self):
        for seed, name in enumerate(("euler", "heun", "dpm++", "euler-ancestral", "lcm", "unipc")):
            with self.subTest(name):
                flags = {**SHORT, "--num-outputs": 2, "--scheduler": name, "--output-type": "latent",
                         "--num-inference-steps": 12}  # fmt: skip
                self.check(flags, f"-{name}.safetensors", 2, seed)

    def test_segments(self):
        flags = self.animate(41)
        report = self.check(flags, ".mp4", 8, seed=3)
        self.assertEqual(len(report["step_seconds"]), 3 * 5)
        names = [stage["name"] for stage in report["stages"]]
        self.assertEqual(names.count("decode"), 5)
        self.assertAlmostEqual(report["total_seconds"], sum(stage["seconds"] for stage in report["stages"]), places=6)

    def test_segments_in_other_formats(self):
        flags = self.animate(41)
        for ending, kind in ((".gif", "video"), (".webm", "video"), (".safetensors", "tensor"), ("l.safetensors", "latent")):
            with self.subTest(ending):
                self.check({**flags, "--output-type": kind}, ending, 3, seed=4)
        self.run_whole({**flags, "--output-path": "pictures/p.png"})
        self.kill_and_resume(flags, "again/p.png", [9, 3])
        self.assertEqual(len(self.files("pictures")), 41)
        for name in self.files("pictures"):
            self.assertEqual(self.bytes_of(f"pictures/{name}"), self.bytes_of(f"again/{name}"), name)

    def test_interrupted(self):
        flags = {**DEMO, "--num-inference-steps": 100, "--output-path": "a.mp4"}  # a second and more
        self.run_whole(flags)
        flags.update({"--output-path": "b.mp4", "--state-dir": "s", "--checkpoint-every": 1000})
        process = self.start(flags)
        while b"encode_text" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=SECONDS)
        self.assertEqual(process.returncode, 130, err)
        if (self.folder / "s/loop.safetensors").exists():
            self.assertIn(b"--resume goes on from 's'", err)
        self.run_whole(flags, *self.resume_words("s"))
        self.assertEqual(self.bytes_of("a.mp4"), self.bytes_of("b.mp4"))

    def test_a_killed_run_without_state_leaves_nothing_behind_the_next(self):
        flags = {**self.animate(41), "--output-path": "out/a.mp4"}
        for moment in (0.8, 1.0, 1.2):
            process = self.start(flags)
            time.sleep(moment)
            process.kill()
            process.communicate()
        self.run_whole(flags)
        self.assertEqual(self.files("out"), ["a.mp4"])


@unittest.skipIf(SLOW, "the slow ones run")
class Refusals(Runs):
    def begun(self, **more):
        """A run whose last step is done and whose result could not be written -> its flags, what it said"""
        flags = {**SHORT, "--height": 64, "--width": 64, "--num-frames": 17, "--state-dir": "s",
                 "--output-type": "tensor", "--output-path": "a.safetensors", **more}  # fmt: skip

        def small_files():  # the loop's state fits, the frames do not
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, 1 << 18))

        _, err = self.run_whole(flags, code=1, preexec_fn=small_files)
        return flags, err

    def test_full_disk(self):
        flags, err = self.begun()
        self.assertRegex(err.splitlines()[-1], r"cannot write .*File too large.*--resume goes on from 's'")
        self.assertIn("loop.safetensors", self.files("s"))
        self.run_whole(flags, "--resume")
        self.run_whole({**flags, "--state-dir": None, "--output-path": "b.safetensors"})
        self.assertEqual(self.bytes_of("a.safetensors"), self.bytes_of("b.safetensors"))

    def test_flags(self):
        self.refused(SHORT, "--resume", names=["--resume", "--state-dir"])
        self.refused({**SHORT, "--checkpoint-every": 3}, names=["--checkpoint-every", "--state-dir"])
        self.refused({**SHORT, "--state-dir": "s", "--checkpoint-every": 0}, names=["--checkpoint-every", "1 to 1000"])
        self.refused({**SHORT, "--state-dir": "s"}, "--resume", names=["--resume", "'s'", "no state"])
        (self.folder / "e").mkdir()
        self.refused({**SHORT, "--state-dir": "e"}, "--resume", names=["--resume", "'e'", "no state"])
        (self.folder / "file").write_text("x")
        self.refused({**SHORT, "--state-dir": "file"}, names=["--state-dir", "'file'"])
        self.assertEqual(self.files(), ["e", "file"])
        (self.folder / "e/mine.txt").write_text("x")
        self.refused({**SHORT, "--state-dir": "e"}, names=["'e'", "'mine.txt'"])
        self.refused({**SHORT, "--state-dir": "s", "--output-type": "latent", "--output-path": "x.mp4"}, names=["x.mp4"])
        self.assertEqual(self.files(), ["e", "e/mine.txt", "file"])

    def test_another_run(self):
        flags, _ = self.begun()
        self.refused(flags, names=["unfinished", "--resume"])
        for change, *names in (
            ({"--seed": 8}, "settings.seed was 7 and is 8"),
            ({"--prompt": "a blue circle"}, "settings.prompt", "a red circle", "a blue circle"),
            ({"--num-inference-steps": 5}, "num_inference_steps was 4 and is 5"),
            ({"--threads": 2}, "threads was 1 and is 2"),
            ({"--dtype": "bf16"}, "dtype"),
            ({"--output-type": "latent"}, 'output.type was "tensor" and is "latent"'),
            ({"--model-path": SOURCE / "tests/golden/pipeline/dpm_bf16"}, "model"),
            ({"--lora-path": SOURCE / "tests/golden/adapters/diffusers.safetensors"}, "adapters"),
        ):
            with self.subTest(change):
                self.refused({**flags, **change}, "--resume", names=["--resume", "'s'", *names])
        self.run_whole({**flags, "--seed": None, "--output-path": "elsewhere/b.safetensors"}, "--resume")  # the stored seed
        self.assertIn("elsewhere/b.safetensors", self.files())

    def test_a_drawn_seed_is_taken_again(self):
        flags, _ = self.begun(**{"--seed": None})
        seed = json.loads((self.folder / "s/run.json").read_text())["run"]["description"]["settings"]["seed"]
        out, _ = self.run_whole(flags, "--resume", "--json")
        self.assertEqual(json.loads(out)["seed"], seed)
        self.run_whole({**flags, "--state-dir": None, "--seed": seed, "--output-path": "b.safetensors"})
        self.assertEqual(self.bytes_of("a.safetensors"), self.bytes_of("b.safetensors"))

    def test_damage(self):
        flags, _ = self.begun()
        shutil.copytree(self.folder / "s", self.folder / "good")

        def cut(name):
            data = self.bytes_of(f"s/{name}")
            (self.folder / "s" / name).write_bytes(data[: len(data) // 2])

        def flip(name):
            data = bytearray(self.bytes_of(f"s/{name}"))
            data[-5000] ^= 1
            (self.folder / "s" / name).write_bytes(data)

        for damage in (
            lambda: cut("run.json"), lambda: (self.folder / "s/run.json").write_text("[]"),
            lambda: (self.folder / "s/run.json").write_text('{"name": "of another program"}'),
            lambda: cut("loop.safetensors"), lambda: flip("loop.safetensors"),
            lambda: (self.folder / "s/loop.safetensors").write_bytes(b""),
        ):  # fmt: skip
            damage()
            self.refused(flags, "--resume", code=1, names=["'s'", "remove the folder"])
            shutil.rmtree(self.folder / "s")
            shutil.copytree(self.folder / "good", self.folder / "s")
        text = (self.folder / "s/run.json").read_text()
        (self.folder / "s/run.json").write_text(text.replace('"zoetrope_state": 1', '"zoetrope_state": 99'))
        self.refused(flags, "--resume", code=1, names=["format 99"])

    def test_two_at_once(self):
        flags = {**DEMO, "--num-inference-steps": 200, "--state-dir": "s", "--output-path": "a.mp4"}
        first = self.start(flags)
        while b"encode_text" not in first.stderr.readline():
            pass
        self.refused({**flags, "--output-path": "b.mp4"}, names=["'s'", f"process {first.pid}"])
        first.kill()
        first.communicate()

    def test_finished(self):
        flags = {**SHORT, "--state-dir": "s", "--output-path": "a.mp4"}
        out, _ = self.run_whole(flags, "--json")
        again, err = self.run_whole(flags, "--resume", "--json")
        self.assertEqual(json.loads(out), json.loads(again))
        self.assertIn("finished before", err)
        before = self.bytes_of("a.mp4")
        (self.folder / "a.mp4").unlink()
        self.refused(flags, "--resume", names=["a.mp4", "leave --resume out"])
        self.run_whole(flags)
        self.assertEqual(self.bytes_of("a.mp4"), before)
        self.assertEqual(self.files("s"), ["run.json"])

    def test_killed_between_its_result_and_the_removal_of_its_state(self):
        flags = {**SHORT, "--state-dir": "s", "--output-path": "a.mp4"}
        out, _ = self.run_whole(flags, "--json")
        (self.folder / "s/segments").mkdir()
        for left in ("loop.safetensors", "carried.safetensors", "segments/0.mp4", "lock"):
            (self.folder / "s" / left).write_bytes(b"left")
        again, _ = self.run_whole(flags, "--resume", "--json")
        self.assertEqual(json.loads(out), json.loads(again))
        self.assertEqual(self.files("s"), ["run.json"])


@unittest.skipUnless(SLOW, "takes minutes")
class Long(Runs):
    FRAMES = 2000

    def test_ten_kills_of_2000_frames(self):
        flags = self.animate(self.FRAMES)
        rng = random.Random(11)
        startup, work = self.times_of(flags, "whole.mp4")
        moments = [startup + rng.uniform(0, 0.2) * work for _ in range(8)] + [7, 2]
        report, hit = self.kill_and_resume(flags, "killed.mp4", moments)
        print(f"{work:.1f} s, hit {hit} of 10 times, went on {len(report['resumed_from'])} times")
        self.assertGreaterEqual(hit, 3)
        self.assertEqual(self.bytes_of("killed.mp4"), self.bytes_of("whole.mp4"))

    def test_memory_does_not_grow_with_the_length(self):
        flags = {**DEMO, "--num-inference-steps": 2, "--segment-length": 17}
        peaks = []
        for frames in (201, 2001):
            out, _ = self.run_whole({**flags, "--num-frames": frames, "--output-path": "a.mp4"}, "--json")
            peaks.append(json.loads(out)["memory"]["measured_peak_bytes"] / (1 << 20))
        print("peaks of 201 and of 2001 frames: {:.1f} and {:.1f} MiB".format(*peaks))
        self.assertLess(peaks[1] - peaks[0], 4)


if __name__ == "__main__":
    unittest.main(verbosity=1)
