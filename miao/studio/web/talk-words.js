// What the room "Talk" says beside the chat page.
import { learn } from "./words.js";

learn({
  zh: {
    besideModel: "旁边的模型", nobody: "（不要这个）", besideAdd: "＋ 旁边再放一个模型", blind: "盲评：选好之前不看名字", otherServer: "别的服务器…", serverUrl: "地址", serverKey: "API 密钥（没有就留空；只留在内存里）", serverMore: "任何兼容 OpenAI 的服务器：另一台机器上的 miao serve、vLLM、llama.cpp……", findModels: "看看它有什么模型", itsModels: "它的模型", putBeside: "放在旁边",
    best: "这个更好", score: "比分", soMuch: "已有反馈：{0}", learn: "从反馈里学", sureLearn: "用 {0} 的反馈训练一个新模型？原来的不变。", good: "好回答", bad: "差回答", correct: "改正", keepIt: "记下改正", whatLearned: "学到了什么", measuring: "正在量……", effectMore: "“{0}”学的 {1} 条意见，一条一条地看。百分数是学之前和之后每个词元的平均概率：想要的应该变大，不要的应该变小。“现在说”是贪心解码的回答。", effectSums: "想要的回答，现在就这样说的：{0}/{1}。不要的回答，不再这样说的：{2}/{3}。", effectRest: "没有提到的：{0} 个从没学过的对话，{1}。", hasKept: "别的几乎没有变。", hasForgotten: "别的也变差了：反馈再多一些，或者从更早的模型重新学。", wantedAnswer: "想要的", unwantedAnswer: "不要的", saysNow: "现在说", question: "问题", loading: "正在装入这个模型，第一次要等一会儿……",
  },
  en: {
    besideModel: "Model beside", nobody: "(not this one)", besideAdd: "＋ A model beside it", blind: "Blind: no names until I have chosen", otherServer: "Another server…", serverUrl: "Address", serverKey: "API key (empty: none; kept in memory only)", serverMore: "Any OpenAI-compatible server: miao serve on another machine, vLLM, llama.cpp …", findModels: "Look for its models", itsModels: "Its models", putBeside: "Put it beside",
    best: "This is better", score: "Score", soMuch: "Feedback so far: {0}", learn: "Learn from it", sureLearn: "Train a new model on the feedback to {0}? The old one stays as it is.", good: "A good answer", bad: "A bad answer", correct: "Correct", keepIt: "Keep the correction", whatLearned: "What has it learned?", measuring: "Measuring…", effectMore: "What became of the {1} opinions that “{0}” learned from. Percentages are the mean probability of a token before and after: wanted answers should have grown, unwanted ones shrunk. “Says now” is its greedy answer.", effectSums: "Wanted answers that it now gives: {0} of {1}. Unwanted answers that it no longer gives: {2} of {3}.", effectRest: "What nobody spoke of: {0} conversations that it never learned from, {1}. ", hasKept: "The rest has hardly changed.", hasForgotten: "The rest has become worse: give it more feedback, or learn again from an earlier model.", wantedAnswer: "wanted", unwantedAnswer: "unwanted", saysNow: "says now", question: "Question", loading: "Loading this model; the first time takes a while…",
  },
});
