"""A model hub for tests: one repository over Hugging Face's protocol, and every way in which a hub goes wrong.

    with Hub({"config.json": b"{}", "vae/model.safetensors": Large(b"...")}) as hub:
        run("zoetrope pull org/name", HF_ENDPOINT=hub.endpoint)
        hub.requests     # what was asked: (path, header fields)

Large files answer with a redirect to a second server, as the hub does with its storage.
"""
import hashlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Large(bytes):
    """Content in the large file storage."""


def digest_of(content):
    if isinstance(content, Large):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub:
    def __init__(self, files, repository="org/name", revisions=("main", "v1", "refs/pr/1")):
        self.files = files
        self.repository = repository
        self.revisions = {name: COMMIT for name in (*revisions, COMMIT)}
        self.requests = []
        # What goes wrong. A number of times, for the paths that contain the key:
        self.statuses = {}  # path -> [status, ...] answered first, one after the other
        self.cut = {}  # path -> [bytes, ...] after which the connection is closed
        self.sent = {}  # path -> content that is sent in place of the right one
        self.fields = {}  # path -> header fields of an error
        self.token = None  # wanted of everybody
        self.ranges = True
        self.pause = 0.0  # seconds between pieces
        self.page = 1000  # entries of a page of the tree
        self.tree_extra = []  # entries that the tree has too

    def __enter__(self):
        self.servers = [Server(self, storage) for storage in (False, True)]
        self.endpoint, self.storage = (f"http://127.0.0.1:{server.server_port}" for server in self.servers)
        for server in self.servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def asked(self, part):
        """Header fields of the requests whose path contains `part`."""
        return [fields for path, fields in self.requests if part in path]

    def take(self, table, path):
        """The next entry of a list in one of the tables, or None."""
        for part, entries in table.items():
            if part in path and entries:
                return entries.pop(0)
        return None

    def tree(self):
        entries = []
        folders = {path.rpartition("/")[0] for path in self.files} - {""}
        for folder in sorted(folders):
            entries.append({"type": "directory", "path": folder, "size": 0, "oid": "0" * 40})
        for path, content in self.files.items():
            entry = {"type": "file", "path": path, "size": len(content), "oid": digest_of(bytes(content))}
            if isinstance(content, Large):
                entry["lfs"] = {"oid": digest_of(content), "size": len(content), "pointerSize": 134}
            entries.append(entry)
        return entries + self.tree_extra


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub, storage):
        super().__init__(("127.0.0.1", 0), Storage if storage else Api)
        self.hub = hub

    def handle_error(self, request, client_address):
        pass  # a client that went away


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        hub = self.server.hub
        path = unquote(self.path)
        hub.requests.append((path, dict(self.headers)))
        status = hub.take(hub.statuses, path)
        if status is not None:
            extra = next((fields for part, fields in hub.fields.items() if part in path), {})
            return self.answer(status, b"no", extra)
        self.serve(hub, urlsplit(path).path)

    def answer(self, status, content, fields=None, cut=None):
        self.send_response(status)
        for name, value in (fields or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        pause = self.server.hub.pause
        size = 1 << 16
        for start in range(0, len(content), size):
            piece = content[start : start + size]
            if cut is not None and start + len(piece) > cut:
                self.wfile.write(piece[: cut - start])
                self.close_connection = True
                return
            self.wfile.write(piece)
            time.sleep(pause)

    def content(self, path, content, fields):
        """Bytes of a file, or of the range that is asked for."""
        hub = self.server.hub
        sent = next((other for part, other in hub.sent.items() if part in path), content)
        status, first = 200, 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and hub.ranges:
            first = int(asked[1])
            if first >= len(sent):
                return self.answer(416, b"", {"Content-Range": f"bytes */{len(sent)}"})
            status = 206
            fields["Content-Range"] = f"bytes {first}-{len(sent) - 1}/{len(sent)}"
        self.answer(status, bytes(sent[first:]), fields, hub.take(hub.cut, path) if self.command == "GET" else None)


class Api(Handler):
    def serve(self, hub, path):
        wanted = f"Bearer {hub.token}"
        if hub.token and self.headers.get("Authorization") != wanted:
            return self.answer(401, b"", {"X-Error-Code": "RepoNotFound"})
        api = re.fullmatch(rf"/api/models/{hub.repository}/(revision|tree)/(.+)", path)
        if api and api[2] not in hub.revisions:
            return self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        if api and api[1] == "revision":
            about = {"id": hub.repository, "sha": COMMIT, "siblings": [{"rfilename": name} for name in hub.files]}
            return self.answer(200, json.dumps(about).encode())
        if api:
            first = int((re.search(r"cursor=(\d+)", self.path) or [0, 0])[1])
            entries, fields = hub.tree(), {}
            if first + hub.page < len(entries):
                page = f"{hub.endpoint}{path}?recursive=true&cursor={first + hub.page}"
                fields["Link"] = f'<{page}>; rel="next"'
            return self.answer(200, json.dumps(entries[first : first + hub.page]).encode(), fields)
        file = re.fullmatch(rf"/{hub.repository}/resolve/([^/]+)/(.+)", path)
        if not file or file[1] not in hub.revisions or file[2] not in hub.files:
            return self.answer(404, b"", {"X-Error-Code": "EntryNotFound" if file else "RepoNotFound"})
        content = hub.files[file[2]]
        fields = {"X-Repo-Commit": COMMIT, "ETag": f'"{digest_of(content)}"'}
        if isinstance(content, Large):
            fields |= {"X-Linked-Etag": fields.pop("ETag"), "X-Linked-Size": str(len(content))}
            fields["Location"] = f"{hub.storage}/storage/{quote(file[2])}"
            return self.answer(302, b"see there", fields)
        self.content(path, content, fields)


class Storage(Handler):
    def serve(self, hub, path):
        name = path.removeprefix("/storage/")
        self.content(path, hub.files[name], {"ETag": '"of-the-storage"'})
