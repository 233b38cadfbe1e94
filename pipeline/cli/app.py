"""The command line: parse, call, print – nothing else."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import traceback
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from export.bundle.plain_text import clean
from pipeline.cli.terminal import clean_warnings
from pipeline.errors import EXIT_CHECK_FAILED, EXIT_INTERRUPTED, EXIT_OWN_FAULT, EXIT_USER_MISTAKE
from pipeline.thread_settings import set_for_process

app = typer.Typer(
    name="hwnas",
    help="Find the best network for a device: from a data set to a certified ONNX model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, logs on stderr.")]
References = Annotated[
    bool, typer.Option("--references", help="Train published networks the same way, to set the winner against.")
]
RunDir = Annotated[Path, typer.Argument(help="A run directory.", show_default=False)]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change a key of the config.")
]
Code = Annotated[
    Path | None,
    typer.Option(help="The folder of your own modules; by default the working folder.", show_default=False),
]
TrustDevice = Annotated[
    bool, typer.Option("--trust-device", help="Use the run's device as the run describes it, on another host, too.")
]
Config = Annotated[Path, typer.Argument(help="A YAML config.", show_default=False)]
Model = Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="An ONNX file.", show_default=False)]
DeviceName = Annotated[str, typer.Option(help="See `hwnas list devices`.")]
Threads = Annotated[int | None, typer.Option(help="Threads of one inference: the device's own, or 1.")]
BatchSize = Annotated[int | None, typer.Option(help="Images of one inference: the device's own, or 1.")]
Precision = Annotated[str | None, typer.Option(help="The file's own by default; int8 quantises a float file.")]
Shapes = Annotated[
    list[str] | None,
    typer.Option("--shape", metavar="INPUT=SIZES", help="An input's sizes, where some are open: image=1,3,224,224."),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input", metavar="INPUT=VALUE", help="An input's value: rate=16000, ids=[[1,2]], x=x.npy; or inputs.npz."
    ),
]


_PIECES_AT_ONCE = 100


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        _print(version("hwnas"))
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def search(
    config: Config,
    overrides: Overrides = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Where the run goes; runs/<name>-<time> by default.", show_default=False)
    ] = None,
    references: References = False,
    code: Code = None,
    as_json: Json = False,
) -> None:
    """Do the whole job: search, train the winner, export, check, pack."""
    from pipeline.cli import console, text
    from pipeline.commands import runs

    result = runs.search(
        config,
        overrides=overrides or (),
        run_dir=run_dir,
        references=references,
        code=code,
        reporter=console.TerminalReporter(),
    )
    _show(result.as_dict(), as_json, text.outcome)


@app.command()
def resume(
    run_dir: RunDir,
    references: References = False,
    code: Code = None,
    trust_device: TrustDevice = False,
    as_json: Json = False,
) -> None:
    """Go on after a crash or a stop; finished trials are never run again."""
    from pipeline.cli import console, text
    from pipeline.commands import runs

    result = runs.resume(
        run_dir, references=references, code=code, trust_device=trust_device, reporter=console.TerminalReporter()
    )
    _show(result.as_dict(), as_json, text.outcome)


@app.command()
def export(
    run_dir: RunDir,
    pick: Annotated[
        str | None,
        typer.Option(help="knee, fastest, most-accurate, or a trial's id; as configured.", show_default=False),
    ] = None,
    code: Code = None,
    trust_device: TrustDevice = False,
    as_json: Json = False,
) -> None:
    """Train one trial to the end if needed, and make a bundle of it."""
    from pipeline.cli import console, text
    from pipeline.commands import runs

    result = runs.export(run_dir, pick=pick, code=code, trust_device=trust_device, reporter=console.TerminalReporter())
    _show(result.as_dict(), as_json, text.outcome)


@app.command()
def trials(
    run_dir: RunDir,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values on stdout.")] = False,
) -> None:
    """Show the journal as a table."""
    from pipeline.cli import trial_text
    from pipeline.commands.trials import trial_reader

    if as_csv and as_json:
        raise typer.BadParameter("--csv and --json exclude each other")
    view = trial_text.as_csv if as_csv else trial_text.as_json if as_json else trial_text.as_table
    with trial_reader(run_dir) as reader:
        pieces = view(reader)
        while piece := "".join(islice(pieces, _PIECES_AT_ONCE)):  # a hundred thousand trials are long
            _print(piece, end="")


@app.command()
def verify(
    bundle_dir: Annotated[Path, typer.Argument(help="A bundle.", show_default=False)],
    memory_mb: Annotated[
        int, typer.Option(min=250, help="Memory to use; a model that needs more isn't loaded, and the checks say so.")
    ] = 300,
    as_json: Json = False,
) -> None:
    """Check a bundle again: hashes, parity, accuracy, limits."""
    from pipeline.cli import text
    from pipeline.commands import files

    result = files.verify(bundle_dir, memory_mb=memory_mb)
    _show(result.as_dict(), as_json, text.checks)
    if not result.ok:
        raise typer.Exit(EXIT_CHECK_FAILED)


@app.command()
def profile(
    model: Model,
    device: DeviceName = "cpu",
    threads: Threads = None,
    batch_size: BatchSize = None,
    precision: Precision = None,
    shapes: Shapes = None,
    inputs: Inputs = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="Time to spend on the latency.")] = 2.0,
    per_node: Annotated[
        bool, typer.Option("--per-node", help="Where the time goes: by module, activation and operator.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure latency, memory and energy of any ONNX file."""
    from pipeline.cli import text
    from pipeline.commands import files

    result = files.profile(
        model,
        device=device,
        threads=threads,
        batch_size=batch_size,
        precision=precision,
        **_given(shapes, inputs),
        seconds=seconds,
        per_node=per_node,
    )
    _show(result.as_dict(), as_json, text.profile)


@app.command()
def compare(
    models: Annotated[
        list[Path], typer.Argument(metavar="A.onnx B.onnx …", help="Two ONNX files or more.", show_default=False)
    ],
    device: DeviceName = "cpu",
    threads: Threads = None,
    batch_size: BatchSize = None,
    precision: Precision = None,
    shapes: Shapes = None,
    inputs: Inputs = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="Time to spend on all latencies together.")] = 4.0,
    as_json: Json = False,
) -> None:
    """Time ONNX files in alternation, and compare each with the first."""
    from pipeline.cli import text
    from pipeline.commands import files

    rows = files.compare(
        *models,
        device=device,
        threads=threads,
        batch_size=batch_size,
        precision=precision,
        **_given(shapes, inputs),
        seconds=seconds,
    )
    _show([row.as_dict() for row in rows], as_json, text.comparison)


@app.command()
def calibrate(
    config: Config,
    overrides: Overrides = None,
    device: Annotated[
        str | None, typer.Option(help="Another device than the config's; see `hwnas list devices`.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="A .json file; by default it lies where searches find it.", show_default=False)
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=1, max=3600, help="For the blocks: 60 s, or 180 s at INT8.", show_default=False)
    ] = None,
    nets: Annotated[
        int | None,
        typer.Option(min=0, max=1000, help="Whole networks: 5, or 60 where blocks can't be timed.", show_default=False),
    ] = None,
    code: Code = None,
    as_json: Json = False,
) -> None:
    """Build and save a cost model of a space on a device."""
    from pipeline.cli import console, text
    from pipeline.commands import runs

    result = runs.calibrate(
        config,
        overrides=overrides or (),
        device=device,
        output=output,
        seconds=seconds,
        nets=nets,
        code=code,
        reporter=console.TerminalReporter(),
    )
    _show(result.as_dict(), as_json, text.calibration)


@app.command("supernet-check")
def supernet_check(
    run_dir: RunDir,
    networks: Annotated[int, typer.Option(min=5, max=10_000, help="Networks to train alone.")] = 40,
    epochs: Annotated[int, typer.Option(min=1, max=10_000, help="Of each of these trainings.")] = 3,
    code: Code = None,
    trust_device: TrustDevice = False,
    as_json: Json = False,
) -> None:
    """Check whether a run's shared weights rank networks as trained ones rank."""
    from pipeline.cli import console, text
    from pipeline.commands import supernet

    result = supernet.supernet_check(
        run_dir,
        networks=networks,
        epochs=epochs,
        code=code,
        trust_device=trust_device,
        reporter=console.TerminalReporter(),
    )
    _show(result.as_dict(), as_json, text.supernet_check)


@app.command()
def predict(
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL.onnx", help="An ONNX file.", show_default=False)
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="In place of a file: a run directory, with --architecture.", show_default=False)
    ] = None,
    architecture: Annotated[str | None, typer.Option(help="A trial's id in that run.", show_default=False)] = None,
    device: DeviceName = "cpu",
    threads: Threads = None,
    batch_size: BatchSize = None,
    precision: Precision = None,
    shapes: Shapes = None,
    inputs: Inputs = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Time the operators again: about three minutes.")] = False,
    code: Code = None,
    trust_device: TrustDevice = False,
    as_json: Json = False,
) -> None:
    """Predict a latency without timing anything: of any ONNX file, or of a run's architecture."""
    from pipeline.cli import console, text
    from pipeline.commands import files, runs

    if (model is None) == (run is None) or (run is None) != (architecture is None):
        raise typer.BadParameter("give either MODEL.onnx, or --run RUN_DIR with --architecture ID")
    if run is not None and architecture is not None:
        predicted = runs.predict_trial(run, architecture, code=code, trust_device=trust_device)
        _show(predicted.as_dict(), as_json, text.prediction)
    elif model is not None:
        result = files.predict(
            model,
            device=device,
            threads=threads,
            batch_size=batch_size,
            precision=precision,
            **_given(shapes, inputs),
            rebuild=rebuild,
            reporter=console.TerminalReporter(),
        )
        _show(result.as_dict(), as_json, text.prediction)


@app.command()
def optimize(
    model: Model,
    output: Annotated[Path, typer.Option(help="The new ONNX file.", show_default=False)],
    device: DeviceName = "cpu",
    threads: Threads = None,
    batch_size: BatchSize = None,
    shapes: Shapes = None,
    inputs: Inputs = None,
    seconds: Annotated[float, typer.Option(min=0.5, max=600, help="Time to spend on timing.")] = 6.0,
    as_json: Json = False,
) -> None:
    """Write the cheapest exact form of a model's activations and pooling."""
    from pipeline.cli import console, text
    from pipeline.commands import files

    result = files.optimize(
        model,
        output,
        device=device,
        threads=threads,
        batch_size=batch_size,
        **_given(shapes, inputs),
        seconds=seconds,
        reporter=console.TerminalReporter(),
    )
    _show(result.as_dict(), as_json, text.optimization)


@app.command()
def bench(
    config: Annotated[Path, typer.Argument(help="A YAML config of a benchmark.", show_default=False)],
    overrides: Overrides = None,
    output: Annotated[
        Path | None, typer.Option(help="Where results go and are gone on with.", show_default=False)
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Searches at a time: one a core.", show_default=False)] = None,
    code: Code = None,
    as_json: Json = False,
) -> None:
    """Compare strategies on a published table, over seeds: hypervolume and regret."""
    from pipeline.bench.command import bench as run
    from pipeline.cli import console, text

    _show(run(config, overrides or [], output, jobs, console.TerminalReporter(), code), as_json, text.bench)


@app.command()
def report(run_dir: RunDir, as_json: Json = False) -> None:
    """Write the run's HTML page again."""
    from pipeline.commands import runs

    _show({"report": str(runs.report(run_dir))}, as_json, lambda result: result["report"])


@app.command("list")
def list_(
    kind: Annotated[
        str,
        typer.Argument(
            help="spaces, strategies, activations, data, devices, evaluators, engines or references.",
            show_default=False,
        ),
    ],
    as_json: Json = False,
) -> None:
    """List what there is, one line each."""
    from pipeline.cli import text
    from pipeline.commands import files

    _show(files.listing(kind), as_json, text.listing)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check versions, providers and NVML: what will and won't work here."""
    from pipeline.cli import text
    from pipeline.commands import doctor as examination

    result = examination.examine()
    _show(result, as_json, text.doctor)
    if not result["ok"]:
        raise typer.Exit(EXIT_CHECK_FAILED)


def main() -> None:
    """Run a command; turn what it raises into a message and an exit code."""
    set_for_process()  # before anything loads torch or NumPy
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no × shall still see the rest
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with clean_warnings():
            raise SystemExit(app(standalone_mode=False) or 0)
    except KeyboardInterrupt:
        _end("interrupted", EXIT_INTERRUPTED)
    except OSError as error:
        _end(_system_said(error), EXIT_USER_MISTAKE)
    except Exception as error:
        if hasattr(error, "format_message"):  # wrong arguments
            _end_usage(error)
        if not hasattr(error, "exit_code"):
            print(clean(traceback.format_exc()), end="", file=sys.stderr)
            _end(f"internal error: {type(error).__name__}: {error}", EXIT_OWN_FAULT)
        _end(str(error), error.exit_code)


def _end_usage(error: Any) -> NoReturn:
    """Show wrong arguments, which may be names of files that somebody else chose, as typer does."""
    from typer.rich_utils import rich_format_error

    said = error.format_message()
    error.message = clean(error.message)
    rich_format_error(error)
    _tell_error(said, EXIT_USER_MISTAKE)
    raise SystemExit(error.exit_code) from None


def _given(shapes: list[str] | None, inputs: list[str] | None) -> dict[str, Any]:
    """Parse what was said of a model's inputs into arguments of the commands."""
    from latency_models.graph.model_inputs import parse_shapes, parse_values

    return {"shapes": parse_shapes(shapes or ()), "inputs": parse_values(inputs or ())}


def _end(message: str, exit_code: int) -> NoReturn:
    print(f"hwnas: {clean(message)}", file=sys.stderr)
    if exit_code in (EXIT_USER_MISTAKE, EXIT_CHECK_FAILED):
        _tell_error(message, exit_code)
    raise SystemExit(exit_code) from None


def _tell_error(message: str, exit_code: int) -> None:
    """Print a user's mistake, or a failed check, as the one document on stdout, where `--json` was asked for."""
    if "--json" in sys.argv[1:]:  # wrong arguments are not parsed, so their text has to do
        with suppress(OSError, SystemExit):  # a stdout that nobody reads or that has no room changes no exit code
            _print(json.dumps({"error": {"message": message, "exit_code": exit_code}}, indent=2))


def _interrupt(*_: object) -> None:
    """Have SIGTERM stop the work like Ctrl-C, in good order."""
    raise KeyboardInterrupt


def _system_said(error: OSError) -> str:
    """Say what the system refused: no room, no permission, a folder where a file should be."""
    place = error.filename2 or error.filename  # of a renaming that failed, the place it was for
    where = f"{place}: " if place else ""
    return f"{where}{error.strerror or error}"


def _show(result: Any, as_json: bool, view: Any) -> None:
    _print(json.dumps(result, indent=2, allow_nan=False) if as_json else view(result))


def _print(text: str, end: str = "\n") -> None:
    try:
        print(clean(text), end=end, flush=True)
    except BrokenPipeError:  # whoever reads our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
