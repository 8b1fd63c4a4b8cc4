"""A local stand-in for the Hugging Face Hub's HTTP API, used with the real client: small repositories, and tokens."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml

TOKEN = "hf_ofatest"
LICENCES = ("cc-by-4.0", *(f"another-{number}" for number in range(99)))


class Hub:
    """Repositories by name; each is a list of commits, newest last, and a commit maps paths to bytes."""

    def __init__(self):
        self.repositories, self.private, self.asked = {}, set(), []
        self.behind_a_proxy = False
        """Whether a proxy answers instead of the Hub when a card is validated."""
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def put(self, name, files):
        """Adds a commit to a repository, creating it if necessary; returns the commit's hash."""
        commits = self.repositories.setdefault(name, [])
        commits.append(dict(files))
        return self.sha(name, len(commits) - 1)

    def sha(self, name, index=-1):
        """The hash of a commit."""
        index = range(len(self.repositories[name]))[index]
        return hashlib.sha1(f"{name} {index}".encode()).hexdigest()

    def files(self, name, revision):
        """The hash and the files of a branch or commit; None if there is none."""
        for index, files in enumerate(self.repositories.get(name, [])):
            sha = self.sha(name, index)
            if revision == sha or (revision == "main" and index == len(self.repositories[name]) - 1):
                return sha, files
        return None

    def close(self):
        """Stops answering."""
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.hub.asked.append((self.command, self.path))
        path = self.path.partition("?")[0]
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/tree/([^/]+))?(/revision/([^/]+))?", path):
            return self._about(found[1], found[3] or found[5] or "main", tree=bool(found[3]))
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file(*found.groups())
        return self._answer(404, {})

    def do_POST(self):
        self.hub.asked.append((self.command, self.path))
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(401, {"error": "Invalid username or password."})
        if self.path == "/api/repos/create":
            asked = json.loads(content)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            if name.startswith("somebody/"):
                return self._answer(403, {"error": "You don't have the rights to create a model there"})
            known = name in self.hub.repositories
            if not known and (asked.get("private") or asked.get("visibility") == "private"):
                self.hub.private.add(name)
            self.hub.repositories.setdefault(name, [{}])
            return self._answer(409 if known else 200, {"url": f"{self.hub.endpoint}/{name}", "name": name})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", self.path.partition("?")[0]):
            modes = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for one in json.loads(content)["files"]
            ]
            return self._answer(200, {"files": modes})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", self.path.partition("?")[0]):
            files = dict(self.hub.repositories[found[1]][-1])
            for line in map(json.loads, content.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "deletedFile":
                    del files[value["path"]]
            sha = self.hub.put(found[1], files)
            url = f"{self.hub.endpoint}/{found[1]}/commit/{sha}"
            return self._answer(200, {"success": True, "commitUrl": url, "commitOid": sha})
        if self.path.startswith("/api/validate-yaml"):
            licence = yaml.safe_load(json.loads(content)["content"].split("---\n")[1]).get("license")
            if self.hub.behind_a_proxy:
                return self._answer(502, b"<html>Bad gateway</html>")
            if licence not in (None, *LICENCES):
                told = {"message": f'"license" must be one of [{", ".join(LICENCES)}]'}
                return self._answer(400, {"error": "Invalid metadata", "errors": [told], "warnings": []})
            return self._answer(200, {"errors": [], "warnings": []})
        return self._answer(404, {})

    def _allowed(self, name):
        return name in self.hub.repositories and (
            name not in self.hub.private or self.headers.get("Authorization") == f"Bearer {TOKEN}"
        )

    def _about(self, name, revision, *, tree):
        if not self._allowed(name):
            return self._answer(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        found = self.hub.files(name, revision)
        if found is None:
            return self._answer(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        sha, files = found
        if tree:
            listed = [
                {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for path, content in files.items()
            ]
            return self._answer(200, listed)
        siblings = [{"rfilename": path} for path in files]
        about = {"id": name, "modelId": name, "sha": sha, "siblings": siblings, "tags": []}
        return self._answer(200, {**about, "private": name in self.hub.private})

    def _file(self, name, revision, path):
        if not self._allowed(name):
            return self._answer(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        found = self.hub.files(name, revision)
        if found is None or path not in found[1]:
            return self._answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        sha, files = found
        etag = hashlib.sha256(files[path]).hexdigest()
        return self._answer(200, files[path], {"X-Repo-Commit": sha, "ETag": f'"{etag}"'})

    def _answer(self, status, content, headers=()):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
