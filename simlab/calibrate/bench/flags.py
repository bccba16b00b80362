"""The flags of `vllm serve`, as the user writes them."""

from __future__ import annotations

from collections.abc import Sequence

TENSOR_PARALLEL = ("--tensor-parallel-size", "-tp")
DATA_PARALLEL = ("--data-parallel-size", "-dp")

_SECRETS = ("--api-key", "--hf-token")


def value(flags: Sequence[str], *names: str) -> str | None:
    """What a flag is set to, the last time it is given; None where it is not.

    Args:
        flags: words of the command line.
        names: the flag's spellings; underscores count as hyphens, as they do for vLLM.

    >>> value(["--max-num-seqs", "64", "-tp=2"], "--max-num-seqs"), value(["-tp=2"], "--tensor-parallel-size", "-tp")
    ('64', '2')
    """
    found = None
    for i, word in enumerate(flags):
        flag, equals, behind = word.partition("=")
        if flag.replace("_", "-") not in names:
            continue
        if equals:
            found = behind
        elif i + 1 < len(flags):
            found = flags[i + 1]
    return found


def whole(flags: Sequence[str], *names: str) -> int | None:
    """The same as a whole number; None also where it is none (``auto``, ``4k``)."""
    text = value(flags, *names)
    return int(text) if text is not None and text.isdecimal() else None


def given(flags: Sequence[str], *names: str) -> bool:
    """Whether a flag is there, with or without a value.

    >>> given(["--enforce-eager"], "--enforce-eager"), given(["--enable_expert_parallel"], "--enable-expert-parallel")
    (True, True)
    """
    return any(word.partition("=")[0].replace("_", "-") in names for word in flags)


def public(words: Sequence[str]) -> tuple[str, ...]:
    """The same without keys, to be kept in files.

    >>> public(["--api-key", "sk-1", "--hf-token=hf_2", "--seed", "0"])
    ('--api-key', '***', '--hf-token=***', '--seed', '0')
    """
    kept: list[str] = []
    for i, word in enumerate(words):
        flag, equals, _ = word.partition("=")
        secret = flag.replace("_", "-") in _SECRETS
        behind_secret = i > 0 and words[i - 1].replace("_", "-") in _SECRETS
        kept.append(f"{flag}=***" if secret and equals else "***" if behind_secret else word)
    return tuple(kept)
