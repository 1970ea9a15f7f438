// What the room "Talk" says beside the chat page.
import { learn } from "./words.js";

learn({
  zh: {
    besideModel: "旁边的模型", nobody: "（不要这个）", besideAdd: "＋ 旁边再放一个模型", blind: "盲评：选好之前不看名字", otherServer: "别的服务器…", serverUrl: "兼容 OpenAI 的服务器地址", serverKey: "它的 API 密钥（没有就留空；只留在内存里）",
    best: "这个更好", score: "比分", soMuch: "已有反馈：{0}", learn: "从反馈里学", sureLearn: "用 {0} 的反馈训练一个新模型？原来的不变。", good: "好回答", bad: "差回答", correct: "改正", keepIt: "记下改正",
  },
  en: {
    besideModel: "Model beside", nobody: "(not this one)", besideAdd: "＋ A model beside it", blind: "Blind: no names until I have chosen", otherServer: "Another server…", serverUrl: "Address of an OpenAI-compatible server", serverKey: "Its API key (empty: none; kept in memory only)",
    best: "This is better", score: "Score", soMuch: "Feedback so far: {0}", learn: "Learn from it", sureLearn: "Train a new model on the feedback to {0}? The old one stays as it is.", good: "A good answer", bad: "A bad answer", correct: "Correct", keepIt: "Keep the correction",
  },
});
