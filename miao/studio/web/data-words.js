import { learn } from "./words.js";

learn({
  zh: {
    ofRun: "哪个运行的语料", noData: "还没有运行。", recordsTitle: "翻看记录", recordsMore: "语料里的每一条都能看到，可以按来源、长度、文字筛选。选“我的文件”时看到的是清洗之前的原文，还能按规则筛选：哪条规则会改它、会拒绝它，改前改后并排。",
    from: "看", fromRun: "这个运行的语料", fromPath: "我的文件", path: "路径", stage: "阶段", split: "哪一份", train: "训练", heldoutText: "留出", source: "来源", rule: "规则", anyone: "全部", least: "最少字数", most: "最多字数", holds: "含有", showRecords: "看", moreRecords: "再看一些",
    noRecords: "没有这样的记录。", scanned: "看过 {0} 条", characters: "字符", tokens: "词元", perCharacter: "词元/字符", heldoutRecords: "留出", trainRecords: "训练条数",
    sourcesTitle: "{0}：来源", sourcesMore: "每个来源有多少条、多少字，切成多少词元。词元/字符越小，分词器对这种文字越省（对话连同模板的记号一起算，偏好的问题要读两遍）。",
    rulesTitle: "{0}：规则做了什么", rulesMore: "清洗规则拒绝或改动了多少条，点开看例子。左边是之前，右边是之后，变了的地方有底色。", rejects: "拒绝 {0}", edits: "改动 {0}", noRules: "没有规则动过它：自带的语料不需要清洗。",
    pairsTitle: "近似重复", pairsMore: "MinHash 认为几乎相同的两条，只留一条。数字是相似度（5 个字一组的 Jaccard 估计）。", dropped: "去掉的", kept: "留下的",
    tryTitle: "试试规则", tryMore: "贴一段文字，看这个运行的规则会怎样对它。每条规则都是一个纯函数：进去一段文字，出来一段文字或一个理由。", tryRules: "试", before: "之前", after: "之后", nothingChanged: "没有规则要改它。", isRejected: "被“{0}”拒绝：{1}", isKept: "会留下：", code: "代码",
    exact: "完全相同 {0}", near: "近似重复 {0}", contaminated: "与评测题重合 {0}", readRecords: "读入 {0} 条",
  },
  en: {
    ofRun: "The corpus of", noData: "There are no runs yet.", recordsTitle: "Browse records", recordsMore: "Every record of the corpus, by source, length and words. Of “my files” you see the text before cleaning, and can filter by rule: what a rule would change or reject, before and after side by side.",
    from: "Of", fromRun: "this run's corpus", fromPath: "my files", path: "Path", stage: "Stage", split: "Part", train: "training", heldoutText: "held out", source: "Source", rule: "Rule", anyone: "all", least: "Least characters", most: "Most characters", holds: "Holds", showRecords: "Show", moreRecords: "More",
    noRecords: "There are no such records.", scanned: "{0} looked through", characters: "characters", tokens: "tokens", perCharacter: "tokens per character", heldoutRecords: "held out", trainRecords: "to train on",
    sourcesTitle: "{0}: sources", sourcesMore: "How many records and characters each source has, and in how many tokens they are cut. The fewer tokens per character, the better the tokenizer fits that kind of text (conversations count the marks of their template, preferences read their prompt twice).",
    rulesTitle: "{0}: what the rules did", rulesMore: "How many records a rule rejected or changed; unfold it for examples. Before is on the left, after on the right, and what differs is marked.", rejects: "rejected {0}", edits: "changed {0}", noRules: "No rule touched it: the built-in corpus needs no cleaning.",
    pairsTitle: "Near-duplicates", pairsMore: "Pairs that MinHash takes for nearly the same; one of them stays. The number is their similarity (an estimate of Jaccard's over groups of characters or words).", dropped: "left out", kept: "kept",
    tryTitle: "Try the rules", tryMore: "Paste a text and see what the rules of this run make of it. Each rule is a pure function: a text goes in, a text or a reason comes out.", tryRules: "Try", before: "before", after: "after", nothingChanged: "No rule changes it.", isRejected: "rejected by “{0}”: {1}", isKept: "It stays:", code: "code",
    exact: "equal {0}", near: "nearly equal {0}", contaminated: "overlap with benchmarks {0}", readRecords: "{0} records read",
  },
});
