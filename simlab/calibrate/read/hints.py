"""What the user says about the server, for files that do not."""

from __future__ import annotations

import re
from dataclasses import dataclass

from simlab.errors import InputError, Problem

_PREFIX = re.compile(r"(\d+)(?:[xX](\d+))?")


@dataclass(frozen=True)
class ServerHints:
    """What the user says about the measured server; None where nothing was said.

    A file that says otherwise is refused, naming file and field; of a table of many set-ups the rows that agree are
    read.

    Attributes:
        gpu, model: names, of the tables or the user's own.
        tp, precision, dp, expert_parallel, engine: as in `Server`.
        max_num_seqs, max_num_batched_tokens, kv_blocks, block_size, prefix_caching, max_model_len: vLLM's limits.
        prefix: tokens that prompts share, ``"512"``, or ``"768x5"``: five kinds of beginnings of 768 tokens.
    """

    gpu: str | None = None
    model: str | None = None
    tp: int | None = None
    precision: str | None = None
    dp: int | None = None
    expert_parallel: bool | None = None
    engine: str | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    kv_blocks: int | None = None
    block_size: int | None = None
    prefix_caching: bool | None = None
    max_model_len: int | None = None
    prefix: str | None = None

    def __post_init__(self) -> None:
        self.shared_prefix()
        problems = [
            Problem(f"--{name.replace('_', '-')}", "", f"read {value}; must be 1 or more")
            for name, value in vars(self).items()
            if isinstance(value, int) and not isinstance(value, bool) and value < 1
        ]
        if problems:
            raise InputError(problems)

    def shared_prefix(self) -> tuple[int, int] | None:
        """Shared tokens and how many kinds of them, where ``prefix`` says so.

        >>> ServerHints(prefix="768x5").shared_prefix(), ServerHints(prefix="512").shared_prefix()
        ((768, 5), (512, 1))

        Raises:
            InputError: ``prefix`` is of another form.
        """
        if self.prefix is None:
            return None
        found = _PREFIX.fullmatch(self.prefix.strip())
        if found is None or int(found[2] or 1) < 1:
            message = f"read {self.prefix!r}; allowed: tokens (512), or tokens x kinds (768x5)"
            raise InputError([Problem("--prefix", "", message)])
        return int(found[1]), int(found[2] or 1)
