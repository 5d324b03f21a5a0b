"""A headless Chromium to look at pages with: the one that is there, or with INSTALL=1 Debian's.

python tests/browser.py tests/test_page.py ...  runs pytest where a browser has to be found.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("chromium", "chromium-driver")
MISSING = "no Chromium and chromedriver here: INSTALL=1 make test-page installs Debian's (as root), or put both on PATH"
NEEDED = "SCORELAB_NEEDS_BROWSER"


def found() -> tuple[str, str] | None:
    """Chromium and its driver."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


def started(folder: Path) -> Any:
    """A browser window of 1200 x 900; it has no network but what a page asks for, which is told in its log."""
    from selenium import webdriver

    both = found()
    assert both is not None, MISSING
    options = webdriver.ChromeOptions()
    options.binary_location = both[0]
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--window-size=1200,900",
        f"--user-data-dir={folder}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(both[1]))


def install() -> None:
    """Debian's packages."""
    quiet = {"env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, "check": True, "stdout": subprocess.DEVNULL}
    subprocess.run(["apt-get", "update", "-qq"], **quiet)
    subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES], **quiet)


def main() -> int:
    """Run pytest on what is named; exit status 2 without a browser."""
    if found() is None and os.environ.get("INSTALL") == "1":
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            print("INSTALL=1 needs root on Debian", file=sys.stderr)
            return 2
        install()
    if found() is None:
        print(MISSING, file=sys.stderr)
        return 2
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", *sys.argv[1:]], env=os.environ | {NEEDED: "1"}, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
