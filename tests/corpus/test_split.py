"""What is held out, and what leaves training for it; the sources that records are written to."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miao.corpus.build import output
from miao.corpus.build.pipeline import CorpusReport, build_corpus
from miao.corpus.dedup.minhash import FILL, SKETCH, Sketches, grams_of, sketches
from miao.corpus.ngrams import TextView, folded_key, views_of
from miao.corpus.read.frequent import FREQUENT
from miao.corpus.read.sources import find_sources, is_dataset_name
from miao.files import read_json
from miao.recipe import CorpusOptions
from miao.recipe.cleaning import DedupOptions


def text(rng: random.Random, length: int = 120) -> str:
    return "".join(rng.choices(FREQUENT, k=length))


def write(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def build(
    path: Path, rows: list[Any] | None = None, stage: str = "pretrain", **values: Any
) -> tuple[CorpusReport, dict[str, list[Any]]]:
    """The report, and the records of each side."""
    paths = values.pop("paths", [str(path / "in.jsonl")])
    if rows is not None:
        write(path / "in.jsonl", rows)
    field = {"pretrain": "paths", "sft": "conversations", "dpo": "preferences"}[stage]
    options = CorpusOptions(**{field: paths, "workers": 1, "heldout": 0.2, **values})
    report = build_corpus(options, 1, path / "out", stages=[stage])
    sides: dict[str, list[Any]] = {"train": [], "heldout": []}
    for file in sorted((path / "out" / stage).rglob("*.jsonl")):
        sides[file.parent.name] += map(json.loads, file.read_text(encoding="utf-8").splitlines())
    accounts = report.accounts[stage]
    assert len(sides["heldout"]) == accounts.heldout and accounts.read == accounts.accounted
    return report, sides


def chats(question: str, answers: int, rng: random.Random) -> list[Any]:
    """Conversations that begin with one question, written otherwise each time."""
    found = []
    for number in range(answers):
        asked = question if number == 0 else "  ".join(question).replace("？", "?!")
        turns = [
            ("user", asked),
            ("assistant", text(rng, 20)),
            ("user", "继续"),
            ("assistant", "好"),
        ]
        turns = [("system", f"你是助手{number}。"), *turns] if number % 2 else turns
        found.append({"messages": [{"role": role, "content": said} for role, said in turns]})
    return found


def asked_in(records: list[Any], key: str = "messages") -> set[int]:
    first = (next(m["content"] for m in r[key] if m["role"] == "user") for r in records)
    return {folded_key(TextView(question)) for question in first}


def test_no_question_of_conversations_stands_on_both_sides(tmp_path: Path) -> None:
    rng = random.Random(1)
    rows = [chat for n in range(150) for chat in chats(text(rng, 12) + "？", 1 + n % 4, rng)]
    rng.shuffle(rows)
    _, sides = build(tmp_path, rows, "sft")
    held, train = asked_in(sides["heldout"]), asked_in(sides["train"])
    assert 15 < len(held) < 60 and len(held | train) == 150 and not held & train
    assert len(sides["heldout"]) + len(sides["train"]) == len(rows), "nothing is lost"


@pytest.mark.parametrize("labelled", [False, True])
def test_no_prompt_of_preferences_stands_on_both_sides(tmp_path: Path, labelled: bool) -> None:
    rng = random.Random(2)
    rows: list[Any] = []
    for number in range(100):
        prompt = text(rng, 15)
        for _ in range(1 + number % 3):
            answers = {"chosen": text(rng, 9), "rejected": text(rng, 9)}
            if labelled:
                rows.append({"prompt": prompt, "completion": answers["chosen"], "label": True})
            else:
                rows.append({"prompt": prompt, **answers})
    _, sides = build(tmp_path, rows, "dpo")
    held, train = asked_in(sides["heldout"], "prompt"), asked_in(sides["train"], "prompt")
    assert held and not held & train and len(held | train) == 100
    assert len(sides["heldout"]) + len(sides["train"]) == 199


def test_a_prompt_that_everybody_asks_is_not_held_out(tmp_path: Path) -> None:
    rng = random.Random(3)
    rows = chats("你好", 80, rng)
    rows += [chat for _ in range(40) for chat in chats(text(rng, 12), 1, rng)]
    _, sides = build(tmp_path, rows, "sft", heldout=1.0, heldout_max=100)
    assert len(sides["heldout"]) == 40 and asked_in(sides["train"]) == {
        folded_key(TextView("你好"))
    }
    rows = [chat for _ in range(20) for chat in chats(text(rng, 12), 50, rng)]
    _, sides = build(tmp_path, rows, "sft", heldout=0.4)
    held, train = asked_in(sides["heldout"]), asked_in(sides["train"])
    assert held and not held & train, "unless all are so"


def test_near_duplicates_of_held_out_texts_leave_training(tmp_path: Path) -> None:
    rng = random.Random(4)
    texts = [text(rng, 200) for _ in range(200)]
    copies = [f"{one[:60]}改了{one[61:]}结尾" for one in texts]
    report, sides = build(tmp_path, [{"text": one} for one in (*texts, *copies)])
    held = {record["text"] for record in sides["heldout"]}
    train = {record["text"] for record in sides["train"]}
    assert 20 < len(held) < 100
    pairs = [
        (a in held or b in held, a in train or b in train)
        for a, b in zip(texts, copies, strict=True)
    ]
    assert not any(is_held and trained for is_held, trained in pairs)
    assert all(trained for is_held, trained in pairs if not is_held)
    gone = report.accounts["pretrain"].heldout_duplicates
    assert gone + len(held) + len(train) == 400 and 10 < gone <= len(held)


def test_equal_but_for_punctuation_and_script_is_equal_across_the_split(tmp_path: Path) -> None:
    opencc = pytest.importorskip("opencc").OpenCC("s2t")
    rng = random.Random(5)
    texts = [text(rng, 12) for _ in range(150)]
    rows = [{"text": t} for one in texts for t in (one, opencc.convert(one) + "！", f"「{one}」")]
    _, sides = build(tmp_path, rows)
    held, train = (
        {folded_key(TextView(r["text"])) for r in sides[s]} for s in ("heldout", "train")
    )
    assert held and train and not held & train


def test_pages_of_one_template_are_not_held_out_nor_lost(tmp_path: Path) -> None:
    rng = random.Random(6)
    template = text(rng, 200)
    pages = [template[:100] + text(rng, 12) + template[100:] for _ in range(100)]
    others = [text(rng, 200) for _ in range(100)]
    report, sides = build(tmp_path, [{"text": one} for one in pages + others])
    assert {record["text"] for record in sides["train"]} >= set(pages)
    assert report.accounts["pretrain"].heldout_duplicates == 0 < len(sides["heldout"])


def test_the_order_of_records_changes_nothing_of_the_split(tmp_path: Path) -> None:
    rng = random.Random(7)
    rows = [{"text": text(rng, 60), "source": "ab"[n % 2]} for n in range(400)]
    _, first = build(tmp_path / "one", rows, heldout_max=20)
    _, second = build(tmp_path / "two", rows[::-1], heldout_max=20)
    assert Counter(record["source"] for record in first["heldout"]) == {"a": 20, "b": 20}
    for side in first:
        assert sorted(first[side], key=str) == sorted(second[side], key=str)


def test_a_text_that_passages_are_taken_out_of_is_not_held_out(tmp_path: Path) -> None:
    """What is left of it may equal a text that is held out."""
    rng = random.Random(8)
    notice = text(rng, 50)
    short = [text(rng, 25) for _ in range(100)]
    rows = [{"text": f"{notice}\n\n{text(rng)}"}, *({"text": one} for one in short)]
    rows += [{"text": f"{one}\n\n{notice}"} for one in short]
    _, sides = build(tmp_path, rows, dedup=DedupOptions(paragraphs=True))
    held, train = ({record["text"] for record in sides[side]} for side in ("heldout", "train"))
    assert held and not held & train and not any(notice in one for one in held)


def test_similarity_of_sketches_is_jaccard_s() -> None:
    rng = random.Random(9)
    errors = []
    for _ in range(60):
        one = text(rng, rng.choice([40, 300, 3000]))
        cut = int(len(one) * rng.random() * 0.5)
        views = views_of([one, text(rng, cut) + one[cut:]])
        first, second = (set((view.ngrams(3) >> np.uint64(32)).tolist()) for view in views)
        exact = len(first & second) / len(first | second)
        rows = sketches(*grams_of(views, 3))
        within = [t / 100 for t in range(101) if Sketches(rows[:1], t / 100).alike(rows[1:])]
        found = within[-1] if within else 0.0
        errors.append(found - exact)
        if max(len(first), len(second)) <= SKETCH:
            assert found == pytest.approx(exact, abs=0.011)
    assert abs(np.mean(errors)) < 0.03 and np.std(errors) < 0.07


def test_every_similar_sketch_is_found_and_what_all_share_costs_nothing() -> None:
    """Against all pairs; short texts, long ones, a notice under each, an empty one."""
    rng, notice = random.Random(13), text(random.Random(14), 60)
    texts = [text(rng, rng.choice([15, 60, 150, 600])) for _ in range(120)]
    texts += [one[: int(len(one) * (0.3 + 0.7 * rng.random()))] + text(rng, 20) for one in texts]
    views = views_of([one + notice * (number % 3 > 0) for number, one in enumerate(texts)])
    rows = np.append(sketches(*grams_of(views, 3)), np.full((1, SKETCH), FILL), axis=0)
    held, asked = rows[:120], rows[120:]
    pairs = {
        (ours, theirs): jaccard(row, other)
        for ours, row in enumerate(asked)
        for theirs, other in enumerate(held)
        if set(row) & set(other) - {FILL}
    }
    for threshold in (0.0, 0.45, 0.8):
        wanted = Sketches(held, threshold)
        alone = {pair for pair, share in pairs.items() if share >= threshold}
        assert set(wanted.alike(asked)) == alone and len(alone) > 9
        gone = sorted({theirs for _, theirs in alone})[::2]
        wanted.drop(gone)
        assert set(wanted.alike(asked)) == {pair for pair in alone if pair[1] not in gone}
    views = views_of([text(rng, 300) + notice for _ in range(400)])
    long = sketches(*grams_of(views, 3))
    ours, _ = Sketches(long[::2], 0.45).candidates(long[1::2])
    assert len(ours) < 400, "of 40,000 pairs, in all of which something is shared"


def jaccard(one: Any, two: Any) -> float:
    end = min(one[-1], two[-1])
    first, second = (
        {value for value in row if value <= end and value != FILL} for row in (one, two)
    )
    return len(first & second) / max(len(first | second), 1)


def sources_of(directory: Path) -> dict[str, int]:
    made = read_json(directory / "out" / "manifest.json")["sources"]["pretrain"]
    return {name: counts["train"] + counts["heldout"] for name, counts in made.items()}


def test_sources_beyond_the_24th_keep_their_names_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "OPEN_FILES", 5)
    rng = random.Random(10)
    for number in range(40):
        write(tmp_path / "in" / f"s{number}.jsonl", [{"text": text(rng)} for _ in range(3)])
    paths = [str(path) for path in sorted((tmp_path / "in").iterdir())]
    wanted = {f"s{number}": 3 for number in range(40)}
    found = []
    for order in (paths, paths[::-1]):
        _, sides = build(tmp_path, paths=order)
        assert sources_of(tmp_path) == wanted
        found.append({side: sorted(rows, key=str) for side, rows in sides.items()})
    assert found[0] == found[1]


def test_a_name_given_to_a_path_is_the_source_of_all_its_records(tmp_path: Path) -> None:
    rng = random.Random(11)
    rows = [{"text": text(rng), "source": f"https://site/{n}"} for n in range(9)]
    for folder in ("one", "two"):
        write(tmp_path / folder / "data.jsonl", [*rows, {"text": text(rng)}])
    paths = [f"维基={tmp_path}/one", str(tmp_path / "two" / "data.jsonl")]
    assert [name for _, name in find_sources(paths)] == ["维基", "data"]
    build(tmp_path, paths=[paths[0]])
    assert sources_of(tmp_path) == {"维基": 10}
    odd = write(tmp_path / "a=b.jsonl", rows)
    assert find_sources([str(odd)]) == [(odd, "a=b")], "a file that is called so"
    assert is_dataset_name("web=hf:owner/name?limit=5") and not is_dataset_name("web=data/")


def test_names_of_single_records_are_no_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "MOST_SOURCES", 5)
    rng = random.Random(12)
    pages = [{"text": text(rng), "source": f"https://site/{n}"} for n in range(9)]
    books = [{"text": text(rng), "source": f"book{n % 5}"} for n in range(10)]
    write(tmp_path / "in" / "web.jsonl", pages)
    write(tmp_path / "in" / "books.jsonl", books)
    paths = [str(tmp_path / "in" / "web.jsonl"), str(tmp_path / "in" / "books.jsonl")]
    report, sides = build(tmp_path, paths=paths)
    assert sources_of(tmp_path) == {"web": 9, **{f"book{n}": 2 for n in range(5)}}
    assert report.accounts["pretrain"].crowded == {"web": 9}
    own = {record["source"] for side in sides.values() for record in side}
    assert "https://site/3" in own, "each record still says where it comes from"
