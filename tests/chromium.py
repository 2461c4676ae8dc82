"""Debian's chromium, driven by Playwright: where it is, and tests that need it; skipped where it isn't, but in CI."""

from __future__ import annotations

import os
import shutil

import pytest

CHROMIUM = shutil.which("chromium")
NEEDED = pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="there is no chromium")
if "CI" not in os.environ:
    pytest.importorskip("playwright", reason="the extra dev isn't installed")
