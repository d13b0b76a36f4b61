"""A headless browser, and the page by what a person does there."""

import shutil
from contextlib import contextmanager

import pytest

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def headless_browser(profile, width=1280, height=1200):
    """A browser with an empty profile; skips the test where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("no headless browser: install Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
        options.add_argument(argument)
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield chrome
    finally:
        chrome.quit()


class Page:
    """The page in a browser, by what a person does there."""

    opened = "#distime-ask"
    """Is there once the page is."""

    def __init__(self, browser, address):
        self.browser = browser
        browser.get(address)
        self.wait(lambda: self.all(self.opened))

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    def one(self, selector):
        return self.wait(lambda: next(iter(self.all(selector)), None))

    def wait(self, condition, seconds=30):
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, seconds, 0.1).until(lambda _: condition())

    def upload(self, path):
        self.one("#distime-video input[type=file]").send_keys(str(path))

    def choose(self, mode):
        labels = self.all("#distime-mode label")
        next(label for label in labels if mode in label.text).click()

    def write(self, words):
        box = self.one("#distime-question textarea, #distime-question input")
        box.clear()
        box.send_keys(words)

    def ask(self):
        self.one("#distime-ask").click()

    def set_width(self, pixels):
        """As on a screen of so many pixels; None for the window again."""
        if pixels is None:
            self.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        else:
            screen = {"width": pixels, "height": 844, "deviceScaleFactor": 1, "mobile": True}
            self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)

    def seconds(self):
        return self.video("currentTime")

    def video(self, name):
        script = f"const v = document.querySelector('#distime-video video'); return v && v.{name}"
        return self.browser.execute_script(script)

    def is_at(self, start):
        # It plays on from there.
        return self.wait(lambda: -0.1 < self.seconds() - start < 3)

    def message(self):
        return self.wait(lambda: " ".join(e.text for e in self.all("[data-testid=toast-body]")))
