"""JupyterLab and Notebook 7 in a real Chromium, for tests: servers and pages that end with the test run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import psutil
from playwright.sync_api import TimeoutError as PageTimeout
from playwright.sync_api import expect

OPEN = "%load_ext durable_nb\n%durable_workflow {run} --db {run}.db"
TOKEN = "durable-nb-tests"
TIMEOUT = 60_000  # ms that a page may take for any one thing
WITHIN = 15_000  # ms for an output to be drawn
CHROMIUM = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def chromium():
    """Where the system's Chromium is; None if there is none."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Server:
    """A Jupyter server of this interpreter on a free port, cut off from the user's own configuration.

    Args:
        directory: Where its notebooks are.
        home: A directory of its own, for everything Jupyter keeps.
    """

    def __init__(self, directory, home):
        self.directory = Path(directory)
        _settings(home)
        self._home = home
        self._log = (home / "server.log").open("w")
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0",
                f"--IdentityProvider.token={TOKEN}", "--LabApp.expose_app_in_browser=True",
                "--JupyterNotebookApp.expose_app_in_browser=True",
                "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
            ],
            cwd=directory, env={**os.environ, **_isolation(home)}, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.url = self._wait_for_url(home)

    def stop(self):
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
        self._log.close()

    def end_kernels(self):
        """End all kernels, as closing their notebooks would."""
        for kernel in self._call("api/kernels"):
            self._call(f"api/kernels/{kernel['id']}", method="DELETE")

    def forget_theme(self):
        """Have the next page light, whatever was chosen."""
        _settings_of(self._home, "apputils-extension/themes").unlink(missing_ok=True)

    def content(self, name):
        """A saved notebook."""
        return json.loads((self.directory / name).read_text())

    def _call(self, path, method="GET"):
        request = urllib.request.Request(
            f"{self.url}{path}", method=method, headers={"Authorization": f"token {TOKEN}"}
        )
        with urllib.request.urlopen(request) as answer:
            return json.loads(answer.read() or "null")

    def _wait_for_url(self, home):
        for _ in range(300):
            for info in (home / "runtime").glob("jpserver-*.json"):
                try:
                    url = json.loads(info.read_text())["url"]
                    urllib.request.urlopen(f"{url}api?token={TOKEN}").close()
                except (ValueError, urllib.error.URLError):
                    continue
                return url
            if self._process.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError("the Jupyter server did not start:\n" + Path(self._log.name).read_text())


def _settings(home):
    (home / "runtime").mkdir()
    written = {
        "apputils-extension/notification": '{"fetchNews": "false"}',
        "notebook-extension/tracker": '{"windowingMode": "none"}',  # a cell out of sight is there too
    }
    for name, text in written.items():
        file = _settings_of(home, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def _settings_of(home, name):
    return home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"


def _isolation(home):
    names = {
        "HOME": "", "JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "IPYTHONDIR": "ipython",
        "JUPYTER_RUNTIME_DIR": "runtime", "MPLCONFIGDIR": "mpl", "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    }  # fmt: skip
    return {name: str(home / below) for name, below in names.items()}


class Notebook:
    """One notebook, open in a page of JupyterLab (or of Notebook 7).

    Args:
        page: A page of Chromium.
        server: The server.
        name: The notebook's file.
        face: ``doc`` opens it in JupyterLab's single-document mode, ``notebooks`` in Notebook 7.
        dark: Whether in the dark theme.
    """

    def __init__(self, page, server, name, face="doc", dark=False):
        self.page, self.server, self.name, self.face = page, server, name, face
        self.open()
        if dark:
            self.darken()

    def darken(self):
        self._execute("apputils:change-theme", {"theme": "JupyterLab Dark"})

    def open(self):
        """Open it, or open it anew as a reload does."""
        self._load()
        try:
            self._wait_for_kernel(30_000)
        except PageTimeout:  # a front end that lost the race for its kernel's session is loaded anew
            self._load()
            self._wait_for_kernel()

    def _load(self):
        if self.face == "doc":
            self.page.goto(f"{self.server.url}doc/tree/{self.name}?token={TOKEN}&reset")
        else:
            self.page.goto(f"{self.server.url}notebooks/{self.name}?token={TOKEN}")
        self.page.wait_for_function("window.jupyterapp")
        self.page.evaluate("window.jupyterapp.restored.then(() => 1)")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell")

    def start_all(self):
        """Begin to run all cells."""
        self._begin("notebook:run-all-cells")

    def run_all(self):
        """Run all cells, to the end."""
        self.start_all()
        self.finish()

    def restart_and_run_all(self):
        """Restart the kernel and begin to run all cells."""
        self._begin("notebook:restart-run-all")
        self.page.click(".jp-Dialog button.jp-mod-warn, .jp-Dialog button.jp-mod-accept")

    def finish(self):
        """Wait until what was begun has run."""
        self.page.evaluate("window.durable_nb_tests")

    def save(self):
        self._execute("docmanager:save")
        return self.server.content(self.name)

    def kill_kernel(self):
        """Kill the kernel's process; JupyterLab starts it again under the same id, and says so."""
        (pid,) = _kernels_of(self.server)
        os.kill(pid, signal.SIGKILL)
        self.restarted()

    def restarted(self):
        """Wait until JupyterLab has restarted a kernel that died, and put its message away."""
        self.page.click(".jp-Dialog button.jp-mod-accept")
        self.page.wait_for_selector(".jp-Dialog", state="detached")
        self._wait_for_kernel()

    def cell(self, index):
        """The outputs of the code cell of that number, from 0."""
        return self.page.locator(".jp-CodeCell").nth(index).locator(".jp-Cell-outputArea")

    def form(self, cell=1):
        """The prompts in the outputs of that code cell."""
        return self.cell(cell).locator(".dnb")

    def button(self, name, cell=1):
        """The button of that name in a prompt."""
        return self.form(cell).get_by_role("button", name=name, exact=True)

    def expect(self, index, *texts):
        """Wait until a cell's outputs hold these texts: they are drawn a little after the kernel is done."""
        for text in texts:
            expect(self.cell(index)).to_contain_text(text, timeout=WITHIN)

    def expect_printed(self, index, text):
        """Wait until the last thing that a cell has printed is that text."""
        expect(self.cell(index).locator("pre").last).to_have_text(text, timeout=WITHIN)

    def screenshot(self, path):
        """The page, with the end of the last output in sight."""
        self.page.evaluate(
            """() => {
              const outputs = [...document.querySelectorAll('.jp-OutputArea-output')]
              outputs.at(-1)?.scrollIntoView({ block: 'end' })
            }"""
        )
        self.page.screenshot(path=path, full_page=True)

    def tidy(self):
        """Put away what stands round the notebook: side bars and the status bar."""
        for side in "left", "right":
            self._execute("application:toggle-side-tabbar", {"side": side})
        self._execute("statusbar:toggle")

    def picture(self, path):
        """A picture of the whole notebook, from the page's top to the end of its last cell."""
        self.page.set_viewport_size({"width": 800, "height": 1600})
        self.page.mouse.move(0, 0)
        last = self.page.locator(".jp-Cell").last
        last.scroll_into_view_if_needed()
        self.page.evaluate("document.activeElement?.blur()")
        box = last.bounding_box()
        clip = {"x": 0, "y": 0, "width": 800, "height": box["y"] + box["height"] + 8}
        self.page.screenshot(path=path, clip=clip)

    def _execute(self, command, arguments=None):
        run = "([command, args]) => window.jupyterapp.commands.execute(command, args).then(() => 1)"
        self.page.evaluate(run, [command, arguments or {}])

    def _begin(self, command):
        self.page.evaluate(
            """command => {
              window.durable_nb_tests = window.jupyterapp.commands.execute(command).then(() => 1)
            }""",
            command,
        )

    def _wait_for_kernel(self, milliseconds=60_000):
        # Not for an idle one: it may be busy with a cell, and one that restarted by itself says nothing yet.
        self.page.wait_for_function(
            """() => {
              const widget = window.jupyterapp.shell.currentWidget
              return widget?.context?.sessionContext?.session?.kernel?.connectionStatus === 'connected'
            }""",
            timeout=milliseconds,
        )


def _kernels_of(server):
    """The process ids of the server's kernels."""
    return [
        child.pid
        for child in psutil.Process(server._process.pid).children()
        if "ipykernel" in " ".join(child.cmdline())
    ]


def write_notebook(path, *cells):
    """Write a notebook of code cells."""
    nb = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    nbformat.write(nb, path)
