"""What mkdocs does to a page before it is made."""

import re


def on_page_markdown(markdown, **_):
    """In tables 3e-07 stays on one line: its hyphen becomes one that does not break."""

    def unbroken(line):
        if not line.startswith("|"):
            return line
        texts = line.split("`")  # every second one is code, which stays as it is
        texts[::2] = [re.sub(r"(\de)-(\d)", "\\1\N{NON-BREAKING HYPHEN}\\2", x) for x in texts[::2]]
        return "`".join(texts)

    return "\n".join(map(unbroken, markdown.split("\n")))
