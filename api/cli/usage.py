"""How `--help` shows commands: values by what they are, whole sentences, examples.  Runs no command."""

from __future__ import annotations

from typing import Any

# By option; what is not here is a TEXT.
VALUES = {
    "namespace": "PROJECT",
    "filename": "FILE",
    "selector": "LABELS",
    "output": "FORMAT",
    "timeout": "SECONDS",
    "batch-wait": "SECONDS",
    "keep": "TIME",
    "at": "TIME",
    "start": "TIME",
    "end": "TIME",
    "since": "TIME",
    "until": "TIME",
    "days": "DAYS",
    "step": "STEP",
    "task": "STEP",
    "from": "STEP",
    "up-to": "STEP",
    "data": "JSON",
    "file": "FILE",
    "head": "FILE",
    "kind": "KIND",
    **dict.fromkeys(("limit", "count", "max-concurrency", "batch-size", "revision", "map-index"), "N"),
    **dict.fromkeys(("name", "field-manager", "subject", "group"), "NAME"),
}
ARGUMENTS = {
    "ma pipeline-run": "The run.",
    "ma trigger-run": "The trigger.",
    "ma describe": "The object's name.",
    "ma delete": "The objects' names.",
    "ma predict": "For example flights.late.",
    "ma revision": "For example pipeline-train-12c52fbf68d4.",
}
EXAMPLES = {
    "ma": ("ma demo", "ma COMMAND --help"),
    "ma apply": ("ma apply -f examples/flights", "ma apply -f pipeline.yaml --dry-run"),
    "ma get": ("ma get pipelines -n flights", "ma get pr -n flights -l team=ads -o yaml"),
    "ma describe": ("ma describe pipeline train -n flights",),
    "ma delete": ("ma delete pr late-1 late-2 -n flights",),
    "ma plan": ("ma plan -f examples/flights", "ma plan -f pipeline.yaml -o json > plan.json"),
    "ma predict": ("ma predict flights.late -f examples/flights/request.json --explain",),
    "ma backup": ("ma backup monday.backup",),
    "ma restore": ("ma restore monday.backup",),
    "ma kubeconfig": ("ma kubeconfig -n flights > ~/.kube/ma",),
    "ma pipeline run": ("ma pipeline run train -n flights --wait --set sample_fraction=0.1",),
    "ma pipeline apply": ("ma pipeline apply -f pipeline.yaml",),
    "ma pipeline dev-run": ("ma pipeline dev-run -f pipeline.yaml --set days=7",),
    "ma pipeline test": ("ma pipeline test flow.py -p days=7", "ma pipeline test flow.py:train --values out"),
    "ma pipeline rollback": ("ma pipeline rollback train -n flights --dry-run",),
    "ma pipeline-run wait": ("ma pipeline-run wait late-1 -n flights --timeout 600",),
    "ma pipeline-run logs": ("ma pipeline-run logs late-1 -n flights --step train",),
    "ma pipeline-run kill": ("ma pipeline-run kill late-1 -n flights --wait",),
    "ma pipeline-run retry": ("ma pipeline-run retry late-1 -n flights --wait",),
    "ma pipeline-run explain": ("ma pipeline-run explain late-1 -n flights",),
    "ma pipeline-run replay": ("ma pipeline-run replay late-1 -n flights --pdb",),
    "ma pipeline-run resume": ("ma pipeline-run resume late-1 -n flights --from train --wait",),
    "ma trigger-run pause": ("ma trigger-run pause nightly -n flights",),
    "ma trigger-run backfill": (
        "ma trigger-run backfill nightly --start 2026-03-01 --end 2026-03-31",
        "ma trigger-run backfill nightly --start 2026-03-01 --end 2026-03-31T12:00",
    ),
    "ma trigger-run rerun": ("ma trigger-run rerun late-1 late-2 -n flights --from train",),
    "ma trigger-run next": ("ma trigger-run next nightly -n flights",),
    "ma revision diff": ("ma revision diff pipeline-train-12c52fbf68d4 -n flights",),
    "ma event publish": ("ma event publish flights.loaded -n flights --key 2013-09 --set rows=27000",),
    "ma auth can-i": ("ma auth can-i create pipelines -n flights",),
    "ma auth who-can": ("ma auth who-can kill pipeline_run -n flights",),
    "ma token create": ("ma token create ann --group ads", "ma token create nightly-loader --service --days 365"),
    "ma audit list": ("ma audit list -n flights --verb Delete --since 2026-03-01",),
    "ma audit verify": ("ma audit verify --head /mnt/other/heads",),
}


def readable(command: Any, path: str = "ma") -> Any:
    """Change how a command, and all below it, show their help.  Returns the command."""
    if path in EXAMPLES:
        command.epilog = "\b\nFor example:\n" + "\n".join(f"  {example}" for example in EXAMPLES[path])
    if command.help:
        # A list of commands shows a sentence whole, on two lines if it must.
        command.short_help = " ".join(command.help.split()).partition(".  ")[0].rstrip(".") + "."
    for parameter in command.params:
        _name(parameter, " ".join(path.split()[:2]))
    for name, below in getattr(command, "commands", {}).items():
        readable(below, f"{path} {name}")
    return command


def _name(parameter: Any, command: str) -> None:
    is_argument = parameter.param_type_name == "argument"
    if parameter.metavar is None and not getattr(parameter, "is_flag", False):
        parameter.metavar = parameter.name.upper() if is_argument else _value(parameter)
    if is_argument:
        shown = parameter.metavar if parameter.required else f"[{parameter.metavar.strip('[]')}]"
        shown += "..." if parameter.nargs != 1 and not parameter.metavar.endswith("...") else ""
        parameter.help = parameter.help or ARGUMENTS.get(command)
        parameter._usage_display_name = lambda: shown
        parameter.display_type_rich = lambda ctx: None
    else:
        least, most = getattr(parameter, "min", None), getattr(parameter, "max", None)
        parameter._get_number_range_help_str = lambda: None if most is None else f"{least} to {most}"


def _value(option: Any) -> str:
    long = max(option.opts, key=len).removeprefix("--")
    return VALUES.get(long, "TEXT")
