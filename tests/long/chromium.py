"""Drives the browser Chromium over its debugging pipe: pages of any width in light and dark, keys, screenshots."""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
# Descriptors on which Chromium reads commands and writes answers.
COMMANDS, ANSWERS = 3, 4
ABOVE_BOTH = 10
PATIENCE = 120.0


class Chromium:
    """A headless browser with one page.

    Args:
        profile: Folder for the profile of the browser.

    Attributes:
        problems: What the pages have written to the console as an error, and exceptions of their scripts.
    """

    def __init__(self, profile):
        self.problems, self._number, self._rest, self._session = [], 0, b"", None
        theirs, mine = os.pipe()
        answers, written = os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, ABOVE_BOTH) for end in (theirs, written)]
        self._out, self._in = os.fdopen(mine, "wb"), os.fdopen(answers, "rb", buffering=0)

        def connect():
            os.dup2(ends[0], COMMANDS)
            os.dup2(ends[1], ANSWERS)

        line = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        line += ["--remote-debugging-pipe", f"--user-data-dir={profile}"]
        self._process = subprocess.Popen(
            line,
            preexec_fn=connect,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (theirs, written, *ends):
            os.close(end)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        found = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = found["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError, RuntimeError):
            self._session = None
            self.call("Browser.close")
        self._process.wait(30)
        with contextlib.suppress(OSError):
            self._out.close()
        self._in.close()

    def call(self, method, **parameters):
        """Calls a method of the Chrome DevTools Protocol, and returns its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while (answer := self._message()).get("id") != self._number:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def open(self, page, width=1300, scheme="light"):
        """Opens a file in a window of this width, in the color scheme `light` or `dark`."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        self.call("Page.navigate", url=page.as_uri())
        while (answer := self._message()).get("method") != "Page.loadEventFired":
            self._note(answer)

    def evaluate(self, script):
        """Returns the value of a JavaScript expression."""
        found = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press_tab(self):
        """Moves the focus to the next element."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9
            )

    def screenshot(self, file):
        """Writes a picture of the whole page."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        found = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(found["data"]))

    def _message(self):
        while b"\0" not in self._rest:
            if not select.select([self._in], [], [], PATIENCE)[0]:
                raise RuntimeError(f"the browser has not answered for {PATIENCE} s")
            found = self._in.read(1 << 16)
            if not found:
                raise RuntimeError("the browser has ended")
            self._rest += found
        one, self._rest = self._rest.split(b"\0", 1)
        return json.loads(one)

    def _note(self, message):
        method, found = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.problems.append(str(found["exceptionDetails"]))
        elif method == "Log.entryAdded" and found["entry"]["level"] == "error":
            self.problems.append(found["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and found["type"] in ("error", "assert"):
            self.problems.append(str(found["args"]))
