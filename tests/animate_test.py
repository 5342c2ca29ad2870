#!/usr/bin/env python3
"""From a clip and a picture to a video with sound, in one command: the program as a process, on a tiny Animate model.

usage: animate_test.py PROGRAM [unittest arguments]

Clips are made by FFmpeg's program, and by the picture of a dancer that moves about; in a build without OpenVINO, the
tests are skipped.
"""
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

PROGRAM = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 else "zoetrope"
SOURCE = Path(__file__).resolve().parent.parent
MODEL = SOURCE / "tests/golden/conditions/replace"
SHARED = SOURCE / "tests/golden/pipeline/unipc"
POINTS = SOURCE / "tests/golden/preprocess_points"
DANCER = POINTS / "dance.png"  # 160x160
CHARACTER = MODEL / "image.png"
SECONDS = 240


def ffmpeg(*words):
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, words)], check=True, stdin=subprocess.DEVNULL)


def probe(path, entries, stream="v:0"):
    """Values of a stream or, with an empty one, of the file."""
    select = ["-select_streams", stream] if stream else []
    command = ["ffprobe", "-v", "error", *select, "-show_entries", entries, "-of", "json", str(path)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    if not stream:
        return found["format"]
    return found["streams"][0] if found["streams"] else None


def frames_of(path):
    return int(probe(path, "stream=nb_frames")["nb_frames"])


NETWORKS = Path(PROGRAM).parent / "pose-models" / "pose_detection.tflite"


@unittest.skipUnless(NETWORKS.exists(), "without MediaPipe's networks")
class Animate(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="zoetrope-animate-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        temporary = self.folder / "tmp"
        temporary.mkdir()
        self.environment = {**os.environ, "XDG_CACHE_HOME": str(self.folder / "cache"), "TMPDIR": str(temporary)}

    def start(self, output, *more, **flags):
        return subprocess.Popen([PROGRAM, *self.words(output, *more, **flags)], cwd=self.folder, env=self.environment,
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip

    def call(self, *words, code=0):
        done = subprocess.run([PROGRAM, *map(str, words)], cwd=self.folder, env=self.environment,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS)  # fmt: skip
        out, err = done.stdout.decode(), done.stderr.decode()
        self.assertEqual(done.returncode, code, f"{words}\n{out}{err}")
        self.assertEqual(list((self.folder / "tmp").iterdir()), [], "temporary files are left")
        return out, err

    def words(self, output, *more, **flags):
        words = {"model-path": MODEL, "text-encoder-path": SHARED / "text_encoder", "tokenizer-path": SHARED / "tokenizer",
                 "prompt": "a dancer", "image": CHARACTER, "height": 32, "width": 32, "num-inference-steps": 2,
                 "guidance-scale": 1, "dtype": "fp32", "seed": 3, "resolution-area": "96x96", "threads": 2,
                 "output-path": output}  # fmt: skip
        words.update({key.replace("_", "-"): value for key, value in flags.items()})
        line = [word for key, value in words.items() if value is not None for word in (f"--{key}", value)]
        return [str(word) for word in ("generate", *line, *more, "--json")]

    def generate(self, output, *more, code=0, **flags):
        return self.call(*self.words(output, *more, **flags), code=code)

    def report(self, *arguments, **flags):
        return json.loads(self.generate(*arguments, **flags)[0])

    def clip(self, name, seconds=1, fps=24, *, sound=True, filters="null", codec=("-c:v", "libx264", "-crf", "4"), **inputs):
        """The dancer's picture, drifting to the right, with a tone."""
        moving = f"scale=160:160,pad=192:192:16:16:color=gray,crop=176:176:x='mod(n,16)':y=8,{filters}"
        words = ["-loop", "1", "-framerate", fps, "-i", inputs.get("picture", DANCER)]
        if sound:
            words += ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=44100", "-c:a", "aac"]
        ffmpeg(*words, "-vf", moving, *codec, "-pix_fmt", inputs.get("format", "yuv420p"), "-t", seconds, self.folder / name)
        return self.folder / name


class Survives(Animate):
    def test_killed_while_the_clip_is_looked_at_and_in_segments(self):
        clip = self.clip("clip.mp4", 2)
        flags = {"video": clip, "segment_length": 13, "num_inference_steps": 4}
        for task in ("animate", "replace"):
            with self.subTest(task):
                self.environment["XDG_CACHE_HOME"] = str(self.folder / f"{task}-whole")
                whole = self.report("whole.mp4", task=task, **flags)
                self.assertGreater(len(whole["plan"]["segments"]), 3)
                cache = self.folder / f"{task}-killed"
                self.environment["XDG_CACHE_HOME"] = str(cache)
                state = self.folder / f"{task}.state"
                segments = lambda: len(list(state.glob("segments/*")))
                for kill, done in enumerate((lambda: True, lambda: segments() >= 1, lambda: segments() >= 3)):
                    process = self.start("killed.mp4", *["--resume"][:kill], task=task, state_dir=state, **flags)
                    while process.poll() is None and not ((state / "run.json").exists() and done()):
                        time.sleep(0.002)
                    self.assertIsNone(process.poll(), "it ended too soon")
                    process.kill()
                    process.communicate()
                    if kill == 0:
                        self.assertEqual(segments(), 0)
                        self.assertFalse(list(cache.glob("zoetrope/preprocess/*")), "the clip was looked at already")
                told = self.report("killed.mp4", "--resume", task=task, state_dir=state, **flags)
                self.assertEqual(told["preprocessing"]["frames"], whole["preprocessing"]["frames"])
                self.assertEqual((self.folder / "killed.mp4").read_bytes(), (self.folder / "whole.mp4").read_bytes())


class Points(Animate):
    def test_a_line_for_every_frame(self):
        clip, file = self.clip("clip.mp4"), self.folder / "new/points.jsonl"
        words = ["--output-path", self.folder / "videos", "--fps", 0, "--resolution-area", "96x96", "--points", file]
        self.call("preprocess", "--video", clip, *words)
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        self.assertEqual([line["frame"] for line in lines], list(range(24)))
        for n, line in enumerate(lines):
            self.assertTrue(line["found"])
            self.assertEqual([len(point) for point in line["points"]], [3] * 133)
            nose = line["points"][0]  # the picture drifts to the left, a pixel a frame, 16 of them again and again
            self.assertAlmostEqual(nose[0], lines[0]["points"][0][0] - n % 16, delta=4)
            self.assertTrue(line["box"][0] < nose[0] < line["box"][2])
        self.call("preprocess", "--video", clip, *words)  # also where the videos are kept from before
        self.assertEqual(len(file.read_text().splitlines()), 24)
        file.unlink()
        ffmpeg("-f", "lavfi", "-i", "color=gray:s=96x96:r=10", "-t", 1, self.folder / "nobody.mp4")
        self.call("preprocess", "--video", self.folder / "nobody.mp4", *words, code=2)
        self.assertFalse(file.exists())


class OneCommand(Animate):
    def test_a_clip_and_a_picture_become_a_video_with_sound(self):
        clip = self.clip("clip.mp4", seconds=1)
        report = self.report("out.mp4", video=clip, task="animate", segment_length=13)
        # A second of 24 frames becomes 30, resampled.
        self.assertEqual(report["settings"]["fps"], 30)
        self.assertEqual(report["settings"]["num_frames"], 30)
        self.assertEqual(report["settings"]["task"], "animate")
        told = report["preprocessing"]
        self.assertEqual((told["frames"], told["from_cache"], told["networks"]), (30, False, "mediapipe"))
        self.assertEqual(told["bad_frames"], [])
        for key in ("idle_seconds", "model_waited_seconds", "clip_waited_seconds"):
            self.assertGreaterEqual(told[key], 0)
        self.assertEqual(frames_of(self.folder / "out.mp4"), 30)
        sound = probe(self.folder / "out.mp4", "stream=codec_name,duration", "a:0")
        self.assertEqual(sound["codec_name"], "aac")
        self.assertAlmostEqual(float(sound["duration"]), 1, delta=0.03)

        # The second run, with another prompt, takes what the first one kept, and with the same prompt gives the same.
        again = self.report("other.mp4", video=clip, task="animate", segment_length=13, prompt="a robot")
        self.assertTrue(again["preprocessing"]["from_cache"])
        self.assertEqual(again["preprocessing"]["frames"], 30)
        self.report("again.mp4", video=clip, task="animate", segment_length=13)
        self.assertEqual((self.folder / "again.mp4").read_bytes(), (self.folder / "out.mp4").read_bytes())
        self.assertNotEqual((self.folder / "other.mp4").read_bytes(), (self.folder / "out.mp4").read_bytes())

    def tensors(self, name):
        data = (self.folder / name).read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        return data[8 + length :]

    def test_it_is_what_the_two_commands_give(self):
        """preprocess, then generate from its files: the same numbers, for animate and for replace."""
        clip = self.clip("clip.mp4", seconds=0.7)
        for task, more in (("animate", []), ("replace", ["--replace"])):
            with self.subTest(task=task):
                self.report("one.safetensors", video=clip, task=task, segment_length=13, output_type="tensor")
                files = self.folder / f"files-{task}"
                self.call("preprocess", "--video", clip, "--image", CHARACTER, "--output-path", files, "--resolution-area",
                          "96x96", "--cache-dir", "off", *more)  # fmt: skip
                inputs = {"pose_video": files / "src_pose.mp4", "face_video": files / "src_face.mp4"}
                if task == "replace":
                    inputs |= {"background_video": files / "src_bg.mp4", "mask_video": files / "src_mask.mp4"}
                self.report("two.safetensors", task=task, segment_length=13, output_type="tensor", resolution_area=None,
                            **inputs)  # fmt: skip
                self.assertEqual(self.tensors("one.safetensors"), self.tensors("two.safetensors"))

    def test_frames_and_containers(self):
        clip = self.clip("clip.mp4", seconds=1)
        report = self.report("out.webm", video=clip, num_frames=9, fps=12)
        self.assertEqual(report["settings"]["num_frames"], 9)
        self.assertEqual(report["settings"]["fps"], 12)
        self.assertEqual(probe(self.folder / "out.webm", "stream=codec_name", "a:0")["codec_name"], "opus")
        self.assertAlmostEqual(float(probe(self.folder / "out.webm", "format=duration", "")["duration"]), 0.75, delta=0.05)
        silent = self.clip("silent.mp4", seconds=0.3, sound=False)
        self.report("silent-out.mp4", video=silent)
        self.assertIsNone(probe(self.folder / "silent-out.mp4", "stream=codec_name", "a:0"))
        self.report("out.gif", video=silent, fps=25)

    def test_shots_begin_afresh(self):
        """Scene changes come from the clip, in a first run and in one that takes what it kept."""
        clip = self.folder / "two.mp4"
        ffmpeg("-loop", "1", "-framerate", 10, "-t", 1.6, "-i", DANCER, "-loop", "1", "-framerate", 10, "-t", 1.7, "-i",
               POINTS / "carphone.png", "-filter_complex", "[0]setsar=1[a];[1]scale=160:160,setsar=1[b];[a][b]concat=n=2",
               "-pix_fmt", "yuv420p", "-crf", 4, clip)  # fmt: skip
        for kept in (False, True):
            told = self.report("out.mp4", video=clip, fps=10, cut_policy="restart")
            self.assertEqual(told["preprocessing"]["from_cache"], kept)
            self.assertEqual(told["plan"]["cuts"], [16])
            self.assertEqual([part["start"] for part in told["plan"]["segments"] if part["restart"]], [17])
            self.assertEqual(frames_of(self.folder / "out.mp4"), 33)

    def refused(self, *names, **flags):
        before = sorted(self.folder.rglob("*"))
        out, err = self.generate("x.mp4", *flags.pop("more", []), code=flags.pop("code", 2), **flags)
        self.assertEqual(out, "")
        for name in names:
            self.assertIn(name, err)
        self.assertEqual(len(err.strip().splitlines()), 1, err)
        self.assertEqual(sorted(self.folder.rglob("*")), before)

    def test_refusals(self):
        clip = self.clip("clip.mp4", seconds=0.3)
        self.refused("--video and --pose-video", "give it or them", video=clip, pose_video=clip)
        self.refused("--retarget", "--video, the clip, is missing", pose_video=clip, face_video=clip, resolution_area=None,
                     more=["--retarget"])  # fmt: skip
        self.refused("--video is missing", resolution_area=None)
        self.refused("frames at 30 a second and 50 are wanted", video=clip, num_frames=50)
        self.refused("--segmenter", "replacement", video=clip, segmenter=clip)
        self.refused("--retarget", "replacement", video=clip, task="replace", more=["--retarget"])
        self.refused("--person", "largest", video=clip, person="tallest")
        self.refused("--det-model and --pose-model", video=clip, det_model=clip)
        (self.folder / "text.mp4").write_text("no video at all")
        self.refused("text.mp4", video=self.folder / "text.mp4", code=1)


class Clips(Animate):
    """What clips may be like: a result or a clear sentence."""

    def preprocess(self, clip, *more, code=0, folder="files"):
        out, err = self.call("preprocess", "--video", clip, "--output-path", self.folder / folder, "--cache-dir", "off",
                             "--resolution-area", "160x160", "--fps", "0", "--json", *more, code=code)  # fmt: skip
        return (json.loads(out) if out else None), err

    def test_nobody(self):
        ffmpeg("-f", "lavfi", "-i", "smptebars=size=160x120:rate=10:duration=1", self.folder / "nobody.mp4")
        _, err = self.preprocess(self.folder / "nobody.mp4", code=2)
        self.assertIn("nobody was found in any of the 10 frames", err)
        self.assertFalse((self.folder / "files" / "src_pose.mp4").exists())
        # In the middle of a run: nothing is written, and the clip is named.
        out, err = self.generate("x.mp4", video=self.folder / "nobody.mp4", code=2)
        self.assertIn("nobody was found in any", err)
        self.assertFalse((self.folder / "x.mp4").exists())

    def test_several_people(self):
        twice = "[0]scale=160:160,pad=192:192:16:16:color=gray,split[a][b];[b]hflip[r];[a][r]hstack"
        ffmpeg("-loop", "1", "-framerate", 10, "-i", DANCER, "-filter_complex", twice, "-pix_fmt", "yuv420p", "-crf", 4, "-t", 1,
               self.folder / "two.mp4")  # fmt: skip
        for person in ("largest", "center", "1", "2"):
            report, _ = self.preprocess(self.folder / "two.mp4", "--person", person)
            self.assertEqual(report["frames"], 10)
        self.assertEqual(report["bad_frames"], [])

    def test_cuts(self):
        ffmpeg("-loop", "1", "-framerate", 10, "-t", 0.8, "-i", DANCER, "-f", "lavfi", "-t", 0.8, "-i",
               "smptebars=size=160x160:rate=10", "-loop", "1", "-framerate", 10, "-t", 0.8, "-i", POINTS / "carphone.png",
               "-filter_complex", "[0]scale=160:160,setsar=1[a];[1]setsar=1[b];[2]scale=160:160,setsar=1[c];[a][b][c]concat=n=3",
               "-pix_fmt", "yuv420p", "-crf", 4, self.folder / "cuts.mp4")  # fmt: skip
        report, _ = self.preprocess(self.folder / "cuts.mp4")
        self.assertEqual(report["frames"], 24)
        self.assertEqual(report["cuts"], [8, 16])
        self.assertEqual([bad["frame"] for bad in report["bad_frames"]][:8], list(range(8, 16)))

    def test_formats(self):
        """Odd sizes, 10 bits, a turned picture, a rate that varies, frames that are no multiple of anything."""
        for name, words in {
            "odd.mkv": dict(filters="crop=171:173", format="yuv444p", codec=("-c:v", "ffv1")),
            "ten.mp4": dict(format="yuv420p10le", codec=("-c:v", "libx264", "-crf", "4", "-profile:v", "high10")),
            "vp9.webm": dict(codec=("-c:v", "libvpx-vp9", "-deadline", "realtime"), sound=False),
            "rate.mkv": dict(filters="setpts='(N+0.6*mod(N,3))/24/TB'", codec=("-c:v", "libx264", "-crf", "4", "-vsync", "vfr")),
        }.items():
            with self.subTest(name=name):
                report, _ = self.preprocess(self.clip(name, 0.5, **words))
                self.assertGreaterEqual(report["frames"], 11)
                self.assertEqual(report["bad_frames"], [])
                self.assertEqual(frames_of(self.folder / "files/src_pose.mp4"), report["frames"])
        upright, _ = self.preprocess(self.clip("upright.mp4", 0.5, filters="crop=150:176"), folder="upright")
        ffmpeg("-i", self.folder / "upright.mp4", "-vf", "transpose=2", "-crf", 4, self.folder / "lying.mp4")
        ffmpeg("-i", self.folder / "lying.mp4", "-c", "copy", "-metadata:s:v:0", "rotate=90", self.folder / "turned.mp4")
        turned, _ = self.preprocess(self.folder / "turned.mp4", folder="turned")
        self.assertEqual(turned["frames"], upright["frames"])
        self.assertGreater(turned["height"], turned["width"])

    def test_one_frame(self):
        one = self.clip("one.mp4", 0.04, sound=False)
        report, _ = self.preprocess(one)
        self.assertEqual(report["frames"], 1)
        _, err = self.generate("x.mp4", video=one, fps=24, code=2)
        self.assertIn("--video has 1 frames", err)

    def test_truncated(self):
        whole = self.clip("whole.mkv", 2, codec=("-c:v", "libx264", "-crf", "4", "-g", "6"), sound=False)
        data = whole.read_bytes()
        cut = self.folder / "cut.mkv"
        cut.write_bytes(data[: len(data) * 2 // 3])
        report, err = self.preprocess(cut)
        self.assertIn("ends early", err)
        self.assertIn("damage", report)
        self.assertTrue(6 < report["frames"] < 48, report["frames"])
        told = self.report("out.mp4", video=cut, fps=24)
        self.assertEqual(told["settings"]["num_frames"], report["frames"])
        self.assertIn("ends early", told["warnings"][0])
        cut.write_bytes(data[:200])
        _, err = self.preprocess(cut, code=1)
        self.assertIn("cut.mkv", err)


if __name__ == "__main__":
    unittest.main()
