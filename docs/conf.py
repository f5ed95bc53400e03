"""Sphinx settings. Nothing here needs the network."""

from docutils import nodes

from ncolony import __version__

project = "NColony"
author = "The NColony developers"
copyright = "The NColony developers"  # noqa: A001, the name is Sphinx's
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"NColony {release}"
# With the sources linked from no page, copying them only doubles what is served.
html_copy_source = False
html_show_sphinx = False

myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]

man_pages = [
    ("running", "ncolony", "run programs and keep them running", [author], 1),
    ("commands", "ncolony-ctl", "control a colony of processes", [author], 1),
    ("configuration", "ncolony-config", "what one process is to be", [author], 5),
    ("messages", "ncolony-messages", "requests, answers and reports in files", [author], 5),
]
man_show_urls = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
add_module_names = False

# Names of the standard library and of other packages: without the network there is nothing to link them to.
nitpick_ignore_regex = [(r"py:.*", r"(?!ncolony\.).*")]


def _unlink(app, doctree, docname):
    """Leave the words of links alone in manual pages, where docutils would put "<>" behind them."""
    if app.builder.name == "man":
        for link in list(doctree.findall(nodes.reference)):
            link.replace_self(link.children)


def setup(app):
    """Called by Sphinx."""
    app.connect("doctree-resolved", _unlink)
