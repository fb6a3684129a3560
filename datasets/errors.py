"""The error of all builders, and the name by which a prepared corpus is known."""

INFO = "dataset_info.json"  # TFDS writes it into every prepared corpus


class CorpusError(Exception):
    """The corpus on disk is not what the builder needs; the message is one line naming the file or clip at fault."""
