"""Browser: a headless Chromium of the system, driven through its debugging pipe."""

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Self

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 60.0  # seconds for one answer, on a busy machine
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--remote-debugging-pipe",
)


def find_chromium() -> str:
    """The path of a Chromium; skips the test where there is none, or fails it under PLAINFILM_REQUIRE_BROWSER."""
    for program in (os.environ.get("PLAINFILM_CHROMIUM", ""), *PROGRAMS):
        if program and (path := shutil.which(program)):
            return path
    missing = "no Chromium here: apt-get install chromium, or set PLAINFILM_CHROMIUM to its path"
    if os.environ.get("PLAINFILM_REQUIRE_BROWSER"):
        pytest.fail(missing)
    pytest.skip(missing)


class Browser:
    """One Chromium process with one tab; `events` holds what it reported since the last `open`."""

    def __init__(self, profile: Path) -> None:
        """profile: an empty folder for the browser's own files."""
        program = find_chromium()
        command_read, self.commands = os.pipe()
        self.answers, answer_write = os.pipe()
        pipes = f'exec "$0" "$@" 3<&{command_read} 4>&{answer_write}'  # Chromium takes commands on 3, answers on 4
        self.process = subprocess.Popen(
            ["bash", "-c", pipes, program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(command_read, answer_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(command_read)
        os.close(answer_write)
        self.number = 0
        self.received = b""
        self.session: str | None = None
        self.events: list[dict[str, Any]] = []
        try:
            target = self.ask("Target.createTarget", url="about:blank")["targetId"]
            self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Network", "Log", "Runtime"):
                self.ask(f"{domain}.enable")
            self.ask("Page.setLifecycleEventsEnabled", enabled=True)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the browser with all its children."""
        os.close(self.commands)
        os.close(self.answers)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def receive(self) -> dict[str, Any]:
        """The browser's next message; events are kept as well."""
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self.received:
            if not select.select([self.answers], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"Chromium sent nothing for {PATIENCE:.0f} s")
            part = os.read(self.answers, 1 << 20)
            if not part:
                raise EOFError("Chromium ended")
            self.received += part
        text, self.received = self.received.split(b"\0", 1)
        message = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message

    def ask(self, method: str, **parameters: object) -> dict[str, Any]:
        """Send one command of the DevTools protocol and give its result."""
        self.number += 1
        command = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            command["sessionId"] = self.session
        os.write(self.commands, json.dumps(command).encode() + b"\0")
        while (message := self.receive()).get("id") != self.number:
            pass
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']}")
        return message["result"]

    def open(self, page: Path, *, width: int = 1280, height: int = 900, dark: bool = False, wait: bool = True) -> None:
        """Load a page of the disk into a view of that size; wait: until all its pictures are there."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", media="", features=scheme)
        self.ask("Emulation.setScrollbarsHidden", hidden=True)
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.events.clear()
        loader = self.ask("Page.navigate", url=page.resolve().as_uri())["loaderId"]
        awaited = {"loaderId": loader, "name": "load" if wait else "DOMContentLoaded"}  # the page before may load still
        while not any(awaited.items() <= event["params"].items() for event in self.events if "params" in event):
            self.receive()

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page; the page's own policy does not bind it."""
        result = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def requests(self) -> list[str]:
        """Addresses that the page asked for, its own first."""
        sent = [event["params"] for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [parameters["request"]["url"] for parameters in sent]

    def complaints(self) -> list[str]:
        """What stands in the console: messages, warnings, violations of the policy, exceptions."""
        names = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
        return [json.dumps(event["params"]) for event in self.events if event["method"] in names]

    def screenshot(self, picture: Path) -> None:
        """Write the whole page, however long, as a PNG."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 16000), "scale": 1}
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        picture.write_bytes(base64.b64decode(shot["data"]))


def check_page(browser: Browser, page: Path, *, width: int, dark: bool, boxes: str) -> None:
    """Open a page of plainfilm's, and assert that it fits its window, shows its pictures and asks for nothing else.

    boxes: a selector of what must not be wider inside than outside.
    """
    browser.open(page, width=width, dark=dark)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    found = f"[...document.querySelectorAll({boxes!r})]"
    assert browser.evaluate(f"{found}.every(box => box.scrollWidth <= box.clientWidth || !box.clientWidth)")
    assert browser.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert browser.complaints() == []
    requests = browser.requests()
    assert requests[0].startswith("file:") and all(address.startswith("data:") for address in requests[1:])
    paper = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(19, 22, 25)" if dark else "rgb(250, 249, 246)")  # the one style is let through its policy
