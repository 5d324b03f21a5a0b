"""A W&B server of two hundred lines: takes runs over HTTP as the real one does, and fails when it is told to."""

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class StoredRun:
    """What the server knows of one run; lines of history by their offset, as the real server keeps them."""

    lines: dict[int, dict[str, Any]] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None
    given: list[dict[str, Any]] = field(default_factory=list)

    @property
    def history(self) -> list[dict[str, Any]]:
        """Lines of history in order."""
        return [self.lines[place] for place in sorted(self.lines)]

    def column(self, name: str) -> list[Any]:
        """One metric's values in the order of history, rows without it left out."""
        return [row[name] for row in self.history if name in row]


class WandbServer:
    """A local server; ``fails(what)`` answers a status to fail a request with, or seconds to hang, or None.

    ``what`` is the GraphQL operation, "file_stream" or "upload".
    """

    def __init__(self) -> None:
        self.runs: dict[str, StoredRun] = {}
        self.asked: list[str] = []
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.committed: list[dict[str, Any]] = []
        self.artifact_files: dict[str, bytes] = {}
        self.fails: Callable[[str], int | float | None] = lambda what: None
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._http.handle_error = lambda *_: None  # type: ignore[method-assign]
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def close(self) -> None:
        """Stop listening."""
        self._http.shutdown()
        self._http.server_close()

    def stream(self, run: StoredRun, content: dict[str, Any]) -> None:
        """Take a file_stream request: each line goes to its offset, over what is there."""
        with self._lock:
            run.given.append(content)
            for name, part in content.get("files", {}).items():
                rows = [json.loads(line) for line in part["content"]] if name != "output.log" else []
                if name == "wandb-history.jsonl":
                    run.lines |= {part["offset"] + number: row for number, row in enumerate(rows)}
                if name == "wandb-summary.json" and rows:
                    run.summary = rows[-1]
            if "exitcode" in content:
                run.exit_code = content["exitcode"]

    def answer(self, operation: str, asked: dict[str, Any]) -> dict[str, Any]:
        """The data of a GraphQL operation."""
        project = {"id": "p", "name": asked.get("project") or "scorelab", "entity": {"id": "e", "name": "me"}}
        if operation == "UpsertBucket":
            with self._lock:
                new = asked["name"] not in self.runs
                run = self.runs.setdefault(asked["name"], StoredRun())
            run.fields |= {key: value for key, value in asked.items() if value is not None}
            bucket = {"id": asked["name"], "name": asked["name"], "displayName": run.fields.get("displayName")}
            told = bucket | {"project": project, "sweepName": None, "config": "{}", "historyLineCount": len(run.lines)}
            return {"upsertBucket": {"bucket": told, "inserted": new}}
        if operation == "RunResumeStatus":
            run = self.runs.get(asked["name"])
            return {"model": project | {"bucket": None if run is None else self._resumed(asked["name"], run)}}
        if operation == "CreateRunFiles":
            place = f"{self.address}/upload/{asked['run']}/"
            files = [{"name": name, "uploadUrl": place + name} for name in asked["files"]]
            return {"createRunFiles": {"runID": asked["run"], "uploadHeaders": [], "files": files}}
        if operation in ("Viewer", "GetDefaultEntity"):
            return {"viewer": {"id": "v", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}
        if operation == "Runs":
            nodes = [{"node": self._told(name, run), "cursor": name} for name, run in sorted(self.runs.items())]
            page = {"endCursor": nodes[-1]["cursor"] if nodes else None, "hasNextPage": False}
            runs = {"edges": nodes, "pageInfo": page}
            return {"project": {"internalId": "1", "runCount": len(nodes), "readOnly": False, "runs": runs}}
        if operation == "RunFullHistory":
            return {"project": {"run": {"history": [json.dumps(row) for row in self.runs[asked["name"]].history]}}}
        if operation in ("ArtifactType", "ProjectArtifactType"):
            return {"project": {"artifact": None, "artifactType": None}}
        return self._artifact(operation, asked) or {"serverInfo": {"features": []}}

    def _artifact(self, operation: str, asked: dict[str, Any]) -> dict[str, Any] | None:
        """What wandb-core asks, in this order, to upload an artifact: Tables are some."""
        given = asked.get("input") or asked
        if operation == "CreateArtifact":
            self.artifacts[name := f"artifact{len(self.artifacts)}"] = given
            made = {"id": name, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
            return {"createArtifact": {"artifact": made}}
        if operation in ("CreateArtifactManifest", "UpdateArtifactManifest"):
            name = asked.get("artifactID") or asked["artifactManifestID"]
            file = {"id": "f", "uploadUrl": f"{self.address}/upload/{name}/manifest.json", "uploadHeaders": []}
            key = operation[0].lower() + operation[1:]
            return {key: {"artifactManifest": {"id": name, "file": file}}}
        if operation == "CreateArtifactFiles":
            nodes = []
            for spec in given["artifactFiles"]:
                name, path = spec["artifactID"], spec["name"]
                node = {"storagePath": path, "uploadUrl": f"{self.address}/upload/{name}/{path}", "uploadHeaders": []}
                nodes.append({"node": node | {"uploadMultipartUrls": None, "artifact": {"id": name}}})
            return {"createArtifactFiles": {"files": {"edges": nodes}}}
        if operation == "CommitArtifact":
            self.committed.append(self.artifacts[asked["artifactID"]])
            return {"commitArtifact": {"artifact": {"id": asked["artifactID"], "digest": "d"}}}
        return None

    def _told(self, name: str, run: StoredRun) -> dict[str, Any]:
        """A run as the public API has it."""
        state = {None: "running", 0: "finished"}.get(run.exit_code, "failed")
        return {
            **dict.fromkeys(("sweepName", "jobType", "commit", "description", "notes", "systemMetrics"), None),
            "user": {"name": "me", "username": "me"},
            "id": name,
            "name": name,
            "projectId": "1",
            "displayName": run.fields.get("displayName"),
            "state": state,
            "config": run.fields.get("config", "{}"),
            "summaryMetrics": json.dumps(run.summary),
            "historyLineCount": len(run.lines),
            "historyKeys": {"lastStep": len(run.lines) - 1, "keys": {}},
            "tags": [],
            "group": run.fields.get("groupName"),
            "readOnly": False,
            "createdAt": "2026-01-01T00:00:00Z",
            "heartbeatAt": "2026-01-01T00:00:00Z",
        }

    def _resumed(self, name: str, run: StoredRun) -> dict[str, Any]:
        tail = json.dumps([json.dumps(row) for row in run.history[-1:]])
        return {
            "id": name,
            "name": name,
            "displayName": run.fields.get("displayName"),
            "historyLineCount": len(run.lines),
            "logLineCount": 0,
            "eventsLineCount": 0,
            "historyTail": tail,
            "eventsTail": "[]",
            "summaryMetrics": json.dumps(run.summary),
            "config": run.fields.get("config", "{}"),
            "tags": [],
            "wandbConfig": '{"t": 1}',
        }


def _handler(server: WandbServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def reply(self, content: Any, status: int = 200) -> None:
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def failed(self, what: str) -> bool:
            server.asked.append(what)
            trouble = server.fails(what)
            if isinstance(trouble, float):
                time.sleep(trouble)
            elif trouble is not None:
                self.reply({"error": "told to fail"}, trouble)
            return trouble is not None

        def do_GET(self) -> None:
            self.reply({})

        def do_POST(self) -> None:
            body = self.body()
            if self.path.endswith("/file_stream"):
                if not self.failed("file_stream"):
                    name = self.path.split("/")[-2]
                    server.stream(server.runs.setdefault(name, StoredRun()), json.loads(body))
                    self.reply({"exitcode": None, "limits": {}})
                return
            asked = json.loads(body or b"{}")
            if "query" not in asked:
                server.asked.append(self.path)
                self.reply({}, 404)
                return
            named = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
            operation = asked.get("operationName") or (named.group(1) if named else "")
            if not self.failed(operation):
                self.reply({"data": server.answer(operation, asked.get("variables") or {})})

        def do_PUT(self) -> None:
            body = self.body()
            if not self.failed("upload"):
                _, _, run, name = self.path.split("/", 3)
                if run in server.artifacts:
                    server.artifact_files[f"{run}/{name}"] = body
                else:
                    server.runs[run].files[name] = body
                self.reply({})

        def log_message(self, *_: Any) -> None:
            return

    return Handler
