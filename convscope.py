"""The command `convscope`: the command-line entry point.

Exit codes: 0 success, 1 failure, 2 wrong usage. An error is one sentence on stderr; `--debug` adds the
traceback. The modules of `commands` import what they need inside the commands, so `--help` answers at once.
"""

import signal
import sys
import traceback
from importlib import metadata

import click

from commands.doctor import doctor
from commands.images import images
from commands.index import index
from commands.jobs import jobs_group
from commands.models import models
from commands.output import error_sentence
from commands.query import sql
from commands.requests import ablate, attack, saliency
from commands.serve import first_run, run, serve, worker


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Settings come from the environment (CONVSCOPE_HOME and others): see docs/settings.md.",
)
@click.version_option(metadata.version("convscope"), prog_name="convscope")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
def convscope() -> None:
    """A microscope for image classifiers.

    See which image patches drive every channel of every layer of a network.

    \b
    Start with:   convscope run
    Your own:     convscope images import NAME FOLDER
                  convscope index --model MODEL --images NAME
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit with its code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # unwind as on Ctrl-C
    try:
        code = convscope.main(args=[word for word in given if word != "--debug"], standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("convscope: stopped", err=True)
        sys.exit(1)
    except Exception as error:
        if debug:
            traceback.print_exc()
        click.echo(f"convscope: {error_sentence(error)}", err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


models.add_command(doctor)
for command in (
    run,
    first_run,
    serve,
    worker,
    images,
    models,
    index,
    saliency,
    attack,
    ablate,
    jobs_group,
    sql,
):
    convscope.add_command(command)

if __name__ == "__main__":
    main()
