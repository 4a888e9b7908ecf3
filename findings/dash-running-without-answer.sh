#!/usr/bin/env bash
# Dash 4.4.1: `running` of a callback sets properties while it runs and sets them back when its answer arrives. After
# an answer with an error status they are set back, too. If the request gets no answer at all (the server restarts, the
# network changes), they are never set back: a button that is disabled while its callback runs stays disabled, and a
# dcc.Interval that pauses stays paused, until the page is loaded again.
#
# Workaround: wrap window.fetch before the renderer starts, so that a request without an answer has the status 503.
#
# Needs a Chromium: the one in CHROMIUM, an installed one, or the one that Playwright downloads.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check dash==4.4.1 playwright==1.65.2
browser=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
[ -n "$browser" ] || "$folder/venv/bin/python" -m playwright install chromium
CHROMIUM="$browser" "$folder/venv/bin/python" - <<'PYTHON'
import logging
import os
import threading

import dash
import flask
from dash import Dash, Input, Output, html
from playwright.sync_api import sync_playwright
from werkzeug.serving import make_server

print("dash", dash.__version__)
logging.getLogger("werkzeug").setLevel(logging.ERROR)
app = Dash()
app.layout = html.Div([html.Button("Run", id="run"), html.P("never", id="answer")])


@app.callback(
    Output("answer", "children"),
    Input("run", "n_clicks"),
    running=[(Output("run", "disabled"), True, False)],
    prevent_initial_call=True,
)
def answer(clicks):
    if clicks == 2:
        flask.abort(503)
    return f"click {clicks}"


server = make_server("127.0.0.1", 0, app.server, threaded=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(
        executable_path=os.environ["CHROMIUM"] or None, args=["--no-sandbox", "--disable-gpu"]
    )
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{server.server_port}")
    button = page.locator("#run")
    found = []
    for what in ("an answer", "status 503", "no answer"):
        if what == "no answer":
            page.route(lambda url: "_dash-update-component" in url, lambda route: route.abort())
        button.click()
        page.wait_for_timeout(3000)
        found.append(button.is_disabled())
        print(f"three seconds after {what:10}: the button is {'disabled' if found[-1] else 'enabled'}")
    browser.close()
server.shutdown()
assert found == [False, False, True], found
print("Confirmed: without an answer, what `running` has set stays as it is.")
PYTHON
