"""A chat endpoint on 127.0.0.1 that fails on demand (standard library only)."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def completion(text):
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return json.dumps(
        {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    )


class FaultServer(ThreadingHTTPServer):
    """`behave(prompt, attempt)` says what happens to the attempt-th try of a prompt (from 1).

    "ok"; a status such as 429, or (429, retry-after); "hang" (a second), "drop" (no answer), "cut" (the
    connection ends in the middle), or any other text: that text as the body of a 200.
    """

    daemon_threads = True

    def __init__(self, behave):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave = behave
        self.lock = threading.Lock()
        self.bodies = []  # of all requests, in the order of arrival
        self.times = []
        self.running = self.most_running = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def prompts(self):
        return [body["messages"][-1]["content"] for body in self.bodies]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send(200, json.dumps({"object": "list", "data": [{"id": "small"}, {"id": "big"}]}))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt, server = body["messages"][-1]["content"], self.server
        with server.lock:
            server.bodies.append(body)
            server.times.append(time.monotonic())
            attempt = server.prompts().count(prompt)
            server.running += 1
            server.most_running = max(server.most_running, server.running)
        action = server.behave(prompt, attempt)
        with server.lock:
            server.running -= 1
        whole = completion(f"answer to {prompt}")
        status, retry_after = action if isinstance(action, tuple) else (action, None)
        if action == "hang":
            time.sleep(1)
        elif action == "cut":
            self.send(200, whole[: len(whole) // 2], length=len(whole))
        elif isinstance(status, int):
            self.send(status, json.dumps({"error": {"message": f"planted {status}"}}), retry_after)
        elif action != "drop":
            self.send(200, whole if action == "ok" else action)
        if action in ("hang", "cut", "drop"):
            self.close_connection = True

    def send(self, status, text, retry_after=None, length=None):
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(length or len(content)))
        if retry_after is not None:
            self.send_header("Retry-After", str(retry_after))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def serving(behave):
    server = FaultServer(behave)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
