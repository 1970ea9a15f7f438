// How full a model's context is, and which turns of a long chat are still sent to it.

const ROOM = 0.75; // what is asked may fill so much of the context; the rest is for the answer
const contexts = new Map(); // name of a model -> tokens

export const learnContexts = (models) => models.forEach((model) => contexts.set(model.id, model.context));
export const contextOf = (model) => contexts.get(model);

const letters = (messages) => JSON.stringify(messages).length;

/** Notes what an answer says of its size: `chat.rate` is tokens per letter of what was sent. */
export function learnSize(chat, sent, usage) {
  if (usage?.prompt_tokens) chat.rate = usage.prompt_tokens / letters(sent);
}

/** The first message that is sent, a user's: all before it have become too many. */
export function firstSent(chat, model, leavesOut) {
  const { messages } = chat;
  let from = messages[chat.from]?.role === "user" ? chat.from : 0;
  if (!leavesOut) from = 0;
  const room = (contextOf(model) ?? Infinity) * ROOM;
  while (leavesOut && chat.rate && letters(messages.slice(from)) * chat.rate > room && nextTurn(messages, from)) from = nextTurn(messages, from);
  chat.from = from;
  return from;
}

/** Leaves out one turn more; false where only the last one is left. */
export function leaveOutOne(chat) {
  const next = nextTurn(chat.messages, chat.from ?? 0);
  if (next) chat.from = next;
  return Boolean(next);
}

/** The index of the user's next message; 0: there is none. */
const nextTurn = (messages, from) => Math.max(0, messages.findIndex((message, index) => index > from && message.role === "user"));
