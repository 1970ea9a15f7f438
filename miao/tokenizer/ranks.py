"""Vocabularies that are lists of byte strings in the order in which they were learned (tiktoken,
rustbpe), as the vocabulary and the merges that `tokenizers` wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from miao.tokenizer.tokenizer import byte_letters

Merges = list[tuple[str, str]]


def vocabulary_of_ranks(
    tokens: Sequence[bytes] | Mapping[bytes, int],
) -> tuple[dict[str, int], Merges]:
    """The vocabulary (token -> rank) and its merges, spelt in `byte_letters`.

    An encoder by ranks joins the neighbours whose union has the lowest rank, whatever two tokens
    they are. So every way to cut a token in two tokens is a merge, in the order of the unions.

    Args:
        tokens: each token at its rank, or the ranks of all tokens (which may have gaps).
    """
    ranks = tokens if isinstance(tokens, Mapping) else {t: rank for rank, t in enumerate(tokens)}
    letters = byte_letters()

    def spelt(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges: Merges = []
    for token, _ in sorted(ranks.items(), key=lambda item: item[1]):
        cuts = [
            (token[:at], token[at:])
            for at in range(1, len(token))
            if token[:at] in ranks and token[at:] in ranks
        ]
        cuts.sort(key=lambda cut: (ranks[cut[0]], ranks[cut[1]]))
        merges += [(spelt(left), spelt(right)) for left, right in cuts]
    return {spelt(token): rank for token, rank in ranks.items()}, merges
