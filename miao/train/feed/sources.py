"""The rows of a training stage: its shards as weighted sources, how many tokens of them are trained
on, and how well they fill the rows."""

from __future__ import annotations

from pathlib import Path

from miao.corpus.build.output import BUILT_IN, TEXT
from miao.corpus.records import KINDS, REPLAYED
from miao.recipe import CorpusOptions, DpoOptions, Recipe, SftOptions, StageOptions, parse_quantity
from miao.recipe.checks import check_weights
from miao.rundir import RunDir
from miao.shards import PackedLoader, PackedSource, TokenDataset
from miao.shards.answers import LabelledAnswers
from miao.train.distributed.world import World
from miao.train.feed.prefetch import StepSource

MOST_TIMES = 4


def make_loader(
    stage: str, recipe: Recipe, run: RunDir, world: World | None = None
) -> PackedLoader:
    """The stage's training shards as weighted sources. The main process compares checksums of
    files that it has not compared before; the others wait for it."""
    options: StageOptions = getattr(recipe, stage)
    world = world or World()
    read = [stage, *([REPLAYED[stage]] if _replay_share(options) else [])]
    with world.main_first():
        for path in (path for one in read for path in run.shards(one, "train").glob("*/")):
            if world.is_main:
                TokenDataset(path, verify="once")
    labelled = isinstance(options, DpoOptions) and options.loss == "kto"
    sources = open_sources(run.shards(stage, "train"), options.seq_len, recipe.seed, labelled)
    _set_weights(stage, sources, recipe.corpus)
    replay = _replay_share(options)
    if replay:
        earlier = REPLAYED[stage]
        replayed = open_sources(run.shards(earlier, "train"), options.seq_len, recipe.seed)
        _set_weights(earlier, replayed, recipe.corpus)
        for group, share in ((sources, 1 - replay), (replayed, replay)):
            total = sum(source.share for source in group)
            for source in group:
                source.weight = share * source.share / total
        sources += replayed
    rows = int(parse_quantity(options.batch_tokens, "batch_tokens")) // options.seq_len
    return PackedLoader(sources, options.seq_len, rows_per_step=rows)


def require_rows(stage: str, recipe: Recipe, run: RunDir) -> None:
    """That the stage's sources, and those that it replays, have something to learn.

    Raises:
        MiaoError: one has nothing.
    """
    options: StageOptions = getattr(recipe, stage)
    pairs = isinstance(options, DpoOptions) and options.loss != "kto"
    for earlier in [stage, *([REPLAYED[stage]] if _replay_share(options) else [])]:
        for path in sorted(run.shards(earlier, "train").glob("*/")):
            dataset = TokenDataset(path)
            if dataset.group_size == 1 or pairs:
                PackedSource(path.name, dataset, options.seq_len, recipe.seed)


def _replay_share(options: StageOptions) -> float:
    return options.replay if isinstance(options, SftOptions | DpoOptions) else 0.0


def open_sources(
    directory: Path, seq_len: int, seed: int, labelled: bool = False
) -> list[PackedSource]:
    """The shards below a directory.

    Args:
        labelled: preferences are read answer by answer.
    """
    sources = []
    for path in sorted(directory.glob("*/")):
        dataset = TokenDataset(path)
        view = LabelledAnswers(dataset, seed) if labelled else dataset
        sources.append(PackedSource(path.name, view, seq_len, seed))
    return sources


def _set_weights(stage: str, sources: list[PackedSource], options: CorpusOptions) -> None:
    weights = options.weights if stage == "pretrain" else {}
    if stage == "sft" and options.mixes_built_in:
        weights = own_weights({s.name: s.total_tokens for s in sources}, options.own_share)
    if weights:
        check_weights(weights, [source.name for source in sources])
        for source in sources:
            source.weight = weights.get(source.name, 1.0)


def own_weights(tokens: dict[str, int], share: float | str | None) -> dict[str, float]:
    """Weights of the user's own conversations and of those beside them: the built-in ones, and any
    that were made from the text.

    Args:
        tokens: of every source. share: of the user's own; auto: by their size, up to four times
            over (what is read again so often teaches nearly as much as new text,
            arXiv:2305.16264) until they are half.
    """
    others = {name: tokens[name] for name in (BUILT_IN, TEXT) if name in tokens}
    own = {name: float(size) for name, size in tokens.items() if name not in others}
    beside, total = float(sum(others.values())), sum(own.values())
    if not beside or not total:
        return {}
    if not isinstance(share, float | int):
        wanted = max(total, min(MOST_TIMES * total, beside))
        share = wanted / (wanted + beside)
    weights = {name: share * size / total for name, size in own.items()}
    return weights | {name: (1 - share) * size / beside for name, size in others.items()}


def token_budget(stage: str, options: StageOptions, loader: PackedLoader | StepSource) -> float:
    """Real tokens to train on; what is replayed comes on top of the epochs."""
    if options.tokens is not None:
        return parse_quantity(options.tokens, f"{stage}.tokens")
    assert isinstance(loader, PackedLoader), "rollouts have no epochs"
    own = sum(s.total_tokens for s in loader.sources if s.dataset.manifest.kind == KINDS[stage])
    return (options.epochs or 0) * own / (1 - _replay_share(options))


def packing_facts(loader: PackedLoader, rows: int = 2000) -> dict[str, float]:
    """How full the first rows are, and how much had to be split (of text that is only replayed
    nothing is said); the loader is put back."""
    before = loader.state()
    kinds = {source.dataset.manifest.kind for source in loader.sources}
    own = [s for s in loader.sources if len(kinds) == 1 or s.dataset.manifest.kind != "document"]
    drawn = loader.lane(0).next_rows(rows)
    filled = loader.real_tokens(drawn)
    loader.restore(before)
    return {
        "filled": filled / (rows * loader.seq_len),
        "split": sum(s.split_tokens for s in own) / max(sum(s.total_tokens for s in own), 1),
        "truncated": sum(source.truncated for source in loader.sources),
        "left_out": sum(source.left_out for source in loader.sources),
        "single": sum(source.single for source in loader.sources),
        "unlearned": sum(source.unlearned for source in loader.sources),
        "sequences": sum(len(source.dataset) for source in loader.sources),
    }
