"""Which texts are near copies of each other: character-5-gram Jaccard, its components, and the nearest copy.

The similarity of two texts is ``|A & B| / |A | B|`` over their sets of character 5-grams (a text shorter than
five characters is one gram). It is taken twice, on the text as written and with case and runs of white space
folded, and the larger counts: what an uncased tokenizer cannot tell apart is a copy, and no copy by the plain
definition is missed.

Up to ``EXACT_ROWS`` texts the answer is exact. Two texts with Jaccard >= t share a gram within the first
``n - ceil(t n) + 1`` grams of each, when every text's grams stand in the same order (Bayardo, Ma and Srikant,
"Scaling up all pairs similarity search", 2007). With the rarest grams first, few pairs do; these are counted.
Above that size (or where even this is too much work) MinHash signatures propose the pairs (Broder 1997): each
proposed pair is still counted exactly, so nothing is called a copy that is not one, and a pair at 0.7 is
missed with probability below 1e-4, one at 0.5 with 1.6 %.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_clf.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

GRAM = 5
THRESHOLD = 0.7
EXACT_ROWS = 20_000
WORK_LIMIT = 3_000_000_000  # products of the prefix index, about half a minute on one core
BANDS, ROWS_PER_BAND = 64, 4
BUCKET_REACH = 32  # in a bucket of more texts than this each meets that many others: bounds the work
VERIFY_GRAMS = 4_000_000
CHARACTERS = 1_000_000  # whose grams are found at once

_Found = tuple["NDArray[np.int64]", "NDArray[np.int64]", "NDArray[np.float64]"]


def fold(text: str) -> str:
    """The text with case folded and every run of white space as one space, none at the ends."""
    return re.sub(r"\s+", " ", text.casefold()).strip()


def components(texts: Sequence[str], threshold: float = THRESHOLD) -> NDArray[np.int64]:
    """The near-copy group of each text (N,): the position of the first text of its connected component.

    Two texts are in one group when a chain of near copies leads from one to the other. Where the answer is exact
    no pair at or above ``threshold`` is ever in two groups; MinHash, which is taken for many texts or much work,
    may miss a pair (at 0.7 one in 10,000) and then leave it in two.
    """
    unique, first, inverse = _unique(texts)
    parent = np.arange(len(unique))
    for left, right, _ in _found(unique, threshold):
        parent = _joined(parent, left, right)
    return first[parent][inverse]


def nearest_and_method(
    queries: Sequence[str], references: Sequence[str], threshold: float = 0.5
) -> tuple[NDArray[np.float64], str]:
    """How like the likest reference each query is (Q,), and how that was found.

    It is 0.0 where no reference reaches ``threshold``; found ``exact``, or by ``minhash`` where any of it was.
    """
    used: set[str] = set()
    unique, _, inverse = _unique([*queries, *references])
    asked, held = np.zeros(len(unique), bool), np.zeros(len(unique), bool)
    asked[inverse[: len(queries)]] = True
    held[inverse[len(queries) :]] = True
    best = np.where(asked & held, 1.0, 0.0)
    for left, right, value in _found(unique, threshold, used):
        for one, other in ((left, right), (right, left)):
            use = asked[one] & held[other]
            np.maximum.at(best, one[use], value[use])
    return best[inverse[: len(queries)]], "minhash" if "minhash" in used else "exact"


def join_groups(*columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """The finest grouping that keeps together what any of the ``columns`` keeps together, each (N,)."""
    parent = np.arange(len(columns[0]))
    for column in columns:
        _, first, inverse = np.unique(column, return_index=True, return_inverse=True)
        parent = _joined(parent, first[inverse], np.arange(len(column)))
    return parent


def _unique(texts: Sequence[str]) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """Each different text once, its first position, and for every text its place among the different ones."""
    places: dict[str, int] = {}
    inverse = np.fromiter((places.setdefault(text, len(places)) for text in texts), np.int64, len(texts))
    first = np.full(len(places), len(texts), np.int64)
    np.minimum.at(first, inverse, np.arange(len(texts)))
    return list(places), first, inverse


def _joined(parent: NDArray[np.int64], left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """``parent`` after linking left to right; each entry is the smallest member of its component."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    size = len(parent)
    rows, columns = np.concatenate([left, np.arange(size)]), np.concatenate([right, parent])
    graph = coo_matrix((np.ones(len(rows), np.int8), (rows, columns)), shape=(size, size))
    _, label = connected_components(graph, directed=False)
    _, first = np.unique(label, return_index=True)
    return np.asarray(first[label], np.int64)


def _found(texts: Sequence[str], threshold: float, used: set[str] | None = None) -> Iterator[_Found]:
    """Pieces of (left, right, similarity) with left < right; a pair may come more than once.

    The methods that were used are added to ``used``.
    """
    if not 0.0 < threshold <= 1.0:
        raise UsageError(f"The near-copy threshold is {threshold}; it lies above 0 and up to 1.")
    if len(texts) < 2:
        return
    for version in (list(texts), [fold(text) for text in texts]):
        grams = _gram_matrix(version)
        prefixes = _prefixes(grams, threshold) if len(texts) <= EXACT_ROWS else None
        if prefixes is not None and _work(prefixes) > WORK_LIMIT:
            prefixes = None
        if used is not None:
            used.add("minhash" if prefixes is None else "exact")
        candidates = _banded(grams, threshold) if prefixes is None else _sharing(prefixes, grams, threshold)
        for left, right in candidates:
            yield from _counted(grams, left, right, threshold)
        del grams, prefixes, candidates  # before the next ones are made


def _gram_matrix(texts: Sequence[str]) -> Any:
    """A sparse 0/1 matrix (N, grams), rarest gram first, column numbers sorted in each row.

    Texts are gone through some at a time: of all of them at once a position would take 80 bytes.
    """
    from scipy.sparse import csr_matrix

    unused = next(letter for letter in map(chr, range(sys.maxunicode)) if not any(letter in text for text in texts))
    padded = [text.ljust(GRAM, unused) if len(text) < GRAM else text for text in texts]
    used = np.zeros(sys.maxunicode + 1, np.uint64)
    for part in _some_of(padded, CHARACTERS):
        used[_points(part)] = 1
    alphabet, letters = int(used.sum()), np.cumsum(used, dtype=np.uint64) - np.uint64(1)
    # Of scripts with many thousand characters five do not fit into 64 bits: their grams are numbered all at once.
    at_once = CHARACTERS if alphabet**GRAM < 2**64 else sum(map(len, padded))
    found = [_grams(part, letters, alphabet) for part in _some_of(padded, at_once)]
    # np.unique hashes here, which takes ten times as long.
    known = np.sort(np.concatenate([some for _, some, _ in found]))
    known = known[np.append(True, known[1:] != known[:-1])]
    column = np.concatenate([np.searchsorted(known, some).astype(np.int32)[gram] for _, some, gram in found])
    indptr = np.append(0, np.cumsum(np.concatenate([counts for counts, _, _ in found])))
    del found
    frequency = np.bincount(column, minlength=len(known))
    rank = np.empty(len(known), np.int32)
    rank[np.argsort(frequency, kind="stable")] = np.arange(len(known))
    matrix = csr_matrix((np.ones(len(column), np.int32), rank[column], indptr), shape=(len(padded), len(known)))
    matrix.sort_indices()
    return matrix


def _some_of(texts: Sequence[str], characters: int) -> Iterator[Sequence[str]]:
    """All of the texts in their order, some at a time: as few as hold so many characters."""
    start = held = 0
    for place, text in enumerate(texts, 1):
        held += len(text)
        if held >= characters or place == len(texts):
            yield texts[start:place]
            start, held = place, 0


def _points(texts: Sequence[str]) -> NDArray[np.uint32]:
    """The code points of texts, one behind the other."""
    return np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), "<u4")


def _grams(
    texts: Sequence[str], letters: NDArray[np.uint64], alphabet: int
) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.int32]]:
    """How many grams each text has; the numbers of all; and, text by text, their places among these.

    Args:
        texts: of ``GRAM`` characters or more.
        letters: the number of each code point.
        alphabet: how many numbers there are.
    """
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    codes = letters[_points(texts)]
    ends = len(codes) - GRAM + 1
    if alphabet**GRAM < 2**64:
        packed: NDArray[np.uint64] = np.zeros(ends, np.uint64)
        for step in range(GRAM):
            packed = packed * np.uint64(alphabet) + codes[step : ends + step]
    else:  # number pairs, then pairs of pairs: five still fit
        _, two = np.unique(codes[:-1] * np.uint64(alphabet) + codes[1:], return_inverse=True)
        two = two.astype(np.uint64)
        _, four = np.unique(two[:-2] * np.uint64(int(two.max()) + 1) + two[2:], return_inverse=True)
        packed = four[:ends].astype(np.uint64) * np.uint64(alphabet) + codes[GRAM - 1 :]
    counts = lengths - GRAM + 1
    text_of = np.repeat(np.arange(len(texts)), counts)
    starts = np.cumsum(lengths) - lengths
    within = np.arange(len(text_of)) - np.repeat(np.cumsum(counts) - counts, counts)
    known, gram = np.unique(packed[starts[text_of] + within], return_inverse=True)
    both = np.sort(text_of * len(known) + gram)
    text_of, gram = np.divmod(both[np.append(True, both[1:] != both[:-1])], len(known))
    return np.bincount(text_of, minlength=len(texts)), known, gram.astype(np.int32)


def _prefixes(grams: Any, threshold: float) -> Any:
    """``grams`` with only the entries of each row that a pair at ``threshold`` must share one of."""
    from scipy.sparse import csr_matrix

    sizes = np.diff(grams.indptr)
    kept = sizes - np.ceil(threshold * sizes - 1e-9).astype(np.int64) + 1
    position = np.arange(grams.nnz) - np.repeat(grams.indptr[:-1], sizes)
    keep = position < np.repeat(kept, sizes)
    indptr = np.concatenate([[0], np.cumsum(kept)])
    return csr_matrix((grams.data[keep], grams.indices[keep], indptr), shape=grams.shape)


def _work(prefixes: Any) -> int:
    frequency = np.bincount(prefixes.indices).astype(np.float64)
    return int((frequency**2).sum())


def _sharing(prefixes: Any, grams: Any, threshold: float) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs whose sizes, and whose prefixes' common grams, allow the threshold.

    Of two texts take the one whose prefix ends at the rarer gram: its prefix meets the other text within the
    other's prefix only, so the two share at most the prefixes' common grams and all that follows its prefix.
    """
    sizes = np.diff(grams.indptr).astype(np.int64)
    last = prefixes.indices[prefixes.indptr[1:] - 1]
    rest = sizes - np.diff(prefixes.indptr)
    by_gram = prefixes.T.tocsr()
    step = max(1, min(prefixes.shape[0], math.ceil(2e7 * prefixes.shape[0] / max(1, _work(prefixes)))))
    for start in range(0, prefixes.shape[0], step):
        shared = (prefixes[start : start + step] @ by_gram).tocoo()
        left, right = shared.row.astype(np.int64) + start, shared.col.astype(np.int64)
        small, large = np.minimum(sizes[left], sizes[right]), np.maximum(sizes[left], sizes[right])
        most = shared.data + np.where(last[left] <= last[right], rest[left], rest[right])
        needed = threshold / (1 + threshold) * (small + large)
        use = (left < right) & (small >= threshold * large - 1e-9) & (most >= needed - 1e-9)
        yield left[use], right[use]


def _banded(grams: Any, threshold: float) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs that agree in a band of their MinHash signatures and whose signatures as a whole allow the threshold.

    The constants are fixed, so the same texts give the same pairs on every run.
    """
    draw = np.random.default_rng(20_000)
    gram_keys = draw.integers(0, 2**63, grams.shape[1], np.uint64)
    total, length = grams.shape[0], BANDS * ROWS_PER_BAND
    signatures = np.empty((total, length), np.uint32)
    for place, odd in enumerate(draw.integers(0, 2**63, length, np.uint64) | np.uint64(1)):
        mixed = (gram_keys ^ (gram_keys >> np.uint64(31))) * odd
        mixed ^= mixed >> np.uint64(29)
        signatures[:, place] = np.minimum.reduceat(mixed[grams.indices], grams.indptr[:-1]) & np.uint64(2**32 - 1)
    # Four standard deviations of the share of places in which two texts at the threshold agree.
    least = threshold - 4 * math.sqrt(threshold * (1 - threshold) / length)
    for band in range(BANDS):
        part = signatures[:, band * ROWS_PER_BAND : (band + 1) * ROWS_PER_BAND]
        _, bucket = np.unique(part, axis=0, return_inverse=True)
        order = np.lexsort((draw.permutation(total), bucket.ravel()))
        ordered = bucket.ravel()[order]
        pairs = [np.empty((2, 0), np.int64)]
        for reach in range(1, min(BUCKET_REACH, total - 1) + 1):
            same = np.flatnonzero(ordered[:-reach] == ordered[reach:])
            if not len(same):
                break
            pairs.append(np.stack([order[same], order[same + reach]]))
        proposed = np.sort(np.concatenate(pairs, axis=1), axis=0)
        for piece in np.array_split(proposed, max(1, proposed.shape[1] // 50_000), axis=1):
            use = (signatures[piece[0]] == signatures[piece[1]]).mean(axis=1) >= least
            yield piece[0][use], piece[1][use]


def _counted(grams: Any, left: NDArray[np.int64], right: NDArray[np.int64], threshold: float) -> Iterator[_Found]:
    """The pairs whose true Jaccard reaches the threshold, in pieces that fit in memory."""
    sizes = np.diff(grams.indptr).astype(np.int64)
    cost = np.cumsum(sizes[left] + sizes[right])
    cuts = np.searchsorted(cost, np.arange(VERIFY_GRAMS, cost[-1] if len(cost) else 0, VERIFY_GRAMS))
    for one, other in zip(np.split(left, cuts), np.split(right, cuts), strict=True):
        if not len(one):
            continue
        both = np.asarray(grams[one].multiply(grams[other]).sum(axis=1)).ravel()
        value = both / (sizes[one] + sizes[other] - both)
        use = value >= threshold
        if use.any():
            yield one[use], other[use], value[use]
