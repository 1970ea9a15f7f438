// What the room "Grow" says.
import { learn } from "./words.js";

learn({
  zh: {
    stepText: "一 · 你的文本", dropHere: "把文件拖到这里：txt、md、jsonl、csv、parquet……对话和偏好数据会自己认出来。没有文本也行：下面选一份配方，它自带语料。",
    chooseFiles: "选择文件", chooseFolder: "选择已有的文件夹", pasteText: "粘贴文字", pasteHere: "把文字粘贴在这里", keepText: "留下这段文字",
    stepModel: "二 · 你的模型", modelName: "名字", recipe: "怎么训练", byTime: "给它一段时间", byClock: "到几点为止", minutes: "一共多少分钟", until: "到几点", maker: "它说是谁培育的（可不填）", origin: "从哪里开始", given: "目录，或者 hf:作者/名字", fromScratch: "从头种一棵新的", fromRun: "接着“{0}”长（如果更划算）", fromElsewhere: "别处的模型……", badName: "名字：字母、汉字、数字，其后还可以有 . - _（最多 80 个）", makePlan: "先看计划", start: "开始培育",
    stepRuns: "三 · 培育中的模型", noJobs: "还没有。上面填好，点“开始培育”。", cloning: "照着“{0}”再来一次；下面的表可以改。", uploading: "正在上传 {0}", uploaded: "已留下 {0}",
    checking: "正在看……", records: "{0} 条", characters: "{0} 字", lengths: "每条长度：最短 {0}", median: "中位 {0}", longest: "最长 {0}", languages: "语言",
    problems: "有问题的 {0} 处", noProblems: "没有发现问题。", threeRecords: "三条样子", nothing: "没有认出任何记录。", kindDocument: "文本", kindConversation: "对话", kindPreference: "偏好",
    planning: "正在量这台机器、做计划……", option: "选项", value: "值", takes: "预计 {0} 分钟", predicted: "预计每字节 {0} 比特", same: "命令行上这样做：", why: "为什么",
    partPretrain: "预训练", partSft: "学对话", partDpo: "学偏好", partRest: "其余", queued: "排队中", running: "训练中", stopping: "正在存盘、停下", paused: "已暂停", stateStopped: "已停止", broken: "中断了（断电或被杀）", stateFailed: "失败", stateDone: "完成", noJob: "不由工作室启动",
    pause: "暂停", resume: "继续", forget: "从列表去掉", clone: "照此再来", watchIt: "看曲线", talkTo: "对话", log: "日志", left: "还剩 {0}",
    newName: "新的名字", sureDeleteRun: "删除“{0}”的一切：数据、检查点、模型？", sayName: "这一步不能撤销。请输入它的名字“{0}”：", notSame: "名字不一样，没有删除。",
    up: "↑ 上一层", choose: "用它", unchoose: "不用", tooMany: "（只显示前 500 个）",
  },
  en: {
    stepText: "1 · Your text", dropHere: "Drop files here: txt, md, jsonl, csv, parquet … Conversations and preferences are recognised by themselves. Nothing at hand? Choose a recipe below: it brings a corpus of its own.",
    chooseFiles: "Choose files", chooseFolder: "Choose a folder that is there", pasteText: "Paste text", pasteHere: "Paste text here", keepText: "Keep this text",
    stepModel: "2 · Your model", modelName: "Name", recipe: "How", byTime: "in so many minutes", byClock: "until a time of the clock", minutes: "Minutes in all", until: "Until", maker: "Who it says made it (optional)", origin: "Begin with", given: "A directory, or hf:owner/name", fromScratch: "a new model, from scratch", fromRun: "“{0}”, if that promises more", fromElsewhere: "a model from elsewhere …", badName: "A name: letters of any script and digits, then also . - _ (at most 80)", makePlan: "Show the plan first", start: "Grow it",
    stepRuns: "3 · Growing", noJobs: "None yet. Fill in the form above and press “Grow it”.", cloning: "Once more as “{0}”; change what you like in the table below.", uploading: "Uploading {0}", uploaded: "Kept {0}",
    checking: "Looking…", records: "{0} records", characters: "{0} characters", lengths: "characters per record: shortest {0}", median: "median {0}", longest: "longest {0}", languages: "languages",
    problems: "Problems: {0}", noProblems: "No problems found.", threeRecords: "Three of them", nothing: "No records were recognised.", kindDocument: "documents", kindConversation: "conversations", kindPreference: "preferences",
    planning: "Measuring this machine and planning…", option: "Option", value: "Value", takes: "about {0} minutes", predicted: "about {0} bits per byte", same: "The same on a command line:", why: "Why",
    partPretrain: "pretraining", partSft: "SFT", partDpo: "DPO", partRest: "everything else", queued: "waiting", running: "training", stopping: "saving, then it stops", paused: "paused", stateStopped: "stopped", broken: "broken off (power cut, killed)", stateFailed: "failed", stateDone: "done", noJob: "not started here",
    pause: "Pause", resume: "Go on", forget: "Take off the list", clone: "Once more", watchIt: "Curves", talkTo: "Talk", log: "Log", left: "{0} left",
    newName: "New name", sureDeleteRun: "Delete all of “{0}”: data, checkpoints, models?", sayName: "This cannot be undone. Type its name, “{0}”:", notSame: "That is another name; nothing was deleted.",
    up: "↑ Up", choose: "Use it", unchoose: "Leave it out", tooMany: "(the first 500)",
  },
});
