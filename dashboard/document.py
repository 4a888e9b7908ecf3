"""The HTML document around every page."""

# Sets the theme before the first paint, so a dark page never flashes white.
HEAD = """<!DOCTYPE html>
<html lang="en" data-bs-theme="light">
    <head>
        {%metas%}
        <title>{%title%}</title>
        <link rel="icon" href="/assets/mark.svg" type="image/svg+xml">
        <script>
            (function () {
                var kept = null;
                try { kept = localStorage.getItem("convscope-theme"); } catch (error) { /* private mode */ }
                var dark = window.matchMedia && matchMedia("(prefers-color-scheme: dark)").matches;
                document.documentElement.setAttribute("data-bs-theme", kept || (dark ? "dark" : "light"));
            })();
        </script>
        <link rel="stylesheet" href="/bootstrap/css/bootstrap.min.css">
        <link rel="stylesheet" href="/bootstrap/css/font/bootstrap-icons.min.css">
        {%css%}
    </head>
    <body>
        {%app_entry%}
        <footer>{%config%}{%scripts%}{%renderer%}</footer>
    </body>
</html>"""


def head(prefix: str) -> str:
    """The HTML around Dash's own markup, for a dashboard served below `prefix`."""
    return HEAD.replace('href="/', f'href="{prefix}/')
