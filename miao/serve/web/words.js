// What the pages say, in both languages, and the choice between them and between light and dark.

export const WORDS = {
  zh: {
    newChat: "＋ 新对话", chats: "对话", export: "导出", import: "导入", deleteAll: "全部删除", close: "关闭",
    model: "模型", rooms: "房间", grow: "培育", watch: "观察", talk: "对话", inside: "透视", data: "数据", language: "Switch to English", otherLanguage: "EN", theme: "浅色 / 深色", settings: "设置",
    retry: "重试", ask: "说点什么…", send: "发送", stop: "停止",
    system: "系统提示", emptyMeans: "留空的采样设置由服务器决定。", temperature: "温度",
    repetition: "重复惩罚", presence: "出现惩罚", frequency: "频率惩罚", maxTokens: "最长回答（词元）",
    seed: "随机种子", thinking: "思考", byModel: "由模型决定", on: "开", off: "关",
    toolList: "工具（OpenAI 格式的 JSON 列表）", key: "API 密钥（仅保存到关闭此标签页为止）", reset: "恢复默认", done: "完成",
    you: "你", assistant: "苗", tool: "工具结果", copy: "复制", copied: "已复制", notCopied: "复制失败", edit: "编辑", regenerate: "重新生成",
    save: "发送修改", cancel: "取消", remove: "删除", rename: "重命名", untitled: "新对话",
    thought: "思考过程", thinkingNow: "正在思考…", call: "调用工具", result: "结果", sendResults: "交回结果",
    welcome: "你好，我是一棵刚长出来的小模型。", welcomeMore: "对话只保存在这个浏览器里。", answering: "正在回答…", toEnd: "到最下面",
    idea1: "你好，你是谁？", idea2: "四川的省会是哪里？", idea3: "56加27等于多少？", idea4: "讲一个关于小猫的故事。",
    token: "词元", tokens: "词元", perSecond: "词元/秒", first: "首词元", stopped: "已停止", cutShort: "到达长度上限",
    busy: "服务器正忙，请求太多。{0} 秒后再试。", gone: "连不上服务器。它可能已停止，或网络断开了。",
    broke: "回答中断：与服务器的连接断了。", refused: "服务器拒绝了请求：{0}", needKey: "服务器需要 API 密钥，请在设置里填写。",
    failed: "服务器出错：{0}", full: "浏览器的存储已满，这次对话没有保存。请导出后删除旧的对话。",
    badImport: "第 {0} 行不是对话，没有导入任何内容。", imported: "导入了 {0} 个对话。", sureDelete: "删除这个对话？",
    sureDeleteAll: "删除此浏览器里的全部 {0} 个对话？", sureEdit: "之后的对话会被删去。继续？", notJson: "工具不是 JSON 列表。", notNumber: "{0}：数值不合要求。",
    leftOut: "上面 {0} 条消息太早，上下文放不下，不再发给模型。", used: "上下文已用 {0}%", tooLong: "放不进模型的上下文（{0} 个词元）。把这一条改短，或者开始新对话。",
    overflow: "对话太长时", leaveOut: "略去最早的几轮", halt: "停下来告诉我", newTitle: "新的标题", back: "服务器又能用了。",
    board: "训练看板", chat: "对话", allRuns: "运行", noRuns: "这里还没有运行。先训练一个，这一页会自己更新：miao run seedling", pick: "选几个运行，它们的曲线会画在一起。",
    loss: "损失", heldout: "留出文本（比特/字节）", speed: "每秒词元", scores: "评测", samples: "生成样例", lr: "学习率",
    stage: "阶段", live: "进行中", task: "项目", chance: "瞎猜", at: "在 {0} 词元时", unreadable: "损坏而略去：{0}", more: "另外 {0} 项",
    gradNorm: "梯度范数", tasks: "训练中的考题（early：0 为瞎猜）", noCurves: "还没有曲线。", left: "还剩 {0}", whole: "看全部", howToZoom: "横着拖选一段放大，双击还原；点曲线下的标记看那里发生了什么。", checkpoint: "检查点", skipped: "跳过一步", rollback: "退回检查点", overflow: "溢出，缩小了损失倍数", resumed: "中断后继续", filter: "按名字筛选",
  },
  en: {
    newChat: "＋ New chat", chats: "Chats", export: "Export", import: "Import", deleteAll: "Delete all", close: "Close",
    model: "Model", rooms: "Rooms", grow: "Grow", watch: "Watch", talk: "Talk", inside: "Look inside", data: "Data", language: "切换到中文", otherLanguage: "中文", theme: "Light / dark", settings: "Settings",
    retry: "Try again", ask: "Say something…", send: "Send", stop: "Stop",
    system: "System prompt", emptyMeans: "The server decides sampling settings that are left empty.", temperature: "Temperature",
    repetition: "Repetition penalty", presence: "Presence penalty", frequency: "Frequency penalty", maxTokens: "Longest answer (tokens)",
    seed: "Seed", thinking: "Thinking", byModel: "As the model likes", on: "On", off: "Off",
    toolList: "Tools (a JSON list as OpenAI writes it)", key: "API key (kept until this tab is closed)", reset: "Reset", done: "Done",
    you: "You", assistant: "Miao", tool: "Tool result", copy: "Copy", copied: "Copied", notCopied: "Not copied", edit: "Edit", regenerate: "Regenerate",
    save: "Send the change", cancel: "Cancel", remove: "Delete", rename: "Rename", untitled: "New chat",
    thought: "Thinking", thinkingNow: "Thinking…", call: "Tool call", result: "Result", sendResults: "Hand back results",
    welcome: "Hello, I am a small model that has just sprouted.", welcomeMore: "Chats are kept in this browser only.", answering: "Answering…", toEnd: "To the end",
    idea1: "Hello, who are you?", idea2: "What is the capital of France?", idea3: "What is 62 minus 27?", idea4: "Tell me a story about a rabbit.",
    token: "token", tokens: "tokens", perSecond: "tokens/s", first: "first token", stopped: "stopped", cutShort: "length limit reached",
    busy: "The server is busy with other requests. Try again in {0} s.", gone: "The server cannot be reached. It may have stopped, or the network is down.",
    broke: "The answer broke off: the connection to the server was lost.", refused: "The server refused: {0}", needKey: "The server wants an API key: enter it in the settings.",
    failed: "An error on the server: {0}", full: "The browser's storage is full; this chat was not saved. Export, then delete old chats.",
    badImport: "Line {0} is no chat; nothing was imported.", imported: "Chats imported: {0}.", sureDelete: "Delete this chat?",
    sureDeleteAll: "Delete every chat of this browser ({0})?", sureEdit: "What follows will be removed. Go on?", notJson: "The tools are no JSON list.", notNumber: "{0}: not an allowed number.",
    leftOut: "The {0} messages above no longer fit the context and are not sent to the model.", used: "context {0}% full", tooLong: "This does not fit the model's context of {0} tokens. Make the message shorter, or begin a new chat.",
    overflow: "When a chat is too long", leaveOut: "Leave out the oldest turns", halt: "Stop and tell me", newTitle: "New title", back: "The server is back.",
    board: "Runs", chat: "Chat", allRuns: "Runs", noRuns: "There are no runs here yet. Train one, and this page will show it: miao run seedling", pick: "Choose runs; their curves are drawn together.",
    loss: "Loss", heldout: "Held-out text, bits per byte", speed: "Tokens per second", scores: "Evaluation", samples: "Samples", lr: "Learning rate",
    stage: "Stage", live: "live", task: "Task", chance: "chance", at: "at {0} tokens", unreadable: "damaged, left out: {0}", more: "{0} more",
    gradNorm: "Gradient norm", tasks: "Tasks while training (early: 0 is guessing)", noCurves: "No curves yet.", left: "{0} left", whole: "Show all", howToZoom: "Drag across a part to enlarge it, double-click for all; click a mark below the curve for what happened there.", checkpoint: "checkpoint", skipped: "a step was skipped", rollback: "back to a checkpoint", overflow: "overflow, smaller loss scale", resumed: "went on after a break", filter: "Filter by name",
  },
};

/** Keeps a choice where the server sees it, which writes the page in that language and theme. */
const remember = (key, value) => { document.cookie = `miao-${key}=${value}; path=/; max-age=31536000; samesite=lax`; };

/** Adds a room's own phrases, before `preferences` writes them into its page. */
export function learn(words) {
  for (const [name, phrases] of Object.entries(words)) Object.assign(WORDS[name], phrases);
}

let language = document.documentElement.lang.slice(0, 2); // the server has chosen

/** A phrase in the chosen language; {0} stands for the value. */
export const say = (key, ...values) => (values.length ? values : [""]).reduce((text, value, i) => text.replaceAll(`{${i}}`, () => value), WORDS[language][key]);

/** Writes all phrases into the page. */
export function speak() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-say]")) element.textContent = say(element.dataset.say);
  for (const element of document.querySelectorAll("[data-placeholder]")) {
    element.placeholder = say(element.dataset.placeholder);
    element.setAttribute("aria-label", element.placeholder);
  }
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", say(element.dataset.label));
    if (element.tagName === "BUTTON") element.title = say(element.dataset.label);
  }
}

/** The buttons for language and theme; `changed` is called after the language has. */
export function preferences(changed) {
  const theme = document.getElementById("theme");
  const media = matchMedia("(prefers-color-scheme: dark)");
  let chosen = document.documentElement.dataset.theme;
  const paint = () => {
    const dark = chosen ? chosen === "dark" : media.matches;
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    theme.textContent = dark ? "☀" : "☾";
  };
  theme.addEventListener("click", () => {
    chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    remember("theme", chosen);
    paint();
  });
  media.addEventListener("change", paint);
  document.getElementById("language").addEventListener("click", () => {
    language = language === "zh" ? "en" : "zh";
    remember("language", language);
    speak();
    changed();
  });
  paint();
  speak();
}

/** A number in a few characters. */
export function quantity(value) {
  for (const [size, letter] of [[1e9, "B"], [1e6, "M"], [1e3, "K"]]) if (Math.abs(value) >= size) return `${Number((value / size).toPrecision(3))}${letter}`;
  return value && Math.abs(value) < 1e-3 ? value.toExponential(1) : Number(value.toPrecision(3)).toString();
}
