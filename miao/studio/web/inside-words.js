import { GLASS } from "./glasswords.js";
import { learn } from "./words.js";

learn(GLASS);
learn({
  zh: {
    lesson: "课：参观大脑", against: "和另一个模型比较", nobody: "（不比较）", asChat: "这是对话里的一个问题", answerField: "要看的回答（可以留空）", noModels: "还没有可以看的模型。先在“培育”里种一棵。",
    looking: "正在读…", finished: "{0}", atStep: "{0}，第 {1} 步", page: "说明", code: "代码",
    rowsTitle: "训练时的一行", rowsMore: "训练读的不是一篇一篇的文字，而是装满的行：同一种下划线是同一篇文档，文档之间互相看不见。灰色带点线的词元只被读、不被学（掩码）；颜色越深，这个模型在那里的损失越大。",
    stage: "阶段", split: "哪一份", train: "训练", heldoutText: "留出（没有训练过）", rowNumber: "第几行（从 0 起）", showRow: "看这一行",
    rowFacts: "{0} 个位置，{1} 篇文档，{2} 个学，{3} 个空；平均损失 {4} 纳特", slotFacts: "第 {0} 篇（{1}）的第 {2} 个；下一个是 “{3}”", isMasked: "只读不学", slotLoss: "损失 {0} 纳特", isPadding: "空位",
  },
  en: {
    lesson: "Lesson: a tour", against: "Compare with another model", nobody: "(no comparison)", asChat: "This is a question in a chat", answerField: "The answer to look at (may be empty)", noModels: "There is no model to look into yet. Grow one first.",
    looking: "Reading…", finished: "{0}", atStep: "{0}, step {1}", page: "page", code: "code",
    rowsTitle: "A row of training", rowsMore: "Training does not read text by text but in rows filled to the brim: one kind of underline is one document, and documents do not see each other. Grey tokens with a dotted line are read but not learnt (masked); the deeper the colour, the larger this model's loss there.",
    stage: "Stage", split: "Which part", train: "training", heldoutText: "held out (never trained on)", rowNumber: "Row (from 0)", showRow: "Show this row",
    rowFacts: "{0} slots, {1} documents, {2} learnt, {3} empty; mean loss {4} nats", slotFacts: "document {0} ({1}), token {2}; next comes “{3}”", isMasked: "read, not learnt", slotLoss: "loss {0} nats", isPadding: "empty",
  },
});
