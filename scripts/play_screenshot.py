"""Makes docs/playground.png: runs `esamp play`, and a prompt on its page in a headless Chromium.

python scripts/play_screenshot.py docs/playground.png
"""

import os
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

PROMPT = "Describe an imaginary animal in one sentence."
SIZE = {"width": 1180, "height": 1130}
COLOURS = 64
MILLISECONDS = 600_000


def main(target: Path) -> None:
    """Write the picture."""
    command = [sys.executable, "-m", "esamp.cli", "play", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            picture(process.stdout.readline().strip(), target)
        finally:
            process.terminate()
    print(f"{target}: {target.stat().st_size / 1000:.0f} kB")


def picture(url: str, target: Path) -> None:
    """Run the prompt on the page, and write what it shows."""
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, chromium_sandbox=os.getuid() != 0)
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto(url)
        page.fill("#prompt textarea", PROMPT)
        page.click("#run")
        page.get_by_text("Done.").wait_for(timeout=MILLISECONDS)
        page.wait_for_selector("#map svg")
        page.evaluate("document.activeElement.blur()")
        image = Image.open(BytesIO(page.screenshot(full_page=True)))
        image.quantize(COLOURS).save(target, optimize=True)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
