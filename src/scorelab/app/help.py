"""What --help says: a config's own text, the groups it takes, and its own keys."""

import re
from pathlib import Path
from string import Template

import yaml

KEY = re.compile(r"^(\w+): +(.*?)(?: +# *(.*))?$", re.MULTILINE)
WITHIN = re.compile(r"^(\w+)=\{(\w+): (.*)\}$")


def help_text(configs: Path, name: str) -> str:
    """The help template of a config with its groups and keys as they stand in the file.

    Hydra's own list is of all groups there are, those that this entry refuses too.
    """
    file = (configs / f"{name}.yaml").read_text(encoding="utf-8")
    whole = yaml.safe_load(file)
    groups = [group for entry in whole["defaults"] if isinstance(entry, dict) for group in entry if " " not in group]
    choices = {group: sorted(each.stem for each in (configs / group).glob("*.yaml")) for group in sorted(groups)}
    listed = "\n".join(f"{group}: {', '.join(known)}" for group, known in choices.items())
    template = Template(whole["hydra"]["help"]["template"])
    return template.safe_substitute(GROUPS=listed, KEYS="\n".join(own_keys(file)))


def own_keys(file: str) -> list[str]:
    """The keys that a config's file sets itself, with their defaults and comments: key=value, dotted within."""
    found = [(WITHIN.sub(r"\1.\2=\3", f"{key}={value}"), comment) for key, value, comment in KEY.findall(file)]
    return [f"{word:<24}  {comment}".rstrip() for word, comment in found]
