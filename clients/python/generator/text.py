"""How generated Python is laid out."""

import textwrap

HEAD = "# Made from the contract when the package was built.\n"
WIDTH = 118


def docstring(comment: str, indent: int) -> str:
    """A comment of the contract as a docstring of that indentation."""
    blank = " " * indent
    text = comment.replace("\\", "\\\\").replace('"""', "'''")
    lines = [f"{blank}{line}".rstrip() for line in text.split("\n")]
    lines[0] = f'{blank}"""{text.partition(chr(10))[0]}'
    if len(lines) == 1:
        return f'{lines[0]}"""\n'
    return "\n".join(lines) + f'\n{blank}"""\n'


def remark(comment: str, indent: int) -> str:
    """A comment of the contract as comments that tools show beside a field."""
    blank = " " * indent
    flat = " ".join(comment.split())
    return "".join(f"{blank}#: {line}\n" for line in textwrap.wrap(flat, WIDTH - indent))
