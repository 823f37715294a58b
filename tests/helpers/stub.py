"""A server that answers like OpenAI's chat API, enough for the examples, and notes what it was asked."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def reply(request):
    """The message that answers a request: by its last user's text and its tools."""
    tools = {tool["function"]["name"] for tool in request.get("tools", ())}
    last = request["messages"][-1]
    prompt = next(m["content"] for m in reversed(request["messages"]) if m["role"] == "user")
    if last["role"] == "tool":
        return {"content": f"brief: {last['content']}"}
    if "weather" in tools:
        return called("weather", {"city": "Rome"})
    if "final_result" in tools:
        return called("final_result", {"response": ["how long", "how deep"]})
    return {"content": f" re {prompt} "}


def called(name, arguments):
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"content": None, "tool_calls": [{"id": "call-1", "type": "function", "function": function}]}


class Stub:
    """The server; with ``fail`` its first answers are that it is overloaded.

    Attributes:
        asked: The prompts of the requests that were answered.
    """

    def __init__(self, fail=0):
        stub, self.asked, self._fail = self, [], fail
        self._guard = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                status, body = stub.answer(request)
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def answer(self, request):
        with self._guard:
            if self._fail:
                self._fail -= 1
                return 503, {"error": {"message": "overloaded"}}
            self.asked.append(json.dumps(request["messages"], sort_keys=True))
        message = {"role": "assistant", **reply(request)}
        reason = "tool_calls" if "tool_calls" in message else "stop"
        return 200, {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1767225600,
            "model": request["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
        }

    def close(self):
        self._server.shutdown()
        self._server.server_close()
