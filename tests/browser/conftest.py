"""For the browser tests a Jupyter server, one for them all, and a Chromium, one for all tests of a file.

Not longer: Playwright keeps an event loop running in the main thread, where other tests run theirs.
"""

from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from helpers import lab

SCREENSHOTS = Path(__file__).parent / "screenshots"


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    started = lab.Server(tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("home"))
    yield started
    started.stop()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=lab.chromium(), args=lab.CHROMIUM)
        yield chromium
        chromium.close()


@pytest.fixture
def opened(request, missing):
    """Opens a new notebook of the given cells in a page of its own."""
    if lab.chromium() is None:
        missing("prompts in a browser", "install chromium (Debian: apt-get install chromium)")
    server, browser = request.getfixturevalue("server"), request.getfixturevalue("browser")
    pages = []

    def open_notebook(*cells, face="doc", dark=False, name=None, scale=1):
        name = (
            f"{name}.ipynb"
            if name
            else f"{request.node.name.replace('[', '-').rstrip(']')}-{len(pages)}.ipynb"
        )
        lab.write_notebook(server.directory / name, *cells)
        context = browser.new_context(viewport={"width": 1100, "height": 900}, device_scale_factor=scale)
        context.set_default_timeout(lab.TIMEOUT)
        pages.append(context)
        return lab.Notebook(context.new_page(), server, name, face, dark)

    yield open_notebook
    for context in pages:
        context.close()
    server.end_kernels()
    server.forget_theme()


@pytest.fixture
def asked(opened):
    """Opens a notebook that opens a run and asks in the cells given, and runs it up to the first prompt."""

    def ask(run, *cells, **options):
        notebook = opened(lab.OPEN.format(run=run), *cells, **options)
        notebook.start_all()
        notebook.page.wait_for_selector(".dnb button")
        return notebook

    return ask


@pytest.fixture
def shot(request):
    """Takes a screenshot into a git-ignored folder, for people to look at."""
    SCREENSHOTS.mkdir(exist_ok=True)

    def take(notebook, name=""):
        notebook.screenshot(SCREENSHOTS / f"{request.node.name}{name and '-' + name}.png")

    return take
