"""Where the operator reads on: every check's description ends with its section of a runbook."""

import os

VARIABLE = "LOYALTY_DOCS_URL"


def described(text: str, runbook: str, heading: str) -> str:
    """Return the description of a check: what it says, and its section `heading` of docs/runbooks/<runbook>.md.

    A link where LOYALTY_DOCS_URL says under which address the repository's files can be read, else the path. The
    anchor is made as GitHub, GitLab and most renderers of Markdown make it.
    """
    anchor = "".join(one for one in heading.lower().replace(" ", "-") if one.isalnum() or one in "-_")
    path = f"docs/runbooks/{runbook}.md#{anchor}"
    base = os.environ.get(VARIABLE, "").strip().rstrip("/")
    return f"{text} Runbook: " + (f"[{path}]({base}/{path})" if base else path)
