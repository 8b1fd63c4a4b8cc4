"""What `socodet --completion SHELL` prints: a script that completes commands, flags and file names in a shell."""

import contextlib
import io

import tyro

from socodet.commands.flags import MARKERS

SHELLS = ("bash", "zsh", "fish")
_IS_A_FILE = 'if [[ "$completions" == "__TYRO_COMPLETE_FILES__" ]]'
_NOTHING_OR_A_FILE = _IS_A_FILE.replace("[[ ", '[[ -z "$completions" || ')
_CHANGES = {
    "bash": {
        _IS_A_FILE: _NOTHING_OR_A_FILE,
        'COMPREPLY=($(compgen -f -- "$cur"))': "COMPREPLY=()",  # it would split a name with a space in two
        "complete -F": "complete -o default -F",  # file names, quoted, where the function finds nothing
    },
    "zsh": {
        _IS_A_FILE: _NOTHING_OR_A_FILE,
        '\n_tyro_socodet "$@"\n': (  # works only in a file on the search path, not when the script is sourced
            '\nif [[ "$funcstack[1]" == _socodet ]]; then\n  _tyro_socodet "$@"\nelse\n'
            "  (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }\n"
            "  compdef _tyro_socodet socodet\nfi\n"
        ),
    },
    "fish": {
        '($python_cmd -c "$pycode" $words $current)': (  # the program is longer than an argument may be: 128 KiB
            '(printf %s "$pycode" | $python_cmd - $words $current)'
        ),
        'if test "$results" = __TYRO_COMPLETE_FILES__': (
            'if begin; string match -qr "^[^-]" -- (commandline -ct); and not string match -qv -- "-*" $results; end\n'
            '        or test -z "$results" -o "$results" = __TYRO_COMPLETE_FILES__'
        ),
    },
}
"""Changes to tyro's script, which completes no file names where it knows nothing, as for positional arguments."""


def completion_script(shell: str, commands: dict[str, object]) -> str:
    """The script for one of `SHELLS`. commands: functions by the first words of their commands."""
    printed = io.StringIO()
    asked = ["--tyro-print-completion", shell]
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        tyro.extras.subcommand_cli_from_dict(commands, prog="socodet", args=asked, config=MARKERS)  # type: ignore[arg-type]
    script = printed.getvalue()
    script = script.replace("print(completion)", "print(*completion.splitlines())")  # one per line
    for theirs, ours in _CHANGES[shell].items():
        script = script.replace(theirs, ours)
    return script
