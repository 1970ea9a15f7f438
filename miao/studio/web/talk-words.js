// What the room "Talk" says beside the chat page.
import { learn } from "./words.js";

learn({
  zh: {
    besideModel: "旁边的模型", nobody: "（不要这个）", besideAdd: "＋ 旁边再放一个模型", blind: "盲评：选好之前不看名字", otherServer: "别的服务器…", serverUrl: "兼容 OpenAI 的服务器地址", serverKey: "它的 API 密钥（没有就留空；只留在内存里）",
    best: "这个更好", score: "比分", soMuch: "已有反馈：{0}", learn: "从反馈里学", sureLearn: "用 {0} 的反馈训练一个新模型？原来的不变。", good: "好回答", bad: "差回答", correct: "改正", keepIt: "记下改正", whatLearned: "学到了什么", measuring: "正在量……", effectMore: "“{0}”学过的回答，在学之前和之后有多大可能（每个词元的平均概率）。👍 应该变大，👎 应该变小。", question: "问题", wasBefore: "之前", isNow: "之后", loading: "正在装入这个模型，第一次要等一会儿……",
  },
  en: {
    besideModel: "Model beside", nobody: "(not this one)", besideAdd: "＋ A model beside it", blind: "Blind: no names until I have chosen", otherServer: "Another server…", serverUrl: "Address of an OpenAI-compatible server", serverKey: "Its API key (empty: none; kept in memory only)",
    best: "This is better", score: "Score", soMuch: "Feedback so far: {0}", learn: "Learn from it", sureLearn: "Train a new model on the feedback to {0}? The old one stays as it is.", good: "A good answer", bad: "A bad answer", correct: "Correct", keepIt: "Keep the correction", whatLearned: "What has it learned?", measuring: "Measuring…", effectMore: "How likely the answers that “{0}” learned from were before, and are now (mean probability of a token). 👍 should have grown, 👎 shrunk.", question: "Question", wasBefore: "before", isNow: "now", loading: "Loading this model; the first time takes a while…",
  },
});
