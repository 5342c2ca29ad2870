#!/usr/bin/env python3
"""zoetrope pull against a hub on this machine (hub_server.py), and beside huggingface_hub.

usage: pull_test.py PROGRAM [unittest arguments]
"""
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from hub_server import COMMIT, Hub, Large, digest_of

PROGRAM = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 else "zoetrope"
SOURCE = Path(__file__).resolve().parent.parent
MODEL = SOURCE / "tests/golden/pipeline/unipc"
SECONDS = 60

BIG = Large(random.Random(1).randbytes(3_000_000))
FILES = {"config.json": b"{}\n", "empty.txt": b"", "vae/weights.safetensors": BIG,
         "vae/copy of weights.safetensors": BIG, "text/a+b%20.txt": b"odd name",
         "text/small.bin": Large(b"small but large")}  # fmt: skip


class Pull(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="zoetrope-pull-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.cache = self.folder / "home" / "hub"
        self.repository = self.cache / "models--org--name"
        self.snapshot = self.repository / "snapshots" / COMMIT
        self.environment = {name: value for name, value in os.environ.items()
                            if not name.startswith(("HF_", "HUGGING")) and not name.lower().endswith("_proxy")}
        self.environment |= {"HF_HOME": str(self.folder / "home"), "LC_ALL": "C"}

    def hub(self, files=None):
        hub = Hub(FILES if files is None else files)
        self.enterContext(hub)
        self.environment["HF_ENDPOINT"] = hub.endpoint
        return hub

    def start(self, *words):
        return subprocess.Popen([PROGRAM, *map(str, words)], cwd=self.folder, env=self.environment, text=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def call(self, *words, code=0):
        process = self.start(*words)
        out, err = process.communicate(timeout=SECONDS)
        self.assertEqual(process.returncode, code, f"{words}\n{out}{err}")
        return out, err

    def pull(self, *words, code=0):
        return self.call("pull", "org/name", *words, code=code)

    def refused(self, *words, code=2, names=()):
        out, err = self.call("pull", *words, code=code)
        self.assertEqual(out, "")
        line = err.strip().splitlines()[-1]
        self.assertTrue(line.startswith("zoetrope: "), err)
        for name in names:
            self.assertIn(name, line)
        return err

    def contents(self):
        """Snapshot path -> content."""
        return {str(path.relative_to(self.snapshot)): path.read_bytes()
                for path in self.snapshot.rglob("*") if path.is_file()}

    def check_whole(self, files=None):
        files = FILES if files is None else files
        self.assertEqual(self.contents(), {path: bytes(content) for path, content in files.items()})
        self.assertEqual((self.repository / "refs/main").read_text(), COMMIT)
        for path, content in files.items():
            pointer = self.snapshot / path
            self.assertTrue(pointer.is_symlink())
            target = os.readlink(pointer)
            self.assertFalse(os.path.isabs(target))
            self.assertEqual(pointer.resolve(), (self.repository / "blobs" / digest_of(content)).resolve())
        self.assertEqual([path.name for path in self.repository.rglob("*.incomplete")], [])
        self.assertEqual([path.name for path in self.repository.rglob(".*")], [])

    def resumed(self, hub, part):
        """Bytes at which the requests began."""
        return [int(fields.get("Range", "bytes=0-")[6:-1]) for fields in hub.asked(part)]


class Downloads(Pull):
    def test_everything(self):
        hub = self.hub()
        out, err = self.pull()
        self.assertEqual(out, f"{self.snapshot}\n")
        self.assertIn("6 files", err)
        self.check_whole()
        # Once per content, although two files have it.
        self.assertEqual(len(hub.asked("/storage/vae")), 1)
        out, _ = self.pull("--json")
        result = json.loads(out)
        self.assertEqual(result, {"path": str(self.snapshot), "commit": COMMIT, "files": 6,
                                  "bytes": sum(map(len, FILES.values())), "downloaded_bytes": 0})  # fmt: skip
        self.assertEqual(len(hub.asked("/resolve/")), 4)  # none the second time; the empty file needs no request

    def test_some_files(self):
        self.hub()
        self.pull("--include", "*.json", "--include", "text/", "--exclude", "*.bin")
        self.assertEqual(sorted(self.contents()), ["config.json", "text/a+b%20.txt"])
        self.refused("org/name", "--include", "nothing*", names=["6 files", "--include"])

    def test_revisions(self):
        self.hub()
        for revision in ("v1", "refs/pr/1"):
            self.pull("--revision", revision, "--include", "config.json")
            self.assertEqual((self.repository / "refs" / revision).read_text(), COMMIT)
        self.pull("--revision", COMMIT, "--include", "config.json")
        self.assertFalse((self.repository / "refs" / COMMIT).exists())
        self.refused("org/name", "--revision", "v2", names=["v2", "org/name"])
        for revision in ("../../x", "/etc", ""):
            self.refused("org/name", f"--revision={revision}")

    def test_pages(self):
        files = {f"part-{i}.txt": b"part %d" % i for i in range(25)}
        hub = self.hub(files)
        hub.page = 10
        self.pull()
        self.check_whole(files)

    def test_token(self):
        hub = self.hub()
        hub.token = "hf_right"
        self.refused("org/name", names=["HF_TOKEN", "401"])
        self.environment["HF_TOKEN"] = "hf_wrong"
        self.refused("org/name", names=["HF_TOKEN", "401"])
        del self.environment["HF_TOKEN"]
        (self.folder / "home").mkdir(exist_ok=True)
        (self.folder / "home/token").write_text("hf_right\n")
        self.pull()
        self.check_whole()
        # The storage is another server: it must not see the token.
        self.assertTrue(hub.asked("/storage/"))
        self.assertFalse(any("Authorization" in fields for fields in hub.asked("/storage/")))

    def test_generate_pulls(self):
        files = {str(path.relative_to(MODEL)): Large(path.read_bytes()) if path.suffix == ".safetensors"
                 else path.read_bytes() for path in MODEL.rglob("*")
                 if path.is_file() and path.name != "expected.safetensors"}  # fmt: skip
        hub = self.hub(files)
        line = ["generate", "--model-path", "org/name", "--prompt", "x", "--height", 32, "--width", 32, "--num-frames", 1,
                "--num-inference-steps", 1, "--threads", 1, "--output-path", "x.png"]  # fmt: skip
        _, err = self.call(*line, code=2)
        self.assertIn("zoetrope pull org/name", err)
        self.assertEqual(hub.requests, [])
        self.call(*line, "--pull")
        self.assertTrue((self.folder / "x.png").exists())
        asked = len(hub.requests)
        self.call(*line, "--pull")  # from the cache, without a look at the hub
        self.assertEqual(len(hub.requests), asked)


class Trouble(Pull):
    def test_connection_that_breaks(self):
        hub = self.hub()
        hub.cut = {"/storage/vae": [1_000_000, 500_000]}
        _, err = self.pull()
        self.check_whole()
        self.assertEqual(self.resumed(hub, "/storage/vae"), [0, 1_000_000, 1_500_000])
        self.assertIn("trying again", err)

    def test_connection_that_always_breaks(self):
        hub = self.hub()
        hub.cut = {"/storage/vae": [1_000_000] + [0] * 20}
        self.refused("org/name", "--retries", 2, code=1, names=["kept", "3 tries"])
        partial = self.repository / "blobs" / (digest_of(BIG) + ".incomplete")
        self.assertEqual(partial.stat().st_size, 1_000_000)
        self.assertFalse((self.repository / "refs/main").exists())
        hub.cut = {}
        out, _ = self.pull("--json")
        self.check_whole()
        self.assertEqual(self.resumed(hub, "/storage/vae")[-1], 1_000_000)
        self.assertLess(json.loads(out)["downloaded_bytes"], 2_100_000)

    def test_server_that_is_busy(self):
        hub = self.hub()
        hub.statuses = {"/revision/": [503, 429], "config.json": [500], "/storage/vae": [502]}
        hub.fields = {"/revision/": {"Retry-After": "1"}}
        started = time.monotonic()
        self.pull()
        self.assertGreaterEqual(time.monotonic() - started, 2)
        self.check_whole()

    def test_server_without_ranges(self):
        hub = self.hub()
        hub.ranges = False
        hub.cut = {"/storage/vae": [1_000_000]}
        self.pull()
        self.check_whole()

    def test_wrong_content(self):
        hub = self.hub()
        hub.sent = {"config.json": b"[]\n"}
        self.refused("org/name", code=1, names=["git hash", "config.json"])
        hub.sent = {"/storage/vae": bytes(len(BIG))}
        err = self.refused("org/name", code=1, names=["SHA-256", digest_of(BIG), "vae/weights.safetensors"])
        self.assertIn("once more", err)
        self.assertEqual(sorted(path.name for path in (self.repository / "blobs").glob(digest_of(BIG) + "*")), [])
        self.assertFalse((self.repository / "refs/main").exists())
        hub.sent = {}
        self.pull()
        self.check_whole()

    def test_partial_file_of_something_else(self):
        for leftover in (b"x" * 1000, b"x" * len(BIG), b"x" * (len(BIG) + 10)):
            with self.subTest(bytes=len(leftover)):
                self.hub()
                blobs = self.repository / "blobs"
                blobs.mkdir(parents=True, exist_ok=True)
                (blobs / digest_of(BIG)).unlink(missing_ok=True)
                (blobs / (digest_of(BIG) + ".incomplete")).write_bytes(leftover)
                self.pull()
                self.check_whole()

    def test_more_or_less_content_than_listed(self):
        hub = self.hub()
        hub.sent = {"/storage/vae": BIG + b"more"}
        self.refused("org/name", code=1, names=["more comes", "vae/weights.safetensors"])

    def test_no_access(self):
        hub = self.hub()
        for status, code, *names in [(403, None, "terms", "HF_TOKEN"), (401, "GatedRepo", "terms", "HF_TOKEN"),
                                     (404, "RepoNotFound", "org/name", "check")]:  # fmt: skip
            hub.statuses = {"/revision/": [status]}
            hub.fields = {"/revision/": {"X-Error-Code": code} if code else {}}
            self.refused("org/name", names=names)
        self.refused("org/other", names=["org/other"])

    def test_no_hub(self):
        self.environment["HF_ENDPOINT"] = "http://127.0.0.1:9"
        started = time.monotonic()
        self.refused("org/name", "--retries", 3, code=1, names=["http://127.0.0.1:9", "cannot be reached", "4 tries"])
        self.assertGreater(time.monotonic() - started, 3)  # 0.5 s, 1 s and 2 s
        self.refused("org/name", "--retries", 0, code=1, names=["1 try"])
        self.environment["HF_ENDPOINT"] = "ftp://x"
        self.refused("org/name", names=["ftp://x", "https://"])
        self.environment["HF_HUB_OFFLINE"] = "1"
        self.refused("org/name", names=["HF_HUB_OFFLINE"])

    def test_names(self):
        self.refused(names=["one repository"])
        self.refused("a/b", "c/d", names=["one repository"])
        for name in ("name", "a/b/c", "../x", "a/..", "a--b/c", "a b/c", "/x"):
            self.refused(name, names=["organisation/name"])

    def test_paths_that_leave_the_folder(self):
        for path in ("../x", "/etc/x", "a/../../x", "a//x", "./x", ""):
            with self.subTest(path=path):
                hub = self.hub()
                hub.tree_extra = [{"type": "file", "path": path, "size": 1, "oid": "0" * 40}]
                self.refused("org/name", code=1, names=["no repository can have"])
        hub.tree_extra = [{"type": "file", "path": "x", "size": 1, "oid": "../x"}]
        self.refused("org/name", code=1, names=["no repository can have"])
        hub.tree_extra = [{"type": "file"}]
        self.refused("org/name", code=1, names=["without path"])
        self.assertFalse(self.repository.exists())

    def test_full_disk(self):
        hub = self.hub()
        hub.tree_extra = [{"type": "file", "path": "huge", "size": 1 << 60, "oid": "1" * 40}]
        self.refused("org/name", code=1, names=["free", "HF_HUB_CACHE"])
        self.assertEqual(hub.asked("/resolve/"), [])

    def test_interrupted(self):
        hub = self.hub()
        hub.pause = 0.05  # 46 pieces: more than two seconds
        process = self.start("pull", "org/name")
        partial = self.repository / "blobs" / (digest_of(BIG) + ".incomplete")
        deadline = time.monotonic() + SECONDS
        while not (partial.exists() and partial.stat().st_size > 300_000):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=SECONDS)
        self.assertEqual(process.returncode, 130, err)
        self.assertIn("goes on from there", err)
        kept = partial.stat().st_size
        self.assertGreater(kept, 300_000)
        hub.pause = 0
        self.pull()
        self.check_whole()
        self.assertEqual(self.resumed(hub, "/storage/vae")[-1], kept)

    def test_two_at_once(self):
        hub = self.hub()
        hub.pause = 0.01
        both = [self.start("pull", "org/name") for _ in range(2)]
        for process in both:
            _, err = process.communicate(timeout=SECONDS)
            self.assertEqual(process.returncode, 0, err)
        self.check_whole()
        self.assertEqual(len(hub.asked("/storage/vae")), 1)


class BesideHuggingfaceHub(Pull):
    """The same cache for both."""

    def python(self, expression):
        """Evaluates it in a Python of its own, since huggingface_hub reads the environment once -> its text."""
        code = f"from huggingface_hub import *; print({expression})"
        done = subprocess.run([sys.executable, "-c", code], env=self.environment, capture_output=True, text=True,
                              timeout=SECONDS)  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.strip()

    def test_it_finds_ours(self):
        self.hub()
        self.pull()
        self.environment["HF_HUB_OFFLINE"] = "1"
        self.assertEqual(self.python("snapshot_download('org/name', local_files_only=True)"), str(self.snapshot))
        for path in FILES:
            found = self.python(f"hf_hub_download('org/name', {path!r}, local_files_only=True)")
            self.assertEqual(found, str(self.snapshot / path))
        self.assertIn("org/name", self.python("[repo.repo_id for repo in scan_cache_dir().repos]"))
        self.assertEqual(self.python("scan_cache_dir().warnings"), "[]")

    def test_it_downloads_nothing_again(self):
        hub = self.hub()
        self.pull()
        asked = len(hub.asked("/storage/"))
        self.assertEqual(self.python("snapshot_download('org/name')"), str(self.snapshot))
        self.assertEqual(len(hub.asked("/storage/")), asked)
        self.check_whole()

    def test_we_find_its(self):
        hub = self.hub()
        self.assertEqual(self.python("snapshot_download('org/name')"), str(self.snapshot))
        asked = len(hub.asked("/resolve/"))
        result = json.loads(self.pull("--json")[0])
        self.assertEqual(result["downloaded_bytes"], 0)
        self.assertEqual(len(hub.asked("/resolve/")), asked)
        self.check_whole()


if __name__ == "__main__":
    unittest.main()
