"""Sphinx's settings. Reference and results are generated before each build; nothing is fetched from a network."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
os.environ.setdefault("OMP_NUM_THREADS", "1")

from clsim.version import __version__  # noqa: E402
from docs.generate import pages, references  # noqa: E402

project = "clsim"
author = "the clsim authors"
copyright = "the clsim authors, MIT licence"
release = version = __version__.partition("+")[0]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "generate", "results/notes", "tutorial"]
nitpicky = True
default_role = "code"
smartquotes = False  # two hyphens are a flag

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True

sphinx_gallery_conf = {
    "examples_dirs": ["tutorial"],
    "gallery_dirs": ["tutorials"],
    "filename_pattern": r"/plot_",
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "abort_on_example_error": True,
    "min_reported_time": 3600,
    "write_computation_times": False,
}

html_theme = "furo"
html_title = f"clsim {release}"
html_static_path = ["_static"]
html_css_files = ["clsim.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": False,
    "light_css_variables": {"color-brand-primary": "#22577a", "color-brand-content": "#22577a"},
    "dark_css_variables": {"color-brand-primary": "#8ecae6", "color-brand-content": "#8ecae6"},
}


def setup(app: Any) -> None:
    """Generate pages before each build, and answer for references to code that has no page of its own."""
    app.connect("builder-inited", lambda app: pages.write(HERE))
    app.connect("autodoc-process-docstring", references.docstring)
    app.connect("missing-reference", references.answer)
