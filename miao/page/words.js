// What the page says, in the language of the browser.
const WORDS = {
  zh: {
    newChat: "新对话", export: "导出", settings: "设置", about: "介绍", ask: "说点什么…", send: "发送", stop: "停止", again: "重新生成", done: "完成", reset: "恢复默认",
    loading: "正在读取模型…", damaged: "文件已损坏或不完整，请重新下载或拷贝。", failed: "出错了：{0}", tooLong: "放不进模型的上下文（{0} 个词元）。把这一条改短，或者开始新对话。", full: "浏览器不肯保存这次对话；可以导出它。",
    welcome: "你好，我是一棵刚长出来的小模型。", welcomeMore: "我就在这个文件里：不联网，你说的话不会离开这台设备。", ideas: ["你好，你是谁？", "四川的省会是哪里？", "56加27等于多少？", "讲一个关于小猫的故事。"], continues: "这是一个没有学过对话的基础模型：写一个开头，它接着写。",
    stats: "{0} 词元，每秒 {1} 个", stopped: "已停止", length: "到达长度上限", left: "最早的 {0} 条消息放不下，没有给模型看", thought: "思考过程", system: "系统提示",
    temperature: "温度", top_p: "top_p", top_k: "top_k", repetition_penalty: "重复惩罚", max_new_tokens: "最长回答（词元）",
    name: "模型", parameters: "参数", architecture: "架构", weights: "权重", context: "上下文", tokens: "词元", trained: "训练", license: "许可证", made: "用 Miao 苗训练", scores: "评测", stage: "阶段", steps: "步", time: "时间", loss: "损失", chance: "瞎猜", category: "类别", items: "题数",
  },
  en: {
    newChat: "New chat", export: "Export", settings: "Settings", about: "About", ask: "Say something…", send: "Send", stop: "Stop", again: "Regenerate", done: "Done", reset: "Reset",
    loading: "Reading the model…", damaged: "This file is damaged or incomplete: download or copy it again.", failed: "An error: {0}", tooLong: "This does not fit the model's context of {0} tokens. Make the message shorter, or begin a new chat.", full: "The browser does not keep this chat; it can be exported.",
    welcome: "Hello, I am a small model that has just sprouted.", welcomeMore: "I live in this file: no network, and what you say does not leave this device.", ideas: ["Hello, who are you?", "What is the capital of France?", "What is 62 minus 27?", "Tell me a story about a rabbit."], continues: "A base model, which has not learnt to converse: write a beginning, and it goes on.",
    stats: "{0} tokens, {1} per second", stopped: "stopped", length: "length limit reached", left: "the {0} oldest messages did not fit and were not read", thought: "Thinking", system: "System prompt",
    temperature: "Temperature", top_p: "top_p", top_k: "top_k", repetition_penalty: "Repetition penalty", max_new_tokens: "Longest answer (tokens)",
    name: "model", parameters: "parameters", architecture: "architecture", weights: "weights", context: "context", tokens: "tokens", trained: "trained", license: "license", made: "grown with Miao 苗", scores: "Scores", stage: "stage", steps: "steps", time: "time", loss: "loss", chance: "chance", category: "category", items: "items",
  },
};
const language = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
const say = (key, ...values) => values.reduce((text, value, i) => text.replaceAll(`{${i}}`, value), WORDS[language][key] ?? key);
