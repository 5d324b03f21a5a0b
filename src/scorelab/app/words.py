"""The words of a command line: what was typed, and what Hydra is to read."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from scorelab.config.check import nearest
from scorelab.errors import UserError
from scorelab.run.identity import key_of

NAMES = ("run", "name", "against", "init_from")  # what is typed there is a name, whatever it looks like
PLACES = tuple(f"data.{inner}{key}" for inner in ("", "source.") for key in ("path", "root", "cache"))  # the same
DOTTED = re.compile(r"[A-Za-z_]\w*(\.\w+)+")
FUNCTION = re.compile(r"(choice|range|interval|glob|sort|shuffle|tag)\(.*\)")
ELEMENT = re.compile(r"""\s*("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^,]*?)\s*(,|$)""")
LOOKS_SET = re.compile(r"--?([A-Za-z_][\w./@]*)=(.*)", re.DOTALL)


@dataclass(frozen=True)
class Flag:
    """One of Hydra's flags.

    Attributes:
        short: its other name.
        values: what may follow it; empty for none, "*" for anything.
        default: what counts where nothing follows, if nothing need.
        shows: whether it has something shown in place of a run.
        refused: why it means nothing here.
    """

    short: str | None = None
    values: tuple[str, ...] = ()
    default: str | None = None
    shows: bool = False
    refused: str | None = None


ELSEWHERE = "the program composes its own configuration; choices of your own stand in --config-dir=DIR"
INFOS = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
FLAGS = {
    "--help": Flag("-h", shows=True),
    "--hydra-help": Flag(shows=True),
    "--version": Flag(shows=True),
    "--multirun": Flag("-m"),
    "--cfg": Flag("-c", ("job", "hydra", "all"), shows=True),
    "--info": Flag("-i", INFOS, "all", shows=True),
    "--shell-completion": Flag("-sc", shows=True),
    "--resolve": Flag(),
    "--package": Flag("-p", ("*",)),
    "--config-dir": Flag("-cd", ("*",)),
    "--run": Flag("-r", refused="one run is what is done without -m; it is named with run=NAME"),
    "--config-path": Flag("-cp", ("*",), refused=ELSEWHERE),
    "--config-name": Flag("-cn", ("*",), refused=ELSEWHERE),
    "--experimental-rerun": Flag(values=("*",), refused="the same command again goes on, or run=NAME init_from=DIR"),
}


def value_of(word: str) -> str:
    """The value of key=value; a name without the quotes that Hydra needs around it."""
    value = word.partition("=")[2]
    return text_of(value) if key_of(word) in (*NAMES, *PLACES) else value


@dataclass(frozen=True)
class Line:
    """A command line: Hydra's flags by their long names, and the words key=value."""

    flags: dict[str, str]
    words: list[str]

    @classmethod
    def typed(cls, typed: list[str]) -> "Line":
        """Tell flags from words, however they are abbreviated and wherever they stand.

        Raises:
            UserError: for a flag that does not exist, means nothing here, or does not go with another.
        """
        flags: dict[str, str] = {}
        words: list[str] = []
        rest = list(typed)
        while rest:
            word = rest.pop(0)
            if not word.startswith("-"):
                words.append(word)
                continue
            name, equals, value = word.partition("=")
            flag = _flag(word, rest)
            known = FLAGS[flag]
            if known.refused:
                raise UserError(f"{name}: {known.refused}")
            if known.values and not equals:
                fits = bool(rest) and not rest[0].startswith("-") and (not known.default or rest[0] in known.values)
                value = rest.pop(0) if fits else known.default or ""
            if known.values and value not in known.values and (not value or "*" not in known.values):
                one_of = "DIR" if flag == "--config-dir" else "|".join(known.values).replace("*", "...")
                raise UserError(f"{word}: type {flag}={one_of}")
            if equals and not known.values:
                raise UserError(f"{word}: {flag} takes no value")
            flags[flag] = value
        line = cls(flags, words)
        line._refuse_company()
        return line

    @property
    def several(self) -> bool:
        """Whether several runs are asked for."""
        named = any(key_of(word) == "sweep" and value_of(word) not in ("", "null") for word in self.words)
        return "--multirun" in self.flags or named

    @property
    def shows(self) -> bool:
        """Whether something is to be shown, and nothing to be run."""
        return any(FLAGS[flag].shows for flag in self.flags)

    @property
    def directories(self) -> list[Path]:
        """Where the user keeps choices beside the program's own."""
        return [Path(os.path.abspath(self.flags["--config-dir"]))] if "--config-dir" in self.flags else []

    def for_hydra(self, name: str) -> "Line":
        """The same line as Hydra is to read it, by the entry ``name``.

        Names stay what was typed, a dotted key may be one that YAML does not mention, and a directory of choices is on
        the search path, which reaches the jobs of a sweep too.
        """
        if "--shell-completion" in self.flags:
            return self
        words = [_readable(word, name, self.several) for word in self.words]
        if self.directories:
            words.append(f"hydra.searchpath=[{_quotes(f'file://{self.directories[0]}')}]")
        return Line({flag: value for flag, value in self.flags.items() if flag != "--config-dir"}, words)

    def argv(self) -> list[str]:
        """Flags first: Hydra wants its words in one place."""
        return [*(f"{flag}={value}" if value else flag for flag, value in self.flags.items()), *self.words]

    def _refuse_company(self) -> None:
        flags = self.flags
        if "--multirun" in flags and {"--cfg", "--info", "--shell-completion"} & flags.keys():
            raise UserError("--cfg and --info show a single run: leave out -m and what is swept")
        if len(shown := [flag for flag in flags if FLAGS[flag].shows]) > 1:
            raise UserError(f"{' and '.join(shown)}: one at a time")
        if "--resolve" in flags and not {"--cfg", "--help"} & flags.keys():
            raise UserError("--resolve belongs to --cfg: type --cfg job --resolve")
        if "--package" in flags and "--cfg" not in flags:
            raise UserError(f"--package belongs to --cfg: type --cfg job --package {flags['--package']}")
        if self.directories and not self.directories[0].is_dir():
            raise UserError(f"--config-dir={flags['--config-dir']}: no such directory")
        if self.directories and any(key_of(word) == "hydra.searchpath" for word in self.words):
            raise UserError("--config-dir and hydra.searchpath=[...] say the same: type one of them")


def _flag(word: str, rest: list[str]) -> str:
    """The flag that a word starting with a dash stands for, abbreviated or not.

    Raises:
        UserError: when it is none: with what to type, where a key seems to be meant.
    """
    name = word.partition("=")[0]
    exact = [flag for flag, known in FLAGS.items() if name in (flag, known.short)]
    meant = exact or [flag for flag in FLAGS if name.startswith("--") and len(name) > 2 and flag.startswith(name)]
    looks_set = LOOKS_SET.fullmatch(word)
    if looks_set and not any(FLAGS[flag].values for flag in meant):
        raise UserError(f"{word}: keys stand without dashes: type {looks_set[1]}={looks_set[2]}")
    if len(meant) > 1:
        raise UserError(f"{name}: {' or '.join(meant)}?")
    if not meant:
        key, value = name.lstrip("-"), rest[0] if rest else ""
        if re.fullmatch(r"[A-Za-z_][\w./@]*", key) and value and "=" not in value and not value.startswith("-"):
            raise UserError(f"{name} {value}: keys stand without dashes: type {key}={value}")
        told = nearest(name, [flag for flag, known in FLAGS.items() if not known.refused])
        raise UserError(f"{name}: no such flag{told}")
    return meant[0]


def _readable(word: str, name: str, several: bool) -> str:
    """A word as Hydra is to read it."""
    key, equals, value = word.partition("=")
    bare = key.lstrip("+")
    if bare in (*NAMES, *PLACES) and equals:
        bare = f"++{bare}" if bare in PLACES else bare
        if several and (bare not in NAMES or bare == "init_from" or name in ("eval", "sample")):
            if FUNCTION.fullmatch(value):
                return word
            return f"{bare}={','.join(_name(each, bare, name) for each in _elements(value))}"
        return f"{bare}={_name(value, bare, name)}"
    return f"++{word}" if equals and DOTTED.fullmatch(key) and not key.startswith("hydra.") else word


def _name(typed: str, key: str, name: str) -> str:
    """A name such that Hydra's parser gives back what was typed; null stays nothing, where there may be none."""
    if typed == "null" and (key not in NAMES or key in ("against", "init_from") or (key, name) == ("name", "train")):
        return typed
    text = text_of(typed)
    if text.startswith("~/") and not Path(text).exists():
        text = os.path.expanduser(text)  # some shells leave it
    return text if _parsed(text) == text else _quotes(text)


def text_of(value: str) -> str:
    """What a value in Hydra's quotes says; any other as it is."""
    text = _parsed(value) if value[:1] in ("'", '"') else None
    return text if isinstance(text, str) else value


def _parsed(value: str) -> object:
    """What Hydra's parser makes of a value; None where it cannot read it."""
    try:
        return OverridesParser.create().parse_override(f"key={value}").value()
    except HydraException:
        return None


def _quotes(text: str) -> str:
    return QuotedString(text, Quote.single).with_quotes()


def _elements(value: str) -> list[str]:
    """The values of a sweep, at commas outside quotes."""
    found = []
    start = 0
    while (element := ELEMENT.match(value, start)) is not None:
        found.append(element[1])
        start = element.end()
        if element[2] != ",":
            break
    return found
