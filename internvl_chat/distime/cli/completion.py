"""Print a completion script: commands, their options, and the choices of an option.

distime completion bash > ~/.local/share/bash-completion/completions/distime
distime completion fish > ~/.config/fish/completions/distime.fish
distime completion zsh >> ~/.zshrc                            (after compinit)

The script is static: write it again after an update.
"""

from __future__ import annotations

import argparse
import shlex

from distime.cli import COMMANDS, all_parsers

SHELLS = ("bash", "zsh", "fish")

_BASH = """\
_distime() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}}
    if (( COMP_CWORD == 1 )); then
        COMPREPLY=($(compgen -W {commands} -- "$current"))
        return
    fi
    case "${{COMP_WORDS[1]}} $before" in
{choices}
    esac
    [[ $current == -* ]] || return
    case ${{COMP_WORDS[1]}} in
{options}
    esac
}}
complete -o default -F _distime distime
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``distime completion``."""
    parser.add_argument("shell", choices=SHELLS)


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    print(script(args.shell), end="")
    return 0


def script(shell: str) -> str:
    """Return the completion script of a shell."""
    actions = {
        command: [action for parser in all_parsers(command) for action in parser._actions]
        for command in COMMANDS
    }
    if shell == "fish":
        return _fish(actions)
    options, choices = [], []
    for command, group in actions.items():
        names = list(dict.fromkeys(n for action in group for n in action.option_strings))
        options.append(_case(command, names))
        choices += [
            _case(f"{command} {name}", map(str, action.choices), "; return")
            for action in group
            for name in action.option_strings
            if action.choices
        ]
    body = _BASH.format(
        commands=shlex.quote(" ".join(COMMANDS)),
        choices="\n".join(choices),
        options="\n".join(options),
    )
    return body if shell == "bash" else "autoload -U bashcompinit && bashcompinit\n" + body


def _case(pattern: str, words: list[str], end: str = "") -> str:
    quoted = shlex.quote(" ".join(words))
    reply = f'COMPREPLY=($(compgen -W {quoted} -- "$current"))'
    return f"        {shlex.quote(pattern)}) {reply}{end};;"


def _fish(actions: dict[str, list[argparse.Action]]) -> str:
    lines = [
        f"complete -c distime -n __fish_use_subcommand -a {command} -d {shlex.quote(text)}"
        for command, text in COMMANDS.items()
    ]
    for command, group in actions.items():
        for action in group:
            names = [name for name in action.option_strings if name.startswith("--")]
            if not names:
                continue
            line = (
                f"complete -c distime -n '__fish_seen_subcommand_from {command}' -l {names[0][2:]}"
            )
            if action.choices:
                line += f" -x -a {shlex.quote(' '.join(map(str, action.choices)))}"
            elif action.nargs != 0:
                line += " -r"
            lines.append(line + f" -d {shlex.quote(action.help or '')}")
    return "\n".join(lines) + "\n"
