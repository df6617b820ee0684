"""A kernel unlike ipykernel: interrupted by message, with results after `idle`, and now and then with junk."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel


class OddKernel(Kernel):
    implementation = "odd"
    implementation_version = "1"
    banner = ""
    language_info: dict[str, object] = {  # noqa: RUF012
        "name": "odd",
        "mimetype": "text/plain",
        "file_extension": ".odd",
    }

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.interrupted = threading.Event()

    async def do_execute(self, code: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        match code.split():
            case ["sleep"]:
                self.say("stream", {"name": "stdout", "text": "sleeping\n"})
                self.interrupted.clear()
                if self.interrupted.wait(100):
                    return {"status": "error", "ename": "Interrupted", "evalue": "by message", "traceback": ["line"]}
            case ["late"]:
                parent = self.get_parent("shell")
                result = {"data": {"text/plain": "late result"}, "metadata": {}, "execution_count": 1}
                asyncio.get_running_loop().call_later(0.003, self.say, "execute_result", result, parent)
            case ["junk"]:
                contents: list[Any] = [{}, [], "text", 3, None, {"text": 5, "name": []}, {"data": "x", "metadata": 4}]
                for content in contents:
                    for msg_type in ("stream", "display_data", "error", "clear_output", "status", "nonsense"):
                        self.say(msg_type, content)
                self.iopub_thread.send_multipart([b"no delimiter"])
                self.iopub_thread.send_multipart([b"<IDS|MSG>", b"wrong signature", b"{}", b"{}", b"{}", b"{}"])
                self.say("stream", {"name": "stdout", "text": "after the junk"})
            case ["early", reply_when, _replied]:
                self.say("status", {"execution_state": "idle"})
                self.say("stream", {"name": "stdout", "text": "idle"})
                while not Path(reply_when).exists():  # noqa: ASYNC110, ASYNC240
                    await asyncio.sleep(0.01)
            case ["exit"]:
                payload = [{"source": "ask_exit"}]
                return {"status": "ok", "execution_count": self.execution_count, "payload": payload}
            case ["abort"]:
                return {"status": "aborted"}
            case ["stderr"]:
                sys.__stderr__.write("x" * 1_000_000 + "\n")  # type: ignore[union-attr]
                sys.__stderr__.flush()  # type: ignore[union-attr]
            case ["who"]:
                self.say("stream", {"name": "stdout", "text": f"{os.environ['ODD']} {sys.argv[-1]}"})
        return {"status": "ok", "execution_count": self.execution_count, "payload": [], "user_expressions": {}}

    async def execute_request(self, stream: Any, ident: Any, parent: Any) -> None:
        await super().execute_request(stream, ident, parent)
        match parent["content"]["code"].split():
            case ["early", _reply_when, replied]:
                Path(replied).touch()  # noqa: ASYNC240

    def say(self, msg_type: str, content: Any, parent: Any = None) -> None:
        session: Any = self.session
        message = session.msg(msg_type, {}, parent or self.get_parent("shell"))
        message["content"] = session.pack(content)
        session.send(self.iopub_socket, message, ident=b"topic")

    async def interrupt_request(self, stream: Any, ident: Any, parent: Any) -> None:
        self.interrupted.set()
        session: Any = self.session
        session.send(stream, "interrupt_reply", {"status": "ok"}, parent, ident=ident)


class OddApp(IPKernelApp):
    def init_signal(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # like Deno's: the signal kills


if __name__ == "__main__":
    del sys.argv[-1]
    OddApp.outstream_class.default_value = None
    OddApp.launch_instance(kernel_class=OddKernel)
