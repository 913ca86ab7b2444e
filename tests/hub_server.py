"""A Hugging Face hub on 127.0.0.1 for tests: it lists and gives out files of local folders."""

import contextlib
import hashlib
import http.server
import json
import os
import threading
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # else huggingface_hub asks the real one, once
IN_LFS = {".npz", ".npy", ".vtp", ".vtu", ".stl", ".gz", ".zip", ".mat", ".pt", ".part"}
PAGE = 3  # entries that the listing gives at once; 1000 on the real one


class Hub(str):
    """The endpoint, with switches for what may go wrong and a record of what was asked.

    Attributes:
        asked: one dict a request: method, path, range, authorization, host.
        cut: how many bytes of a file are sent before the connection breaks, by its path; a list
            holds one number for each request and is used up.
        lies: other bytes that are given out for a file than those listed.
        gated: repositories that are given out only to those with the token "accepted".
        no_ranges: give whole files, whatever part is asked for.
        failing: status codes of the next requests for files, used up.
    """

    def __init__(self, endpoint):
        self.asked, self.cut, self.lies, self.failing = [], {}, {}, []
        self.gated, self.no_ranges = set(), False

    def files_asked(self):
        """(path in the repository, range) of each request that files were sent for."""
        return [
            (asked["path"].rpartition("/@/")[2], asked["range"])
            for asked in self.asked
            if asked["path"].startswith("/cdn/")
        ]


@contextlib.contextmanager
def serve_hub(repos):
    """Serve ``{"owner/name": folder}``; the endpoint is what HF_ENDPOINT must be set to."""
    repos = {repo: Path(folder) for repo, folder in repos.items()}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.hub = Hub(f"http://127.0.0.1:{server.server_port}")
        server.repos = repos
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.hub
        finally:
            server.shutdown()
            thread.join()


def commit_of(folder):
    """The hub's name of what a folder holds now."""
    names = ((str(p.relative_to(folder)), p.stat().st_mtime_ns) for p in files_in(folder))
    return hashlib.sha1(repr(sorted(names)).encode()).hexdigest()


def files_in(folder):
    return sorted(p for p in Path(folder).rglob("*") if p.is_file())


def describe(path, folder):
    """An entry of the hub's listing."""
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": hashlib.sha1(name.encode()).hexdigest()}
    content = path.read_bytes()
    sha1 = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    entry = {"type": "file", "path": name, "size": len(content), "oid": sha1}
    if path.suffix in IN_LFS:
        sha256 = hashlib.sha256(content).hexdigest()
        pointer = b"what git has of a file in LFS"
        entry["oid"] = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer).hexdigest()
        entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": len(pointer)}
    return entry


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        hub = self.server.hub
        url = urlsplit(self.path)
        hub.asked.append(
            {
                "method": self.command,
                "path": unquote(url.path),
                "range": self.headers.get("Range"),
                "authorization": self.headers.get("Authorization"),
                "host": self.headers["Host"].partition(":")[0],
            }
        )
        first, *parts = url.path.strip("/").split("/")
        if first == "api":
            return self.answer_api("/".join(parts[1:3]), parts[3:], parse_qs(url.query))
        if first == "cdn":
            return self.send_file("/".join(parts[:2]), unquote("/".join(parts[3:])))
        return self.resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))

    do_HEAD = do_POST = do_GET

    def answer_api(self, repo, parts, query):
        if repo not in self.server.repos:
            return self.refuse(404, "RepoNotFound")
        folder = self.server.repos[repo]
        commit = commit_of(folder)
        action, revision = parts[0], unquote(parts[1])
        if revision != "main" and len(revision) != len(commit):  # all commits are this one
            return self.refuse(404, "RevisionNotFound")
        if action == "revision":
            return self.send_json({"id": repo, "sha": commit, "siblings": []})
        if action == "paths-info":
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            there = [folder / name for name in form["paths"]]
            return self.send_json([describe(p, folder) for p in there if p.exists()])
        below = folder / unquote("/".join(parts[2:]))
        if not below.is_dir():
            return self.refuse(404, "EntryNotFound")
        entries = below.rglob("*") if query["recursive"] == ["true"] else below.iterdir()
        entries, start = sorted(entries), int(query.get("cursor", ["0"])[0])
        headers = {}
        if start + PAGE < len(entries):
            path = urlsplit(self.path).path
            recursive = query["recursive"][0]
            url = f"{self.server.hub}{path}?recursive={recursive}&cursor={start + PAGE}"
            headers["Link"] = f'<{url}>; rel="next"'
        page = [describe(p, folder) for p in entries[start : start + PAGE]]
        return self.send_json(page, headers)

    def resolve(self, repo, revision, name):
        """Like the real one: files in LFS lie on another host, small ones on another page."""
        hub, folder = self.server.hub, self.server.repos.get(repo)
        if folder is None:
            return self.refuse(404, "RepoNotFound")
        path = folder / unquote(name)
        if repo in hub.gated and self.headers.get("Authorization") != "Bearer accepted":
            return self.refuse(403 if self.headers.get("Authorization") else 401, "GatedRepo")
        if not path.is_file() or revision != commit_of(folder):
            return self.refuse(404, "EntryNotFound")
        entry = describe(path, folder)
        host = hub.replace("127.0.0.1", "localhost") if "lfs" in entry else ""
        self.send_response(302 if host else 307)
        self.send_header("X-Repo-Commit", revision)
        self.send_header("X-Linked-Size", str(entry["size"]))
        self.send_header("X-Linked-ETag", f'"{entry.get("lfs", entry)["oid"]}"')
        self.send_header("Location", f"{host}/cdn/{repo}/@/{name}")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def send_file(self, repo, name):
        hub = self.server.hub
        if hub.failing:
            return self.refuse(hub.failing.pop(0), "")
        content = hub.lies.get(name, (self.server.repos[repo] / name).read_bytes())
        wanted = None if hub.no_ranges else self.headers.get("Range")
        begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if wanted and begin >= len(content):
            return self.refuse(416, "")
        rest = content[begin:]
        self.send_response(206 if wanted else 200)
        if wanted:
            last = len(content) - 1
            self.send_header("Content-Range", f"bytes {begin}-{last}/{len(content)}")
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if self.command != "HEAD":
            cut = hub.cut.get(name)
            if isinstance(cut, list):
                cut = cut.pop(0) if cut else None
            self.wfile.write(rest if cut is None else rest[:cut])
        return None

    def refuse(self, code, error):
        self.send_response(code)
        if error:
            self.send_header("X-Error-Code", error)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_json(self, value, headers=None):
        content = json.dumps(value).encode()
        self.send_response(200)
        for key, text in (headers or {}).items():
            self.send_header(key, text)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
