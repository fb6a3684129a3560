"""The error of all builders, the name by which a prepared corpus is known, and names of files as text."""

INFO = "dataset_info.json"  # TFDS writes it into every prepared corpus


class CorpusError(Exception):
    """The corpus on disk is not what the builder needs; the message is one line naming the file or clip at fault."""


def printable(text: str) -> str:
    """Return a text with names of files in it so that it can be printed: archives packed elsewhere have any bytes."""
    return text.encode("utf-8", "backslashreplace").decode()
