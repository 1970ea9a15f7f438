// What the page says, in the language of the browser or the one that was chosen.
import { GLASS } from "./glasswords.js";
import { at, make } from "./nodes.js";

const WORDS = {
  zh: {
    chats: "对话", newChat: "新对话", glass: "看里面", settings: "设置", about: "介绍", ask: "说点什么…", send: "发送", stop: "停止", done: "完成", reset: "恢复默认", close: "关闭", otherLanguage: "English",
    again: "重新生成", retry: "重试", edit: "编辑", saveEdit: "发送修改", cancel: "取消", copy: "复制", copied: "已复制", notCopied: "复制失败", sureEdit: "之后的对话会被删去。继续？",
    loading: "正在读取模型…", loadingPart: "正在读取模型… {0}%", damaged: "文件已损坏或不完整，请重新下载或拷贝。", failed: "出错了：{0}", needsServer: "这个文件夹要放到网站上打开。想要双击就能打开的单个文件，用 miao export --to page。", missing: "读不到模型的一部分（{0}）。检查网络后刷新这一页。",
    tooLong: "放不进模型的上下文（{0} 个词元）。把这一条改短，或者开始新对话。", full: "浏览器不肯保存这次对话；可以在“对话”里导出它。",
    welcome: "你好，我是一棵刚长出来的小模型。", welcomeMore: "我就在这一页里：你说的话不会离开这台设备。", ideas: ["你好，你是谁？", "四川的省会是哪里？", "56加27等于多少？", "讲一个关于小猫的故事。"], continues: "这是一个没有学过对话的基础模型：写一个开头，它接着写。",
    stats: "{0} 词元，每秒 {1} 个", count: "{0} 词元", stopped: "已停止", length: "到达长度上限", left: "最早的 {0} 条消息放不下，没有给模型看", thought: "思考过程", system: "系统提示",
    top_k: "top_k", max_new_tokens: "最长回答（词元）",
    noChats: "这里还没有对话。", untitled: "新对话", remove: "删除", sureDelete: "删除这个对话？", exportAll: "导出全部", importFile: "导入", imported: "导入了 {0} 个对话。", badImport: "第 {0} 行不是对话，没有导入任何内容。", keptHere: "对话只保存在这个浏览器里。导出的 JSONL 每行一个对话，Miao 可以直接拿来训练。",
    name: "模型", parameters: "参数", architecture: "架构", weights: "权重", context: "上下文", tokens: "词元", license: "许可证", stage: "阶段", steps: "步", time: "用时", loss: "损失", chance: "瞎猜", category: "类别", items: "题数", base: "起点", machine: "环境", made: "用 Miao 苗训练",
    data: "读过什么", source: "来源", origin: "出处", records: "训练条数", characters: "字符", training: "怎么长大的", scores: "成绩", scoresMore: "用留出、从未参与训练的记录测得；± 是一个标准误，“瞎猜”是乱选的成绩。", unknown: "没有留下记录，所以不知道。", limits: "它只知道读过的东西，说得流利也可能是错的；没有检查过安全性和偏见。别把它的话当作事实、建议或决定的依据。", recipe: "再种一棵", recipeMore: "把下面的配方存成 recipe.yaml，装好 Miao，运行 miao run recipe.yaml。",
    ...GLASS.zh,
  },
  en: {
    chats: "Chats", newChat: "New chat", glass: "Look inside", settings: "Settings", about: "About", ask: "Say something…", send: "Send", stop: "Stop", done: "Done", reset: "Reset", close: "Close", otherLanguage: "中文",
    again: "Regenerate", retry: "Try again", edit: "Edit", saveEdit: "Send the change", cancel: "Cancel", copy: "Copy", copied: "Copied", notCopied: "Not copied", sureEdit: "What follows will be removed. Go on?",
    loading: "Reading the model…", loadingPart: "Reading the model… {0}%", damaged: "This file is damaged or incomplete: download or copy it again.", failed: "An error: {0}", needsServer: "This folder belongs on a web site. For one file that opens by double click: miao export --to page.", missing: "A part of the model ({0}) cannot be read. Check the network, then reload this page.",
    tooLong: "This does not fit the model's context of {0} tokens. Make the message shorter, or begin a new chat.", full: "The browser does not keep this chat; it can be exported under “Chats”.",
    welcome: "Hello, I am a small model that has just sprouted.", welcomeMore: "I live in this page: what you say does not leave this device.", ideas: ["Hello, who are you?", "What is the capital of France?", "What is 62 minus 27?", "Tell me a story about a rabbit."], continues: "A base model, which has not learnt to converse: write a beginning, and it goes on.",
    stats: "{0} tokens, {1} per second", count: "tokens: {0}", stopped: "stopped", length: "length limit reached", left: "the {0} oldest messages did not fit and were not read", thought: "Thinking", system: "System prompt",
    top_k: "top_k", max_new_tokens: "Longest answer (tokens)",
    noChats: "There are no chats here yet.", untitled: "New chat", remove: "Delete", sureDelete: "Delete this chat?", exportAll: "Export all", importFile: "Import", imported: "Chats imported: {0}.", badImport: "Line {0} is no chat; nothing was imported.", keptHere: "Chats are kept in this browser only. The exported JSONL has a chat on each line, and Miao trains on it as it is.",
    name: "model", parameters: "parameters", architecture: "architecture", weights: "weights", context: "context", tokens: "tokens", license: "license", stage: "stage", steps: "steps", time: "time", loss: "loss", chance: "chance", category: "category", items: "items", base: "began as", machine: "made with", made: "grown with Miao 苗",
    data: "What it read", source: "source", origin: "origin", records: "records", characters: "characters", training: "How it grew", scores: "Scores", scoresMore: "On held-out records, never trained on; ± is one standard error, “chance” is what guessing gives.", unknown: "There is no record of it, so it is unknown.", limits: "It knows what it read and little else, and what it says fluently may be wrong; it has not been examined for safety or bias. Do not rely on it for facts, advice or decisions.", recipe: "Grow it again", recipeMore: "Save this recipe as recipe.yaml, install Miao, and run: miao run recipe.yaml",
    ...GLASS.en,
  },
};
let language = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";

/** A phrase; {0}, {1} stand for the values. */
export const say = (key, ...values) => values.reduce((text, value, i) => text.replaceAll(`{${i}}`, () => value), WORDS[language][key] ?? key);

/** Writes all phrases into the page. */
export function speak(chosen = language) {
  language = chosen in WORDS ? chosen : language;
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const node of document.querySelectorAll("[data-say]")) node.textContent = say(node.dataset.say);
  for (const node of document.querySelectorAll("[data-label]")) { node.title = say(node.dataset.label); node.setAttribute("aria-label", node.title); }
  for (const node of document.querySelectorAll("[data-placeholder]")) { node.placeholder = say(node.dataset.placeholder); node.setAttribute("aria-label", node.placeholder); }
}
export const otherLanguage = () => (language === "zh" ? "en" : "zh");

export function button(key, action, css = "plain") {
  const node = make("button", css, say(key));
  node.type = "button";
  node.addEventListener("click", () => action(node));
  return node;
}

export function notice(text) {
  at("notice").textContent = text;
  at("notice").hidden = !text;
}

export async function copyText(text, from) {
  let isCopied = true;
  try { await navigator.clipboard.writeText(text); } catch {
    const area = make("textarea");
    area.value = text;
    (from.closest("dialog") ?? document.body).append(area);
    area.select();
    isCopied = document.execCommand("copy");
    area.remove();
  }
  from.textContent = say(isCopied ? "copied" : "notCopied");
  setTimeout(() => { from.textContent = say("copy"); }, 1200);
}
